"""Binds the replicas' sockets and sweeps idle connections."""

import asyncio
import gc
import signal
import ssl
import sys
from contextlib import AsyncExitStack

from skylb.addresses import ListenAddress, ReplicaUrl
from skylb.errors import ListenError
from skylb.tools.mock.completions import CompletionsLog
from skylb.tools.mock.connection import Clock, Connection
from skylb.tools.mock.replica import MockReplica
from skylb.tools.mock.routes import Guard, Routes
from skylb.tools.mock.settings import MockSettings

SWEEP_S = 0.25
"""One sweep over idle connections instead of a timer each: they are closed up to this much late."""

_BACKLOG = 1024


class MockFleet:
    """The replicas of one process, listening. Made by ``start``, ended by ``close``."""

    def __init__(self, settings: MockSettings) -> None:
        self._settings = settings
        self._clock = Clock()
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._log = None if settings.completions_log is None else CompletionsLog(settings.completions_log)
        self.replicas: list[MockReplica] = []

    @property
    def urls(self) -> list[str]:
        """Where the replicas answer, in order."""
        return [replica.url for replica in self.replicas]

    @property
    def connections(self) -> int:
        """Client connections, all replicas together."""
        return len(self._connections)

    async def listen(self) -> None:
        """Binds every replica's socket.

        Raises:
            ListenError: an address cannot be bound.
        """
        tls = self._tls()
        for index in range(self._settings.count):
            await self._listen(index, tls)
        self._tick()

    async def _listen(self, index: int, tls: ssl.SSLContext | None) -> None:
        settings = self._settings
        replica = MockReplica(
            profile=settings.effective_profile(),
            time_scale=settings.time_scale,
            models=settings.model,
            faults=settings.fault,
            seed=settings.seed + index,
            log=self._log,
            numbers_tokens=settings.number_tokens,
        )
        guard = Guard(settings.api_key, settings.api_key_guards) if settings.api_key else None
        routes = Routes(replica, settings.metrics_bytes, guard)

        def accept() -> Connection:
            return Connection(replica, routes, self._clock, self._connections, settings.body_bytes_max)

        loop = asyncio.get_running_loop()
        at = settings.listen
        port = at.port + index if at.port else 0
        try:
            if at.unix:
                server = await loop.create_unix_server(accept, at.host, backlog=_BACKLOG, ssl=tls)
            else:
                server = await loop.create_server(accept, at.host, port, backlog=_BACKLOG, ssl=tls)
        except OSError as error:
            address = at if at.unix else ListenAddress(at.host, port)
            raise ListenError(f"cannot listen at {address}: {error.strerror or error}") from error
        self._servers.append(server)
        if not at.unix:
            port = server.sockets[0].getsockname()[1]
        replica.url = str(ReplicaUrl("unix" if at.unix else "https" if tls else "http", at.host, port))
        self.replicas.append(replica)

    def _tls(self) -> ssl.SSLContext | None:
        settings = self._settings
        if settings.tls_cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
        return context

    def _tick(self) -> None:
        self._clock.move()
        too_old_s = self._clock.now_s - self._settings.keep_alive_s
        for connection in list(self._connections):
            if connection.idle_since_s is not None and connection.idle_since_s < too_old_s:
                connection.close()
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._tick)

    async def close(self) -> None:
        """Stops listening, closes every connection and forgets every request."""
        if self._sweep is not None:
            self._sweep.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()
        for replica in self.replicas:
            replica.close()
        if self._log is not None:
            log, self._log = self._log, None
            log.close()


async def start(settings: MockSettings) -> MockFleet:
    """Binds the replicas and answers from then on.

    Raises:
        ListenError: an address cannot be bound.
    """
    fleet = MockFleet(settings)
    async with AsyncExitStack() as undo:
        undo.push_async_callback(fleet.close)
        await fleet.listen()
        undo.pop_all()
    return fleet


async def serve(settings: MockSettings) -> None:
    """Runs until SIGINT, SIGTERM or cancellation.

    Writes each replica's URL on a line of its own to standard output, then the line ``ready``.

    Raises:
        ListenError: an address cannot be bound.
    """
    fleet = await start(settings)
    try:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        sys.stdout.write("".join(f"{url}\n" for url in [*fleet.urls, "ready"]))
        sys.stdout.flush()
        gc.freeze()
        await stopped.wait()
    finally:
        await fleet.close()
