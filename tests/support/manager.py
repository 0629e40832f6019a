"""A service manager's side: it binds sockets, passes them to a process, and reads what that reports."""

import select
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.processes import PATIENCE_S, SKYLB, Child, eventually

START = """
import os, sys
given, command = sys.argv[1].split(","), sys.argv[2:]
high = [os.dup2(int(number), 200 + index) for index, number in enumerate(given) if number]
for index, number in enumerate(high):
    os.dup2(number, 3 + index)
    os.close(number)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execvp(command[0], command)
"""
"""What systemd does between fork and exec: descriptors from 3 on, and whose they are."""


def listening(host: str = "127.0.0.1") -> socket.socket:
    """A socket that listens at a free port; or, where it is a path, a Unix socket."""
    sock = socket.socket(socket.AF_UNIX if host.startswith("/") else socket.AF_INET)
    if not host.startswith("/"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    address: Any = host if host.startswith("/") else (host, 0)
    sock.bind(address)
    sock.listen(128)
    return sock


def asked(sock: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    return bool(select.select([sock], [], [], 0)[0])


class Manager:
    """Reads the messages that come to its socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, str]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.setblocking(False)

    def close(self) -> None:
        """Nobody reads any more."""
        self._sock.close()

    def read(self) -> list[dict[str, str]]:
        """All messages so far."""
        with suppress(BlockingIOError):
            while True:
                lines = self._sock.recv(4096).decode().splitlines()
                self.messages.append(dict(line.split("=", 1) for line in lines))
        return self.messages

    def await_message(self, child: Child | None = None, /, **lines: str) -> dict[str, str]:
        """The first message that has these lines."""

        def found() -> dict[str, str] | None:
            return next((said for said in self.read() if lines.items() <= said.items()), None)

        return eventually(found, what=f"a message with {lines}", of=[child] if child else ()) or {}

    def start(
        self,
        *arguments: str,
        sockets: Sequence[tuple[socket.socket, str]] = (),
        environment: dict[str, str] | None = None,
    ) -> Child:
        """``skylb serve`` as a service, with sockets and their names."""
        numbers = [sock.fileno() for sock, _ in sockets]
        variables = {"NOTIFY_SOCKET": str(self.path), **(environment or {})}
        if sockets:
            names = ":".join(name for _, name in sockets)
            variables |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}
        prefix = [sys.executable, "-c", START, ",".join(map(str, numbers))]
        return Child([*prefix, *SKYLB, "serve", *arguments], environment=variables, descriptors=numbers)


@contextmanager
def manager() -> Iterator[Manager]:
    """A manager whose socket is in a directory of its own."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="skylb-test-"))
        found = Manager(Path(directory) / "notify")
        stack.callback(found.close)
        yield found


@contextmanager
def service(
    found: Manager,
    *arguments: str,
    sockets: Sequence[tuple[socket.socket, str]] = (),
    environment: dict[str, str] | None = None,
) -> Iterator[Child]:
    """A service that has reported that it is ready; ended at the end."""
    child = found.start(*arguments, sockets=sockets, environment=environment)
    try:
        found.await_message(child, READY="1")
        yield child
    finally:
        child.stop(PATIENCE_S)
