"""What SkyLB can tell of a client's bytes and socket before it parses a request."""

import asyncio
import select
import socket


def is_begun(data: bytes) -> bool:
    """Whether a request has begun: an empty line is none."""
    return bool(data.lstrip(b"\r\n"))


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the other side has closed, also behind bytes that nobody has read yet."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
