"""Reading workload files."""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import (
    LINE_BYTES_MAX,
    WorkloadError,
    group_users,
    read_workload,
    select_sessions,
)

LINE: dict[str, Any] = {
    "id": 1, "t": 0.5, "after": None, "think": 0.0, "region": "eu", "user": 3, "session": 4, "turn": 1,
    "in": 100, "out": 20, "block": 16, "runs": [[7, 6]],
}  # fmt: skip


def line(**changes: object) -> bytes:
    return msgspec.json.encode(LINE | changes)


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(text + b"\n" for text in lines))
    return path


def turn(**changes: object) -> Turn:
    return msgspec.json.decode(line(**changes), type=Turn)


def test_a_line_becomes_a_request(tmp_path: Path) -> None:
    (found,) = read_workload(write(tmp_path / "w.jsonl", line())).turns
    assert found == turn()
    assert (found.in_tokens, found.out_tokens, found.block_tokens, found.runs) == (100, 20, 16, ((7, 6),))
    assert (found.t_s, found.after, found.region, found.user, found.session) == (0.5, None, "eu", 3, 4)


def test_a_packed_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    plain = write(tmp_path / "w.jsonl", line(), line(id=2, after=1))
    packed = tmp_path / "w.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_workload(packed) == read_workload(plain)


def test_empty_lines_are_no_faults(tmp_path: Path) -> None:
    assert len(read_workload(write(tmp_path / "w", b"", line(), b"  ", line(id=2))).turns) == 2


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'{"id":1', "truncated"),
        (b"[]", "object"),
        (b"\xff\xfe", "malformed"),
        (msgspec.json.encode({"id": 9}), "region"),
        (line(id="x"), "$.id"),
        (line(id=-1), "$.id"),
        (line(**{"in": 0}), "$.in"),
        (line(out=-1), "$.out"),
        (line(block=0), "$.block"),
        (line(runs=[[1, 0]]), "$.runs"),
        (line(runs=[[1 << 62, 1]]), "$.runs"),
        (line(runs=[[1]]), "$.runs"),
        (line(t=-1), "$.t"),
        (line(think=1e300), "$.think"),
        (line(region=""), "$.region"),
        (line(), "id 1 was there before"),
        (line(id=9, after=5), "after is 5"),
        (line(id=9, after=1, session=5), "expected an earlier request of session 5"),
        (line(id=9, block=32), "block is 32: expected 16"),
    ],
)
def test_a_broken_line_is_named_with_its_file_and_number(tmp_path: Path, bad: bytes, words: str) -> None:
    path = write(tmp_path / "w.jsonl", line(), line(id=2), bad, line(id=3))
    with pytest.raises(WorkloadError) as error:
        read_workload(path)
    assert f"{path}, line 3: " in str(error.value)
    assert words in str(error.value)


def test_broken_lines_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "w", line(), b"?", line(id=3, after=2), line(id=4, after=1))
    found = read_workload(path, skip_bad=True)
    assert [request.id for request in found.turns] == [1, 4]
    assert found.lines_bad == 2  # the second follows one that was left out
    assert found.first_fault is not None
    assert "line 2" in found.first_fault


def test_an_overlong_line_is_one_broken_line(tmp_path: Path) -> None:
    path = write(tmp_path / "w", line(), b" " * (LINE_BYTES_MAX + 5) + line(id=2), line(id=3))
    found = read_workload(path, skip_bad=True)
    assert [request.id for request in found.turns] == [1, 3]
    assert found.lines_bad == 1


@pytest.mark.parametrize("content", [b"", b"\n\n", b"no\n", b"\x1f\x8bnot gzip", gzip.compress(line())[:-9]])
def test_a_file_without_requests_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=str(path)):
        read_workload(path, skip_bad=True)


def test_a_prompt_has_as_many_listed_blocks_as_it_has_room_for() -> None:
    assert turn(**{"in": 96, "runs": [[7, 4], [20, 4]]}).listed_blocks() == 6
    assert turn(**{"in": 97, "runs": [[7, 4], [20, 4]]}).listed_blocks() == 7
    assert turn(**{"in": 1000, "runs": [[7, 4], [20, 4]]}).listed_blocks() == 8
    assert turn(**{"in": 10, "runs": []}).listed_blocks() == 0


def test_the_first_sessions_are_selected_whole() -> None:
    turns = [
        turn(id=1, session=1),
        turn(id=2, session=2),
        turn(id=3, session=3),
        turn(id=4, session=1, after=1),
    ]
    assert [request.id for request in select_sessions(turns, 2)] == [1, 2, 4]
    assert select_sessions(turns, None) == turns


def test_users_have_their_sessions_in_order_and_their_region() -> None:
    turns = [
        turn(id=1, session=1, user=1),
        turn(id=2, session=2, user=2, region="us"),
        turn(id=3, session=1, user=1, after=1),
        turn(id=4, session=1, user=1, after=1),
        turn(id=5, session=3, user=1),
    ]
    regions = group_users(turns)
    assert {name: len(users) for name, users in regions.items()} == {"eu": 1, "us": 1}
    first, second = regions["eu"][0].sessions
    assert [request.id for request in first.roots] == [1]
    assert [request.id for request in first.followers[1]] == [3, 4]
    assert [request.id for request in second.roots] == [5]
