"""``skylb sim``: a scenario file, its points and seeds, and what came of them."""

import importlib.util
import time
from pathlib import Path

import msgspec

from skylb.errors import ConfigError, missing
from skylb.tools.load.workload import WorkloadError
from skylb.tools.sim.baseline import choose, places
from skylb.tools.sim.pool import Show, run_all
from skylb.tools.sim.progress import Bar
from skylb.tools.sim.read import Assignments, Point, ScenarioFile, read_file
from skylb.tools.sim.report import SCHEMA, PointReport, Report, point_report
from skylb.tools.sim.requests import Requests, requests
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import Scenario
from skylb.tools.sim.settings import SimSettings
from skylb.tools.sim.simulate import prepare
from skylb.tools.sim.workload import File


def run_command(settings: SimSettings) -> Report:
    """Checks everything, runs everything, writes what is asked for.

    Raises:
        ConfigError: scenario, sweep or files to write are at fault; nothing has run.
        SkyLBError: an invariant broke.
    """
    began_s = time.monotonic()
    file = read_file(settings.scenario_path())
    file.sweep |= settings.sweeps()
    if settings.skip_bad:
        _skip_bad(file)
    points = file.points()
    chosen = choose(settings.baseline, file.sweep)
    made = check(points)
    _check_writable(settings)
    runs = len(points) * settings.seeds
    with Bar(settings.progress, runs) as bar:
        reports, interrupted = run_points(
            points, settings.seeds, settings.process_count(), bar.show, baseline=chosen
        )
    report = Report(
        schema=SCHEMA,
        scenario_file=str(settings.scenario),
        seeds=settings.seeds,
        requests=made.count,
        lines_bad=made.lines_bad,
        first_fault=made.first_fault,
        wall_s=time.monotonic() - began_s,
        interrupted=interrupted,
        points=reports,
    )
    if settings.json_file is not None:
        report.write(settings.json_file)
    if settings.plots is not None:
        from skylb.tools.sim.plots import write  # noqa: PLC0415 - needs matplotlib, which is optional

        write(report, settings.plots)
    return report


def run_points(
    points: list[Point],
    seeds: int,
    processes: int,
    show: Show | None = None,
    *,
    baseline: Assignments | None = None,
) -> tuple[list[PointReport], bool]:
    """Runs each point with so many seeds; the reports, and whether Ctrl-C ended it early.

    Seed ``k`` of each point is its own plus ``k``, so that points of one seed are compared run by run.

    Args:
        points: what to run.
        seeds: runs of each.
        processes: runs at once.
        show: is called with the progress of each run.
        baseline: values of swept fields; each point is compared with the one that has them, or all with
            the first.

    Raises:
        ConfigError: a scenario is impossible.
        SkyLBError: a workload cannot be had, or an invariant broke.
    """
    # Seed by seed, so that an interrupt leaves points with about as many runs each.
    scenarios = [with_seed(point.scenario, extra) for extra in range(seeds) for point in points]
    runs = run_all(scenarios, processes=processes, show=show)
    by_point: list[list[Result]] = [
        [result for result in runs.results[index :: len(points)] if result is not None]
        for index in range(len(points))
    ]
    reports = [
        point_report(point, found, base, by_point[base] if base is not None else [])
        for point, found, base in zip(points, by_point, places(points, baseline or {}), strict=True)
    ]
    return reports, runs.interrupted


def with_seed(scenario: Scenario, extra: int) -> Scenario:
    """The scenario with its seed moved on."""
    return msgspec.structs.replace(scenario, seed=scenario.seed + extra)


def check(points: list[Point]) -> Requests:
    """Checks every point before anything runs; the first one's requests.

    Raises:
        ConfigError: names every fault of every point, each once, a broken line with file and number.
    """
    faults: dict[str, None] = {}
    first: Requests | None = None
    for point in points:
        try:
            made = requests(point.scenario)
            prepare(point.scenario, made)
        except ConfigError as error:
            faults |= dict.fromkeys(error.faults)
        except WorkloadError as error:
            faults[str(error)] = None
        else:
            first = first or made
    if faults or first is None:
        raise ConfigError(list(faults))
    return first


def _skip_bad(file: ScenarioFile) -> None:
    workload = file.tree.get("workload")
    if not isinstance(workload, dict) or workload.get("kind") != File.__struct_config__.tag:
        raise ConfigError([f"--skip-bad: {file.name} reads no workload file"])
    workload["skip_bad"] = True


def _check_writable(settings: SimSettings) -> None:
    faults = []
    if settings.json_file is not None:
        try:
            settings.json_file.open("ab").close()
        except OSError as error:
            faults.append(f"json_file: {settings.json_file}: cannot be written: {error.strerror}")
    if settings.plots is not None:
        faults += _plot_faults(settings.plots)
    if faults:
        raise ConfigError(faults)


def _plot_faults(directory: Path) -> list[str]:
    if importlib.util.find_spec("matplotlib") is None:
        return [f"plots: {missing('matplotlib')}"]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [f"plots: {directory}: cannot be made: {error.strerror}"]
    return []
