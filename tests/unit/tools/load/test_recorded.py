"""Reading the recordings of `skylb serve --record`."""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skylb.tools.load.workload import WorkloadError, read_workload, select_time

HEAD = {"skylb_recording": 1, "recording": "ab12", "started": 1000.5, "block_bytes": 64}
LINE: dict[str, Any] = {
    "id": 0, "t": 2.0, "region": "eu", "user": 0, "session": 0, "turn": 1, "in": 100, "out": 20,
    "block": 16, "runs": [[0, 6]], "bytes": 400, "model": "m", "status": 200, "end": 3.0,
}  # fmt: skip


def put(path: Path, *lines: dict[str, Any], tail: bytes = b"") -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines) + tail)
    return path


def test_requests_come_by_arrival_from_time_0(tmp_path: Path) -> None:
    path = put(tmp_path / "arrivals-1-ab12-0001.jsonl", HEAD, LINE | {"t": 5.0}, LINE | {"id": 1, "t": 3.0})
    turns = read_workload(path).turns
    assert [(turn.t_s, turn.id) for turn in turns] == [(0.0, 1), (2.0, 0)]


def test_a_directory_is_read_as_one_whatever_is_packed(tmp_path: Path) -> None:
    first = put(tmp_path / "arrivals-1-ab12-0001.jsonl", HEAD, LINE)
    (tmp_path / "arrivals-1-ab12-0001.jsonl.gz").write_bytes(gzip.compress(first.read_bytes()))
    put(tmp_path / "arrivals-1-ab12-0002.jsonl", HEAD, LINE | {"id": 1, "after": 0, "think": 1.0, "t": 4.0})
    put(tmp_path / "arrivals-1-ab12-0003.jsonl", HEAD)
    (tmp_path / "arrivals-1-ab12-0002.jsonl.gz.part").write_bytes(b"half a file")
    one, two = read_workload(tmp_path).turns
    assert (two.after, two.think_s, two.t_s) == (one.id, 1.0, 2.0)


def test_recordings_do_not_mix_and_keep_their_distance_in_time(tmp_path: Path) -> None:
    put(tmp_path / "arrivals-1-ab12-0001.jsonl", HEAD, LINE)
    put(tmp_path / "arrivals-2-cd34-0001.jsonl", HEAD | {"recording": "cd34", "started": 1100.5}, LINE)
    one, two = read_workload(tmp_path).turns
    assert two.t_s - one.t_s == 100
    assert (one.session, one.user, one.runs) != (two.session, two.user, two.runs)


def test_a_request_whose_predecessor_is_gone_begins_a_session(tmp_path: Path) -> None:
    put(tmp_path / "arrivals-1-ab12-0007.jsonl", HEAD, LINE | {"id": 9, "after": 4, "think": 2.0})
    (turn,) = read_workload(tmp_path).turns
    assert (turn.after, turn.think_s) == (None, 0.0)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "arrivals-1-ab12-0001.jsonl", HEAD, LINE, tail=b'{"id":1,"t":')
    assert len(read_workload(tmp_path).turns) == 1


def test_a_prompt_of_which_only_bytes_are_known_gets_the_tokens_that_others_have(tmp_path: Path) -> None:
    guessed = LINE | {"id": 1, "in": 4000, "in_guessed": True, "runs": [[9, 12]], "bytes": 800}
    path = put(tmp_path / "arrivals-1-ab12-0001.jsonl", HEAD, LINE, guessed)
    assert [turn.in_tokens for turn in read_workload(path).turns] == [100, 200]


@pytest.mark.parametrize(
    ("head", "words"),
    [(HEAD | {"skylb_recording": 2}, "skylb_recording is 2"), ({"skylb_recording": 1}, "recording")],
)
def test_a_head_that_cannot_be_read_is_a_fault(tmp_path: Path, head: dict[str, Any], words: str) -> None:
    put(tmp_path / "arrivals-1-ab12-0001.jsonl", head, LINE)
    with pytest.raises(WorkloadError, match=words):
        read_workload(tmp_path)


def test_an_empty_directory_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="holds no recording: expected files like"):
        read_workload(tmp_path)


def test_a_span_of_time_becomes_the_beginning(tmp_path: Path) -> None:
    follows = {"after": 0, "think": 1.0, "t": 10.0, "id": 1}
    path = put(tmp_path / "arrivals-1-ab12-0001.jsonl", HEAD, LINE | {"t": 0.0}, LINE | follows)
    turns = read_workload(path).turns
    assert [(turn.t_s, turn.after is None) for turn in select_time(turns, 0, None)] == [
        (0, True),
        (10, False),
    ]
    assert [(turn.t_s, turn.after) for turn in select_time(turns, 4, 11)] == [(6, None)]
    assert select_time(turns, 4, 10) == []
