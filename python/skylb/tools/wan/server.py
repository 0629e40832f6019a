"""The process: links, the control socket, the script."""

import asyncio
import gc
import signal
import sys
from contextlib import AsyncExitStack

import msgspec

from skylb.addresses import ListenAddress
from skylb.errors import ConfigError, SkyLBError
from skylb.listeners import Listening, bind
from skylb.tasks import TaskGroup
from skylb.tools.wan.command import (
    LINE_BYTES_MAX,
    Answer,
    Command,
    CommandError,
    apply,
    check,
    parse,
    read_script,
)
from skylb.tools.wan.link import Link
from skylb.tools.wan.settings import WanSettings

CONTROL_CONNECTIONS_MAX = 64
TELL_TIMEOUT_S = 5.0

_encoder = msgspec.json.Encoder()


class ControlError(SkyLBError):
    """A running ``skylb wan`` cannot be commanded; the message says why."""


class Control(asyncio.Protocol):
    """A connection that brings commands."""

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self._rest = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes its place, if there is one."""
        self.transport = transport  # type: ignore[assignment]  # stream servers hand a Transport, typeshed the base
        if len(self._relay.controls) >= CONTROL_CONNECTIONS_MAX:
            transport.close()
        else:
            self._relay.controls.add(self)

    def data_received(self, data: bytes) -> None:
        """Answers each line with a line."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self.transport.write(_encoder.encode(self._relay.command(line)) + b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives its place back."""
        del exc
        self._relay.controls.discard(self)


class Relay:
    """All links of one process. Made by ``start``, ended by ``close``."""

    def __init__(self, settings: WanSettings) -> None:
        self._settings = settings
        self._tasks = TaskGroup()
        self._control: list[tuple[asyncio.Server, Listening]] = []
        self.links: dict[frozenset[str], Link] = {}
        self.controls: set[Control] = set()
        self.addresses: list[ListenAddress] = []
        """Where each ``--link`` listens, in order."""
        self.control: ListenAddress | None = None
        """Where it takes commands."""

    @classmethod
    async def start(cls, settings: WanSettings) -> "Relay":
        """Binds every port and carries connections from then on.

        Raises:
            ConfigError: the script is no good.
            ListenError: an address cannot be bound.
        """
        relay = cls(settings)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(relay.close)
            await relay._open()
            undo.pop_all()
        return relay

    async def _open(self) -> None:
        settings = self._settings
        for port in settings.link:
            ends = frozenset((port.origin, port.far))
            link = self.links.get(ends)
            if link is None:
                link = Link((port.origin, port.far), settings.shape(ends), settings.seed)
                self.links[ends] = link
            self.addresses.append(await link.listen(port.origin, port.listen, port.target))
        script = self._script()
        if settings.control is not None:
            await self._listen(settings.control)
        if script:
            self._tasks.start(self._perform(script), name="wan script")

    def _script(self) -> list[Command]:
        if self._settings.script is None:
            return []
        try:
            script = read_script(self._settings.script)
            for command in script:
                check(self.links, command)
        except CommandError as error:
            raise ConfigError([f"script: {error}"]) from error
        return script

    async def _listen(self, address: ListenAddress) -> None:
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if address.unix else loop.create_server
        for sock in bind(address):
            self.control = sock.address
            self._control.append((await create(lambda: Control(self), sock=sock), sock))

    async def _perform(self, script: list[Command]) -> None:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for command in script:
            await asyncio.sleep(start_s + command.at_s - loop.time())
            apply(self.links, command)

    def command(self, line: bytes) -> Answer:
        """Carries out one line."""
        try:
            return Answer([link.state() for link in apply(self.links, parse(line))])
        except CommandError as error:
            return Answer(error=str(error))

    async def close(self) -> None:
        """Resets every connection and stops listening."""
        await self._tasks.stop()
        for server, _ in self._control:
            server.close()
        for control in list(self.controls):
            control.transport.abort()
        for link in self.links.values():
            await link.close()
        for server, sock in self._control:
            await server.wait_closed()
            sock.unlink()

    def report(self) -> str:
        """What started: a line a port, the control socket, and the line ``ready``."""
        lines = []
        for port, address in zip(self._settings.link, self.addresses, strict=True):
            shape = self.links[frozenset((port.origin, port.far))].shape
            lines.append(f"{port.origin}-{port.far} {address} -> {port.target}  rtt {shape.rtt_s:g} s")
        if self.control is not None:
            lines.append(f"control {self.control}")
        return "\n".join([*lines, "ready"])


async def serve(settings: WanSettings) -> None:
    """Runs until SIGINT, SIGTERM or cancellation.

    Raises:
        ConfigError: the script is no good.
        ListenError: an address cannot be bound.
    """
    relay = await Relay.start(settings)
    try:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        sys.stdout.write(f"{relay.report()}\n")
        sys.stdout.flush()
        gc.freeze()
        await stopped.wait()
    finally:
        await relay.close()


async def tell(address: ListenAddress, lines: tuple[str, ...]) -> list[str]:
    """Sends commands to a running ``skylb wan``; its answers.

    Raises:
        ControlError: it cannot be reached, does not answer, or refuses a command.
    """
    answers = []
    try:
        async with asyncio.timeout(TELL_TIMEOUT_S):
            if address.unix:
                reader, writer = await asyncio.open_unix_connection(address.host, limit=LINE_BYTES_MAX)
            else:
                reader, writer = await asyncio.open_connection(
                    address.host, address.port, limit=LINE_BYTES_MAX
                )
            try:
                for line in lines:
                    writer.write(line.replace("\n", " ").encode() + b"\n")
                    answers.append((await reader.readuntil()).decode().rstrip())
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ControlError(f"{address}: {str(error) or 'no answer'}") from error
    for answer in answers:
        refused = msgspec.json.decode(answer, type=Answer).error
        if refused is not None:
            raise ControlError(refused)
    return answers
