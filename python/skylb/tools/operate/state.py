"""``skylb state``: what is wrong at a balancer, its replicas, hold and peers, in one text."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console
from rich.table import Table

from skylb.settings.values import text_of
from skylb.tools.operate.ask import AdminSettings
from skylb.tools.operate.peers import render as render_peers

Row = dict[str, Any]

WIDTH = 100
LOG_DROPPED = "log lines were dropped: the log's destination takes too little"


class StateSettings(AdminSettings):
    """The balancer to ask, and how to print the answer."""

    json_: Annotated[bool, Field(description="Print what /state says, as one JSON object.")] = False


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("replica", lambda row: str(row["name"])),
    ("state", lambda row: ", ".join(_health(row))),
    ("running", lambda row: str(row["running"])),
    ("waiting", lambda row: str(row["waiting"])),
    ("in flight", lambda row: str(row["in_flight"])),
    ("room", lambda row: str(row["room"])),
    ("cached", lambda row: _share(row["cached_tokens_total"], row["prompt_tokens_total"])),
    ("models", lambda row: ", ".join(row["models"]) or "-"),
)

WORKER_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("worker", lambda row: str(row["worker"])),
    ("state", lambda row: "serves" if row["attached"] else "away"),
    ("process", lambda row: str(row["pid"] or "-")),
    ("connections", lambda row: str(row["connections"])),
    ("requests", lambda row: str(row["requests"])),
    ("CPU", lambda row: f"{row['cpu_s']:.1f} s"),
    ("lag", lambda row: f"{row['lag_ms']:.1f} ms"),
)


def _health(row: Row) -> Iterator[str]:
    yield str(row["health"])
    if row.get("leaves_in_s") is not None:
        yield f"ends in {row['leaves_in_s']:.0f} s"
    elif row.get("empties_in_s") is not None:
        yield f"draining, to be empty in {row['empties_in_s']:.0f} s"
    elif row["draining"]:
        yield "draining"
    if row["blind"]:
        yield "blind"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def faults(said: Row) -> list[str]:
    """What is wrong, or unusual, one sentence each."""
    return [*_of_process(said), *_of_replicas(said), *_of_others(said)]


def _of_process(said: Row) -> Iterator[str]:
    process, engine = said["process"], said["engine"]
    if process["stopping"]:
        yield "this balancer is stopping"
    if not any(row["ready"] for row in engine["replicas"]):
        yield "no replica takes requests"
    if process["log_dropped"]:
        yield f"{process['log_dropped']} {LOG_DROPPED}"
    hold = engine["hold"]
    if hold["requests"] >= hold["len_max"]:
        yield f"the hold is full: {hold['requests']} requests"


def _of_replicas(said: Row) -> Iterator[str]:
    for name, state in said["replicas"].items():
        if state != "up":
            yield f"{name}: {state}"
    for row in said["engine"]["replicas"]:
        if row["health"] not in {"up", "unknown"} and said["replicas"].get(row["name"]) == "up":
            yield f"{row['name']}: requests there fail ({row['health']})"
        elif row["draining"]:
            others = f", {row['theirs_in_flight']} from other balancers" if row["shared"] else ""
            ends = "drains" if row.get("leaves_in_s") is None else f"ends in {row['leaves_in_s']:.0f} s"
            yield f"{row['name']}: {ends}, {row['in_flight']} in flight{others}"


def _of_others(said: Row) -> Iterator[str]:
    mesh = said["mesh"] or {"peers": [], "evacuating": False}
    if mesh["evacuating"]:
        yield "this region is evacuated: requests go to other regions"
    for row in said.get("workers") or []:
        if not row["attached"]:
            yield f"worker {row['worker']} is away"
    for row in mesh["peers"]:
        if row["fault"] or row["state"] != "alive":
            yield f"peer {row['peer']}: {row['fault'] or row['state']}"
    recording, spans = said.get("recording"), said.get("spans")  # older balancers have none
    if recording and not recording["active"]:
        yield f"recording to {recording['directory']} has stopped: see the log"
    if spans and spans["failing"]:
        yield f"collector {spans['url']} does not take spans: {sum(spans['dropped'].values())} dropped"
    if said["keys"] and said["keys"]["fault"]:
        yield f"keys file {said['keys']['file']}: {said['keys']['fault']}"


def render(said: Row, *, as_json: bool) -> str:
    """The text, or the answer as it came."""
    if as_json:
        return json.dumps(said)
    process, engine = said["process"], said["engine"]
    hold = engine["hold"]
    found = faults(said)
    up = _time(process["uptime_s"])
    listens = ", ".join(process["listen"])
    held = f"{hold['requests']} in the hold (at most {hold['len_max']})"
    tree = f"prefix tree {_size(engine['tree']['bytes'])} of {text_of(engine['tree']['bytes_max'])}"
    lines = [
        f"SkyLB {process['version']} at {listens}, policy {process['policy']}, up {up}",
        f"requests  {process['requests']} now, of them {held}; {process['connections']} connections",
        f"memory    bodies {_size(process['buffer_bytes'])}; {tree}",
        *(f"wrong     {fault}" for fault in found or ["nothing"]),
        _table(COLUMNS, engine["replicas"]),
    ]
    if said.get("workers"):  # older balancers have none
        lines.append(_table(WORKER_COLUMNS, said["workers"]))
    if said["mesh"]:
        lines.append(render_peers(said["mesh"], json_lines=False))
    return "\n".join(lines)


def _table(columns: Sequence[tuple[str, Callable[[Row], str]]], rows: list[Row]) -> str:
    table = Table()
    for name, _ in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(value(row) for _, value in columns))
    console = Console(width=WIDTH, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _time(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86_400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if days < 2 else f"{days:.0f} days"


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
