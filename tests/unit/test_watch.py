"""A file that is read again: what is broken is read once, said once, and repeated when somebody asks."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from skylb.errors import ConfigError
from skylb.watch import Signature, WatchedFile, read_whole

BYTES_MAX = 100


class Number:
    """A file with a number, and how often it was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = 0
        self.taken: list[int] = []
        self.above: int | None = None
        self.file = WatchedFile(path, self._read, self._take, interval_s=1, kept="the last number stays")

    def write(self, text: str) -> None:
        """Writes the file so that its time stamp differs from the last one's."""
        before = self.path.stat().st_mtime_ns if self.path.exists() else 0
        self.path.write_text(text)
        os.utime(self.path, ns=(before + 10**9, before + 10**9))

    def _read(self, path: Path) -> tuple[Signature | None, int]:
        self.reads += 1
        signature, content = read_whole(path, BYTES_MAX)
        if not content.strip().isdigit():
            raise ConfigError([f"{path}: expected a number"])
        return signature, int(content)

    def _take(self, number: int) -> None:
        if self.above is not None and number <= self.above:
            raise ConfigError([f"{self.path}: expected a number above {self.above}"])
        self.taken.append(number)


@pytest.fixture
def number(tmp_path: Path) -> Number:
    made = Number(tmp_path / "number")
    made.write("1")
    return made


def run(steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(steps())


def test_a_broken_file_is_read_once_and_said_once(number: Number, caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        await number.file.load()
        number.write("x")
        for _ in range(3):
            await number.file.look()

    run(steps)
    assert (number.reads, number.taken) == (2, [1])
    assert caplog.messages == [f"{number.path}: expected a number; the last number stays"]
    assert number.file.failure == f"{number.path}: expected a number"


def test_who_asks_is_answered_again(number: Number, caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        await number.file.load()
        number.write("x")
        await number.file.look()
        await number.file.renew()
        number.write("2")
        await number.file.renew()

    with caplog.at_level(logging.INFO, logger="skylb"):
        run(steps)
    broken = f"{number.path}: expected a number; the last number stays"
    assert caplog.messages == [broken, broken, f"{number.path} is good again"]
    assert (number.taken, number.file.failure) == ([1, 2], None)


def test_a_number_that_is_not_taken_is_broken_too_and_the_old_file_is_good_again(
    number: Number, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps() -> None:
        await number.file.load()
        kept = number.path.with_suffix(".old")
        os.link(number.path, kept)
        number.above = 1
        number.path.unlink()
        number.write("0")
        await number.file.look()
        await number.file.look()
        kept.rename(number.path)  # the very file that was understood before
        await number.file.look()

    with caplog.at_level(logging.INFO, logger="skylb"):
        run(steps)
    assert [line.partition(": ")[2] or line for line in caplog.messages] == [
        "expected a number above 1; the last number stays",
        f"{number.path} is good again",
    ]
    assert number.taken == [1]


def test_a_file_that_is_too_large_or_not_there_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"1" * (BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="expected at most 100 bytes"):
        read_whole(path, BYTES_MAX)
    with pytest.raises(ConfigError, match="No such file"):
        read_whole(tmp_path / "none", BYTES_MAX)
