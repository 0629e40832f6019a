"""Requests that cross between balancers: signed on their way out, verified on their way in."""

import asyncio
from collections import Counter
from collections.abc import Callable

from skylb._core import Forward, Head, HeadParser, Tenant
from skylb.clock import monotonic_ns
from skylb.data.leg import Leg
from skylb.mesh.signing import (
    HEADER,
    HEADER_LOWER,
    Claims,
    Identity,
    Keys,
    Refused,
    Verified,
    Verifier,
    sign,
)
from skylb.types import Peer
from skylb.upstream import Pool

PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
"""Sent every second while a peer's request is held or waits for its first byte (RFC 2518, 10.1): the
origin then tells a peer that takes its time from one that is gone."""

PROCESSING_S = 1.0

SILENT_S = 3.0
"""A peer that says nothing for so long before the first body byte is given up."""

RUNS_MAX = 1024
"""Peers whose runs are remembered; of one that was forgotten idle connections are closed once more."""

_UNSIGNED = "-"
"""In place of a signature in a head that is read to be signed; signatures are not signed."""

Shows = Callable[[asyncio.BaseTransport | None, str], bool]


class Crossing:
    """What the data plane needs to forward requests and to take forwarded ones.

    Args:
        identity: this run of this balancer.
        verifier: accepts each forward once; its first key signs ours.
        pool: connections to peers.
        refused: counts forwards that were not let in, by reason; the reasons are words of the code.
        shows: whether who is connected may speak as a peer of this name.
    """

    def __init__(
        self, identity: Identity, verifier: Verifier, pool: Pool, refused: Counter[str], shows: Shows
    ) -> None:
        self._identity = identity
        self._verifier = verifier
        self.pool = pool
        self._refused = refused
        self._shows = shows
        self._parser = HeadParser()
        self._runs: dict[int, int] = {}
        """Peers' numbers, and the run of each that the idle connections lead to."""

    def pool_to(self, peer: Peer) -> Pool:
        """The pool of connections to a peer: none of them leads to an earlier run of it."""
        if self._runs.get(peer.id) != peer.incarnation:
            self._runs.pop(peer.id, None)
            while len(self._runs) >= RUNS_MAX:
                del self._runs[next(iter(self._runs))]
            self._runs[peer.id] = peer.incarnation
            self.pool.forget(peer.id)
        return self.pool

    def set_keys(self, keys: Keys) -> None:
        """The first of these signs from now on."""
        self._verifier.keys = keys

    def sign(
        self,
        upstream_head: bytes,
        forward: Forward,
        peer: Peer,
        head: Head,
        tenant: Tenant,
        front: bool,
        body_digest: str,
    ) -> bytes:
        """The head for a peer: the one for a replica, with the signature as its first field.

        Args:
            upstream_head: as for a replica.
            forward: the engine's decision.
            peer: where it goes.
            head: of the request as it came.
            tenant: of the request.
            front: it came from a front that is trusted.
            body_digest: SHA-256 of the body as it is sent, in hexadecimal digits.
        """
        now_ns = monotonic_ns()
        claims = Claims(
            self._identity.name,
            1,
            min(forward.attempts_left, 9),
            max(0, forward.deadline_ns - now_ns) // 1_000_000,
            tenant,
            front,
        )
        sent = self._parser.parse(_with_signature(upstream_head, _UNSIGNED))
        value = sign(
            self._verifier.keys.first,
            to=Identity(peer.name, peer.incarnation),
            method="GET" if head.is_head else head.method,
            head=sent.signed() if sent is not None else b"",
            body_digest=body_digest,
            claims=claims,
            now_ns=now_ns,
        )
        return _with_signature(upstream_head, value)

    def verify(self, head: Head, transport: asyncio.BaseTransport, now_ns: int) -> Verified:
        """What a forwarded request's signature vouches for; its body is compared later.

        Raises:
            Refused: it is not let in; counted.
        """
        header = head.header(HEADER_LOWER)
        try:
            verified = self._verifier.verify(header, head.method, head.signed(), now_ns)
        except Refused as refused:
            self._refused[refused.reason] += 1
            raise
        if not self._shows(transport, verified.claims.origin):
            self._refused["certificate"] += 1
            raise Refused("certificate")
        return verified

    def compare(self, verified: Verified, body_digest: str) -> None:
        """Whether the body is the one that was signed, by its SHA-256 in hexadecimal digits.

        Raises:
            Refused: ``body``; counted.
        """
        if not verified.fits(body_digest):
            self._refused["body"] += 1
            raise Refused("body")


def _with_signature(head: bytes, value: str) -> bytes:
    """A head with the signature as its first field: a peer gives a forward's head more room than others."""
    line, fields = head.split(b"\r\n", 1)
    return b"%b\r\n%b: %b\r\n%b" % (line, HEADER.encode(), value.encode(), fields)


class PeerLeg(Leg):
    """A leg at a peer: before its response's head it may say again and again that it is not forgotten."""

    __slots__ = ()

    def upstream_data(self, data: bytes, /) -> None:
        """Takes such words out, then goes on as with a replica's bytes."""
        while not self.relay.status and data.startswith(PROCESSING):
            self.heard = True
            data = data[len(PROCESSING) :]
        if data:
            super().upstream_data(data)
