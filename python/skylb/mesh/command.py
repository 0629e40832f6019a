"""``skylb peers``: asks a balancer's admin listener how it sees the mesh, and prints a table."""

import http.client
import json
import socket
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console
from rich.table import Table

from skylb.addresses import ListenAddress
from skylb.errors import SkyLBError
from skylb.keyfiles import read_secret
from skylb.settings.values import FILE, LISTEN, Expected, File, Group, Listen

TIMEOUT_S = 5.0


class PeersSettings(Group):
    """The balancer to ask, and how to print the answer."""

    admin: Annotated[Listen, LISTEN, Field(description="Address of the balancer's admin listener.")] = (
        ListenAddress("127.0.0.1", 8081)
    )
    admin_token_file: Annotated[
        File | None, FILE, Field(description="File with the bearer token of the admin listener.")
    ] = None
    json_lines: Annotated[
        bool,
        Expected("true or false"),
        Field(description="Print one JSON object per peer instead of a table."),
    ] = False


def ask(settings: PeersSettings) -> dict[str, Any]:
    """What ``GET /peers`` says.

    Raises:
        SkyLBError: nobody answers, or it is a refusal.
        ConfigError: the token's file cannot be read.
    """
    admin = settings.admin
    token = read_secret(settings.admin_token_file, "admin_token_file")
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    connection = _Connection(admin)
    try:
        connection.request("GET", "/peers", headers=headers)
        answer = connection.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise SkyLBError(f"{admin}: no answer: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        message = said.get("error", {}).get("message", f"status {answer.status}")
        raise SkyLBError(f"{admin}: {message}")
    return said


class _Connection(http.client.HTTPConnection):
    """To an address of any kind."""

    def __init__(self, address: ListenAddress) -> None:
        super().__init__("localhost" if address.unix else address.host, address.port, timeout=TIMEOUT_S)
        self._address = address

    def connect(self) -> None:
        """TCP, or a Unix socket."""
        if not self._address.unix:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._address.host)


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("peer", lambda row: row["peer"]),
    ("region", lambda row: row["region"] or "-"),
    ("state", lambda row: row["state"] + (", draining" if row["draining"] else "")),
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
