//! Per-request counters, histograms and access-log lines: one call per request.
