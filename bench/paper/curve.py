"""The day: how demand of a region changes with its local time, and requests that follow it.

The curve is our own: ``exp(SHARPNESS * (cos(hours from PEAK_HOUR) - 1))``. Its peak is 5.0 times its trough
and 1.9 times its mean. It is made after weekdays of the coding service in Azure's trace of LLM inference of
2024 (Stojkovic et al., DynamoLLM, HPCA 2025): a peak in the early afternoon, 9.9 times its trough and 2.25
times its mean. Ours is flatter, so that the sum of the regional peaks is 1.67 times the peak of the sum; the
paper measured 1.68 (peak over trough 2.9 to 32 by region).
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from bench.paper.columns import columns_of, of_columns
from skylb.tools.sim.requests import Requests

SHARPNESS = 0.8
PEAK_HOUR = 13.0
DAY_HOURS = 24.0
_STEPS = 288

UTC_OFFSET_HOURS = {"us": -5.0, "eu": 1.0, "asia": 9.0}


def demand(local_hour: float) -> float:
    """Demand at an hour of the day, over that of the peak."""
    return math.exp(SHARPNESS * (math.cos(2 * math.pi * (local_hour - PEAK_HOUR) / DAY_HOURS) - 1))


def peaks_over_peak(shares: Mapping[str, float]) -> float:
    """The sum of the regions' peaks over the peak of their sum; ``shares`` of a day's requests, by region."""
    hours = [DAY_HOURS * step / _STEPS for step in range(_STEPS)]
    sums = [
        sum(share * demand(hour + UTC_OFFSET_HOURS[name]) for name, share in shares.items()) for hour in hours
    ]
    return sum(shares.values()) / max(sums)


class Clock:
    """Moves times of a steady stream to where a region's curve has them; the day begins at 0 h UTC."""

    def __init__(self, region: str, day_s: float) -> None:
        self._day_s = day_s
        offset = UTC_OFFSET_HOURS[region]
        rates = [demand(DAY_HOURS * (step + 0.5) / _STEPS + offset) for step in range(_STEPS)]
        self._sums = [0.0, *accumulate(rates)]

    def at(self, t_s: float) -> float:
        """When a session begins that would begin at ``t_s`` of a day without a curve."""
        wanted = self._sums[-1] * min(1.0, max(0.0, t_s / self._day_s))
        step = min(_STEPS - 1, bisect_right(self._sums, wanted) - 1)
        within = (wanted - self._sums[step]) / (self._sums[step + 1] - self._sums[step])
        return self._day_s * (step + within) / _STEPS


def warped(made: Requests, day_s: float) -> Requests:
    """The same sessions, each beginning as its region's curve says."""
    columns = columns_of(made)
    clocks = {name: Clock(name, day_s) for name in set(columns["region"])}
    shifts: dict[int, float] = {}
    rows = zip(columns["session"], columns["region"], columns["t"], strict=True)
    moved = []
    for session, region, t_s in rows:
        if session not in shifts:
            shifts[session] = clocks[region].at(t_s) - t_s
        moved.append(t_s + shifts[session])
    return of_columns(columns | {"t": moved})
