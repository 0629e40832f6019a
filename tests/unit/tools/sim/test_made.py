"""Made-up workloads have the statistics that they claim."""

from collections import Counter
from statistics import fmean, median

import msgspec
import pytest

from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import WorkloadError
from skylb.tools.sim.made import Plan, make, resampled
from skylb.tools.sim.workload import Agent, Arena, File, Mix, SharedPrompt, Tree, WildChat

PLAN = Plan({"us": 2.0, "eu": 1.0}, {}, 2000.0)
KINDS = (Arena(), WildChat(), SharedPrompt(), Agent(rate_per_s=0.1), Tree(rate_per_s=0.1), Mix())


def blocks(turn: Turn) -> list[int]:
    return [start + offset for start, length in turn.runs for offset in range(length)]


def hit_rate(turns: list[Turn]) -> float:
    """With a cache that never forgets."""
    seen: set[int] = set()
    hits = 0
    for turn in turns:
        listed = blocks(turn)
        hits += next((at for at, block in enumerate(listed) if block not in seen), len(listed))
        seen.update(listed)
    return hits / sum(len(blocks(turn)) for turn in turns)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_same_seed_makes_the_same_requests(kind: Arena) -> None:
    assert make(kind, PLAN, 1) == make(kind, PLAN, 1)
    assert make(kind, PLAN, 1) != make(kind, PLAN, 2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_requests_follow_earlier_ones_and_their_prompts_grow(kind: Arena) -> None:
    seen: dict[int, Turn] = {}
    for turn in make(kind, PLAN, 3):
        if turn.after is not None:
            parent = seen[turn.after]
            assert parent.session == turn.session
            assert turn.in_tokens > parent.in_tokens + parent.out_tokens
            assert blocks(turn)[: len(blocks(parent))] == blocks(parent)
        assert turn.id not in seen
        seen[turn.id] = turn


def test_conversations_are_as_long_as_those_they_stand_for() -> None:
    turns = make(Arena(), PLAN, 5)
    assert 1350 < fmean(turn.in_tokens for turn in turns) < 1700
    assert 300 < fmean(turn.out_tokens for turn in turns) < 390
    assert 1.3 < len(turns) / len({turn.session for turn in turns}) < 1.55
    assert 0.28 < hit_rate(turns) < 0.45


def test_long_system_prompts_are_shared() -> None:
    assert hit_rate(make(SharedPrompt(), PLAN, 5)) > hit_rate(make(Arena(), PLAN, 5)) + 0.1


def test_agents_repeat_nearly_everything() -> None:
    turns = make(Agent(rate_per_s=0.2), PLAN, 5)
    assert 11_000 < fmean(turn.in_tokens for turn in turns) < 22_000
    assert hit_rate(turns) > 0.93


def test_a_program_is_a_whole_tree() -> None:
    turns = make(Tree(rate_per_s=0.2), PLAN, 5)
    assert set(Counter(turn.session for turn in turns).values()) == {30}
    assert set(Counter(turn.after for turn in turns if turn.after is not None).values()) == {2}
    assert 400 < median(turn.in_tokens for turn in turns) < 520
    assert 0.85 < hit_rate(turns) < 0.95


def test_branches_that_answer_differently_share_less() -> None:
    assert hit_rate(make(Tree(rate_per_s=0.2, same=0.0), PLAN, 5)) < 0.85


def test_a_mix_is_one_by_requests() -> None:
    turns = make(Mix(), Plan({"us": 1.0}, {}, 4000.0), 5)
    sizes = Counter(turn.session for turn in turns)
    share = sum(size for size in sizes.values() if size == 30) / len(turns)
    assert 0.4 < share < 0.6


def test_regions_have_their_shares() -> None:
    counts = Counter(turn.region for turn in make(Arena(), PLAN, 7) if turn.after is None)
    assert 1.7 < counts["us"] / counts["eu"] < 2.3


def test_long_sessions_can_be_left_out() -> None:
    turns = make(Arena(tokens_max=2000), PLAN, 7)
    assert max(turn.in_tokens + turn.out_tokens for turn in turns) <= 2000
    with pytest.raises(WorkloadError, match="tokens_max"):
        make(Arena(tokens_max=1), PLAN, 7)


def test_a_file_in_another_order_has_the_same_sessions() -> None:
    turns = make(Arena(sessions=200), PLAN, 7)
    closed = Plan({"us": 1.0}, {"us": 4}, 10.0)
    again = resampled(turns, File(path="x", shuffle=True), closed, 1)
    bare = lambda turn: msgspec.structs.replace(turn, t_s=0.0)  # noqa: E731 - a key
    assert sorted(map(bare, again), key=lambda t: t.id) == sorted(map(bare, turns), key=lambda t: t.id)
    assert [turn.id for turn in again] != [turn.id for turn in turns]
    assert resampled(turns, File(path="x", shuffle=True), closed, 1) == again
    until = resampled(turns, File(path="x", shuffle=True), Plan({"us": 1.0}, {}, 20.0), 1)
    assert 0 < len({turn.session for turn in until}) < 60


def test_a_burst_has_its_share_of_the_sessions() -> None:
    calm = make(Arena(rate_per_s=2.0), PLAN, 7)
    burst = make(Arena(rate_per_s=2.0, burst_at_s=1000.0, burst_s=20.0, burst_factor=10.0), PLAN, 7)

    def begin(turns: list[Turn], from_s: float, until_s: float) -> int:
        return sum(turn.after is None and from_s <= turn.t_s < until_s for turn in turns)

    assert begin(calm, 1000.0, 1020.0) < 70
    assert 300 < begin(burst, 1000.0, 1020.0) < 500
    assert begin(burst, 0.0, 1000.0) == begin(calm, 0.0, 1000.0)
    assert 1700 < begin(burst, 1020.0, 2000.0) < 2200


def test_a_share_of_the_sessions_begins_with_a_long_prompt() -> None:
    turns = make(Arena(rate_per_s=2.0, long_share=0.1, single=1.0), PLAN, 7)
    long = [turn.in_tokens for turn in turns if turn.in_tokens >= 29_000]
    assert 0.08 < len(long) / len(turns) < 0.12
    assert 30_000 <= min(long) < 35_000
    assert 85_000 < max(long) < 101_000
