"""The judge's plan, on figures that are made up: what each rule can do is known."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bench.judge.__main__ import quick
from bench.judge.cases import MADE, Case
from bench.judge.document import document, stored
from bench.judge.judgment import EXACT, INTER_TOKEN, TTFT, Judgment, Verdict
from bench.judge.plan import MAIN, QUICK, Effort, Plan, within
from bench.judge.plots import write
from bench.judge.runs import Figures, Task
from bench.judge.summary import aims, summary
from bench.judge.variants import DEFAULT, FLOOR, GATED, POLICIES, SHIPPED, Variant
from bench.pool import Follower

CASE = next(case for case in MADE if case.name == "arena")

Strength = Callable[[Variant], float]
"""Sessions per second that a variant can serve."""


def figures(rate_per_s: float, strength: float, seed: int) -> Figures:
    """Of a rule that keeps all bounds up to its strength, and then ever fewer."""
    over = rate_per_s / (strength * (1 + 0.001 * (seed % 3)))
    late = 0.1 * over**8
    return {
        "sustained": 1.0 if over <= 1 else 1 / over,
        "within_patience": 1.0,
        "within_ttft": max(0.0, 1.0 - late),
        "within_inter_token": max(0.0, 1.0 - 0.1 * late),
        "ttft_p90_s": CASE.ttft_bound_s * over**2,
        "refused": max(0.0, 100 * (over - 1)),
        "sent_2k": 100.0,
        "sent_8k": 20.0,
        "sent_more": 20.0,
        "refused_2k": 0.0,
        "refused_8k": 0.0,
        "refused_more": 5.0 if over > 0.9 else 0.0,
    }


def judged(strength: Strength, effort: Effort, case: Case = CASE) -> tuple[Verdict, int]:
    """The verdict, and how many runs it took."""
    plan = Plan(case, effort)
    runs = 0
    for tasks in plan.steps():
        for task in tasks:
            runs += len(task.variants)
            plan.verdict.add(
                task, [figures(task.rate_per_s, strength(variant), task.seed) for variant in task.variants]
            )
    return plan.verdict, runs


def worth(variant: Variant) -> float:
    """The default serves 4.0; of the rivals, every one is better as shipped, and llm_d is the best."""
    strengths = {DEFAULT: 4.0, FLOOR: 40.0, "llm_d": 4.4, "gorgo": 4.3, "least_load": 2.0, "round_robin": 1.0}
    strength = strengths.get(variant.rule, 3.0)
    if variant.tried:
        return 4.6
    return strength * (0.9 if variant.form == GATED else 1.0)


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    return judged(worth, Effort())[0]


def test_the_rate_of_each_contender_is_found_to_a_part_of_a_step(verdict: Verdict) -> None:
    for name, strength in ((DEFAULT, 4.0), ("llm_d, as shipped", 4.4), ("gorgo, as shipped", 4.3)):
        found = verdict.rates[TTFT][name]
        assert found.sign == ""
        assert found.per_s == pytest.approx(strength, rel=0.01)


def test_the_better_of_both_forms_counts(verdict: Verdict) -> None:
    assert verdict.best_rival() == "llm_d, as shipped"
    assert verdict.ratio() == pytest.approx(4.0 / 4.4, rel=0.01)
    other, _ = judged(lambda v: 5.0 if (v.rule, v.form) == ("ring", GATED) else worth(v), QUICK)
    assert other.best_rival() == "ring, gated"
    assert other.best_shipped(MAIN) == "llm_d, as shipped"


def test_rules_far_behind_are_not_searched_to_the_end(verdict: Verdict) -> None:
    for name in ("round_robin, gated", "round_robin, as shipped", "least_load, gated"):
        assert verdict.rates[TTFT][name].sign == "<"
        assert verdict.rates[TTFT][name].per_s >= worth(verdict.variants[name])


def test_the_best_rival_is_found_exactly_however_far_the_default_is_ahead() -> None:
    found, _ = judged(lambda variant: 6.0 if variant.rule == DEFAULT else worth(variant), QUICK)
    assert found.best_rival() == "llm_d, as shipped"
    assert found.ratio() == pytest.approx(6.0 / 4.4, rel=0.01)
    assert [found.rates[TTFT][name].sign for name in (DEFAULT, "llm_d, as shipped")] == ["", ""]
    behind, _ = judged(lambda variant: 2.5 if variant.rule == DEFAULT else worth(variant), QUICK)
    assert behind.ratio() == pytest.approx(2.5 / 4.4, rel=0.01)


def test_capacity_is_what_half_of_the_rules_sustain_in_their_better_form(verdict: Verdict) -> None:
    strengths = sorted(
        (worth(Variant(policy, SHIPPED if policy != DEFAULT else "")) for policy in POLICIES), reverse=True
    )
    half = strengths[(len(strengths) - 1) // 2]
    assert half / 1.06 < verdict.capacity_per_s <= half * 1.04


def test_a_rate_at_which_requests_lose_their_patience_is_not_sustained() -> None:
    plan = Plan(CASE, Effort())
    for tasks in plan.steps():
        if tasks and tasks[0].load == MAIN:
            break
        for task in tasks:
            slow = {"sustained": 1.0, "within_patience": 0.95 if task.rate_per_s < 2.0 else 0.85}
            plan.verdict.add(task, [slow for _ in task.variants])
    assert 1.9 < plan.verdict.capacity_per_s <= 2.0


def test_the_ceiling_counts_settings_that_nobody_ships(verdict: Verdict) -> None:
    ceiling = verdict.ceiling()
    assert ceiling is not None
    assert verdict.variants[ceiling].tried
    assert verdict.rates[TTFT][ceiling].per_s == pytest.approx(4.6, rel=0.01)
    assert verdict.best_rival() == "llm_d, as shipped"
    assert all(not verdict.variants[name].tried for name in verdict.rows[MAIN])


def test_fast_tokens_of_few_requests_do_not_count() -> None:
    assert within(INTER_TOKEN, {"within_inter_token": 0.995, "within_patience": 1.0}) == 0.995
    assert within(INTER_TOKEN, {"within_inter_token": 0.98, "within_patience": 0.95}) == 0.98
    assert within(INTER_TOKEN, {"within_inter_token": 1.0, "within_patience": 0.9}) == pytest.approx(0.99)
    assert within(INTER_TOKEN, {"within_inter_token": 1.0, "within_patience": 0.8}) == pytest.approx(0.98)
    assert within(TTFT, {"within_ttft": 0.7, "within_patience": 0.1}) == 0.7


def test_every_bound_is_searched_and_every_load_run(verdict: Verdict) -> None:
    assert verdict.done
    assert verdict.rates[INTER_TOKEN][DEFAULT].sign in EXACT
    assert {"60%", MAIN, "110%", "130%"} <= verdict.rows.keys()
    assert len(verdict.rows[MAIN][DEFAULT]) == len(verdict.rows[MAIN][FLOOR]) == 10
    assert set(verdict.rows["130%"]) >= {DEFAULT, "llm_d, as shipped", "least_load, as shipped"}


def test_the_whole_takes_no_more_runs_than_it_may() -> None:
    assert judged(worth, Effort())[1] < 900
    assert judged(worth, QUICK)[1] < 300


def test_a_policy_that_is_not_wanted_does_not_run() -> None:
    plan = Plan(CASE, QUICK, ["llm_d"])
    rules = {variant.rule for task in next(iter(plan.steps())) for variant in task.variants}
    assert rules == {DEFAULT, FLOOR, "llm_d"}


def test_no_run_is_made_twice() -> None:
    plan, seen = Plan(CASE, Effort()), set[tuple[str, int, str]]()
    for tasks in plan.steps():
        for task in tasks:
            keys = {(task.load, task.seed, variant.name) for variant in task.variants}
            assert len(keys) == len(task.variants)
            assert seen.isdisjoint(keys)
            seen |= keys
            plan.verdict.add(task, [figures(task.rate_per_s, worth(v), task.seed) for v in task.variants])


def test_a_summary_shows_what_was_missed(verdict: Verdict) -> None:
    judgment = Judgment(verdicts={CASE.name: verdict})
    text = summary(judgment)
    assert "llm_d, as shipped" in text
    assert "0.9" in text
    said = "\n".join(aims(judgment))
    assert f"{CASE.name} 0.9" in said
    assert "MISSED" in said
    assert f"{CASE.name} 130%" in said


def test_a_part_of_the_runs_can_be_shown_too(tmp_path: Path) -> None:
    plan = Plan(CASE, Effort())
    judgment = Judgment(
        about={
            "command": "make judge",
            "wall_s": 1,
            "cores": 2,
            "cpu": "x",
            "commit": "y",
            "interrupted": True,
            "left_out": "",
        },
        verdicts={CASE.name: plan.verdict},
    )
    for tasks in plan.steps():
        assert CASE.name in summary(judgment)
        for task in tasks:
            plan.verdict.add(task, [figures(task.rate_per_s, worth(v), task.seed) for v in task.variants])
        if tasks and tasks[0].load == MAIN:
            assert f"## {CASE.name}" in document(judgment)
    assert f"## {CASE.name}" in document(judgment)
    assert CASE.name in msgspec.json.decode(stored(judgment))["cases"]
    assert {path.name for path in write(judgment, tmp_path)} == {"judge.png", "judge_loads.png"}


def test_the_quick_judge_measures_half_as_long_with_the_same_burst() -> None:
    case = next(case for case in MADE if case.workload.burst_s)
    short = quick(case)
    assert short.warmup_s == case.warmup_s
    assert 2 * (short.duration_s - short.warmup_s) == case.duration_s - case.warmup_s
    assert short.warmup_s < short.workload.burst_at_s
    assert short.workload.burst_at_s + short.workload.burst_s < short.duration_s


def test_a_step_begins_when_the_one_before_has_ended() -> None:
    begun: list[str] = []

    def steps() -> Iterator[list[Task]]:
        yield [Task(CASE, "a", 1.0, 0, ()), Task(CASE, "b", 1.0, 0, ())]
        begun.append("second")
        yield []
        yield [Task(CASE, "c", 1.0, 0, ())]

    took: list[str] = []
    follower: Follower[Task, int] = Follower(steps(), lambda task, _: took.append(task.load))
    first = follower.following()
    assert not follower.ended(first[0], 0)
    assert begun == []
    assert follower.ended(first[1], 0)
    assert [task.load for task in follower.following()] == ["c"]
    assert took == ["a", "b"]


def test_each_seed_says_how_sure_a_ratio_is(verdict: Verdict) -> None:
    ratios = verdict.ratios_by_seed()
    assert len(ratios) == 3
    assert all(ratio == pytest.approx(4.0 / 4.4, rel=0.02) for ratio in ratios)


def test_the_best_at_a_load_is_one_of_those_that_ran_with_the_most_seeds() -> None:
    """Three easy seeds make a rule look better than one that had to run seven harder ones as well."""
    found = Verdict(CASE)
    many, few = (Variant(rule, "as shipped", {"policy": rule}) for rule in ("dynamo", "smg"))
    for seed in range(10):
        for variant, p90_s in ((many, 1.4 if seed < 3 else 1.6), (few, 1.5)):
            if variant is many or seed < 3:
                found.add(Task(CASE, MAIN, 1.0, seed, (variant,)), [{"ttft_p90_s": p90_s}])
    assert found.best_shipped(MAIN) == many.name
