"""One way of one connection: bytes go in at one end and come out late at the other, in order."""

import asyncio
import math
import random
from collections import deque
from enum import Enum
from typing import Protocol

from skylb.clock import monotonic_ns
from skylb.tools.wan.shape import Shape
from skylb.tools.wan.window import Window

WAITING_BYTES_HIGH = 256 << 10
"""What an end may have sent ahead of its window before no more is read from it."""

WAITING_BYTES_LOW = 64 << 10
PIECE_BYTES = 16 << 10
"""Connections that share a narrow link take turns in pieces of this size."""


def now_s() -> float:
    """The relay's time."""
    return monotonic_ns() / 1e9


class Mark(Enum):
    """What comes after the last byte."""

    FIN = "fin"
    RESET = "reset"


class Way:
    """One direction of a link, shared by all its connections.

    Attributes:
        stalled: nothing moves.
        lost: what is on it never arrives.
        carried_bytes: handed over at its far end.
        lost_bytes: taken at its near end, and gone.
    """

    def __init__(self, origin: str, shape: Shape, random_: random.Random) -> None:
        self.origin = origin
        self.shape = shape
        self.stalled = False
        self.lost = False
        self.carried_bytes = 0
        self.lost_bytes = 0
        self._random = random_
        self._free_s = 0.0

    def arrival_s(self, count: int, at_s: float) -> float:
        """When ``count`` bytes that are sent now have arrived; they take their place on the wire."""
        shape = self.shape
        if shape.bytes_per_s:
            self._free_s = max(at_s, self._free_s) + count / shape.bytes_per_s
            at_s = self._free_s
        return at_s + shape.rtt_s / 2 + self._random.random() * shape.jitter_s


class Owner(Protocol):
    """What a pipe notifies."""

    def lose(self) -> None:
        """Something was lost on the way."""

    def finish(self) -> None:
        """The last byte and what comes after it have been handed over."""


class Pipe:
    """One way of one connection.

    Args:
        way: what carries it.
        back: the opposite direction, on which acknowledgements travel.
        open_s: nothing leaves before: the handshake's round trip.
        owner: is notified of losses and of the end.
    """

    def __init__(self, way: Way, back: Way, open_s: float, owner: Owner) -> None:
        self._way = way
        self._back = back
        self._open_s = open_s
        self._owner = owner
        self._window = Window(way.shape.window_bytes_max, slow_start=way.shape.slow_start)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._flying: deque[tuple[float, bytes | Mark]] = deque()
        self._acks: deque[tuple[float, int]] = deque()
        self._mark: Mark | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._source_paused = False
        self._sink_full = False
        self._closed = False
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.finished = False
        """Whether the last byte and what comes after it have been handed over."""

    # ------------------------------------------------------------------------------ the source

    def feed(self, data: bytes) -> None:
        """Bytes that the source sent."""
        if self._closed:
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > WAITING_BYTES_HIGH and not self._source_paused and self.source is not None:
            self._source_paused = True
            self.source.pause_reading()
        self.move()

    def end(self, mark: Mark) -> None:
        """The source has closed its side, or is gone: then what it has not yet sent is gone too."""
        if self._mark is Mark.RESET or self._closed:
            return
        if mark is Mark.RESET:
            self._waiting.clear()
            self._waiting_bytes = 0
        self._mark = mark
        self.move()

    # -------------------------------------------------------------------------------- the sink

    def opened(self, sink: asyncio.Transport) -> None:
        """The far end is there."""
        self.sink = sink
        self.move()

    def hold(self) -> None:
        """The far end takes no more."""
        self._sink_full = True

    def resume(self) -> None:
        """The far end takes more."""
        self._sink_full = False
        self.move()

    # ------------------------------------------------------------------------------ in between

    def move(self) -> None:
        """Does what is due, and arranges to be called when the next thing is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed or self._way.stalled:
            return
        now = now_s()
        self._deliver(now)
        self._hear(now)
        self._send(now)
        due_s = self._due_s(now)
        if due_s is not None and not self._closed:
            # libuv's timers count milliseconds: rounded up, or it would fire early and again.
            delay_s = math.ceil(max(due_s - now, 0.0) * 1e3) / 1e3
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.move)

    def _due_s(self, now: float) -> float | None:
        due = []
        if self._flying and self.sink is not None and not self._sink_full:
            due.append(self._flying[0][0])
        if self._acks and not (self._back.lost or self._back.stalled):
            due.append(self._acks[0][0])
        if self._waiting and now < self._open_s:
            due.append(self._open_s)
        return min(due, default=None)

    def _deliver(self, now: float) -> None:
        while self._flying and self._flying[0][0] <= now:
            if self._way.lost:
                self._lose(self._flying.popleft()[1])
            elif self.sink is None or self._sink_full:
                return
            else:
                self._arrive(self._flying.popleft()[1], self.sink, now)

    def _arrive(self, item: bytes | Mark, sink: asyncio.Transport, now: float) -> None:
        if isinstance(item, bytes):
            sink.write(item)
            self._way.carried_bytes += len(item)
            self._acks.append((now + self._back.shape.rtt_s / 2, len(item)))
            return
        self.finished = True
        if item is Mark.RESET:
            sink.abort()
        else:
            if not sink.is_closing():
                sink.write_eof()
            self._owner.finish()

    def _lose(self, item: bytes | Mark) -> None:
        self._way.lost_bytes += len(item) if isinstance(item, bytes) else 0
        self._owner.lose()

    def _hear(self, now: float) -> None:
        if self._back.lost or self._back.stalled:
            return
        while self._acks and self._acks[0][0] <= now:
            self._window.acked(self._acks.popleft()[1])

    def _send(self, now: float) -> None:
        if now < self._open_s:
            return
        shape = self._way.shape
        while self._waiting:
            room = self._window.room(now, shape.rtt_s, slow_start=shape.slow_start)
            if room <= 0:
                return
            piece = self._take(min(room, PIECE_BYTES))
            self._window.sent(len(piece), now)
            self._fly(piece, len(piece), now)
        if self._mark is not None:
            mark, self._mark = self._mark, None
            self._fly(mark, 0, now)

    def _fly(self, item: bytes | Mark, count: int, now: float) -> None:
        if self._way.lost:
            self._lose(item)
            return
        before_s = self._flying[-1][0] if self._flying else 0.0
        self._flying.append((max(before_s, self._way.arrival_s(count, now)), item))

    def _take(self, most: int) -> bytes:
        piece = self._waiting.popleft()
        if len(piece) > most:
            self._waiting.appendleft(piece[most:])
            piece = piece[:most]
        self._waiting_bytes -= len(piece)
        if self._source_paused and self._waiting_bytes < WAITING_BYTES_LOW and self.source is not None:
            self._source_paused = False
            if not self.source.is_closing():
                self.source.resume_reading()
        return piece

    def close(self) -> None:
        """Forgets everything."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._flying.clear()
        self._acks.clear()
        self.source = self.sink = None
