"""Which client is connected to which process, as the kernel of this machine knows it."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

LOOPBACK = "127.0.0.1"
ESTABLISHED = "01"
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class Socket:
    """A TCP connection's end on this machine."""

    inode: int
    local: int
    """Its port."""
    remote: int
    """The port of the other end."""
    unread: int
    """Bytes that have come and were not read."""


def sockets() -> list[Socket]:
    """The ends of all TCP connections."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *rest = line.split()
        if state == ESTABLISHED:
            here, there, unread = (int(field.rsplit(":", 1)[1], 16) for field in (local, remote, queues))
            found.append(Socket(int(rest[4]), here, there, unread))
    return found


def peers_of(pid: int, port: int) -> set[int]:
    """The ports of those that are connected to a process at this port."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            if found := _SOCKET.match(str(descriptor.readlink())):
                inodes.add(int(found[1]))
    return {of.remote for of in sockets() if of.inode in inodes and of.local == port}


def unread_bytes(ports: set[int]) -> int:
    """Bytes that wait at sockets with these ports."""
    return sum(of.unread for of in sockets() if of.local in ports)


class Lines:
    """HTTP clients with a connection for each request, whose ports are known.

    Attributes:
        ports: of the connection that each client has made last, by the client's number.
    """

    def __init__(self) -> None:
        self.ports: dict[int, int] = {}

    def client(self, number: int, timeout_s: float) -> httpx2.AsyncClient:
        """An HTTP client of this number."""

        async def traced(name: str, info: dict[str, object]) -> None:
            if name == "connection.connect_tcp.complete":
                stream = info["return_value"]
                _, self.ports[number] = stream.get_extra_info("client_addr")  # type: ignore[attr-defined]  # httpcore2's

        async def asks(request: httpx2.Request) -> None:
            request.extensions["trace"] = traced

        limits = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.AsyncClient(limits=limits, event_hooks={"request": [asks]}, timeout=timeout_s)
