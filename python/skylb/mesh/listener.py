"""Where peers connect: strangers are few, and are let in or gone within seconds."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from skylb.mesh.sync import HANDSHAKE_S
from skylb.tasks import TaskGroup

log = logging.getLogger("skylb.control.door")

STRANGERS_MAX = 128
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
class _Stranger:
    arrival: "asyncio.Task[None]"
    timer: asyncio.TimerHandle


class Door:
    """Listens on the sync sockets.

    Args:
        welcome: handles a request; calls `known` once its sender has proven to be a peer.
        refused: told of a connection that is closed before that, by reason: ``crowded`` or ``silent``.
        on_failure: told of a task that ended with an error, by name.
    """

    def __init__(
        self,
        welcome: Handler,
        refused: Callable[[str], None],
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._welcome = welcome
        self._refused = refused
        self._strangers: dict[web.RequestHandler, _Stranger] = {}
        """In the order in which they came."""
        self._server: _Server | None = None
        self._sockets: list[socket.socket] = []
        self._loops = TaskGroup(on_failure)
        self._arrivals = TaskGroup()

    def open(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Lets connections in from now on; the sockets are the door's, and are closed with it."""
        self._server = _Server(self._welcome, self.known)
        for sock in sockets:
            sock.setblocking(False)
            sock.listen(BACKLOG)
            self._sockets.append(sock)
            self._loops.start(self._accept(sock, self._server, tls), name="accept peers")

    def known(self, handler: web.RequestHandler) -> None:
        """The sender is a peer, or has gone."""
        stranger = self._strangers.pop(handler, None)
        if stranger is not None:
            stranger.timer.cancel()

    async def close(self) -> None:
        """Closes all connections, and listens no more."""
        await self._loops.stop()
        for sock in self._sockets:
            sock.close()
        for handler in list(self._strangers):
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
            while len(self._strangers) >= STRANGERS_MAX:
                self._turn_away(next(iter(self._strangers)), "crowded")
            handler = server()
            arrival = self._arrivals.start(_arrive(accepted, handler, tls), name="let a peer in")
            timer = loop.call_later(FIRST_MESSAGE_S, self._turn_away, handler, "silent")
            self._strangers[handler] = _Stranger(arrival, timer)

    def _turn_away(self, handler: web.RequestHandler, reason: str) -> None:
        self._drop(handler)
        self._refused(reason)

    def _drop(self, handler: web.RequestHandler) -> None:
        stranger = self._strangers.pop(handler)
        stranger.timer.cancel()
        stranger.arrival.cancel()  # where TLS is still being agreed on
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
