"""The cells of each part: which cases run on which layouts under which systems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.paper.runs import Cell
from bench.paper.systems import System
from bench.paper.workloads import CASES, LAYOUTS

TABLE = "table"


@dataclass(frozen=True)
class Extent:
    """How much is run.

    Attributes:
        duration_s, warmup_s: of the runs in closed loop.
    """

    duration_s: float = 600.0
    warmup_s: float = 60.0


QUICK = Extent(duration_s=300.0)


def table(
    systems: Sequence[System], workloads: Sequence[str], layouts: Sequence[str], extent: Extent
) -> Iterator[Cell]:
    """The main table: every workload on every layout."""
    for layout in layouts:
        for case in CASES:
            if case.name in workloads:
                yield Cell(
                    part=TABLE,
                    name=f"{case.name} {layout}",
                    case=case,
                    layout=LAYOUTS[layout],
                    systems=tuple(systems),
                    duration_s=extent.duration_s,
                    warmup_s=extent.warmup_s,
                )
