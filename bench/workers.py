"""What workers bring and cost: one process beside two workers, each held to a part of a core by a cgroup.

    python -m bench.workers [--quick]

The kernel holds each worker, and the one process, to a part of a core (cgroup v1, ``cpu.cfs_quota_us``).
The engine process is not held: its share is measured. CPU time is the kernel's (``schedstat``). Rounds
of both balancers alternate. A chunk is sent when the client has got the one before of its stream
(`bench.echo`). So a process that is held reads each chunk alone, as one that is not.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench import echo
from bench.overhead import work
from bench.overhead.client import Round
from bench.overhead.measure import canned_upstreams
from bench.processes import free_port
from skylb.tools.load import LoadSettings, run
from skylb.tools.load.settings import SyntheticSettings, parse_target
from tests.support.processes import SKYLB, Child, answers, mocks

CGROUP = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 20_000
PART = 0.25
"""Of a core, for each process that is held."""
USED = 0.9
"""Of that, what a process uses at least that nothing else holds up."""
RESULT = Path("bench/results/bench-workers.md")

COUNTS = (1, 2)
STREAMS = 800
"""More than a process that is held relays chunks in a period: it has always some to relay."""
REQUESTS, CONNECTIONS = 6000, 64
WARM_S, CHUNKS_S = 1.0, 3.0

GAP_S, STANDBY_S = 2.0, 5.0
LATE_S = 0.05
"""A request that takes longer has waited for an engine process."""

QUALITY_COUNTS = (1, 2, 4)
QUALITY_SEEDS = (1, 2)
QUALITY_S = 12.0
USERS = 40
TRACE = SyntheticSettings(
    users=USERS, sessions=50, turns=4.0, systems=4, system_tokens=2048, user_tokens=256, think_s=0.5
)
MOCK = ("--profile", "h100-8b", "--time-scale", "1")
"""Computing a prompt takes long beside what any balancer takes."""


@dataclass
class Measured:
    """One round."""

    per_s: float
    us: float
    """CPU time of all processes."""
    engine_us: float
    """Of that, the engine process's."""
    used: float
    """Share of what they may use that the processes that are held have used."""


@dataclass
class Under:
    """A balancer under test."""

    port: int
    holders: list[int]
    """The processes that hold connections."""
    engine: int
    """The engine process; 0: there is none of its own."""
    admin: int
    """The port of the admin listener."""

    def state(self) -> Any:
        """What ``/state`` says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/state", timeout=10) as answer:
            return json.load(answer)

    def engine_now(self) -> int:
        """The engine process that serves now."""
        return int(self.state()["process"]["pid"])

    def ran_ns(self) -> dict[int, int]:
        """CPU time of each process."""
        return {pid: ran_ns(pid) for pid in (*self.holders, *filter(None, [self.engine]))}


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
def balancer(urls: Sequence[str], workers: int, *flags: str) -> Iterator[Under]:
    """A balancer, once all its workers serve."""
    port, admin = free_port(), free_port()
    command = [*SKYLB, "serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    command += ["--access-log", "off", "--workers", str(workers), *flags]
    for url in urls:
        command += ["--replica", url]
    child = Child(command)
    try:
        child.require(lambda: answers(f"http://127.0.0.1:{admin}/ready"), timeout_s=60, what="balancer")
        under = Under(port, [child.pid], 0, admin)
        if workers == 1:
            yield under
            return

        def serving() -> bool:
            state = under.state()
            under.holders = [row["pid"] for row in state["workers"] if row["attached"] and row["pid"]]
            under.engine = state["process"]["pid"]
            return len(under.holders) == workers

        child.require(serving, timeout_s=60, what="workers")
        yield under
    finally:
        child.stop()


def spent(done: int, wall_s: float, before: dict[int, int], after: dict[int, int], engine: int) -> Measured:
    """What a round has taken, for each request or chunk."""
    took = {pid: after[pid] - before[pid] for pid in before}
    engine_ns, all_ns = took.get(engine, 0), sum(took.values())
    held_len = len(took) - (engine in took)
    used = (all_ns - engine_ns) / (wall_s * 1e9 * PART * held_len)
    return Measured(done / wall_s, all_ns / done / 1e3, engine_ns / done / 1e3, used)


WIDE = ("--engine-in-flight-max", "4096")
"""The balancer must not be what holds requests back."""


def hold(stack: ExitStack, found: dict[int, Under]) -> None:
    """Holds the processes with connections, from now on."""
    for under in found.values():
        for pid in under.holders:
            stack.enter_context(held(pid, PART))


def requests_per_s(rounds: int) -> dict[int, list[Measured]]:
    """A closed loop of short streams at both balancers in turn."""
    requests = work.requests(500, size=2000, stream=True, tokens=8)
    measured: dict[int, list[Measured]] = {count: [] for count in COUNTS}
    with canned_upstreams(4) as urls, ExitStack() as stack:
        found = {count: stack.enter_context(balancer(urls, count, *WIDE)) for count in COUNTS}
        for number in range(rounds + 1):
            if number == 1:
                hold(stack, found)
            for count, under in found.items():

                async def loop(port: int = under.port) -> tuple[int, int, float]:
                    tally = await Round(port, requests, count=REQUESTS, concurrency=CONNECTIONS).run()
                    return tally.requests, tally.errors, tally.wall_s

                before = under.ran_ns()
                done, errors, wall_s = uvloop.run(loop())
                after = under.ran_ns()
                if errors:
                    raise RuntimeError(f"{errors} requests have failed")
                if number:  # the first warms up
                    measured[count].append(spent(done, wall_s, before, after, under.engine))
    return measured


async def chunks_per_s(rounds: int) -> tuple[dict[int, list[Measured]], str]:
    """Endless streams at both balancers in turn; and what source and client have taken."""
    requests = echo.requests(STREAMS)
    measured: dict[int, list[Measured]] = {count: [] for count in COUNTS}
    shares = dict.fromkeys(COUNTS, 0.0)
    """Of a core, that source and client have taken."""
    current: list[echo.Streams] = []
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: echo.Source(current), "127.0.0.1", 0) for _ in range(4)]
    urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
    with ExitStack() as stack:
        found = {
            count: await asyncio.to_thread(stack.enter_context, balancer(urls, count, *WIDE))
            for count in COUNTS
        }
        for number in range(rounds + 1):
            if number == 1:
                hold(stack, found)
            for count, under in found.items():
                marks: list[dict[int, int]] = []
                current[:] = [echo.Streams(requests)]

                def mark(marks: list[dict[int, int]] = marks, under: Under = under) -> None:
                    marks.append(under.ran_ns())

                for_s = CHUNKS_S if number else WARM_S
                counted = await current[0].run(under.port, WARM_S, for_s, mark)
                if number:
                    before, after = marks
                    done = spent(counted.chunks, counted.wall_s, before, after, under.engine)
                    measured[count].append(done)
                    shares[count] = max(shares[count], counted.cpu_s / counted.wall_s)
    took = ", ".join(f"{100 * share:.0f} %" for share in shares.values())
    return measured, f"Source and client, one process, took {took} of a core. At 100 % they are the bound."


def quality(seeds: Sequence[int]) -> list[str]:
    """The same conversations through balancers with 1, 2 and 4 workers; all seeds of one in a row."""
    lines = [
        "## The same conversations through 1, 2 and 4 workers",
        "",
        "| workers | requests | failed | hit rate | TTFT P50, ms | TTFT P90, ms |",
        "|---|---|---|---|---|---|",
    ]
    hits, medians = {}, {}
    for count in QUALITY_COUNTS:
        rows = [conversations(count, seed) for seed in seeds]
        hits[count] = statistics.mean(row[2] for row in rows)
        medians[count] = statistics.mean(row[3] for row in rows)
        p90 = statistics.mean(row[4] for row in rows)
        lines.append(
            f"| {count} | {sum(row[0] for row in rows)} | {sum(row[1] for row in rows)} "
            f"| {100 * hits[count]:.1f} % | {1e3 * medians[count]:.1f} | {1e3 * p90:.1f} |"
        )
    worst = max(abs(hits[count] - hits[1]) for count in QUALITY_COUNTS)
    slowest = max(medians.values()) / medians[1]
    return [
        *lines,
        "",
        verdict("difference in hit rate to one process, points", 100 * worst, "<=", 1.0),
        verdict("median TTFT, against one process", slowest, "<=", 1.1),
        "",
    ]


def conversations(workers: int, seed: int) -> tuple[int, int, float, float, float]:
    """Requests answered and failed, hit rate, and the median and P90 of TTFT in seconds."""
    synthetic = TRACE.model_copy(update={"seed": seed})
    with mocks(4, *MOCK) as urls, balancer(urls, workers) as under:
        settings = LoadSettings(
            target=(parse_target(f"http://127.0.0.1:{under.port}"),),
            synthetic=synthetic,
            concurrency=USERS,
            duration_s=QUALITY_S,
            warmup_s=QUALITY_S / 4,
            progress="off",
        )
        total = asyncio.run(run(settings)).total
    ttft = total.ttft_s
    return total.ok, total.failed, total.hit_rate or 0.0, ttft.p50 or 0.0, ttft.p90 or 0.0


def gap(kills: int) -> list[str]:
    """How long requests wait that come while an engine process is killed and the next one takes its place."""
    request = work.requests(1, size=2000, stream=True, tokens=8)[0]
    waits: list[float] = []

    async def kill(under: Under) -> None:
        begun = time.monotonic()
        due: list[asyncio.Task[float]] = []

        async def asked() -> float:
            sent = time.monotonic()
            tally = await Round(under.port, [request], count=1, concurrency=1).run()
            if tally.errors:
                raise RuntimeError("a request that waited for an engine process was refused")
            return time.monotonic() - sent

        async with asyncio.TaskGroup() as group:
            os.kill(under.engine, signal.SIGKILL)
            while time.monotonic() - begun < GAP_S:
                due.append(group.create_task(asked()))
                await asyncio.sleep(GAP_S / 200)
        waits.extend(each.result() for each in due)

    with canned_upstreams(4) as urls, balancer(urls, 2, *WIDE) as under:
        for _ in range(kills):
            time.sleep(STANDBY_S)  # the next engine process has loaded all code by then
            uvloop.run(kill(under))
            under.engine = under.engine_now()
    late = [wait for wait in waits if wait > LATE_S]
    median = statistics.median(late) if late else 0.0
    return [
        f"## {kills} engine processes killed (`kill -9`), a request every {1e3 * GAP_S / 200:.0f} ms",
        "",
        (
            f"Of {len(waits)} requests {len(late)} waited longer than {1e3 * LATE_S:.0f} ms: "
            f"{median:.2f} s in the median, {max(waits):.2f} s at most. None was refused."
        ),
        "",
        verdict("longest wait for an engine process, s", max(waits), "<=", 1.0),
        "",
    ]


def middle(rounds: list[Measured]) -> Measured:
    """The medians."""
    return Measured(
        statistics.median(of.per_s for of in rounds),
        statistics.median(of.us for of in rounds),
        statistics.median(of.engine_us for of in rounds),
        statistics.median(of.used for of in rounds),
    )


_missed: list[str] = []


def verdict(name: str, value: float, sign: str, goal: float) -> str:
    """One goal: whether it is met."""
    met = value >= goal if sign == ">=" else value <= goal
    if not met:
        _missed.append(name)
    return f"- {'met' if met else 'MISSED'}: {name}: {value:.2f} (goal {sign} {goal:.2f})"


def eight(per: str, own_us: float, engine_us: float) -> str:
    """What eight workers would do, each with a core, beside one core for the engine process."""
    most = 1e6 / max(engine_us, 0.01)
    first = "the engine process" if 8e6 / own_us > most else "the workers"
    return (
        f"By calculation: one core of workers does {1e6 / own_us:,.0f} {per}s per second. One core of the "
        f"engine process does {most:,.0f}. So eight workers, each with a core, reach "
        f"{min(8e6 / own_us, most):,.0f}. The first bottleneck is {first}. "
        f"The engine process is full with {most * own_us / 1e6:.1f} workers."
    )


def section(title: str, per: str, cost_goal: float, measured: dict[int, list[Measured]]) -> list[str]:
    """One kind of work, one process beside two workers."""
    one, two = (middle(measured[count]) for count in COUNTS)
    gains = [b.per_s / a.per_s for a, b in zip(*(measured[count] for count in COUNTS), strict=True)]
    costs = [b.us / a.us for a, b in zip(*(measured[count] for count in COUNTS), strict=True)]
    lines = [
        f"## {title}",
        "",
        "| | one process | two workers | ratio, median of rounds (least to most) |",
        "|---|---|---|---|",
        f"| {per}s per second | {one.per_s:,.0f} | {two.per_s:,.0f} | {spread(gains)} |",
        f"| CPU per {per}, all processes, us | {one.us:.1f} | {two.us:.1f} | {spread(costs)} |",
        f"| of that, the engine process, us | - | {two.engine_us:.2f} | |",
        f"| used of what they may use | {100 * one.used:.0f} % | {100 * two.used:.0f} % | |",
        "",
        verdict(f"{per}s per second", statistics.median(gains), ">=", 1.7),
        verdict(f"CPU per {per}", statistics.median(costs), "<=", cost_goal),
    ]
    if two.used < USED:
        lines.append(
            "- The workers have not used their part of the CPU: the machine was busy, or source and client "
            "were the bound. The first figure says nothing of two workers."
        )
    if per == "request":
        lines.append(verdict("engine process, us per request", two.engine_us, "<=", 12.0))
    return [*lines, "", eight(per, two.us - two.engine_us, two.engine_us), ""]


def relayed(title: str, rounds: int) -> list[str]:
    """The section of chunks."""
    measured, took = uvloop.run(chunks_per_s(rounds))
    return [*section(title, "chunk", 1.10, measured), took, ""]


def spread(ratios: list[float]) -> str:
    """The median, and between what the rounds are."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, and no file")
    quick = parser.parse_args().quick
    if not (CGROUP / "cpu.cfs_quota_us").exists() or os.geteuid():
        sys.exit(f"{CGROUP}: expected a cgroup of version 1 with the controller cpu, and root")
    began = time.monotonic()
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ":")
    rounds = 2 if quick else 5
    held_to = f"each process held to {PART} core"
    parts: list[Callable[[], list[str]]] = [
        lambda: section(
            f"2 kB chat in a closed loop of {CONNECTIONS} connections, streams of 4 events; {held_to}",
            "request",
            1.35,
            requests_per_s(rounds),
        ),
        lambda: relayed(f"{STREAMS} streams; {held_to}", rounds),
        lambda: gap(2 if quick else 4),
        lambda: quality(QUALITY_SEEDS[:1] if quick else QUALITY_SEEDS),
    ]
    page = [
        "# make bench-workers",
        "",
        f"{cpu.split(':')[1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}, {commit}",
        "",
    ]
    for part in parts:
        lines = part()
        print("\n".join(lines), flush=True)
        page += lines
    page += [f"Goals missed: {', '.join(_missed) or 'none'}. It took {time.monotonic() - began:.0f} s.", ""]
    print(page[-2])
    if not quick:
        RESULT.write_text("\n".join(page))


if __name__ == "__main__":
    main()
