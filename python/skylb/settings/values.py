"""What a setting may be: kinds of values with their bounds, and groups of settings."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from skylb.addresses import IpNetwork, ListenAddress, ReplicaUrl, parse_listen, parse_network, parse_replica

INT_MAX = 2**31 - 1
SECONDS_MAX = 1e9

_SIZE = re.compile(r"([0-9]+) ?(|B|KiB|MiB|GiB)", re.ASCII)
_SIZE_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Expected(str):
    """What a value must look like, for faults and help, where the type does not say it."""

    __slots__ = ()


class Placeholder(str):
    """Stands for a value in help texts, where its type does not say enough."""

    __slots__ = ()


class Otherwise(str):
    """What holds where an option is not given, and no single value says it."""

    __slots__ = ()


class Alone(str):
    """The value of an option whose flag is given alone, for one that may be."""

    __slots__ = ()


class Experimental:
    """Marks an option that ``--help`` leaves out and ``--help-all`` shows."""

    __slots__ = ()


EXPERIMENTAL = Experimental()


Mark = TypeVar("Mark", bound=str)


def mark_of(field: FieldInfo, kind: type[Mark]) -> Mark | None:
    """The mark of one kind on a field: such as `Expected` or `Placeholder`."""
    return next((item for item in field.metadata if isinstance(item, kind)), None)


def text_of(value: object) -> str:
    """A value as people read it in a table or help text."""
    if value is None or value is PydanticUndefined or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 30} GiB" if value % (1 << 30) == 0 else f"{value >> 20} MiB"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _size(value: object) -> object:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _SIZE_UNITS[match[2]]
    return value


def _listen(value: object) -> object:
    return parse_listen(value) if isinstance(value, str) else value


def _replica(value: object) -> object:
    return parse_replica(value) if isinstance(value, str) else value


def _network(value: object) -> object:
    return parse_network(value) if isinstance(value, str) else value


def _file(value: object) -> object:
    if isinstance(value, str):
        value = Path(value)
    if isinstance(value, Path) and not value.is_file():
        raise ValueError("there is no such file")
    return value


Count = Annotated[int, Field(le=INT_MAX)]
Seconds = Annotated[float, Field(le=SECONDS_MAX)]
Bytes = Annotated[
    int,
    BeforeValidator(_size),
    Field(le=1 << 50),
    Expected("bytes: an integer, or one followed by KiB, MiB or GiB"),
]
File = Annotated[Path, BeforeValidator(_file)]
Listen = Annotated[ListenAddress, BeforeValidator(_listen), PlainSerializer(str)]
Url = Annotated[ReplicaUrl, BeforeValidator(_replica), PlainSerializer(str)]
Network = Annotated[IpNetwork, BeforeValidator(_network)]

LISTEN = Expected("HOST:PORT, [IPV6]:PORT or unix:PATH")
URL = Expected("http://HOST:PORT, https://HOST:PORT or unix:PATH")
FILE = Expected("the path of a file")


class Group(BaseModel):
    """Settings that belong together: frozen, and without room for unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        yield from ()
