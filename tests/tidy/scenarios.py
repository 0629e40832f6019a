"""The reference of scenario files, from the structs that read them: types, ranges, defaults, docstrings."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec.inspect import (
    AnyType,
    BoolType,
    DictType,
    FloatType,
    IntType,
    ListType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    TupleType,
    Type,
    UnionType,
    type_info,
)

from skylb.config import EngineSettings
from skylb.options import options
from skylb.tools.mock.profiles import PROFILES, Profile
from skylb.tools.sim import scenario as structs
from skylb.tools.sim import workload as kinds
from skylb.tools.sim.scenario import Scenario

Struct = type[msgspec.Struct]
Row = tuple[str, str, str, str]

_ATTRIBUTE = re.compile(r"^    (?P<name>\w+): (?P<text>.+(?:\n     .+)*)", re.MULTILINE)
_POWER_MIN = 1 << 31
"""From here on a bound is written as a power of two."""

# ------------------------------------------------------------------------------- docstrings


def summary(struct: Struct) -> str:
    """What a struct's docstring says before its attributes."""
    text = inspect.cleandoc(struct.__doc__ or "").partition("Attributes:")[0]
    return _markdown(" ".join(text.split()))


def meanings(struct: Struct) -> dict[str, str]:
    """What the docstrings of a struct and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        text = inspect.cleandoc(vars(base).get("__doc__") or "").partition("Attributes:\n")[2]
        found |= {match["name"]: _sentence(match["text"]) for match in _ATTRIBUTE.finditer(text)}
    return found


def _sentence(text: str) -> str:
    words = _markdown(" ".join(text.split()))
    return words[0].upper() + words[1:]


def _markdown(text: str) -> str:
    return text.replace("``", "`")


# ------------------------------------------------------------------------------------ types


def typed(kind: Type) -> str:
    """A type with its range, as people read it.

    Raises:
        AssertionError: this is a kind of type that no field had before.
    """
    match kind:
        case BoolType():
            return "true or false"
        case IntType():
            return f"an integer{_range(kind)}"
        case FloatType():
            return f"a number{_range(kind)}"
        case StrType(min_length=least, max_length=most):
            return "text" if most is None else f"text of {least or 0} to {most} characters"
        case LiteralType(values=values):
            return f"one of {', '.join(f'`{value}`' for value in values)}"
    return _compound(kind)


def _compound(kind: Type) -> str:
    match kind:
        case UnionType():
            return " or ".join(dict.fromkeys(map(typed, present(kind))))
        case ListType(item_type=ListType(item_type=item)):
            return f"a list of lists; each item: {typed(item)}"
        case ListType(item_type=item):
            return "a list of tables" if typed(item) == "a table" else f"a list; each item: {typed(item)}"
        case TupleType(item_types=items):
            return f"a list of {len(items)}: {', '.join(dict.fromkeys(map(typed, items)))}"
        case DictType(value_type=AnyType()) | StructType():
            return "a table"
        case DictType(value_type=value):
            return f"a table; each value: {typed(value)}"
    raise AssertionError(f"{kind}: say how people read it")


def present(kind: Type) -> list[Type]:
    """The types of a value that is there: of a union all but ``None``, else the type itself."""
    types = kind.types if isinstance(kind, UnionType) else (kind,)
    return [one for one in types if not isinstance(one, NoneType)]


def _range(kind: IntType | FloatType) -> str:
    low = kind.ge if kind.ge is not None else kind.gt
    high = kind.le if kind.le is not None else kind.lt
    if kind.ge is not None and kind.le is not None:
        return f", {number(low)} to {number(high)}"
    parts = []
    if low is not None:
        parts.append(f"{'at least' if kind.ge is not None else 'above'} {number(low)}")
    if high is not None:
        parts.append(f"{'at most' if kind.le is not None else 'below'} {number(high)}")
    return f", {' and '.join(parts)}" if parts else ""


def number(value: float | None) -> str:
    """A number; whole ones with commas, large powers of two as such."""
    if value is None:
        raise AssertionError("a bound is there")
    if value == int(value) and value >= _POWER_MIN and not int(value) & (int(value) - 1):
        return f"2^{int(value).bit_length() - 1}"
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def default(field: msgspec.inspect.Field) -> str:
    """What holds where a field is left out."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return _shown(value)


def _shown(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{number(value)}`".replace(",", "")
    if isinstance(value, str):
        return f"`{value}`"
    tag = type(value).__struct_config__.tag if isinstance(value, msgspec.Struct) else None
    return "see there" if tag is None else f"kind `{tag}`"


# ----------------------------------------------------------------------------------- tables

ENGINE = "engine"
"""The field whose settings have a model of their own."""

WORKLOAD = "workload"
"""The field that tenants have as well."""

HEAD = ("field", "expected", "default", "meaning")


def rows(struct: Struct, names: Sequence[str] | None = None, path: str | None = None) -> list[Row]:
    """A row for each field, or for some of them.

    Args:
        struct: whose fields.
        names: of the fields, else all.
        path: name of the table in a scenario; tables in it then link to their sections.

    Raises:
        AssertionError: a field has no description.
    """
    found = []
    said = meanings(struct)
    for field in fields(struct):
        if names is None or field.name in names:
            assert field.name in said, f"{struct.__name__}.{field.name}: describe it in the docstring"
            expected = typed(field.type)
            if path is not None and (_linked(field.type) or field.name == ENGINE):
                place = "" if field.encode_name == WORKLOAD else path  # it is described once
                expected = f"[{expected}](#{place}{field.encode_name})"
            found.append((f"`{field.encode_name}`", expected, default(field), said[field.name]))
    return found


def _linked(kind: Type) -> bool:
    items = (part for one in present(kind) for part in present(item(one)))
    return any(isinstance(item, StructType) for item in items)


def item(kind: Type) -> Type:
    """The type of a list's items, else the type itself."""
    return kind.item_type if isinstance(kind, ListType) else kind


def fields(struct: Struct) -> tuple[msgspec.inspect.Field, ...]:
    """The fields of a struct, those of its bases first."""
    info = type_info(struct)
    assert isinstance(info, StructType)
    return info.fields


def own(struct: Struct, base: Struct) -> list[str]:
    """The fields that a struct has beyond its base, or with another default."""
    before = {field.name: default(field) for field in fields(base)}
    return [field.name for field in fields(struct) if before.get(field.name) != default(field)]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def section(title: str, struct: Struct, names: Sequence[str] | None = None, path: str | None = None) -> str:
    """A heading, what the struct is, and its fields."""
    body = rows(struct, names, path)
    return f"{title}\n\n{summary(struct)}\n\n" + (table(HEAD, body) if body else "It has no more fields.\n")


def profiles() -> str:
    """What each profile of replicas has, and what ``override`` may replace."""
    head = ("value", *(f"`{name}`" for name in PROFILES), "meaning")
    body = []
    for name, info in Profile.model_fields.items():
        values = [getattr(profile, name) for profile in PROFILES.values()]
        body.append((f"`{name}`", *map(_profile_value, values), info.description or ""))
    return table(head, body)


def _profile_value(value: float | None) -> str:
    return "none" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")


def engine() -> str:
    """A row for each setting of the engine."""
    body = [
        (f"`{option.name}`", option.expected, f"`{option.otherwise}`", option.description)
        for option in options(EngineSettings)
    ]
    return table(HEAD, body)


# --------------------------------------------------------------------------------- document


def reference() -> str:
    """All of it, as Markdown."""
    blocks = [section("## Top level", Scenario, path="")]
    for field in fields(Scenario):
        blocks += _tables(field.encode_name, field.type)
    return "\n".join(blocks)


def _tables(path: str, kind: Type) -> Iterator[str]:
    """The sections of a field that is a table, and of the tables in it."""
    level = "##" + "#" * path.count(".")
    if path == ENGINE:
        yield f"{level} `[engine]`\n\nSettings of `skylb serve`, by their names in its group.\n\n{engine()}"
    for one in present(kind):
        inner = item(one)
        if isinstance(inner, UnionType):
            yield from _kinds(path, inner)
        elif isinstance(inner, StructType) and inner.tag is not None:
            yield from _kinds(path, kind)
            return
        elif isinstance(inner, StructType):
            brackets = f"[[{path}]]" if isinstance(one, ListType) else f"[{path}]"
            yield section(f"{level} `{brackets}`", inner.cls, path=path.replace(".", ""))
            if inner.cls is structs.Replicas:
                yield f"Values of the profiles, which `override` replaces:\n\n{profiles()}"
            for field in inner.fields:
                yield from _tables(f"{path}.{field.encode_name}", field.type)


def _kinds(path: str, union: Type) -> Iterator[str]:
    """The sections of a table that has a kind."""
    found = [one.cls for one in present(union) if isinstance(one, StructType)]
    if path.endswith(f".{WORKLOAD}"):
        return  # its kinds have their sections already
    yield from {"faults": _faults, WORKLOAD: _workloads}[path](found)


def _faults(found: Sequence[Struct]) -> Iterator[str]:
    common = structs.Cut.__mro__[1]
    about = "What goes wrong. Each has a `kind`, and begins and ends at times of its own:"
    yield f"## `[[faults]]`\n\n{about}\n\n{table(HEAD, rows(common))}"
    body: list[Sequence[str]] = []
    for kind in found:
        lacking = [field.name for field in fields(common) if field.name not in kind.__struct_fields__]
        about = summary(kind) + "".join(f" It has no `{name}`." for name in lacking)
        body.append((f"`{_tag(kind)}`", "", "", "", about))
        body += [("", *line) for line in rows(kind, own(kind, common))]
    yield f"The kinds and their fields:\n\n{table(('kind', *HEAD), body)}"


def _workloads(found: Sequence[Struct]) -> Iterator[str]:
    yield section("## `[workload]`", kinds.Kind)
    for kind in found:
        base = kind.__mro__[1]
        text = section(f"### kind `{_tag(kind)}`", kind, own(kind, base))
        like = f"Fields as of `{_tag(base)}`, but:\n\n" if base is not kinds.Kind else ""
        yield text.replace("\n\n| field", f"\n\n{like}| field", 1)


def _tag(struct: Struct) -> str:
    return str(struct.__struct_config__.tag)
