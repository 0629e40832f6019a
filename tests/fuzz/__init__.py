"""Fuzzing of what Python reads from elsewhere; the targets in Rust are in ``rust/fuzz``."""
