"""What a request needs of its client's connection, and where a request can be."""

import asyncio
from enum import IntEnum
from typing import Protocol

from skylb.mesh.signing import Claims


class Phase(IntEnum):
    """Where a request is."""

    SUBMIT = 0
    HOLD = 1
    CONNECT = 2
    WAIT = 3
    RELAY = 4
    ENDED = 5


class Client(Protocol):
    """The client's connection, as a request needs it."""

    transport: asyncio.Transport
    peer: str | None
    scheme: str
    trusted: bool
    paused_ns: int
    claims: Claims | None

    def finished(self, *, close: bool, now_ns: int) -> None:
        """The exchange is over; the connection may take the next request."""

    def abort(self) -> None:
        """Cuts the connection."""


def is_front(client: Client) -> bool:
    """Whether the client is trusted. A peer's forwards are; whether their client was, the peer says."""
    return client.trusted if client.claims is None else client.claims.front
