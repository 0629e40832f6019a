"""One end of a line between a worker and the engine process."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

LINE_BYTES_MAX = 64 << 20
"""What may wait for the other side to read. A process that lets more wait has stopped."""

BUFFER_BYTES = 1 << 20
"""Of the socket, each way: what one side writes in a turn of its loop rarely waits for the other."""

PORTION_BYTES = 1 << 20
"""Of what a process has kept, so much goes out at once: the next when the other side has read most of it."""

CHOKED = "the other process does not read"


class Line(asyncio.Protocol):
    """Passes bytes on, and says when the line ends.

    Bytes may be written before `open`: they go out first.

    Args:
        received: called with the line and bytes.
        ended: called with the line, once, when it is of no use any more, and why: empty where the other side
            has ended it. Not after `abort` or `close`.
        drained: called with the line when it takes a portion again.
    """

    def __init__(
        self,
        received: Callable[["Line", bytes], None],
        ended: Callable[["Line", str], None],
        drained: Callable[["Line"], None] = lambda _: None,
    ) -> None:
        self._received = received
        self._ended = ended
        self._drained = drained
        self._paused = False
        """What was written waits for the other side, or for `open`."""
        self._gone = asyncio.get_running_loop().create_future()
        self._early = bytearray()
        self._over = False
        self._transport: asyncio.Transport | None = None

    async def open(self, descriptor: int) -> None:
        """Takes a descriptor into the loop, as this end of the line."""
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The line stands."""
        self._transport = cast(asyncio.Transport, transport)  # what stream sockets have
        if self._over:
            self._transport.abort()
            return
        early, self._early = self._early, bytearray()
        self._paused = False
        self._transport.write(early)
        if not self._paused:
            self._drained(self)

    def pause_writing(self) -> None:
        """Bytes wait for the other side."""
        self._paused = True

    def resume_writing(self) -> None:
        """The other side has read most of them."""
        self._paused = False
        if not self._over:
            self._drained(self)

    @property
    def takes_portions(self) -> bool:
        """Little waits for the other side."""
        return not self._paused and not self._over

    def data_received(self, data: bytes) -> None:
        """Bytes of the other side."""
        if not self._over:
            self._received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side is gone."""
        del exc
        if not self._gone.done():
            self._gone.set_result(None)
        self._end("")

    def write(self, data: bytes) -> None:
        """Sends bytes. Where more than `LINE_BYTES_MAX` wait, the line ends."""
        if self._over:
            return
        if self._transport is None:
            self._early += data
            self._paused = True
            waiting = len(self._early)
        else:
            self._transport.write(data)
            waiting = self._transport.get_write_buffer_size()
        if waiting > LINE_BYTES_MAX:
            self._end(CHOKED)

    def _end(self, why: str) -> None:
        if not self._over:
            self.abort()
            self._ended(self, why)

    def abort(self) -> None:
        """Ends the line at once."""
        self._over = True
        self._early.clear()
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Ends the line when everything has been written, a second later at the latest."""
        self._over = True
        if self._transport is not None:
            self._transport.close()
            await asyncio.wait([self._gone], timeout=1.0)
