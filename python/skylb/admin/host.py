"""The admin listener's connections: accepted as clients' are, and with a bound of their own."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from skylb.data import answers
from skylb.data.accept import ACCEPTS_AT_ONCE, Acceptor, Verdict
from skylb.descriptors import Shortage
from skylb.listeners import Listening

CONNECTIONS_MAX = 256
"""More than operators, scrapers and health checks have; beyond it 503."""

HANDSHAKE_S = 10.0

ENTER_S = 1.0
"""How long one that was accepted may take to come in, once the address is let go of."""


class AdminHost:
    """Lets connections in to an aiohttp server.

    Args:
        server: makes a protocol for each, and knows those that are open.
        sockets: bound and listening, its own from now on.
        shortage: hears of what an accept lacked.
    """

    handshake_s = HANDSHAKE_S
    accepts_at_once = ACCEPTS_AT_ONCE

    def __init__(self, server: web.Server, sockets: Sequence[Listening], shortage: Shortage) -> None:
        self.shortage = shortage
        self._server = server
        self._acceptors = [Acceptor(self, sock, None) for sock in sockets]
        for acceptor in self._acceptors:
            acceptor.resume()

    def verdict(self) -> Verdict:
        """Whether one more may come in."""
        entering = sum(acceptor.entering_len for acceptor in self._acceptors)
        return Verdict.YES if len(self._server.connections) + entering < CONNECTIONS_MAX else Verdict.NO

    def make(self, scheme: str) -> asyncio.Protocol:
        """The protocol of one more."""
        del scheme
        return self._server()

    def refusal(self) -> bytes:
        """What one reads that may not come in."""
        status, body = (
            answers.status_of("overloaded"),
            answers.error_body("overloaded", "too many connections"),
        )
        return answers.response(status=status, body=body, request_id="-", close=True, retry_after_s=1)

    async def stop(self) -> None:
        """Lets go of the addresses; connections stay, and those that were accepted come in first."""
        for acceptor in self._acceptors:
            acceptor.close()
        for acceptor in self._acceptors:
            await acceptor.settle(ENTER_S)
            await acceptor.stop()
