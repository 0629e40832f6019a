"""The judge's search for the highest rate that passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.search import RATIO, Boundary, crossing, falling, rate, shifted, slope


def search(boundary: Boundary, limit: int) -> int:
    """Answers until it is done; how many it asked."""
    asked = 0
    while boundary.next is not None:
        boundary.answer(boundary.next <= limit)
        asked += 1
    return asked


@given(st.integers(-40, 40), st.integers(-16, 16), st.sampled_from([1, 2, 4]))
def test_the_boundary_is_found_wherever_it_lies(limit: int, start: int, unit: int) -> None:
    low, high = start - 16 * unit, start + 8 * unit
    boundary = Boundary(start, unit, low, high)
    asked = search(boundary, limit)
    inside = range(low, high + 1, unit)
    passing = [index for index in inside if index <= limit]
    failing = [index for index in inside if index > limit]
    assert boundary.passed == (passing[-1] if passing else None)
    assert boundary.failed == (failing[0] if failing else None)
    assert asked <= 9


def test_a_boundary_near_the_start_is_found_with_few_runs() -> None:
    assert search(Boundary(0, 1, -64, 24), 0) == 2
    assert search(Boundary(0, 1, -64, 24), -1) == 2
    assert search(Boundary(0, 1, -64, 24), 2) <= 4


def test_a_rule_is_hopeless_once_it_has_failed_below() -> None:
    boundary = Boundary(0, 4, -64, 24)
    assert not boundary.hopeless(-4)
    boundary.answer(False)
    assert boundary.hopeless(0)
    assert not boundary.hopeless(-4)


def test_the_crossing_lies_where_the_share_falls_below_what_is_required() -> None:
    assert crossing({3: 0.92, 4: 0.88}, 0.9) == pytest.approx(3.5)
    assert crossing({0: 0.99, 4: 0.92, 8: 0.88, 9: 0.5}, 0.9) == pytest.approx(6.0)
    assert crossing({3: 0.9, 4: 0.5}, 0.9) == 3.0


@given(st.dictionaries(st.integers(-20, 20), st.floats(0, 1), min_size=1))
def test_noise_is_smoothed_until_shares_fall(shares: dict[int, float]) -> None:
    fitted = [share for _, share in sorted(falling(shares).items())]
    assert fitted == sorted(fitted, reverse=True)
    assert sum(fitted) == pytest.approx(sum(shares.values()))


def test_one_lucky_rate_does_not_move_the_crossing_far() -> None:
    calm = {0: 0.95, 1: 0.93, 2: 0.91, 3: 0.89, 4: 0.87, 5: 0.85, 6: 0.83}
    assert crossing(calm, 0.9) == pytest.approx(2.5)
    assert crossing(calm | {5: 0.905}, 0.9) < 3.1
    assert crossing(calm | {1: 0.89}, 0.9) > 1.4


def test_a_crossing_outside_what_was_tried_is_the_nearest_that_was() -> None:
    assert crossing({3: 0.95, 4: 0.93}, 0.9) == 4.0
    assert crossing({3: 0.5, 4: 0.4}, 0.9) == 3.0


def test_a_seed_that_lies_a_step_higher_crosses_a_step_later() -> None:
    means = {0: 0.94, 1: 0.92, 2: 0.90, 3: 0.88}
    assert slope(means) == pytest.approx(-0.02)
    assert slope({0: 0.9}) == 0.0
    assert shifted({at: share + 0.02 for at, share in means.items()}, means, 2.0) == pytest.approx(3.0)
    assert shifted({at: share - 0.01 for at, share in means.items()}, means, 2.0) == pytest.approx(1.5)
    assert shifted(dict.fromkeys(means, 0.9), dict.fromkeys(means, 0.9), 2.0) == 2.0


def test_rates_of_the_grid_are_geometric() -> None:
    assert rate(2.0, 0) == 2.0
    assert rate(2.0, 5) / rate(2.0, 4) == pytest.approx(RATIO)
