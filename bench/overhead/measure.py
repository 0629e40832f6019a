"""Runs all proxies in turn over the same work.

Proxies run on one CPU, client and mock replicas on the other. CPU time is the proxy's own, from the
kernel's accounting, per request or per chunk, median of alternating rounds.
"""

import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.environments import directory
from bench.overhead import work
from bench.overhead.client import Round, Tally
from bench.overhead.cpu import cpu_ns
from bench.overhead.proxies import BUILDERS
from bench.processes import REST_CPU, Proxy, replicas, wait_ready

PEERS = directory("peers")
REST = frozenset({REST_CPU})
REPLICAS = 4
TTFT_CONNECTIONS = 1000
"""More than ever wait at once: an open loop must not turn into a closed one."""


@dataclass(frozen=True)
class Kind:
    """One kind of work."""

    name: str
    title: str
    per: str
    mock: tuple[str, ...]
    size: int
    stream: bool
    tokens: int
    count: int
    concurrency: int
    distinct: int
    canned: bool = False
    """Replicas only repeat one answer: the proxy is what bounds the loop."""


KINDS = {
    "unary": Kind("unary", "2 kB chat, not streamed", "request", (), 2000, False, 8, 4000, 32, 1000),
    "stream": Kind(
        "stream", "256 streams of 100 chunks at 50/s", "chunk",
        ("--step-base-us", "20000"), 2000, True, 99, 256, 256, 256,
    ),
    "loop": Kind(
        "loop", "2 kB chat in a closed loop of 16 connections", "request",
        (), 2000, False, 8, 8000, 16, 1000, canned=True,
    ),
    "large": Kind("large", "400 kB chat, not streamed", "request", (), 400_000, False, 8, 200, 4, 40),
}  # fmt: skip


def upstreams(count: int, *arguments: str) -> AbstractContextManager[list[str]]:
    """Mock replicas on the other CPU."""
    command = ["skylb", "mock", "--listen", "127.0.0.1:0", "--count", str(count)]
    command += ["--model", "bench", "--profile", "instant", "--keep-alive-s", "600", *arguments]
    return replicas(command, count, REST)


def canned_upstreams(count: int) -> AbstractContextManager[list[str]]:
    """Replicas that only repeat one answer, on the other CPU."""
    return replicas(["bench.overhead.canned", "--count", str(count)], count, REST)


@contextmanager
def running(names: list[str], urls: list[str], body: bytes) -> Iterator[list[Proxy]]:
    """The proxies, ready; those that are not installed are named and left out."""
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        try:
            for name in names:
                proxy = BUILDERS[name](urls, Path(scratch), PEERS)
                if proxy is None:
                    print(f"  {name}: not installed, left out")
                    continue
                proxy.process.start()
                found.append(proxy)
            for proxy in found:
                wait_ready(proxy, body)
            yield found
        finally:
            for proxy in found:
                proxy.process.stop()


def one_round(port: int, requests: list[bytes], *, count: int, concurrency: int, rate: float = 0.0) -> Tally:
    """Runs one round in a fresh loop."""

    async def run() -> Tally:
        return await Round(port, requests, count=count, concurrency=concurrency, rate=rate).run()

    return uvloop.run(run())


def measure(kind: Kind, names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """CPU microseconds per request or chunk of each proxy: all rounds and their median."""
    requests = work.requests(kind.distinct, size=kind.size, stream=kind.stream, tokens=kind.tokens)
    body = requests[0].partition(b"\r\n\r\n")[2]
    warm = body.replace(b'"max_tokens": 99', b'"max_tokens": 2')
    figures: dict[str, list[float]] = {}
    replicas_of_it = canned_upstreams(REPLICAS) if kind.canned else upstreams(REPLICAS, *kind.mock)
    with replicas_of_it as urls, running(names, urls, warm) as found:
        for number in range(rounds + 1):
            for proxy in found:
                before = cpu_ns(proxy.process.pid)
                tally = one_round(proxy.port, requests, count=kind.count, concurrency=kind.concurrency)
                spent = cpu_ns(proxy.process.pid) - before
                if tally.errors:
                    print(f"  {proxy.name}: {tally.errors} errors in {kind.name}")
                done = tally.chunks if kind.per == "chunk" else tally.requests
                if number and done:  # the first round warms up
                    figures.setdefault(proxy.name, []).append(spent / done / 1000)
    return {
        name: {"median_us": statistics.median(values), "min_us": min(values), "max_us": max(values)}
        for name, values in figures.items()
    }


def added_ttft(rounds: int) -> dict[str, Any]:
    """Added TTFT at half of SkyLB's saturation rate: interleaved direct and proxied rounds.

    Percentiles per round and their median over rounds: one stall of the machine spoils one round, not
    the figure. HAProxy runs in the same rounds, to tell the proxy's share from the machine's.
    """
    requests = work.requests(1000, size=2000, stream=True, tokens=4)
    body = requests[0].partition(b"\r\n\r\n")[2]
    with canned_upstreams(REPLICAS) as urls, running(["skylb", "haproxy"], urls, body) as found:
        for _ in range(2):
            for proxy in found:
                one_round(proxy.port, requests, count=4000, concurrency=64)
        tally = one_round(found[0].port, requests, count=8000, concurrency=64)
        saturation = tally.requests / tally.wall_s
        rate = saturation / 2
        ports = {"direct": int(urls[0].rsplit(":", 1)[1]), **{proxy.name: proxy.port for proxy in found}}
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
        for number in range(rounds + 1):
            for name, port in ports.items():
                tally = one_round(
                    port, requests, count=int(rate * 2), concurrency=TTFT_CONNECTIONS, rate=rate
                )
                if tally.errors:
                    print(f"  ttft {name}: {tally.errors} requests found no free connection")
                if number:  # the first round warms up: connections, and the gate's idea of a burst
                    samples[name].append(percentiles(tally.ttft_ns))
    figures = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in samples.items()
    }
    added = {
        f"{name}_added_{key}": figures[name][key] - figures["direct"][key]
        for name in figures
        if name != "direct"
        for key in figures[name]
    }
    return {"saturation_per_s": saturation, "rate_per_s": rate, **figures, **added}


def percentiles(samples: list[int]) -> dict[str, float]:
    """P50 and P99 in milliseconds."""
    ordered = sorted(samples)
    return {f"p{q}_ms": ordered[min(len(ordered) - 1, len(ordered) * q // 100)] / 1e6 for q in (50, 99)}


def probing(seconds: float = 20.0, *, whole: bool) -> dict[str, float]:
    """Cores spent on probing 100 replicas every 100 ms, back-off disabled; `probing_proxy` has ``whole``."""
    with probing_proxy(whole=whole) as proxy:
        before, started = cpu_ns(proxy.process.pid), time.monotonic()
        probes = probe_count(proxy)
        time.sleep(seconds)
        wall_s = time.monotonic() - started
        cores = (cpu_ns(proxy.process.pid) - before) / 1e9 / wall_s
        rate = (probe_count(proxy) - probes) / wall_s
    return {"cores": cores, "probes_per_s": rate}


@contextmanager
def probing_proxy(*, whole: bool) -> Iterator[Proxy]:
    """SkyLB over 100 replicas that has nothing to do but to probe them every 100 ms.

    Args:
        whole: of replicas that take no names of metrics, so that each page of 50 kB is read whole.
    """
    status = "404" if whole else "200"
    with (
        upstreams(100, "--metrics-bytes", "50000", "--fault-metrics-names-status", status) as urls,
        tempfile.TemporaryDirectory() as scratch,
    ):
        proxy = BUILDERS["skylb"](urls, Path(scratch), PEERS)
        if proxy is None:
            raise RuntimeError("skylb is not installed")
        proxy.process.command += ["--engine-probe-idle-interval-s", "0.1"]
        proxy.process.start()
        try:
            time.sleep(5)  # connections are open, all replicas known
            yield proxy
        finally:
            proxy.process.stop()


def probe_count(proxy: Proxy) -> float:
    """Probes answered so far, from the metrics page."""
    admin = proxy.process.command[proxy.process.command.index("--admin") + 1]
    page = urllib.request.urlopen(f"http://{admin}/metrics", timeout=10).read().decode()
    rows = [line for line in page.splitlines() if line.startswith("skylb_probe_seconds_count")]
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)
