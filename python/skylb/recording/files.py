"""The files of a recording: rotated by size, packed, and the oldest removed where they are too many bytes.

A process holds a lock on each file that it writes. The kernel releases it when the process ends, however it
ends. So a file without a lock is at rest, and may be removed.
"""

import fcntl
import gzip
import os
import shutil
from contextlib import suppress
from pathlib import Path

FILE_BYTES_MAX = 16 << 20
"""Size from which a file is closed and packed: some 40,000 requests."""

FILES_MIN = 8
"""A directory has room for so many files at least, so that removing the oldest one loses little.

Two of them are the file that is written, and its packed form while that is made.
"""

PATTERN = "arrivals-*.jsonl*"

MODE = 0o640
"""Of all files: they say which tenant sent how much."""


class Files:
    """Takes whole lines; every call may block, for a thread.

    Args:
        directory: where the files go; it exists.
        stem: beginning of their names, which sort by time.
        head: first line of each.
        bytes_max: of all files of recordings in the directory.

    Raises:
        OSError: a file cannot be made.
    """

    def __init__(self, directory: Path, stem: str, head: bytes, bytes_max: int) -> None:
        self._directory = directory
        self._stem = stem
        self._head = head
        self._bytes_max = bytes_max
        self._file_bytes_max = min(FILE_BYTES_MAX, bytes_max // FILES_MIN)
        self._number = 0
        self._fd = -1
        self._path = directory
        self._bytes = 0
        self.lines = 0
        """Lines written, heads left out."""
        try:
            self._open()
        except OSError:
            self.discard()
            raise

    def write(self, lines: bytes) -> None:
        """Appends lines.

        Raises:
            OSError: not all could be written. The file ends with a whole line.
        """
        at = 0
        while at < len(lines):
            room = max(1, self._file_bytes_max - self._bytes)
            end = lines.find(b"\n", min(len(lines), at + room) - 1) + 1 or len(lines)
            self._append(lines[at:end])
            self.lines += lines.count(b"\n", at, end)
            at = end
            if self._bytes >= self._file_bytes_max:
                self._rotate()

    def close(self) -> None:
        """Closes and packs the last file; what fails is left as it is."""
        if self._fd >= 0:
            self._finish()

    def discard(self) -> None:
        """Removes the only file, into which nothing was written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        self._prune()
        self._number += 1
        self._path = self._directory / f"{self._stem}-{self._number:04}.jsonl"
        self._fd = _create(self._path)
        self._bytes = 0
        self._append(self._head)

    def _append(self, lines: bytes) -> None:
        at = 0
        try:
            while at < len(lines):
                at += os.write(self._fd, lines[at:])
        except OSError:
            whole = lines.rfind(b"\n", 0, at) + 1
            self.lines += lines.count(b"\n", 0, whole)
            with suppress(OSError):
                os.ftruncate(self._fd, self._bytes + whole)
            raise
        self._bytes += len(lines)

    def _rotate(self) -> None:
        self._finish()
        self._open()

    def _finish(self) -> None:
        """Packs the file, and lets go of it."""
        with suppress(OSError):
            _pack(self._path)  # else it stays as it is
        os.close(self._fd)
        self._fd = -1

    def _prune(self) -> None:
        """Removes the oldest files until there is room for one more."""
        sizes = {}
        for path in self._directory.glob(PATTERN):
            with suppress(OSError):  # removed by somebody else
                sizes[path] = path.stat().st_size
        total = sum(sizes.values())
        for path in sorted(sizes, key=lambda path: path.name):
            if total <= self._bytes_max - 2 * self._file_bytes_max:
                return
            with suppress(OSError):
                if _remove(path):
                    total -= sizes[path]


def _create(path: Path) -> int:
    """Makes a file and locks it; its descriptor."""
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        _lock(fd)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # another process has removed it before it was locked


def _lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    """Locks a file; ``False``: another process has locked it. A file system without locks has none locked."""
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _remove(path: Path) -> bool:
    """Removes a file unless a process is writing it; whether it has done so."""
    if path.suffix == ".gz":  # it is whole, and may be another user's
        path.unlink(missing_ok=True)
        return True
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        is_free = _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_free:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)
    return is_free


def _pack(path: Path) -> None:
    """Replaces a file by its packed form."""
    part = path.with_name(f"{path.name}.gz.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
        with path.open("rb") as source, os.fdopen(fd, "wb") as packed:
            _lock(packed.fileno())
            with gzip.open(packed, "wb", compresslevel=3) as target:
                shutil.copyfileobj(source, target, 1 << 18)
        part.rename(path.with_name(f"{path.name}.gz"))
    except OSError:
        part.unlink(missing_ok=True)
        raise
    path.unlink()
