"""The simulator: a fleet in virtual time, driven by the engine that ``skylb serve`` runs.

For notebooks and scripts::

    from skylb.tools import sim

    scenario = sim.read("examples/chat.toml")       # or sim.Scenario(...)
    result = sim.run(scenario)
    print(result.total.ttft_s.p90, result.total.hit_rate)

    for point in sim.sweep(scenario, {"engine.policy": ["prefix", "ring"]}, seeds=10, processes=4):
        print(point.name, point.summary["ttft_p90_s"], point.against_baseline)

Results are plain structs; ``msgspec.to_builtins(result)`` makes dictionaries of them. A script that asks
for several processes must be importable without running (``if __name__ == "__main__":``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from skylb.tools.sim.baseline import checked
from skylb.tools.sim.command import check, run_command, run_points
from skylb.tools.sim.examples import example
from skylb.tools.sim.read import ScenarioFile, read
from skylb.tools.sim.report import PointReport, Report
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario
from skylb.tools.sim.settings import SimSettings
from skylb.tools.sim.simulate import BrokenError, run
from skylb.tools.sim.summary import Interval
from skylb.tools.sim.text import render
from skylb.tools.sim.workload import Agent, Arena, File, Mix, SharedPrompt, Tree, WildChat

__all__ = [
    "Agent",
    "Arena",
    "BrokenError",
    "Clients",
    "File",
    "Interval",
    "Mix",
    "Network",
    "PointReport",
    "Region",
    "Replicas",
    "Report",
    "Result",
    "Scenario",
    "SharedPrompt",
    "SimSettings",
    "Tree",
    "WildChat",
    "example",
    "read",
    "render",
    "run",
    "run_command",
    "sweep",
]


def sweep(
    scenario: Scenario,
    values: Mapping[str, Sequence[Any]],
    *,
    seeds: int = 1,
    processes: int = 1,
    baseline: Mapping[str, Any] | None = None,
) -> list[PointReport]:
    """Runs a scenario with every combination of values of some fields.

    Ctrl-C ends it early; the reports then cover what there is.

    Args:
        scenario: what to change.
        values: by field, named with dots: ``{"engine.policy": ["prefix", "ring"]}``.
        seeds: runs of each point; all points share them.
        processes: runs at once.
        baseline: values of some of the fields; each point is compared with the one that has them and is
            like it in all others. Without any, all are compared with the first.

    Raises:
        ConfigError: a point is impossible; names the fields, and nothing has run.
        SkyLBError: a workload cannot be had, or an invariant broke.
    """
    file = ScenarioFile(msgspec.to_builtins(scenario), {name: list(found) for name, found in values.items()})
    points = file.points()
    chosen = checked(dict(baseline or {}), file.sweep)
    check(points)
    return run_points(points, seeds, processes, baseline=chosen)[0]
