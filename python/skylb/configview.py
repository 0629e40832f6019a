"""Settings as text: ``skylb config show`` and the tables of the documentation."""

import json
from collections.abc import Iterable
from pathlib import PurePath

from skylb.config import Group, Settings
from skylb.options import Loaded, Option, options, value_of


def show(loaded: Loaded[Settings]) -> str:
    """Every value with its origin, as a TOML file that could be loaded again."""
    lines: list[tuple[str, str]] = []
    group = ""
    for option in options(type(loaded.settings)):
        title, _, key = option.name.rpartition(".")
        if title != group:
            group = title
            lines += [("", ""), (f"[{title}]", "")]
        given = loaded.origins.get(option.name)
        origin = (
            "default"
            if given is None
            else given.where
            if given.kind == "file"
            else f"{given.kind} {given.where}"
        )
        value = value_of(loaded.settings, option)
        lines.append((f"# {key} is not set" if value is None else f"{key} = {_toml(value)}", origin))
    width = min(60, max(len(text) for text, origin in lines if origin))
    return "\n".join(f"{text:<{width}}  # {origin}" if origin else text for text, origin in lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value) if not isinstance(value, PurePath) else value.as_posix(), ensure_ascii=False)


EXPERIMENTAL = "experimental"
"""In `table`, stands for the experimental options of all groups, which are in no other table."""


def table(model: type[Group], group: str) -> str:
    """A Markdown table of the options of one group; ``""`` is the top level."""
    return "".join(_rows(option for option in options(model) if _group(option) == group))


def _group(option: Option) -> str:
    return EXPERIMENTAL if option.experimental else option.name.rpartition(".")[0]


def _rows(chosen: Iterable[Option]) -> Iterable[str]:
    yield "| flag | default | meaning | expected |\n|---|---|---|---|\n"
    for option in chosen:
        repeat = " (repeatable)" if option.many else ""
        cells = (
            f"`{option.flag}`{repeat}",
            f"`{option.otherwise}`",
            option.description,
            option.expected,
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
