"""Tables of a report: a row per point and a column per figure, the best values marked."""

from collections.abc import Sequence
from typing import Any

import msgspec

from skylb.tools.sim.report import PointReport
from skylb.tools.sim.summary import METRICS, Interval, Metric

NONE = "-"


class Cell(msgspec.Struct, frozen=True):
    """One value as people read it.

    Attributes:
        text: the mean, or a change of it.
        low, high: its 95 % interval; empty where there is one seed.
        best: no point of the group has a better one.
        better: a change is an improvement (or a loss) by all of its interval; ``None``: neither.
    """

    text: str
    low: str = ""
    high: str = ""
    best: bool = False
    better: bool | None = None


class Grid(msgspec.Struct, frozen=True):
    """A table: its columns, and of each point its label and a cell per column."""

    metrics: list[Metric]
    rows: list[tuple[str, list[Cell]]]


def present(points: Sequence[PointReport]) -> list[PointReport]:
    """The points that have run, their baselines numbered anew; one whose baseline has not run has none."""
    kept = [place for place, point in enumerate(points) if point.runs]
    places = {place: new for new, place in enumerate(kept)}
    return [
        msgspec.structs.replace(
            point, baseline=None if point.baseline is None else places.get(point.baseline)
        )
        for point in (points[place] for place in kept)
    ]


def groups(points: Sequence[PointReport]) -> list[list[PointReport]]:
    """Points that are compared with each other, each group's baseline first."""
    found: dict[int, list[PointReport]] = {}
    for place, point in enumerate(points):
        found.setdefault(place if point.baseline is None else point.baseline, []).append(point)
    return [sorted(group, key=lambda point: point.baseline is not None) for group in found.values()]


def labels(points: Sequence[PointReport]) -> list[str]:
    """Short names of points that say how they differ: texts stand alone, other values with their field."""
    fields = _varied(points)
    short = [_label(point, fields) for point in points]
    if not fields:
        return [point.name or point.runs[0].policy for point in points]
    return short if len(set(short)) == len(short) else [point.name for point in points]


def baseline_of(points: Sequence[PointReport]) -> str:
    """What all baselines have in common, and not all points."""
    bases = [point for point in points if point.baseline is None]
    differing = _varied(bases)
    return _label(bases[0], [field for field in _varied(points) if field not in differing])


def _varied(points: Sequence[PointReport]) -> list[str]:
    """The fields in which some points differ."""
    return [name for name in points[0].values if len({repr(point.values[name]) for point in points}) > 1]


def full_labels(points: Sequence[PointReport]) -> list[str]:
    """As `labels`, each value with its field."""
    fields = _varied(points)
    return [" ".join(_full(field, point.values[field]) for field in fields) for point in points]


def varied_title(points: Sequence[PointReport]) -> str:
    """What makes the points differ: a field's last word, or where there are several fields, a word for it."""
    fields = _varied(points)
    return fields[0].rpartition(".")[2] if len(fields) == 1 else "point"


def _label(point: PointReport, fields: Sequence[str]) -> str:
    return " ".join(_said(field, point.values[field]) for field in fields)


def _said(field: str, value: Any) -> str:
    return value if isinstance(value, str) else _full(field, value)


def _full(field: str, value: Any) -> str:
    return f"{field.rpartition('.')[2]}={str(value).lower() if isinstance(value, bool) else value}"


def runs_each(points: Sequence[PointReport]) -> str:
    """How many runs the figures come from."""
    seeds = max(len(point.runs) for point in points)
    return f"means over {seeds} seeds, with 95 % intervals" if seeds > 1 else "one seed"


def figures(points: Sequence[PointReport]) -> Grid:
    """Means of each point, with intervals where it has several seeds; the best of each group marked."""
    metrics = [metric for metric in METRICS if any(metric.name in point.summary for point in points)]
    best = {
        (id(point), metric.name)
        for group in groups(points)
        for metric in metrics
        for point in best_of(group, metric)
    }
    rows = []
    for label, point in zip(labels(points), points, strict=True):
        cells = [
            _value(metric, point.summary.get(metric.name), best=(id(point), metric.name) in best)
            for metric in metrics
        ]
        rows.append((label, cells))
    return Grid(metrics, rows)


def best_of(points: Sequence[PointReport], metric: Metric) -> list[PointReport]:
    """The points with the best shown value; none where all have the same."""
    values = [
        (float(metric.shown(point.summary[metric.name].mean)), point)
        for point in points
        if metric.name in point.summary
    ]
    if not values:
        return []
    shown = [value for value, _ in values]
    best = max(shown) if metric.higher_is_better else min(shown)
    return [point for value, point in values if value == best] if min(shown) < max(shown) else []


def _value(metric: Metric, value: Interval | None, *, best: bool) -> Cell:
    if value is None:
        return Cell(NONE)
    text, low, high = map(metric.shown, (value.mean, value.low, value.high))
    return Cell(text, best=best) if low == high else Cell(text, low, high, best)


def changes(points: Sequence[PointReport]) -> Grid:
    """By what share each figure differs from the baseline's, for all points that have a baseline."""
    shown = [
        (label, point, points[point.baseline])
        for label, point in zip(labels(points), points, strict=True)
        if point.baseline is not None
    ]
    metrics = [
        metric for metric in METRICS if any(metric.name in point.against_baseline for _, point, _ in shown)
    ]
    rows = [(label, [change_of(metric, point, base) for metric in metrics]) for label, point, base in shown]
    return Grid(metrics, rows)


def change_of(metric: Metric, point: PointReport, base: PointReport) -> Cell:
    """By what share one figure of a point differs from the baseline's."""
    value = point.against_baseline.get(metric.name)
    # Of a figure that is shown as 0, no share is worth showing.
    if value is None or not float(metric.shown(base.summary[metric.name].mean)):
        return Cell(NONE)
    better = metric.better(value.mean) if value.clear else None
    if not value.wide:
        return Cell(_share(value.mean), better=better)
    return Cell(_share(value.mean), _share(value.low), _share(value.high), better=better)


def _share(value: float) -> str:
    text = f"{value:+.1%}"
    return text if text.strip("+-0.%") else "0.0%"
