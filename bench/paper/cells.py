"""The cells of each part: which cases run on which layouts under which systems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.paper.runs import Cell
from bench.paper.systems import OF_REPLICAS, System
from bench.paper.workloads import DAY_S, LAYOUTS, SKEWED, Case, Counts, cases, day
from skylb.tools.sim.workload import Tree

TABLE, PUSH, SKEW, DAY = "table", "pushing", "skew", "day"
PARTS = (TABLE, PUSH, SKEW, DAY)

PUSH_USERS = (30, 60)
PUSH_REPLICAS = 4

EVEN, BY_USERS = "even", "by users"
"""Placements of the skewed users' replicas."""

DAY_EVEN, DAY_SKEWED_EVEN, DAY_SKEWED = "even users, even", "60/20/20, even", "60/20/20, by users"
"""Days: how their users are spread, and the placement of replicas."""


@dataclass(frozen=True)
class Extent:
    """How much is run.

    Attributes:
        seeds: runs of each system in the main table and in the ablation.
        replica_seeds: over numbers of replicas.
        duration_s, warmup_s: of runs in closed loop.
        replica_duration_s: the same over numbers of replicas.
        day_s: of a day.
        skew_counts, day_counts: numbers of replicas.
    """

    seeds: int = 10
    replica_seeds: int = 6
    duration_s: float = 600.0
    warmup_s: float = 60.0
    replica_duration_s: float = 600.0
    day_s: float = DAY_S
    skew_counts: tuple[int, ...] = (3, 6, 9, 12, 15, 18, 21, 24)
    day_counts: tuple[int, ...] = (9, 12, 15, 18, 21, 24)


QUICK = Extent(
    seeds=2,
    replica_seeds=2,
    duration_s=300.0,
    skew_counts=(6, 9, 12, 15),
    day_counts=(12, 15, 18),
)


def cells(
    extent: Extent, systems: Sequence[System], pushing: Sequence[System], traces: Path | None
) -> Iterator[Cell]:
    """All cells, of parts in turn; ``pushing`` are the systems of the ablation."""
    for layout in LAYOUTS:
        for case in cases(traces):
            if layout in case.layouts:
                yield _closed(extent, TABLE, f"{case.name} {layout}", case, LAYOUTS[layout], systems)
    for users in PUSH_USERS:
        case = Case("tot", (users, 0, 0), Tree(), "tree")
        yield _closed(extent, PUSH, f"{users} users", case, (PUSH_REPLICAS, 0, 0), pushing)
    few = [system for system in systems if system.set_ or system.name in OF_REPLICAS]
    for count in extent.skew_counts:
        for placement, shares in ((EVEN, (1, 1, 1)), (BY_USERS, SKEWED.users)):
            layout_ = split(count, shares)
            cell = _closed(extent, SKEW, f"{placement} {count}", SKEWED, layout_, few)
            yield replace(cell, duration_s=extent.replica_duration_s)
    for count in extent.day_counts:
        for name, users_, shares in (
            (DAY_EVEN, (1, 1, 1), (1, 1, 1)),
            (DAY_SKEWED_EVEN, (60, 20, 20), (1, 1, 1)),
            (DAY_SKEWED, (60, 20, 20), (60, 20, 20)),
        ):
            yield Cell(
                part=DAY,
                name=f"{name} {count}",
                case=day(users_),
                layout=split(count, shares),
                systems=tuple(few),
                duration_s=extent.day_s,
                warmup_s=extent.warmup_s,
            )


def _closed(
    extent: Extent, part: str, name: str, case: Case, layout: Counts, systems: Sequence[System]
) -> Cell:
    return Cell(part, name, case, layout, tuple(systems), extent.duration_s, extent.warmup_s)


def split(count: int, shares: Counts) -> Counts:
    """So many replicas over regions by their shares: at least one each, the largest remainders rounded up."""
    free = count - len(shares)
    if free < 0:
        raise ValueError(f"{count} replicas are too few for {len(shares)} regions")
    exact = [count * share / sum(shares) for share in shares]
    found = [max(1, int(part)) for part in exact]
    while sum(found) < count:
        missing = [part - whole for part, whole in zip(exact, found, strict=True)]
        found[missing.index(max(missing))] += 1
    while sum(found) > count:
        beyond = [whole - part if whole > 1 else -1.0 for part, whole in zip(exact, found, strict=True)]
        found[beyond.index(max(beyond))] -= 1
    us, eu, asia = found
    return us, eu, asia
