"""The file of what was learned: written whole or not at all, and read only if it is sound and our own."""

import asyncio
import os
import resource
import threading
from pathlib import Path

import pytest

from skylb import _core
from skylb.clock import unix_ns
from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.handover.state import (
    FILE,
    PART,
    ColdError,
    Exporter,
    Kept,
    Secrets,
    StateFile,
    check_directory,
    make_directory,
    read,
)
from skylb.localrouter import LocalRouter
from skylb.parts import engine

SECRETS = Secrets(b"s" * 32, None)
MAX = 1 << 20
HOUR_S = 3600.0


def router() -> LocalRouter:
    return LocalRouter(engine(Settings(replica=("http://127.0.0.1:9",)), SECRETS))


def state(begun_ns: int | None = None) -> bytes:
    """Of an engine that has learned nothing."""
    writer = _core.StateWriter(SECRETS.blocks, None, unix_ns() if begun_ns is None else begun_ns, MAX)
    made = engine(Settings(replica=("http://127.0.0.1:9",)), SECRETS)
    parts = []
    while (part := made.export_state(writer, 5)) is not None:
        parts.append(part)
    return b"".join(parts)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_directory(tmp_path / "kept")
    return tmp_path / "kept"


def put(directory: Path, data: bytes, mode: int = 0o600) -> None:
    (directory / FILE).write_bytes(data)
    (directory / FILE).chmod(mode)


def outcome(directory: Path, *, age_max_s: float = HOUR_S, bytes_max: int = MAX) -> str:
    try:
        read(directory, age_max_s=age_max_s, bytes_max=bytes_max)
    except ColdError as cold:
        return cold.outcome if str(directory) in str(cold) else "the log does not say where"
    return "warm"


def test_what_was_written_is_read(directory: Path) -> None:
    async def run() -> StateFile:
        file = StateFile(directory, Exporter(router(), SECRETS, MAX))
        await file.save()
        await file.save()
        return file

    file = asyncio.run(run())
    kept = read(directory, age_max_s=HOUR_S, bytes_max=MAX)
    assert kept.secrets == SECRETS
    assert file.bytes == len(kept.data)
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.iterdir()] == [FILE], "nothing is left over"


def test_a_part_that_was_left_behind_is_no_state_and_does_no_harm(directory: Path) -> None:
    (directory / PART).symlink_to("/dev/full")
    assert outcome(directory) == "absent"
    asyncio.run(StateFile(directory, Exporter(router(), SECRETS, MAX)).save())
    assert outcome(directory) == "warm"


def test_a_write_that_fails_leaves_the_old_file_and_is_counted(directory: Path) -> None:
    async def run() -> StateFile:
        file = StateFile(directory, Exporter(router(), SECRETS, MAX))
        await file.save()
        (directory / PART).mkdir()
        await file.save()
        return file

    file = asyncio.run(run())
    assert file.failed_total == 1
    assert outcome(directory) == "warm"


def test_a_full_disk_leaves_the_old_file_and_no_part(directory: Path) -> None:
    async def run() -> StateFile:
        file = StateFile(directory, Exporter(router(), SECRETS, MAX))
        await file.save()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
        try:
            await file.save()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return file

    assert asyncio.run(run()).failed_total == 1
    assert [path.name for path in directory.iterdir()] == [FILE]
    assert outcome(directory) == "warm"


def test_a_write_that_is_cancelled_ends_before_its_file_is_closed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, faults = threading.Event(), threading.Event(), []
    write = os.write

    def late(descriptor: int, data: bytes) -> int:
        begun.set()
        goes_on.wait(10)
        try:
            return write(descriptor, data)
        except OSError as error:
            faults.append(error)
            raise

    async def run() -> None:
        file = StateFile(directory, Exporter(router(), SECRETS, MAX))
        saving = asyncio.ensure_future(file.save())
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", late)
            await asyncio.to_thread(begun.wait, 10)
            saving.cancel()
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(goes_on.set)
            with pytest.raises(asyncio.CancelledError):
                await saving

    asyncio.run(run())
    assert faults == []
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("length", [0, 1, 11, 40])
def test_a_truncated_file_starts_cold(directory: Path, length: int) -> None:
    put(directory, state()[:-length] if length else b"")
    assert outcome(directory) == "foreign"


def test_a_damaged_byte_anywhere_starts_cold(directory: Path) -> None:
    whole = state()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        put(directory, bytes(damaged))
        assert outcome(directory) == "foreign", f"byte {at}"


def test_another_version_and_other_files_start_cold(directory: Path) -> None:
    other = bytearray(state())
    other[8] += 1
    for data, why in ((bytes(other), "it has version"), (b"PK\3\4" * 20, "it is no state of SkyLB")):
        put(directory, data)
        with pytest.raises(ColdError, match=why):
            read(directory, age_max_s=HOUR_S, bytes_max=MAX)


def test_an_old_one_and_one_from_the_future_start_cold(directory: Path) -> None:
    put(directory, state(unix_ns() - round(2 * HOUR_S * 1e9)))
    assert outcome(directory) == "old"
    assert outcome(directory, age_max_s=3 * HOUR_S) == "warm"
    put(directory, state(unix_ns() + round(HOUR_S * 1e9)))
    assert outcome(directory) == "future"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_one_that_others_may_read_or_write_starts_cold(directory: Path, mode: int) -> None:
    put(directory, state(), mode)
    assert outcome(directory) == "exposed"


def test_a_link_and_a_directory_start_cold(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(state())
    (directory / FILE).symlink_to(tmp_path / "elsewhere")
    assert outcome(directory) == "unreadable"
    (directory / FILE).unlink()
    (directory / FILE).mkdir()
    assert outcome(directory) == "exposed"


def test_one_that_is_too_large_starts_cold(directory: Path) -> None:
    put(directory, state())
    assert outcome(directory, bytes_max=20) == "foreign"


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write to it"):
        check_directory(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="expected a directory"):
        check_directory(tmp_path / "file")
    tmp_path.chmod(0o700)


def test_a_state_of_another_secret_is_told_by_it() -> None:
    kept = Kept.of(state())
    assert kept.secrets == SECRETS
    assert kept.secrets != Secrets(b"t" * 32, None)
    assert kept.secrets != Secrets(SECRETS.blocks, b"i" * 32)
    assert 0 <= kept.age_ns < HOUR_S * 1e9


def test_a_made_directory_is_private(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        make_directory(tmp_path / "new")
    finally:
        os.umask(mask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
