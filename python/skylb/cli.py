"""The command ``skylb``: words on a command line become settings, a failure becomes an exit status.

Status 0: done. 1: a failure while running (a port in use). 2: the configuration or the command line
is at fault, and every fault has been named. 130: interrupted. 141: the reader of the output left.
"""

import argparse
import asyncio
import difflib
import errno
import logging
import os
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from skylb import options
from skylb.config import Group, Settings, environment, manager_environment
from skylb.descriptors import closed_streams, hold_standard, raise_limit
from skylb.dropin.translate import FLAGS, LAUNCH, Translation, translate
from skylb.errors import ConfigError, SkyLBError

EXIT_FAILURE = 1
EXIT_CONFIG = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""What a shell shows for a process that SIGPIPE ended."""

HELP_ALL = "--help-all"

THEIRS = (
    "Flags of vllm-router, smg, sglang-router and production-stack are understood: see docs/MIGRATING.md."
)

DOCTORS = frozenset({"--ask", "--json"})
"""Flags of ``skylb doctor`` besides those of ``skylb serve``."""

AnySettings = TypeVar("AnySettings", bound=Group)
Result = TypeVar("Result")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and answers its exit status."""
    hold_standard()
    try:
        try:
            return _main(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # here and not at the interpreter's end, where a fault could not be answered
    except BrokenPipeError:
        _drop_output()
        return EXIT_PIPE
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EIO, errno.EBADF}:
            raise
        _drop_output()
        print(f"skylb: the output cannot be written: {error.strerror}", file=sys.stderr)
        return EXIT_FAILURE


def _drop_output() -> None:
    """What is still buffered goes nowhere: the interpreter would try again at its end, with a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _main(words: list[str]) -> int:
    serve = bool(words) and words[0].partition("=")[0] in FLAGS
    if not serve and (not words or words[0].startswith("-")):
        parser = _top_parser()
        parser.parse_args(words)  # ends the process for --help and --version
        parser.print_help(sys.stderr)
        return EXIT_CONFIG
    try:
        return _serve(words) if serve else _command(words[0])(words[1:])
    except ConfigError as error:
        _print_faults("in the configuration", error.faults)
        return EXIT_CONFIG
    except SkyLBError as error:
        print(f"skylb: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _print_faults(where: str, faults: Sequence[str]) -> None:
    print(f"skylb: {len(faults)} fault{'s' * (len(faults) > 1)} {where}:", file=sys.stderr)
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)


def _top_parser() -> argparse.ArgumentParser:
    rows = "\n".join(
        f"  {name:<16}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()
    )
    parser = argparse.ArgumentParser(
        prog="skylb",
        usage="skylb COMMAND [--help] [flags]",
        description="Load balancer for vLLM and SGLang replicas. It prefers replicas that cache the prompt.",
        epilog=f"commands:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skylb {_version()}")
    return parser


def _version() -> str:
    from skylb import _core  # the extension is not needed to print help

    return _core.__version__


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name == LAUNCH:
        return partial(_serve, command=LAUNCH)
    if name in COMMANDS:
        return COMMANDS[name]
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigError([f"{name}: unknown command{hint}: expected one of {', '.join(COMMANDS)}"])


# ------------------------------------------------------------------------------ parsing flags


def _load(
    command: str, model: type[AnySettings], words: Sequence[str], about: str, first: str = ""
) -> options.Loaded[AnySettings]:
    """Settings that a command can run with; the arguments are those of `_read`."""
    loaded, conflicts = _read(command, model, words, about, first)
    if conflicts:
        raise ConfigError(conflicts)
    return loaded


def _read(
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
        read = options.read(
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
    _say(lines, json=layered and getattr(read[0].settings, "log_format", "") == "json")
    return read


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


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    import uvloop  # no loop is needed to check a configuration

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


# ----------------------------------------------------------------------------------- commands


def _serve(words: Sequence[str], command: str = "serve") -> int:
    """Run a load balancer in front of a region's replicas."""
    loaded = _load(command, Settings, words, "Runs a load balancer in front of the replicas of one region.")
    from skylb import app  # loads the whole service

    try:
        _run(app.serve(loaded.settings, manager_environment()))
    except SkyLBError as error:
        if loaded.settings.log_format != "json":
            raise
        print(app.json_line(error), file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILURE
    return 0


def _mock(words: Sequence[str]) -> int:
    """Run mock replicas: they answer like vLLM, in real time, without a GPU."""
    from skylb.tools import mock  # loads a server

    loaded = _load(
        "mock",
        mock.MockSettings,
        words,
        "Runs mock replicas. They answer like vLLM. A model of vLLM computes how long each answer takes.",
    )
    raise_limit()
    _run(mock.serve(loaded.settings))
    return 0


def _load_generator(words: Sequence[str]) -> int:
    """Send conversations to any OpenAI-compatible URL and report percentiles."""
    from skylb.tools import load  # loads a client

    loaded = _load(
        "load",
        load.LoadSettings,
        words,
        "Sends conversations and reports the times that their users would wait.",
    )
    raise_limit()
    report = _run(load.run(loaded.settings))
    print(load.render(report))
    return 0 if report.total.ok else EXIT_FAILURE


def _sim(words: Sequence[str]) -> int:
    """Simulate a scenario in virtual time; print its figures, draw plots."""
    from skylb.tools import sim  # loads a simulator

    about = "Simulates a scenario in virtual time. The decisions are made by the code of skylb serve."
    loaded = _load("sim", sim.SimSettings, words, about, first="scenario")
    if loaded.settings.example is not None:
        sys.stdout.write(sim.example(loaded.settings.example))
        return 0
    report = sim.run_command(loaded.settings)
    print(sim.render(report))
    if report.interrupted:
        return EXIT_INTERRUPTED
    return 0 if any(run.total.completed for point in report.points for run in point.runs) else EXIT_FAILURE


def _wan(words: Sequence[str]) -> int:
    """Relay TCP connections with the delay, bandwidth and faults of links between regions."""
    from skylb.tools import wan  # loads a server

    about = "Relays TCP connections with the delay, bandwidth and faults of links between regions."
    settings = _load("wan", wan.WanSettings, words, about).settings
    if settings.tell and settings.control is not None:
        print("\n".join(_run(wan.tell(settings.control, settings.tell))))
    else:
        raise_limit()
        _run(wan.serve(settings))
    return 0


def _demo(words: Sequence[str]) -> int:
    """Run three regions on this machine: balancers, mock replicas, slow links, users, a live page."""
    from skylb.tools import demo  # loads everything

    loaded = _load(
        "demo",
        demo.DemoSettings,
        words,
        "Runs three regions on this machine: balancers, mock replicas, slow links, users, a live page.",
    )
    raise_limit()
    _run(demo.run(loaded.settings))
    return 0


def _doctor(words: Sequence[str]) -> int:
    """Look at replicas, keys, files and peers of a configuration; say what would not work."""
    from skylb.tools import doctor  # loads the whole service

    about = (
        "Takes the flags of skylb serve, and starts nothing. --ask also sends each replica a request of one "
        "token. --json prints the findings as JSON."
    )
    settings = _load("doctor", Settings, [word for word in words if word not in DOCTORS], about).settings
    report = _run(doctor.examine(settings, ask="--ask" in words))
    print(doctor.as_json(report) if "--json" in words else doctor.render(report))
    return 0 if report.works else EXIT_FAILURE


def _peers(words: Sequence[str]) -> int:
    """Print the peers of a running balancer: round-trip time, age of their state, room, bytes, forwards."""
    from skylb.mesh import command  # only this command prints peers

    loaded = _load(
        "peers",
        command.PeersSettings,
        words,
        "Asks the admin listener of a running balancer and prints a row per peer.",
    )
    print(command.render(command.ask(loaded.settings), json_lines=loaded.settings.json_lines))
    return 0


KEYS_USAGE = """\
usage: skylb keys new --file FILE --tenant NAME [flags]
       skylb keys list --file FILE [--json]
       skylb keys revoke ID --file FILE

new     make a key and print it once on the standard output; the file gets its hash
list    print a row per key, without hashes
revoke  note that a key is revoked from now on

skylb serve --keys-file FILE reads the file again when it changes.
"""


def _show_key(key: str, key_id: str) -> None:
    """Prints a key that is about to become valid.

    Raises:
        SkyLBError: nobody can have read it.
    """
    why = "it is closed" if "stdout" in closed_streams else ""
    try:
        print(key, flush=True)
    except OSError as error:
        _drop_output()
        why = error.strerror or str(error)
    if why:
        raise SkyLBError(
            f"the key {key_id} cannot be printed on the standard output: {why}. It was not made: "
            "the keys file is as it was"
        )


def _keys(words: Sequence[str]) -> int:
    """Make, show and revoke the API keys of a keys file."""
    verb, rest = (words[0] if words else ""), words[1:]
    if verb in {"-h", "--help"}:
        sys.stdout.write(KEYS_USAGE)
        return 0
    from skylb.keys import command  # only this command changes keys

    if verb == "new":
        about = "Makes an API key. The key goes to the standard output, what is said of it elsewhere."
        said = command.new(_load("keys new", command.NewSettings, rest, about).settings, _show_key)
        print(said, file=sys.stderr)
    elif verb == "list":
        about = "Prints the API keys of a keys file, without their hashes."
        print(command.render(_load("keys list", command.ListSettings, rest, about).settings))
    elif verb == "revoke":
        about = "Revokes an API key."
        print(command.revoke(_load("keys revoke", command.RevokeSettings, rest, about, first="id").settings))
    else:
        raise ConfigError([f"{verb!r}: expected skylb keys new, list or revoke"])
    return 0


CONFIG_USAGE = """\
usage: skylb config show [flags of skylb serve]
       skylb config check [flags of skylb serve]
       skylb config table [GROUP]

show    print every setting with its value and the value's origin, as a TOML file
check   name every fault of the configuration and of the files that it names; start nothing
table   print one group's settings as a Markdown table: timeout, discovery, dns, engine, experimental,
        or without GROUP the main ones

Flags, the environment and --config FILE count as they do for skylb serve.
"""


def _config(words: Sequence[str]) -> int:
    """Print or check the settings of `skylb serve`."""
    from skylb import configview  # only this command prints settings

    verb, rest = (words[0] if words else ""), words[1:]
    if verb in {"-h", "--help"} or (verb == "table" and {"-h", "--help"}.intersection(rest)):
        sys.stdout.write(CONFIG_USAGE)
        return 0
    if verb == "table":
        sys.stdout.write(configview.table(Settings, rest[0] if rest else ""))
        return 0
    if verb not in {"show", "check"}:
        raise ConfigError([f"{verb!r}: expected skylb config show, check or table"])
    about = "Takes the flags of skylb serve and starts nothing."
    if verb == "show":
        loaded, conflicts = _read(f"config {verb}", Settings, rest, about)
        sys.stdout.write(configview.show(loaded))
        if conflicts:
            _print_faults("for skylb serve", conflicts)
        return 0
    loaded = _load(f"config {verb}", Settings, rest, about)
    from skylb import parts  # loads the whole service

    parts.check_files(loaded.settings)
    print(f"the configuration is good; values given: {len(loaded.origins)}, the others are defaults")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": _serve,
    "mock": _mock,
    "load": _load_generator,
    "sim": _sim,
    "wan": _wan,
    "demo": _demo,
    "peers": _peers,
    "doctor": _doctor,
    "keys": _keys,
    "config": _config,
}
