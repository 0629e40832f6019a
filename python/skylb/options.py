"""From a model of settings to flags, environment names and a TOML file, and back to the model.

One option is one field of the model. Its name in the file (``engine.block_bytes``) gives the flag
(``--engine-block-bytes``) and the variable (``SKYLB_ENGINE_BLOCK_BYTES``). A flag overrides the environment,
the environment overrides the file, and the file overrides the default. Each value keeps its origin.
Every fault is found before any is reported.
"""

import re
import reprlib
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from skylb.addresses import ListenAddress, ReplicaUrl
from skylb.config import ENVIRONMENT_PREFIX, TOP_LEVEL, Expected, Group
from skylb.errors import ConfigError
from skylb.hints import suggestion
from skylb.settings.sections import BY_GROUP, Common, Section
from skylb.settings.values import Experimental, Otherwise, Placeholder, mark_of, text_of

CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
CONFIG_BYTES_MAX = 1 << 20

LENGTH_ERRORS = frozenset({"too_long", "too_short"})
"""What pydantic says of a tuple besides what it says of its items."""

Settings = TypeVar("Settings", bound=Group)

_METAVARS = {
    "_bytes_per_s": "BYTES_PER_SECOND",
    "_bytes_per_s_min": "BYTES_PER_SECOND",
    "_tokens_per_s": "TOKENS_PER_SECOND",
    "_per_s": "PER_SECOND",
    "_per_s_min": "PER_SECOND",
    "_per_s_max": "PER_SECOND",
    "_bytes_max": "BYTES",
    "_bytes": "BYTES",
    "_tokens": "TOKENS",
    "_ms": "MILLISECONDS",
    "_us": "MICROSECONDS",
    "_s": "SECONDS",
    "_file": "FILE",
}
"""Placeholders by the ending of a name; the first that fits counts."""

_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=")

SECRETS = ("key_file", "keys_file", "token_file", "headers_file", "tls_key", "kubernetes.config")
"""How the options end that name files of secrets."""

CHOICES_SHOWN = 40
"""Longest list of choices that stands in the place of a flag's value."""

_CREDENTIALS = re.compile(r"://[^/]*@")


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, as it is written in a file, on a command line and in the environment."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def name(self) -> str:
        """Its key in the TOML file. The field has an underscore behind it where the word is Python's."""
        name = self.path[-1] if self.path in TOP_LEVEL else ".".join(self.path)
        return name.removesuffix("_")

    @property
    def flag(self) -> str:
        """Its flag."""
        return "--" + self.name.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "_").upper()

    @property
    def many(self) -> bool:
        """Whether it takes several values: the flag repeats, the variable separates by commas."""
        return get_origin(self.field.annotation) is tuple

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.field.is_required()

    @property
    def default(self) -> Any:
        """The default; ``PydanticUndefined`` where there is none."""
        return self.field.get_default(call_default_factory=True)

    @property
    def description(self) -> str:
        """What it is for."""
        return self.field.description or ""

    @property
    def otherwise(self) -> str:
        """What holds where it is not given, as people read it."""
        return mark_of(self.field, Otherwise) or text_of(self.default)

    @property
    def expected(self) -> str:
        """What a value must look like."""
        return _expected(self.field)

    @property
    def experimental(self) -> bool:
        """Whether ``--help`` leaves it out: its effect cannot be said in a line, or may change."""
        return any(isinstance(item, Experimental) for item in self.field.metadata)

    @property
    def common(self) -> bool:
        """Whether ``--help`` shows it where it leaves others out."""
        return any(isinstance(item, Common) for item in self.field.metadata)

    @property
    def section(self) -> str:
        """The part of a help text in which it stands."""
        group = self.path[0] if len(self.path) > 1 else ""
        found = mark_of(self.field, Section) or BY_GROUP.get(group)
        return found or group or "settings"

    @property
    def metavar(self) -> str:
        """The placeholder of its value in help texts."""
        if (written := mark_of(self.field, Placeholder)) is not None:
            return written
        kind = plain(self.field.annotation)
        if get_origin(kind) is Literal:
            choices = "{" + ",".join(map(str, get_args(kind))) + "}"
            return choices if len(choices) <= CHOICES_SHOWN else "NAME"
        for ending, word in _METAVARS.items():
            if f"_{self.path[-1]}".endswith(ending):
                return word
        if kind in {int, float}:
            return "N"
        words = {Path: "FILE", bool: "BOOL", str: "TEXT", ListenAddress: "ADDRESS", ReplicaUrl: "URL"}
        return words.get(kind, "VALUE")


@dataclass(frozen=True, slots=True)
class Given:
    """A value before validation, and where it was written."""

    value: object
    kind: Literal["file", "environment", "flag"]
    where: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Settings]):
    """Valid settings; ``origins`` tells by option name where a value was written, defaults left out."""

    settings: Settings
    origins: Mapping[str, Given]


@cache
def options(model: type[Group]) -> tuple[Option, ...]:
    """All options of a model, those of its groups last."""
    return tuple(sorted(_walk(model, ()), key=lambda option: "." in option.name))


def _walk(model: type[Group], prefix: tuple[str, ...]) -> Iterator[Option]:
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            yield from _walk(field.annotation, path)
        else:
            yield Option(path, field)


def value_of(settings: Group, option: Option) -> Any:
    """The value of one option."""
    value: Any = settings
    for name in option.path:
        value = getattr(value, name)
    return value


def secrets(settings: Group) -> dict[str, Path | None]:
    """The files of secrets that settings name (keys, tokens), by their options."""
    found = (option for option in options(type(settings)) if option.name.endswith(SECRETS))
    return {option.name: value_of(settings, option) for option in found}


# ------------------------------------------------------------------------ what is expected


def plain(annotation: Any) -> Any:
    """The type of one value: without ``None``, ``Annotated`` and the tuple around it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return plain(next(kind for kind in get_args(annotation) if kind is not type(None)))
    if origin is tuple:
        return plain(get_args(annotation)[0])
    return annotation


def _expected(field: FieldInfo) -> str:
    kind = plain(field.annotation)
    text = mark_of(field, Expected)
    if text is None:
        if get_origin(kind) is Literal:
            return "one of " + ", ".join(map(str, get_args(kind)))
        text = Expected({int: "an integer", float: "a number", bool: "true or false"}.get(kind, "text"))
    bounds = _bounds(field) if kind in {int, float} and " from " not in text else ""
    return text + bounds


def _bounds(field: FieldInfo) -> str:
    found = {
        name: getattr(item, name)
        for item in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(item, name, None) is not None
    }
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    texts = [f"{word} {text_of(found[name])}" for name, word in words.items() if name in found]
    return " " + " and ".join(texts) if texts else ""


# --------------------------------------------------------------------------------- sources


def from_flags(model: type[Group], flags: Mapping[str, object]) -> dict[str, Given]:
    """The options among parsed flags: a list of texts each, the last one counts if it takes one."""
    given = {}
    for option in options(model):
        texts = flags.get(option.name)
        if isinstance(texts, list):
            given[option.name] = Given(texts if option.many else texts[-1], "flag", option.flag)
    return given


def from_environment(model: type[Group], variables: Mapping[str, str], faults: list[str]) -> dict[str, Given]:
    """The options among environment variables; unknown ones are faults."""
    by_variable = {option.variable: option for option in options(model)}
    given = {}
    for name, text in variables.items():
        option = by_variable.get(name)
        if name == CONFIG_VARIABLE:
            continue
        if option is None:
            faults.append(f"{name}: unknown variable{suggestion(name, by_variable)}")
            continue
        value = [part.strip() for part in text.split(",") if part.strip()] if option.many else text
        given[option.name] = Given(value, "environment", name)
    return given


def from_file(model: type[Group], path: Path, faults: list[str]) -> dict[str, Given]:
    """The options in a TOML file; unknown keys are faults."""
    table = read_toml(path, faults)
    lines = _lines(path.read_text(errors="replace")) if table else {}
    return from_table(model, table, f"{path}: ", faults, lines)


def read_toml(path: Path, faults: list[str]) -> dict[str, Any]:
    """A TOML file as a table; empty, and a fault named, where it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
        if len(data) > CONFIG_BYTES_MAX:
            faults.append(f"{path}: expected at most {CONFIG_BYTES_MAX} bytes")
            return {}
        return tomllib.loads(data.decode())
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        faults.append(f"{path}: expected UTF-8: {error.reason} at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{path}: expected TOML: {error}")
    return {}


def from_table(
    model: type[Group],
    table: Mapping[str, object],
    where: str,
    faults: list[str],
    lines: Mapping[str, int] | None = None,
) -> dict[str, Given]:
    """The options in a table; unknown keys are faults.

    ``where`` goes before each key in faults, with the number of the key's line where that is known.
    """
    lines = lines or {}
    by_name = {option.name: option for option in options(model)}
    groups = {option.name.rpartition(".")[0] for option in options(model)} - {""}
    given = {}
    for name, value in _flat(table, groups):
        here = f"{where.removesuffix(': ')}:{lines[name]}: {name}" if name in lines else where + name
        if name in by_name:
            given[name] = Given(value, "file", here)
        elif name in groups:
            faults.append(f"{here}: {reprlib.repr(value)}: expected a table")
        else:
            faults.append(f"{here}: unknown key{suggestion(name, [*by_name, *groups])}")
    return given


def _lines(text: str) -> dict[str, int]:
    """The line of each key that stands at the beginning of a line, under its table's header."""
    found: dict[str, int] = {}
    prefix = ""
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.match(line)) is not None:
            prefix = header[1] + "."
            found.setdefault(header[1], number)
        elif (key := _KEY.match(line)) is not None:
            found.setdefault(prefix + key[1], number)
    return found


def _flat(table: Mapping[str, object], groups: set[str], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        name = prefix + key
        if isinstance(value, dict) and name in groups:
            yield from _flat(value, groups, name + ".")
        else:
            yield name, value


# --------------------------------------------------------------------------------- loading


def load(
    model: type[Settings],
    *,
    flags: Mapping[str, object],
    variables: Mapping[str, str] | None = None,
    file: Path | None = None,
    faults: Sequence[str] = (),
) -> Loaded[Settings]:
    """`read`, where values must also be right together.

    Raises:
        ConfigError: names all faults of all sources.
    """
    loaded, conflicts = read(model, flags=flags, variables=variables, file=file, faults=faults)
    if conflicts:
        raise ConfigError(conflicts)
    return loaded


def read(
    model: type[Settings],
    *,
    flags: Mapping[str, object],
    variables: Mapping[str, str] | None = None,
    file: Path | None = None,
    faults: Sequence[str] = (),
    asked: Collection[str] = (),
) -> tuple[Loaded[Settings], list[str]]:
    """Reads all sources and validates every value; also answers which values are wrong together.

    Args:
        model: what to load.
        flags: parsed flags by option name, as `skylb.helptext.add_flags` makes them.
        variables: environment variables with our prefix.
        file: the TOML file; ``SKYLB_CONFIG`` names it where no flag did.
        faults: what was found wrong with the flags already.
        asked: flags that these faults say to use: what is wrong with them together is not said as well.

    Raises:
        ConfigError: a value is not valid; names all faults of all sources.
    """
    found = list(faults)
    variables = variables or {}
    if file is None and CONFIG_VARIABLE in variables:
        file = Path(variables[CONFIG_VARIABLE])
    given = from_file(model, file, found) if file is not None else {}
    given |= from_environment(model, variables, found)
    given |= from_flags(model, flags)
    settings, conflicts = _build_parts(model, given, found, asked)
    if settings is None or found:
        raise ConfigError(found + conflicts)
    return Loaded(settings, given), conflicts


def build(model: type[Settings], given: Mapping[str, Given], faults: list[str]) -> Settings | None:
    """Validates every value, then values against each other; appends what is wrong to ``faults``.

    The settings are complete only where ``faults`` is still empty afterwards.
    """
    settings, conflicts = _build_parts(model, given, faults)
    faults += conflicts
    return settings


def _build_parts(
    model: type[Settings], given: Mapping[str, Given], faults: list[str], asked: Collection[str] = ()
) -> tuple[Settings | None, list[str]]:
    """The settings, and which values are wrong together; values that are wrong alone go to ``faults``."""
    tree: dict[str, Any] = {}
    faulty = {option.name for option in options(model) if option.flag in asked}
    for option in options(model):
        here = given.get(option.name)
        problems = _place(tree, option, here)
        if problems:
            faults += problems
            faulty.add(option.name)
    settings = _build(model, tree, faults)
    if settings is None:
        return None, []
    return settings, [text for names, text in settings.conflicts() if faulty.isdisjoint(names)]


def _place(tree: dict[str, Any], option: Option, given: Given | None) -> list[str]:
    """Validates one value and puts it into the tree; answers what is wrong with it."""
    if given is None:
        return [f"{option.flag}: missing: expected {option.expected}"] if option.required else []
    value = [given.value] if option.many and isinstance(given.value, str) else given.value
    if isinstance(value, bool) and plain(option.field.annotation) is not bool:
        return [f"{given.where}: {value!r}: expected {option.expected}"]
    kind = (
        Annotated[option.field.annotation, *option.field.metadata]
        if option.field.metadata
        else option.field.annotation
    )
    try:
        valid = _adapter(kind).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        inner = [detail for detail in details if detail["type"] not in LENGTH_ERRORS]
        return [_fault(detail, given, option) for detail in inner or details]
    branch = tree
    for name in option.path[:-1]:
        branch = branch.setdefault(name, {})
    branch[option.path[-1]] = valid
    return []


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if is_dataclass(plain(kind)):  # has its own parser, and takes no configuration
        return TypeAdapter(kind)
    return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))


def _fault(detail: ErrorDetails, given: Given, option: Option) -> str:
    reason = detail.get("ctx", {}).get("error")
    note = f" ({reason})" if isinstance(reason, ValueError) else ""
    if detail["type"] in LENGTH_ERRORS:
        note = f" ({detail['msg']})"
    return f"{given.where}: {_shown(detail['input'])}: expected {option.expected}{note}"


def _shown(value: object) -> str:
    """A value as faults show it: long ones cut, and without the credentials of a URL."""
    return reprlib.repr(_CREDENTIALS.sub("://...@", value) if isinstance(value, str) else value)


def _build(model: type[Settings], tree: dict[str, Any], faults: list[str]) -> Settings | None:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        if not faults:
            faults += [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        return None


# ------------------------------------------------------------------------------- rendering
