"""Time, read in one place. Everything else takes it as an argument or calls this."""

import time

monotonic_ns = time.monotonic_ns
"""Nanoseconds of a clock that never jumps; the engine's time."""

process_ns = time.process_time_ns
"""Nanoseconds of CPU time that this process has used, all threads together."""

STOOD_STILL_S = 1.0
"""A timer that is later than this found the whole process standing still: stopped, or kept from the CPU.
Timers go before sockets, so that what came meanwhile is still unread, and nobody may be taken for silent."""


def unix_offset_ns() -> int:
    """Wall clock minus monotonic clock, in nanoseconds, at the moment of the call."""
    return time.time_ns() - time.monotonic_ns()
