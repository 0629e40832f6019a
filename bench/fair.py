"""``make bench-fair``: what nine tenants notice of a tenth that floods, simulated.

The same requests in three runs: *alone* is without the flood, *fair* and *unfair* are with it and
``tenant_rule`` ``"fair"`` and ``"none"``. Seeds are paired, intervals are of 95 %. A request that fails
counts as a time to first token of 120 s.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import msgspec

from bench.pool import Pool, cores
from bench.record import RESULTS, machine
from skylb.tools.sim.requests import Requests, requests
from skylb.tools.sim.result import Result, Section
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario, Tenant
from skylb.tools.sim.simulate import finish, prepare
from skylb.tools.sim.summary import Interval, change, interval
from skylb.tools.sim.workload import Agent, Arena, Made

REGIONS = ("us", "eu", "asia")
RTT_MS = [[0.5, 102.0, 124.0], [102.0, 0.5, 222.0], [124.0, 222.0, 0.5]]
TENANTS = 9
FLOOD = 2.0
"""The flood sends so many times what the fleet can do."""

LOADS = (0.5, 0.85)
"""What the nine send together, as a share of what the fleet can do: their fair share is nine tenths."""

FAILED_S = 120.0
SEEDS = (1, 2, 3, 4)
QUICK_SEEDS = (1, 2)
NOTICED_MAX = 0.10
THROUGHPUT_MIN = 0.97


@dataclass(frozen=True)
class Case:
    """A workload, and the fleet of one region that serves it.

    Attributes:
        name: in the table.
        workload: requests of every tenant.
        replicas: of one region.
        rate_per_s: sessions that such a region answers at most, measured with a flood.
        max_tokens: longest answer.
    """

    name: str
    workload: Made
    replicas: Replicas
    rate_per_s: float
    max_tokens: int | None


CASES = (
    Case("chat", Arena(tokens_max=16_000), Replicas(8, "l4-8b"), 3.4, 512),
    Case(
        "shared prompts",
        Arena(
            single=1.0,
            sessions_per_user=1,
            systems=4,
            system_tokens=1500,
            first_tokens=150,
            answer_tokens=150,
        ),
        Replicas(6, "l4-8b"),
        12.0,
        512,
    ),
    Case("agents", Agent(tokens_max=60_000, think_s=0.5, turns=8.0), Replicas(4, "h100-8b"), 2.5, None),
)


@dataclass(frozen=True)
class Task:
    """One seed of one row."""

    case: Case
    regions: int
    load: float
    seed: int
    quick: bool

    @property
    def key(self) -> tuple[int, str, float, int]:
        """Tells it from the others."""
        return self.regions, self.case.name, self.load, self.seed


@dataclass(frozen=True)
class Outcome:
    """Figures of three runs: alone, fair, unfair."""

    p50_s: tuple[float, float, float]
    p90_s: tuple[float, float, float]
    refused: tuple[float, float, float]
    tokens_per_s: tuple[float, float, float]
    hit_rate: tuple[float, float, float]
    others_hit_rate: tuple[float, float, float]
    gap: float
    bound: float


def scenario(task: Task, *, flood: bool, rule: str, engine: dict[str, object]) -> Scenario:
    """One run. The flood comes last, so that the others' requests are the same without it."""
    case, names = task.case, REGIONS[: task.regions]
    everywhere = case.rate_per_s * task.regions
    shares = dict.fromkeys(names, 1.0)
    steady = msgspec.structs.replace(case.workload, shares=shares)
    # What floods, floods one region: the others feel what that region forwards.
    flooding = msgspec.structs.replace(case.workload, shares={names[0]: 1.0})
    warmup_s, duration_s = (30.0, 90.0) if task.quick else (60.0, 180.0)
    tenants = [Tenant("steady", count=TENANTS, rate_per_s=task.load * everywhere / TENANTS)]
    if flood:
        tenants.append(Tenant("flood", rate_per_s=FLOOD * everywhere, from_s=warmup_s / 2, workload=flooding))
    return Scenario(
        seed=task.seed,
        duration_s=duration_s,
        warmup_s=warmup_s,
        engine={"tenant_rule": rule, **engine},
        regions=[Region(name, replicas=[case.replicas]) for name in names],
        network=Network(rtt_ms=[row[: task.regions] for row in RTT_MS[: task.regions]]),
        clients=Clients(mode="sessions", max_tokens=case.max_tokens),
        tenants=tenants,
        workload=steady,
    )


def run(given: tuple[Task, dict[str, object]]) -> Outcome:
    """The three runs of one seed."""
    task, engine = given
    alone = scenario(task, flood=False, rule="fair", engine=engine)
    flooded = scenario(task, flood=True, rule="fair", engine=engine)
    unfair = scenario(task, flood=True, rule="none", engine=engine)
    made: Requests = requests(flooded)
    results = (
        finish(prepare(alone, requests(alone))),
        finish(prepare(flooded, made)),
        finish(prepare(unfair, made)),
    )

    def each(figure: Callable[[Result], float]) -> tuple[float, float, float]:
        first, second, third = map(figure, results)
        return first, second, third

    found = results[1].fairness
    if found is None:
        raise AssertionError("several tenants share the room: the simulator compares them")
    return Outcome(
        p50_s=each(lambda result: quantile(others(result), 0.5)),
        p90_s=each(lambda result: quantile(others(result), 0.9)),
        refused=each(lambda result: sum(of.failures for of in others(result))),
        tokens_per_s=each(lambda result: result.total.throughput_tokens_per_s),
        hit_rate=each(lambda result: result.total.hit_rate or 0.0),
        others_hit_rate=each(lambda result: hit_rate(others(result))),
        gap=found.gap_tokens,
        bound=found.bound_tokens,
    )


def others(result: Result) -> list[Section]:
    """Figures of the nine."""
    return [of for name, of in result.tenants.items() if name.startswith("steady")]


def quantile(sections: Sequence[Section], q: float) -> float:
    """Of the times to first token of all of them, in seconds; those that failed count as `FAILED_S`."""
    counts: Counter[float] = Counter()
    for section in sections:
        counts.update(dict(section.ttft_s.histogram))
        counts[FAILED_S] += section.failures + section.unfinished
    wanted, seen = q * counts.total(), 0
    for bound, count in sorted(counts.items()):
        seen += count
        if seen >= wanted:
            return bound
    return FAILED_S


def hit_rate(sections: Sequence[Section]) -> float:
    """Share of their prompt tokens that were found cached."""
    tokens = sum(of.input_tokens for of in sections)
    return sum(of.cached_tokens for of in sections) / max(1, tokens)


# ------------------------------------------------------------------------------------ the table

TITLES = (
    "regions", "workload", "load", "P90 alone ms", "P90 fair", "P90 unfair", "refused fair, unfair",
    "tokens/s fair to unfair", "hits fair - unfair", "others' hits alone, fair, unfair", "gap, bound tokens",
)  # fmt: skip


def row(task: Task, outcomes: Sequence[Outcome]) -> tuple[str, list[str]]:
    """A line of the table, and which of the targets it misses."""

    def column(name: str, run: int) -> list[float]:
        return [getattr(outcome, name)[run] for outcome in outcomes]

    def mean(name: str, run: int) -> float:
        return sum(column(name, run)) / len(outcomes)

    noticed = change(column("p90_s", 1), column("p90_s", 0))
    unfair = change(column("p90_s", 2), column("p90_s", 0))
    tokens = change(column("tokens_per_s", 1), column("tokens_per_s", 2))
    hits = interval(
        [fair - none for fair, none in zip(column("hit_rate", 1), column("hit_rate", 2), strict=True)]
    )
    gap, bound = max(of.gap for of in outcomes), min(of.bound for of in outcomes)
    worst = max(outcomes, key=lambda of: of.gap / of.bound)
    if noticed is None or unfair is None or tokens is None:
        raise AssertionError("every run answers something")
    cells = [
        str(task.regions),
        task.case.name,
        f"{task.load:.0%}",
        f"{mean('p90_s', 0) * 1e3:.0f}",
        _percent(noticed),
        _percent(unfair),
        f"{mean('refused', 1):.0f}, {mean('refused', 2):.0f}",
        _percent(tokens),
        f"{hits.mean:+.3f} [{hits.low:+.3f}, {hits.high:+.3f}]",
        ", ".join(f"{mean('others_hit_rate', run):.3f}" for run in range(3)),
        f"{gap:.0f}, {bound:.0f}",
    ]
    missed = [
        text
        for text, met in (
            ("P90 of the others", noticed.mean <= NOTICED_MAX),
            ("throughput", tokens.mean >= THROUGHPUT_MIN - 1),
            # A difference that may be chance is none.
            ("hit rate", hits.high >= 0),
            ("service gap", worst.gap <= worst.bound),
        )
        if not met
    ]
    where = f"{task.regions} region{'s' * (task.regions > 1)}, {task.case.name}, {task.load:.0%}"
    return f"| {' | '.join(cells)} |", [f"{where}: {text}" for text in missed]


def _percent(value: Interval) -> str:
    return f"{value.mean:+.1%} [{value.low:+.1%}, {value.high:+.1%}]"


def document(lines: Sequence[str], command: str) -> str:
    """The page of results."""
    about = (__doc__ or "").partition("\n\n")[2].strip().replace("``", "`")
    return "\n".join(
        [
            "# make bench-fair",
            "",
            ", ".join(machine().values()),
            "",
            f"`{command}`",
            "",
            about,
            "",
            *lines,
            "",
        ]
    )


def main() -> None:
    """Runs, prints, keeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds, shorter runs; prints only")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--engine", action="append", default=[], metavar="SETTING=VALUE")
    given = parser.parse_args()
    engine = {
        name: msgspec.json.decode(value) for name, _, value in (of.partition("=") for of in given.engine)
    }
    seeds = QUICK_SEEDS if given.quick else SEEDS
    rows = [
        [Task(case, regions, load, seed, given.quick) for seed in seeds]
        for regions, case, load in product((1, len(REGIONS)), CASES, LOADS)
    ]
    found: dict[tuple[int, str, float, int], Outcome] = {}
    pool = Pool(given.processes)
    pool.each(
        run,
        [(task, engine) for tasks in rows for task in tasks],
        lambda item, out: found.update({item[0].key: out}),
    )
    pool.close()
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES)]
    missed: list[str] = []
    for tasks in rows:
        line, faults = row(tasks[0], [found[task.key] for task in tasks])
        lines.append(line)
        missed += faults
    lines += ["", "Missed: " + ("; ".join(missed) if missed else "nothing") + "."]
    print(*lines, sep="\n")
    if not given.quick and not given.engine:
        command = " ".join(["make bench-fair", *sys.argv[1:]])
        (RESULTS / "fair.md").write_text(document(lines, command))


if __name__ == "__main__":
    main()
