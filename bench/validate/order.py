"""Whether two ways of measuring put the same things into the same order, as far as chance lets them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev


@dataclass(frozen=True)
class Spread:
    """A prediction of a mean.

    Attributes:
        mean: of all simulations.
        noise: twice the standard deviation that chance alone gives the mean that it predicts.
    """

    mean: float
    noise: float

    @classmethod
    def of(cls, runs: Sequence[Sequence[float]]) -> "Spread":
        """From several simulations of each of the runs whose mean is predicted."""
        variance = sum(stdev(one) ** 2 for one in runs) / len(runs) ** 2
        return cls(fmean(fmean(one) for one in runs), 2 * math.sqrt(variance))

    def holds(self, value: float) -> bool:
        """Whether chance explains a mean that far off."""
        return abs(value - self.mean) <= self.noise


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's: 1 where both have the same order, -1 where one is the other's reverse."""
    first, second = _ranks(one), _ranks(other)
    middle = (len(one) - 1) / 2
    both = sum((a - middle) * (b - middle) for a, b in zip(first, second, strict=True))
    squares = [sum((a - middle) ** 2 for a in ranks) for ranks in (first, second)]
    return both / math.sqrt(squares[0] * squares[1]) if all(squares) else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """From 0 on; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def agreement(title: str, measured: Mapping[str, float], forecast: Mapping[str, Spread]) -> list[str]:
    """Both orders, their correlation, and the pairs on which they differ.

    A pair is told apart where the simulated means differ by more than chance does to the difference of the
    measured ones.
    """
    names = list(measured)
    if len(names) < 2:
        return []
    rank = correlation([measured[name] for name in names], [forecast[name].mean for name in names])
    apart, other_way = 0, []
    for one, two in combinations(sorted(names, key=lambda name: forecast[name].mean), 2):
        gap = forecast[two].mean - forecast[one].mean
        noise = math.hypot(forecast[one].noise, forecast[two].noise)
        differs = measured[two] < measured[one]
        apart += gap > noise
        if differs:
            other_way.append(f"{one} < {two}" + (" (BEYOND CHANCE)" if gap > noise else ""))
    lines = [
        f"{title}: real {' < '.join(sorted(names, key=lambda name: measured[name]))}",
        (
            f"    simulated {' < '.join(sorted(names, key=lambda name: forecast[name].mean))}; "
            f"rank correlation {rank:.2f}, {apart} of {len(names) * (len(names) - 1) // 2} pairs told apart"
        ),
    ]
    if other_way:
        lines.append(f"    simulated, but not measured: {', '.join(other_way)}")
    return lines
