"""The files of a recording: rotated by size, packed, and the oldest removed where they are too many bytes."""

import gzip
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

FILE_BYTES_MAX = 16 << 20
"""Size from which a file is closed and packed: some 40,000 requests."""

FILES_MIN = 8
"""A directory has room for so many files at least, so that removing the oldest one loses little."""

PATTERN = "arrivals-*.jsonl*"

_FOREIGN_AGE_S = 3600.0
"""A file that is not packed and was written later than that may be another balancer's, at work."""


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
        self._open()

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
            os.close(self._fd)
            self._fd = -1
            with suppress(OSError):
                _pack(self._path)

    def _open(self) -> None:
        self._prune()
        self._number += 1
        self._path = self._directory / f"{self._stem}-{self._number:04}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
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
        os.close(self._fd)
        self._fd = -1
        with suppress(OSError):
            _pack(self._path)  # else it stays as it is
        self._open()

    def _prune(self) -> None:
        """Removes the oldest files until there is room for one more."""
        sizes = {}
        for path in self._directory.glob(PATTERN):
            with suppress(OSError):  # removed by somebody else
                sizes[path] = path.stat()
        total = sum(size.st_size for size in sizes.values())
        young_s = time.time() - _FOREIGN_AGE_S
        for path in sorted(sizes, key=lambda path: path.name):
            if total <= self._bytes_max - self._file_bytes_max:
                return
            is_packed = path.name.endswith(".gz")
            if not is_packed and sizes[path].st_mtime > young_s and not path.name.startswith(self._stem):
                continue
            path.unlink(missing_ok=True)
            total -= sizes[path].st_size


def _pack(path: Path) -> None:
    """Replaces a file by its packed form."""
    part = path.with_name(f"{path.name}.gz.part")
    try:
        with path.open("rb") as source, gzip.open(part, "wb", compresslevel=3) as target:
            shutil.copyfileobj(source, target, 1 << 18)
        part.rename(path.with_name(f"{path.name}.gz"))
    except OSError:
        part.unlink(missing_ok=True)
        raise
    path.unlink()
