"""The settings of ``skylb sim`` besides the scenario."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from skylb.config import Count, Expected, File, Group, Otherwise, Placeholder
from skylb.errors import ConfigError
from skylb.settings.values import Alone
from skylb.tools.sim.examples import LIST, names, path_of

SCENARIO = "scenario.toml"
"""Name of the scenario in a directory of recordings."""

SWEEP = Expected("FIELD=VALUE,VALUE,...")


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """Reads ``FIELD=V1,V2`` or ``FIELD=[V1, V2]``; values are TOML, or text where they are none.

    Raises:
        ValueError: says what is wrong with ``text``.
    """
    name, equals, values = text.partition("=")
    if not name or not equals or not values:
        raise ValueError("expected FIELD=VALUE,VALUE,...")
    whole = parse_value(values)
    if isinstance(whole, list) and whole:
        return name, whole
    return name, [parse_value(value) for value in values.split(",")]


def parse_value(text: str) -> Any:
    """A value as TOML has it, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _scenario(value: object) -> object:
    """The name of an example stands for its file, a directory for its scenario. What exists comes first.

    Raises:
        ValueError: it is a directory without a scenario, or a file of requests.
    """
    if not isinstance(value, str):
        return value
    path = Path(value)
    if (path / SCENARIO).is_file():
        return path / SCENARIO
    if path.is_file():
        if _has_requests(path):
            raise ValueError(
                f'a file of requests is no scenario: name it in one, as [workload] kind = "file", '
                f'path = "{path.name}"'
            )
        return value
    if value in names():
        return path_of(value)
    if path.is_dir():
        raise ValueError(f"the directory holds no recording: {SCENARIO} is missing")
    return value


def _has_requests(path: Path) -> bool:
    """Whether a file is JSON or packed: neither begins as TOML does."""
    try:
        with path.open("rb") as file:
            head = file.read(2)
    except OSError:
        return False
    return head.startswith(b"{") or head == b"\x1f\x8b"


class SimSettings(Group):
    """All settings of ``skylb sim``."""

    scenario: Annotated[
        Annotated[File, BeforeValidator(_scenario)] | None,
        Expected("the path of a file or of a directory of recordings, or the name of an example"),
        Placeholder("FILE"),
        Otherwise("required, except with --example"),
        Field(
            description="Scenario in TOML, a directory of recordings, or the name of an example. The path or "
            "name alone is enough, without the flag.",
        ),
    ] = None
    example: Annotated[
        str | None,
        Expected("the name of an example"),
        Placeholder("NAME"),
        Alone(LIST),
        Field(
            description="Write an example of a scenario to stdout, and run nothing. Without a name, list the "
            "examples.",
        ),
    ] = None
    sweep: Annotated[
        tuple[str, ...],
        SWEEP,
        Placeholder(SWEEP),
        Field(
            max_length=16,
            description="Values of a field of the scenario to compare. With several sweeps, SkyLB runs each "
            "combination of their values.",
        ),
    ] = ()
    baseline: Annotated[
        tuple[str, ...],
        Expected("VALUE or FIELD=VALUE of the sweep"),
        Placeholder("VALUE"),
        Otherwise("the first point"),
        Field(
            max_length=16,
            description="Value of a sweep that the others are compared with. In a sweep of several fields, "
            "each point is compared with the one that has this value and is otherwise the same.",
        ),
    ] = ()
    seeds: Annotated[
        Count,
        Field(
            ge=1,
            le=1000,
            description="Number of runs of each point. Each run of a point has its own seed. All points use "
            "the same seeds.",
        ),
    ] = 1
    processes: Annotated[
        Count | None,
        Otherwise("the number of cores"),
        Field(ge=1, le=1024, description="Runs at once, each in a process of its own."),
    ] = None
    skip_bad: Annotated[
        bool, Field(description="Leave out and count broken lines of a workload file instead of stopping.")
    ] = False
    json_file: Annotated[
        Path | None,
        Expected("the path of a file to write"),
        Field(description="File to write the report to, as JSON."),
    ] = None
    plots: Annotated[
        Path | None,
        Expected("the path of a directory"),
        Placeholder("DIR"),
        Field(description="Directory for plots (PNG) and one page (HTML). Needs the extra sim."),
    ] = None
    progress: Annotated[
        Literal["auto", "lines", "off"],
        Field(description="Progress on stderr. auto: a live bar on a terminal, else a line now and then."),
    ] = "auto"

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if self.scenario is None and self.example is None:
            yield {"scenario"}, "--scenario: missing: expected the path of a file, or --example"
        if self.example is not None and (others := self._given() - {"example"}):
            flags = ", ".join("--" + name.replace("_", "-") for name in sorted(others))
            yield (
                {"example"},
                f"--example: runs nothing: expected without {flags}. Write it to a file and run that.",
            )
        names = []
        for text in self.sweep:
            try:
                names.append(parse_sweep(text)[0])
            except ValueError as error:
                yield {"sweep"}, f"--sweep: {text!r}: {error}"
        if len(set(names)) < len(names):
            yield {"sweep"}, "--sweep: a field is given twice: expected all its values at once"

    def _given(self) -> set[str]:
        """The names of the settings that differ from their defaults."""
        return {
            name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default
        }

    def scenario_path(self) -> Path:
        """The scenario file.

        Raises:
            ConfigError: there is none.
        """
        if self.scenario is None:
            raise ConfigError(["--scenario: missing: expected the path of a file"])
        return self.scenario

    def sweeps(self) -> dict[str, list[Any]]:
        """Values by field."""
        return dict(map(parse_sweep, self.sweep))

    def process_count(self) -> int:
        """Runs at once."""
        return self.processes or len(os.sched_getaffinity(0))
