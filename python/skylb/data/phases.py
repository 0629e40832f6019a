"""What a request needs of its client's connection, that of its frontend, and where a request can be."""

import asyncio
from enum import IntEnum
from typing import Any, Protocol

from skylb._core import Sender
from skylb.data.context import Context
from skylb.keys.ring import Party
from skylb.mesh.signing import Claims


class Phase(IntEnum):
    """Where a request is."""

    PLACE = 0
    """The engine decides where it goes: before the first attempt, and between attempts."""
    HOLD = 1
    """It waits in the engine for room."""
    CONNECT = 2
    """A connection to its target is being made."""
    WAIT = 3
    """It was sent, and its answer has no body byte yet."""
    RELAY = 4
    """The body of its answer goes to the client."""
    ENDED = 5


# A member looked up on its class costs as much as a call.
PLACE, HOLD, CONNECT, WAIT, RELAY, ENDED = Phase


class Client(Protocol):
    """The client's connection, as a request needs it."""

    transport: asyncio.Transport
    sender: Sender
    trusted: bool
    paused_ns: int
    claims: Claims | None
    party: Party | None

    def finished(self, *, close: bool, now_ns: int) -> None:
        """The exchange is over; the connection may take the next request."""

    def abort(self) -> None:
        """Cuts the connection."""


class Connections(Protocol):
    """The frontend, as a client's connection needs it."""

    context: Context

    def opened(self, connection: Any, /) -> None:
        """A client connected."""

    def closed(self, connection: Any, /) -> None:
        """A client connection is gone."""
