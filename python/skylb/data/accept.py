"""One listening socket: accepts connections while there is room, else leaves them to the kernel.

SkyLB does this itself, and not with the servers of the event loop. Those accept without a bound, end
silently at the first error (of memory, say), and do not report TLS handshakes under way.
"""

import asyncio
import socket
import ssl
from contextlib import closing, suppress
from enum import Enum
from typing import Protocol

from skylb.clock import monotonic_ns
from skylb.descriptors import Shortage
from skylb.listeners import Listening
from skylb.tasks import TaskGroup

ACCEPTS_AT_ONCE = 64
"""Connections taken before others get a turn of the loop."""

SHORT_PAUSE_S = 0.1
"""After an accept for which this machine lacked something."""

REFUSED_BYTES = 64 << 10
"""Read of a request that is refused unread: what is left of it would turn the answer into a reset."""


class Verdict(Enum):
    """Whether one more connection may come in."""

    YES = "yes"
    SOON = "soon"
    """An idle one will make room in a moment: it may wait in the kernel's queue."""
    NO = "no"


class Host(Protocol):
    """Whose connections they are."""

    shortage: Shortage
    handshake_s: float
    accepts_at_once: int
    """Connections taken before others get a turn of the loop, or other processes a chance."""

    def verdict(self) -> Verdict:
        """Whether one more may come in; closes an idle one for it where need be."""

    def make(self, scheme: str) -> asyncio.Protocol:
        """The protocol of one more."""

    def refusal(self) -> bytes:
        """What one reads that may not come in; counted."""


class Acceptor:
    """One listening socket.

    Args:
        host: whose connections they are.
        sock: bound and listening, ours from now on.
        tls: of its connections, if they speak TLS.
    """

    def __init__(self, host: Host, sock: Listening, tls: ssl.SSLContext | None) -> None:
        self._host = host
        self._sock = sock
        self._tls = tls
        self._tasks = TaskGroup()
        self._entering: dict[asyncio.Task[None], int] = {}
        """Accepted, and not connections yet, since when: TLS handshakes, above all."""
        self._listening = False
        self._held = False
        self._pause: asyncio.TimerHandle | None = None

    @property
    def entering_len(self) -> int:
        """Connections that have been accepted and have not come in yet."""
        return len(self._entering)

    def resume(self) -> None:
        """Takes connections again, if it had stopped for want of room."""
        if not self._listening and not self._held and self._pause is None and self._sock.fileno() >= 0:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._sock, self._ready)

    def hold(self) -> None:
        """Takes none until `go_on`: they wait in the kernel's queue."""
        self._held = True
        self._stop()

    def go_on(self) -> None:
        """Takes connections again."""
        self._held = False
        self.resume()

    def _stop(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._sock)

    def _ready(self) -> None:
        for _ in range(self._host.accepts_at_once):
            verdict = self._host.verdict()
            if verdict is Verdict.SOON:
                self._stop()
                return
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it has left already
            except OSError as error:
                self._short(error)
                return
            sock.setblocking(False)
            if verdict is Verdict.NO:
                self._refuse(sock)
            else:
                task = self._tasks.start(self._enter(sock), name="accept")
                self._entering[task] = monotonic_ns()
                task.add_done_callback(self._entering.pop)

    async def _enter(self, sock: socket.socket) -> None:
        scheme = "http" if self._tls is None else "https"
        with suppress(OSError):  # it left before it was in, or does not speak TLS as we do
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._host.make(scheme),
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self._host.handshake_s,
            )

    def _refuse(self, sock: socket.socket) -> None:
        answer = self._host.refusal()
        with closing(sock), suppress(OSError):
            if self._tls is None:
                with suppress(BlockingIOError):
                    sock.recv(REFUSED_BYTES)
                sock.send(answer)

    def _short(self, error: OSError) -> None:
        """Without the pause the loop would try again at once, and for nothing."""
        self._host.shortage.noted("accept", error)
        self._stop()
        self._pause = asyncio.get_running_loop().call_later(SHORT_PAUSE_S, self._paused)

    def _paused(self) -> None:
        self._pause = None
        self.resume()

    def drop_entering(self, before_ns: int) -> bool:
        """Gives up the oldest handshake if it was accepted before this time."""
        for task, since_ns in self._entering.items():
            if since_ns >= before_ns:
                return False
            if task.cancel():
                del self._entering[task]
                return True
        return False

    def close(self) -> None:
        """Takes no more: what waits in the kernel's queue is taken in, then the address is free.

        What waits at an inherited socket stays there: it is not lost, and the next process has more time for
        it.
        """
        if self._listening and not self._sock.inherited:
            for _ in range(-(-ACCEPTS_AT_ONCE // self._host.accepts_at_once)):
                self._ready()
        self._stop()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._sock.release()

    async def settle(self, timeout_s: float) -> None:
        """Waits until those who were accepted have come in, or not."""
        if self._entering:
            await asyncio.wait(list(self._entering), timeout=timeout_s)

    async def stop(self) -> None:
        """Gives up handshakes under way."""
        self.close()
        await self._tasks.stop()
