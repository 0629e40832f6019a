"""One measurement: a load through a fleet, and what replicas and the kernel say of it."""

import json
import re
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.overhead.cpu import cpu_ns, waited_ns
from bench.peers.cases import Case, Entry, workload
from bench.peers.fleet import Fleet, fleet
from bench.peers.rivals import MODEL
from bench.processes import Process, rest_cpus
from tests.support.processes import sample_sum

BEGIN_TIMEOUT_S = 30.0
END_S = 30.0
SESSION_HEADER = "X-Session-ID"
"""What the load generator may take to write its report."""

ENDED = ("stop", "length")
"""Reasons for which a replica finished a request; others were cut off."""

Figures = dict[str, Any]


class RivalError(RuntimeError):
    """The rival itself failed under load: it answered nothing, or ended."""


@dataclass(frozen=True)
class Sample:
    """What can only be counted up, at one moment."""

    at_s: float
    cpu_s: float
    waited_s: float
    others_s: float
    ended: float
    queries: float
    hits: float


def measure(entry: Entry, seed: int, workloads: Path) -> Figures:
    """Figures of one run, times and rates in the replicas' time.

    Raises:
        RivalError: it answered nothing, or ended.
        RuntimeError: something did not start, or the load failed; the message says what.
    """
    case, rest = entry.case, rest_cpus()
    with (
        tempfile.TemporaryDirectory(prefix="skylb-peers-") as scratch,
        fleet(entry, rest, Path(scratch)) as found,
    ):
        report = Path(scratch) / "report.json"
        command = load_command(case, found, workload(case, seed, workloads), report, Path(scratch))
        load = Process("skylb load", command, rest, Path(scratch) / "load.log")
        try:
            load.start()
            before, after = _samples(case, found, load)
            status = load.wait(case.drain_s * case.scale + END_S)
        finally:
            load.stop()
        if status or not report.exists():
            raise RuntimeError(f"the load failed\n{load.tail()}")
        dead = [proxy.name for proxy in found.proxies if proxy.process.ended()]
        if dead:
            raise RivalError(f"it ended during the run\n{found.proxies[0].process.tail()}")
        return figures(json.loads(report.read_text()), (before, after), case.scale, len(rest))


def load_command(case: Case, found: Fleet, requests: Path, report: Path, scratch: Path) -> list[str]:
    """The load generator for a case."""
    users = set(case.users.values())
    if len(users) != 1:
        raise ValueError(f"case {case.name}: groups of different sizes: {sorted(users)}")
    settings = {
        "target": [f"{group}={found.targets[case.region(group)]}" for group in case.users],
        "model": MODEL,
        "workload": str(requests),
        "concurrency": users.pop(),
        "time_scale": case.scale,
        "duration_s": case.wall_s(),
        "warmup_s": case.warmup_s * case.scale,
        "drain_s": case.drain_s * case.scale,
        "silence_s": max(10.0, 120.0 * case.scale),
        "session_header": SESSION_HEADER,
        "json_file": str(report),
    }
    key = found.proxies[0].key
    if key:
        file = scratch / "client.key"
        file.touch(mode=0o600)
        file.write_text(key)
        settings["key_file"] = str(file)
    given = scratch / "load.json"
    given.write_text(json.dumps(settings))
    return [sys.executable, "-m", "bench.peers.load", str(given)]


def _samples(case: Case, found: Fleet, load: Process) -> tuple[Sample, Sample]:
    """What was counted when the warm-up ended, and when the measured time did."""
    ended = sample(found).ended
    deadline = time.monotonic() + BEGIN_TIMEOUT_S
    while not any(_in_flight(url) for url in found.replicas) and sample(found).ended == ended:
        if load.ended():
            raise RuntimeError(f"the load ended before a request arrived at a replica\n{load.tail()}")
        if time.monotonic() > deadline:
            raise RivalError(f"no request of the load arrived at a replica in {BEGIN_TIMEOUT_S:g} s")
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
        for name in ("prefix_cache_queries", "prefix_cache_hits")
    }
    proxies = [proxy.process.pid for proxy in found.proxies]
    return Sample(
        time.monotonic(),
        sum(map(cpu_ns, proxies)) / 1e9,
        sum(map(waited_ns, proxies)) / 1e9,
        sum(cpu_ns(other.pid) for other in found.others) / 1e9,
        sum(map(finished, pages)),
        counts["prefix_cache_queries"],
        counts["prefix_cache_hits"],
    )


def finished(page: str) -> float:
    """Requests that a replica has answered to the end, from its metrics page."""
    pattern = rf'^vllm:request_success_total\{{[^}}]*finished_reason="(?:{"|".join(ENDED)})"[^}}]*\}} (\S+)'
    return sum(map(float, re.findall(pattern, page, re.MULTILINE)))


def figures(found: Figures, samples: tuple[Sample, Sample], scale: float, rest_cores: int) -> Figures:
    """What is kept of a run: times and rates turned into the replicas' time.

    Args:
        found: what `bench.peers.load` wrote.
        samples: before and after the measured time.
        scale: the factor on all times.
        rest_cores: how many cores replicas, links and the load generator share.

    Raises:
        RivalError: nothing was answered.
    """
    report, whole, (before, after) = found["report"], found["total"], samples
    total, generator = report["total"], report["generator"]
    if not whole["answered"]:
        reasons = ", ".join(f"{kind} {count}" for kind, count in total["errors"].items())
        raise RivalError(f"nothing was answered: {whole['begun']} requests began; {reasons or 'no error'}")
    ended, queries = after.ended - before.ended, after.queries - before.queries
    cpu_s, wall_s = after.cpu_s - before.cpu_s, after.at_s - before.at_s
    rest = (after.others_s - before.others_s) / wall_s + generator["cpu_share"] if wall_s else None
    kept: Figures = {
        "tokens_per_s": total["tokens_per_s"] * scale,
        "output_tokens_per_s": total["output_tokens_per_s"] * scale,
        "requests_per_s": total["requests_per_s"] * scale,
        "hit_rate": (after.hits - before.hits) / queries if queries else None,
        "cpu_ms_per_request": cpu_s / ended * 1e3 if ended else None,
        "cpu_cores": cpu_s / wall_s if wall_s else None,
        "waited_cores": (after.waited_s - before.waited_s) / wall_s if wall_s else None,
        "rest_share": rest / rest_cores if rest is not None else None,
        "begun": total["begun"],
        "begun_measured": whole["begun"],
        "answered_measured": whole["answered"],
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
                "ttft_p90_s": scaled(found["regions"][name]["ttft_s"]["p90"], scale),
                "ok": row["ok"],
                "failed": row["failed"],
            }
            for name, row in report["regions"].items()
        },
    }
    for kind in ("ttft", "e2e"):
        for quantile, seconds in whole[f"{kind}_s"].items():
            kept[f"{kind}_{quantile}_s"] = scaled(seconds, scale)
    return kept


def scaled(seconds: float | None, scale: float) -> float | None:
    """A measured time as the replicas count it."""
    return None if seconds is None else seconds / scale
