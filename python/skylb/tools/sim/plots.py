"""Plots of a report: PNG files, and one page that holds them all. The only module that needs matplotlib."""

import io
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from skylb.tools.sim.page import page
from skylb.tools.sim.report import PointReport, Report
from skylb.tools.sim.result import Distribution

POINTS_MAX = 12
"""Points drawn; of a longer sweep the first ones."""

SMOOTH_S = 10
"""Rates over time are means over so many seconds."""

_SIZE = (9.0, 4.2)
_DPI = 110


def write(report: Report, directory: Path) -> list[Path]:
    """Writes all plots and ``index.html``; the paths. Nothing where no run has begun.

    Raises:
        OSError: a file cannot be written.
    """
    points = [point for point in report.points if point.runs][:POINTS_MAX]
    if not points:
        return []
    directory.mkdir(parents=True, exist_ok=True)
    images: list[tuple[str, str, bytes]] = []
    for name, title, draw in PLOTS:
        image = _png(draw, points, title)
        (directory / f"{name}.png").write_bytes(image)
        images.append((name, title, image))
    index = directory / "index.html"
    index.write_text(page(report, images), encoding="utf-8")
    return [*(directory / f"{name}.png" for name, _, _ in images), index]


Draw = Callable[[Figure, Sequence[PointReport]], None]


def _png(draw: Draw, points: Sequence[PointReport], title: str) -> bytes:
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    draw(figure, points)
    figure.suptitle(title)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _label(point: PointReport) -> str:
    return point.name or point.runs[0].policy


# ------------------------------------------------------------------------------ distributions


def _latencies(figure: Figure, points: Sequence[PointReport]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for point in points:
        _cumulative(left, point, [result.total.ttft_s for result in point.runs])
        _cumulative(right, point, [result.total.e2e_s for result in point.runs])
    for axes, name in ((left, "time to first token (s)"), (right, "end to end (s)")):
        axes.set_xscale("log")
        axes.set_xlabel(name)
        axes.grid(visible=True, alpha=0.3)
    left.set_ylabel("share of answered requests")
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.legend(fontsize="small")


def _cumulative(axes: Axes, point: PointReport, distributions: Sequence[Distribution]) -> None:
    """The distribution over all runs of a point."""
    counts: dict[float, int] = {}
    for distribution in distributions:
        for bound_s, count in distribution.histogram:
            counts[bound_s] = counts.get(bound_s, 0) + count
    bounds = sorted(counts)
    total = sum(counts.values())
    shares = [seen / total for seen in accumulate(counts[bound] for bound in bounds)]
    axes.step(bounds, shares, where="post", label=_label(point))


# --------------------------------------------------------------------------------- over time


def _over_time(figure: Figure, points: Sequence[PointReport]) -> None:
    above, below = figure.subplots(2, 1, sharex=True)
    for point in points:
        series = point.runs[0].series
        weighed = [i + 2 * o for i, o in zip(series.input_tokens, series.output_tokens, strict=True)]
        above.plot(_smooth(weighed), label=_label(point))
        below.plot(series.in_flight)
    above.set_ylabel("tokens/s\n(input + 2 x output)")
    below.set_ylabel("in flight")
    _time_axis(below, points)
    above.legend(fontsize="small")
    above.grid(visible=True, alpha=0.3)
    below.grid(visible=True, alpha=0.3)


def _hit_rates(figure: Figure, points: Sequence[PointReport]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for point in points:
        series = point.runs[0].series
        cached, asked = _smooth(series.cached_tokens, 30), _smooth(series.input_tokens, 30)
        left.plot([c / a if a else 0.0 for c, a in zip(cached, asked, strict=True)], label=_label(point))
    _time_axis(left, points)
    left.set_ylabel("hit rate (30 s)")
    left.legend(fontsize="small")
    left.grid(visible=True, alpha=0.3)
    rated = [point for point in points if "hit_rate" in point.summary]
    places = range(len(rated))
    means = [point.summary["hit_rate"].mean for point in rated]
    below = [point.summary["hit_rate"].mean - point.summary["hit_rate"].low for point in rated]
    above = [point.summary["hit_rate"].high - point.summary["hit_rate"].mean for point in rated]
    right.barh(places, means, xerr=(below, above), color=[f"C{place}" for place in places])
    right.set_yticks(list(places), [_label(point) for point in rated], fontsize="small")
    right.invert_yaxis()
    right.set_xlabel("hit rate, measured time")


def _hold(figure: Figure, points: Sequence[PointReport]) -> None:
    above, below = figure.subplots(2, 1, sharex=True)
    for point in points:
        series = point.runs[0].series
        above.plot(series.held, label=_label(point))
        below.plot(series.waiting)
    above.set_ylabel("held by the balancer")
    below.set_ylabel("waiting in replicas")
    _time_axis(below, points)
    above.legend(fontsize="small")
    above.grid(visible=True, alpha=0.3)
    below.grid(visible=True, alpha=0.3)


def _time_axis(axes: Axes, points: Sequence[PointReport]) -> None:
    seed = points[0].runs[0].seed
    several = any(len(point.runs) > 1 for point in points)
    axes.set_xlabel(f"virtual time (s){f', seed {seed}' * several}")


def _smooth(values: Sequence[int], over_s: int = SMOOTH_S) -> list[float]:
    """Means over the last ``over_s`` seconds."""
    sums = [0, *accumulate(values)]
    return [(sums[at] - sums[max(0, at - over_s)]) / (at - max(0, at - over_s)) for at in range(1, len(sums))]


PLOTS: tuple[tuple[str, str, Draw], ...] = (
    ("latency", "Time to first token and end to end", _latencies),
    ("throughput", "Throughput and requests in flight", _over_time),
    ("hit_rate", "Prefix cache hit rate", _hit_rates),
    ("hold", "Requests held and waiting", _hold),
)
"""File name, title and drawing of each."""
