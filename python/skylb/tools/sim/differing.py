"""What makes a scenario: its fields that differ from their defaults, by their names in a sweep."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from skylb.tools.sim.report import PointReport


def differing(points: Sequence[PointReport]) -> list[tuple[str, str]]:
    """Names and values, those that the sweep varies first; of regions, replicas and faults every field."""
    varied = {
        name: list(dict.fromkeys(_said(point.values[name]) for point in points)) for name in points[0].values
    }
    rows = [(name, ", ".join(values)) for name, values in varied.items()]
    for name, value in _fields(points[0].scenario, "", whole=False):
        if not any(fnmatchcase(name, pattern) for pattern in varied):
            rows.append((name, _said(value)))
    return rows


def _fields(struct: msgspec.Struct, prefix: str, *, whole: bool) -> Iterator[tuple[str, Any]]:
    tag = type(struct).__struct_config__.tag
    if isinstance(tag, str):
        yield f"{prefix}kind", tag
    for info in msgspec.structs.fields(struct):
        value = getattr(struct, info.name)
        default = info.default
        if info.default_factory is not msgspec.NODEFAULT:
            default = info.default_factory()
        if whole or value != default:
            yield from _flat(value, f"{prefix}{info.encode_name}", whole=whole)


def _flat(value: Any, name: str, *, whole: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        yield from _fields(value, f"{name}.", whole=whole)
    elif isinstance(value, list) and value and all(isinstance(item, msgspec.Struct) for item in value):
        for place, item in enumerate(value):
            yield from _fields(item, f"{name}.{place}.", whole=True)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}", whole=whole)
    elif value is not None and value != []:
        yield name, value


def _said(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(_plain(value)).decode()


def _plain(value: Any) -> Any:
    """The value, floats that are whole numbers as such."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
