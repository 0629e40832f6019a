"""The listener that peers connect to.

A connection that has not yet proven to be a peer's lasts a few seconds at most. The number of such
connections is bounded.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from skylb.mesh.sync import HANDSHAKE_S
from skylb.tasks import TaskGroup

log = logging.getLogger("skylb.mesh.listener")

PENDING_MAX = 128
"""Connections that have not proven to be a peer's. Of more, the one that came first is closed: a peer needs
two round trips, and whoever wants to keep it out has to open as many connections meanwhile."""

FIRST_MESSAGE_S = HANDSHAKE_S + 0.5
"""From the connection on until the sender has proven to be a peer, TLS included. The handshake itself is
given up a little earlier, and then says why."""

BACKLOG = 128
CLOSE_S = 0.5
"""How long connections may take to end when the process does."""

ACCEPT_PAUSE_S = 0.1
"""After a failure to accept, as where the process has no descriptor left."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Server(web.Server):
    """aiohttp's, which tells when a connection has ended."""

    def __init__(self, handler: Handler, ended: Callable[[web.RequestHandler], None]) -> None:
        super().__init__(handler, access_log=None)
        self._ended = ended

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """As aiohttp's."""
        super().connection_lost(handler, exc)
        self._ended(handler)


@dataclass(slots=True)
class _Pending:
    arrival: "asyncio.Task[None]"
    timer: asyncio.TimerHandle


class Listener:
    """Listens on the sync sockets.

    Args:
        handle: handles a request; calls `proven` once its sender has proven to be a peer.
        refused: called for each connection closed before that, with the reason: ``crowded`` or ``silent``.
        on_failure: called with the name and the error of a task that failed.
    """

    def __init__(
        self,
        handle: Handler,
        refused: Callable[[str], None],
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._handle = handle
        self._refused = refused
        self._pending: dict[web.RequestHandler, _Pending] = {}
        """In the order in which they came."""
        self._server: _Server | None = None
        self._sockets: list[socket.socket] = []
        self._loops = TaskGroup(on_failure)
        self._arrivals = TaskGroup()

    def open(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Lets connections in from now on; it owns the sockets, and closes them."""
        self._server = _Server(self._handle, self.proven)
        for sock in sockets:
            sock.setblocking(False)
            sock.listen(BACKLOG)
            self._sockets.append(sock)
            self._loops.start(self._accept(sock, self._server, tls), name="accept peers")

    def proven(self, handler: web.RequestHandler) -> None:
        """The sender is a peer, or has gone."""
        pending = self._pending.pop(handler, None)
        if pending is not None:
            pending.timer.cancel()

    async def retire(self) -> None:
        """Listens no more; connections stay."""
        await self._loops.stop()
        for sock in self._sockets:
            sock.close()

    async def close(self) -> None:
        """Closes all connections, and listens no more."""
        await self.retire()
        for handler in list(self._pending):
            self._drop(handler)
        await self._arrivals.stop()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(CLOSE_S)

    async def _accept(self, sock: socket.socket, server: _Server, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(sock)
            except OSError as error:
                log.warning("a sync connection cannot be accepted: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            while len(self._pending) >= PENDING_MAX:
                self._turn_away(next(iter(self._pending)), "crowded")
            handler = server()
            arrival = self._arrivals.start(_arrive(accepted, handler, tls), name="let a peer in")
            timer = loop.call_later(FIRST_MESSAGE_S, self._turn_away, handler, "silent")
            self._pending[handler] = _Pending(arrival, timer)

    def _turn_away(self, handler: web.RequestHandler, reason: str) -> None:
        self._drop(handler)
        self._refused(reason)

    def _drop(self, handler: web.RequestHandler) -> None:
        pending = self._pending.pop(handler)
        pending.timer.cancel()
        pending.arrival.cancel()  # where TLS is still being agreed on
        if handler.transport is not None:
            handler.transport.abort()


async def _arrive(sock: socket.socket, handler: web.RequestHandler, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    limit_s = FIRST_MESSAGE_S if tls is not None else None
    try:
        await loop.connect_accepted_socket(lambda: handler, sock, ssl=tls, ssl_handshake_timeout=limit_s)
    except OSError:
        sock.close()  # it has gone, or does not speak TLS
    except asyncio.CancelledError:
        sock.close()
        raise
