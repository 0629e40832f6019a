"""The figures of ``make bench-isolation``."""

from random import Random

import pytest

from bench.isolation import BLIND, PAIRS, Case, Probe, auc, interval, row


def test_the_auc_is_the_share_of_pairs_that_are_the_right_way_round() -> None:
    assert auc([1, 2, 3], [4, 5]) == 1
    assert auc([4, 5], [1, 2, 3]) == 0
    assert auc([1, 3], [2, 2]) == 0.5
    assert auc([1, 2], [2, 3]) == 3.5 / 4
    assert auc([7, 7, 7], [7]) == 0.5


def test_the_interval_is_that_of_the_example_in_its_source() -> None:
    least, most = interval(0.893, 58, 51)  # Hanley and McNeil (1982): a standard error of 0.032
    assert (most - least) / (2 * 1.96) == pytest.approx(0.032, abs=0.001)


def test_a_whole_run_is_long_enough_for_its_claim() -> None:
    least, most = interval(0.5, PAIRS, PAIRS)
    assert BLIND[0] + 0.02 < least < most < BLIND[1] - 0.02


@pytest.mark.parametrize(
    ("blind", "gap_s", "cached", "fits"),
    [
        (True, 0.0, 0, True),
        (True, 0.0, 1, False),  # the engine's own word gives it away
        (True, 0.01, 0, False),
        (False, 0.01, 9, True),
        (False, 0.0, 9, False),
        (False, 0.01, 0, False),
    ],
)
def test_a_case_comes_out_as_it_should_by_time_and_by_what_the_engine_says(
    blind: bool, gap_s: float, cached: int, fits: bool
) -> None:
    draw = Random(1)
    known = [Probe(draw.random() / 100, cached) for _ in range(PAIRS)]
    fresh = [Probe(draw.random() / 100 + gap_s, 0) for _ in range(PAIRS)]
    assert row(Case("c", blind, "p", PAIRS, blind), known, fresh)[1] is fits
