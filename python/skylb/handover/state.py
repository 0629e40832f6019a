"""What was learned: as bytes in memory, and as a file in a directory of the balancer's own."""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from skylb import _core
from skylb.clock import unix_ns
from skylb.errors import ConfigError
from skylb.router import Router

log = logging.getLogger("skylb.handover")

Result = TypeVar("Result")

FILE = "state"
PART = "state.part"
"""What is being written. One that was left behind by a process that died is overwritten."""

FUTURE_S = 60.0
"""How far a state may lie ahead: clocks of one machine are set back by less."""

CHUNK_BYTES = 4 << 20
"""Written to the file at a time."""

OUTCOMES = (
    "off",
    "warm",
    "absent",
    "unreadable",
    "exposed",
    "foreign",
    "old",
    "future",
    "secret",
)
"""What may become of the state at a start: labels of a metric. All but the first two start cold."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the hashes of a state are keyed by: without these it says nothing."""

    blocks: bytes
    isolation: bytes | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A state that is whole, with what it says of itself."""

    data: bytes
    secrets: Secrets
    unix_ns: int
    """When it was begun."""

    @classmethod
    def of(cls, data: bytes) -> "Kept":
        """Checks a state.

        Raises:
            ValueError: it is damaged, truncated, of another version, or none.
        """
        blocks, isolation, begun_ns = _core.read_state_head(data)
        return cls(data, Secrets(blocks, isolation), begun_ns)

    @property
    def age_ns(self) -> int:
        """Since it was begun, by the wall clock; negative for one from the future."""
        return unix_ns() - self.unix_ns


class ColdError(Exception):
    """A start without what was learned.

    Args:
        outcome: one of `OUTCOMES`.
        why: for the log.
    """

    def __init__(self, outcome: str, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


def make_directory(path: Path) -> None:
    """Makes the directory if it is not there.

    Raises:
        ConfigError: it cannot be made, or others may write to it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"state_dir: {path}: {error.strerror}"]) from error
    check_directory(path)


def check_directory(path: Path) -> None:
    """Looks at the directory, if it is there.

    Raises:
        ConfigError: it is none, or others may write to it.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError([f"state_dir: {path}: {error.strerror}"]) from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError([f"state_dir: {path}: expected a directory"])
    if found.st_mode & 0o022 or found.st_uid not in {0, os.geteuid()}:
        raise ConfigError([f"state_dir: {path}: others may write to it: expected mode 0700, and its owner"])


def read(directory: Path, *, age_max_s: float, bytes_max: int) -> Kept:
    """The state that was written last. Blocks: it is for a thread.

    Raises:
        ColdError: there is none that may be used, and why.
    """
    path = directory / FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ColdError("absent", f"{path} is not there") from None
    except OSError as error:
        raise ColdError("unreadable", f"{path}: {error.strerror}") from error
    try:
        kept = _read(path, descriptor, bytes_max)
    except OSError as error:
        raise ColdError("unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ColdError("foreign", f"{path}: {error}") from error
    finally:
        os.close(descriptor)
    age_s = kept.age_ns / 1e9
    if age_s > age_max_s:
        raise ColdError("old", f"{path}: it is {age_s:.0f} s old: more than state_age_max_s")
    if age_s < -FUTURE_S:
        raise ColdError(
            "future", f"{path}: it was written {-age_s:.0f} s after now: look at this machine's clock"
        )
    return kept


def _read(path: Path, descriptor: int, bytes_max: int) -> Kept:
    """What an open file holds.

    Raises:
        ColdError: it is not this user's alone.
        OSError: it cannot be read.
        ValueError: it is no state, or too large.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise ColdError("exposed", f"{path}: others may read or write it: expected mode 0600, and its owner")
    if found.st_size > bytes_max:
        raise ValueError(f"{found.st_size} bytes: more than state_bytes_max")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return Kept.of(file.read(bytes_max + 1))


class Exporter:
    """Writes what an engine has learned, in parts between which requests are served.

    Args:
        router: over the engine.
        secrets: what its hashes are keyed by.
        bytes_max: of the state.
    """

    def __init__(self, router: Router, secrets: Secrets, bytes_max: int) -> None:
        self._router = router
        self._secrets = secrets
        self._bytes_max = bytes_max
        self.clock = 0
        """Of the tree, when the last state was begun."""

    async def parts(self, since: int | None = None) -> AsyncIterator[bytes]:
        """All that was learned; of the tree only what was used ``since``, if given."""
        secrets = self._secrets
        writer = _core.StateWriter(secrets.blocks, secrets.isolation, unix_ns(), self._bytes_max, since)
        while (part := self._router.export_state(writer)) is not None:
            if part:
                yield part
            await asyncio.sleep(0)  # requests have their turn between any two parts
        self.clock = writer.clock


class StateFile:
    """Writes the state into a directory, every so often and at the end.

    Args:
        directory: made already.
        exporter: of what was learned.
    """

    def __init__(self, directory: Path, exporter: Exporter) -> None:
        self._directory = directory
        self._exporter = exporter
        self._writing = asyncio.Lock()
        self.bytes = 0
        """Of the last state that was written."""
        self.written_ns = 0
        """When, by the wall clock; 0 for never."""
        self.failed_total = 0
        self._fault = ""

    async def run(self, interval_s: float) -> None:
        """Writes every so often, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.save()

    async def save(self) -> None:
        """Writes it now; a failure is logged, once for each kind, and counted."""
        async with self._writing:
            try:
                await self._save()
            except OSError as error:
                self.failed_total += 1
                fault = error.strerror or str(error)
                if fault != self._fault:
                    log.warning("state_dir: %s: the state cannot be written: %s", self._directory, fault)
                self._fault = fault
            else:
                self._fault = ""

    async def _save(self) -> None:
        begun_ns, written, chunk = unix_ns(), 0, bytearray()
        part = _Part(self._directory)
        try:
            await in_thread(part.open)
            async for piece in self._exporter.parts():
                chunk += piece
                if len(chunk) >= CHUNK_BYTES:
                    written += await in_thread(part.write, bytes(chunk))
                    chunk.clear()
            written += await in_thread(part.write, bytes(chunk))
            await in_thread(part.publish)
        finally:
            part.close()
        self.bytes, self.written_ns = written, begun_ns


class _Part:
    """A file that is being written. All but `close` block: they are for a thread.

    Args:
        directory: where it is made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / PART
        self._descriptor = -1
        self._published = False

    def open(self) -> None:
        """Makes it; one that was left behind is removed."""
        self._path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)

    def write(self, data: bytes) -> int:
        """Appends; how many bytes there were."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return len(data)

    def publish(self) -> None:
        """It takes the place of the file before, also where the machine stops at this moment."""
        os.fsync(self._descriptor)
        self._path.replace(self._directory / FILE)
        self._published = True
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Ends it; what has not taken its place is removed."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        if not self._published:
            self._path.unlink(missing_ok=True)


async def in_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """Runs a function in a thread. Where this is cancelled, it waits until the function has returned."""
    running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled() and running.exception() is not None:
            log.warning("the state cannot be written: %s", running.exception())
        raise
