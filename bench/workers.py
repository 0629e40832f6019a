"""What workers bring and cost: one process beside two workers, each held to a part of a core by a cgroup.

    python -m bench.workers [--quick]

The kernel holds each worker, and the one process, to a part of a core (cgroup v1, ``cpu.cfs_quota_us``).
The engine process is not held: its share is measured. CPU time is the kernel's (``schedstat``).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.overhead import work
from bench.overhead.client import Round, Tally
from bench.overhead.measure import canned_upstreams, upstreams
from bench.processes import free_port
from tests.support.processes import SKYLB, Child, answers

CGROUP = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 20_000
PARTS = {"request": 0.25, "chunk": 0.1}
"""Of a core, by what is counted: the mock replicas of one machine send chunks no faster."""
RESULT = Path("bench/results/bench-workers.md")


@dataclass(frozen=True)
class Kind:
    """One kind of work."""

    name: str
    title: str
    per: str
    count: int
    concurrency: int
    tokens: int


KINDS = (
    Kind(
        "requests",
        "2 kB chat in a closed loop of 64 connections, streams of 4 events",
        "request",
        6000,
        64,
        8,
    ),
    Kind("chunks", "96 streams of 200 chunks", "chunk", 96, 96, 199),
)


@dataclass
class Measured:
    """One round."""

    per_s: float
    us: float
    """CPU time of all processes."""
    engine_us: float
    """Of that, the engine process's."""


@contextmanager
def held(pid: int, part: float) -> Iterator[None]:
    """Holds a process to a part of a core."""
    group = CGROUP / f"skylb-bench-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(int(PERIOD_US * part)))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for member in (group / "cgroup.procs").read_text().split():
            (CGROUP / "cgroup.procs").write_text(member)
        group.rmdir()


def ran_ns(pid: int) -> int:
    """CPU time of all threads of one process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


@contextmanager
def balancer(urls: Sequence[str], workers: int) -> Iterator[tuple[int, list[int], int]]:
    """A balancer: its port, the processes that hold connections, and the engine process (0: the same)."""
    port, admin = free_port(), free_port()
    command = [*SKYLB, "serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    command += ["--access-log", "off", "--workers", str(workers), "--engine-in-flight-max", "4096"]
    for url in urls:
        command += ["--replica", url]
    child = Child(command)
    try:
        child.require(lambda: answers(f"http://127.0.0.1:{admin}/ready"), timeout_s=60, what="balancer")
        if workers == 1:
            yield port, [child.pid], 0
            return
        pids: list[int] = []
        deadline = time.monotonic() + 30
        while len(pids) < workers and time.monotonic() < deadline:
            time.sleep(0.2)
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/state", timeout=10) as answer:
                state = json.load(answer)
            pids = [worker["pid"] for worker in state["workers"] if worker["pid"]]
        yield port, pids, state["process"]["pid"]
    finally:
        child.stop()


def one_round(port: int, requests: Sequence[bytes], kind: Kind) -> Tally:
    """Runs one round in a fresh loop."""

    async def run() -> Tally:
        return await Round(port, requests, count=kind.count, concurrency=kind.concurrency).run()

    return uvloop.run(run())


def measure(kind: Kind, workers: int, part: float | None, rounds: int) -> list[Measured]:
    """Some rounds, the first of which warms up and does not count."""
    requests = work.requests(500, size=2000, stream=True, tokens=kind.tokens)
    fleet = canned_upstreams(4) if kind.per == "request" else upstreams(4, "--step-base-us", "4000")
    found = []
    with fleet as urls, balancer(urls, workers) as (port, holders, engine), ExitStack() as caps:
        one_round(port, requests, kind)
        if part is not None:
            for pid in holders:
                caps.enter_context(held(pid, part))
        for _ in range(rounds):
            pids = [*holders, *filter(None, [engine])]
            before = {pid: ran_ns(pid) for pid in pids}
            tally = one_round(port, requests, kind)
            spent = {pid: ran_ns(pid) - before[pid] for pid in pids}
            done = tally.requests if kind.per == "request" else tally.chunks
            assert not tally.errors, f"{tally.errors} errors"
            found.append(
                Measured(
                    done / tally.wall_s, sum(spent.values()) / done / 1e3, spent.get(engine, 0) / done / 1e3
                )
            )
    return found


def middle(rounds: list[Measured]) -> Measured:
    """The medians."""
    return Measured(
        statistics.median(of.per_s for of in rounds),
        statistics.median(of.us for of in rounds),
        statistics.median(of.engine_us for of in rounds),
    )


def row(name: str, one: str, two: str, ratio: str, goal: str) -> str:
    """A row of a table."""
    return f"| {name} | {one} | {two} | {ratio} | {goal} |"


HEADINGS = "| | one process | two workers | ratio | goal |"

HELD_CHUNKS = (
    "The CPU time is that of processes that are not held. A held process reads several chunks at once. "
    "So one process relays nearly all that the mock replicas of this machine send, and two cannot relay "
    "more. The first row says nothing of two workers."
)


def eight(own_us: float, engine_us: float) -> str:
    """What eight workers would do, each with a core, beside one core for the engine process."""
    most = 1e6 / engine_us
    first = "the engine process" if 8e6 / own_us > most else "the workers"
    return (
        f"One core of workers serves {1e6 / own_us:,.0f} requests per second. One core of the engine process "
        f"decides {most:,.0f}. So eight workers, each with a core, reach {min(8e6 / own_us, most):,.0f}. "
        f"The first bottleneck is {first}. It is reached with {most * own_us / 1e6:.1f} workers."
    )


def section(kind: Kind, rounds: int) -> list[str]:
    """One kind of work, one process beside two workers."""
    part = PARTS[kind.per]
    one, two = middle(measure(kind, 1, part, rounds)), middle(measure(kind, 2, part, rounds))
    free, frees = one, two
    if kind.per == "chunk":
        free, frees = middle(measure(kind, 1, None, rounds)), middle(measure(kind, 2, None, rounds))
    goal, engine_goal = ("<= 1.10", "-") if kind.per == "chunk" else ("<= 1.35", "<= 12")
    ratio = f"{two.per_s / one.per_s:.2f}"
    name = f"{kind.per}s per second, each process held to {part} core"
    lines = [
        f"## {kind.title}",
        "",
        "| | one process | two workers | ratio | goal |",
        "|---|---|---|---|---|",
    ]
    lines.append(row(name, f"{one.per_s:,.0f}", f"{two.per_s:,.0f}", ratio, ">= 1.70"))
    name, ratio = f"CPU per {kind.per}, all processes, us", f"{frees.us / free.us:.2f}"
    lines.append(row(name, f"{free.us:.1f}", f"{frees.us:.1f}", ratio, goal))
    lines.append(row("of that, the engine process, us", "-", f"{frees.engine_us:.2f}", "", engine_goal))
    if kind.per == "chunk":
        return [*lines, "", HELD_CHUNKS, ""]
    return [*lines, "", eight(two.us - two.engine_us, two.engine_us), ""]


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, and no file")
    quick = parser.parse_args().quick
    if not (CGROUP / "cpu.cfs_quota_us").exists() or os.geteuid():
        sys.exit(f"{CGROUP}: expected a cgroup of version 1 with the controller cpu, and root")
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ":")
    page = [
        "# make bench-workers",
        "",
        f"{cpu.split(':')[1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}, {commit}",
        "",
    ]
    for kind in KINDS:
        page += section(kind, 2 if quick else 5)
    text = "\n".join(page)
    print(text)
    if not quick:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
