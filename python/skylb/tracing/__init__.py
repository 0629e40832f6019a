"""Spans of requests on their way to an OpenTelemetry collector.

The core makes the spans when a request ends, and keeps them in a bounded queue (`Recorder.export_spans`). A
thread takes and posts them. docs/TRACING.md says what a span has, which requests are exported, and what is
dropped when.
"""
