"""What the others wait against what the fleet does, by headroom."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, PercentFormatter

from bench.fair.report import NOTICED_MAX, THROUGHPUT_MIN, Rows, points


def write(rows: Rows, path: Path) -> None:
    """Writes a PNG: a panel for each workload and number of regions, a line for each load.

    Raises:
        OSError: the file cannot be written.
    """
    places = list(dict.fromkeys((task.regions, task.case.name) for task, _ in rows))
    across = len({name for _, name in places})
    figure = Figure(figsize=(4.0 * across, 3.2 * (len(places) // across)), dpi=110, layout="constrained")
    panels = figure.subplots(len(places) // across, across, squeeze=False).flat
    for (regions, name), axes in zip(places, panels, strict=True):
        axes.set_title(f"{name}, {regions} region{'s' * (regions > 1)}", fontsize="small")
        for task, outcomes in rows:
            if (task.regions, task.case.name) == (regions, name):
                _line(axes, f"others at {task.load:.0%}", points(outcomes))
        axes.axhline(1 + NOTICED_MAX, color="black", linewidth=0.6, linestyle=":")
        axes.axvline(THROUGHPUT_MIN, color="black", linewidth=0.6, linestyle=":")
        axes.set_yscale("log")
        for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatted(LogFormatter(labelOnlyBase=False, minor_thresholds=(2.0, 0.5)))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("tokens/s of the unfair run's", fontsize="small")
        axes.set_ylabel("P90 TTFT of the others, times alone", fontsize="small")
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, format="png", metadata={"Software": None})


def _line(axes: Axes, label: str, found: Mapping[float, tuple[float, float]]) -> None:
    axes.plot(*zip(*found.values(), strict=True), marker="o", markersize=3, label=label)
    for ratio, at in found.items():
        axes.annotate(f"{ratio:g}", at, fontsize="x-small", xytext=(3, 3), textcoords="offset points")
