"""The new process's side of a hand-over."""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from skylb import _core
from skylb.errors import ConfigError
from skylb.handover.protocol import (
    HANDOVER,
    VERSION,
    HandoverError,
    Hello,
    Intent,
    Kind,
    Sockets,
    Waiting,
    decode,
    encode,
    receive,
)
from skylb.handover.state import ColdError, Kept, Secrets, read
from skylb.inherited import LISTENERS
from skylb.listeners import Listening
from skylb.settings.handover import HandoverSettings
from skylb.tasks import TaskGroup

log = logging.getLogger("skylb.handover")

ANSWER_S = 30.0
"""How long the running balancer may be silent: it reads and writes between requests."""

YIELD_S = 30.0
"""How long it may take to stop accepting, once this process is ready."""

DIGITS_MAX = 7
"""Of a descriptor's number, and one more."""

_CREDENTIALS = struct.Struct("3i")


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Process and user of the other end, as the kernel says (SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def is_ours(uid: int) -> bool:
    """Whether a process of this user may give or take: root's may, and our own user's."""
    return uid in {0, os.geteuid()}


class Predecessor:
    """The balancer that this process takes over from, while both run.

    Args:
        sock: the connection to it.
        pid: its process.
    """

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.pid = pid
        self._sock = sock
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._retired = asyncio.Event()
        self._refused = ""
        self._tasks = TaskGroup()

    async def make_way(self, rest: Callable[[bytes], None], heard: Callable[[bytes], None]) -> None:
        """Says that this process could serve, and waits until the old one accepts no more.

        Args:
            rest: gets what the old process has learned since it gave its state.
            heard: gets what it has in flight.

        Raises:
            HandoverError: it has given this process up. This process must not serve.
        """
        self._sock.setblocking(False)
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._sock)
        self._writer.write(encode(Kind.READY))
        state = bytearray()
        try:
            async with asyncio.timeout(YIELD_S):
                while (answer := await receive(self._reader)) is not None:
                    if answer[0] is Kind.STATE:
                        state += answer[1]
                    elif answer[0] is Kind.IN_FLIGHT:
                        self._count(heard, answer[1])
                    elif answer[0] is Kind.REFUSED:
                        raise HandoverError(f"the running balancer gave this one up: {_text(answer[1])}")
                    else:
                        break
        except TimeoutError:
            log.warning("hand-over: process %d does not make way: both accept for now", self.pid)
            return
        if answer is None:
            log.warning("hand-over: process %d has ended meanwhile", self.pid)
        if state:
            rest(bytes(state))

    def _count(self, heard: Callable[[bytes], None], flight: bytes) -> None:
        """Reports what the old process has in flight; what cannot be read is not counted."""
        try:
            heard(flight)
        except ValueError as error:
            log.warning("hand-over: what process %d has in flight is not known: %s", self.pid, error)

    def follow(self, heard: Callable[[bytes | None], None]) -> None:
        """From now on reports what the old process has in flight, and ``None`` once that has ended."""
        self._tasks.start(self._follow(heard), name="follow the predecessor")

    async def _follow(self, heard: Callable[[bytes | None], None]) -> None:
        try:
            while self._reader is not None and (frame := await receive(self._reader)) is not None:
                if frame[0] is Kind.IN_FLIGHT:
                    self._count(heard, frame[1])
                elif frame[0] is Kind.RETIRED:
                    self._retired.set()
                elif frame[0] is Kind.REFUSED:
                    self._refused = _text(frame[1])
                    break
        except HandoverError as error:
            log.warning("hand-over: what process %d has in flight is not known: %s", self.pid, error)
        finally:
            self._retired.set()
            heard(None)
            self._close()

    def accept(self) -> None:
        """Says that this process serves from now on: the old one ends. It is sent when this returns.

        Raises:
            HandoverError: the old one has given this process up. This process must not serve.
        """
        self._check()
        with suppress(OSError):  # the old process has ended: nobody needs to know
            self._sock.send(encode(Kind.ACCEPTING))

    async def retired(self) -> None:
        """Waits until the old process has let go of peers and DNS records.

        Raises:
            HandoverError: it has given this process up in the last moment. This process must not serve.
        """
        try:
            async with asyncio.timeout(YIELD_S):
                await self._retired.wait()
        except TimeoutError:
            log.warning("hand-over: process %d does not let go of its peers", self.pid)
        self._check()

    def _check(self) -> None:
        if self._refused:
            raise HandoverError(f"the running balancer gave this one up: {self._refused}")

    def fault(self, why: str) -> None:
        """Says why this process cannot serve: the old one goes on."""
        with suppress(OSError):
            self._sock.setblocking(False)
            self._sock.send(encode(Kind.FAULT, why.encode()))
        self._close()

    def detach(self) -> int:
        """The connection's descriptor, which is the caller's from now on: another process goes on with it."""
        return self._sock.detach()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._sock.close()

    async def close(self) -> None:
        """Follows it no longer."""
        await self._tasks.stop()
        self._close()


@dataclass
class Heritage:
    """What a process begins with: of a predecessor, or kept on disk, or nothing."""

    sockets: dict[str, list[Listening]] = field(default_factory=dict)
    """Listening sockets by the names of `inherited.LISTENERS`, and that of the hand-over itself."""
    state: Kept | None = None
    """What an engine has learned."""
    outcome: str = "off"
    """What became of the state: one of `state.OUTCOMES`."""
    why: str = ""
    """There is no state, because of this; for the log."""
    intent: Intent = field(default_factory=Intent)
    predecessor: Predecessor | None = None
    of_siblings: Secrets | None = None
    """What all processes of this balancer key hashes by, where it has several. Files may be newer."""

    @property
    def secrets(self) -> Secrets | None:
        """What the hashes of the state are keyed by; ``None`` where there is no state."""
        return None if self.state is None else self.state.secrets

    def keep(self, data: bytes) -> None:
        """Takes a state from a predecessor, if it is one."""
        try:
            self.state, self.outcome = Kept.of(data), "warm"
        except ValueError as error:
            self.outcome, self.why = "foreign", f"what the predecessor has handed over: {error}"

    def own_files(self) -> None:
        """The predecessor has made way: from now on this process removes the files of Unix sockets."""
        for sock in (each for group in self.sockets.values() for each in group):
            if not sock.inherited and sock.fileno() >= 0:
                sock.own_file()

    def read(self, directory: Path, *, age_max_s: float, bytes_max: int) -> None:
        """Reads the state of an earlier process. Blocks: it is for a thread."""
        try:
            self.state = read(directory, age_max_s=age_max_s, bytes_max=bytes_max)
            self.outcome = "warm"
        except ColdError as cold:
            self.outcome, self.why = cold.outcome, str(cold)


def connect(path: Path | None, descriptor: int | None) -> socket.socket | None:
    """The connection to the running balancer; ``None`` where none runs.

    Args:
        path: where a running balancer hands over.
        descriptor: a connection that the running balancer has passed to this process.

    Raises:
        ConfigError: the descriptor is no socket.
        HandoverError: it cannot be reached, or is another user's.
    """
    if descriptor is not None:
        try:
            os.set_inheritable(descriptor, False)
            return socket.socket(fileno=descriptor)
        except OSError as error:
            raise ConfigError([f"SKYLB_HANDOVER_FD: {descriptor}: {error.strerror}"]) from error
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with ExitStack() as undo:
        undo.enter_context(closing(sock))
        sock.settimeout(ANSWER_S)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise HandoverError(f"takeover: {path}: {error.strerror or error}") from error
        if not is_ours(credentials(sock)[1]):
            raise HandoverError(f"takeover: {path}: the process there is another user's")
        undo.pop_all()
    return sock


def take(sock: socket.socket, bytes_max: int) -> Heritage:
    """Receives all that a running balancer gives. Blocks: it is for a thread.

    Args:
        sock: the connection to it, this function's from now on.
        bytes_max: of the state; a larger one is left out.

    Raises:
        HandoverError: it refuses, or is not understood.
    """
    with ExitStack() as undo:
        undo.enter_context(closing(sock))
        sock.settimeout(ANSWER_S)
        try:
            sock.sendall(encode(Kind.HELLO, Hello(VERSION, _core.__version__, os.getpid())))
        except OSError as error:
            raise HandoverError(f"the running balancer has gone: {error.strerror or error}") from error
        waiting = Waiting(sock)
        undo.callback(_close_all, waiting.descriptors)
        said = decode(_expected(waiting, Kind.SOCKETS), Sockets)
        if len(said.passed) != len(waiting.descriptors):
            raise HandoverError(f"{len(waiting.descriptors)} sockets came, {len(said.passed)} were announced")
        state, length = bytearray(), 0
        while True:
            kind, payload = _next(waiting)
            if kind is Kind.STATE_END:
                intent = decode(payload, Intent)
                break
            length += len(payload)
            if length <= bytes_max:
                state += payload
        if length > bytes_max:
            log.warning("hand-over: state of %d bytes, more than state_bytes_max: left out", length)
            state.clear()
        undo.pop_all()
    heritage = Heritage(intent=intent)
    heritage.keep(bytes(state))
    heritage.predecessor = Predecessor(sock, credentials(sock)[0])
    for passed, descriptor in zip(said.passed, waiting.descriptors, strict=True):
        heritage.sockets.setdefault(passed.name, []).append(_opened(descriptor, passed.inherited))
    return heritage


def _next(waiting: Waiting) -> tuple[Kind, bytes]:
    frame = waiting.receive()
    if frame is None:
        raise HandoverError("the running balancer broke off")
    if frame[0] is Kind.REFUSED:
        raise HandoverError(f"the running balancer refuses: {_text(frame[1])}")
    return frame


def _expected(waiting: Waiting, expected: Kind) -> bytes:
    kind, payload = _next(waiting)
    if kind is not expected:
        raise HandoverError(f"the other process is not understood: {kind.name} came, not {expected.name}")
    return payload


def _text(payload: bytes) -> str:
    return payload.decode(errors="replace")


def _opened(descriptor: int, inherited: bool) -> Listening:
    """A socket that listens already. The file of a Unix socket is the other process's until `own_files`."""
    sock = Listening(fileno=descriptor)
    sock.setblocking(False)
    sock.inherited = inherited
    return sock


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def check_names(heritage: Heritage) -> None:
    """Looks whether each socket has a name that this version knows.

    Raises:
        HandoverError: names those that are not known.
    """
    strange = sorted(set(heritage.sockets) - {*LISTENERS, HANDOVER})
    if strange:
        raise HandoverError(f"sockets of an unknown kind came: {', '.join(strange)}")


async def inherit(settings: HandoverSettings, descriptor: str | None) -> Heritage:
    """What this process begins with: what a running balancer gives it, else what an earlier one has kept.

    Args:
        settings: whether and where to take over, and where the state is kept.
        descriptor: as the environment says, of a connection that a running balancer has passed.

    Raises:
        ConfigError: the descriptor is none.
        HandoverError: a balancer runs, and does not hand over.
    """
    number = None
    if descriptor is not None:
        if not (descriptor.isascii() and descriptor.isdigit() and len(descriptor) < DIGITS_MAX):
            raise ConfigError([f"SKYLB_HANDOVER_FD: {descriptor!r}: expected a descriptor"])
        number = int(descriptor)
    if number is not None or settings.takeover:
        sock = connect(settings.handover_path, number)
        if sock is not None:
            heritage = await asyncio.to_thread(take, sock, settings.state_bytes_max)
            check_names(heritage)
            return heritage
    heritage = Heritage()
    if settings.takeover:
        heritage.why = f"takeover: no balancer runs at {settings.handover_path}"
    if settings.state_dir is not None:
        await asyncio.to_thread(
            heritage.read,
            settings.state_dir,
            age_max_s=settings.state_age_max_s,
            bytes_max=settings.state_bytes_max,
        )
    return heritage
