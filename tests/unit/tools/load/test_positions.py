"""Blocks of bytes become blocks of tokens."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skylb.tools.load.positions import BLOCK_TOKENS, Positions
from skylb.tools.load.turn import Turn, block_at, compact

BLOCK_BYTES = 64


def turn(number: int, ids: list[int], in_tokens: int, **changes: Any) -> Turn:
    given = {"prompt_bytes": len(ids) * BLOCK_BYTES + 10, "after": None} | changes
    return Turn(
        id=number, region="eu", user=0, session=0, in_tokens=in_tokens, out_tokens=5, block_tokens=16,
        runs=compact(ids), **given,
    )  # fmt: skip


def placed(*turns: Turn) -> list[list[int]]:
    """The whole blocks of tokens of each prompt."""
    positions = Positions(BLOCK_BYTES, 0.25)
    found = [positions.placed(one) for one in turns]
    assert all(one.block_tokens == BLOCK_TOKENS for one in found)
    return [[block_at(one, index) for index in range(one.in_tokens // BLOCK_TOKENS)] for one in found]


def common(one: list[int], other: list[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def test_prompts_share_tokens_whatever_their_rates() -> None:
    dense = turn(0, [*range(20)], 640)  # half a block more than 32 tokens each
    thin = turn(1, [*range(10), *range(20, 60)], 1000)
    one, two = placed(dense, thin)
    assert (len(one), len(two)) == (40, 62)
    assert common(one, two) == int(10 * BLOCK_BYTES * 640 / (20 * BLOCK_BYTES + 10)) // BLOCK_TOKENS


def test_a_prompt_that_follows_another_has_all_of_it() -> None:
    parent = turn(0, [*range(10)], 200)
    child = turn(1, [*range(25)], 480, after=0)
    one, two = placed(parent, child)
    assert common(one, two) == len(one) == 200 // BLOCK_TOKENS


def test_without_a_predecessor_the_end_that_fills_no_block_is_not_shared() -> None:
    one, two = placed(turn(0, [*range(10)], 200), turn(1, [*range(25)], 480))
    assert common(one, two) == int(640 * 200 / 650) // BLOCK_TOKENS


def test_a_sibling_shares_what_the_first_one_added() -> None:
    turns = [
        turn(0, [*range(10)], 160),
        turn(1, [*range(30)], 480, after=0),
        turn(2, [*range(20), *range(30, 40)], 480, after=0),
    ]
    _, two, three = placed(*turns)
    assert 18 <= common(two, three) <= 20


def test_numbers_whose_beginning_is_gone_share_nothing_and_break_nothing() -> None:
    late = turn(0, [*range(50, 60), *range(80, 90)], 320)
    whole = turn(1, [*range(40, 60)], 320)
    again = turn(2, [*range(50, 60), *range(80, 95)], 400)
    one, two, three = placed(late, whole, again)
    assert common(one, two) == 0
    assert common(one, three) >= 9


@given(
    prompts=st.lists(
        st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=12), st.floats(0.1, 1.0)),
        min_size=2,
        max_size=12,
    )
)
def test_lengths_stay_and_other_texts_share_nothing(
    prompts: list[tuple[list[int], float]],
) -> None:
    numbers: dict[tuple[int, ...], int] = {}
    turns = []
    for number, (blocks, rate) in enumerate(prompts):
        ids = [numbers.setdefault(tuple(blocks[: end + 1]), len(numbers)) for end in range(len(blocks))]
        prompt_bytes = len(ids) * BLOCK_BYTES + 10
        turns.append(turn(number, ids, max(1, round(prompt_bytes * rate)), prompt_bytes=prompt_bytes))
    found = placed(*turns)
    for (blocks, _), one, mine in zip(prompts, turns, found, strict=True):
        assert len(mine) == one.in_tokens // BLOCK_TOKENS
        assert len(set(mine)) == len(mine)
        for (others, _), theirs in zip(prompts, found, strict=True):
            if blocks[0] != others[0]:
                assert common(mine, theirs) == 0
