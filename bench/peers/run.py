"""One measurement: a load through a fleet, and what replicas and the kernel say of it."""

import json
import os
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.overhead.cpu import cpu_ns, waited_ns
from bench.peers.cases import DRAIN_S, Case, Entry, workload
from bench.peers.fleet import Fleet, fleet
from bench.peers.rivals import MODEL
from bench.processes import PROXY_CPU, Process
from tests.support.processes import sample_sum

BEGIN_TIMEOUT_S = 30.0
END_S = 30.0
"""What the load generator may take to write its report."""

LATENCIES = ("p50", "p90", "p99", "mean")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """What can only be counted up, at one moment."""

    at_s: float
    cpu_s: float
    waited_s: float
    ended: float
    queries: float
    hits: float


def rest_cpus() -> frozenset[int]:
    """Where replicas, links and the load generator run: not with the proxies, if there is another CPU."""
    allowed = frozenset(os.sched_getaffinity(0))
    return allowed - {PROXY_CPU} or allowed


def measure(entry: Entry, seed: int, workloads: Path) -> Figures:
    """Figures of one run, times and rates in the replicas' time.

    Raises:
        RuntimeError: something did not start, or the load failed; the message says what.
    """
    case, rest = entry.case.of(entry.rival), rest_cpus()
    with (
        tempfile.TemporaryDirectory(prefix="skylb-peers-") as scratch,
        fleet(entry, case, rest, Path(scratch)) as found,
    ):
        report = Path(scratch) / "report.json"
        command = load_command(case, found, workload(case, seed, workloads), report, Path(scratch))
        load = Process("skylb load", command, rest, Path(scratch) / "load.log")
        load.start()
        try:
            before, after = _samples(case, found, load)
            status = load.wait(DRAIN_S * case.scale + END_S)
        finally:
            load.stop()
        if status not in {0, 1} or not report.exists():
            raise RuntimeError(f"the load failed\n{load.tail()}")
        result = figures(json.loads(report.read_text()), before, after, case.scale)
        dead = [proxy.name for proxy in found.proxies if proxy.process.ended()]
        if dead:
            raise RuntimeError(f"it ended during the run\n{found.proxies[0].process.tail()}")
    return result


def load_command(case: Case, found: Fleet, requests: Path, report: Path, scratch: Path) -> list[str]:
    """``skylb load`` for a case."""
    users = set(case.users.values())
    if len(users) != 1:
        raise ValueError(f"case {case.name}: groups of different sizes: {sorted(users)}")
    options = {
        "--model": MODEL,
        "--workload": requests,
        "--concurrency": users.pop(),
        "--time-scale": case.scale,
        "--duration-s": case.wall_s(),
        "--warmup-s": case.warmup_s * case.scale,
        "--drain-s": DRAIN_S * case.scale,
        "--silence-s": max(10.0, 120.0 * case.scale),
        "--json-file": report,
        "--progress": "off",
    }
    words = [str(word) for pair in options.items() for word in pair]
    for group in case.users:
        words += ["--target", f"{group}={found.targets[case.region(group)]}"]
    key = found.proxies[0].key
    if key:
        file = scratch / "client.key"
        file.touch(mode=0o600)
        file.write_text(key)
        words += ["--key-file", str(file)]
    return [sys.executable, "-m", "skylb", "load", *words]


def _samples(case: Case, found: Fleet, load: Process) -> tuple[Sample, Sample]:
    """What was counted when the warm-up ended, and when the measured time did."""
    ended = sample(found).ended
    deadline = time.monotonic() + BEGIN_TIMEOUT_S
    while not any(_in_flight(url) for url in found.replicas) and sample(found).ended == ended:
        if time.monotonic() > deadline or load.ended():
            raise RuntimeError("no request of the load arrived at a replica")
        time.sleep(0.05)
    began = time.monotonic()
    _sleep_until(began + case.warmup_s * case.scale)
    before = sample(found)
    _sleep_until(began + case.wall_s())
    return before, sample(found)


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))


def _in_flight(url: str) -> int:
    with urllib.request.urlopen(f"{url}/mock/state", timeout=10) as answer:
        return int(json.loads(answer.read())["in_flight"])


def sample(found: Fleet) -> Sample:
    """The replicas' own counts from their metrics pages, and the CPU time of all proxies' process trees."""
    pages = []
    for url in found.replicas:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            pages.append(answer.read().decode())
    counts = {
        name: sum(sample_sum(page, f"vllm:{name}_total") for page in pages)
        for name in ("request_success", "prefix_cache_queries", "prefix_cache_hits")
    }
    cpu_s = waited_s = 0.0
    for proxy in found.proxies:
        with suppress(OSError):  # it ended, which is seen elsewhere
            cpu_s += cpu_ns(proxy.process.pid) / 1e9
            waited_s += waited_ns(proxy.process.pid) / 1e9
    return Sample(
        time.monotonic(),
        cpu_s,
        waited_s,
        counts["request_success"],
        counts["prefix_cache_queries"],
        counts["prefix_cache_hits"],
    )


def figures(report: dict[str, Any], before: Sample, after: Sample, scale: float) -> Figures:
    """What is kept of a run: the report's times and rates turned into the replicas' time."""
    total, generator = report["total"], report["generator"]
    ended, queries = after.ended - before.ended, after.queries - before.queries
    cpu_s, wall_s = after.cpu_s - before.cpu_s, after.at_s - before.at_s
    found: Figures = {
        "tokens_per_s": total["tokens_per_s"] * scale,
        "output_tokens_per_s": total["output_tokens_per_s"] * scale,
        "requests_per_s": total["requests_per_s"] * scale,
        "hit_rate": (after.hits - before.hits) / queries if queries else None,
        "cpu_ms_per_request": cpu_s / ended * 1e3 if ended else None,
        "cpu_cores": cpu_s / wall_s if wall_s else None,
        "waited_cores": (after.waited_s - before.waited_s) / wall_s if wall_s else None,
        "usage_missing": total["usage_missing"],
        "prompt_mismatches": total["prompt_mismatches"],
        "ok": total["ok"],
        "failed": total["failed"],
        "unfinished": total["unfinished"],
        "errors": total["errors"],
        "error_samples": total["error_samples"],
        "generator_lag_p99_s": generator["loop_lag_s"]["p99"],
        "late": generator["late"],
        "ended_by": report["ended_by"],
        "regions": {
            name: {
                "ttft_p90_s": scaled(row["ttft_s"]["p90"], scale),
                "ok": row["ok"],
                "failed": row["failed"],
            }
            for name, row in report["regions"].items()
        },
    }
    for kind in ("ttft", "e2e", "itl"):
        for quantile in LATENCIES:
            found[f"{kind}_{quantile}_s"] = scaled(total[f"{kind}_s"][quantile], scale)
    return found


def scaled(seconds: float | None, scale: float) -> float | None:
    """A measured time as the replicas count it."""
    return None if seconds is None else seconds / scale
