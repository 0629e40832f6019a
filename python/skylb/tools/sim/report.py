"""The report of ``skylb sim``: its JSON schema (these structs), and the same for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from skylb.tools.sim.result import Result, Section
from skylb.tools.sim.scenario import Scenario
from skylb.tools.sim.summary import METRICS, Interval, Metric, compare, summarise
from skylb.tools.text import milliseconds, table

SCHEMA = 1


class PointReport(msgspec.Struct, frozen=True):
    """One point of a sweep, or all there is.

    Attributes:
        name: its values as people write them.
        values: by field, what makes it differ from the other points.
        scenario: all of it, defaults included; the seed is that of the first run.
        summary: figures over its runs.
        against_first: shares by which they differ from the first point's, seed by seed.
        runs: results; those that an interrupt kept from beginning are missing.
    """

    name: str
    values: dict[str, Any]
    scenario: Scenario
    summary: dict[str, Interval]
    against_first: dict[str, Interval]
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


def point_report(
    name: str, values: dict[str, Any], scenario: Scenario, runs: list[Result], first: list[Result]
) -> PointReport:
    """One point with its figures; ``first`` are the runs of the first point, or none for itself."""
    whole = [result for result in runs if result.done] or runs
    base = [result for result in first if result.done]
    summary = summarise(whole) if whole else {}
    against = compare(whole, base) if base and whole else {}
    return PointReport(name, values, scenario, summary, against, runs)


def render(report: Report) -> str:
    """The report as text."""
    lines = []
    shown = [point for point in report.points if point.runs]
    if len(report.points) == 1 and len(shown) == 1:
        lines += _one(shown[0])
    elif shown:
        lines += _many(shown)
    lines += notes(report)
    return "\n".join(lines)


_COUNT_COLUMNS = (
    "region", "completed", "failed", "unfinished", "requests/s", "tokens/s", "output tokens/s", "hit rate",
)  # fmt: skip
_TIME_COLUMNS = ("region", "ms", "P50", "P90", "P99", "mean", "max")


def _one(point: PointReport) -> list[str]:
    """The first run's figures by region, and intervals where there are more runs."""
    result = point.runs[0]
    rows = list(result.regions.items()) if len(result.regions) > 1 else []
    rows.append(("total", result.total))
    lines = [_headline(result), ""]
    lines += table(_COUNT_COLUMNS, [_counts(name, row) for name, row in rows])
    lines.append("")
    lines += table(_TIME_COLUMNS, [line for name, row in rows for line in _times(name, row)], left=2)
    lines += [
        f"failed, {kind}: {count}"
        for kind, count in sorted(result.total.failed.items(), key=lambda item: -item[1])
    ]
    if len(point.runs) > 1:
        lines += ["", f"means over {len(point.runs)} seeds, with 95 % intervals:"]
        lines += table(*figures([point]))
    return lines


def _headline(result: Result) -> str:
    balancers = len(result.balancers)
    fleet = f"{len(result.replicas)} replicas, {balancers} balancer{'s' * (balancers > 1)}"
    return (
        f"{result.topology}, {result.policy}, seed {result.seed}: {fleet}, {result.now_s:.0f} s, "
        f"{result.measured_s:.0f} s of them measured"
    )


def _counts(name: str, row: Section) -> tuple[str, ...]:
    return (
        name,
        str(row.completed),
        str(row.failures),
        str(row.unfinished),
        f"{row.requests_per_s:.2f}",
        f"{row.throughput_tokens_per_s:.0f}",
        f"{row.output_tokens_per_s:.0f}",
        "-" if row.hit_rate is None else f"{row.hit_rate:.3f}",
    )


def _times(name: str, row: Section) -> list[tuple[str, ...]]:
    kinds = {
        "TTFT": row.ttft_s,
        "inter-token": row.inter_token_s,
        "end to end": row.e2e_s,
        "hold": row.hold_s,
    }
    return [
        (name, kind, *(milliseconds(value) for value in (d.p50, d.p90, d.p99, d.mean, d.max)))
        for kind, d in kinds.items()
        if d.count
    ]


def _many(points: list[PointReport]) -> list[str]:
    seeds = max(len(point.runs) for point in points)
    lines = [f"{seeds} seed{'s' * (seeds > 1)} per point{'; means with 95 % intervals' * (seeds > 1)}", ""]
    lines += table(*figures(points))
    if any(point.against_first for point in points):
        lines += ["", f"against {points[0].name}{', seed by seed' * (seeds > 1)}:"]
        lines += table(*changes(points))
    return lines


Grid = tuple[list[str], list[list[str]]]
"""A table: its columns' titles, and its rows, the first cell of each the name of a point."""


def _shown(metric: Metric, value: float) -> str:
    return f"{value * metric.scale:.{metric.digits}f}"


def figures(points: Sequence[PointReport]) -> Grid:
    """Every point's means, with intervals where it has several seeds."""
    metrics = [metric for metric in METRICS if any(metric.name in point.summary for point in points)]
    rows = []
    for point in points:
        row = [point.name or "all"]
        for metric in metrics:
            value = point.summary.get(metric.name)
            if value is None:
                row.append("-")
                continue
            text = _shown(metric, value.mean)
            if value.low != value.high:
                text += f" [{_shown(metric, value.low)}, {_shown(metric, value.high)}]"
            row.append(text)
        rows.append(row)
    return ["", *(metric.title for metric in metrics)], rows


def changes(points: Sequence[PointReport]) -> Grid:
    """By what share the figures of a sweep's further points differ from the first point's."""
    base, others = points[0], [point for point in points[1:] if point.against_first]
    metrics = [metric for metric in METRICS if any(metric.name in point.against_first for point in others)]
    rows = []
    for point in others:
        row = [point.name]
        for metric in metrics:
            value = point.against_first.get(metric.name)
            # Of a figure that is shown as 0, no share is worth showing.
            if value is None or not float(_shown(metric, base.summary[metric.name].mean)):
                row.append("-")
            elif value.low == value.high:
                row.append(f"{value.mean:+.1%}")
            else:
                row.append(f"{value.mean:+.1%} [{value.low:+.1%}, {value.high:+.1%}]")
        rows.append(row)
    return ["", *(metric.title for metric in metrics)], rows


def notes(report: Report) -> list[str]:
    """What else is to be said: what was left out, cut short, lost; the size of the run."""
    notes = [""]
    runs = [result for point in report.points for result in point.runs]
    if report.lines_bad:
        notes.append(f"{report.lines_bad} broken lines left out; {report.first_fault}")
    early = [result for result in runs if result.done and result.now_s < result.measured_s]
    if early:
        notes.append("the workload was used up before duration_s")
    if report.interrupted:
        whole = sum(result.done for result in runs)
        asked = report.seeds * len(report.points)
        notes.append(f"INTERRUPTED: {whole} of {asked} runs are whole, {len(runs) - whole} in part")
    lost = sum(result.total.lost for result in runs)
    if lost:
        notes.append(f"{lost} requests were LOST: this is a bug of the balancer")
    events = sum(result.events for result in runs)
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}, {report.requests} requests in the workload"
    notes.append(f"{count}, {events} events in {report.wall_s:.1f} s")
    return notes
