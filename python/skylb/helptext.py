"""Flags and their help texts, from the models of settings."""

import argparse
import re
import sys
import textwrap
from collections.abc import Iterable
from functools import partial
from shutil import get_terminal_size
from typing import Any, Literal, Protocol, get_args, get_origin

from skylb.config import Group, Settings
from skylb.options import Option, options, plain
from skylb.settings.sections import EXAMPLES
from skylb.settings.values import Alone, mark_of

HELP_ALL = "--help-all"
WIDTH_MAX = 100
EXPERIMENTAL = "experimental"

EXACT = re.compile(r" |example: ")
"""How lines begin that are not wrapped."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lines of the terminal's width that keep flags whole."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=min(get_terminal_size().columns, WIDTH_MAX) - 1)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = partial(textwrap.wrap, width=width, break_on_hyphens=False)
        lines = [filled(line) if not EXACT.match(line) else [line] for line in text.splitlines()]
        return "\n".join(indent + line for wrapped in lines for line in wrapped or [""])


class Writable(Protocol):
    """Where a text goes."""

    def write(self, text: str, /) -> object:
        """Writes it."""


class Parser(argparse.ArgumentParser):
    """A parser that does not hide that its help cannot be written."""

    def _print_message(self, message: str, file: Writable | None = None) -> None:
        """Writes a help text; on stderr argparse ignores a failure."""
        if file is not None and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def has_more(model: type[Group]) -> bool:
    """Whether ``--help-all`` shows flags that ``--help`` does not."""
    return any(not shown_first(model, option) for option in options(model))


def shown_first(model: type[Group], option: Option) -> bool:
    """Whether ``--help`` shows a flag: a common one, or any that is not experimental where none is marked."""
    marked = any(other.common for other in options(model))
    return option.common if marked else not option.experimental


def add_flags(
    parser: argparse.ArgumentParser, model: type[Group], *, variables: bool = True, everything: bool = False
) -> None:
    """Adds one flag per option. Values stay text here; `skylb.options.load` validates them.

    Args:
        parser: gets the flags, in one group of arguments per section.
        model: the settings.
        variables: name the environment variables in the help text of everything.
        everything: show all options in the help text; they are flags either way.
    """
    groups: dict[str, Any] = {}
    for option in _in_order(model):
        shown = everything or shown_first(model, option)
        title = EXPERIMENTAL if option.experimental else option.section
        if shown and title not in groups:
            example = EXAMPLES.get(title) if model is Settings else None
            groups[title] = parser.add_argument_group(title, example and f"example: {example}")
        _add(
            groups[title] if shown else parser,
            option,
            shown=shown,
            variables=variables,
            everything=everything,
        )


def flags_of(model: type[Group]) -> str:
    """The flags of a model and what they do, for a help text that is written by hand."""
    parser = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS, formatter_class=HelpFormatter)
    add_flags(parser, model, variables=False)
    return parser.format_help().split("\n", 1)[1]


def _in_order(model: type[Group]) -> Iterable[Option]:
    """By section, the experimental options last."""
    found = options(model)
    known = [title for title in EXAMPLES if model is Settings]
    sections = list(dict.fromkeys([*known, *(option.section for option in found)]))
    return sorted(found, key=lambda option: (option.experimental, sections.index(option.section)))


def _add(parser: Any, option: Option, *, shown: bool, variables: bool, everything: bool) -> None:
    add = partial(parser.add_argument, dest=option.name, default=argparse.SUPPRESS)
    text = _help(option, variables=variables and everything) if shown else argparse.SUPPRESS
    if plain(option.field.annotation) is bool:
        add(option.flag, action="append_const", const="true", help=text)
        opposite = option.flag.replace("--", "--no-", 1)
        told = shown and (everything or option.default)
        about = f"Turn {option.flag} off." if told else argparse.SUPPRESS
        add(opposite, action="append_const", const="false", help=about)
    elif (alone := mark_of(option.field, Alone)) is not None:
        add(option.flag, action="append", nargs="?", const=str(alone), metavar=option.metavar, help=text)
    else:
        add(option.flag, action="append", metavar=option.metavar, help=text)


def _help(option: Option, *, variables: bool) -> str:
    kind = plain(option.field.annotation)
    named = get_origin(kind) is Literal and not option.metavar.startswith("{")
    choices = f" One of {', '.join(map(str, get_args(kind)))}." if named else ""
    notes = ["required" if option.required else f"default: {option.otherwise}"]
    notes += ["repeatable"] if option.many else []
    notes += [option.variable] if variables else []
    return f"{option.description}{choices} ({'; '.join(notes)})".replace("%", "%%")
