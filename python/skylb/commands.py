"""The commands: each loads its settings, does its work and answers an exit status.

A command is one function and one row in `COMMANDS`. It imports its work when it runs: no command should
wait for the libraries of another.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from skylb.config import Settings, manager_environment
from skylb.descriptors import closed_streams, raise_limit
from skylb.errors import ConfigError, SkyLBError
from skylb.flags import load, read
from skylb.output import EXIT_CONFIG, EXIT_FAILURE, EXIT_INTERRUPTED, drop_output, print_faults

DOCTORS = frozenset({"--ask", "--json"})
"""Flags of ``skylb doctor`` besides those of ``skylb serve``."""

Result = TypeVar("Result")


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    import uvloop  # no loop is needed to check a configuration

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def serve(words: Sequence[str], command: str = "serve") -> int:
    """Run a load balancer in front of a region's replicas."""
    loaded = load(command, Settings, words, "Runs a load balancer in front of the replicas of one region.")
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

    loaded = load(
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
    from skylb.tools import load as generator  # loads a client

    loaded = load(
        "load",
        generator.LoadSettings,
        words,
        "Sends conversations and reports the times that their users would wait.",
    )
    raise_limit()
    report = _run(generator.run(loaded.settings))
    print(generator.render(report))
    return 0 if report.total.ok else EXIT_FAILURE


def _sim(words: Sequence[str]) -> int:
    """Simulate a scenario in virtual time; print its figures, draw plots."""
    from skylb.tools import sim  # loads a simulator

    about = "Simulates a scenario in virtual time. The decisions are made by the code of skylb serve."
    loaded = load("sim", sim.SimSettings, words, about, first="scenario")
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
    settings = load("wan", wan.WanSettings, words, about).settings
    if settings.tell and settings.control is not None:
        print("\n".join(_run(wan.tell(settings.control, settings.tell))))
    else:
        raise_limit()
        _run(wan.serve(settings))
    return 0


def _demo(words: Sequence[str]) -> int:
    """Run three regions on this machine: balancers, mock replicas, slow links, users, a live page."""
    from skylb.tools import demo  # loads everything

    loaded = load(
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
    settings = load("doctor", Settings, [word for word in words if word not in DOCTORS], about).settings
    report = _run(doctor.examine(settings, ask="--ask" in words))
    print(doctor.as_json(report) if "--json" in words else doctor.render(report))
    return 0 if report.works else EXIT_FAILURE


def _peers(words: Sequence[str]) -> int:
    """Print the peers of a running balancer: round-trip time, age of their state, room, bytes, forwards."""
    from skylb.tools.operate import ask, peers  # only operators ask

    about = "Asks the admin listener of a running balancer and prints a row per peer."
    settings = load("peers", peers.PeersSettings, words, about).settings
    print(peers.render(ask.ask(settings, "GET", "/peers"), json_lines=settings.json_lines))
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
        drop_output()
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
        said = command.new(load("keys new", command.NewSettings, rest, about).settings, _show_key)
        print(said, file=sys.stderr)
    elif verb == "list":
        about = "Prints the API keys of a keys file, without their hashes."
        print(command.render(load("keys list", command.ListSettings, rest, about).settings))
    elif verb == "revoke":
        about = "Revokes an API key."
        print(command.revoke(load("keys revoke", command.RevokeSettings, rest, about, first="id").settings))
    else:
        raise ConfigError([f"{verb!r}: expected skylb keys new, list or revoke"])
    return 0


TRACE_USAGE = """\
usage: skylb trace mooncake FILE --output FILE [flags]

mooncake  write a recording, or another file of requests, in Mooncake's format

skylb sim and skylb load read recordings and Mooncake's format as they are.
"""


def _trace(words: Sequence[str]) -> int:
    """Convert a recording or another file of requests."""
    verb, rest = (words[0] if words else ""), words[1:]
    if verb in {"-h", "--help"}:
        sys.stdout.write(TRACE_USAGE)
        return 0
    if verb != "mooncake":
        raise ConfigError([f"{verb!r}: expected skylb trace mooncake"])
    from skylb.tools.load import convert  # only this command converts

    about = "Writes requests in Mooncake's format: lengths, and blocks of 512 tokens with equal prefixes."
    settings = load("trace mooncake", convert.MooncakeSettings, rest, about, first="workload").settings
    print(convert.to_mooncake(settings))
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
        loaded, conflicts = read(f"config {verb}", Settings, rest, about)
        sys.stdout.write(configview.show(loaded))
        if conflicts:
            print_faults("for skylb serve", conflicts)
        return 0
    loaded = load(f"config {verb}", Settings, rest, about)
    from skylb import parts  # loads the whole service

    parts.check_files(loaded.settings)
    print(f"the configuration is good; values given: {len(loaded.origins)}, the others are defaults")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": serve,
    "mock": _mock,
    "load": _load_generator,
    "sim": _sim,
    "trace": _trace,
    "wan": _wan,
    "demo": _demo,
    "peers": _peers,
    "doctor": _doctor,
    "keys": _keys,
    "config": _config,
}
