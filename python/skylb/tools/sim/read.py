"""Scenario files: TOML in, scenarios out, every fault named by its field."""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, get_args

import msgspec

from skylb.errors import ConfigError
from skylb.hints import suggestion
from skylb.options import read_toml
from skylb.tools.sim import scenario as structs
from skylb.tools.sim import workload as kinds
from skylb.tools.sim.scenario import Scenario

POINTS_MAX = 10_000
"""Points of a sweep at most."""

Assignments = dict[str, Any]
"""Values by field, as in ``{"engine.policy": "ring"}``."""

_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_PLACE = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Point:
    """One scenario of a sweep.

    Attributes:
        values: what makes it differ from the others; empty without a sweep.
        scenario: it.
    """

    values: Assignments
    scenario: Scenario

    @property
    def name(self) -> str:
        """Its values as people write them."""
        return " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in self.values.items())


@dataclass(slots=True)
class ScenarioFile:
    """A scenario file before its sweep is spread.

    Attributes:
        tree: the file's table, without its sweep.
        sweep: values by field.
        name: for faults.
    """

    tree: dict[str, Any]
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    name: str = "scenario"

    def points(self) -> list[Point]:
        """All combinations of the sweep's values, the first field outermost.

        Raises:
            ConfigError: names every fault of every point, each once.
        """
        count = 1
        for values in self.sweep.values():
            count *= len(values)
        if count > POINTS_MAX:
            raise ConfigError([f"{self.name}: sweep: {count} points: expected at most {POINTS_MAX}"])
        faults: dict[str, None] = {}
        points = []
        for combination in product(*self.sweep.values()):
            chosen = dict(zip(self.sweep, combination, strict=True))
            try:
                points.append(Point(chosen, self.with_values(chosen)))
            except ConfigError as error:
                faults |= dict.fromkeys(error.faults)
        if faults:
            raise ConfigError(list(faults))
        return points

    def with_values(self, values: Assignments) -> Scenario:
        """The scenario with some fields changed.

        Raises:
            ConfigError: names every fault.
        """
        tree = self.tree
        faults: list[str] = []
        if values:
            tree = deepcopy(self.tree)
            for name, value in values.items():
                problem = assign(tree, name, value)
                faults += [f"sweep: {name}: {problem}"] if problem else []
        scenario = from_tree(tree, faults)
        if faults or scenario is None:
            raise ConfigError([f"{self.name}: {fault}" for fault in faults])
        return scenario


def read(path: Path | str) -> Scenario:
    """Reads a scenario file that has no sweep, or leaves its sweep out.

    Raises:
        ConfigError: names every fault.
    """
    return read_file(Path(path)).with_values({})


def read_file(path: Path) -> ScenarioFile:
    """Reads a scenario file; its fields are not checked yet.

    Raises:
        ConfigError: it cannot be read, is no TOML, or its sweep is none.
    """
    faults: list[str] = []
    tree = read_toml(path, faults)
    sweep = tree.pop("sweep", {})
    if not isinstance(sweep, dict):
        faults.append(f"{path}: sweep: expected a table of lists")
        sweep = {}
    for name, values in sweep.items():
        if not isinstance(values, list) or not values:
            faults.append(f"{path}: sweep: {name}: expected a list of values; write dotted names in quotes")
    if faults:
        raise ConfigError(faults)
    workload = tree.get("workload")
    if isinstance(workload, dict) and isinstance(workload.get("path"), str):
        workload["path"] = str(path.parent / workload["path"])
    return ScenarioFile(tree, sweep, str(path))


def from_tree(tree: Mapping[str, Any], faults: list[str]) -> Scenario | None:
    """A scenario from a table: one fault of each of its fields is named, and all of the engine's."""
    known = {info.name: info for info in msgspec.structs.fields(Scenario)}
    faults += [f"{name}: unknown field{suggestion(name, known)}" for name in tree if name not in known]
    values = {}
    for name, value in tree.items():
        if name in known:
            try:
                values[name] = msgspec.convert(value, type=known[name].type)
            except msgspec.ValidationError as error:
                faults.append(explain(error, name))
    if faults:
        return None
    scenario = Scenario(**values)
    try:
        scenario.to_json()
    except ConfigError as error:
        faults += error.faults
    return scenario


def explain(error: msgspec.ValidationError, field_name: str) -> str:
    """A fault as a sentence that begins with the field's name, parts of lists counted from 0."""
    match = _PLACE.match(str(error))
    if match is None:
        raise AssertionError("the pattern takes any text")
    path = re.sub(r"\[(\d+)\]", r".\1", match["path"] or "")
    text = match["text"]
    unknown = _UNKNOWN.match(text)
    if unknown is not None:
        return f"{field_name}{path}.{unknown[1]}: unknown field{suggestion(unknown[1], _FIELDS)}"
    text = text.replace("Object missing required field", "missing field")
    if "Invalid value" in text and path.endswith(".kind"):
        text += f"; expected one of {', '.join(_TAGS[field_name])}" if field_name in _TAGS else ""
    return f"{field_name}{path}: {text[0].lower()}{text[1:]}"


def _struct_fields(module: Any) -> set[str]:
    found = set()
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, msgspec.Struct):
            found |= {info.encode_name for info in msgspec.structs.fields(value)}
    return found


_FIELDS = _struct_fields(structs) | _struct_fields(kinds)
_TAGS = {
    "workload": [kind.__struct_config__.tag for kind in get_args(kinds.Workload)],
    "faults": [kind.__struct_config__.tag for kind in get_args(structs.Fault)],
}


def assign(tree: dict[str, Any], name: str, value: Any) -> str | None:
    """Sets a field named with dots (``regions.0.replicas.*.count``; ``*``: all); what hinders it."""
    targets: list[Any] = [tree]
    *parents, last = name.split(".")
    for part in parents:
        found = []
        for target in targets:
            below = _below(target, part)
            if below is None:
                return f"there is no {part} to go into"
            found += below
        targets = found
    for target in targets:
        keys = _keys(target, last)
        if keys is None:
            return f"there is no {last} to set"
        for key in keys:
            target[key] = deepcopy(value)
    return None


def _keys(target: Any, part: str) -> list[Any] | None:
    if isinstance(target, dict):
        return list(target) if part == "*" else [part]
    if isinstance(target, list) and part == "*":
        return list(range(len(target)))
    if isinstance(target, list) and part.isdigit() and int(part) < len(target):
        return [int(part)]
    return None


def _below(target: Any, part: str) -> list[Any] | None:
    keys = _keys(target, part)
    if keys is None:
        return None
    if isinstance(target, dict):
        return [target.setdefault(key, {}) for key in keys]
    return [target[key] for key in keys]
