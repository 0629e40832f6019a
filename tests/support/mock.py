"""Mock replicas inside the test's own process and loop: the test sees the model as well as the wire."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from skylb.addresses import ListenAddress
from skylb.tools.mock import MockFleet, MockSettings, start
from tests.support import raw
from tests.support.raw import request

NEVER = 1e6
"""A time scale at which no step ends within a test."""


class Mock:
    """Listening mock replicas, and the connections that a test opened to them."""

    def __init__(self, fleet: MockFleet) -> None:
        self.urls = fleet.urls
        self.replicas = fleet.replicas
        self.stop = fleet.close
        self._connections: list[raw.Connection] = []

    async def connect(self, index: int = 0) -> raw.Connection:
        """A connection to one replica, closed with the replicas."""
        connection = await raw.Connection.open(port_of(self, index))
        self._connections.append(connection)
        return connection

    async def disconnect(self) -> None:
        """Closes every connection."""
        for connection in self._connections:
            await connection.close()


@asynccontextmanager
async def mock(**settings: Any) -> AsyncIterator[Mock]:
    """Mock replicas on free ports, of the profile ``instant`` unless told otherwise."""
    given = {"listen": ListenAddress("127.0.0.1", 0), "profile": "instant", **settings}
    fleet = await start(MockSettings(**given))
    served = Mock(fleet)
    try:
        yield served
    finally:
        await served.disconnect()
        await fleet.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Runs an asynchronous test on uvloop, as the mock does."""

    async def main() -> None:
        await test()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def port_of(fleet: Mock, index: int = 0) -> int:
    """The port of one replica."""
    return int(fleet.urls[index].rsplit(":", 1)[1])


async def get(fleet: Mock, path: str, index: int = 0) -> raw.Answer:
    """One GET over a connection of its own."""
    head = f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"
    return await raw.ask(port_of(fleet, index), head.encode())


async def post(
    fleet: Mock, path: str, body: dict[str, Any] | bytes, *, request_id: str = "", index: int = 0
) -> raw.Answer:
    """One POST over a connection of its own."""
    return await raw.ask(port_of(fleet, index), request(body, path=path, request_id=request_id))


async def ask(fleet: Mock, body: dict[str, Any], *, request_id: str = "", index: int = 0) -> raw.Answer:
    """One chat completion over a connection of its own."""
    return await post(fleet, "/v1/chat/completions", body, request_id=request_id, index=index)


async def fault(fleet: Mock, **switches: object) -> dict[str, Any]:
    """Changes what the first replica does wrong; the faults as they are then."""
    changed: dict[str, Any] = json.loads((await post(fleet, "/mock/faults", switches)).body)
    return changed


async def state(fleet: MockFleet) -> dict[str, Any]:
    """``/mock/state``."""
    found: dict[str, Any] = json.loads((await get(fleet, "/mock/state")).body)
    return found
