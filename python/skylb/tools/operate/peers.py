"""``skylb peers``: how a balancer sees the mesh, as a table."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console
from rich.table import Table

from skylb.settings.values import Expected
from skylb.tools.operate.ask import AdminSettings


class PeersSettings(AdminSettings):
    """The balancer to ask, and how to print the answer."""

    json_lines: Annotated[
        bool,
        Expected("true or false"),
        Field(description="Print one JSON object per peer instead of a table."),
    ] = False


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("peer", lambda row: row["peer"]),
    ("region", lambda row: row["region"] or "-"),
    ("state", lambda row: row["state"] + (", evacuated" if row["draining"] else "")),
    ("rtt ms", lambda row: _ms(row["rtt_s"])),
    ("jitter ms", lambda row: _ms(row["jitter_s"])),
    ("age s", lambda row: "-" if row["age_s"] is None else f"{row['age_s']:.2f}"),
    ("room", lambda row: str(row["room"])),
    ("hold", lambda row: str(row["hold"])),
    ("out", lambda row: str(row["forwards_out"])),
    ("in", lambda row: str(row["forwards_in"])),
    ("hot", lambda row: str(row["digest"]["prefixes"])),
    ("KiB out", lambda row: f"{row['bytes_out'] / 1024:.0f}"),
    ("KiB in", lambda row: f"{row['bytes_in'] / 1024:.0f}"),
    ("notes", lambda row: "; ".join(_notes(row)) or "-"),
)


def _ms(time_s: float | None) -> str:
    return "-" if time_s is None else f"{1000 * time_s:.1f}"


def _notes(row: dict[str, Any]) -> list[str]:
    notes = [row["fault"]] if row["fault"] else []
    if abs(row["clock_skew_s"]) > 5:
        notes.append(f"its wall clock is {row['clock_skew_s']:+.0f} s from ours")
    notes += [f"{count} refused: {reason}" for reason, count in row["refused"].items()]
    if row["digest"]["fault"]:
        notes.append(row["digest"]["fault"])
    if row["adopted"]:
        notes.append(f"{row['adopted']} of its replicas are served here")
    return notes


def render(said: dict[str, Any], *, json_lines: bool) -> str:
    """The table, or a line per peer."""
    if json_lines:
        return "\n".join(json.dumps(row) for row in said["peers"])
    table = Table(title=_title(said))
    for name, _ in COLUMNS:
        table.add_column(name)
    for row in said["peers"]:
        table.add_row(*(value(row) for _, value in COLUMNS))
    console = Console(width=160, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([captured.get().rstrip(), *_lists(said), *_turned_away(said)])


def _title(said: dict[str, Any]) -> str:
    stayed = int(said.get("stayed", 0))
    title = f"{said['name']} in {said['region']}" + ", evacuating" * bool(said["evacuating"])
    return title + f"; requests that stayed, as no peer took them: {stayed}" * bool(stayed)


def _lists(said: dict[str, Any]) -> list[str]:
    """What is wrong with the sources of the list."""
    lists = said.get("lists", {}).items()
    return [
        f"list of {name}: {one['fault']} (age {one['age_s']:.0f} s)" for name, one in lists if one["fault"]
    ]


def _turned_away(said: dict[str, Any]) -> list[str]:
    """What was refused from nobody in particular."""
    kinds = (("connections", said["strangers_refused"]), ("forwards", said["forwards_refused"]))
    return [
        f"{kind} refused: {', '.join(f'{count} {reason}' for reason, count in sorted(refused.items()))}"
        for kind, refused in kinds
        if refused
    ]
