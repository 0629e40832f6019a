"""How many bytes TCP would let a connection have under way: slow start, without loss."""

SEGMENT_BYTES = 1460
"""Payload of a segment on Ethernet over IPv4."""

INITIAL_BYTES = 10 * SEGMENT_BYTES
"""RFC 6928: ten segments."""

RTO_MIN_S = 0.2
"""Linux adds at least this to the smoothed round trip (``TCP_RTO_MIN``)."""


class Window:
    """The congestion window of one way of one connection. Bytes are counted, not segments.

    It grows by what is acknowledged while it was what limited the sender (RFC 5681, section 3.1, and
    RFC 7661): it doubles each round trip. After a silence of a retransmission timeout it is back where
    it began (RFC 5681, section 4.1; Linux ``tcp_slow_start_after_idle``).

    Args:
        bytes_max: it never grows beyond; the receiver's window.
        slow_start: ``False`` begins with ``bytes_max``.
    """

    __slots__ = ("_bytes_max", "_peak", "_sent_s", "bytes", "flight")

    def __init__(self, bytes_max: int, *, slow_start: bool = True) -> None:
        self._bytes_max = bytes_max
        self._peak = 0
        self._sent_s = 0.0
        self.bytes = INITIAL_BYTES if slow_start else bytes_max
        self.flight = 0

    def room(self, now_s: float, rtt_s: float, *, slow_start: bool) -> int:
        """Bytes that may be sent now."""
        if not slow_start:
            self.bytes = self._bytes_max
        elif self.flight == 0 and self._peak and now_s - self._sent_s > rtt_s + RTO_MIN_S:
            self.bytes = min(self.bytes, INITIAL_BYTES)
            self._peak = 0
        return self.bytes - self.flight

    def sent(self, count: int, now_s: float) -> None:
        """Takes ``count`` bytes of the room."""
        self.flight += count
        self._peak = max(self._peak, self.flight)
        self._sent_s = now_s

    def acked(self, count: int) -> None:
        """``count`` bytes have arrived, and the sender knows it."""
        self.flight -= count
        if 2 * self._peak > self.bytes:
            self.bytes = min(self._bytes_max, self.bytes + count)
