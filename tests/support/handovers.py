"""The other side of a hand-over, as a test wants it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skylb.handover.protocol import (
    HANDOVER,
    VERSION,
    Hello,
    Intent,
    Kind,
    Passed,
    Sockets,
    Waiting,
    encode,
)
from tests.support.manager import listening
from tests.support.processes import PATIENCE_S

START_S = 4 * PATIENCE_S
"""The other side may have processes to start."""

CONNECT = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"."], [sock.fileno()])
sys.stdin.read()
"""
"""Connects, passes the connection on, and lives until its standard input ends."""


class Side:
    """One side of a hand-over.

    Args:
        sock: the connection to the other one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(START_S)
        self._waiting = Waiting(sock)

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Sends a frame."""
        self._sock.sendall(encode(kind, payload))

    def expect(self, kind: Kind) -> None:
        """Reads up to a frame of this kind."""
        seen = []
        while (frame := self._waiting.receive()) is not None:
            seen.append(frame[0])
            if frame[0] is kind:
                return
        raise AssertionError(f"no {kind.name}, but {seen}")

    def close(self) -> None:
        """Ends the connection, and lets go of all that came with it."""
        while self._waiting.descriptors:
            socket.close(self._waiting.descriptors.pop())
        self._sock.close()


class Taker(Side):
    """Takes over, in the name of a process that may be killed.

    Args:
        path: of the running balancer's socket.
    """

    def __init__(self, path: Path) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            number = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-c", CONNECT, str(path), str(number)],
                stdin=subprocess.PIPE,
                pass_fds=[number],
            )
            theirs.close()
            ours.settimeout(PATIENCE_S)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        super().__init__(socket.socket(fileno=descriptors[0]))

    def get_ready(self) -> None:
        """Goes on until the running balancer accepts no connection."""
        self._sock.sendall(encode(Kind.HELLO, Hello(VERSION, "test", self.process.pid)))
        self.expect(Kind.STATE_END)
        self.send(Kind.READY)
        self.expect(Kind.YIELDED)

    def close(self) -> None:
        """Ends the process, too."""
        super().close()
        self.process.kill()
        self.process.communicate()


@contextmanager
def taker(path: Path) -> Iterator[Taker]:
    """One that has connected."""
    found = Taker(path)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def gives(path: Path) -> Iterator[socket.socket]:
    """A socket at which hand-overs begin."""
    with listening(str(path)) as sock:
        sock.settimeout(START_S)
        yield sock


@contextmanager
def giver(at: socket.socket, clients: socket.socket) -> Iterator[Side]:
    """Hands both sockets over to the first process that asks, and has no other state than that.

    Args:
        at: where it asks; closed then, as ``clients`` is.
        clients: the socket for clients.
    """
    found = Side(at.accept()[0])
    try:
        found.expect(Kind.HELLO)
        said = Sockets([Passed("client", inherited=False), Passed(HANDOVER, inherited=False)], "test")
        socket.send_fds(found._sock, [encode(Kind.SOCKETS, said)], [clients.fileno(), at.fileno()])
        clients.close()
        at.close()
        found._sock.sendall(encode(Kind.STATE_END, Intent()))
        yield found
    finally:
        found.close()
