"""The goals as a list of checks, each met or missed, with its figure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from bench.paper.cells import DAY, DAY_EVEN, EVEN, SKEW, TABLE
from bench.paper.figures import Rows, mean, ratio
from bench.paper.replicas import Series, equal_p90, needed, needed_between, saving, series
from bench.paper.runs import Found, SystemRows
from bench.paper.systems import BY_NAME, CENTRAL, LOCAL, OURS, PER_REGION, SHIPPED_HOLD

WORSE_MAX = 1.02
"""Than our default per region, at most."""

CENTRAL_MAX = 1.05
"""Than our default in one global balancer, where a region is short."""

FIGURES = (("ttft_p90_s", "P90"), ("ttft_p50_s", "P50"), ("tokens_per_s", "throughput"))
LATENCIES = FIGURES[:2]

SKEW_AT = 12
SKEW_GOAL = 9
"""Region-local replicas of the paper's diurnal figure, and those that shall do the same: -25 %."""

SKEW_SHORT = (6, 9, 12)
"""Numbers of replicas, evenly spread, with which us is short for its 120 users."""

DAY_BOUND_S = 2.0
DAY_SAVING = 1 / 3
"""Of the region-local replicas that keep this P90 over a day."""


@dataclass(frozen=True)
class Check:
    """One goal: what was asked, whether it is met, and the figures that decide."""

    goal: str
    met: bool | None
    figure: str

    @property
    def text(self) -> str:
        """A line; ``open`` where its runs are missing."""
        state = {True: "met", False: "MISSED", None: "open"}[self.met]
        return f"{state:7}{self.goal}: {self.figure}"


@dataclass(frozen=True)
class Worse:
    """How much worse than another system: above 1 is worse; and our default in one global balancer there."""

    factor: float
    where: str
    central: float | None = None

    @property
    def text(self) -> str:
        """As people read it."""
        beside = f"; one central: {self.central - 1:+.1%}" if self.central is not None else ""
        return f"{self.factor - 1:+.1%} ({self.where}{beside})"


def checks(found: Found) -> list[Check]:
    """All goals."""
    table = found.part(TABLE)
    skew = {f"120/40/40 {name}": systems for name, systems in found.part(SKEW).items()}
    days = {f"day {name}": systems for name, systems in found.part(DAY).items()}
    short = _short(table)
    balanced = {name: systems for name, systems in table.items() if name not in short}
    never = "never worse than region-local by more than 2 % (P90, P50, throughput)"
    return [
        _none_worse(
            f"the paper's table, 4/4/4: {never}", list(_against(balanced, [LOCAL], FIGURES)), WORSE_MAX
        ),
        _none_worse(
            "the same where a region is short: 3/2/3, 120/40/40",
            list(_against(short, [LOCAL], FIGURES)),
            WORSE_MAX,
        ),
        _none_worse(
            "the same over numbers of replicas and over days",
            list(_against(skew | days, [LOCAL], FIGURES)),
            WORSE_MAX,
        ),
        _none_worse(
            "the paper's table: P50 and P90 better than every global baseline",
            list(_against(table, [name for name, of in BY_NAME.items() if of.role == "global"], LATENCIES)),
            1.0,
        ),
        _none_worse(
            "where a region is short: P90 within 5 % of one central predictive",
            list(_against(short | _short(skew), [CENTRAL], LATENCIES[:1])),
            CENTRAL_MAX,
        ),
        *_replicas(found),
    ]


def worse(ours: Rows, theirs: Rows, name: str) -> float | None:
    """By what factor ours is worse, seed by seed: less throughput, or more latency."""
    found = ratio(ours, theirs, name, inverse=name == "tokens_per_s")
    return found.mean if found else None


def _against(
    cells: Mapping[str, SystemRows], others: list[str], figures: tuple[tuple[str, str], ...]
) -> Iterator[Worse]:
    for cell, systems in cells.items():
        ours = systems.get(OURS)
        for other in others:
            theirs = systems.get(other)
            if ours and theirs:
                for name, title in figures:
                    factor = worse(ours, theirs, name)
                    if factor is not None:
                        central = worse(systems.get(CENTRAL, []), theirs, name) if other == LOCAL else None
                        yield Worse(factor, f"{cell}, {title}, {other}", central)


def _none_worse(goal: str, found: list[Worse], most: float) -> Check:
    if not found:
        return Check(goal, None, "not run")
    over = sorted((one for one in found if one.factor > most), key=lambda one: -one.factor)
    worst = max(found, key=lambda one: one.factor)
    figure = f"worst {worst.text}"
    if over:
        more = "; ".join(one.text for one in over[1:4])
        figure += f"; {len(over)} of {len(found)} figures over" + (f": also {more}" if more else "")
    return Check(goal, not over, figure)


def _short(cells: Mapping[str, SystemRows]) -> dict[str, SystemRows]:
    """The cells in which a region has too few replicas for its users."""
    few = {f"120/40/40 {EVEN} {count}" for count in SKEW_SHORT}
    return {
        name: systems
        for name, systems in cells.items()
        if name in few or name.endswith(" 323") or name.startswith("wildchat-skewed")
    }


def _replicas(found: Found) -> Iterator[Check]:
    skew = series(found.part(SKEW), EVEN, "ttft_p90_s")
    ours = skew.get(OURS, {})
    for other in _per_region(skew):
        goal = f"120/40/40: -25 % replicas for the P90 of {SKEW_AT} under {other}"
        theirs = skew.get(other, {})
        if not ours or SKEW_AT not in theirs:
            yield Check(goal, None, "not run")
            continue
        count = equal_p90(ours, theirs, SKEW_AT)
        figure = f"{theirs[SKEW_AT] * 1e3:.0f} ms takes {count} of {min(ours)} to {max(ours)}"
        if SKEW_GOAL in ours:
            figure += f"; {SKEW_GOAL} have {ours[SKEW_GOAL] * 1e3:.0f} ms"
        yield Check(goal, count is not None and count <= SKEW_GOAL, figure)
    day = series(found.part(DAY), DAY_EVEN, "ttft_p90_s")
    for other in _per_region(day):
        goal = f"day: -33 % replicas for a P90 of {DAY_BOUND_S:g} s, against {other}"
        counts = saving(day.get(OURS, {}), day.get(other, {}), DAY_BOUND_S)
        if counts is None:
            yield never_kept(goal, day.get(OURS), day.get(other))
            continue
        between = [needed_between(day[name], DAY_BOUND_S) or 0.0 for name in (OURS, other)]
        figure = f"{counts[0]} instead of {counts[1]} ({counts[0] / counts[1] - 1:+.0%}; "
        figure += f"between the numbers tried {between[0]:.1f} and {between[1]:.1f})"
        yield Check(goal, 1 - counts[0] / counts[1] >= DAY_SAVING - 1e-9, figure)


def never_kept(goal: str, ours: Series | None, theirs: Series | None) -> Check:
    """Where a number of replicas is not known: ours must keep the bound, theirs takes more than was tried."""
    if not ours or not theirs:
        return Check(goal, None, "not run")
    mine, tried = needed(ours, DAY_BOUND_S), max(theirs)
    if mine is None:
        return Check(goal, False, f"ours does not keep it with {max(ours)}")
    figure = f"{mine} instead of more than {tried}"
    return Check(goal, True if 1 - mine / tried >= DAY_SAVING - 1e-9 else None, figure)


def _per_region(known: Collection[str]) -> tuple[str, ...]:
    """The paper's balancer per region, in the first form that has run, and ours."""
    published = [name for name in PER_REGION if name != LOCAL]
    return next((name for name in published if name in known), published[0]), LOCAL


def beside_shipped_hold(found: Found) -> dict[str, float]:
    """Failed requests of our default by cell, where it refuses after its shipped timeout."""
    rows = {name: systems.get(SHIPPED_HOLD, []) for name, systems in found.part(TABLE).items()}
    return {name: mean(of, "failed") for name, of in rows.items() if of}
