"""The listeners and all client connections: accept, the limit on their number, sweeps, drain."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial

from skylb.clock import Standstill, monotonic_ns
from skylb.data.client import ClientConnection
from skylb.data.context import SWEEP_S, Context

Listener = tuple[socket.socket, ssl.SSLContext | None]

BACKLOG = 4096

Accept = Callable[["Frontend", str], ClientConnection]
"""Makes a connection from its frontend and scheme."""


class Frontend:
    """The listeners and all client connections.

    Args:
        context: shared parts of the data plane.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._connections: set[ClientConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._standstill = Standstill(SWEEP_S)
        self._drained: asyncio.Future[None] | None = None

    @property
    def connections_len(self) -> int:
        """Open client connections."""
        return len(self._connections)

    async def serve(self, listeners: Sequence[Listener], accept: Accept | None = None) -> None:
        """Accepts on listening sockets, with TLS where a context comes along.

        ``accept`` makes the connections, of clients unless given.
        """
        loop = asyncio.get_running_loop()
        for sock, tls in listeners:
            factory = partial(accept or ClientConnection, self, "https" if tls is not None else "http")
            timeout_s = self.context.limits.timeouts.head_s if tls is not None else None
            create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            server = await create(
                factory, sock=sock, ssl=tls, ssl_handshake_timeout=timeout_s, backlog=BACKLOG
            )
            self._servers.append(server)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    def opened(self, connection: ClientConnection) -> None:
        """A client connected; beyond the limit it is turned away at once."""
        self._connections.add(connection)
        if len(self._connections) > self.context.limits.connections_max:
            connection.abort()

    def closed(self, connection: ClientConnection) -> None:
        """A client connection is gone."""
        self._connections.discard(connection)
        if self._drained is not None and not self._connections and not self._drained.done():
            self._drained.set_result(None)

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        now_ns = monotonic_ns()
        if self._standstill.before(now_ns):
            return
        for connection in list(self._connections):
            connection.sweep(now_ns)
        self.context.pool.sweep()
        if self.context.crossing is not None:
            self.context.crossing.pool.sweep()

    def stop_accepting(self) -> None:
        """Closes the listening sockets; idle connections go, requests under way are finished."""
        self.context.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.drain()

    async def drain(self, timeout_s: float) -> int:
        """Waits until all connections are gone, at most ``timeout_s``; returns how many are left."""
        if self._connections:
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=timeout_s)
        return len(self._connections)

    async def close(self) -> None:
        """Cuts what is left."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.abort()
        await self.drain(1.0)
