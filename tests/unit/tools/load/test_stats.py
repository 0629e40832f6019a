"""Histograms and tallies of the load generator."""

import math

from hypothesis import given
from hypothesis import strategies as st

from skylb.tools.load.stats import KINDS_MAX, Histogram, Tally

durations = st.lists(st.floats(1e-6, 9e3), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(durations, st.floats(0.01, 1))
def test_a_quantile_is_that_of_the_sorted_durations_to_half_a_percent(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = filled(values).quantile(q)
    assert found is not None
    assert abs(found - exact) <= exact * 0.0051


@given(durations)
def test_mean_count_and_extremes_are_exact(values: list[float]) -> None:
    histogram = filled(values)
    assert histogram.count == len(values)
    assert math.isclose(histogram.mean_s or 0, math.fsum(values) / len(values), rel_tol=1e-9)
    assert (histogram.min_s, histogram.max_s) == (min(values), max(values))


@given(durations, durations)
def test_merged_histograms_count_as_one(one: list[float], other: list[float]) -> None:
    merged = filled(one)
    merged.merge(filled(other))
    together = filled(one + other)
    assert merged.buckets == together.buckets
    assert (merged.count, merged.min_s, merged.max_s) == (together.count, together.min_s, together.max_s)


@given(durations, durations)
def test_what_came_since_a_reading_can_be_told_apart(one: list[float], other: list[float]) -> None:
    histogram = filled(one)
    before = histogram.buckets
    for value in other:
        histogram.add(value)
    assert histogram.since(before).buckets == filled(other).buckets


def test_an_empty_histogram_has_no_quantiles() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    assert histogram.mean_s is None


def test_absurd_durations_are_counted_at_the_ends() -> None:
    histogram = filled([-1.0, 0.0, 1e9])
    assert histogram.count == 3
    assert histogram.quantile(0.01) == 0.0
    assert (histogram.quantile(1) or 0) > 1e4


def test_kinds_of_error_are_bounded() -> None:
    tally = Tally()
    for number in range(KINDS_MAX + 10):
        tally.fail(f"http_{number}", "no" * 1000)
    assert tally.failed == KINDS_MAX + 10
    assert len(tally.errors) == KINDS_MAX + 1
    assert tally.errors["other"] == 10
    assert max(map(len, tally.samples.values())) <= 300


def test_merged_tallies_add_up() -> None:
    one, other = Tally(begun=3, ok=2), Tally(begun=5, ok=4)
    one.fail("reset", "first")
    other.fail("reset", "second")
    other.fail("silent", "third")
    one.measured.prompt, other.measured.prompt = 10, 20
    one.merge(other)
    assert (one.begun, one.ok, one.failed, one.measured.prompt) == (8, 6, 3, 30)
    assert one.errors == {"reset": 2, "silent": 1}
    assert one.samples == {"reset": "first", "silent": "third"}
