"""Words of a command line become settings: flags of SkyLB, and for ``skylb serve`` those of other routers."""

import argparse
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from skylb import options
from skylb.config import Group, Settings, environment
from skylb.dropin.translate import LAUNCH, Translation, translate
from skylb.errors import ConfigError

HELP_ALL = "--help-all"

THEIRS = (
    "Flags of vllm-router, smg, sglang-router and production-stack are understood: see docs/MIGRATING.md."
)

AnySettings = TypeVar("AnySettings", bound=Group)


def load(
    command: str, model: type[AnySettings], words: Sequence[str], about: str, first: str = ""
) -> options.Loaded[AnySettings]:
    """Settings that a command can run with; the arguments are those of `read`."""
    loaded, conflicts = read(command, model, words, about, first)
    if conflicts:
        raise ConfigError(conflicts)
    return loaded


def read(
    command: str, model: type[AnySettings], words: Sequence[str], about: str, first: str = ""
) -> tuple[options.Loaded[AnySettings], list[str]]:
    """Settings whose values are valid one by one, and what is wrong between them.

    They come from flags alone, or for ``skylb serve`` from flags, environment and file. ``first`` names the
    option that a word without a flag belongs to.
    """
    layered = model is Settings
    parser = argparse.ArgumentParser(
        prog=f"skylb {command}",
        description=about,
        allow_abbrev=False,
        exit_on_error=False,
        usage=argparse.SUPPRESS,
    )
    parser.usage = f"skylb {command} {first.upper()}{' ' * bool(first)}[flags]"
    if layered:
        parser.add_argument(
            "--config", metavar="FILE", type=Path, help="File with settings in TOML. (SKYLB_CONFIG)"
        )
        parser.add_argument(
            "--no-access-log",
            dest="access_log",
            action="append_const",
            const="off",
            help="The same as --access-log off.",
        )
    if any(option.experimental for option in options.options(model)):
        parser.epilog = "" if HELP_ALL in words else f"{HELP_ALL} shows the experimental flags too. "
        parser.add_argument(HELP_ALL, action="help", help="Show this text with the experimental flags.")
    if layered:
        parser.epilog = (parser.epilog or "") + THEIRS
    options.add_flags(parser, model, variables=layered, experimental=HELP_ALL in words)
    variables = environment() if layered else {}
    theirs = _translate(command, model, words, variables) if layered else Translation(list(words))
    lines = theirs.lines()
    found, faults = _parse(parser, theirs.words, first)
    try:
        found_all = options.read(
            model,
            flags=found,
            variables=variables if layered else None,
            file=found.get("config"),
            faults=theirs.faults + faults,
            asked=theirs.use,
        )
    except ConfigError:
        _say(lines)
        raise
    _say(lines, json=layered and getattr(found_all[0].settings, "log_format", "") == "json")
    return found_all


def _translate(
    command: str, model: type[Group], words: Sequence[str], variables: Mapping[str, str]
) -> Translation:
    """Puts our flags in the place of those of other routers."""
    own = {option.flag for option in options.options(model)}
    by_variable = {option.variable: option.flag for option in options.options(model)}
    given = {by_variable[name] for name in variables if name in by_variable}
    if options.CONFIG_VARIABLE in variables or any(word.partition("=")[0] == "--config" for word in words):
        given |= own  # the file may set anything
    return translate(words, own, given, launched=command == LAUNCH)


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
            faults.append(f"{flag}: unknown flag{options.suggestion(flag, known)}")
            after_flag = not equals
        else:
            if not after_flag:
                faults.append(f"{word!r}: unexpected argument: expected a flag")
            after_flag = False
    return faults
