"""Plots of the judge: sessions per second against the best rival, and P90 over load."""

import math
from pathlib import Path

from matplotlib.figure import Figure

from bench.judge.judgment import INTER_TOKEN, TTFT, Judgment
from bench.judge.variants import DEFAULT

_DPI = 110


def write(judgment: Judgment, directory: Path, name: str = "judge") -> list[Path]:
    """Writes NAME.png, and NAME_loads.png where there are several loads; the paths.

    Raises:
        OSError: a file cannot be written.
    """
    found = []
    for file, figure in ((name, _ratios(judgment)), (f"{name}_loads", _loads(judgment))):
        if figure is not None:
            path = directory / f"{file}.png"
            figure.savefig(path, format="png", metadata={"Software": None})
            found.append(path)
    return found


def _ratios(judgment: Judgment) -> Figure | None:
    verdicts = [verdict for verdict in judgment.verdicts.values() if verdict.ratio()]
    if not verdicts:
        return None
    figure = Figure(figsize=(9.0, 1.2 + 0.32 * len(verdicts)), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    places = range(len(verdicts))
    for bound, shift, title in ((TTFT, -0.2, "P90 TTFT"), (INTER_TOKEN, 0.2, "P99 inter-token time")):
        gains = [(verdict.ratio(bound) or math.nan) * 100 - 100 for verdict in verdicts]
        axes.barh(
            [place + shift for place in places], gains, height=0.38, label=f"within the bound of {title}"
        )
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(list(places), [f"{v.case.name} ({v.best_rival()})" for v in verdicts], fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel(f"sessions/s of {DEFAULT} against the best rival of the case, %")
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _loads(judgment: Judgment) -> Figure | None:
    """A panel per case: P90 of those that ran at all loads."""
    verdicts = [verdict for verdict in judgment.verdicts.values() if len(verdict.loads()) > 1]
    if not verdicts:
        return None
    columns = 4
    height = -(-len(verdicts) // columns)
    figure = Figure(figsize=(13.0, 2.6 * height), dpi=_DPI, layout="constrained")
    panels = list(figure.subplots(height, columns, squeeze=False).flat)
    for axes, verdict in zip(panels, verdicts, strict=False):
        loads = verdict.loads()
        shares = [float(load[:-1]) for load in loads]
        for name in verdict.rows[loads[-1]]:
            times = [verdict.mean(load, name, "ttft_p90_s") for load in loads]
            axes.plot(
                shares, times, marker="o", markersize=3, linewidth=2.2 if name == DEFAULT else 1, label=name
            )
        axes.axhline(verdict.case.ttft_bound_s, color="grey", linestyle=":", linewidth=1)
        axes.set_yscale("log")
        axes.set_title(verdict.case.name, fontsize="small")
        axes.legend(fontsize=5)
        axes.grid(visible=True, alpha=0.3)
    for axes in panels[len(verdicts) :]:
        axes.set_visible(False)
    figure.supxlabel("load, % of capacity")
    figure.supylabel("P90 TTFT, s; dotted: the bound")
    return figure
