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

WAITED_CORES = 0.2
"""The same for the time that it was ready and did not run, all its threads together."""

STRANGE = {
    "usage_missing": "had no usage: tokens leave them out",
    "prompt_mismatches": "were of other prompts than were sent",
}


@dataclass
class Row:
    """One rival in one case: its runs by seed, or why there are none."""

    entry: Entry
    runs: dict[int, Figures] = field(default_factory=dict)
    reason: str = ""

    def values(self, name: str) -> list[float]:
        """A figure of all runs that have it."""
        return [value for run in self.runs.values() if (value := run.get(name)) is not None]

    def mean(self, name: str) -> float | None:
        """Its mean."""
        values = self.values(name)
        return fmean(values) if values else None

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
        for name, what in STRANGE.items():
            count = sum(run[name] for run in runs)
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
        own = self.entry.case.of(self.entry.rival)
        if own.scale != self.entry.case.scale:
            found.append(f"at a time scale of {own.scale:g}, {own.measured_s:g} s measured")
        return found


def short(error: str) -> str:
    """What went wrong in one line: the first one, and the last that the program wrote; no place of ours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", error).splitlines()]
    lines = [line for line in lines if line]
    told = ": ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))
    for place, name in ((ROOT, "."), (Path.home(), "~")):
        told = told.replace(str(place), name)
    return told[:REASON_CHARS_MAX]


def against(row: Row, base: Row | None, name: str) -> float | None:
    """The mean ratio of a figure to SkyLB's over the repeats that both have."""
    if base is None:
        return None
    ratios = [
        run[name] / other[name]
        for seed, run in row.runs.items()
        if (other := base.runs.get(seed)) is not None and run.get(name) and other.get(name)
    ]
    return fmean(ratios) if ratios else None


def base_of(rows: Sequence[Row]) -> Row | None:
    """SkyLB's row among those of one case."""
    return next((row for row in rows if row.entry.rival.name == SKYLB and row.runs), None)


def number(value: float | None, form: str) -> str:
    """A figure, or a dash."""
    return "-" if value is None else format(value, form)


def spread(row: Row, name: str, form: str) -> str:
    """Mean, and the range over repeats where there are several."""
    values = row.values(name)
    text = number(row.mean(name), form)
    return f"{text} ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else text


COLUMNS = (
    "", "tokens/s", "output tokens/s", "TTFT P50", "P90 (range)", "P99", "E2E P50", "P90", "P99",
    "hit rate", "failed", "CPU ms per request", "tokens/s / SkyLB's", "TTFT P90 / SkyLB's",
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
        spread(row, "ttft_p90_s", ".2f"),
        number(row.mean("ttft_p99_s"), ".2f"),
    ]
    found += [number(row.mean(f"e2e_{quantile}_s"), ".1f") for quantile in ("p50", "p90", "p99")]
    found.append(number(row.mean("hit_rate"), ".3f"))
    found.append(str(sum(run["failed"] for run in row.runs.values())))
    found.append(number(row.mean("cpu_ms_per_request"), ".2f"))
    for name in ("tokens_per_s", "ttft_p90_s"):
        found.append("1" if row is base else number(against(row, base, name), ".2f"))
    return found


def as_json(rows: Mapping[str, Row]) -> dict[str, Any]:
    """All runs, by row and seed."""
    return {key: {"runs": row.runs, "reason": row.reason, "notes": row.notes()} for key, row in rows.items()}
