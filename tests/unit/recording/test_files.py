"""The files of a recording: whole lines, bounded, and a full directory."""

import gzip
import os
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


def test_a_young_file_of_another_balancer_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "arrivals-1-aa-0001.jsonl"
    theirs.write_bytes(b"x" * BYTES_MAX)
    files(tmp_path).close()
    assert theirs.exists()
    os.utime(theirs, (0, 0))
    files(tmp_path / ".", BYTES_MAX + 1).close()
    assert not theirs.exists()


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
