"""From blocks to messages: what prompts share in the trace they share in text."""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylb.tools.load.generate import generate
from skylb.tools.load.messages import Message, Renderer, pieces
from skylb.tools.load.settings import SyntheticSettings
from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import read_workload
from skylb.tools.synthetic import TOKEN_BYTES, answer_text, split_directive

EXAMPLES = Path(__file__).parents[5] / "shared" / "data" / "examples"
NAMES = ["agent_even_b8", "chat_arenalike_b64", "chat_sharedsys_b64", "chat_wildchatlike_b64", "tot_gsm8k_b2"]
LINES = 300
PAIRS = 3000
FOLLOWERS = 700
AGENT_LINES = 60
"""The coding agents' prompts are ten times as long."""


def make(
    id_: int,
    in_tokens: int,
    runs: Sequence[tuple[int, int]],
    *,
    after: int | None = None,
    out: int = 10,
    session: int = 0,
    block: int = 4,
) -> Turn:
    return Turn(
        id=id_, region="r", user=0, session=session, in_tokens=in_tokens, out_tokens=out, block_tokens=block,
        runs=tuple(runs), after=after,
    )  # fmt: skip


def text_of(messages: Sequence[Message]) -> str:
    """The prompt as a replica counts it: without directives."""
    return "".join(split_directive(message.content)[0] for message in messages)


def roles(messages: Sequence[Message]) -> list[str]:
    return [message.role for message in messages]


def block_ids(turn: Turn) -> list[int]:
    return [start + index for start, length in turn.runs for index in range(length)]


def shared_blocks(one: Turn, other: Turn) -> int:
    """Whole blocks that both prompts begin with, by the trace."""
    same = [mine == theirs for mine, theirs in zip(block_ids(one), block_ids(other), strict=False)]
    whole = min(one.in_tokens, other.in_tokens) // one.block_tokens
    return min([*same, False].index(False), whole)


def answered(renderer: Renderer, turn: Turn) -> str:
    """What the mock replica would answer."""
    messages = renderer.messages(turn)
    _, answer = split_directive(messages[-1].content)
    return answer_text(text_of(messages), turn.out_tokens, answer)


def assert_sound(renderer: Renderer, turn: Turn) -> None:
    messages = renderer.messages(turn)
    assert len(text_of(messages)) == turn.in_tokens * TOKEN_BYTES
    assert messages[-1].role == "user"
    assert all(message.content for message in messages)
    assert "system" not in roles(messages)[1:]
    assert split_directive(renderer.prompt(turn))[0] == text_of(messages)


# ------------------------------------------------------------------------------ single rules


def test_the_next_turn_repeats_the_messages_and_the_answer() -> None:
    first = make(1, 9, [(100, 3)])
    second = make(2, 25, [(100, 2), (200, 5)], after=1)
    renderer = Renderer([first, second])
    before, after = renderer.messages(first), renderer.messages(second)
    assert after[: len(before)] == before
    assert roles(after) == ["user", "assistant", "user"]
    assert after[1].content == answered(renderer, first)
    assert len(after[1].content) == 10 * TOKEN_BYTES


def test_without_directives_only_the_directives_are_missing() -> None:
    turns = [make(1, 9, [(100, 3)]), make(2, 25, [(100, 2), (200, 5)], after=1)]
    plain, directed = Renderer(turns, directives=False), Renderer(turns)
    for turn in turns:
        messages = plain.messages(turn)
        assert [split_directive(m.content) for m in messages] == [(m.content, None) for m in messages]
        assert [m.content for m in messages] == [
            split_directive(m.content)[0] for m in directed.messages(turn)
        ]


def test_a_partial_block_is_continued_by_the_next_turns_block() -> None:
    first, second = make(1, 6, [(100, 2)], out=0), make(2, 12, [(100, 1), (200, 2)], after=1)
    renderer = Renderer([first, second])
    assert text_of(renderer.messages(second)).startswith(text_of(renderer.messages(first)))


def test_an_unlisted_rest_is_continued_as_well() -> None:
    first, second = make(1, 6, [(100, 1)], out=0), make(2, 12, [(100, 1), (200, 2)], after=1)
    renderer = Renderer([first, second])
    assert text_of(renderer.messages(second)).startswith(text_of(renderer.messages(first)))


def test_two_followers_continue_the_same_prompt() -> None:
    first = make(1, 6, [(100, 2)])
    followers = [make(2, 20, [(100, 1), (200, 4)], after=1), make(3, 24, [(100, 1), (300, 5)], after=1)]
    renderer = Renderer([first, *followers])
    prompt = text_of(renderer.messages(first))
    assert all(text_of(renderer.messages(turn)).startswith(prompt) for turn in followers)
    assert text_of(renderer.messages(followers[0])) != text_of(renderer.messages(followers[1]))[:80]
    assert renderer.messages(followers[0])[1].content == answered(renderer, first)


def test_requests_that_repeat_a_question_get_the_same_answer() -> None:
    roots = [make(1, 6, [(100, 1)], out=6), make(2, 6, [(100, 1)], out=6)]
    followers = [
        make(3, 20, [(100, 1), (200, 1), (201, 1), (202, 2)], after=1),
        make(4, 20, [(100, 1), (200, 1), (201, 1), (302, 2)], after=2),
    ]
    renderer = Renderer([*roots, *followers])
    assert renderer.messages(roots[0]) == renderer.messages(roots[1])
    for root, follower in zip(roots, followers, strict=True):
        assert renderer.messages(follower)[1].content == answered(renderer, root)
    assert renderer.messages(followers[0])[2] != renderer.messages(followers[1])[2]


def test_blocks_shared_by_sessions_are_the_system_message() -> None:
    turns = [make(1, 12, [(1, 2), (100, 1)]), make(2, 10, [(1, 2), (200, 1)], session=1)]
    renderer = Renderer(turns)
    first, second = (renderer.messages(turn) for turn in turns)
    assert roles(first) == roles(second) == ["system", "user"]
    assert first[0] == second[0]
    assert len(first[0].content) == 8 * TOKEN_BYTES


def test_a_follower_without_room_for_the_answer_goes_on_as_the_user() -> None:
    first, second = make(1, 8, [(100, 2)], out=50), make(2, 20, [(100, 2), (200, 3)], after=1)
    renderer = Renderer([first, second])
    assert roles(renderer.messages(second)) == ["user"]
    assert text_of(renderer.messages(second)).startswith(text_of(renderer.messages(first)))


def test_an_edited_context_keeps_what_the_trace_keeps() -> None:
    first, second = make(1, 16, [(100, 4)], out=3), make(2, 24, [(100, 2), (200, 4)], after=1)
    renderer = Renderer([first, second])
    one, other = (text_of(renderer.messages(turn)) for turn in (first, second))
    assert other.startswith(one[: 8 * TOKEN_BYTES])
    assert not other.startswith(one[: 12 * TOKEN_BYTES])


def test_blocks_that_point_at_each_other_still_have_a_text() -> None:
    turns = [
        make(1, 6, [(100, 1), (200, 1)]),
        make(2, 7, [(100, 1), (300, 1)], after=1),
        make(3, 8, [(100, 1), (200, 1)], after=2),
    ]
    renderer = Renderer(turns)
    for turn in turns:
        assert_sound(renderer, turn)


def test_a_prompt_without_listed_blocks_has_a_text() -> None:
    turns = [make(1, 3, []), make(2, 30, [], session=1), make(3, 40, [(5, 2)], session=2)]
    renderer = Renderer(turns)
    for turn in turns:
        assert_sound(renderer, turn)
    assert len({text_of(renderer.messages(turn))[:12] for turn in turns}) == 3


# -------------------------------------------------------------------------- whole workloads


@st.composite
def trees(draw: st.DrawFn) -> list[Turn]:
    """Requests whose block ids stand for whole prefixes, as in a trace: some extend others, some edit."""
    block = draw(st.sampled_from([1, 4, 16]))
    turns: list[Turn] = []
    fresh = iter(range(1000, 10**9, 100))
    for id_ in range(draw(st.integers(1, 8))):
        parent = draw(st.sampled_from([None, *turns])) if turns else None
        out = draw(st.integers(0, 40))
        if parent is None:
            kept = draw(st.sampled_from([[], [1], [1, 2], [1, 2, 3]]))
            session = id_
        else:
            whole = block_ids(parent)[: parent.in_tokens // block]
            kept = whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole
            session = parent.session
        longer = (parent.in_tokens + parent.out_tokens if parent else 0) - len(kept) * block
        in_tokens = len(kept) * block + max(1, longer + draw(st.integers(-10, 60)))
        listed = in_tokens // block + draw(st.integers(0, 1))
        first = next(fresh)
        ids = kept + list(range(first, first + min(99, max(0, listed - len(kept)))))
        runs = [(block_id, 1) for block_id in ids]
        after = parent.id if parent else None
        turns.append(make(id_, in_tokens, runs, after=after, out=out, session=session, block=block))
    return turns


@given(trees())
@settings(max_examples=100, deadline=None)
def test_any_two_prompts_share_at_least_the_blocks_they_share_in_the_trace(turns: list[Turn]) -> None:
    renderer = Renderer(turns)
    for turn in turns:
        assert_sound(renderer, turn)
    check_pairs(renderer, [(one, other) for one in turns for other in turns])


def check_pairs(renderer: Renderer, pairs: list[tuple[Turn, Turn]]) -> None:
    """Shared blocks are shared text, with and without directives; other prompts are other texts."""
    for one, other in pairs:
        messages = renderer.messages(one), renderer.messages(other)
        texts = [text_of(m) for m in messages]
        common_bytes = shared_blocks(one, other) * one.block_tokens * TOKEN_BYTES
        assert texts[0][:common_bytes] == texts[1][:common_bytes]
        # What a balancer sees has directives and roles in it: they agree as long as the blocks do.
        for mine, theirs in zip(cut(messages[0], common_bytes), cut(messages[1], common_bytes), strict=True):
            assert mine == theirs
        same = (one.in_tokens, list(pieces(one))) == (other.in_tokens, list(pieces(other)))
        if same:
            assert texts[0] == texts[1]
        elif one.in_tokens == other.in_tokens and one.block_tokens > 1:
            assert_differ(renderer, one, other, texts)


def assert_differ(renderer: Renderer, one: Turn, other: Turn, texts: list[str]) -> None:
    """Prompts of different blocks differ, unless one continues what the other says in part."""
    parts = (list(pieces(one)), list(pieces(other)))
    at = next(i for i, (mine, theirs) in enumerate(zip(*parts, strict=True)) if mine != theirs)
    if min(parts[0][at][1], parts[1][at][1]) == one.block_tokens:
        assert texts[0] != texts[1]


def cut(messages: Sequence[Message], text_bytes: int) -> list[tuple[str, str]]:
    """Roles and contents up to so many bytes of prompt; the last message may be cut."""
    found: list[tuple[str, str]] = []
    for message in messages:
        if text_bytes <= 0:
            break
        text, _ = split_directive(message.content)
        found.append((message.role, text[:text_bytes] if text_bytes <= len(text) else message.content))
        text_bytes -= len(text)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_example_workloads_keep_their_structure(name: str) -> None:
    path = EXAMPLES / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}: the traces are not part of the repository")
    turns = read_workload(path).turns
    renderer = Renderer(turns)
    some = turns[: AGENT_LINES if name.startswith("agent") else LINES]
    for turn in some:
        assert_sound(renderer, turn)
    chosen = random.Random(1)
    pairs = [tuple(chosen.sample(some, 2)) for _ in range(PAIRS if len(some) == LINES else AGENT_LINES)]
    by_id = {turn.id: turn for turn in turns}
    pairs += [(by_id[turn.after], turn) for turn in some if turn.after is not None]
    check_pairs(renderer, [(one, other) for one, other in pairs])


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_of_the_example_workloads_are_found_in_the_next_turn(name: str) -> None:
    path = EXAMPLES / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}: the traces are not part of the repository")
    turns = read_workload(path).turns[:2000]
    renderer = Renderer(turns)
    by_id = {turn.id: turn for turn in turns}
    kept = 0
    first = {turn.after: turn.id for turn in reversed(turns)}  # another follower edits the answer
    for turn in turns[-FOLLOWERS:]:
        if turn.after is None or first[turn.after] != turn.id:
            continue
        parent = by_id[turn.after]
        if turn.in_tokens <= parent.in_tokens + parent.out_tokens:
            continue  # no room for the answer
        before, after = renderer.messages(parent), renderer.messages(turn)
        if after[: len(before)] == before and roles(after[len(before) :]) == ["assistant", "user"]:
            kept += 1
            assert after[-2].content == answered(renderer, parent)
    assert kept >= 20


def test_synthetic_conversations_are_answered_as_their_next_turn_says() -> None:
    turns = generate(SyntheticSettings(users=6, sessions=2, turns=5))
    renderer = Renderer(turns)
    by_session: dict[int, list[Turn]] = {}
    for turn in turns:
        assert_sound(renderer, turn)
        by_session.setdefault(turn.session, []).append(turn)
    followers = [pair for session in by_session.values() for pair in pairwise(session)]
    assert len(followers) > 20
    for parent, turn in followers:
        before, after = renderer.messages(parent), renderer.messages(turn)
        assert after[: len(before)] == before
        assert roles(after[len(before) :]) == ["assistant", "user"]
        assert after[-2].content == answered(renderer, parent)
    check_pairs(renderer, [(one, other) for one in turns[:40] for other in turns[:40]])
