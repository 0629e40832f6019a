"""The peer listener: connections of other balancers, which carry forwarded requests only."""

import hashlib
import socket

from skylb._core import Head, RequestError, Sender
from skylb.clock import monotonic_ns
from skylb.data.answers import Headers, refusal
from skylb.data.body import Body, Hash
from skylb.data.client import ClientConnection
from skylb.data.context import Context
from skylb.data.crossing import PROCESSING, PROCESSING_S, Crossing
from skylb.data.frontend import Frontend
from skylb.data.phases import CONNECT, HOLD, PLACE, WAIT, Connections
from skylb.data.proxy import Exchange
from skylb.listeners import FAR_DEAD_S, notice_dead_paths
from skylb.mesh.signing import REFUSED_HEADER, Refused, Verified

WAITING = frozenset({PLACE, HOLD, CONNECT, WAIT})


FIRST_MESSAGE_S = 3.0
"""For the first forward of a connection, and before it for the TLS handshake."""


class PeerFrontend(Frontend):
    """The peer listener. Who has proven to be a peer does not make room for who has not.

    Args:
        context: shared parts of the data plane.
        crossing: verifies forwards.
    """

    standing_closed = False
    refusal_headers = ((REFUSED_HEADER, "overloaded"),)

    def __init__(self, context: Context, crossing: Crossing) -> None:
        super().__init__(
            context, "peers", lambda frontend, scheme: PeerConnection(frontend, scheme, crossing)
        )
        self.handshake_s = FIRST_MESSAGE_S


class PeerConnection(ClientConnection):
    """One connection of a peer.

    Every request carries a signature, verified before a byte of its body is kept; what it vouches for,
    the number of hops above all, is believed, and nothing else is.
    """

    __slots__ = ("_crossing", "_hash", "_reason", "_said_ns", "_verified")

    def __init__(self, frontend: Connections, scheme: str, crossing: Crossing) -> None:
        super().__init__(frontend, scheme)
        self.guarded = False  # the origin has looked at the key, and signs whose request it is
        self._crossing = crossing
        self._verified: Verified | None = None
        self._hash: Hash | None = None
        self._reason = ""
        """Why a signature does not hold, for the answer."""
        self._said_ns = 0

    def set_up(self) -> None:
        """A stranger has little time, and a path that dies without a word must be noticed."""
        super().set_up()
        self.sender = Sender(self.peer, self.scheme, False, False, "")
        self.deadline_ns = self.since_ns + int(FIRST_MESSAGE_S * 1e9)
        sock = self.transport.get_extra_info("socket")
        if isinstance(sock, socket.socket):
            notice_dead_paths(sock, FAR_DEAD_S)

    def _expect(self, head: Head, now_ns: int) -> Body:
        body = super()._expect(head, now_ns)
        self._hash = body.hash = hashlib.sha256()  # as it comes: no large body is hashed at one go
        return body

    def _inspect(self, body: Body, now_ns: int) -> None:
        self._let_in(body.head, now_ns)
        super()._inspect(body, now_ns)

    def _begin(self, head: Head, parts: list[bytes], now_ns: int) -> None:
        digest, self._hash = self._hash or hashlib.sha256(parts[0]), None
        try:
            verified = self._verified or self._let_in(head, now_ns)
            self._verified = None
            self._crossing.compare(verified, digest.hexdigest())
        except Refused as refused:
            self._refuse(self._turn_away(refused), head)
            return
        except RequestError as error:
            self._refuse(error, head)
            return
        self.claims = claims = verified.claims
        self.trusted = True  # the peer has looked at X-Forwarded-* before us
        self.sender = Sender(self.peer, self.scheme, True, claims.front, claims.origin)
        self._said_ns = now_ns
        super()._begin(head, parts, now_ns)

    def _let_in(self, head: Head, now_ns: int) -> Verified:
        try:
            self._verified = self._crossing.verify(head, self.transport, now_ns)
        except Refused as refused:
            raise self._turn_away(refused) from None
        return self._verified

    def _turn_away(self, refused: Refused) -> RequestError:
        self._reason = refused.reason
        return refusal("forward_refused", f"the forward's signature: {refused.reason}")

    def _answer_refusal(
        self,
        error: RequestError,
        head: Head | None,
        *,
        close: bool,
        headers: Headers = (),
    ) -> int:
        """Whatever is refused before it has an exchange was not begun: the origin tries elsewhere."""
        reason, self._reason = self._reason or error.code, ""
        self._verified = None
        return super()._answer_refusal(error, head, close=close, headers=(*headers, (REFUSED_HEADER, reason)))

    def sweep(self, now_ns: int) -> None:
        """Checks deadlines, and tells a waiting origin that its request is not forgotten."""
        super().sweep(now_ns)
        exchange = self.exchange
        waits = self._verified is not None if exchange is None else _waits(exchange)
        if waits and now_ns - self._said_ns >= PROCESSING_S * 1e9 and self._takes_bytes():
            self._said_ns = monotonic_ns()
            self.transport.write(PROCESSING)

    def _takes_bytes(self) -> bool:
        return not self.paused_ns and not self.transport.is_closing()


def _waits(exchange: Exchange) -> bool:
    """No part of the answer is out: an interim response may be."""
    return exchange.phase in WAITING and exchange.early_relay is None
