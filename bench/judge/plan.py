"""What is run for one case, step by step; each step depends on what the ones before have found."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.judge.cases import Case
from bench.judge.judgment import EXACT, INTER_TOKEN, TTFT, Rate, Verdict
from bench.judge.runs import Figures, Task
from bench.judge.search import Boundary, crossing, rate, shifted
from bench.judge.variants import DEFAULT, POLICIES, SHIPPED, Variant, floor, ours, rivals, tuned

MAIN = "85%"
"""The load at which most is compared."""

TUNING_LOAD, TUNED_AT = "tuning", 0.85
"""Settings are tried at the same share of capacity, on seeds of their own."""

SUSTAINED = 0.97
"""A rate is sustained if so nearly as many are answered as are sent, and 90 % within `PATIENCE`."""

REQUIRED = {TTFT: 0.90, INTER_TOKEN: 0.99}
"""Share of requests, or of tokens, that must come within the bound."""

CAPACITY_UNIT, COARSE_UNIT = 2, 4
LOW, HIGH = -48, 24
"""Rates tried: from 0.3 to 1.8 times the capacity as once measured."""

FINE = 12
"""So far from what one seed says the search on all seeds may go."""

AROUND = 1
"""So many rates further on both sides of a boundary are run, to smooth the noise."""

NEAR = 4
"""Rates so many steps from a boundary say how much the seeds differ there."""

HOPELESS = 8
"""Rules so many steps (18 %) behind the best are not searched further."""


BY_FAR = 1.25
"""A bound is broken by far if so many times as many requests are late as may be."""

TASK_VARIANTS = 8
"""Variants of one task: few, so that no process runs on long after the others have ended."""


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        measure: the capacity is measured; else it is what the case says.
        search_seeds: seeds of the searches; the first alone finds roughly where.
        seeds: at 85 %, of all rules.
        final_seeds: at 85 %, of the best.
        contenders: rules that are searched on all seeds, and have ``final_seeds``.
        loads: other loads, in shares of the capacity.
        load_seeds: seeds of each.
        tuning_seeds: of settings tried for the upper bound; none are tried without.
        inter_token: the inter-token bound is searched too.
    """

    measure: bool = True
    search_seeds: tuple[int, ...] = (200, 201, 202)
    seeds: int = 3
    final_seeds: int = 10
    contenders: int = 5
    loads: tuple[float, ...] = (0.6, 1.1, 1.3)
    load_seeds: int = 3
    tuning_seeds: tuple[int, ...] = (100, 101)
    inter_token: bool = True


QUICK = Effort(
    measure=False,
    search_seeds=(200, 201),
    seeds=2,
    final_seeds=3,
    contenders=3,
    loads=(),
    tuning_seeds=(),
    inter_token=False,
)

Steps = Iterator[list[Task]]
"""Each list is run whole, and its figures are in the verdict, before the next is asked for."""


class Plan:
    """Runs of one case.

    Args:
        case: it.
        effort: how much.
        policies: only these and the default; the paper's rules and former rules go with their policies.
    """

    def __init__(self, case: Case, effort: Effort, policies: Sequence[str] = POLICIES) -> None:
        self.verdict = Verdict(case, capacity_per_s=case.capacity_per_s)
        self._case = case
        self._effort = effort
        self._rivals = [variant for variant in rivals() if variant.engine["policy"] in policies]
        self._mine = ours()

    def steps(self) -> Steps:
        """All steps, the most telling first."""
        effort = self._effort
        if effort.measure:
            yield from self._capacity()
        everybody = [self._mine, *self._rivals]
        yield self._at(MAIN, range(effort.seeds), [*everybody, floor()])
        yield from self._search(TTFT, everybody)
        yield self._at(MAIN, range(effort.final_seeds), self._best_at_main())
        for share in effort.loads:
            yield self._at(f"{share:.0%}", range(effort.load_seeds), self._chosen())
        if effort.tuning_seeds:
            yield from self._ceiling()
        if effort.inter_token:
            yield from self._search(INTER_TOKEN, everybody)
        self.verdict.done = True

    # ----------------------------------------------------------------------------- tasks

    def _at(self, load: str, seeds: Sequence[int], variants: Sequence[Variant]) -> list[Task]:
        share = float(load.rstrip("%")) / 100
        return self._tasks(load, self.verdict.capacity_per_s * share, seeds, variants)

    def _on_grid(self, index: int, seeds: Sequence[int], variants: Sequence[Variant]) -> list[Task]:
        return self._tasks(_grid(index), rate(self._case.capacity_per_s, index), seeds, variants)

    def _tasks(
        self, load: str, rate_per_s: float, seeds: Sequence[int], variants: Sequence[Variant]
    ) -> list[Task]:
        """What has not been run yet: tasks of a few variants that share a stream of requests."""
        rows = self.verdict.rows.get(load, {})
        missing = {
            seed: tuple(variant for variant in variants if seed not in rows.get(variant.name, {}))
            for seed in seeds
        }
        return [
            Task(self._case, load, rate_per_s, seed, left[at : at + TASK_VARIANTS])
            for seed, left in missing.items()
            for at in range(0, len(left), TASK_VARIANTS)
        ]

    def _mean(self, name: str, index: int, seeds: Sequence[int], figure: str) -> float:
        rows = self.verdict.rows[_grid(index)][name]
        return fmean(rows[seed].get(figure, 0.0) for seed in seeds)

    def _within(self, bound: str, name: str, index: int, seeds: Sequence[int]) -> float:
        """Share of requests or tokens within a bound, in the mean of some seeds."""
        rows = self.verdict.rows[_grid(index)][name]
        return fmean(within(bound, rows[seed]) for seed in seeds)

    # -------------------------------------------------------------------------- capacity

    def _capacity(self) -> Steps:
        """The highest rate that half of the rules sustain, each in its better form."""
        seeds = self._effort.search_seeds[:2]
        boundary = Boundary(0, CAPACITY_UNIT, LOW, HIGH)
        forms: dict[str, list[Variant]] = defaultdict(list, {DEFAULT: [self._mine]})
        for variant in self._rivals:
            if variant.rule in POLICIES:
                forms[variant.rule].append(variant)
        while (index := boundary.next) is not None:
            sustain: set[str] = set()
            # Most rules sustain more as shipped: the other form runs only where that is open.
            for form in (-1, 0):
                asked = [found[form] for rule, found in forms.items() if rule not in sustain]
                yield self._on_grid(index, seeds, asked)
                sustain |= {variant.rule for variant in asked if self._sustains(variant.name, index, seeds)}
                if 2 * len(sustain) >= len(forms):
                    break
            boundary.answer(2 * len(sustain) >= len(forms))
        found = LOW if boundary.passed is None else boundary.passed
        self.verdict.capacity_per_s = rate(self._case.capacity_per_s, found)
        self.verdict.measured = True

    def _sustains(self, name: str, index: int, seeds: Sequence[int]) -> bool:
        answered = self._mean(name, index, seeds, "sustained") >= SUSTAINED
        return answered and self._mean(name, index, seeds, "within_patience") >= REQUIRED[TTFT]

    # --------------------------------------------------------------------------- ranking

    def _search(self, bound: str, variants: Sequence[Variant]) -> Steps:
        """Roughly where each keeps the bound, on one seed; then the best exactly, on all."""
        effort, rates = self._effort, self.verdict.rates[bound]
        one = effort.search_seeds[:1]
        late = self._late(bound)
        rates |= {name: Rate(self.verdict.capacity_per_s * TUNED_AT, "<") for name in late}
        variants = [variant for variant in variants if variant.name not in late]
        rough = {variant.name: Boundary(0, COARSE_UNIT, LOW, HIGH) for variant in variants}
        yield from self._bisect(bound, variants, rough, one, _hopeless(rough))
        passed = {name: boundary.passed for name, boundary in rough.items() if boundary.passed is not None}
        # Rivals are measured by each other: the best is found exactly, however far the default is ahead.
        best_rival = max((at for name, at in passed.items() if name != DEFAULT), default=LOW)
        near = [
            variant
            for variant in variants
            if variant.name == DEFAULT or passed.get(variant.name, LOW - 1) >= best_rival - COARSE_UNIT
        ]
        closer = {v.name: Boundary(at := passed.get(v.name, LOW), 1, at, at + COARSE_UNIT) for v in near}
        yield from self._bisect(bound, near, closer, one, _never)
        for name, boundary in (rough | closer).items():
            rates[name] = self._rate(bound, name, boundary, one)
        order = [variant for variant in near if variant.name != DEFAULT]
        order.sort(key=lambda variant: -rates[variant.name].per_s)
        best = {variant.name for variant in order[: effort.contenders]} | {DEFAULT}
        # One seed may misplace a rule: the two best at 85 % are searched exactly whatever it says.
        at_main = {found for form in (None, SHIPPED) if (found := self._best_here(form)) is not None}
        best |= at_main & {variant.name for variant in variants}
        starts = {name: _index(self._case, rates[name].per_s) for name in best}
        yield from self._exactly(bound, [variant for variant in variants if variant.name in best], starts)

    def _best_here(self, form: str | None) -> str | None:
        return self.verdict.best_at(MAIN, self.verdict.rival_names(MAIN, form))

    def _late(self, bound: str) -> set[str]:
        """Rivals that break a bound by far at 85 %, if enough others keep it: they are not searched."""
        shares = {
            name: fmean(within(bound, row) for row in self.verdict.rows[MAIN][name].values())
            for name in self.verdict.rival_names(MAIN)
        }
        if sum(share >= REQUIRED[bound] for share in shares.values()) < self._effort.contenders:
            return set()
        return {name for name, share in shares.items() if 1 - share > BY_FAR * (1 - REQUIRED[bound])}

    def _exactly(self, bound: str, variants: Sequence[Variant], starts: Mapping[str, int]) -> Steps:
        """On all seeds, beginning where one seed said."""
        seeds = self._effort.search_seeds
        fine = {}
        for variant in variants:
            start = starts[variant.name]
            fine[variant.name] = Boundary(start, 1, start - FINE, start + FINE)
        yield from self._bisect(bound, variants, fine, seeds, _never)
        around: dict[int, list[Variant]] = defaultdict(list)
        for variant in variants:
            passed = fine[variant.name].passed
            for index in range(passed - AROUND, passed + 2 + AROUND) if passed is not None else ():
                around[index].append(variant)
        yield [task for index, those in around.items() for task in self._on_grid(index, seeds, those)]
        for name, boundary in fine.items():
            self.verdict.rates[bound][name] = self._rate(bound, name, boundary, seeds)

    def _bisect(
        self,
        bound: str,
        variants: Sequence[Variant],
        boundaries: Mapping[str, Boundary],
        seeds: Sequence[int],
        hopeless: Callable[[Boundary], bool],
    ) -> Steps:
        """All boundaries in lockstep, so that those who try the same rate share its requests."""
        while True:
            asked: dict[int, list[Variant]] = defaultdict(list)
            for variant in variants:
                boundary = boundaries[variant.name]
                if boundary.next is not None and not hopeless(boundary):
                    asked[boundary.next].append(variant)
            if not asked:
                return
            yield [task for index, those in asked.items() for task in self._on_grid(index, seeds, those)]
            for index, those in asked.items():
                for variant in those:
                    share = self._within(bound, variant.name, index, seeds)
                    boundaries[variant.name].answer(share >= REQUIRED[bound])

    def _rate(self, bound: str, name: str, boundary: Boundary, seeds: Sequence[int]) -> Rate:
        """The rate of a boundary, between the index that passes and the next."""
        capacity_per_s, required = self._case.capacity_per_s, REQUIRED[bound]
        rough = "~" if len(seeds) == 1 else ""
        if boundary.next is not None or boundary.passed is None:
            return Rate(rate(capacity_per_s, LOW if boundary.failed is None else boundary.failed), "<")
        if boundary.failed is None:
            high = boundary.passed == HIGH or not rough
            return Rate(rate(capacity_per_s, boundary.passed), ">" if high else rough)
        if boundary.failed > boundary.passed + 1:
            return Rate(rate(capacity_per_s, boundary.passed), rough)
        by_index = self._by_index(bound, name, seeds)
        means = {index: fmean(shares.values()) for index, shares in by_index.items()}
        found = crossing(means, required)
        near = [index for index in by_index if abs(index - found) <= NEAR]
        by_seed = {}
        for seed in seeds if len(near) > 1 else ():
            shares = {index: by_index[index][seed] for index in near}
            at = shifted(shares, {index: means[index] for index in near}, found)
            by_seed[seed] = rate(capacity_per_s, at)
        return Rate(rate(capacity_per_s, found), rough, by_seed)

    def _by_index(self, bound: str, name: str, seeds: Sequence[int]) -> dict[int, dict[int, float]]:
        """Shares within a bound by seed, at each rate that has been run with all seeds."""
        found = {}
        for index in range(LOW - FINE, HIGH + FINE + 1):
            rows = self.verdict.rows.get(_grid(index), {}).get(name, {})
            if all(seed in rows for seed in seeds):
                found[index] = {seed: within(bound, rows[seed]) for seed in seeds}
        return found

    # --------------------------------------------------------------------------- the rest

    def _best_at_main(self) -> list[Variant]:
        """The default, the floor, the rivals with the best P90 and those of them as shipped."""
        verdict, names = self.verdict, set[str]()
        for form in (None, SHIPPED):
            found = verdict.rival_names(MAIN, form)
            found.sort(key=lambda name: verdict.mean(MAIN, name, "ttft_p90_s") or 0.0)
            names |= set(found[: self._effort.contenders])
        best = self._best_rates(2)
        return [self._mine, floor(), *(v for v in self._rivals if v.name in names | set(best))]

    def _best_rates(self, count: int) -> list[str]:
        rates = self.verdict.rates[TTFT]
        found = [variant.name for variant in self._rivals if variant.name in rates]
        return sorted(found, key=lambda name: (rates[name].sign not in EXACT, -rates[name].per_s))[:count]

    def _chosen(self) -> list[Variant]:
        """Who runs at the other loads: the best in each respect, and what everybody knows."""
        verdict = self.verdict
        names = {
            *self._best_rates(2),
            verdict.best_at(MAIN, verdict.rival_names(MAIN)),
            verdict.best_shipped(MAIN),
            "least_load, as shipped",
            "SkyLB as published",
        }
        return [self._mine, *(variant for variant in self._rivals if variant.name in names)]

    def _ceiling(self) -> Steps:
        """Other settings of the best rules, as a bound of what any of them could reach."""
        seeds, names = self._effort.tuning_seeds, set(self._best_rates(3))
        bases = [self._mine, *(variant for variant in self._rivals if variant.name in names)]
        tried = [other for base in bases for other in tuned(base)]
        yield self._tasks(TUNING_LOAD, self.verdict.capacity_per_s * TUNED_AT, seeds, tried)
        rows = self.verdict.rows.get(TUNING_LOAD, {})
        tried.sort(key=lambda variant: fmean(rows[variant.name][seed]["ttft_p90_s"] for seed in seeds))
        best = self.verdict.ceiling(TTFT)
        start = _index(self._case, self.verdict.rates[TTFT][best].per_s) if best is not None else 0
        chosen = tried[:2]
        yield from self._exactly(TTFT, chosen, {variant.name: start for variant in chosen})


def within(bound: str, row: Figures) -> float:
    """Share of requests, or of tokens, that come within a bound.

    Tokens of the few requests that a rule does not refuse come fast. So the requests must come within
    `PATIENCE` too: what is missing of `REQUIRED` there is missing of the tokens.
    """
    if bound == TTFT:
        return row.get("within_ttft", 0.0)
    impatient = (1 - row.get("within_patience", 0.0)) / (1 - REQUIRED[TTFT])
    return min(row.get("within_inter_token", 0.0), 1 - impatient * (1 - REQUIRED[INTER_TOKEN]))


def _grid(index: int) -> str:
    """Name of a load of the search."""
    return f"grid {index}"


def _index(case: Case, per_s: float) -> int:
    """The rate of the grid next to one."""
    return min(range(LOW, HIGH + 1), key=lambda index: abs(rate(case.capacity_per_s, index) - per_s))


def _never(_boundary: Boundary) -> bool:
    return False


def _hopeless(boundaries: Mapping[str, Boundary]) -> Callable[[Boundary], bool]:
    """Whether a boundary is far behind that of the best rival; the default's never is."""
    theirs = [boundary for name, boundary in boundaries.items() if name != DEFAULT]

    def hopeless(boundary: Boundary) -> bool:
        passed = [found.passed for found in theirs if found.passed is not None]
        return boundary is not boundaries.get(DEFAULT) and boundary.hopeless(
            max(passed, default=LOW) - HOPELESS
        )

    return hopeless
