"""Figures over several seeds: means with bootstrap intervals, and points compared seed by seed.

The intervals are percentile bootstraps (Efron and Tibshirani 1993, chapter 13) over seeds. Each draw takes
whole runs, because requests of one run depend on each other. Compared points ran with the same seeds, thus
the same requests. Each draw takes the same seeds of both, so that what differs between seeds cancels.
"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import fmean

import msgspec

from skylb.tools.sim.result import Result

LEVEL = 0.95
DRAWS = 2000


class Metric(msgspec.Struct, frozen=True):
    """One figure of a run.

    Attributes:
        name: key in the report.
        title: what tables call it, without its unit.
        unit: of the values that tables show; empty where the title says it.
        of: its value; ``None`` where there is none.
        scale: factor for tables.
        digits: after the point, in tables.
        higher_is_better: how to read it.
    """

    name: str
    title: str
    unit: str
    of: Callable[[Result], float | None]
    scale: float = 1.0
    digits: int = 0
    higher_is_better: bool = False

    @property
    def column(self) -> str:
        """Title and unit."""
        return f"{self.title} {self.unit}".rstrip()

    def shown(self, value: float) -> str:
        """A value as tables show it, without its unit."""
        return f"{value * self.scale:.{self.digits}f}"

    def better(self, change: float) -> bool:
        """Whether a value that differs by so much is better."""
        return change > 0 if self.higher_is_better else change < 0


METRICS = (
    Metric("requests_per_s", "requests/s", "", lambda r: r.total.requests_per_s, 1, 2, True),
    Metric("tokens_per_s", "tokens/s", "", lambda r: r.total.throughput_tokens_per_s, 1, 0, True),
    Metric("output_tokens_per_s", "output tokens/s", "", lambda r: r.total.output_tokens_per_s, 1, 0, True),
    Metric("hit_rate", "hit rate", "", lambda r: r.total.hit_rate, 1, 3, True),
    Metric("ttft_p50_s", "TTFT P50", "ms", lambda r: r.total.ttft_s.p50, 1e3),
    Metric("ttft_p90_s", "TTFT P90", "ms", lambda r: r.total.ttft_s.p90, 1e3),
    Metric("ttft_p99_s", "TTFT P99", "ms", lambda r: r.total.ttft_s.p99, 1e3),
    Metric("ttft_error_p50", "prediction error P50", "%", lambda r: r.total.prediction.error.p50, 1e2, 1),
    Metric("inter_token_p99_s", "inter-token P99", "ms", lambda r: r.total.inter_token_s.p99, 1e3),
    Metric("e2e_p50_s", "E2E P50", "ms", lambda r: r.total.e2e_s.p50, 1e3),
    Metric("e2e_p90_s", "E2E P90", "ms", lambda r: r.total.e2e_s.p90, 1e3),
    Metric("hold_p90_s", "hold P90", "ms", lambda r: r.total.hold_s.p90, 1e3),
    Metric("load_spread", "load spread", "", lambda r: r.load_spread.of_means, 1, 2),
    Metric("failed", "failed", "", lambda r: float(r.total.failures + r.total.unfinished), 1, 0),
)
"""Figures of every run, in the order of tables."""


class Interval(msgspec.Struct, frozen=True):
    """A mean over seeds with its 95 % interval; the bounds equal it where there is one seed."""

    mean: float
    low: float
    high: float

    @property
    def wide(self) -> bool:
        """Whether it is more than a point."""
        return self.low != self.high

    @property
    def clear(self) -> bool:
        """Whether a change is one: all of the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float]) -> Interval:
    """The mean of one value per seed."""
    return _spread(fmean(values), [fmean(values[i] for i in draw) for draw in _draws(len(values))])


def change(values: Sequence[float], base: Sequence[float]) -> Interval | None:
    """By what share the mean of ``values`` differs from that of ``base``, paired by position.

    ``None`` where the base's mean is 0.
    """
    if fmean(base) == 0:
        return None
    changes = []
    for draw in _draws(len(values)):
        below = sum(base[i] for i in draw)
        if below:
            changes.append(sum(values[i] for i in draw) / below - 1)
    return _spread(fmean(values) / fmean(base) - 1, changes)


def _spread(mean: float, drawn: list[float]) -> Interval:
    drawn.sort()
    last = len(drawn) - 1
    low, high = (drawn[round(last * q)] for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(mean, low, high)


@lru_cache(maxsize=64)
def _draws(count: int) -> list[list[int]]:
    """Positions drawn with replacement; always the same for one count."""
    if count == 1:
        return [[0]]
    random_ = random.Random(count)  # noqa: S311 - a resampling, not a secret
    return [random_.choices(range(count), k=count) for _ in range(DRAWS)]


def summarise(results: Sequence[Result]) -> dict[str, Interval]:
    """All figures over the runs of one point; those that a run lacks are left out."""
    found = {}
    for metric in METRICS:
        values = [metric.of(result) for result in results]
        present = [value for value in values if value is not None]
        if present and len(present) == len(values):
            found[metric.name] = interval(present)
    return found


def compare(results: Sequence[Result], base: Sequence[Result]) -> dict[str, Interval]:
    """Changes of all figures against another point's runs with the same seeds, in the same order."""
    pairs = {result.seed: result for result in base}
    both = [(result, pairs[result.seed]) for result in results if result.seed in pairs]
    found = {}
    for metric in METRICS:
        values = [(metric.of(one), metric.of(other)) for one, other in both]
        ours = [one for one, other in values if one is not None and other is not None]
        theirs = [other for one, other in values if one is not None and other is not None]
        if ours and (changed := change(ours, theirs)) is not None:
            found[metric.name] = changed
    return found
