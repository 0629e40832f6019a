"""A file that is read again when it changes: replicas, peers, keys.

A file that cannot be read or understood changes nothing. The last good content stays in use, and one line in
the log says what is wrong.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from skylb.clock import monotonic_ns
from skylb.errors import ConfigError
from skylb.tasks import attempt

log = logging.getLogger("skylb.watch")

T = TypeVar("T")

Signature = tuple[int, int, int]
"""What tells one content of a file from another: time of change, size, inode."""


class WatchedFile(Generic[T]):
    """Watches one file.

    Args:
        path: the file.
        read: reads it, in a thread, and answers what tells this content from others, and what it says. Where
            it is none, it raises `ConfigError`.
        take: takes what it says; where it raises `ConfigError`, that was not understood.
        interval_s: time between looks.
        kept: what stays in use if the file is broken, for the log.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], tuple[Signature | None, T]],
        take: Callable[[T], None],
        *,
        interval_s: float,
        kept: str,
    ) -> None:
        self._path = path
        self._read = read
        self._take = take
        self._interval_s = interval_s
        self._kept = kept
        self._seen: Signature | None = None
        self._refused: Signature | None = None
        """Of a content that was not understood: it is not read again and again."""
        self._said: str | None = None
        """What the log has of that already."""
        self._looking = asyncio.Lock()
        """Of two readings, the one that began first is taken first."""
        self.failure: str | None = None
        """What is wrong with the file as it is now, if something is."""
        self.seen_ns = monotonic_ns()
        """When the file was last found good; at first, when this began."""

    async def load(self) -> None:
        """Reads the file at start.

        Raises:
            ConfigError: it cannot be read or understood; all its faults.
        """
        signature, content = await asyncio.to_thread(self._read, self._path)
        self._take(content)
        self._seen = signature
        self.seen_ns = monotonic_ns()

    async def run(self) -> None:
        """Looks at the file until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.look()

    async def look(self) -> None:
        """Reads the file if it changed since it was last read."""
        async with self._looking:
            await attempt(self._look(), name=f"reading {self._path}")

    async def renew(self) -> None:
        """Reads the file if it changed since it was last understood; repeats what is wrong with it."""
        self._refused = self._said = None
        await self.look()

    async def _look(self) -> None:
        signature = None
        try:
            signature = await asyncio.to_thread(signature_of, self._path)
            if signature == self._refused and signature is not None:
                return
            if signature != self._seen:
                seen, content = await asyncio.to_thread(self._read, self._path)
                self._take(content)
                self._seen = seen
        except ConfigError as error:
            self._refused = signature
            self._refuse(error)
            return
        except Exception as error:
            self.failure = f"{self._path}: {error!r}"  # a bug of ours: the content is not in use all the same
            raise
        self._refused = None
        self.seen_ns = monotonic_ns()
        if self.failure is not None:
            self.failure = self._said = None
            log.info("%s is good again", self._path)

    def _refuse(self, error: ConfigError) -> None:
        more = f" (and {len(error.faults) - 1} more faults)" if len(error.faults) > 1 else ""
        failure = error.faults[0] + more
        self.failure = failure
        if failure != self._said:
            self._said = failure
            log.error("%s; %s", failure, self._kept)


def signature_of(path: Path) -> Signature:
    """What tells the file's content from others.

    Raises:
        ConfigError: it is not there.
    """
    try:
        return _identity(path.stat())
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error


def _identity(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_whole(path: Path, bytes_max: int) -> tuple[Signature | None, bytes]:
    """What tells this content from others, and the content; ``None``: it was being written.

    Raises:
        ConfigError: it cannot be read, or is larger than ``bytes_max``.
    """
    try:
        with path.open("rb") as file:
            before = _identity(os.fstat(file.fileno()))
            content = file.read(bytes_max + 1)
            after = _identity(os.fstat(file.fileno()))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    if len(content) > bytes_max:
        raise ConfigError([f"{path}: expected at most {bytes_max} bytes"])
    # A file that is being written is looked at again next time, whatever it held just now.
    return before if before == after else None, content
