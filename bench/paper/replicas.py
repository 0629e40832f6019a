"""How many replicas a bound on the P90 of the TTFT takes."""

import math
from collections.abc import Mapping

from bench.paper.figures import mean
from bench.paper.runs import SystemRows

Series = Mapping[int, float]
"""A figure by number of replicas."""

BOUNDS_S = (1.5, 2.0, 3.0, 5.0)
"""Bounds on the P90 for which numbers of replicas are compared."""


def series(cells: Mapping[str, SystemRows], placement: str, name: str) -> dict[str, dict[int, float]]:
    """A figure by system and number of replicas; cells are called ``PLACEMENT COUNT``."""
    found: dict[str, dict[int, float]] = {}
    for cell, systems in cells.items():
        where, _, count = cell.rpartition(" ")
        if where == placement:
            for system, rows in systems.items():
                found.setdefault(system, {})[int(count)] = mean(rows, name)
    return {system: dict(sorted(values.items())) for system, values in found.items()}


def needed(p90_s: Series, bound_s: float) -> int | None:
    """The fewest replicas with which, and with all larger numbers tried, the P90 keeps the bound."""
    found = None
    for count in sorted(p90_s, reverse=True):
        if p90_s[count] > bound_s:
            break
        found = count
    return found


def needed_between(p90_s: Series, bound_s: float) -> float | None:
    """As `needed`, between the numbers tried: the logarithm of the P90 is taken as linear there."""
    whole = needed(p90_s, bound_s)
    if whole is None:
        return None
    fewer = [count for count in p90_s if count < whole]
    if not fewer:
        return float(whole)
    below = max(fewer)
    high, low = math.log(p90_s[below]), math.log(p90_s[whole])
    return below + (whole - below) * (high - math.log(bound_s)) / (high - low)


def saving(ours: Series, theirs: Series, bound_s: float) -> tuple[int, int] | None:
    """Replicas that keep a bound, ours and theirs; ``None`` where one of them is not known."""
    found = needed(ours, bound_s), needed(theirs, bound_s)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def equal_p90(ours: Series, theirs: Series, count: int) -> int | None:
    """Replicas with which ours has at most the P90 that theirs has with so many."""
    return needed(ours, theirs[count]) if count in theirs else None
