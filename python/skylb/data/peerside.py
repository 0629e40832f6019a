"""The peer listener: connections of other balancers, which bring forwarded requests only."""

import socket

from skylb._core import Head, RequestError
from skylb.clock import monotonic_ns
from skylb.data.answers import Headers, refusal
from skylb.data.client import ClientConnection, Connections
from skylb.data.crossing import PROCESSING, PROCESSING_S, Crossing
from skylb.data.phases import Phase
from skylb.listeners import notice_dead_paths
from skylb.signing import REFUSED_HEADER, Refused, Verified

WAITING = frozenset({Phase.SUBMIT, Phase.HOLD, Phase.CONNECT, Phase.WAIT})


class PeerConnection(ClientConnection):
    """One connection of a peer.

    Every request carries a signature, verified before a byte of its body is kept; what it vouches for,
    the number of hops above all, is believed, and nothing else is.
    """

    __slots__ = ("_crossing", "_said_ns", "_verified")

    def __init__(self, frontend: Connections, scheme: str, crossing: Crossing) -> None:
        super().__init__(frontend, scheme)
        self._crossing = crossing
        self._verified: Verified | None = None
        self._said_ns = 0

    def set_up(self) -> None:
        """A path that dies without a word must be noticed."""
        super().set_up()
        sock = self.transport.get_extra_info("socket")
        if isinstance(sock, socket.socket):
            notice_dead_paths(sock)

    def _begin_body(self, head: Head, rest: bytes, now_ns: int) -> None:
        if self._let_in(head, now_ns):
            super()._begin_body(head, rest, now_ns)

    def _begin(self, head: Head, body: bytes, now_ns: int) -> None:
        if self._verified is None and not self._let_in(head, now_ns):
            return
        verified, self._verified = self._verified, None
        if verified is None:
            return
        try:
            self._crossing.compare(verified, body)
        except Refused as refused:
            self._turn_away(refused, head)
            return
        self.claims = verified.claims
        self.trusted = True  # the peer has looked at X-Forwarded-* before us
        self._said_ns = now_ns
        super()._begin(head, body, now_ns)

    def _let_in(self, head: Head, now_ns: int) -> bool:
        try:
            self._verified = self._crossing.verify(head, self.transport, now_ns)
        except Refused as refused:
            self._turn_away(refused, head)
            return False
        return True

    def _turn_away(self, refused: Refused, head: Head) -> None:
        error = refusal(403, "forward_refused", f"the forward's signature: {refused.reason}")
        self._refuse(error, head, headers=((REFUSED_HEADER, refused.reason),))

    def _answer_refusal(
        self,
        error: RequestError,
        head: Head | None,
        *,
        close: bool,
        retry_after_s: int | None = None,
        headers: Headers = (),
    ) -> int:
        """Whatever is refused before it has an exchange was not begun: the origin tries elsewhere."""
        headers = headers or ((REFUSED_HEADER, error.code),)
        return super()._answer_refusal(error, head, close=close, retry_after_s=retry_after_s, headers=headers)

    def sweep(self, now_ns: int) -> None:
        """Checks deadlines, and tells a waiting origin that its request is not forgotten."""
        super().sweep(now_ns)
        exchange = self.exchange
        waits = self._verified is not None if exchange is None else exchange.phase in WAITING
        if waits and now_ns - self._said_ns >= PROCESSING_S * 1e9 and not self.transport.is_closing():
            self._said_ns = monotonic_ns()
            self.transport.write(PROCESSING)
