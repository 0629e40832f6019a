"""Time, read in one place. Everything else takes it as an argument or calls this."""

import time

monotonic_ns = time.monotonic_ns
"""Nanoseconds of a clock that never jumps; the engine's time."""

process_ns = time.process_time_ns
"""Nanoseconds of CPU time that this process has used, all threads together."""


def unix_offset_ns() -> int:
    """Wall clock minus monotonic clock, in nanoseconds, at the moment of the call."""
    return time.time_ns() - time.monotonic_ns()
