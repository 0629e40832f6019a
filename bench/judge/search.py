"""Search for the highest rate that passes, on a geometric grid of rates that all rules share."""

from collections.abc import Mapping
from statistics import fmean

SHIFT_MAX = 12.0

RATIO = 1.025
"""Between two rates of the grid; so fine is the search."""


def rate(capacity_per_s: float, index: float) -> float:
    """A rate of the grid: index 0 is the capacity as once measured."""
    return float(capacity_per_s * RATIO**index)


class Boundary:
    """Finds the highest index that passes, if all below pass and none above does.

    It doubles its steps until it has an index that passes and one that fails, then halves what lies between.

    Attributes:
        next: the index to try; ``None`` once it is done.
        passed: highest index that passed; ``None``: none has.
        failed: lowest that failed; ``None``: none has.

    Args:
        start: the first index to try.
        unit: distance of the indices that are tried.
        low, high: the first and last of them.
    """

    def __init__(self, start: int, unit: int, low: int, high: int) -> None:
        self.next: int | None = start
        self.passed: int | None = None
        self.failed: int | None = None
        self._unit, self._low, self._high = unit, low, high
        self._step = unit

    def answer(self, passes: bool) -> None:
        """Takes the outcome of `next`."""
        if self.next is None:
            raise AssertionError("nothing was asked")
        if passes:
            self.passed = self.next
        else:
            self.failed = self.next
        self.next = self._following()

    def _following(self) -> int | None:
        if self.failed is None and self.passed is not None:
            return self._further(self.passed, 1, self._high)
        if self.passed is None and self.failed is not None:
            return self._further(self.failed, -1, self._low)
        if self.passed is None or self.failed is None:
            raise AssertionError("one of them is there after an answer")
        units = (self.failed - self.passed) // self._unit
        return self.passed + units // 2 * self._unit if units > 1 else None

    def _further(self, found: int, sign: int, last: int) -> int | None:
        if found == last:
            return None
        step, self._step = self._step, self._step * 2
        return min(last, found + step) if sign > 0 else max(last, found - step)

    def hopeless(self, index: int) -> bool:
        """Whether the boundary lies below an index for certain."""
        return self.failed is not None and self.failed <= index


def falling(shares: Mapping[int, float]) -> dict[int, float]:
    """The nearest shares that fall from index to index (isotonic regression, pool adjacent violators)."""
    pools: list[tuple[float, list[int]]] = []
    for index in sorted(shares):
        mean, indices = shares[index], [index]
        while pools and pools[-1][0] < mean:
            above, before = pools.pop()
            mean = (above * len(before) + mean * len(indices)) / (len(before) + len(indices))
            indices = before + indices
        pools.append((mean, indices))
    return {index: mean for mean, indices in pools for index in indices}


def crossing(shares: Mapping[int, float], required: float) -> float:
    """Where the share of good requests falls below what is required, linear between the indices tried.

    A share that is higher than one before it is noise: both count as their mean. Where all pass, or none
    does, it is the last index, or the first one.
    """
    fitted = falling(shares)
    passed = [index for index, share in fitted.items() if share >= required]
    failed = [index for index, share in fitted.items() if share < required]
    if not passed or not failed:
        return float(max(passed) if passed else min(failed))
    low, high = max(passed), min(failed)
    return low + (high - low) * (fitted[low] - required) / (fitted[low] - fitted[high])


def slope(shares: Mapping[int, float]) -> float:
    """How much the share changes from one index to the next (least squares); 0 with fewer than two."""
    if len(shares) < 2:
        return 0.0
    at = fmean(shares)
    spread = sum((index - at) ** 2 for index in shares)
    return sum((index - at) * share for index, share in shares.items()) / spread


def shifted(shares: Mapping[int, float], means: Mapping[int, float], index: float) -> float:
    """Where a seed alone would have the crossing that all seeds have at ``index``.

    A seed whose shares lie above the means by as much as one step costs crosses one step later. It is moved
    by `SHIFT_MAX` steps at most: a share that hardly falls says little.
    """
    falls = -slope(means)
    if falls <= 0:
        return index
    above = fmean(shares[at] - means[at] for at in shares)
    return index + min(SHIFT_MAX, max(-SHIFT_MAX, above / falls))
