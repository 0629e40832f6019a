"""What the validations reckon with: orders that chance does not explain, speeds that fit."""

import pytest

from bench.validate.calibrate import Sample, Speeds, fit, residuals, together
from bench.validate.order import Spread, agreement, correlation


def test_orders_are_compared_by_rank_alone() -> None:
    assert correlation([1, 2, 30], [4, 5, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [9, 5, 1]) == pytest.approx(-1)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation([1, 1, 1], [1, 2, 3]) == 0


def test_the_mean_of_more_runs_is_predicted_more_closely() -> None:
    once = Spread.of([[1.0, 3.0]])
    four_times = Spread.of([[1.0, 3.0]] * 4)
    assert (once.mean, four_times.mean) == (2.0, 2.0)
    assert four_times.noise == pytest.approx(once.noise / 2)
    assert once.holds(2.0 + once.noise)
    assert not once.holds(2.01 + once.noise)


def test_a_pair_in_the_other_order_is_named_and_whether_chance_explains_it() -> None:
    forecast = {"quick": Spread(1.0, 0.1), "middling": Spread(2.0, 2.0), "slow": Spread(3.0, 0.1)}
    *_, last = agreement("here", {"quick": 3.0, "middling": 2.5, "slow": 2.0}, forecast)
    pairs = last.partition(": ")[2]
    assert pairs == "quick < middling, quick < slow (BEYOND CHANCE), middling < slow"


def test_one_order_of_one_thing_says_nothing() -> None:
    assert agreement("here", {"only": 1.0}, {"only": Spread(1.0, 0.1)}) == []


def test_speeds_that_made_the_times_are_found_again() -> None:
    true = Speeds(9_000, 4_000, 7_500, 360, 0.16, 540, 0.5)
    work = [
        Sample("", 0, 1, 1, prefill=64, attended=2_016),
        Sample("", 0, 1, 1, prefill=1_024, attended=523_776),
        Sample("", 0, 1, 1, prefill=64, attended=67_552),
        Sample("", 0, decodes=1, context=100),
        Sample("", 0, decodes=8, context=900),
        Sample("", 0, decodes=4, context=7_800),
        Sample("", 0, 0, 0, 1.0, 256, 32_640, 7, 1_000),
        Sample("", 0, 1, 0, 1.5, 256, 32_640, 10.5, 1_500),
    ]
    factors = list(vars(true).values())
    timed = [
        Sample(one.name, sum(a * b for a, b in zip(one.row(), factors, strict=True)) / 1e6, *_counts(one))
        for one in work
    ]
    found = fit(timed)
    assert list(vars(found).values()) == pytest.approx(factors, rel=1e-6)
    assert residuals(timed, found) == pytest.approx([0] * len(timed), abs=1e-9)


def _counts(one: Sample) -> tuple[int, int, float, int, float, float, float]:
    return one.requests, one.wakes, one.steps, one.prefill, one.attended, one.decodes, one.context


def test_a_disturbed_round_does_not_count() -> None:
    rounds = [[Sample("step", seconds)] for seconds in (1.0, 1.1, 9.0)]
    assert together(rounds) == [Sample("step", 1.1)]
