"""A request's body while it arrives: kept and charged, or, after a refusal, read and dropped."""

from typing import Protocol

from skylb._core import ChunkedDecoder, Head, RequestError
from skylb.data.answers import refusal
from skylb.data.context import Budget

GRACE_S = 5.0
"""A body's minimum rate counts from here on; behind a refusal it is looked at so often."""


class Hash(Protocol):
    """A digest that grows with the body."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""

    def hexdigest(self) -> str:
        """The digest so far."""


class Body:
    """One body and its framing.

    Args:
        head: of the request.
        bytes_max: a longer body is refused.
        budget: charged with what is kept.
        start_ns: when the head was complete.
    """

    __slots__ = (
        "_budget",
        "_bytes_max",
        "_decoder",
        "charged",
        "hash",
        "head",
        "lost",
        "parts",
        "rest",
        "start_ns",
    )

    def __init__(self, head: Head, bytes_max: int, budget: Budget, start_ns: int) -> None:
        self.head = head
        self.start_ns = start_ns
        self.parts: list[bytes] | None = []
        """What came; ``None``: the request was refused, and what comes is thrown away."""
        self.charged = 0
        """Bytes that came, as long as they are kept."""
        self.rest: bytes | None = None
        """What came behind the body, as soon as that is complete."""
        self.lost = False
        """The framing broke: where the body ends is not known."""
        self.hash: Hash | None = None
        """Sees what is kept."""
        self._bytes_max = bytes_max
        self._budget = budget
        self._decoder = _Sized(head.content_length) if head.content_length >= 0 else _Chunked(bytes_max)

    @property
    def too_large(self) -> bool:
        """The declared length is above the limit."""
        return self.head.content_length > self._bytes_max

    def feed(self, data: bytes) -> None:
        """Takes bytes from the client.

        Raises:
            RequestError: the framing is broken, or the body too large, or memory is short.
        """
        try:
            if self.parts is None:
                self._decoder.skip(data)
            else:
                self._keep(self.parts, self._decoder.feed(data))
        except RequestError as error:
            self.lost = error.code == "bad_chunk"
            raise
        self.rest = self._decoder.rest

    def _keep(self, parts: list[bytes], data: bytes) -> None:
        if not self._budget.take(len(data)):
            raise refusal("overloaded", "too many request bytes in memory")
        self.charged += len(data)
        parts.append(data)
        if self.hash is not None:
            self.hash.update(data)

    def drop(self) -> None:
        """Gives back what was kept; what still comes is thrown away."""
        self._budget.give(self.charged)
        self.charged = 0
        self.parts = None
        self.rest = self._decoder.rest

    def taken(self) -> list[bytes]:
        """The whole body in parts; its taker charges it anew."""
        parts = self.parts or []
        self._budget.give(self.charged)
        self.charged = 0
        self.parts = None
        return parts


class _Sized:
    """A body with a length."""

    __slots__ = ("_missing", "rest")

    def __init__(self, length: int) -> None:
        self._missing = length
        self.rest: bytes | None = None if length else b""

    def feed(self, data: bytes) -> bytes:
        missing = self._missing
        if len(data) < missing:
            self._missing = missing - len(data)
            return data
        self._missing = 0
        self.rest = data[missing:]
        return data[:missing]

    skip = feed


class _Chunked:
    """A body in chunks."""

    __slots__ = ("_decoder",)

    def __init__(self, bytes_max: int) -> None:
        self._decoder = ChunkedDecoder(bytes_max)

    @property
    def rest(self) -> bytes | None:
        return self._decoder.rest if self._decoder.done else None

    def feed(self, data: bytes) -> bytes:
        return self._decoder.feed(data)

    def skip(self, data: bytes) -> None:
        self._decoder.skip(data)


class Patience:
    """How long a refused client may go on sending: bounded in time, and by a minimum rate.

    Args:
        now_ns: from now on.
        total_s: longest.
        window_s: how often the rate is looked at.
        bytes_per_s_min: slower than this is over.
    """

    __slots__ = ("_bytes_min", "_end_ns", "_heard", "_window_end_ns", "_window_ns")

    def __init__(self, now_ns: int, *, total_s: float, window_s: float, bytes_per_s_min: int) -> None:
        self._end_ns = now_ns + int(total_s * 1e9)
        self._window_ns = int(window_s * 1e9)
        self._window_end_ns = now_ns + self._window_ns
        self._bytes_min = max(1, int(window_s * bytes_per_s_min))
        self._heard = 0

    def heard(self, count: int) -> None:
        """So many bytes came."""
        self._heard += count

    def over(self, now_ns: int) -> bool:
        """Whether it is over; called four times a second."""
        if now_ns < self._window_end_ns:
            return now_ns > self._end_ns
        enough = self._heard >= self._bytes_min
        self._heard = 0
        self._window_end_ns = now_ns + self._window_ns
        return not enough or now_ns > self._end_ns
