"""The commands: each loads its settings, does its work and answers an exit status.

A command is one function and one row in `COMMANDS`. It imports its work when it runs: no command should
wait for the libraries of another.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from skylb.config import Settings, manager_environment
from skylb.descriptors import closed_streams, raise_limit
from skylb.dropin.translate import LAUNCH
from skylb.errors import ConfigError, SkyLBError
from skylb.flags import SERVE, load, read
from skylb.helptext import HELP_ALL, flags_of
from skylb.output import EXIT_FAILURE, EXIT_INTERRUPTED, drop_output, print_faults, tell_crashes_in_json

DOCTORS = {
    "--ask": "Also send each replica a request of one token.",
    "--json": "Print the findings as JSON.",
}
"""Flags of ``skylb doctor`` besides those of ``skylb serve``."""

HELPS = frozenset({"-h", "--help", HELP_ALL})

Result = TypeVar("Result")


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    import uvloop  # no loop is needed to check a configuration

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def serve(words: Sequence[str], command: str = SERVE) -> int:
    """Run a load balancer in front of a region's replicas."""
    about = "Runs a load balancer in front of the replicas of one region."
    settings = load(command, Settings, words, about).settings
    json = settings.log_format == "json"
    if json:
        tell_crashes_in_json()
    from skylb import app  # loads the whole service
    from skylb.workers import supervisor

    serving = app.serve if settings.workers == 1 else supervisor.serve
    try:
        _run(serving(settings, manager_environment()))
    except SkyLBError as error:
        if not json or isinstance(error, ConfigError):
            raise
        print(app.json_line(error, kind="fault"), file=sys.stderr)
        return EXIT_FAILURE
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


def _of_launch(command: str, words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command's words and the flags behind them, which may be those of ``launch``."""
    return (f"{command} {LAUNCH}", words[1:]) if words and words[0] == LAUNCH else (command, words)


def _doctor(words: Sequence[str]) -> int:
    """Look at replicas, keys, files and peers of a configuration; say what would not work."""
    from skylb.tools import doctor  # loads the whole service

    about = "Looks at what skylb serve would meet with the same flags, and starts nothing."
    command, rest = _of_launch("doctor", words)
    example = "skylb doctor --replica http://10.0.0.1:8000 --ask"
    settings = load(command, Settings, rest, about, example=example, switches=DOCTORS).settings
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


def _state(words: Sequence[str]) -> int:
    """Print what is wrong at a running balancer, its replicas, hold and peers."""
    from skylb.tools.operate import ask, state  # only operators ask

    about = "Asks the admin listener of a running balancer, and prints what is wrong first."
    settings = load("state", state.StateSettings, words, about, example="skylb state").settings
    print(state.render(ask.ask(settings, "GET", "/state"), as_json=settings.json_))
    return 0


def _drain(words: Sequence[str]) -> int:
    """Send a replica no new requests; --wait until none is in flight there."""
    from skylb.tools.operate import drain  # only operators ask

    about = "Asks a running balancer to send a replica no new requests. Those in flight there run on."
    example = "skylb drain http://10.0.0.1:8000 --wait"
    loaded = load("drain", drain.DrainSettings, words, about, first="replica", example=example)
    print(drain.drain(loaded.settings))
    return 0


def _leave(words: Sequence[str]) -> int:
    """Say that a replica ends: it gets nothing new, and what is there leaves in time."""
    from skylb.tools.operate import drain  # only operators ask

    about = "Tells a running balancer that a replica ends, as a spot instance's warning does."
    example = "skylb leave http://10.0.0.1:8000 --in 120"
    loaded = load("leave", drain.LeaveSettings, words, about, first="replica", example=example)
    print(drain.leave(loaded.settings))
    return 0


def _undrain(words: Sequence[str]) -> int:
    """Let a drained replica take requests again."""
    from skylb.tools.operate import drain  # only operators ask

    about = "Asks a running balancer to send a drained replica requests again."
    example = "skylb undrain http://10.0.0.1:8000"
    loaded = load("undrain", drain.ReplicaSettings, words, about, first="replica", example=example)
    print(drain.undrain(loaded.settings))
    return 0


def _evacuate(words: Sequence[str]) -> int:
    """Send a region's requests to other regions, or --end that."""
    from skylb.tools.operate import drain  # only operators ask

    about = "Asks a running balancer to send the requests of a region elsewhere; --within: running ones too."
    example = "skylb evacuate us --within 30"
    loaded = load("evacuate", drain.RegionSettings, words, about, first="region", example=example)
    print(drain.evacuate(loaded.settings))
    return 0


def _why(words: Sequence[str]) -> int:
    """Say why a request went where it went: the alternatives, what was predicted and what came."""
    from skylb.tools.operate import ask, why  # only operators ask

    about = "Asks the admin listener of a running balancer for the receipt of a request: see --receipts."
    settings = load("why", why.WhySettings, words, about, first="request").settings
    receipt = ask.ask(settings, "GET", f"/requests/{quote(settings.request, safe='')}")
    print(json.dumps(receipt) if settings.json_ else why.render(receipt))
    return 0


KEYS_USAGE = """\
usage: skylb keys new --file FILE --tenant NAME [flags]
       skylb keys list --file FILE [--json]
       skylb keys revoke ID --file FILE

new     make a key and print it once on the standard output
        (the file gets its hash)
list    print a row per key, without hashes
revoke  note that a key is revoked from now on

example: skylb keys new --file keys.toml --tenant acme --expires-in 90d

skylb serve --keys-file FILE reads the file again when it changes.

flags of skylb keys new:
"""


def _not_among(command: str, verb: str, verbs: str) -> ConfigError:
    """Says that the word behind a command is missing or none of its words."""
    said = repr(verb) if verb else f"skylb {command}: the next word is missing"
    return ConfigError([f"{said}: expected skylb {command} {verbs}"])


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
    from skylb.keys import command  # only this command changes keys

    if verb in HELPS:
        sys.stdout.write(KEYS_USAGE + flags_of(command.NewSettings))
        return 0

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
        raise _not_among("keys", verb, "new, list or revoke")
    return 0


TRACE_USAGE = """\
usage: skylb trace mooncake WORKLOAD --output FILE [flags]

mooncake  write a recording, or another file of requests, in Mooncake's
          format

Recordings and files in Mooncake's format need no conversion:
skylb load reads both (--workload). skylb sim DIR replays a recording.
For a file of requests, name it in a scenario: [workload] path.
"""


def _trace(words: Sequence[str]) -> int:
    """Convert a recording or another file of requests."""
    verb, rest = (words[0] if words else ""), words[1:]
    if verb in HELPS:
        sys.stdout.write(TRACE_USAGE)
        return 0
    if verb != "mooncake":
        raise _not_among("trace", verb, "mooncake")
    from skylb.tools.load import convert  # only this command converts

    about = "Writes requests in Mooncake's format: lengths, and blocks of 512 tokens with equal prefixes."
    settings = load("trace mooncake", convert.MooncakeSettings, rest, about, first="workload").settings
    print(convert.to_mooncake(settings))
    return 0


CONFIG_USAGE = """\
usage: skylb config show [flags of skylb serve]
       skylb config check [flags of skylb serve]
       skylb config table [GROUP]

show    print every setting with its value and the value's origin,
        as a TOML file
check   name every fault of the configuration and of the files that it names;
        start nothing
table   print one group's settings as a Markdown table: timeout, discovery, dns,
        kubernetes, engine, experimental, or without GROUP the main ones

example: skylb config check --config skylb.toml

Flags, the environment and --config FILE count as they do for skylb serve.
"""


def _config(words: Sequence[str]) -> int:
    """Print or check the settings of `skylb serve`."""
    from skylb import configview  # only this command prints settings

    verb, rest = (words[0] if words else ""), words[1:]
    if verb in HELPS or (verb == "table" and HELPS.intersection(rest)):
        sys.stdout.write(CONFIG_USAGE)
        return 0
    if verb == "table":
        sys.stdout.write(configview.table(Settings, rest[0] if rest else ""))
        return 0
    if verb not in {"show", "check"}:
        raise _not_among("config", verb, "show, check or table")
    about = "Takes the flags of skylb serve, and starts nothing."
    command, rest = _of_launch(f"config {verb}", rest)
    if verb == "show":
        loaded, conflicts = read(command, Settings, rest, about)
        sys.stdout.write(configview.show(loaded))
        if conflicts:
            print_faults("for skylb serve", conflicts)
        return 0
    loaded = load(command, Settings, rest, about)
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
    "state": _state,
    "drain": _drain,
    "leave": _leave,
    "undrain": _undrain,
    "evacuate": _evacuate,
    "peers": _peers,
    "why": _why,
    "doctor": _doctor,
    "keys": _keys,
    "config": _config,
}
