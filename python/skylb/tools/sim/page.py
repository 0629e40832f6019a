"""One HTML page of a report: its headline, its tables and its plots, in a file that needs no other.

It has no script, and loads nothing: it works from a disk and in an attachment. Plots come in two versions,
for light and for dark screens.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import PurePath

import msgspec

from skylb.tools.sim.differing import differing
from skylb.tools.sim.grid import (
    Cell,
    Grid,
    baseline_of,
    changes,
    figures,
    groups,
    labels,
    present,
    runs_each,
    varied_title,
)
from skylb.tools.sim.headline import Headline, headlines
from skylb.tools.sim.report import PointReport, Report
from skylb.tools.sim.result import Forwards, Result, Section
from skylb.tools.sim.text import notes

HEADLINES_MAX = 12
"""Headlines of groups that a page has."""

PLOTTED_MAX = 12
"""Points that plots show; of a longer sweep the first ones."""

DETAILS_MAX = 50
"""Points whose regions, tenants and classes a page lists."""

_STYLE = (files("skylb.tools.sim") / "page.css").read_text(encoding="utf-8")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONG = re.compile(r"\d{4,}")


class Image(msgspec.Struct, frozen=True):
    """A plot, as PNG: its name, its title, and its versions for light and dark screens."""

    name: str
    title: str
    light: bytes
    dark: bytes


def page(report: Report, images: Sequence[Image]) -> str:
    """The page.

    Args:
        report: what to show.
        images: plots.
    """
    title = escape(PurePath(report.scenario_file).name)
    points = present(report.points)
    parts = [
        f"<header><h1>{title}</h1>\n{_about(points)}</header>\n",
        *map(_lead, headlines(points)[:HEADLINES_MAX] if points else []),
        _figures(points),
        _changes(points),
        _plots(images, len(points)),
        _details(points),
        _scenario(points),
        _notes(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{title} - skylb sim</title>\n<style>\n{_STYLE}</style></head>\n<body><main>\n"
        f"{''.join(parts)}</main></body>\n</html>\n"
    )


def _about(points: Sequence[PointReport]) -> str:
    if not points:
        return '<p class="dim">no run has begun</p>\n'
    scenario = points[0].scenario
    replicas = sum(group.count for region in scenario.regions for group in region.replicas)
    regions = len(scenario.regions)
    fleet = f"{replicas} replicas in {regions} region{'s' * (regions > 1)}"
    time = f"{scenario.duration_s:g} s of virtual time, the first {scenario.warmup_s:g} s not measured"
    return f'<p class="dim">skylb sim: {fleet}; {time}; {runs_each(points)}</p>\n'


# ------------------------------------------------------------------------------------ headline


def _lead(headline: Headline) -> str:
    group = f'<div class="group">{escape(headline.group)}</div>\n' if headline.group else ""
    cards = "".join(
        f"<div><dt>{escape(figure.title)}</dt><dd>{escape(figure.value)}</dd>"
        + (f"<dd{_class(_side(figure.better))}>{_number(figure.change)}</dd>" if figure.change else "")
        + "</div>"
        for figure in headline.figures
    )
    text = f"<p>{escape(headline.text)}</p>\n"
    return f'<section class="lead">{group}{text}<dl class="cards">{cards}</dl></section>\n'


def _side(better: bool | None) -> str:
    return "" if better is None else "better" if better else "worse"


def _class(*names: str) -> str:
    given = " ".join(name for name in names if name)
    return f' class="{given}"' if given else ""


# -------------------------------------------------------------------------------------- tables


def _figures(points: Sequence[PointReport]) -> str:
    if not points:
        return ""
    about = runs_each(points)[0].upper() + runs_each(points)[1:]
    among = " among points with the same baseline" * (len(groups(points)) > 1)
    several = f"; the best value of each column{among} is marked" if len(points) > 1 else ""
    return _section("Figures", f"{about}{several}.", _grid(points, figures(points)))


def _changes(points: Sequence[PointReport]) -> str:
    if not any(point.baseline is not None for point in points):
        return ""
    seeds = max(len(point.runs) for point in points)
    about = (
        f"Differences seed by seed, over {seeds} seeds, with 95 % intervals. "
        "Green is better and red is worse, by all of the interval."
        if seeds > 1
        else "One seed: differences may be chance. More seeds give intervals."
    )
    title = f"Against {baseline_of(points)}"
    return _section(title, about, _grid(points, changes(points)))


def _grid(points: Sequence[PointReport], grid: Grid) -> str:
    """A row per point; groups of points that are compared with each other stand apart."""
    rows = dict(grid.rows)
    names = labels(points)
    by_point = {id(point): name for point, name in zip(points, names, strict=True)}
    many = len(points) > 1
    bodies = []
    for group in groups(points):
        lines = [
            _row(name, point.baseline is None and many, rows[name], grid)
            for point in group
            if (name := by_point[id(point)]) in rows
        ]
        bodies.append(f"<tbody>\n{''.join(lines)}</tbody>\n")
    first = varied_title(points) if many else ""
    head = [metric.column for metric in grid.metrics]
    return _table(first, head, "".join(bodies))


def _table(first: str, columns: Iterable[str], bodies: str) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in (first, *columns))
    return (
        '<div class="scroll"><table class="figures">\n'
        f"<thead><tr>{head}</tr></thead>\n{bodies}</table></div>\n"
    )


def _row(name: str, baseline: bool, cells: Iterable[Cell], grid: Grid) -> str:
    tag = "<small>baseline</small>" if baseline else ""
    columns = "".join(
        f'<td data-title="{escape(metric.column)}"{kind}>{_cell(cell)}</td>'
        for metric, cell in zip(grid.metrics, cells, strict=True)
        for kind in [_class("best" * cell.best, _side(cell.better))]
    )
    return f'<tr><th scope="row">{_breakable(name)}{tag}</th>{columns}</tr>\n'


def _breakable(name: str) -> str:
    """A name that may go on in the next line behind a sign of equality or an underscore."""
    return re.sub(r"(?<=[=_])", "<wbr>", escape(name))


def _cell(cell: Cell) -> str:
    best = '<span class="hidden"> (best)</span>' * cell.best
    interval = f"<small>{_interval(cell)}</small>" if cell.low else ""
    return f"{_number(cell.text)}{best}{interval}"


def _interval(cell: Cell) -> str:
    """Its bounds, those of a change without the sign of percent that the change has."""
    low, high = (_number(text.removesuffix("%")) for text in (cell.low, cell.high))
    return f"{low} to {high}" if cell.text.endswith("%") else f"{low}\N{EN DASH}{high}"


def _number(text: str) -> str:
    """A number with commas from four digits on, and a real minus sign."""
    grouped = _LONG.sub(lambda match: f"{int(match[0]):,}", text.partition(".")[0])
    whole = f"{grouped}{text[len(text.partition('.')[0]) :]}"
    return escape(f"\N{MINUS SIGN}{whole[1:]}" if len(whole) > 1 and whole.startswith("-") else whole)


def _section(title: str, about: str, body: str) -> str:
    said = f'<p class="dim">{escape(about)}</p>\n' if about else ""
    return f"<section><h2>{escape(title)}</h2>\n{said}{body}</section>\n"


# --------------------------------------------------------------------------------------- plots


def _plots(images: Sequence[Image], points: int) -> str:
    if not images:
        return ""
    pictures = "".join(
        f'<picture id="{escape(image.name)}">'
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data(image.dark)}">'
        f'<img alt="{escape(image.title)}" src="{_data(image.light)}"></picture>\n'
        for image in images
    )
    about = f"The first {PLOTTED_MAX} points." * (points > PLOTTED_MAX)
    return _section("Plots", about, f'<div class="plots">\n{pictures}</div>\n')


def _data(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


# ------------------------------------------------------------------------------------- details

_COLUMNS = (
    "completed", "failed", "unfinished", "requests/s", "tokens/s", "output tokens/s", "hit rate",
    "TTFT P50 ms", "TTFT P90 ms", "TTFT P99 ms", "inter-token P99 ms",
    "E2E P50 ms", "E2E P90 ms", "hold P90 ms",
)  # fmt: skip


def _details(points: Sequence[PointReport]) -> str:
    """The first run of each point by region, tenant and class."""
    shown = list(zip(labels(points), points, strict=True))[:DETAILS_MAX] if points else []
    if not shown:
        return ""
    opened = " open" * (len(shown) == 1)
    blocks = [
        f"<details{opened}><summary>{escape(name)}</summary>\n{_apart(point.runs[0])}</details>\n"
        for name, point in shown
    ]
    more = f" The first {DETAILS_MAX} points." * (len(points) > DETAILS_MAX)
    return _section("Details", f"The first run of each point.{more}", "".join(blocks))


def _apart(result: Result) -> str:
    """By region, tenant and class, as far as requests are told apart by them."""
    tables = [_parts(title, sections, result) for title, sections in result.parts() or [("region", {})]]
    failed = sorted(result.total.failed.items(), key=lambda item: -item[1])
    said = [f"Failed: {', '.join(f'{kind} {count}' for kind, count in failed)}."] if failed else []
    said += [_forwards(result.forwards)] if result.forwards is not None and result.forwards.sent else []
    return "".join(tables) + "".join(f'<p class="dim">{escape(line)}</p>\n' for line in said)


def _parts(title: str, sections: Mapping[str, Section], result: Result) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td data-title="{column}">{_number(text)}</td>'
            for column, text in zip(_COLUMNS, _values(section), strict=True)
        )
        + "</tr>\n"
        for name, section in [*sections.items(), ("all", result.total)]
    )
    return _table(title, _COLUMNS, f"<tbody>{rows}</tbody>")


def _values(section: Section) -> list[str]:
    times = (
        section.ttft_s.p50, section.ttft_s.p90, section.ttft_s.p99, section.inter_token_s.p99,
        section.e2e_s.p50, section.e2e_s.p90, section.hold_s.p90,
    )  # fmt: skip
    return [
        str(section.completed),
        str(section.failures),
        str(section.unfinished),
        f"{section.requests_per_s:.2f}",
        f"{section.throughput_tokens_per_s:.0f}",
        f"{section.output_tokens_per_s:.0f}",
        "-" if section.hit_rate is None else f"{section.hit_rate:.3f}",
        *("-" if value is None else f"{value * 1e3:.0f}" for value in times),
    ]


def _forwards(forwards: Forwards) -> str:
    return (
        f"Forwards between balancers: {forwards.sent} sent, {forwards.refused} refused, "
        f"{forwards.over_room} held or refused on arrival for want of room."
    )


def _scenario(points: Sequence[PointReport]) -> str:
    if not points:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n'
        for name, value in differing(points)
    )
    table = f'<div class="scroll"><table class="list"><tbody>\n{rows}</tbody></table></div>\n'
    return _section("Scenario", "Fields that differ from their defaults, and all of the fleet.", table)


def _notes(report: Report) -> str:
    lines = "".join(f"<p>{escape(line)}</p>\n" for line in notes(report) if line)
    return f"<footer>{lines}</footer>\n"
