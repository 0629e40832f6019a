"""Mooncake's format, read and written."""

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb.cli import main
from skylb.tools.load.mooncake import BLOCK_TOKENS, read_line, write_lines
from skylb.tools.load.turn import Turn, block_at, compact
from skylb.tools.load.workload import WorkloadError, read_workload

LINE = {"timestamp": 1500, "input_length": 1300, "output_length": 40, "hash_ids": [0, 1, 7]}
REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "mooncake" / "conversation_trace.jsonl.gz"


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


def turn(number: int, in_tokens: int, ids: list[int], block: int = 16, **changes: Any) -> Turn:
    given = {"region": "eu", "user": number, "session": number, "out_tokens": 5} | changes
    return Turn(id=number, in_tokens=in_tokens, block_tokens=block, runs=compact(ids), **given)


def ids_of(line: bytes) -> list[int]:
    found: list[int] = msgspec.json.decode(line)["hash_ids"]
    return found


def common(one: list[int], other: list[int]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def test_a_line_is_told_by_its_fields_and_keeps_lengths_and_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", LINE, LINE | {"timestamp": 2000, "hash_ids": [0, 1, 8]})
    one, two = read_workload(path).turns
    assert (one.t_s, one.in_tokens, one.out_tokens, one.block_tokens) == (1.5, 1300, 40, BLOCK_TOKENS)
    assert (one.runs, two.runs) == (((0, 2), (7, 1)), ((0, 2), (8, 1)))
    assert (two.t_s, two.after, two.session != one.session) == (2.0, None, True)


def test_a_broken_line_is_named_with_its_field(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", LINE, LINE | {"input_length": "many"})
    with pytest.raises(WorkloadError, match=r"m\.jsonl, line 2: .*input_length"):
        read_workload(path)
    assert read_workload(path, skip_bad=True).lines_bad == 1


def test_what_is_read_and_written_again_is_the_same() -> None:
    lines = [LINE, LINE | {"timestamp": 1600, "hash_ids": [0, 1, 2], "input_length": 1500}]
    turns = [read_line(msgspec.json.encode(line), number) for number, line in enumerate(lines)]
    written = [msgspec.json.decode(line) for line in write_lines(turns)]
    assert [line["hash_ids"] for line in written] == [[0, 1, 2], [0, 1, 3]], "numbered as they come"
    for line, again in zip(lines, written, strict=True):
        assert {**again, "hash_ids": 0} == {**line, "hash_ids": 0}


def test_blocks_are_shared_as_far_as_whole_blocks_of_512_tokens_reach() -> None:
    shared = list(range(70))  # 1120 tokens of 16: two blocks of 512, and 96 tokens
    one, two, short = write_lines(
        [
            turn(0, 1300, [*shared, *range(100, 112)]),
            turn(1, 1300, [*shared, *range(200, 212)]),
            turn(2, 700, shared),
        ]
    )
    assert common(ids_of(one), ids_of(two)) == 2
    assert common(ids_of(one), ids_of(short)) == 1
    assert [len(ids_of(line)) for line in (one, two, short)] == [3, 3, 2]


def test_text_without_blocks_is_shared_within_a_session_only() -> None:
    same, again, other = write_lines(
        [turn(0, 600, [1], session=5), turn(1, 600, [1], session=5), turn(2, 600, [1], session=6)]
    )
    assert ids_of(same) == ids_of(again)
    assert common(ids_of(same), ids_of(other)) == 0


@given(
    block=st.sampled_from([8, 15, 16, 64, 100, 512, 700]),
    shared=st.integers(0, 90),
    lengths=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
)
def test_no_two_prompts_share_more_than_before_and_at_most_a_block_less(
    block: int, shared: int, lengths: tuple[int, int]
) -> None:
    turns = [
        turn(n, tokens, [*range(shared), *range(10_000 * (n + 1), 10_000 * (n + 1) + 600)], block)
        for n, tokens in enumerate(lengths)
    ]
    one, two = map(ids_of, write_lines(turns))
    before = min(shared * block, *lengths)
    after = common(one, two) * BLOCK_TOKENS
    assert before - BLOCK_TOKENS - block < after <= -(-before // BLOCK_TOKENS) * BLOCK_TOKENS
    if before < min(lengths):
        assert after <= before


def test_the_command_writes_a_file_and_says_what_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "m.jsonl", LINE)
    target = tmp_path / "out.jsonl.gz"
    assert main(["trace", "mooncake", str(source), "--output", str(target)]) == 0
    assert "1 requests" in capsys.readouterr().out
    assert ids_of(gzip.decompress(target.read_bytes())) == [0, 1, 2]


def test_the_command_names_what_it_cannot_read_or_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "mooncake", str(tmp_path), "--output", "x"]) == 1
    assert "holds no recording" in capsys.readouterr().err
    source = write(tmp_path / "m.jsonl", LINE)
    assert main(["trace", "mooncake", str(source), "--output", str(tmp_path / "no" / "x")]) == 1
    assert "output: " in capsys.readouterr().err
    assert main(["trace", "show"]) == 2
    assert "expected skylb trace mooncake" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.exists(), reason="the trace is not part of the repository")
def test_the_published_trace_keeps_its_lengths_and_what_prompts_share() -> None:
    """By the notes of the data: 12,031 requests, 36.6 % of blocks found in an infinite cache."""
    turns = read_workload(REAL).turns
    assert len(turns) == 12_031
    seen: set[int] = set()
    hits = blocks = 0
    for one in turns:
        ids = [block_at(one, index) for index in range(-(-one.in_tokens // BLOCK_TOKENS))]
        hits += sum(1 for block in ids if block in seen)
        blocks += len(ids)
        seen.update(ids)
    assert hits / blocks == pytest.approx(0.366, abs=0.005)
    assert sum(one.in_tokens for one in turns) / len(turns) == pytest.approx(12_035, rel=0.01)
    assert all(a.t_s <= b.t_s for a, b in pairwise(turns))
    written = list(write_lines(turns))
    lines = gzip.decompress(REAL.read_bytes()).splitlines()
    assert [len(ids_of(line)) for line in written] == [len(ids_of(line)) for line in lines]
