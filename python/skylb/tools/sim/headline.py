"""What a report says first: the best point of each group, beside its baseline."""

from collections.abc import Sequence

import msgspec

from skylb.tools.sim.grid import Cell, best_of, change_of, full_labels, groups, labels
from skylb.tools.sim.report import PointReport
from skylb.tools.sim.summary import METRICS, Interval, Metric

_BY_NAME = {metric.name: metric for metric in METRICS}
FIRST = _BY_NAME["ttft_p90_s"]
"""The figure that decides which point is best."""

FAILED = "failed"

OTHERS = ("ttft_p50_s", "tokens_per_s", "hit_rate", "inter_token_p99_s", FAILED)
"""Figures beside it."""


class Figure(msgspec.Struct, frozen=True):
    """One figure of the best point.

    Attributes:
        title: its name.
        value: with its unit.
        change: against the baseline; empty where there is none.
        better: as in a table's cell.
    """

    title: str
    value: str
    change: str = ""
    better: bool | None = None


class Headline(msgspec.Struct, frozen=True):
    """One group of points in a sentence, and a few figures of the best of them.

    Attributes:
        group: what the group's points have in common; empty where there is one group.
        text: the sentence.
        figures: of the best point.
    """

    group: str
    text: str
    figures: list[Figure]


def headlines(points: Sequence[PointReport]) -> list[Headline]:
    """A headline per group; of points that have run."""
    found = groups(points)
    common = full_labels([group[0] for group in found]) if len(found) > 1 else [""]
    return [_headline(name, group) for name, group in zip(common, found, strict=True)]


def _headline(name: str, group: Sequence[PointReport]) -> Headline:
    base, best = group[0], _best(group)
    if best is None:
        return Headline(name, "no request was answered", [])
    called = dict(zip(map(id, group), labels(group), strict=True))
    text = f"{called[id(best)]}: P90 TTFT {amount(FIRST, best.summary[FIRST.name])}"
    if best is not base:
        text += f", {_beside(best, base, called[id(base)])}{_failed(best, base)}"
    elif len(group) > 1:
        text += _first_of(group, called)
    figures = [_figure(_BY_NAME[metric], best, base) for metric in OTHERS if metric in best.summary]
    return Headline(name, text, figures)


def _best(group: Sequence[PointReport]) -> PointReport | None:
    measured = [point for point in group if FIRST.name in point.summary]
    return next(iter(best_of(measured, FIRST) or measured), None)


def amount(metric: Metric, value: Interval) -> str:
    """A mean with its unit."""
    if metric.unit != "ms":
        return f"{float(metric.shown(value.mean)):,.{metric.digits}f} {metric.unit}".rstrip()
    return f"{value.mean:.2f} s" if value.mean >= 1 else f"{value.mean * 1e3:.0f} ms"


def _beside(best: PointReport, base: PointReport, name: str) -> str:
    """By how much the best point is better than the baseline, if it is beyond doubt."""
    change = best.against_baseline.get(FIRST.name)
    if change is None:
        return f"{name} has none"
    if not change.clear:
        return f"no clear difference from {name} ({amount(FIRST, base.summary[FIRST.name])})"
    share = f"{abs(change.mean):.0%}".replace("%", " %")
    side = "below" if change.mean < 0 else "above"
    if not change.wide:
        return f"{share} {side} {name}"
    least, most = sorted((abs(change.low), abs(change.high)))
    return f"{share} {side} {name} (95 % interval: {least * 100:.0f} to {most * 100:.0f} %)"


def _failed(best: PointReport, other: PointReport) -> str:
    """How many requests failed, where that differs: a point that refuses requests answers the others soon."""
    ours, theirs = (_BY_NAME[FAILED].shown(point.summary[FAILED].mean) for point in (best, other))
    return f"; {ours} failed against {theirs}" if ours != theirs else ""


def _first_of(group: Sequence[PointReport], called: dict[int, str]) -> str:
    """That the baseline is best, and what comes next."""
    others = [point for point in group[1:] if FIRST.name in point.summary]
    if not others:
        return ", the baseline"
    following = min(others, key=lambda point: point.summary[FIRST.name].mean)
    change = following.against_baseline.get(FIRST.name)
    if change is None or not change.clear:
        text = f"the baseline; no clear difference from {called[id(following)]}"
    else:
        share = f"{change.mean:.0%}".replace("%", " %")
        text = f"the baseline and the lowest; next is {called[id(following)]}, {share} above"
    return f", {text}{_failed(group[0], following)}"


def _figure(metric: Metric, best: PointReport, base: PointReport) -> Figure:
    value = amount(metric, best.summary[metric.name])
    cell = change_of(metric, best, base) if best is not base else Cell("")
    if metric.name == FAILED and best is not base and metric.name in base.summary:
        return Figure(metric.title, value, f"baseline: {amount(metric, base.summary[metric.name])}")
    return Figure(metric.column if not metric.unit else metric.title, value, cell.text, cell.better)
