"""The report of ``skylb sim`` as the command prints it."""

from collections.abc import Callable, Sequence
from statistics import fmean

from skylb.tools.sim.grid import (
    Cell,
    Grid,
    baseline_of,
    changes,
    figures,
    full_labels,
    labels,
    present,
    runs_each,
)
from skylb.tools.sim.headline import headlines
from skylb.tools.sim.report import PointReport, Report
from skylb.tools.sim.result import Result, Section
from skylb.tools.text import milliseconds, table


def render(report: Report) -> str:
    """The report as text."""
    lines = []
    shown = present(report.points)
    if len(report.points) == 1 and len(shown) == 1:
        lines += _one(shown[0])
    elif shown:
        lines += _many(shown)
    lines += notes(report)
    return "\n".join(lines)


_COUNT_COLUMNS = (
    "completed", "failed", "unfinished", "requests/s", "tokens/s", "output tokens/s", "hit rate",
)  # fmt: skip
_TIME_COLUMNS = ("ms", "P50", "P90", "P99", "mean", "max")


def _one(point: PointReport) -> list[str]:
    """The first run's figures by region, tenant and class, and intervals where there are more runs."""
    result = point.runs[0]
    lines = [_headline(result)]
    for title, sections in result.parts() or [("region", {})]:
        rows = [*sections.items(), ("total", result.total)]
        lines.append("")
        lines += table((title, *_COUNT_COLUMNS), [_counts(name, row) for name, row in rows])
        lines.append("")
        times = [line for name, row in rows for line in _times(name, row)]
        lines += table((title, *_TIME_COLUMNS), times, left=2)
    lines += [
        f"failed, {kind}: {count}"
        for kind, count in sorted(result.total.failed.items(), key=lambda item: -item[1])
    ]
    if len(point.runs) > 1:
        lines += ["", f"means over {len(point.runs)} seeds, with 95 % intervals:"]
        lines += _narrow(figures([point]))
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


def _many(points: Sequence[PointReport]) -> list[str]:
    lines = [f"{line.group}{': ' * bool(line.group)}{line.text}" for line in headlines(points)]
    lines += ["", f"{runs_each(points)}; * marks the best:"]
    lines += _narrow(figures(points))
    compared = changes(points)
    if compared.rows:
        lines += ["", f"against {baseline_of(points)}:"]
        lines += _narrow(compared)
    for title, of in _PARTS.items():
        lines += _apart(title, of, points)
    return lines


APART_MAX = 64
"""Tenants or classes that have rows of their own beside each other."""

WIDTH_MAX = 110
"""Columns of a table that has the points side by side; a wider one has them below each other."""

Sections = Callable[[Result], dict[str, Section]]

_PARTS: dict[str, Sections] = {
    "tenant": lambda result: result.tenants,
    "class": lambda result: result.classes,
}
LEGEND_MAX = 6
"""Points whose short names are explained."""

_APART_COLUMNS = ("TTFT P50 ms", "TTFT P90 ms", "failed")


def _apart(title: str, of: Sections, points: Sequence[PointReport]) -> list[str]:
    """What each tenant or class met at each point: means over its runs."""
    names = list(dict.fromkeys(name for point in points for result in point.runs for name in of(result)))
    if not 2 <= len(names) <= APART_MAX:
        return []
    called = labels(points)
    cells = {
        (name, label): _means([found[name] for run in point.runs if name in (found := of(run))])
        for name in names
        for label, point in zip(called, points, strict=True)
    }
    columns = [title, *(f"{label} {column}" for label in called for column in _APART_COLUMNS)]
    rows = [[name, *(cell for label in called for cell in cells[name, label])] for name in names]
    lines = table(columns, rows)
    if max(map(len, lines)) > WIDTH_MAX:
        lines = table([title, "", *_APART_COLUMNS], [[*key, *row] for key, row in cells.items()], left=2)
    return ["", f"by {title}, {_seeds(points)}{_legend(points)}:", *lines]


def _means(sections: Sequence[Section]) -> list[str]:
    """Cells of `_APART_COLUMNS`."""
    firsts = [section.ttft_s for section in sections]
    lost = [section.failures + section.unfinished for section in sections]
    return [
        _mean([first.p50 * 1e3 for first in firsts if first.p50 is not None]),
        _mean([first.p90 * 1e3 for first in firsts if first.p90 is not None]),
        _mean(lost),
    ]


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.0f}" if values else "-"


def _seeds(points: Sequence[PointReport]) -> str:
    seeds = max(len(point.runs) for point in points)
    return f"means over {seeds} seeds" if seeds > 1 else "one seed"


def _legend(points: Sequence[PointReport]) -> str:
    """What short names of points stand for."""
    pairs = zip(labels(points), full_labels(points), strict=True)
    meant = [f"{label}: {full}" for label, full in pairs if full not in {"", label}]
    return f" ({', '.join(meant)})" if 0 < len(meant) <= LEGEND_MAX else ""


def _narrow(grid: Grid) -> list[str]:
    """The grid with a row per point or a row per figure: the form that takes fewer columns."""
    columns = ["", *(metric.column for metric in grid.metrics)]
    rows = [[name, *map(_text, cells)] for name, cells in grid.rows]
    turned = [list(line) for line in zip(columns, *rows, strict=True)]
    forms = table(columns, rows), table(turned[0], turned[1:])
    return min(forms, key=lambda lines: max(map(len, lines)))


def _text(cell: Cell) -> str:
    text = f"{cell.text} [{cell.low}, {cell.high}]" if cell.low else cell.text
    return f"*{text}" if cell.best else text


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
