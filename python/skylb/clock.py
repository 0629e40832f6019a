"""Time, read in one place. Everything else takes it as an argument or calls this."""

import time

monotonic_ns = time.monotonic_ns
"""Nanoseconds of a clock that never jumps; the engine's time."""

unix_ns = time.time_ns
"""Nanoseconds since 1970 of the wall clock, which may jump: for moments that files name."""

process_ns = time.process_time_ns
"""Nanoseconds of CPU time that this process has used, all threads together."""

STOOD_STILL_S = 1.0
"""A timer that is later than this found the whole process standing still: stopped, or kept from the CPU.
Timers go before sockets, so that what came meanwhile is still unread, and nobody may be taken for silent."""


_TRIES = 5


class Standstill:
    """Tells a periodic callback that the process stood still just before it.

    One that is late again and again is told so every other time: it must get to its work.

    Args:
        interval_s: time between two calls.
    """

    __slots__ = ("_due_ns", "_interval_ns", "_told")

    def __init__(self, interval_s: float) -> None:
        self._interval_ns = round(interval_s * 1e9)
        self._due_ns: int | None = None
        self._told = False

    def before(self, now_ns: int) -> bool:
        """Whether it did, before this call."""
        late_ns = now_ns - self._due_ns if self._due_ns is not None else 0
        self._due_ns = now_ns + self._interval_ns
        self._told = late_ns > STOOD_STILL_S * 1e9 and not self._told
        return self._told


def unix_offset_ns() -> int:
    """Wall clock minus monotonic clock, in nanoseconds, at the moment of the call.

    Another process may have the CPU between two readings. Of some tries the shortest is the best.
    """
    tries = []
    for _ in range(_TRIES):
        before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2))
    return min(tries)[1]
