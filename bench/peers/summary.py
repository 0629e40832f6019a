"""From single runs to rows: means over repeats, and each rival against SkyLB in the same repeat."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.peers.cases import LAYOUTS, Entry
from bench.peers.rivals import SKYLB
from bench.peers.run import Figures
from bench.record import ROOT

REASON_CHARS_MAX = 250
BOUND_CORES = 0.8
"""Share of its core from which a proxy itself may be what limits a run."""

REST_SHARE = 0.9
"""Share of the other cores from which replicas, links and load generator may limit a run."""

WAITED_CORES = 0.2
"""The same for the time that it was ready and did not run, all its threads together."""

STRANGE = {
    "usage_missing": "had no usage: tokens leave them out",
    "prompt_mismatches": "were of other prompts than were sent",
}


@dataclass
class Row:
    """One rival in one case: its runs by seed, or why there are none; in how many the rival itself failed."""

    entry: Entry
    runs: dict[int, Figures] = field(default_factory=dict)
    reason: str = ""
    failed: int = 0

    def values(self, name: str) -> list[float]:
        """A figure of all runs; none if a run has none: the others alone would look better than all."""
        values = [run.get(name) for run in self.runs.values()]
        found = [value for value in values if value is not None]
        return found if len(found) == len(values) else []

    def mean(self, name: str) -> float | None:
        """Its mean."""
        values = self.values(name)
        return fmean(values) if values else None

    def count(self, name: str) -> int:
        """The sum of a count over all runs."""
        return sum(run[name] for run in self.runs.values())

    def label(self) -> str:
        """The rival, and how it stands before three regions."""
        layout = self.entry.layout
        return self.entry.rival.name + ("" if layout == "one" else f", {LAYOUTS[layout]}")

    def notes(self) -> list[str]:
        """What a reader must know of its figures."""
        found = []
        runs = list(self.runs.values())
        cores = self.mean("cpu_cores") or 0.0
        if cores > BOUND_CORES:
            found.append(f"the proxy takes {cores:.2f} of its core: its own CPU time may limit it")
        waited = self.mean("waited_cores") or 0.0
        if waited > WAITED_CORES:
            found.append(f"the proxy waited for its core for {waited:.0%} of the time")
        found += self._of_others()
        for name, what in STRANGE.items():
            count = self.count(name)
            if count:
                found.append(f"{count} answers {what}")
        late = sum(bool(run["late"]) for run in runs)
        if late:
            found.append(f"the load generator was late in {late} of {len(runs)} runs")
        if any(run["ended_by"] != "duration" for run in runs):
            found.append("the requests did not suffice")
        if not runs:
            return [self.reason or "there was no time left for it"]
        if self.reason:
            found.append(f"a run failed: {self.reason}")
        return found

    def _of_others(self) -> list[str]:
        """What replicas, links, load generator and lacking answers mean for its figures."""
        found = []
        runs = list(self.runs.values())
        full = sum((run["rest_share"] or 0.0) > REST_SHARE for run in runs)
        if full:
            found.append(
                f"replicas, links and load generator took more than {REST_SHARE:.0%} of their cores "
                f"in {full} of {len(runs)} runs: they may limit it"
            )
        begun = self.count("begun_measured")
        lacking = begun - self.count("answered_measured")
        if lacking:
            found.append(
                f"{lacking} of {begun} measured requests have no complete answer: "
                "percentiles take them as later than any"
            )
        return found


def short(error: str) -> str:
    """What went wrong in one line: the first one, and the last that the program wrote; no place of ours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", error).splitlines()]
    lines = [line for line in lines if line]
    told = ": ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))
    for place, name in ((ROOT, "."), (Path.home(), "~")):
        told = told.replace(str(place), name)
    return told[:REASON_CHARS_MAX]


RATIOS = {"tokens_per_s": "tokens/s", "ttft_p90_s": "TTFT P90"}


def against(row: Row, base: Row | None, name: str) -> list[float]:
    """The ratios of a figure to SkyLB's in each repeat of both; none if one of these lacks the figure."""
    if base is None or row.failed or base.failed:
        return []
    pairs = [(row.runs[seed].get(name), base.runs[seed].get(name)) for seed in row.runs if seed in base.runs]
    ratios = [one / other for one, other in pairs if one and other]
    return ratios if len(ratios) == len(pairs) else []


def comparison_notes(row: Row, base: Row | None, repeats: int) -> list[str]:
    """What a reader must know of a row beside others: fewer runs, and ratios that cannot be had."""
    found = row.notes()
    if 0 < len(row.runs) < repeats:
        found.append(f"{len(row.runs)} of {repeats} runs")
    if base is not None and row.runs:
        found += [
            f"no ratio of {title}: a run of it or of {SKYLB} has no such figure, or no repeat has both"
            for name, title in RATIOS.items()
            if not against(row, base, name)
        ]
    return found


def base_of(rows: Sequence[Row]) -> Row | None:
    """SkyLB's row among those of one case."""
    return next((row for row in rows if row.entry.rival.name == SKYLB and row.runs), None)


LACKING = "none"
"""Stands where a run has no such figure, such as a percentile that falls on a request without an answer."""


def number(value: float | None, form: str) -> str:
    """A figure."""
    return LACKING if value is None else format(value, form)


def spread(values: Sequence[float], form: str) -> str:
    """Mean, and the range over repeats where there are several."""
    if not values:
        return LACKING
    text = format(fmean(values), form)
    return f"{text} ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else text


COLUMNS = (
    "", "tokens/s", "output tokens/s", "TTFT P50", "P90 (range)", "E2E P50", "P90", "hit rate",
    "failed / begun", "unfinished", "CPU ms per request", "tokens/s / SkyLB's (range)",
    "TTFT P90 / SkyLB's (range)",
)  # fmt: skip


def cells(row: Row, base: Row | None) -> list[str]:
    """One line of a table."""
    if not row.runs:
        return [row.label(), *["-"] * (len(COLUMNS) - 1)]
    found = [
        row.label(),
        number(row.mean("tokens_per_s"), ".0f"),
        number(row.mean("output_tokens_per_s"), ".0f"),
        number(row.mean("ttft_p50_s"), ".2f"),
        spread(row.values("ttft_p90_s"), ".2f"),
        number(row.mean("e2e_p50_s"), ".1f"),
        number(row.mean("e2e_p90_s"), ".1f"),
        number(row.mean("hit_rate"), ".3f"),
        f"{row.count('failed')} / {row.count('begun')}",
        str(row.count("unfinished")),
        number(row.mean("cpu_ms_per_request"), ".2f"),
    ]
    return found + ["1" if row is base else spread(against(row, base, name), ".2f") for name in RATIOS]


def as_json(rows: Mapping[str, Row]) -> dict[str, Any]:
    """All runs, by row and seed."""
    return {key: {"runs": row.runs, "reason": row.reason, "notes": row.notes()} for key, row in rows.items()}
