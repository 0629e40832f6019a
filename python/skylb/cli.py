"""The command ``skylb``: words on a command line become settings, a failure becomes an exit status.

Status 0: done. 1: a failure while running (a port in use). 2: the configuration or the command line
is at fault, and every fault has been named. 130: interrupted. 141: the reader of the output left.
"""

import argparse
import difflib
import errno
import sys
from collections.abc import Callable, Sequence
from functools import partial

from skylb.commands import COMMANDS, serve
from skylb.config import environment
from skylb.descriptors import hold_standard
from skylb.dropin.translate import FLAGS, LAUNCH
from skylb.errors import ConfigError, SkyLBError
from skylb.flags import SERVE
from skylb.helptext import HELP_ALL, Parser
from skylb.hints import CLOSE
from skylb.output import (
    EXIT_CONFIG,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_PIPE,
    drop_output,
    json_asked,
    print_faults,
)

MEANT = {
    "run": "serve",
    "start": "serve",
    "server": "serve",
    "router": "serve",
    "proxy": "serve",
    "help": "--help",
    "version": "--version",
    "status": "state",
    "top": "state",
    "replicas": "state",
    "bench": "load",
    "benchmark": "load",
    "simulate": "sim",
    "check": "config check",
    "validate": "config check",
}
"""Words of other programs, and the command that they stand for here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and answers its exit status."""
    hold_standard()
    try:
        try:
            return _main(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # here and not at the interpreter's end, where a fault could not be answered
    except BrokenPipeError:
        drop_output()
        return EXIT_PIPE
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EIO, errno.EBADF}:
            raise
        drop_output()
        print(f"skylb: the output cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_FAILURE


def _main(words: list[str]) -> int:
    launches = bool(words) and words[0].partition("=")[0] in FLAGS
    if not launches and (not words or words[0].startswith("-")):
        parser = _top_parser()
        parser.parse_args(words)  # ends the process for --help and --version
        parser.print_help(sys.stderr)
        return EXIT_CONFIG
    command = partial(serve, command=SERVE) if launches else _command(words[0])
    if command is None:
        return EXIT_CONFIG
    try:
        return command(words if launches else words[1:])
    except ConfigError as error:
        serves = launches or words[0] in {SERVE, LAUNCH}
        json = serves and json_asked(words, environment())
        print_faults("in the configuration", error.faults, json=json)
        return EXIT_CONFIG
    except SkyLBError as error:
        print(f"skylb: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _top_parser() -> argparse.ArgumentParser:
    rows = "\n".join(
        f"  {name:<16}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()
    )
    parser = Parser(
        prog="skylb",
        usage="skylb COMMAND [--help] [flags]",
        description="Load balancer for vLLM and SGLang replicas. It prefers replicas that cache the prompt.",
        epilog=f"commands:\n{rows}\n\n"
        f"skylb COMMAND --help shows the common flags of a command, skylb COMMAND {HELP_ALL} every flag.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(HELP_ALL, action="help", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"skylb {_version()}")
    return parser


def _version() -> str:
    from skylb import _core  # the extension is not needed to print help

    return _core.__version__


def _command(name: str) -> Callable[[Sequence[str]], int] | None:
    """What a word runs; ``None``: it is no command, and that was said."""
    if name == LAUNCH:
        return partial(serve, command=LAUNCH)
    if name in COMMANDS:
        return COMMANDS[name]
    close = [MEANT[name]] if name in MEANT else difflib.get_close_matches(name, COMMANDS, n=1, cutoff=CLOSE)
    hint = f": did you mean skylb {close[0]}?" if close else "."
    print(f"skylb: {name}: unknown command{hint} Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
    return None
