"""One end of a line between a worker and the engine process."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

LINE_BYTES_MAX = 64 << 20
"""What may wait for the other side to read. A process that lets more wait has stopped."""

BUFFER_BYTES = 1 << 20
"""Of the socket, each way: what one side writes in a turn of its loop rarely waits for the other."""


class Line(asyncio.Protocol):
    """Passes bytes on, and says when the line ends.

    Args:
        received: called with bytes.
        ended: called once, when the line has ended.
    """

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._received = received
        self._ended = ended
        self._gone = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The line stands."""
        self.transport = cast(asyncio.Transport, transport)  # what stream sockets have

    def data_received(self, data: bytes) -> None:
        """Bytes of the other side."""
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side is gone."""
        del exc
        self._gone.set_result(None)
        self._ended()

    async def close(self) -> None:
        """Ends the line when everything has been written, a second later at the latest."""
        self.transport.close()
        await asyncio.wait([self._gone], timeout=1.0)

    @property
    def choked(self) -> bool:
        """The other side has stopped reading."""
        return self.transport.get_write_buffer_size() > LINE_BYTES_MAX


async def open_line(descriptor: int, received: Callable[[bytes], None], ended: Callable[[], None]) -> Line:
    """Takes a descriptor into the loop, as one end of a line."""
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    loop = asyncio.get_running_loop()
    _, line = await loop.create_unix_connection(lambda: Line(received, ended), sock=sock)
    return line
