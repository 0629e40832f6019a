"""The figure of README.md, drawn from ``bench/results/paper.json``: P90 TTFT over the number of replicas.

``python -m bench.figure`` writes ``docs/regions.svg``. It is readable on light and dark pages, and a test
compares it with the results. No library draws it, so that it is the same to the byte everywhere.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "paper.json"
PAGE = ROOT / "docs" / "regions.svg"

CELL = "even users, even"
"""Shifted days: as many users in each region, and as many replicas."""
BOUND_S = 2.0
SERIES = (
    ("L-predictive", "own", "each region serves its own users"),
    ("G-predictive", "central", "one balancer for all regions"),
    ("predictive", "shared", "SkyLB: regions share"),
)
"""From the back to the front: name in the results, class of the style, words of the legend."""

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 92, 52
FIRST_S, LAST_S = 1.0, 200.0
TICKS_S = (1, 2, 5, 10, 20, 50, 100, 200)

STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de; }
  text { fill: #1f2328; font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
  .title { font-size: 15px; font-weight: 600; }
  .small { fill: #59636e; font-size: 12px; }
  .grid { stroke: #e6eaef; }
  .bound { stroke: #59636e; stroke-dasharray: 5 4; }
  path, .key { fill: none; stroke-width: 2.5; }
  .range { stroke-width: 1.5; }
  .shared { stroke: #0969da; } circle.shared { fill: #0969da; }
  .own { stroke: #bc4c00; } circle.own { fill: #bc4c00; }
  .central { stroke: #8c959f; stroke-dasharray: 2 3; } circle.central { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d; }
    text { fill: #e6edf3; } .small { fill: #9198a1; }
    .grid { stroke: #21262d; } .bound { stroke: #9198a1; }
    .shared { stroke: #4493f8; } circle.shared { fill: #4493f8; }
    .own { stroke: #f0883e; } circle.own { fill: #f0883e; }
  }
"""


def points(results: dict[str, Any], name: str) -> list[tuple[int, list[float]]]:
    """Replicas and P90 TTFT in seconds, with its 95 % interval, of one system."""
    days = results["figures"]["day"]
    found = {int(cell.removeprefix(CELL)): row for cell, row in days.items() if cell.startswith(f"{CELL} ")}
    return [(replicas, found[replicas][name]["ttft_p90_s"]) for replicas in sorted(found)]


def needed(results: dict[str, Any], name: str) -> int:
    """The fewest replicas that keep the bound, if all larger numbers tried keep it too."""
    fewest = 0
    for replicas, (mean, *_) in reversed(points(results, name)):
        if mean > BOUND_S:
            break
        fewest = replicas
    return fewest


class Scale:
    """From replicas and seconds to places in the picture; the seconds are logarithmic."""

    def __init__(self, replicas: list[int]) -> None:
        self._first, self._last = replicas[0], replicas[-1]

    def x(self, replicas: int) -> float:
        share = (replicas - self._first) / (self._last - self._first)
        return round(LEFT + 20 + share * (WIDTH - LEFT - RIGHT - 40), 1)

    def y(self, seconds: float) -> float:
        share = math.log(seconds / FIRST_S) / math.log(LAST_S / FIRST_S)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _axes(scale: Scale, replicas: list[int]) -> list[str]:
    end = WIDTH - RIGHT
    lines = []
    for tick in TICKS_S:
        y = scale.y(tick)
        kind = "bound" if tick == BOUND_S else "grid"
        lines.append(f'<line class="{kind}" x1="{LEFT}" y1="{y}" x2="{end}" y2="{y}"/>')
        lines.append(f'<text class="small" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{tick} s</text>')
    foot = HEIGHT - BOTTOM
    lines += [
        f'<text class="small" x="{scale.x(n)}" y="{foot + 18}" text-anchor="middle">{n}</text>'
        for n in replicas
    ]
    middle = (LEFT + end) / 2
    lines.append(
        f'<text x="{middle}" y="{foot + 38}" text-anchor="middle">replicas in three regions together</text>'
    )
    return lines


def _line(scale: Scale, found: list[tuple[int, list[float]]], kind: str) -> list[str]:
    places = " L".join(f"{scale.x(replicas)},{scale.y(row[0])}" for replicas, row in found)
    lines = [f'<path class="{kind}" d="M{places}"/>']
    for replicas, (mean, low, high) in found:
        x = scale.x(replicas)
        lines.append(
            f'<line class="{kind} range" x1="{x}" y1="{scale.y(low)}" x2="{x}" y2="{scale.y(high)}"/>'
        )
        lines.append(f'<circle class="{kind}" cx="{x}" cy="{scale.y(mean)}" r="3.5"/>')
    return lines


def _legend() -> list[str]:
    lines, x = [], LEFT
    for _, kind, said in reversed(SERIES):
        lines.append(f'<line class="{kind} key" x1="{x}" y1="66" x2="{x + 26}" y2="66"/>')
        lines.append(f'<text x="{x + 32}" y="70">{said}</text>')
        x += 52 + round(6.6 * len(said))
    return lines


def picture(results: dict[str, Any]) -> str:
    """The SVG of these results."""
    replicas = [number for number, _ in points(results, "predictive")]
    scale = Scale(replicas)
    ours, others = needed(results, "predictive"), needed(results, "L-predictive")
    title = f"Simulated days in three regions: {ours} replicas keep a P90 of 2 s, instead of {others}"
    about = "Time within which 90 % of requests get their first token. Bars: 95 % intervals over six days."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="28">{title}</text>',
        f'<text class="small" x="{LEFT}" y="48">{about}</text>',
        *_legend(),
        *_axes(scale, replicas),
        *(line for name, kind, _ in SERIES for line in _line(scale, points(results, name), kind)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Writes the figure."""
    argparse.ArgumentParser(prog="python -m bench.figure", description=__doc__).parse_args()
    PAGE.write_text(picture(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
