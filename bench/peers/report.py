"""``bench/results/peers.md`` and ``peers.json``: tables, settings and sources, and what is not scaled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers import plot
from bench.peers.cases import PROFILE, WORKLOAD, Case
from bench.peers.rivals import BY_NAME, Rival
from bench.peers.summary import COLUMNS, LACKING, Row, as_json, base_of, cells, comparison_notes
from bench.record import RESULTS
from skylb.tools.text import table
from skylb.tools.wan.shape import PROFILES

NAME = "peers"

HEAD = """\
Real programs over HTTP in front of the same mock replicas (profile `{profile}`), in closed loops.
The requests are those of the workload `{workload}`: conversations whose users share system prompts.
All rivals get the same requests. The runs of all rivals alternate, and each repeat has other requests.
No program writes an access log.

Times are seconds of the replicas, rates are per second of the replicas. `tokens/s` counts input
+ 2 x output tokens. TTFT is the time to the first token, E2E that to the last. The hit rate is the
replicas' own count of prompt tokens that they found in their KV caches. CPU time is that of the proxy's
process tree, all proxies of a row together. Figures are means over repeats. The last two columns are
means of ratios within a repeat, with their range.

Percentiles are of all requests that began in the measured time. One that failed before its first token,
or has none at the end, is later than any. For E2E this holds for one that has no complete answer.
`{lacking}` is a percentile that falls on such a request. Failed, begun and unfinished requests are those
of all runs, the time to warm up included."""


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|---|" + "---:|" * (len(columns) - 1))
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return lines


def of_case(rows: Mapping[str, Row], case: Case) -> list[Row]:
    """The rows of one case."""
    return [row for row in rows.values() if row.entry.case.name == case.name]


def text_table(rows: Sequence[Row]) -> list[str]:
    """One case for the screen."""
    base = base_of(rows)
    return table(COLUMNS, [cells(row, base) for row in rows], left=1)


def notes(case: Case, rows: Sequence[Row]) -> list[str]:
    """What must be known of the rows of one case."""
    base, repeats = base_of(rows), repeats_of(case, rows)
    return [f"{row.label()}: {note}" for row in rows for note in comparison_notes(row, base, repeats)]


def repeats_of(case: Case, rows: Sequence[Row]) -> int:
    """How often the rows of a case ran, but for those that ran less often."""
    return min(case.repeats_max, max((len(row.runs) for row in rows), default=0))


def case_lines(case: Case, rows: Sequence[Row]) -> list[str]:
    """One case: what it is, its table, its notes."""
    base = base_of(rows)
    repeats = repeats_of(case, rows)
    about = (
        f"Time scale {case.scale:g}; {case.warmup_s:g} s warm up, {case.measured_s:g} s are measured; "
        f"{repeats} repeat{'s' * (repeats != 1)}. What is not answered {case.drain_s:g} s after the last "
        "request is cut off, and is unfinished."
    )
    lines = [f"## {case.title}", "", about, ""]
    lines += markdown(COLUMNS, [cells(row, base) for row in rows])
    said = [f"- {note}" for note in notes(case, rows)]
    return [*lines, "", *said, *([""] if said else [])]


def setting_lines(rivals: Sequence[Rival], scale: float, reasons: Mapping[str, str]) -> list[str]:
    """Versions, settings and their sources."""
    rows = []
    for rival in rivals:
        version = reasons.get(rival.name) or rival.version()
        settings = f"`{rival.settings}`" if rival.settings.startswith("--") else rival.settings
        rows.append([rival.name, version, settings, rival.source])
    lines = [
        "## Settings",
        "",
        "The source says what its documentation recommends and what is our choice:",
        "",
    ]
    lines += markdown(("", "version", "settings", "source"), rows)
    lines += ["", f"Times at a scale of {scale:g}:", ""]
    for rival in rivals:
        lines.append(f"- {rival.name}: {rival.times(scale) or 'none'}")
    return [*lines, ""]


def rtt_line() -> str:
    """The emulated ways."""
    ways = ", ".join(
        f"{' and '.join(sorted(ends))} {shape.rtt_s * 1e3:g} ms"
        for ends, shape in PROFILES["us-eu-asia"].items()
    )
    return (
        f"Round trips between regions, before scaling: {ways}. What crosses goes through one process of "
        "ours (`skylb wan`), which adds delay, jitter and a limit of bandwidth."
    )


def page(rows: Mapping[str, Row], cases: Sequence[Case], about: Mapping[str, str], command: str) -> str:
    """The whole page."""
    lines = [f"# {command}", "", ", ".join(about.values()), ""]
    lines += [HEAD.format(profile=PROFILE, workload="shared_prompt", lacking=LACKING), "", rtt_line(), ""]
    for case in cases:
        lines += case_lines(case, of_case(rows, case))
    names = dict.fromkeys(row.entry.rival.name for row in rows.values())
    scale = min((case.scale for case in cases), default=1.0)
    reasons = {row.entry.rival.name: row.reason for row in rows.values() if row.reason and not row.runs}
    lines += setting_lines([BY_NAME[name] for name in names], scale, reasons)
    return "\n".join(lines).rstrip() + "\n"


def keep(rows: Mapping[str, Row], cases: Sequence[Case], about: Mapping[str, str], command: str) -> None:
    """Writes the page, the picture and the figures."""
    RESULTS.mkdir(exist_ok=True)
    text = page(rows, cases, about, command)
    if plot.write([(case, of_case(rows, case)) for case in cases], RESULTS / f"{NAME}.png"):
        text += f"\n![P90 TTFT and throughput]({NAME}.png)\n"
    (RESULTS / f"{NAME}.md").write_text(text)
    keep_figures(rows, about, command, RESULTS / f"{NAME}.json")


def keep_figures(rows: Mapping[str, Row], about: Mapping[str, str], command: str, path: Path) -> None:
    """Writes the figures of all runs so far."""
    found: dict[str, Any] = {
        "machine": dict(about),
        "command": command,
        "workload": repr(WORKLOAD),
        "versions": {row.entry.rival.name: row.entry.rival.version() for row in rows.values()},
        "rows": as_json(rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
