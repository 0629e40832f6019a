"""Arithmetic on rows: means with intervals, and ratios paired by seed."""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean

import msgspec

from bench.paper.runs import Figures
from skylb.tools.sim.summary import Interval, change, interval

Rows = Sequence[Figures]


class Column(msgspec.Struct, frozen=True):
    """One figure in a table: its name in rows, its title, a factor and digits."""

    name: str
    title: str
    scale: float = 1.0
    digits: int = 0
    bounds: bool = False
    higher_is_better: bool = False


COLUMNS = (
    Column("tokens_per_s", "tokens/s", bounds=True, higher_is_better=True),
    Column("output_tokens_per_s", "output tokens/s", higher_is_better=True),
    Column("failed", "failed", digits=1),
    Column("ttft_p50_s", "TTFT P50 ms", 1e3, bounds=True),
    Column("ttft_p90_s", "P90 ms", 1e3, bounds=True),
    Column("e2e_p50_s", "E2E P50 s", digits=1),
    Column("hit_rate", "hit rate", digits=2, higher_is_better=True),
    Column("load_spread", "spread", digits=2),
    Column("forwards", "forwards"),
)
"""The columns of every table; ``bounds``: with the 95 % interval on the page."""


def values(rows: Rows, name: str) -> list[float]:
    """One figure by seed, without those that lack it; NaN if all do."""
    return [value for row in rows if (value := row.get(name)) is not None] or [math.nan]


def mean(rows: Rows, name: str) -> float:
    """The mean of a figure over seeds."""
    return fmean(values(rows, name))


def over_seeds(rows: Rows, name: str) -> Interval:
    """The mean of a figure with its 95 % bootstrap interval over seeds."""
    return _interval(tuple(values(rows, name)))


@lru_cache(maxsize=1 << 16)
def _interval(found: tuple[float, ...]) -> Interval:
    """Of values that JSON, page and plots ask for in turn; a bootstrap takes milliseconds."""
    return interval(found) if min(found) < max(found) else Interval(found[0], found[0], found[0])


def ratio(rows: Rows, base: Rows, name: str, *, inverse: bool = False) -> Interval | None:
    """A figure over another system's with the same seeds, as a quotient of means.

    Args:
        rows: the system in question.
        base: the other system.
        name: the figure.
        inverse: the other system's over ours, so that above 1 is better where less is better.

    Returns:
        ``None`` where no seed is in both, or where the divisor is 0.
    """
    ours = {row["seed"]: row.get(name) or 0.0 for row in rows}
    theirs = {row["seed"]: row.get(name) or 0.0 for row in base}
    both = sorted(seed for seed in ours.keys() & theirs.keys() if seed is not None)
    if not both:
        return None
    above, below = [ours[seed] for seed in both], [theirs[seed] for seed in both]
    changed = change(below, above) if inverse else change(above, below)
    if changed is None:
        return None
    return Interval(changed.mean + 1, changed.low + 1, changed.high + 1)


def as_text(found: Interval, column: Column, *, bounds: bool) -> str:
    """A mean as people read it."""
    if math.isnan(found.mean):
        return "-"
    text = f"{found.mean * column.scale:.{column.digits}f}"
    if bounds and column.bounds and found.low != found.high:
        low, high = (f"{bound * column.scale:.{column.digits}f}" for bound in (found.low, found.high))
        text += f" [{low}, {high}]"
    return text
