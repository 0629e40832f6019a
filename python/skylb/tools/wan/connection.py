"""One relayed connection: the end that was accepted, the end that is dialled, and a pipe each way."""

import asyncio
from collections.abc import Callable

from skylb.addresses import ListenAddress
from skylb.tasks import TaskGroup
from skylb.tools.wan.pipe import Mark, Pipe, Way, now_s

CONNECT_TIMEOUT_S = 10.0


class End(asyncio.Protocol):
    """One socket of a connection."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.transport: asyncio.Transport | None = None
        self.outward: Pipe
        self.inward: Pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self.transport = transport  # type: ignore[assignment]  # stream sockets hand a Transport, typeshed the base
        self._connection.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes to carry."""
        self.outward.feed(data)

    def eof_received(self) -> bool:
        """FIN: it travels behind the bytes, and the other way stays open."""
        self.outward.end(Mark.FIN)
        return True

    def pause_writing(self) -> None:
        """It reads slower than we bring."""
        self.inward.hold()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.inward.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed both ways, or reset."""
        del exc
        self._connection.lost(self)


class Connection:
    """A connection over a link, from accept until both its ends are gone.

    Args:
        near: the way from the end that dialled.
        far: the way back.
        target: where it leads.
        tasks: where the dialling runs.
        gone: called once, at its end.
    """

    def __init__(
        self,
        near: Way,
        far: Way,
        target: ListenAddress,
        tasks: TaskGroup,
        gone: Callable[["Connection"], None],
    ) -> None:
        self._near, self._far = near, far
        self._target = target
        self._tasks = tasks
        self._gone = gone
        self._closed = False
        self._dialled = False
        self.damaged = False
        """Something was lost: it cannot go on when the fault is over."""
        self.there = Pipe(near, far, now_s() + near.shape.rtt_s, self)
        self.back = Pipe(far, near, 0.0, self)
        self.accepted, self.dialled = End(self), End(self)
        self.accepted.outward, self.accepted.inward = self.there, self.back
        self.dialled.outward, self.dialled.inward = self.back, self.there

    def lose(self) -> None:
        """Something was lost on the way."""
        self.damaged = True

    def opened(self, end: End) -> None:
        """One end has its socket."""
        transport = end.transport
        if self._closed or transport is None:
            if transport is not None:
                transport.abort()
            return
        end.outward.source = transport
        end.inward.opened(transport)
        if end is self.accepted:
            self.dial()

    def dial(self) -> None:
        """Begins the handshake with the target, unless the link is such that it cannot arrive there."""
        if self._dialled or self._closed or self.damaged:
            return
        if self._near.lost or self._far.lost:
            self.damaged = True
        elif not (self._near.stalled or self._far.stalled):
            self._dialled = True
            self._tasks.start(self._dial(), name=f"wan dial {self._target}")

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        half_s = self._near.shape.rtt_s / 2
        await asyncio.sleep(half_s)  # the SYN on its way
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                target = self._target
                if target.unix:
                    await loop.create_unix_connection(lambda: self.dialled, target.host)
                else:
                    await loop.create_connection(lambda: self.dialled, target.host, target.port)
        except OSError:  # TimeoutError is one
            self.back.end(Mark.RESET)  # a refusal takes as long as an answer

    def lost(self, end: End) -> None:
        """One end's socket is gone: the other learns of it in its time."""
        other = self.dialled if end is self.accepted else self.accepted
        end.transport = None
        end.inward.close()
        if other.transport is None:
            self.close()
        elif not (end.inward.finished and end.outward.finished):
            end.outward.end(Mark.RESET)

    def finish(self) -> None:
        """A pipe has handed over its last byte; once both have, nothing is left to do."""
        if self.there.finished and self.back.finished:
            for end in (self.accepted, self.dialled):
                if end.transport is not None:
                    end.transport.close()

    def wake(self) -> None:
        """The link has changed."""
        self.dial()
        self.there.move()
        self.back.move()

    def close(self) -> None:
        """Resets both ends and forgets the connection."""
        if self._closed:
            return
        self._closed = True
        for pipe in (self.there, self.back):
            pipe.close()
        for end in (self.accepted, self.dialled):
            if end.transport is not None:
                end.transport.abort()
        self._gone(self)
