"""What the judge has found so far, and what follows from it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from bench.judge.cases import Case
from bench.judge.runs import Figures, Task
from bench.judge.variants import DEFAULT, FLOOR, SHIPPED, Variant
from skylb.tools.sim.summary import Interval, change

Rows = dict[int, Figures]
"""Figures by seed."""

TTFT, INTER_TOKEN = "ttft", "inter_token"


@dataclass(frozen=True)
class Rate:
    """Sessions per second that keep a bound.

    Attributes:
        per_s: the rate.
        sign: empty: found on all seeds, to a step of the grid; ``~``: on one seed, to four steps; ``<``: it
            is lower, and nobody looked how much; ``>``: it is higher than all rates tried.
        by_seed: what each seed alone says, from how its shares differ from the mean of all seeds.
    """

    per_s: float
    sign: str = ""
    by_seed: dict[int, float] = field(default_factory=dict)

    def text(self) -> str:
        """As tables show it."""
        return f"{self.sign}{self.per_s:.3g}"


EXACT = ("", ">")


@dataclass
class Verdict:
    """All of one case.

    Attributes:
        case: it.
        capacity_per_s: sessions per second that half of the rules sustain.
        measured: it is; else it is what the case assumes.
        variants: all that ran, by name.
        rates: by bound and variant.
        rows: by load and variant.
        done: nothing is left to run.
    """

    case: Case
    capacity_per_s: float = 0.0
    measured: bool = False
    variants: dict[str, Variant] = field(default_factory=dict)
    rates: dict[str, dict[str, Rate]] = field(default_factory=lambda: {TTFT: {}, INTER_TOKEN: {}})
    rows: dict[str, dict[str, Rows]] = field(default_factory=dict)
    done: bool = False

    def add(self, task: Task, found: Sequence[Figures]) -> None:
        """Puts a task's figures where they belong."""
        for variant, figures in zip(task.variants, found, strict=True):
            self.variants[variant.name] = variant
            self.rows.setdefault(task.load, {}).setdefault(variant.name, {})[task.seed] = figures

    def loads(self) -> list[str]:
        """Shares of the capacity that have run, such as ``85%``, in their order."""
        return sorted((load for load in self.rows if load.endswith("%")), key=lambda load: float(load[:-1]))

    def mean(self, load: str, name: str, figure: str) -> float | None:
        """Mean of a figure over the seeds; ``None`` where there is none."""
        values = [row[figure] for row in self.rows.get(load, {}).get(name, {}).values() if figure in row]
        return fmean(values) if values else None

    def rival_names(self, load: str, form: str | None = None) -> list[str]:
        """Rivals that ran at a load, in one form or all; the paper's rules have one form."""
        return [
            name
            for name in self.rows.get(load, {})
            if is_rival(variant := self.variants[name]) and form in {None, variant.form}
        ]

    def best_rate(self, bound: str, names: Iterable[str]) -> str | None:
        """Who keeps a bound at the highest rate; what one seed says counts where there is no better."""
        rates = self.rates[bound]
        found = [name for name in names if name in rates]
        return max(found, key=lambda name: (rates[name].sign in EXACT, rates[name].per_s), default=None)

    def best_rival(self, bound: str = TTFT) -> str | None:
        """The rival that keeps a bound at the highest rate, gated or as shipped."""
        return self.best_rate(bound, [name for name in self.rates[bound] if is_rival(self.variants[name])])

    def best_at(self, load: str, names: Iterable[str], figure: str = "ttft_p90_s") -> str | None:
        """Who has the lowest mean of a figure at a load, among those that ran with the most seeds."""
        rows = self.rows.get(load, {})
        names = [name for name in names if name in rows]
        most = max((len(rows[name]) for name in names), default=0)
        names = [name for name in names if len(rows[name]) == most]
        means = {name: mean for name in names if (mean := self.mean(load, name, figure)) is not None}
        return min(means, key=lambda name: means[name], default=None)

    def best_shipped(self, load: str) -> str | None:
        """The rival as shipped with the lowest P90 of the time to first token."""
        return self.best_at(load, self.rival_names(load, SHIPPED))

    def ratio(self, bound: str = TTFT) -> float | None:
        """The default's sessions per second over those of the best rival."""
        rival = self.best_rival(bound)
        mine = self.rates[bound].get(DEFAULT)
        if rival is None or mine is None:
            return None
        theirs = self.rates[bound][rival].per_s
        return mine.per_s / theirs if theirs else None

    def ratios_by_seed(self, bound: str = TTFT) -> list[float]:
        """The same, of each seed that both were searched with."""
        rival = self.best_rival(bound)
        if rival is None or DEFAULT not in self.rates[bound]:
            return []
        mine, theirs = (self.rates[bound][name].by_seed for name in (DEFAULT, rival))
        return [mine[seed] / theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]

    def ceiling(self, bound: str = TTFT) -> str | None:
        """The best of all, settings that were tried for this case included."""
        return self.best_rate(bound, self.rates[bound])

    def change(self, load: str, name: str, base: str, figure: str = "ttft_p90_s") -> Interval | None:
        """By what share a figure differs from another variant's on the seeds that both ran."""
        mine, theirs = (self.rows.get(load, {}).get(one, {}) for one in (name, base))
        seeds = [
            seed
            for seed in sorted(mine.keys() & theirs.keys())
            if figure in mine[seed] and figure in theirs[seed]
        ]
        if not seeds:
            return None
        return change([mine[seed][figure] for seed in seeds], [theirs[seed][figure] for seed in seeds])


def is_rival(variant: Variant) -> bool:
    """Whether it competes with the default: with the settings that its project or the paper names."""
    return variant.rule not in {DEFAULT, FLOOR} and not variant.tried


def geometric_mean(values: Sequence[float]) -> float:
    """Of ratios."""
    return math.exp(fmean(math.log(value) for value in values)) if values and min(values) > 0 else 0.0


@dataclass
class Judgment:
    """All cases, in their order, and how they were made."""

    about: dict[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
