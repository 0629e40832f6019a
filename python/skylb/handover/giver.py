"""The running process's side of a hand-over."""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from skylb import _core
from skylb.addresses import ListenAddress
from skylb.errors import ListenError
from skylb.handover.protocol import (
    DESCRIPTORS_MAX,
    FRAME_BYTES_MAX,
    HANDOVER,
    VERSION,
    HandoverError,
    Hello,
    Intent,
    Kind,
    Passed,
    Sockets,
    decode,
    encode,
    pieces,
    receive,
)
from skylb.handover.taker import credentials, is_ours
from skylb.listeners import Listening, bind_patiently
from skylb.tasks import TaskGroup

log = logging.getLogger("skylb.handover")

HELLO_S = 5.0
"""How long a process that connects may take to say what it is."""

ENDED = "it ended before it was ready"
"""What is said of a process that is gone, however that was noticed."""

FAILED = "it ended before it served"
"""The same of one that was ready."""

ACCEPT_S = 10.0
"""How long a process that is ready may take to accept: meanwhile nobody does."""

TELL_S = 0.1
"""Between two reports of the requests that have not ended."""

END_S = 5.0
"""How long a process that was started in vain may take to end, before it is killed."""

CONNECTIONS_MAX = 8
"""That have begun a hand-over: one gets it, the others are refused."""

ACCEPT_PAUSE_S = 0.1
"""After a failure to accept, as where the process has no descriptor left."""


class Host(Protocol):
    """The balancer that is handed over."""

    def sockets(self) -> Mapping[str, Sequence[Listening]]:
        """Its listening sockets, by the names of `inherited.LISTENERS`."""

    def state(self) -> AsyncIterator[bytes]:
        """What its engine has learned, sealed, in parts of `FRAME_BYTES_MAX` at most."""

    def intent(self) -> Intent:
        """What operators have asked of it."""

    async def hold(self) -> None:
        """Accepts no connection until `go_on`."""

    def go_on(self) -> None:
        """Accepts connections again."""

    def rest(self) -> AsyncIterator[bytes]:
        """What its engine has learned since `state`, likewise."""

    def in_flight(self) -> bytes:
        """The requests at replicas that have not ended."""

    def begun(self, pid: int) -> None:
        """A process gets all this from now on, to serve in its place."""

    def gave_up(self, pid: int) -> None:
        """A process does not serve in its place, and gets nothing more."""

    def succeeded(self) -> None:
        """Another process serves in its place: it should end now."""


class Heir:
    """The process that takes this one's place.

    Args:
        pid: of the process.
        writer: the connection to it.
    """

    def __init__(self, pid: int, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self._writer = writer
        self._too_large = False
        """Something was, and the log says so."""
        self._tasks = TaskGroup()

    async def serve(self, rest: AsyncIterator[bytes], in_flight: Callable[[], bytes]) -> None:
        """It may accept soon, and hears what is in flight here until `close`.

        Args:
            rest: what was learned since the state was given.
            in_flight: the requests at replicas that have not ended.
        """
        async for part in rest:
            for piece in pieces(part):
                self._send(Kind.STATE, piece)
        self._send(Kind.IN_FLIGHT, in_flight())  # first: it must not push before it knows
        self._send(Kind.YIELDED)
        self._tasks.start(self._tell(in_flight), name="tell the heir")

    async def _tell(self, in_flight: Callable[[], bytes]) -> None:
        while not self._writer.is_closing():
            await asyncio.sleep(TELL_S)
            self._send(Kind.IN_FLIGHT, in_flight())
            with suppress(ConnectionError):  # it has ended: there is nobody to tell
                await self._writer.drain()

    def _send(self, kind: Kind, payload: bytes = b"") -> None:
        if len(payload) > FRAME_BYTES_MAX:
            if not self._too_large:
                text = "hand-over: %s of %d bytes is not sent: at most %d fit"
                log.warning(text, kind.name, len(payload), FRAME_BYTES_MAX)
            self._too_large = True
        elif not self._writer.is_closing():
            self._writer.write(encode(kind, payload))

    def retired(self) -> None:
        """Peers and DNS records are its from now on."""
        self._send(Kind.RETIRED)

    async def give_up(self) -> None:
        """It does not serve."""
        await self._tasks.stop()

    async def close(self) -> None:
        """All requests have ended."""
        await self._tasks.stop()
        self._writer.close()


class Giver:
    """Hands over to a process that asks for it, or that it starts.

    Args:
        host: what is handed over.
        timeout_s: from the begin of a hand-over until the other process is ready, at most.
        command: what starts a process like this one.
    """

    def __init__(self, host: Host, *, timeout_s: float, command: Sequence[str] | None = None) -> None:
        self.heir: Heir | None = None
        """The process that takes this one's place, once it is ready."""
        self.failed_total = 0
        """Hand-overs that came to nothing."""
        self._host = host
        self._timeout_s = timeout_s
        self._command = [sys.executable, *sys.orig_argv[1:]] if command is None else [*command]
        self._sock: Listening | None = None
        self._started: subprocess.Popen[bytes] | None = None
        """The last process that was started here: it may live longer than this one."""
        self._under_way = False
        self._connections = 0
        self._tasks = TaskGroup()

    # ------------------------------------------------------------------ who asks

    async def listen(self, path: Path, handed: Sequence[Listening], patience_s: float) -> None:
        """Lets other processes of this user ask.

        Args:
            path: of the socket.
            handed: sockets for it that have come from a predecessor. Those at another path are left alone.
            patience_s: how long to wait for a process that still holds the path.

        Raises:
            ListenError: another balancer hands over there, or the path is no good.
        """
        for sock in handed:
            if self._sock is None and sock.address.host == str(path):
                self._sock = sock
        if self._sock is None:
            try:
                self._sock = (await bind_patiently(ListenAddress(str(path), 0, unix=True), patience_s))[0]
                await asyncio.to_thread(path.chmod, 0o600)
            except (ListenError, OSError) as error:
                raise ListenError(f"--handover-socket: {error}") from error
        self._tasks.start(self._accept(self._sock), name="hand-over")

    async def _accept(self, sock: Listening) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(sock)
            except OSError as error:
                log.warning("a hand-over cannot begin: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            pid, uid = credentials(accepted)
            if not is_ours(uid) or self._connections >= CONNECTIONS_MAX:
                log.warning("hand-over: refused to process %d of user %d", pid, uid)
                accepted.close()
                continue
            self._connections += 1
            task = self._tasks.start(self._serve(accepted, pid), name=f"hand-over to {pid}")
            task.add_done_callback(self._served)

    def _served(self, task: "asyncio.Task[None]") -> None:
        del task
        self._connections -= 1

    def keeps(self, sock: Listening) -> bool:
        """Whether hand-overs begin at this socket."""
        return sock is self._sock

    def start_heir(self, variable: str, environment: Mapping[str, str]) -> None:
        """Starts this program anew, as it is on disk now, and hands over to it.

        Args:
            variable: of the environment, names the descriptor of the connection.
            environment: of the new process, besides.
        """
        if self._under_way:
            log.warning("hand-over: one is under way already: nothing is started")
            return
        self._tasks.start(self._start(variable, environment), name="start an heir")

    def greet(self, sock: socket.socket, pid: int) -> None:
        """Hands over to a process that this balancer has started elsewhere.

        Args:
            sock: the connection to it, this object's from now on.
            pid: of the process.
        """
        self._tasks.start(self._serve(sock, pid, self._timeout_s), name=f"hand-over to {pid}")

    async def _start(self, variable: str, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with closing(theirs):
            number = theirs.fileno()
            variables = {**environment, variable: str(number)}
            try:
                process = await asyncio.to_thread(
                    subprocess.Popen, self._command, env=variables, pass_fds=[number]
                )
            except OSError as error:
                ours.close()
                self._fail(f"{self._command[0]}: {error.strerror or error}")
                return
        self._started = process
        log.info("hand-over: started process %d", process.pid)
        await self._serve(ours, process.pid, self._timeout_s)  # it has to load everything first
        if self.heir is None or self.heir.pid != process.pid:
            await asyncio.to_thread(end, process)

    # ------------------------------------------------------------------ one hand-over

    async def _serve(self, sock: socket.socket, pid: int, hello_s: float = HELLO_S) -> None:
        """One connection, until it has led to an heir, or to nothing."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        began, waited_s = False, hello_s
        try:
            async with asyncio.timeout(waited_s):
                await self._greet(reader)
            began = self._under_way = True
            self._host.begun(pid)
            waited_s = self._timeout_s
            async with asyncio.timeout(waited_s):
                await self._give(sock, reader, writer)
            waited_s = ACCEPT_S
            async with asyncio.timeout(waited_s):
                self.heir = await self._yield(Heir(pid, writer), reader)
        except TimeoutError:
            self._refuse(writer, pid, f"it was not ready within {waited_s:g} s")
        except HandoverError as error:
            self._refuse(writer, pid, str(error))
        except ConnectionError:  # while it was written to
            self._refuse(writer, pid, ENDED)
        except asyncio.CancelledError:
            self._refuse(writer, pid, "the balancer that runs is being stopped")
            raise
        else:
            log.info("hand-over: process %d serves, and takes over", pid)
            self._host.succeeded()
        finally:
            if began:
                self._under_way = False
            if self.heir is None or self.heir.pid != pid:
                self._host.gave_up(pid)

    def _refuse(self, writer: asyncio.StreamWriter, pid: int, why: str) -> None:
        self._fail(f"to process {pid}: {why}")
        writer.write(encode(Kind.REFUSED, why.encode()))
        writer.close()

    def _fail(self, why: str) -> None:
        self.failed_total += 1
        log.warning("hand-over failed: %s; this process goes on", why)

    async def _greet(self, reader: asyncio.StreamReader) -> None:
        hello = decode(await _expected(reader, Kind.HELLO), Hello)
        if hello.version != VERSION:
            text = f"it speaks version {hello.version} of the hand-over's protocol, this one {VERSION}"
            raise HandoverError(text)
        if self.heir is not None or self._under_way:
            raise HandoverError("another hand-over is under way")

    async def _give(
        self, sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        passed = [(name, each) for name, group in self._host.sockets().items() for each in group]
        if self._sock is not None:
            passed.append((HANDOVER, self._sock))
        if len(passed) > DESCRIPTORS_MAX:
            raise HandoverError(f"there are {len(passed)} sockets: at most {DESCRIPTORS_MAX} can be passed")
        said = Sockets([Passed(name, each.inherited) for name, each in passed], _core.__version__)
        frame = encode(Kind.SOCKETS, said)
        numbers = [each.fileno() for _, each in passed]
        try:  # nothing was written before, so that there is room
            sent = socket.send_fds(sock, [frame], numbers)
        except OSError as error:
            raise HandoverError(f"the sockets cannot be passed: {error.strerror or error}") from error
        writer.write(frame[sent:])
        async for part in self._host.state():
            for piece in pieces(part):
                writer.write(encode(Kind.STATE, piece))
            await writer.drain()
        writer.write(encode(Kind.STATE_END, self._host.intent()))
        await _expected(reader, Kind.READY)

    async def _yield(self, heir: Heir, reader: asyncio.StreamReader) -> Heir:
        """It is ready: nothing is accepted here until it has failed, or for good."""
        await self._host.hold()
        try:
            await heir.serve(self._host.rest(), self._host.in_flight)
            await _expected(reader, Kind.ACCEPTING, FAILED)
        except BaseException:  # cancelled too
            await heir.give_up()
            self._host.go_on()
            raise
        return heir

    # ------------------------------------------------------------------ the end

    async def close(self) -> None:
        """Hands over no more; what is under way is given up."""
        await self._tasks.stop()
        if self._sock is not None and self.heir is None:
            self._sock.release()
        elif self._sock is not None:
            self._sock.close()
        self._sock = None


async def _expected(reader: asyncio.StreamReader, expected: Kind, ended: str = ENDED) -> bytes:
    frame = await receive(reader)
    if frame is None:
        raise HandoverError(ended)
    kind, payload = frame
    if kind is Kind.FAULT:
        raise HandoverError(f"it cannot serve: {payload.decode(errors='replace')}")
    if kind is not expected:
        raise HandoverError(f"it is not understood: {kind.name} came, not {expected.name}")
    return payload


def end(process: "subprocess.Popen[bytes]") -> None:
    """Waits for a process that has nothing to do any more. Blocks: it is for a thread."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        log.warning("hand-over: process %d does not end: killed", process.pid)
        process.kill()
        process.wait()


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is started in this one's place.

    What a service manager meant for this process alone is not in it: see sd_listen_fds(3) and
    sd_watchdog_enabled(3).
    """
    mine = {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"}
    return {name: value for name, value in environment.items() if name not in mine}
