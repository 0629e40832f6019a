"""The report of ``skylb sim``: these structs are the schema of its JSON."""

from pathlib import Path
from typing import Any

import msgspec

from skylb.tools.sim.read import Point
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import Scenario
from skylb.tools.sim.summary import Interval, compare, summarise

SCHEMA = 2


class PointReport(msgspec.Struct, frozen=True):
    """One point of a sweep, or all there is.

    Attributes:
        name: its values as people write them.
        values: by field, what makes it differ from the other points.
        scenario: all of it, defaults included; the seed is that of the first run.
        summary: figures over its runs.
        baseline: position of the point that it is compared with; ``None`` for a baseline.
        against_baseline: shares by which they differ from the baseline's, seed by seed.
        runs: results; those that an interrupt kept from beginning are missing.
    """

    name: str
    values: dict[str, Any]
    scenario: Scenario
    summary: dict[str, Interval]
    baseline: int | None
    against_baseline: dict[str, Interval]
    runs: list[Result]


class Report(msgspec.Struct, frozen=True):
    """All of it.

    Attributes:
        schema: version of this structure.
        scenario_file: as given.
        seeds: runs per point that were asked for.
        requests: in the workload of the first run.
        lines_bad: broken lines left out of a workload file.
        first_fault: what was wrong with the first of them.
        wall_s: real time it took.
        interrupted: Ctrl-C came before the end.
        points: in the order of the sweep.
    """

    schema: int
    scenario_file: str
    seeds: int
    requests: int
    lines_bad: int
    first_fault: str | None
    wall_s: float
    interrupted: bool
    points: list[PointReport]

    def write(self, path: Path) -> None:
        """Writes the report as JSON.

        Raises:
            OSError: the file cannot be written.
        """
        path.write_bytes(msgspec.json.encode(self) + b"\n")


def point_report(point: Point, runs: list[Result], baseline: int | None, base: list[Result]) -> PointReport:
    """One point with its figures.

    Args:
        point: its values and its scenario.
        runs: its results.
        baseline: position of the point that it is compared with, if it is.
        base: that point's results.
    """
    whole = [result for result in runs if result.done] or runs
    others = [result for result in base if result.done]
    summary = summarise(whole) if whole else {}
    against = compare(whole, others) if others and whole else {}
    return PointReport(point.name, point.values, point.scenario, summary, baseline, against, runs)
