"""One HTML page of a report: its table and its plots, in a file that needs no other."""

import base64
from collections.abc import Sequence
from html import escape

from skylb.tools.sim.report import Grid, Report, changes, figures, notes, render

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;"
    "color:#222;background:#fff}"
    "pre{white-space:pre-wrap;background:#f6f6f6;padding:1rem;font-size:13px}"
    "table{border-collapse:collapse;margin:1rem 0;font-size:13px}"
    "th,td{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:right;vertical-align:top}"
    "th:first-child{text-align:left}"
    "caption{text-align:left;font-weight:600;padding:.5rem 0}"
    "img{max-width:100%;height:auto;margin:1rem 0}"
)


def page(report: Report, images: Sequence[tuple[str, str, bytes]]) -> str:
    """The page.

    Args:
        report: what to show.
        images: name, title and PNG of each plot.
    """
    title = escape(f"skylb sim {report.scenario_file}")
    plots = "".join(
        f'<img id="{escape(name)}" alt="{escape(about)}" '
        f'src="data:image/png;base64,{base64.b64encode(image).decode()}">\n'
        for name, about, image in images
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n{_text(report)}{plots}</body>\n</html>\n"
    )


def _text(report: Report) -> str:
    """Tables of a sweep; of one point what the command prints."""
    points = [point for point in report.points if point.runs]
    if len(report.points) == 1 or not points:
        return f"<pre>{escape(render(report))}</pre>\n"
    seeds = max(len(point.runs) for point in points)
    several = f"{seeds} seeds, means with 95 % intervals" if seeds > 1 else "one seed"
    tables = [_table(f"{several} per point", figures(points))]
    if any(point.against_first for point in points):
        tables.append(_table(f"Against {points[0].name}{', seed by seed' * (seeds > 1)}", changes(points)))
    return f"{''.join(tables)}<pre>{escape(chr(10).join(notes(report)).strip())}</pre>\n"


def _table(caption: str, grid: Grid) -> str:
    """A row per figure and a column per point: a sweep has fewer points than figures, and fits so."""
    columns, rows = grid
    lines = []
    for title, *cells in zip(columns, *rows, strict=True):
        kind = "td" if title else "th"
        row = "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells)
        lines.append(f"<tr><th>{escape(title)}</th>{row}</tr>\n")
    return f"<table><caption>{escape(caption)}</caption>\n{''.join(lines)}</table>\n"
