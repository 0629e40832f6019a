"""Plots of a report: PNG files, and one page that holds them all. The only module that needs matplotlib."""

import io
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from skylb.tools.sim.grid import labels, present
from skylb.tools.sim.page import PLOTTED_MAX, Image, page
from skylb.tools.sim.report import PointReport, Report
from skylb.tools.sim.result import Distribution, Result

SMOOTH_S = 10
"""Rates over time are means over so many seconds."""

HITS_SMOOTH_S = 30
"""As `SMOOTH_S`, for hit rates."""

_WIDTH, _HEIGHT, _LEGEND_ROW = 4.6, 2.9, 0.2
"""Inches; the last is added for each row of the legend."""

_LEGEND_CHARS = 60
"""Characters of labels that a row of the legend has room for."""

_DPI = 200


class Theme(msgspec.Struct, frozen=True):
    """Colours of a plot; those of the points differ for colour-blind readers too."""

    ground: str
    ink: str
    lines: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#24292f", ("#0072b2", "#d55e00", "#009e73", "#b5539c", "#9a6f00", "#3f9bd8", "#555555")
)
DARK = Theme(
    "#151b23", "#c9d3de", ("#58a6ff", "#ff9f5a", "#3ad6a0", "#f08fd0", "#e3c04b", "#8fd3ff", "#aaaaaa")
)
_DASHES = ("-", "--", ":")
"""Once all colours are used, they come again with the next of these."""

_HATCHES = ("", "///", "...")
"""The same for bars, in the order of `_DASHES`."""


def write(report: Report, directory: Path) -> list[Path]:
    """Writes all plots and ``index.html``; the paths. Nothing where no run has begun.

    Raises:
        OSError: a file cannot be written.
    """
    points = present(report.points)[:PLOTTED_MAX]
    if not points:
        return []
    directory.mkdir(parents=True, exist_ok=True)
    images = []
    for name, title, draw in (*(BARS if len(points) > 1 else ()), *PLOTS):
        image = Image(name, title, _png(draw, points, title, LIGHT), _png(draw, points, title, DARK))
        (directory / f"{name}.png").write_bytes(image.light)
        images.append(image)
    index = directory / "index.html"
    index.write_text(page(report, images), encoding="utf-8")
    return [*(directory / f"{image.name}.png" for image in images), index]


class Lines:
    """The axes of one plot, and a line for each point.

    Args:
        axes: of the plot.
        points: what to draw.
        theme: the colours.
    """

    def __init__(self, axes: Axes, points: Sequence[PointReport], theme: Theme) -> None:
        self.axes = axes
        self.points = points
        self.labels = labels(points)
        self.colors = [theme.lines[place % len(theme.lines)] for place in range(len(points))]
        self.dashes = [_DASHES[place // len(theme.lines) % len(_DASHES)] for place in range(len(points))]

    def over_time(self, values: Callable[[Result], Sequence[float]], title: str) -> None:
        """Draws a value per second of each point's first run."""
        for point, label, color, dash in self._each():
            self.axes.plot(values(point.runs[0]), label=label, color=color, linestyle=dash, linewidth=1.2)
        seed = self.points[0].runs[0].seed
        several = any(len(point.runs) > 1 for point in self.points)
        self.axes.set_xlabel(f"virtual time (s){f', seed {seed}' * several}")
        self.axes.set_ylabel(title)
        self.axes.set_ylim(bottom=0)
        self.axes.set_xlim(left=0)

    def cumulative(self, values: Callable[[Result], Distribution], title: str) -> None:
        """Draws the distribution over all runs of each point."""
        for point, label, color, dash in self._each():
            bounds, shares = _shares([values(result) for result in point.runs])
            self.axes.step(bounds, shares, where="post", label=label, color=color, linestyle=dash)
        self.axes.set_xscale("log")
        self.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        self.axes.set_xlabel(title)
        self.axes.set_ylabel("answered requests")
        self.axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        self.axes.set_ylim(0, 1.02)

    def bars(self, metric: str, title: str) -> None:
        """Draws a figure of each point with its interval."""
        self.axes.set_yticks([])
        ground = self.axes.get_facecolor()
        for place, (point, label, color, dash) in enumerate(self._each()):
            value = point.summary.get(metric)
            if value is None:
                continue
            ends = [[(value.mean - value.low)], [(value.high - value.mean)]]
            hatch = _HATCHES[_DASHES.index(dash)]
            self.axes.barh(
                [place], [value.mean], color=color, label=label, height=0.7, hatch=hatch, edgecolor=ground
            )
            if value.wide:
                ink = self.axes.xaxis.label.get_color()
                self.axes.errorbar([value.mean], [place], xerr=ends, color=ink, capsize=3)
        self.axes.invert_yaxis()
        self.axes.set_xlabel(title)
        self.axes.set_xlim(left=0)

    def _each(self) -> Sequence[tuple[PointReport, str, str, str]]:
        return list(zip(self.points, self.labels, self.colors, self.dashes, strict=True))


Draw = Callable[[Lines], None]


def _png(draw: Draw, points: Sequence[PointReport], title: str, theme: Theme) -> bytes:
    longest = max(map(len, labels(points))) + 6
    columns = max(1, min(len(points), _LEGEND_CHARS // longest))
    rows = -(-len(points) // columns)
    figure = Figure(
        (_WIDTH, _HEIGHT + rows * _LEGEND_ROW), _DPI, facecolor=theme.ground, layout="constrained"
    )
    axes = figure.subplots()
    axes.set_facecolor(theme.ground)
    axes.set_axisbelow(True)
    axes.grid(visible=True, alpha=0.25)
    axes.tick_params(colors=theme.ink, labelsize="small")
    for spine in axes.spines.values():
        spine.set_color(theme.ink)
        spine.set_alpha(0.4)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
        label.set_fontsize("small")
    draw(Lines(axes, points, theme))
    figure.suptitle(title, color=theme.ink, fontsize="medium")
    figure.legend(
        loc="outside lower center", ncols=columns, fontsize="small", frameon=False, labelcolor=theme.ink
    )
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _shares(distributions: Sequence[Distribution]) -> tuple[list[float], list[float]]:
    """Upper bounds, and the share of all values below each."""
    counts: dict[float, int] = {}
    for distribution in distributions:
        for bound_s, count in distribution.histogram:
            counts[bound_s] = counts.get(bound_s, 0) + count
    bounds = sorted(counts)
    total = sum(counts.values())
    return bounds, [seen / total for seen in accumulate(counts[bound] for bound in bounds)]


def _smooth(values: Sequence[int], over_s: int = SMOOTH_S) -> list[float]:
    """Means over the last ``over_s`` seconds."""
    sums = [0, *accumulate(values)]
    return [(sums[at] - sums[max(0, at - over_s)]) / (at - max(0, at - over_s)) for at in range(1, len(sums))]


def _throughput(result: Result) -> list[float]:
    series = result.series
    return _smooth([i + 2 * o for i, o in zip(series.input_tokens, series.output_tokens, strict=True)])


def _hits(result: Result) -> list[float]:
    cached = _smooth(result.series.cached_tokens, HITS_SMOOTH_S)
    asked = _smooth(result.series.input_tokens, HITS_SMOOTH_S)
    return [c / a if a else 0.0 for c, a in zip(cached, asked, strict=True)]


Plots = tuple[tuple[str, str, Draw], ...]
"""File name, title and drawing of each."""

BARS: Plots = (
    ("ttft_p90", "P90 time to first token", lambda lines: lines.bars("ttft_p90_s", "seconds")),
    ("tokens", "Throughput, mean", lambda lines: lines.bars("tokens_per_s", "tokens/s (input + 2 x output)")),
)
"""Those that compare points."""

PLOTS: Plots = (
    ("ttft", "Time to first token", lambda lines: lines.cumulative(lambda r: r.total.ttft_s, "seconds")),
    ("e2e", "End-to-end time", lambda lines: lines.cumulative(lambda r: r.total.e2e_s, "seconds")),
    (
        "throughput",
        "Throughput (input + 2 x output tokens)",
        lambda lines: lines.over_time(_throughput, f"tokens/s, mean of {SMOOTH_S} s"),
    ),
    (
        "hit_rate",
        "Prefix cache hit rate",
        lambda lines: lines.over_time(_hits, f"hit rate, mean of {HITS_SMOOTH_S} s"),
    ),
    (
        "in_flight",
        "Requests in flight",
        lambda lines: lines.over_time(lambda r: r.series.in_flight, "requests"),
    ),
    ("held", "Requests held by SkyLB", lambda lines: lines.over_time(lambda r: r.series.held, "requests")),
    (
        "waiting",
        "Requests waiting in replicas",
        lambda lines: lines.over_time(lambda r: r.series.waiting, "requests"),
    ),
)
"""Those that show one point too."""
