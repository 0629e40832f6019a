"""``bench/results/peers.png``: time to the first token and throughput, two panels a case, a bar a row."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.peers.cases import LAYOUTS, Case
from bench.peers.rivals import SKYLB
from bench.peers.summary import LACKING, Row

_DPI = 110


def write(cases: Sequence[tuple[Case, Sequence[Row]]], path: Path) -> bool:
    """Writes the picture; whether there is anything to show.

    Raises:
        OSError: it cannot be written.
    """
    shown = [(case, [row for row in rows if row.runs]) for case, rows in cases]
    shown = [(case, rows) for case, rows in shown if rows]
    if not shown:
        return False
    ratios = [0.8 + 0.34 * len(rows) for _, rows in shown]
    figure = Figure(figsize=(10.0, sum(ratios)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(len(shown), 2, squeeze=False, gridspec_kw={"height_ratios": ratios})
    for (left, right), (case, rows) in zip(panels, shown, strict=True):
        _bars(left, rows, "ttft_p90_s", f"{case.title.partition(':')[0]}: P90 TTFT, s")
        _bars(right, rows, "tokens_per_s", "tokens/s")
        right.set_yticklabels([])
    figure.savefig(path, format="png", metadata={"Software": None})
    return True


def _bars(axes: Axes, rows: Sequence[Row], name: str, title: str) -> None:
    """A bar a row: the mean, and a line from the least run to the greatest; a word where a run has none."""
    places = range(len(rows))
    means = [row.mean(name) or 0.0 for row in rows]
    ranges = [row.values(name) or [0.0] for row in rows]
    spread = [
        [mean - min(values) for mean, values in zip(means, ranges, strict=True)],
        [max(values) - mean for mean, values in zip(means, ranges, strict=True)],
    ]
    colours = ["tab:orange" if row.entry.rival.name == SKYLB else "tab:blue" for row in rows]
    axes.barh(list(places), means, xerr=spread, color=colours, height=0.7)
    for place, row in enumerate(rows):
        if row.mean(name) is None:
            axes.text(0.0, place, f" {LACKING}", va="center", fontsize="small")
    axes.set_yticks(list(places), [_label(row) for row in rows], fontsize="small")
    axes.invert_yaxis()
    axes.set_title(title, fontsize="small", loc="left")
    axes.grid(visible=True, axis="x", alpha=0.3)


def _label(row: Row) -> str:
    layout = row.entry.layout
    return row.entry.rival.name + ("" if layout == "one" else f" ({LAYOUTS[layout]})")
