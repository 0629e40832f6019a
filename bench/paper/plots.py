"""One plot per figure of the paper: small PNG files beside the page. Needs matplotlib (the extra sim)."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.paper.cells import BY_USERS, DAY, DAY_EVEN, DAY_SKEWED, EVEN, PUSH, SKEW, TABLE
from bench.paper.curve import DAY_HOURS, UTC_OFFSET_HOURS, demand
from bench.paper.figures import mean, over_seeds, ratio
from bench.paper.replicas import series
from bench.paper.runs import Found, SystemRows
from skylb.tools.sim.summary import Interval

SHOWN = (
    "G-round_robin",
    "G-least_load",
    "G-ring",
    "G-cache_aware",
    "L-predictive",
    "SkyLB-probed",
    "SkyLB-one",
    "predictive",
    "G-predictive",
)
"""Of the main table; the page has all."""

_DPI = 80

Draw = Callable[[Figure, Found], None]


def write(found: Found, directory: Path) -> list[tuple[str, str]]:
    """Writes the plots of what has run; their titles and file names.

    Raises:
        OSError: a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, title, part, size, draw in PLOTS:
        if found.part(part):
            (directory / f"{name}.png").write_bytes(_png(found, title, size, draw))
            written.append((title, f"{name}.png"))
    return written


def _png(found: Found, title: str, size: tuple[float, float], draw: Draw) -> bytes:
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    draw(figure, found)
    figure.suptitle(title)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


# --------------------------------------------------------------------------- main table


def _bars(axes: Axes, cells: Mapping[str, SystemRows], name: str, scale: float, over: str | None) -> None:
    """Groups of bars: a group per workload, a bar per system, with intervals; ``over``: as a ratio."""
    systems = [system for system in SHOWN if any(system in rows for rows in cells.values())]
    width = 0.85 / max(1, len(systems))
    for index, system in enumerate(systems):
        bars = []
        for place, rows in enumerate(cells.values()):
            found = _figure(rows, system, name, over)
            if found is not None:
                bars.append((place + (index + 0.5 - len(systems) / 2) * width, found))
        places = [place for place, _ in bars]
        heights = [found.mean * scale for _, found in bars]
        below = [(found.mean - found.low) * scale for _, found in bars]
        above = [(found.high - found.mean) * scale for _, found in bars]
        color = f"C{SHOWN.index(system)}"
        axes.bar(places, heights, width, yerr=(below, above), label=system, color=color)
    axes.set_xticks(range(len(cells)), [cell.replace(" ", "\n") for cell in cells], fontsize="x-small")


def _figure(rows: SystemRows, system: str, name: str, over: str | None) -> Interval | None:
    """A figure, or its ratio to another system's."""
    if system not in rows:
        return None
    return over_seeds(rows[system], name) if over is None else ratio(rows[system], rows.get(over, []), name)


def _main(
    name: str, title: str, scale: float = 1.0, *, over: str | None = None, logarithmic: bool = False
) -> Draw:
    def draw(figure: Figure, found: Found) -> None:
        axes = figure.subplots()
        _bars(axes, found.part(TABLE), name, scale, over)
        axes.set_ylabel(title)
        if logarithmic:
            axes.set_yscale("log")
        axes.grid(visible=True, axis="y", alpha=0.3)
        figure.legend(fontsize="x-small", ncols=len(SHOWN), loc="outside lower center")

    return draw


# ----------------------------------------------------------------------------- the rest


def _pushing(figure: Figure, found: Found) -> None:
    left, right = figure.subplots(1, 2)
    cells = found.part(PUSH)
    names = list(dict.fromkeys(system for systems in cells.values() for system in systems))
    for index, (cell, systems) in enumerate(cells.items()):
        places = [place + 0.4 * index for place in range(len(names))]
        for axes, name, scale in ((left, "tokens_per_s", 1.0), (right, "ttft_p90_s", 1e3)):
            heights = [mean(systems.get(system, []), name) * scale for system in names]
            axes.barh(places, heights, 0.4, label=cell)
    for axes, title in ((left, "tokens/s (input + 2 x output)"), (right, "P90 TTFT ms")):
        axes.set_xlabel(title)
        axes.invert_yaxis()
    left.set_yticks([place + 0.2 for place in range(len(names))], names, fontsize="small")
    right.set_yticks([])
    right.set_xscale("log")
    right.legend(fontsize="small")


def _over_replicas(part: str, placements: Sequence[tuple[str, str]]) -> Draw:
    def draw(figure: Figure, found: Found) -> None:
        for axes, (placement, title) in zip(figure.subplots(1, 2, sharey=True), placements, strict=True):
            for system, values in series(found.part(part), placement, "ttft_p90_s").items():
                dashes = "--" if system.startswith("L-") else ":" if system.startswith("G-") else "-"
                heights = [value * 1e3 for value in values.values()]
                axes.plot(list(values), heights, dashes, marker="o", markersize=3, label=system)
            axes.set_title(title, fontsize="small")
            axes.set_xlabel("replicas")
            axes.set_yscale("log")
            axes.grid(visible=True, alpha=0.3)
            axes.legend(fontsize="x-small")
            axes.set_ylabel("P90 TTFT ms")

    return draw


def _curve(figure: Figure, _: Found) -> None:
    axes = figure.subplots()
    hours = [step / 4 for step in range(int(DAY_HOURS * 4) + 1)]
    sums = [0.0] * len(hours)
    for region, offset in UTC_OFFSET_HOURS.items():
        values = [demand(hour + offset) for hour in hours]
        axes.plot(hours, values, label=region)
        sums = [total + value for total, value in zip(sums, values, strict=True)]
    axes.plot(hours, sums, "k--", label="all")
    axes.set_xlabel("hour, UTC")
    axes.set_ylabel("demand over a region's peak")
    axes.legend(fontsize="small")
    axes.grid(visible=True, alpha=0.3)


_WIDE, _SMALL = (13.0, 4.2), (9.0, 3.8)

SKEWS = ((EVEN, "replicas evenly"), (BY_USERS, "replicas by users"))
DAYS = ((DAY_EVEN, "sessions and replicas evenly"), (DAY_SKEWED, "sessions 60/20/20, replicas by them"))

PLOTS: tuple[tuple[str, str, str, tuple[float, float], Draw], ...] = (
    (
        "throughput",
        "Throughput (input + 2 x output tokens/s) over that of round robin",
        TABLE,
        _WIDE,
        _main("tokens_per_s", "times round robin", over="G-round_robin"),
    ),
    ("ttft-p50", "Median TTFT", TABLE, _WIDE, _main("ttft_p50_s", "P50 TTFT ms", 1e3, logarithmic=True)),
    ("ttft-p90", "P90 TTFT", TABLE, _WIDE, _main("ttft_p90_s", "P90 TTFT ms", 1e3, logarithmic=True)),
    ("hit-rate", "Prefix cache hit rate", TABLE, _WIDE, _main("hit_rate", "hit rate")),
    ("pushing", "Pushing: Tree of Thoughts, one region, four replicas", PUSH, _SMALL, _pushing),
    ("skew", "120/40/40 users: replicas and P90", SKEW, _SMALL, _over_replicas(SKEW, SKEWS)),
    ("day", "Days: replicas and P90", DAY, _SMALL, _over_replicas(DAY, DAYS)),
    ("curve", "The day's demand", DAY, _SMALL, _curve),
)
"""File name, title, part, size and drawing of each."""
