"""Means, intervals, comparisons."""

import pytest

from skylb.tools.sim.summary import change, interval


def test_one_seed_has_no_interval() -> None:
    found = interval([3.0])
    assert (found.mean, found.low, found.high) == (3.0, 3.0, 3.0)


def test_an_interval_holds_the_mean_and_narrows_with_more_seeds() -> None:
    few, many = interval([1.0, 2.0, 3.0, 4.0]), interval([1.0, 2.0, 3.0, 4.0] * 10)
    assert few.low < few.mean == many.mean == 2.5 < few.high
    assert many.high - many.low < (few.high - few.low) / 2


def test_pairing_cancels_what_differs_between_seeds() -> None:
    base = [1.0, 10.0, 100.0, 1000.0]
    changed = change([value * 1.1 for value in base], base)
    assert changed is not None
    assert changed.mean == pytest.approx(0.1)
    assert changed.high - changed.low < 1e-9


def test_nothing_is_compared_with_nothing() -> None:
    assert change([1.0, 2.0], [0.0, 0.0]) is None


def test_the_same_values_give_the_same_interval() -> None:
    assert interval([1.0, 5.0, 2.0]) == interval([1.0, 5.0, 2.0])
