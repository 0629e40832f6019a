"""What README says in figures, each computed from a file of ``bench/results``.

A claim is a text with gaps. The figures that fill the gaps come from the results, so that a new run that
changes a figure fails the test until README follows.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from bench import figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"

Figures = tuple[object, ...]
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Claim:
    """One text of README.

    Attributes:
        said: the text, with a gap for each figure.
        source: the file of results, which the section links to.
        figures: what fills the gaps, computed from the file.
    """

    said: str
    source: str
    figures: Callable[[], Figures]

    def text(self) -> str:
        """The text as the results have it."""
        return self.said.format(*self.figures())


# --------------------------------------------------------------------------------- readers


def page(name: str) -> str:
    """A file of results."""
    return (RESULTS / name).read_text()


def data(name: str) -> dict[str, Any]:
    """A file of results in JSON."""
    found: dict[str, Any] = json.loads(page(name))
    return found


def rows(text: str) -> list[dict[str, str]]:
    """The first table of a text: a row is its cells by the heads of their columns."""
    after = dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    lines = takewhile(lambda line: line.startswith("|"), after)
    head, _, *body = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in body]


def first(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a pattern where it is found first."""
    found = re.search(pattern, text)
    assert found is not None, f"{pattern} is not in the results"
    return found.groups()


def number(cell: str) -> float:
    """The number that a cell begins with."""
    return float(first(r"^([\d.]+)", cell)[0])


# --------------------------------------------------------------------------------- figures


def days() -> Figures:
    results = data("paper.json")
    return (
        figure.needed(results, "predictive"),
        f"{figure.BOUND_S:.0f}",
        figure.needed(results, "L-predictive"),
    )


def short_region() -> Figures:
    lines = [line for line in page("paper.md").splitlines() if "where a region is short: 3/2/3" in line]
    (more,) = first(r"worst \+([\d.]+)% \([\w -]+, P50", lines[0])
    return (f"{1 + float(more) / 100:.1f}",)


def peers(heading: str) -> list[dict[str, str]]:
    """The rows of a case of ``make peers`` without SkyLB's."""
    part = page("peers.md").partition(f"## {heading}")[2].partition("\n## ")[0]
    found = rows(part)
    assert found, heading
    return [row for row in found if not row[""].startswith("skylb")]


def _ratios(column: str, *headings: str) -> list[float]:
    return [number(row[f"{column} / SkyLB's (range)"]) for head in headings for row in peers(head)]


ONE, SKEWED, EVEN, REAL = (
    "One region: 4 replicas",
    "Three regions, most users",
    "Three regions, users spread evenly",
    "One region in real time",
)


def waits() -> Figures:
    assert min(_ratios("TTFT P90", ONE, SKEWED, EVEN, REAL)) > 1
    one, three = _ratios("TTFT P90", ONE), _ratios("TTFT P90", SKEWED, EVEN)
    return tuple(f"{value:.1f}" for value in (min(one), max(one), min(three), max(three)))


def even_tokens() -> Figures:
    more = _ratios("tokens/s", EVEN)
    return f"{100 * (min(more) - 1):.0f}", f"{100 * (max(more) - 1):.0f}"


def real_tokens() -> Figures:
    found = {row[""]: number(row["tokens/s / SkyLB's (range)"]) for row in peers(REAL)}
    return tuple(f"{100 * (found[name] - 1):.0f}" for name in ("smg", "haproxy"))


def light_cpu() -> Figures:
    part = page("peers.md").partition(f"## {ONE}")[2]
    ours = number(rows(part)[0]["CPU ms per request"])
    others = [number(row["CPU ms per request"]) for row in peers(ONE)]
    assert ours > max(others)
    return f"{ours:.1f}", f"{min(others):.1f}", f"{max(others):.1f}"


def judged() -> Figures:
    (mean,) = first(r"mean of 22 cases ([\d.]+) \(aim", page("judge.md"))
    return (f"{100 * (float(mean) - 1):.1f}",)


def behind() -> Figures:
    (aim,) = first(r"mean of 22 cases [\d.]+ \(aim ([\d.]+)\)", page("judge.md"))
    cases = rows(page("judge.md").partition("## Summary")[2])
    ratio = {row["case"]: number(row["ratio [by seed]"]) for row in cases}
    worst = min(ratio, key=lambda case: ratio[case])
    assert worst == "mixed_fleet"
    late = sum(value < 1 for value in ratio.values())
    return f"{100 * (float(aim) - 1):.0f}", late, len(ratio), f"{100 * (1 - ratio[worst]):.0f}"


def flood() -> Figures:
    cases = rows(page("fair.md"))
    change = [float(first(r"^([+-][\d.]+)%", row["fair to alone"])[0]) for row in cases]
    failed = sum(int(row["unfair ms"]) == 120_000 for row in cases)
    return f"{1 + min(change) / 100:.1f}", f"{1 + max(change) / 100:.1f}", failed, len(cases)


def _killed() -> dict[str, str]:
    return next(row for row in rows(page("chaos-regions.md")) if row["fault"] == "killed")


def adopted() -> Figures:
    row = _killed()
    assert row["failed, no first byte"] == "0"
    return (f"{float(row['out of choice, s']):.1f}",)


def cut() -> Figures:
    row = _killed()
    return row["cut after it"], f"{int(row['requests']):,}"


def saturation() -> Figures:
    (rate,) = first(r"half of SkyLB's saturation, (\d+)/s", page("bench-overhead.md"))
    unary = data("bench-overhead.json")["unary"]
    rivals = min(unary[name]["median_us"] for name in ("vllm-router", "sglang-router", "smg"))
    assert unary["skylb"]["median_us"] < rivals / 2
    return (f"{int(rate):,}",)


def added() -> Figures:
    (median,) = first(r"half of SkyLB's saturation.*\n +skylb +p50 +([\d.]+) ms", page("bench-overhead.md"))
    return (f"{float(median):.1f}",)


def beside_haproxy() -> Figures:
    results = data("bench-overhead.json")
    return tuple(
        f"{results[kind]['skylb']['median_us'] / results[kind]['haproxy']['median_us']:.1f}"
        for kind in ("unary", "stream")
    )


def more_cores() -> Figures:
    found = re.findall(
        r"^\| (?:request|chunk)s per second \|.*\| ([\d.]+) \(", page("bench-workers.md"), re.M
    )
    requests, chunks = found
    return (f"{float(requests):.1f}", f"{float(chunks):.1f}")


def cost_of_workers() -> Figures:
    return first(r"\| CPU per request, all processes, us \|.*\| ([\d.]+) \(", page("bench-workers.md"))


CLAIMS = (
    Claim(
        "{} replicas keep a P90 TTFT of {} s. Regions that serve only their own users need {}.",
        "paper.md",
        days,
    ),
    Claim(
        "Where one region lacks replicas all the time, the median TTFT over all three is up to {} times as "
        "high as without sharing.",
        "paper.md",
        short_region,
    ),
    Claim(
        "SkyLB's mean P90 TTFT is the lowest in every case. The others take {} to {} times as long "
        "in one region, {} to {} times in three.",
        "peers.md",
        waits,
    ),
    Claim(
        "With users spread evenly over three regions, the others process {} to {} % more tokens per second "
        "than SkyLB.",
        "peers.md",
        even_tokens,
    ),
    Claim(
        "In one short run in real time, smg processes {} % more and HAProxy {} %.",
        "peers.md",
        real_tokens,
    ),
    Claim(
        "For each workload, we compare it with the best of the other rules. Within the same bound on P90 "
        "TTFT it serves {} % more sessions per second, on average.",
        "judge.md",
        judged,
    ),
    Claim(
        "We aimed at {} % more. The default is behind in {} of {} workloads, by {} % on a fleet of two kinds "
        "of engine.",
        "judge.md",
        behind,
    ),
    Claim(
        "Their P90 TTFT is {} to {} times that without the flood. Without fairness between tenants, more "
        "than a tenth of their requests fail in {} of {} cases.",
        "fair.md",
        flood,
    ),
    Claim(
        "A peer serves its replicas after {} s. In the other regions, no request fails before its answer has "
        "begun.",
        "chaos-regions.md",
        adopted,
    ),
    Claim(
        "{} of {} answers end with an error event. They came from the dead region.",
        "chaos-regions.md",
        cut,
    ),
    Claim(
        "One core relays {} requests of 2 kB per second. A request takes less than half the CPU time of "
        "vllm-router, sglang-router or smg.",
        "bench-overhead.md",
        saturation,
    ),
    Claim(
        "At half of that rate, SkyLB adds {} ms to the median TTFT.",
        "bench-overhead.md",
        added,
    ),
    Claim(
        "It takes {} times the CPU time of HAProxy per request, and {} times per streamed chunk.",
        "bench-overhead.md",
        beside_haproxy,
    ),
    Claim(
        "In one region of CODE, at a light load, it takes more CPU time than each of the others: {} ms per "
        "streamed answer. Theirs is {} to {} ms.",
        "peers.md",
        light_cpu,
    ),
    Claim(
        "Two workers relay {} times the requests and {} times the streamed chunks per second.",
        "bench-workers.md",
        more_cores,
    ),
    Claim(
        "A request takes {} times the CPU time. More workers were only calculated.",
        "bench-workers.md",
        cost_of_workers,
    ),
)

FREE = (
    "P90 TTFT is the time within which 90 % of the requests get their first token.",
    "22 simulated workloads",
)
"""Texts with numbers that claim nothing."""

_FIGURE = re.compile(r"\d[\d.,]*(?: ?%| times| ms| us| s\b| of \d| replicas?\b| requests?\b)")
"""A figure: a number with a unit."""


def prose(text: str) -> str:
    """A page in one line, without links' targets, code and fenced blocks."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return " ".join(_CODE.sub("CODE", _LINK.sub(r"\1", text)).split())


def faults(readme: str) -> list[str]:
    """Claims that README does not make as the results have them, and figures that belong to no claim."""
    said = prose(readme)
    found = []
    for claim in CLAIMS:
        text = claim.text()
        if text not in said:
            found.append(f"{claim.source} says: {text}")
        if f"](bench/results/{claim.source})" not in readme:
            found.append(f"no link to bench/results/{claim.source}")
        said = said.replace(text, "")
    for text in FREE:
        said = said.replace(text, "")
    return found + [f"no file of results has this: {match[0]}" for match in _FIGURE.finditer(said)]
