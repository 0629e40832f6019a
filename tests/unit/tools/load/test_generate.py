"""Synthetic conversations."""

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec

from skylb.tools.load.generate import generate
from skylb.tools.load.settings import SyntheticSettings
from skylb.tools.load.workload import read_workload

SETTINGS = SyntheticSettings(users=20, sessions=5, regions=("eu", "us"), systems=3, think_s=2.0)


def test_the_same_seed_makes_the_same_requests() -> None:
    assert generate(SETTINGS) == generate(SETTINGS)
    assert generate(SETTINGS) != generate(SETTINGS.model_copy(update={"seed": 2}))


def test_each_user_has_the_sessions_that_were_asked_for() -> None:
    sessions = defaultdict(set)
    for turn in generate(SETTINGS):
        sessions[turn.region, turn.user].add(turn.session)
    assert Counter(region for region, _ in sessions) == {"eu": 20, "us": 20}
    assert {len(found) for found in sessions.values()} == {5}


def test_each_turn_extends_the_one_before_by_its_answer_and_a_message() -> None:
    by_id = {turn.id: turn for turn in generate(SETTINGS)}
    followers = [turn for turn in by_id.values() if turn.after is not None]
    assert followers
    for turn in followers:
        parent = by_id[turn.after or 0]
        assert turn.in_tokens > parent.in_tokens + parent.out_tokens
        assert (turn.session, turn.turn) == (parent.session, parent.turn + 1)
        assert turn.t_s >= parent.t_s


def test_users_share_system_prompts() -> None:
    openings = Counter(turn.runs[0] for turn in generate(SETTINGS) if turn.turn == 1)
    assert len(openings) == 3
    none = SyntheticSettings(users=5, sessions=2, systems=0, user_tokens=100)
    runs = [turn.runs[0] for turn in generate(none) if turn.turn == 1 and turn.runs]
    assert len(set(runs)) == len(runs)


def test_means_are_those_of_the_settings() -> None:
    turns = generate(SyntheticSettings(users=200, sessions=10, turns=4, answer_tokens=128, rate_per_s=2))
    sessions = [turn for turn in turns if turn.turn == 1]
    assert 3.6 < len(turns) / len(sessions) < 4.4
    assert 120 < sum(turn.out_tokens for turn in turns) / len(turns) < 136
    starts = sorted(turn.t_s for turn in sessions)
    assert 0.45 < sum(b - a for a, b in pairwise(starts)) / (len(starts) - 1) < 0.55


def test_what_is_generated_could_have_been_read_from_a_file(tmp_path: Path) -> None:
    turns = generate(SETTINGS)
    path = tmp_path / "w.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
    assert read_workload(path).turns == turns
