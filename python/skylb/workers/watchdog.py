"""Finds children that stand still: stopped by a signal, or with an event loop that hangs."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

SILENCE_S = 5.0
"""An engine process that has not beaten for so long hangs. A false alarm costs no stream."""

WORKER_SILENCE_S = 15.0
"""A worker that has not beaten for so long hangs. A false alarm costs its streams."""

START_S = 30.0
"""What a process may take to its first beat, when it loads all code, and when it has got its `Boot`."""

LATE_S = 2.0
"""A supervisor that looks so long after its last look was not scheduled itself: it may blame nobody."""


class Watched(Protocol):
    """A child, as the watchdog sees it."""

    beat_ns: int
    beats: bool


T = TypeVar("T", bound=Watched)


class Watchdog:
    """Compares the times of beats, whenever the supervisor looks."""

    def __init__(self) -> None:
        self._looked_ns: int | None = None

    def silent(self, children: Iterable[tuple[T, float]], now_ns: int) -> list[T]:
        """The children that hang.

        Where the supervisor itself was not scheduled, as when the whole machine paused, all children get
        their time anew.

        Args:
            children: each with the silence that it is allowed, in seconds.
            now_ns: by the clock of `beat_ns`.
        """
        before_ns, self._looked_ns = self._looked_ns, now_ns
        if before_ns is not None and now_ns - before_ns > LATE_S * 1e9:
            for child, _ in children:
                child.beat_ns = max(child.beat_ns, now_ns)
            return []
        return [
            child
            for child, silence_s in children
            if now_ns - child.beat_ns > (silence_s if child.beats else START_S) * 1e9
        ]
