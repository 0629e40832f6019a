"""The keys file: tables of tenants with their terms, and tables of keys.

    [tenants.acme]
    requests_per_minute = 600

    [[keys]]
    id = "k3f9a2c"
    sha256 = "..."
    tenant = "acme"

`docs/GUARD.md` has every field. A key itself is in no file. No fault shows a value of the file, because
anything may have been pasted there, a key above all.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from skylb.errors import ConfigError
from skylb.hints import suggestion
from skylb.mesh.signing import TENANT_LEN_MAX
from skylb.options import Option
from skylb.settings.mesh import NAME_PATTERN, REGIONS_MAX
from skylb.settings.values import Expected, Group
from skylb.watch import Signature, read_whole

FILE_BYTES_MAX = 16 << 20
KEYS_MAX = 100_000
TENANTS_MAX = 10_000
MODELS_MAX = 1_024
"""Models that one tenant may use."""
MODEL_LEN_MAX = 256
NOTE_LEN_MAX = 256
WEIGHT_MAX = 1_000
PER_MINUTE_MAX = 1_000_000_000
CONCURRENT_MAX = 1_000_000
FAULTS_MAX = 20
"""Faults named of one file."""

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"
TENANT_PATTERN = rf"[\x21-\x7e]{{1,{TENANT_LEN_MAX}}}"

Class = Literal["high", "normal", "low"]

EMPTY_KEY = hashlib.sha256(b"").hexdigest()

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"


class TenantTable(Group):
    """``[tenants.NAME]``: what a tenant may use, and how much. A field that is absent bounds nothing."""

    model_config = _STRICT

    models: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MODEL_LEN_MAX)]] | None,
        Expected(f"a list of 1 to {MODELS_MAX} names of models, each of 1 to {MODEL_LEN_MAX} characters"),
        Field(min_length=1, max_length=MODELS_MAX, description="Models and adapters that it may use."),
    ] = None
    regions: Annotated[
        list[Annotated[str, Field(pattern=NAME_PATTERN)]] | None,
        Expected(f"a list of 1 to {REGIONS_MAX} names of regions"),
        Field(min_length=1, max_length=REGIONS_MAX, description="Regions that may serve its requests."),
    ] = None
    class_: Annotated[
        Class | None,
        Field(alias="class", description="Highest class of its requests. A higher one counts as this one."),
    ] = None
    weight: Annotated[
        int,
        Field(ge=1, le=WEIGHT_MAX, description="Its share of the room, beside other tenants that wait."),
    ] = 1
    requests_per_minute: Annotated[
        int | None, Field(ge=1, le=PER_MINUTE_MAX, description="Requests that it may begin in a minute.")
    ] = None
    tokens_per_minute: Annotated[
        int | None,
        Field(
            ge=1, le=PER_MINUTE_MAX, description="Tokens of prompts and answers that it may use in a minute."
        ),
    ] = None
    concurrent: Annotated[
        int | None, Field(ge=1, le=CONCURRENT_MAX, description="Requests of it that may run or wait at once.")
    ] = None
    continue_streams: Annotated[
        bool | None,
        Field(description="False: its streams do not go on at another replica under --continue-streams."),
    ] = None


class KeyTable(Group):
    """``[[keys]]``: one key."""

    model_config = _STRICT

    id: Annotated[
        str,
        Expected("1 to 32 letters, digits, dashes and underscores"),
        Field(pattern=rf"^{ID_PATTERN}$", description="Names the key in logs and for `skylb keys revoke`."),
    ]
    sha256: Annotated[
        str,
        Expected("64 hexadecimal digits, the SHA-256 of the key"),
        Field(pattern=r"^[0-9A-Fa-f]{64}$", repr=False, description="SHA-256 of the key."),
    ]
    tenant: Annotated[
        str,
        Expected("the name of a table [tenants.NAME]"),
        Field(description="The tenant whose key it is."),
    ]
    expires: Annotated[
        AwareDatetime | None,
        Expected("a date and time with its offset, as 2027-01-01T00:00:00Z"),
        Field(description="When it stops to be valid."),
    ] = None
    revoked: Annotated[
        AwareDatetime | None,
        Expected("a date and time with its offset, as 2027-01-01T00:00:00Z"),
        Field(description="When it was or will be revoked."),
    ] = None
    note: Annotated[
        str | None,
        Expected(f"text of one line, at most {NOTE_LEN_MAX} characters"),
        Field(max_length=NOTE_LEN_MAX, pattern=PRINTABLE, description="Who has it, and what for."),
    ] = None


class Document(Group):
    """A whole keys file, understood."""

    model_config = _STRICT

    tenants: Annotated[
        dict[str, TenantTable],
        Expected(f"at most {TENANTS_MAX} tables [tenants.NAME]"),
        Field(max_length=TENANTS_MAX),
    ] = Field(default_factory=dict)
    keys: Annotated[
        list[KeyTable], Expected(f"at most {KEYS_MAX} tables [[keys]]"), Field(max_length=KEYS_MAX)
    ] = Field(default_factory=list)


_TABLES: Mapping[str, type[Group]] = {"tenants": TenantTable, "keys": KeyTable}
_DOCUMENT = TypeAdapter(Document)
_TENANT_ROW, _KEY_ROW = TypeAdapter(TenantTable), TypeAdapter(KeyTable)
_TENANT = re.compile(TENANT_PATTERN, re.ASCII)
_PLAIN = re.compile(r"[a-z_]{1,32}")
"""A name of a field that may be shown: no key or hash is spelled so."""
_RUN = re.compile(r"[A-Za-z0-9]{8,}")
_KINDS = tuple(map(re.compile, ("[a-z]", "[A-Z]", "[0-9]")))
_KEY_HEADER = re.compile(r"\s*\[\[\s*keys\s*\]\]")
_KEY_NUMBER = re.compile(r"keys\[(\d+)\]")
_QUOTED = re.compile(r"'[^']{4,}'|\"[^\"]{4,}\"")


def read(path: Path) -> tuple[Signature | None, Document]:
    """What tells this content from others, and what it says.

    Raises:
        ConfigError: it cannot be read or understood; its faults.
    """
    signature, content = read_whole(path, FILE_BYTES_MAX)
    return signature, parse(path, content)


def parse(path: Path, content: bytes) -> Document:
    """What a file's content says.

    Raises:
        ConfigError: its faults, each naming file, table, field and expectation, and no value.
    """
    table = tables(path, content)
    try:
        document = _DOCUMENT.validate_python(_by_rows(table))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        _refuse(path, content, (_fault(detail, table) for detail in details))
    _refuse(path, content, _contradictions(document))
    return document


def _by_rows(table: Mapping[str, Any]) -> dict[str, Any]:
    """The tables, those that are right understood one by one.

    One call for all would hold the interpreter's lock for a tenth of a second, and the event loop up.
    """
    rows = dict(table)
    tenants, keys = rows.get("tenants"), rows.get("keys")
    if isinstance(tenants, dict):
        rows["tenants"] = {name: _row(_TENANT_ROW, terms) for name, terms in tenants.items()}
    if isinstance(keys, list):
        rows["keys"] = [_row(_KEY_ROW, key) for key in keys]
    return rows


def _row(of: TypeAdapter[Any], row: object) -> object:
    try:
        return of.validate_python(row)
    except ValidationError:
        return row  # its faults are found with those of the whole file


def tables(path: Path, content: bytes) -> dict[str, Any]:
    """The content as TOML.

    Raises:
        ConfigError: it is none; the fault names the line.
    """
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}: line {line}: expected UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        text, _, at = str(error).partition(" (at ")
        where = f"{at.removesuffix(')')}: " if at else ""
        said = "" if _QUOTED.search(text) else f": {text[:1].lower()}{text[1:]}"
        raise ConfigError([f"{path}: {where}expected TOML{said}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: expected TOML without deep nesting"]) from None
    except ValueError:  # int() has a bound of its own
        raise ConfigError([f"{path}: expected TOML without numbers of thousands of digits"]) from None


def _refuse(path: Path, content: bytes, faults: Iterator[str]) -> None:
    found: list[str] = []
    lines: list[int] | None = None
    for fault in faults:
        if len(found) == FAULTS_MAX:
            found.append(f"{path}: further faults are not listed")
            break
        if lines is None:
            lines = key_lines(content.decode())
        number = _KEY_NUMBER.match(fault)
        at = number is not None and int(number[1]) <= len(lines)
        line = f"line {lines[int(number[1]) - 1]}: " if number is not None and at else ""
        found.append(f"{path}: {line}{fault}")
    if found:
        raise ConfigError(found) from None


def key_lines(text: str) -> list[int]:
    """The numbers of the lines with ``[[keys]]``, from 1. Where one is within a text they are too many."""
    return [number for number, line in enumerate(text.splitlines(), 1) if _KEY_HEADER.match(line)]


# --------------------------------------------------------------------------------- faults


def _fault(detail: ErrorDetails, table: Mapping[str, Any]) -> str:
    """One fault, from what pydantic found: where, and what was expected there."""
    top, *rest = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return _unknown(detail["loc"])
    model = _TABLES[str(top)]
    if not rest:
        return f"{top}: expected {_expected(Document.model_fields[str(top)])}"
    where = _where(str(top), rest[0])
    if len(rest) == 1:
        return f"{where}: expected a table"
    name = str(rest[1])
    field = next(field for known, field in model.model_fields.items() if name in {known, field.alias})
    kind = "missing: " if detail["type"] == "missing" else ""
    note = "" if kind or not _is_without_offset(table, detail["loc"]) else ", got one without an offset"
    return f"{where}.{name}: {kind}expected {_expected(field)}{note}"


def _is_without_offset(table: Mapping[str, Any], loc: tuple[int | str, ...]) -> bool:
    value: Any = table
    for step in loc:
        value = value[step]
    return type(value).__name__ in {"datetime", "date"}


def _unknown(loc: tuple[int | str, ...]) -> str:
    *parents, last = loc
    name = str(last)
    shown = f" {name}" if _PLAIN.fullmatch(name) else ""
    if not parents:
        close = suggestion(name, Document.model_fields)
        return f"unknown table{shown}{close or ': expected tenants or keys'}"
    known = [field.alias or word for word, field in _TABLES[str(parents[0])].model_fields.items()]
    expected = suggestion(name, known) or f": expected one of {', '.join(known)}"
    return f"{_where(str(parents[0]), parents[1])}: unknown field{shown}{expected}"


def _where(top: str, which: int | str) -> str:
    """A table, as people find it: the number of a key, the name of a tenant where it is one."""
    if top == "keys":
        return f"keys[{int(which) + 1}]"
    return f"tenants.{which}" if _may_be_shown(str(which)) else "tenants: one of them"


def _may_be_shown(tenant: str) -> bool:
    return _TENANT.fullmatch(tenant) is not None and "sk-" not in tenant and not _is_mixed(tenant)


def _is_mixed(name: str) -> bool:
    """A long run of it mixes cases, or letters and digits, as keys, hashes and parts of them do."""
    runs = _RUN.findall(name)
    return any(sum(kind.search(run) is not None for kind in _KINDS) > 1 for run in runs)


def _expected(field: FieldInfo) -> str:
    return Option(("keys_file",), field).expected


def _contradictions(document: Document) -> Iterator[str]:
    """What is right alone and wrong together."""
    for name in document.tenants:
        if not _TENANT.fullmatch(name):
            yield (
                "tenants: the name of one of them: expected 1 to "
                f"{TENANT_LEN_MAX} characters of ASCII without spaces"
            )
    regions = {region for terms in document.tenants.values() for region in terms.regions or ()}
    if len(regions) > REGIONS_MAX:
        yield f"tenants: {len(regions)} regions: expected at most {REGIONS_MAX} in all"
    ids: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for number, key in enumerate(document.keys, 1):
        first = ids.setdefault(key.id, number)
        if first != number:
            yield f"keys[{number}].id: expected one that keys[{first}] has not"
        first = hashes.setdefault(key.sha256.lower(), number)
        if first != number:
            yield f"keys[{number}].sha256: expected one that keys[{first}] has not"
        if key.sha256.lower() == EMPTY_KEY:
            yield f"keys[{number}].sha256: expected the SHA-256 of a key, got that of no text"
        if key.tenant not in document.tenants:
            close = suggestion(key.tenant, [name for name in document.tenants if _may_be_shown(name)])
            yield f"keys[{number}].tenant: expected the name of a table [tenants.NAME]{close}"


CLASSES: tuple[str, ...] = get_args(Class)
