"""``skylb keys new|list|revoke``: makes, shows and revokes the keys of a keys file."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from rich.console import Console
from rich.table import Table

from skylb.clock import unix_ns as clock_ns
from skylb.keys.document import (
    CONCURRENT_MAX,
    MODEL_LEN_MAX,
    MODELS_MAX,
    NOTE_LEN_MAX,
    PER_MINUTE_MAX,
    PRINTABLE,
    TENANT_PATTERN,
    WEIGHT_MAX,
    Class,
    read,
)
from skylb.keys.edit import Show, add_key, moment_text, revoke_key
from skylb.keys.ring import state_of
from skylb.settings.mesh import NAME_PATTERN, REGIONS_MAX
from skylb.settings.values import FILE, Expected, File, Group, Placeholder

EXPIRES_IN_MAX_S = 100 * 365 * 86_400

_DURATION = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)
_UNITS_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _duration(value: object) -> object:
    """``90d`` as seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError("not a number with one of these letters")
    return int(match[1]) * _UNITS_S[match[2]]


class NewSettings(Group):
    """The key to make. What concerns its tenant is for a tenant that the file does not have yet."""

    file: Annotated[Path, FILE, Field(description="Keys file. SkyLB makes it if there is none.")]
    tenant: Annotated[
        str,
        Expected("1 to 128 characters of ASCII without spaces"),
        Placeholder("NAME"),
        Field(pattern=rf"^{TENANT_PATTERN}$", description="Tenant whose key it is."),
    ]
    expires_in: Annotated[
        int | None,
        BeforeValidator(_duration),
        Expected("a time from 1m to 100 years: a number with m, h, d or w, as 90d"),
        Placeholder("DURATION"),
        Field(ge=60, le=EXPIRES_IN_MAX_S, description="Time for which the key is valid, from now."),
    ] = None
    note: Annotated[
        str | None,
        Expected(f"text of one line, at most {NOTE_LEN_MAX} characters"),
        Field(max_length=NOTE_LEN_MAX, pattern=PRINTABLE, description="Who has the key, and what for."),
    ] = None
    requests_per_minute: Annotated[
        int | None,
        Field(ge=1, le=PER_MINUTE_MAX, description="Requests that a new tenant may begin in a minute."),
    ] = None
    tokens_per_minute: Annotated[
        int | None,
        Field(ge=1, le=PER_MINUTE_MAX, description="Tokens that a new tenant may use in a minute."),
    ] = None
    concurrent: Annotated[
        int | None,
        Field(ge=1, le=CONCURRENT_MAX, description="Requests of a new tenant that may run or wait at once."),
    ] = None
    models: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MODEL_LEN_MAX)], ...],
        Expected(f"the name of a model, of 1 to {MODEL_LEN_MAX} characters"),
        Placeholder("MODEL"),
        Field(max_length=MODELS_MAX, description="Model that a new tenant may use, instead of all."),
    ] = ()
    regions: Annotated[
        tuple[Annotated[str, Field(pattern=NAME_PATTERN)], ...],
        Expected("the name of a region"),
        Placeholder("REGION"),
        Field(max_length=REGIONS_MAX, description="Region that may serve a new tenant, instead of all."),
    ] = ()
    class_: Annotated[Class | None, Field(description="Highest class of a new tenant's requests.")] = None
    weight: Annotated[
        int | None,
        Field(ge=1, le=WEIGHT_MAX, description="Share of a new tenant in the room, beside others that wait."),
    ] = None


class ListSettings(Group):
    """The file to show, and how."""

    file: Annotated[File, FILE, Field(description="Keys file.")]
    json_: Annotated[bool, Field(description="Print one JSON object per key instead of a table.")] = False


class RevokeSettings(Group):
    """The key to revoke."""

    file: Annotated[File, FILE, Field(description="Keys file.")]
    id: Annotated[
        str,
        Expected("the id of a key, as skylb keys list shows it"),
        Placeholder("ID"),
        Field(description="Id of the key."),
    ]


def new(settings: NewSettings, show: Show) -> str:
    """Makes a key; what to say of it.

    ``show`` gets the key itself and its id, before the key is valid. If it raises an error, no key is made.

    Raises:
        ConfigError: the file is no good, or has the tenant already, with other terms.
        SkyLBError: the file cannot be read or written.
    """
    terms = {
        "requests_per_minute": settings.requests_per_minute,
        "tokens_per_minute": settings.tokens_per_minute,
        "concurrent": settings.concurrent,
        "models": list(settings.models) or None,
        "regions": list(settings.regions) or None,
        "class": settings.class_,
        "weight": settings.weight,
    }
    expires = None
    if settings.expires_in is not None:
        expires = _now() + timedelta(seconds=settings.expires_in)
    _, key_id = add_key(
        settings.file,
        settings.tenant,
        {name: value for name, value in terms.items() if value is not None},
        {"expires": expires, "note": settings.note},
        show=show,
    )
    until = f", valid until {moment_text(expires)}" if expires is not None else ""
    about = f"{settings.file}: key {key_id} of the tenant {settings.tenant}{until}"
    return f"{about}. Only its hash is in the file: this is the only time that the key is shown."


def revoke(settings: RevokeSettings) -> str:
    """Revokes a key; what to say of it.

    Raises:
        ConfigError: the file is no good, or has no such key.
        SkyLBError: the file cannot be read or written.
    """
    now = _now()
    before = revoke_key(settings.file, settings.id, now)
    if before is not None:
        return f"{settings.file}: key {settings.id} was revoked at {moment_text(before)} already"
    return f"{settings.file}: key {settings.id} is revoked. Balancers refuse it once they have read the file."


def render(settings: ListSettings) -> str:
    """The keys of a file, without their hashes.

    Raises:
        ConfigError: the file cannot be read or understood.
    """
    rows = list(_rows(settings.file))
    if settings.json_:
        return "\n".join(json.dumps(row) for row in rows)
    table = Table()
    columns = ("id", "tenant", "state", "expires", "revoked", "note")
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*(row[name] or "-" for name in columns))
    console = Console(width=140, force_terminal=False, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _rows(path: Path) -> Iterator[dict[str, str | None]]:
    _, document = read(path)
    now_ns = clock_ns()
    for key in document.keys:
        yield {
            "id": key.id,
            "tenant": key.tenant,
            "state": state_of(key, now_ns),
            "expires": moment_text(key.expires) if key.expires is not None else None,
            "revoked": moment_text(key.revoked) if key.revoked is not None else None,
            "note": key.note,
        }


def _now() -> datetime:
    """The time in whole seconds, as the file has it."""
    return datetime.fromtimestamp(clock_ns() // 1_000_000_000, UTC)
