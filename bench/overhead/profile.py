"""Where the CPU time of a request, a chunk and a probe goes: SkyLB beside HAProxy, by `perf`.

python -m bench.overhead.profile [--seconds 6] [--work unary,stream,large,probes]

``perf`` samples the CPU clock of each proxy while it works; the samples' shares by shared object are
multiplied with the CPU time per unit from the kernel's accounting, measured just before without ``perf``.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.overhead import work
from bench.overhead.cpu import cpu_ns
from bench.overhead.measure import (
    KINDS,
    REPLICAS,
    Kind,
    one_round,
    probe_count,
    probing_proxy,
    running,
    upstreams,
)
from bench.processes import REST_CPU
from bench.record import keep
from skylb.tools.text import table

PARTS = {
    "kernel": re.compile(r"^\[(kernel|guest\.kernel|unknown)|^\[|\.ko$"),
    "interpreter": re.compile(r"^(lib)?python"),
    "extension": re.compile(r"^_core\."),
    "uvloop": re.compile(r"^loop\."),
    "libc": re.compile(r"^(libc|ld-linux|libpthread|libm)[.-]"),
}
"""Shared objects by what they are."""
COLUMNS = (*PARTS, "other")


def main() -> None:
    """Profiles, prints, stores."""
    parser = argparse.ArgumentParser(prog="bench.overhead.profile")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--work", default="unary,stream,large,probes")
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        sys.exit("perf is not installed (Debian: linux-perf)")
    os.sched_setaffinity(0, {REST_CPU})
    rows: list[tuple[str, ...]] = []
    for name in arguments.work.split(","):
        rows += probes(arguments.seconds) if name == "probes" else proxied(KINDS[name], arguments.seconds)
    lines = [
        "CPU time by where it is spent, us",
        *table(("work", "proxy", "us", *COLUMNS), rows, left=2),
    ]
    print("\n".join(lines))
    if arguments == parser.parse_args([]):
        keep("bench-profile", lines)


def proxied(kind: Kind, seconds: float) -> Iterator[tuple[str, ...]]:
    """One kind of work through SkyLB and HAProxy."""
    requests = work.requests(kind.distinct, size=kind.size, stream=kind.stream, tokens=kind.tokens)
    body = requests[0].partition(b"\r\n\r\n")[2]
    warm = body.replace(b'"max_tokens": 99', b'"max_tokens": 2')
    with upstreams(REPLICAS, *kind.mock) as urls, running(["haproxy", "skylb"], urls, warm) as found:
        for proxy in found:

            def one(port: int = proxy.port) -> int:
                tally = one_round(port, requests, count=kind.count, concurrency=kind.concurrency)
                return tally.chunks if kind.per == "chunk" else tally.requests

            one()
            before = cpu_ns(proxy.process.pid)
            done = one()
            us = (cpu_ns(proxy.process.pid) - before) / 1000 / done
            with sampled(proxy.process.pid) as shares:
                repeat(one, seconds)
            yield row(f"{kind.title}, per {kind.per}", proxy.name, us, shares)


def probes(seconds: float) -> Iterator[tuple[str, ...]]:
    """Probing 100 replicas every 100 ms."""
    for whole, title in ((False, "metrics asked for by name"), (True, "metrics pages of 50 kB")):
        with probing_proxy(whole=whole) as proxy:
            before, probed = cpu_ns(proxy.process.pid), probe_count(proxy)
            time.sleep(seconds)
            us = (cpu_ns(proxy.process.pid) - before) / 1000 / (probe_count(proxy) - probed)
            with sampled(proxy.process.pid) as shares:
                time.sleep(seconds)
            yield row(f"{title}, per probe", proxy.name, us, shares)


def repeat(one: Callable[[], int], seconds: float) -> None:
    """Rounds until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one()


def row(title: str, name: str, us: float, shares: dict[str, float]) -> tuple[str, ...]:
    """One line of the table."""
    return (title, name, f"{us:.1f}", *(f"{us * shares[part]:.1f}" for part in COLUMNS))


@contextmanager
def sampled(pid: int) -> Iterator[dict[str, float]]:
    """Samples a process while the block runs; afterwards the shares by part are in what it gave."""
    shares = dict.fromkeys(COLUMNS, 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        data = str(Path(scratch) / "perf.data")
        record = ["perf", "record", "-e", "cpu-clock", "-F", "4000", "-o", data, "-p", str(pid)]
        process = subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield shares
        finally:
            process.send_signal(2)
            process.wait()
        command = ["perf", "report", "-i", data, "--stdio", "--sort", "dso"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for percent, shared_object in re.findall(r"^\s*([\d.]+)%\s+(\S+)", report, re.M):
        part = next((name for name, of in PARTS.items() if of.search(shared_object)), "other")
        shares[part] += float(percent) / 100


if __name__ == "__main__":
    main()
