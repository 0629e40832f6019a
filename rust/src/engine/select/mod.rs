//! One function per policy over a view that is already filtered.
