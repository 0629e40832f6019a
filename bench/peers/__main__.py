"""Real routers and proxies beside SkyLB, in real time, in front of the same mock replicas.

    python -m bench.peers [--quick] [--repeats 3] [--minutes 50] [--only skylb,smg] [--cases one,three]

A whole run that ends by itself writes ``bench/results/peers.md`` and ``peers.json``. One that is quick, has
a choice of rivals or cases, or has an early end prints tables; ``--write`` makes it write too. The figures
of all runs so far are always in ``~/.cache/skylb/peers.json``. A rival that is not installed or does not
start is a row with the reason. Ctrl-C and the end of ``--minutes`` end every process.
"""

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import environments
from bench.peers import report
from bench.peers.cases import CASES, REPEATS, Case, Entry, entries, quick, shuffled
from bench.peers.rivals import RIVALS
from bench.peers.run import RivalError, measure
from bench.peers.summary import Row, number, short
from bench.processes import heed_stops, rest_cpus
from bench.record import machine

ATTEMPTS = 2
"""A rival that failed so often in a row is not tried again."""

NOT_INSTALLED = "not installed"
LATEST = environments.CACHE / "peers.json"
"""The figures of the last run, whole or not, as they come."""

FAULTS = (
    RuntimeError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    http.client.HTTPException,
    subprocess.SubprocessError,
)
"""What one run may raise. It is the reason of its row; the other runs go on."""


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one repeat, shorter, fewer rivals in three regions")
    add("--repeats", type=int, default=0, help="most runs of a row, each with other requests (3; quick: 1)")
    add("--minutes", type=float, default=0.0, help="begin no run that might end later (50; quick: 5)")
    add("--only", default="", help=f"only these of {', '.join(rival.name for rival in RIVALS)}")
    add("--cases", default="", help=f"only these of {', '.join(case.name for case in CASES)}")
    add("--seconds", type=float, default=0.0, help="measure so long instead, in seconds of the replicas")
    add("--write", action="store_true", help="renew bench/results/peers.md, whole or not")
    options = parser.parse_args(arguments)
    options.repeats = options.repeats or (1 if options.quick else REPEATS)
    options.minutes = options.minutes or (5.0 if options.quick else 50.0)
    parts = options.quick or options.only or options.cases or options.seconds
    options.whole = not parts and options.repeats >= REPEATS
    for given, known in ((options.only, {r.name for r in RIVALS}), (options.cases, {c.name for c in CASES})):
        unknown = set(filter(None, given.split(","))) - known
        if unknown:
            parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(sorted(known))}")
    return options


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases, as the options have them."""
    names = [name for name in options.cases.split(",") if name]
    cases = [case for case in CASES if not names or case.name in names]
    lengths = [quick(case) if options.quick else case for case in cases]
    return [shortened(case, options) for case in lengths if case is not None]


def shortened(case: Case, options: argparse.Namespace) -> Case:
    """With the rivals and the length that were asked for."""
    if options.only:
        only = options.only.split(",")
        full = next(one for one in CASES if one.name == case.name)
        case = replace(case, rivals=tuple(name for name in full.rivals if name in only))
    if options.seconds:
        case = replace(case, measured_s=options.seconds, warmup_s=options.seconds * 0.3)
    return case


def installed(rows: Sequence[Row]) -> None:
    """Installs what the rows need; those that cannot be had get the reason."""
    names = dict.fromkeys(row.entry.rival.environment for row in rows if row.entry.rival.environment)
    for name in names:
        why = environments.install(name)
        for row in rows:
            if row.entry.rival.environment == name and why is not None:
                row.reason = f"{NOT_INSTALLED}: {why}"


def plan(cases: Sequence[Case], repeats: int) -> Iterator[tuple[int, Entry]]:
    """Every run: all rows once, then all again, so that an early end leaves complete repeats."""
    for repeat in range(repeats):
        for case in cases:
            if repeat < case.repeats_max:
                yield from ((repeat + 1, entry) for entry in shuffled(list(entries(case)), repeat))


def run_all(
    rows: dict[str, Row], cases: Sequence[Case], options: argparse.Namespace, done: Callable[[], None]
) -> bool:
    """Runs the plan until it is done or there is no time left; calls ``done`` after each run.

    Returns:
        Whether every run of the plan was tried.
    """
    deadline = time.monotonic() + options.minutes * 60
    failures: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="skylb-peers-workloads-") as workloads:
        for seed, entry in plan(cases, options.repeats):
            row = rows[entry.key]
            name = entry.rival.name
            if row.reason.startswith(NOT_INSTALLED) or failures.get(name, 0) >= ATTEMPTS:
                row.reason = row.reason or f"it failed {ATTEMPTS} times elsewhere"
                continue
            if time.monotonic() + entry.longest_s() > deadline:
                print(f"{entry.key} #{seed}: no time is left for it", flush=True)
                return False
            began_s = time.monotonic()
            try:
                run = measure(entry, seed, Path(workloads))
            except FAULTS as error:
                failures[name] = failures.get(name, 0) + 1
                row.failed += isinstance(error, RivalError)
                row.reason = short(str(error)) or type(error).__name__
                print(f"{entry.key} #{seed}: {type(error).__name__}: {error}", flush=True)
                done()
                continue
            row.runs[seed] = run | {"took_s": time.monotonic() - began_s}
            failures.pop(name, None)
            done()
            told = f"{run['tokens_per_s']:.0f} tokens/s, TTFT P90 {number(run['ttft_p90_s'], '.2f')} s"
            told += f", hit rate {number(run['hit_rate'], '.3f')}, failed {run['failed']}"
            print(f"{entry.key} #{seed}: {told}", flush=True)
    return True


def main() -> None:
    """Measures, prints, stores."""
    options = parsed()
    heed_stops()
    cases = chosen(options)
    rows = {entry.key: Row(entry) for case in cases for entry in entries(case)}
    command = " ".join(["python -m bench.peers", *sys.argv[1:]]) if len(sys.argv) > 1 else "make peers"
    status, complete = 0, False

    def done() -> None:
        report.keep_figures(rows, machine(), command, LATEST)

    try:
        installed(list(rows.values()))
        os.sched_setaffinity(0, rest_cpus())
        complete = run_all(rows, cases, options, done)
    except KeyboardInterrupt:
        print("interrupted: what there is follows", flush=True)
        status = 130
    for case in cases:
        found = report.of_case(rows, case)
        print("\n".join(["", case.title, *report.text_table(found)]))
        print("\n".join(f"  {note}" for note in report.notes(case, found)))
    if ((options.whole and complete) or options.write) and any(row.runs for row in rows.values()):
        report.keep(rows, cases, machine(), command)
    else:
        print(f"\nbench/results is as it was (--write renews it); all figures: {LATEST}")
    sys.exit(status)


if __name__ == "__main__":
    main()
