"""Words of a command line become settings: flags of SkyLB, and for ``skylb serve`` those of other routers."""

import argparse
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from skylb import options
from skylb.config import Group, Settings, environment
from skylb.dropin.translate import LAUNCH, Translation, translate
from skylb.errors import ConfigError
from skylb.helptext import HELP_ALL, HelpFormatter, Parser, add_flags, has_more
from skylb.hints import suggestion
from skylb.output import json_asked

THEIRS = (
    "Each flag is also a variable (SKYLB_LISTEN is --listen) and a key of the TOML file (listen). A flag "
    "overrides a variable, a variable overrides the file.\n"
    "Flags of vllm-router, smg, sglang-router and production-stack are understood: see docs/MIGRATING.md."
)

SERVE = "serve"

AnySettings = TypeVar("AnySettings", bound=Group)


@dataclass(frozen=True, slots=True)
class _Usage:
    """What a command's help says, besides its settings."""

    command: str
    about: str
    first: str
    example: str
    switches: Mapping[str, str]

    @property
    def launched(self) -> bool:
        """Whether the flags are those of ``smg launch``."""
        return self.command.split()[-1] == LAUNCH


def load(
    command: str,
    model: type[AnySettings],
    words: Sequence[str],
    about: str,
    first: str = "",
    *,
    example: str = "",
    switches: Mapping[str, str] | None = None,
) -> options.Loaded[AnySettings]:
    """Settings that a command can run with; the arguments are those of `read`.

    Raises:
        ConfigError: names every fault.
    """
    loaded, conflicts = read(command, model, words, about, first, example=example, switches=switches)
    if conflicts:
        raise ConfigError(conflicts)
    return loaded


def read(
    command: str,
    model: type[AnySettings],
    words: Sequence[str],
    about: str,
    first: str = "",
    *,
    example: str = "",
    switches: Mapping[str, str] | None = None,
) -> tuple[options.Loaded[AnySettings], list[str]]:
    """Settings whose values are valid one by one, and what is wrong between them.

    They come from flags alone, or for ``skylb serve`` from flags, environment and file.

    Args:
        command: the words behind ``skylb``.
        model: the settings.
        words: the command line behind them.
        about: what the command does, for its help.
        first: the option that a word without a flag belongs to.
        example: a command line, for the help.
        switches: flags without a value that are no settings, and their help; the command looks for them
            in ``words``.
    """
    usage = _Usage(command, about, first, example, switches or {})
    layered = model is Settings
    parser = _parser(usage, model, everything=HELP_ALL in words)
    variables = environment() if layered else {}
    theirs = _translate(usage, model, words, variables) if layered else Translation(list(words))
    found, faults = _parse(parser, theirs.words, usage.first)
    _say(theirs.lines(), json=layered and json_asked(words, variables))
    try:
        loaded, conflicts = options.read(
            model,
            flags=found,
            variables=variables if layered else None,
            file=found.get("config"),
            faults=theirs.faults + faults,
            asked=theirs.use,
        )
    except ConfigError as error:
        raise ConfigError(_as_typed(error.faults, words, first)) from None
    return loaded, _as_typed(conflicts, words, first)


def _as_typed(faults: Sequence[str], words: Sequence[str], first: str) -> list[str]:
    """Faults that call the word without a flag as the usage line does, unless its flag was typed."""
    flag = "--" + first.replace("_", "-")
    if not first or any(word.partition("=")[0] == flag for word in words):
        return list(faults)
    start = f"{flag}: "
    return [
        f"{first.upper()}: {fault.removeprefix(start)}" if fault.startswith(start) else fault
        for fault in faults
    ]


def _parser(usage: _Usage, model: type[Group], *, everything: bool) -> argparse.ArgumentParser:
    layered = model is Settings
    first = f"{usage.first.upper()} " if usage.first else ""
    parser = Parser(
        prog=f"skylb {usage.command}",
        usage=f"skylb {usage.command} {first}[flags]",
        description=usage.about + (f"\n\nexample: {usage.example}" if usage.example else ""),
        allow_abbrev=False,
        exit_on_error=False,
        add_help=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("-h", "--help", action="help", help="Show this text.")
    if has_more(model):
        seen = "all flags" if not everything else "this text"
        parser.add_argument(HELP_ALL, action="help", help=f"Show {seen}, with less common ones.")
        parser.epilog = "" if everything else f"{HELP_ALL} shows all flags.\n"
    else:
        parser.add_argument(HELP_ALL, action="help", help=argparse.SUPPRESS)
    for flag, about in usage.switches.items():
        parser.add_argument(flag, dest=flag, action="store_true", default=argparse.SUPPRESS, help=about)
    if layered:
        parser.add_argument(
            "--config", metavar="FILE", type=Path, help="File with settings in TOML. (SKYLB_CONFIG)"
        )
        parser.add_argument(
            "--no-access-log",
            dest="access_log",
            action="append_const",
            const="off",
            help="The same as --access-log off." if everything else argparse.SUPPRESS,
        )
        parser.epilog = (parser.epilog or "") + THEIRS
    add_flags(parser, model, variables=layered, everything=everything)
    return parser


def _translate(
    usage: _Usage, model: type[Group], words: Sequence[str], variables: Mapping[str, str]
) -> Translation:
    """Puts our flags in the place of those of other routers."""
    own = {option.flag for option in options.options(model)}
    by_variable = {option.variable: option.flag for option in options.options(model)}
    given = {by_variable[name] for name in variables if name in by_variable}
    if options.CONFIG_VARIABLE in variables or any(word.partition("=")[0] == "--config" for word in words):
        given |= own  # the file may set anything
    return translate(words, own | set(usage.switches), given, launched=usage.launched)


def _say(lines: Sequence[str], *, json: bool = False) -> None:
    """Tells what became of the flags of another router, on stderr."""
    if json:
        from skylb.accesslog import json_line  # loads the core

        lines = [json_line(line.strip(), logging.INFO) for line in lines]
    elif lines:
        lines = [f"skylb: {lines[0]}", *lines[1:]]
    for line in lines:
        print(line, file=sys.stderr)


def _parse(
    parser: argparse.ArgumentParser, words: list[str], first: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """All flags, and what is wrong with them: argparse alone would stop at the first fault."""
    nargs = {flag: action.nargs for action in parser._actions for flag in action.option_strings}  # noqa: SLF001 - listed nowhere else
    faults = []
    kept = []
    for word, following in zip(words, [*words, "--"][1:], strict=True):
        if word in nargs and nargs[word] not in {0, "?"} and following.startswith("--"):
            faults.append(f"{word}: expected a value")
        else:
            kept.append(word)
    flags, extra = parser.parse_known_args(kept)
    found = vars(flags)
    plain = next((word for word in extra if not word.startswith("-")), None)
    if first and first not in found and plain is not None:
        extra.remove(plain)
        found[first] = [plain]
    return found, faults + _unknown(extra, nargs)


def _unknown(extra: Sequence[str], known: Collection[str]) -> list[str]:
    faults = []
    after_flag = False
    for word in extra:
        if word.startswith("-"):
            flag, equals, _ = word.partition("=")
            faults.append(f"{flag}: unknown flag{suggestion(flag, known)}")
            after_flag = not equals
        else:
            if not after_flag:
                faults.append(f"{word!r}: unexpected argument: expected a flag")
            after_flag = False
    return faults
