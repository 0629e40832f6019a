"""Text of token blocks and answer directives."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb.tools.synthetic import (
    TOKEN_BYTES,
    Answer,
    DirectiveError,
    answer_text,
    block_text,
    prompt_number,
    runs_text,
    split_directive,
    token_count,
)

IDS = st.integers(0, (1 << 64) - 1)
RUNS = st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 6)), max_size=5)
ANSWERS = st.builds(
    Answer,
    tokens=st.integers(1, 1 << 20),
    block_tokens=st.integers(1, 512),
    skip_tokens=st.integers(0, 4096),
    runs=st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 1000)), max_size=20).map(tuple),
)


@given(IDS, st.integers(0, 200))
def test_a_token_is_four_ascii_bytes_that_json_never_escapes(block_id: int, tokens: int) -> None:
    text = block_text(block_id, tokens)
    assert len(text.encode()) == tokens * TOKEN_BYTES
    assert json.dumps(text) == f'"{text}"'
    assert token_count(len(text)) == tokens


@given(IDS, st.integers(0, 100), st.integers(0, 100))
def test_a_shorter_text_of_a_block_begins_a_longer_one(block_id: int, one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert block_text(block_id, long).startswith(block_text(block_id, short))


def test_texts_of_ten_thousand_ids_all_differ() -> None:
    assert len({block_text(block_id, 16) for block_id in range(10_000)}) == 10_000


def test_block_text_never_changes_between_versions() -> None:
    # Stored workloads and results are compared across versions.
    assert block_text(0, 4) == "6k2ma0cYDkAq9Ula"
    assert block_text(281474977759232, 2) == "2V0ZNcLd"


@given(RUNS, st.integers(1, 20), st.integers(0, 80), st.integers(0, 120))
def test_text_of_runs_is_a_slice_of_all_their_blocks(
    runs: list[tuple[int, int]], block_tokens: int, skip_tokens: int, tokens: int
) -> None:
    whole = "".join(
        block_text(start + index, block_tokens) for start, length in runs for index in range(length)
    )
    oracle = whole[skip_tokens * TOKEN_BYTES : (skip_tokens + tokens) * TOKEN_BYTES]
    assert runs_text(runs, block_tokens=block_tokens, skip_tokens=skip_tokens, tokens=tokens) == oracle


def test_a_run_of_astronomic_length_costs_only_what_is_asked_of_it() -> None:
    assert len(runs_text([(0, 1 << 60)], block_tokens=8, skip_tokens=1 << 40, tokens=3)) == 12


@given(st.text(max_size=50), ANSWERS)
def test_a_directive_is_read_back_and_leaves_the_text_as_it_was(text: str, answer: Answer) -> None:
    assert split_directive(text + answer.directive()) == (text, answer)


@given(ANSWERS)
def test_a_directive_is_never_escaped_in_json(answer: Answer) -> None:
    directive = answer.directive()
    assert json.dumps(directive) == f'"{directive}"'


@pytest.mark.parametrize(
    "text", ["", "hello", "hello|>", "<|answer:1,2,3:|> and more", "|>", "<|answer", "<|eot_id|>"]
)
def test_a_text_without_directive_stays_whole(text: str) -> None:
    assert split_directive(text) == (text, None)


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "1,2,3",
        "1,2:",
        "0,64,0:",
        "1,0,0:",
        "-1,64,0:",
        "1,64,0:5",
        "1,64,0:5+",
        "1,64,0:5+1+1",
        "1,64,0:5+1,",
        "1,64,0:18446744073709551615+2",
        "1,64,0:\u0661+1",
        "1" * 21 + ",64,0:",
        "1,64,0:" + ",".join(["1+1"] * 129),
    ],
)
def test_a_broken_directive_is_an_error(inner: str) -> None:
    with pytest.raises(DirectiveError):
        split_directive(f"text<|answer:{inner}|>")


@given(st.text(max_size=3000), st.integers(1, 200))
def test_an_undirected_answer_is_a_function_of_the_prompt_alone(prompt: str, tokens: int) -> None:
    text = answer_text(prompt, tokens, None)
    assert text == answer_text(prompt, tokens, None)
    assert len(text) == tokens * TOKEN_BYTES
    assert answer_text(prompt + "x", tokens, None) != text


def test_prompts_that_differ_in_length_only_have_different_numbers() -> None:
    assert prompt_number("a" * 2000) != prompt_number("a" * 2001)


def test_the_next_turn_of_a_trace_contains_prompt_and_answer() -> None:
    # Turn 1: 10 tokens in blocks of 4 (ids 1, 2, and the partial third); answer of 7; turn 2 holds
    # blocks 1 2 30 31 32: the partial block takes its text from id 30.
    turn_two = [(1, 2), (30, 3)]
    prompt = runs_text(turn_two, block_tokens=4, tokens=10)
    answer = Answer(tokens=7, block_tokens=4, skip_tokens=2, runs=((30, 3),))
    assert prompt + answer_text(prompt, 7, answer) == runs_text(turn_two, block_tokens=4, tokens=17)


def test_an_answer_beyond_its_runs_goes_on_with_text_of_the_prompt() -> None:
    answer = Answer(tokens=10, block_tokens=4, runs=((5, 1),))
    text = answer_text("prompt", 10, answer)
    assert text == block_text(5, 4) + answer_text("prompt", 6, None)
