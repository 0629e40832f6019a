"""The files of a recording: whole lines, bounded, and a full directory."""

import errno
import fcntl
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skylb.recording.files import Files

HEAD = b'{"skylb_recording":1}\n'
LINE = b'{"id":%05d,"text":"' + b"x" * 80 + b'"}\n'
BYTES_MAX = 64 << 10


def files(directory: Path, bytes_max: int = BYTES_MAX) -> Files:
    return Files(directory, "arrivals-2-ab", HEAD, bytes_max)


def lines(*numbers: int) -> bytes:
    return b"".join(LINE % number for number in numbers)


def text(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_files_are_packed_and_hold_every_line_once(tmp_path: Path) -> None:
    made = files(tmp_path)
    for start in range(0, 300, 7):
        made.write(lines(*range(start, min(start + 7, 300))))
    made.close()
    found = sorted(tmp_path.iterdir())
    assert len(found) > 2
    assert {path.suffix for path in found} == {".gz"}
    assert all(text(path).startswith(HEAD) for path in found)
    assert b"".join(text(path).removeprefix(HEAD) for path in found) == lines(*range(300))
    assert made.lines == 300


def test_the_oldest_files_are_removed_and_the_bound_holds_all_the_time(tmp_path: Path) -> None:
    old = tmp_path / "arrivals-1-aa-0001.jsonl.gz"
    old.write_bytes(os.urandom(20_000))
    other = tmp_path / "notes.txt"
    other.write_bytes(b"mine")
    made = files(tmp_path)
    for number in range(2000):
        made.write(b'{"random":"%s"}\n' % os.urandom(200).hex().encode())
        assert sum(path.stat().st_size for path in tmp_path.glob("arrivals-*")) <= BYTES_MAX, number
    made.close()
    assert not old.exists()
    assert other.exists()


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("arrivals-*"))


def test_a_file_that_another_process_writes_stays_until_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.unit.recording.test_files import *; made = files(Path(sys.argv[1]), 8 << 16)"
    )
    code += "; made.write(lines(*range(600))); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        (theirs,) = tmp_path.iterdir()
        assert theirs.stat().st_size > 48 << 10
        Files(tmp_path, "arrivals-3-cd", HEAD, BYTES_MAX).close()
        assert theirs.exists()
        other.kill()
    Files(tmp_path, "arrivals-4-ef", HEAD, BYTES_MAX).close()
    assert not theirs.exists()


def test_the_bound_holds_where_each_process_dies_before_it_packs_its_file(tmp_path: Path) -> None:
    for number in range(40):
        made = Files(tmp_path, f"arrivals-2-{number:02}", HEAD, BYTES_MAX)
        made.write(lines(*range(70)))
        assert size(tmp_path) <= BYTES_MAX, number
        os.close(made._fd)  # as the kernel does when it dies


def test_what_was_not_packed_to_the_end_is_removed_too(tmp_path: Path) -> None:
    part = tmp_path / "arrivals-1-aa-0001.jsonl.gz.part"
    part.write_bytes(b"x" * BYTES_MAX)
    files(tmp_path).close()
    assert not part.exists()


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    tried: list[int] = []

    def late(fd: int, how: int) -> None:
        if not tried:
            (path,) = tmp_path.iterdir()
            path.unlink()
        tried.append(fd)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    made = files(tmp_path)
    made.write(lines(1))
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == HEAD + lines(1)


def test_a_file_system_without_locks_is_written_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / "arrivals-1-aa-0001.jsonl").write_bytes(b"x" * BYTES_MAX)
    files(tmp_path).close()
    assert size(tmp_path) < 1000


def test_a_batch_larger_than_a_file_is_spread(tmp_path: Path) -> None:
    made = files(tmp_path)
    made.write(lines(*range(500)))
    made.close()
    found = sorted(tmp_path.iterdir())
    assert b"".join(text(path).removeprefix(HEAD) for path in found) == lines(*range(500))


def test_a_write_that_fails_leaves_whole_lines_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = files(tmp_path)
    real = os.write
    room = len(LINE % 0) * 2 + 30

    def full(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = real(fd, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        made.write(lines(1, 2, 3))
    assert made.lines == 2
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == HEAD + lines(1, 2)


def test_a_name_that_is_taken_is_a_failure_and_not_overwritten(tmp_path: Path) -> None:
    files(tmp_path)
    with pytest.raises(FileExistsError):
        files(tmp_path)
