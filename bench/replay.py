"""A recorded run, replayed in the simulator: does it say what happened?

    python -m bench.replay [--seconds 90] [--time-scale 0.5] [--loads chat-half,...] [--write]

Mock replicas of a known profile, a real balancer with ``--record``, and users from ``skylb load`` in a closed
loop. Then ``skylb sim`` reads the recording: the same fleet, sessions that begin when they began, and pauses
as recorded. Compared are tokens per second (prompt + 2 x answer) and TTFT P50 of the measured part, as the
load generator saw them.

The recording has real times, so the simulator's replicas are as much faster as the mock replicas were. Each
replay runs several times with other delays of messages; the mean counts.

"as seen" is the scenario that the balancer has written beside the recording: its replicas are estimates.

A whole run renews the results; others print, unless ``--write`` is given.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import msgspec

from bench.processes import heed_stops
from bench.record import keep
from bench.validate.realtime import JITTER_MS, PROFILE, REGION, REPLICAS, RTT_MS
from bench.validate.realtime import LOADS as KINDS
from skylb.tools.load.workload import read_workload
from skylb.tools.mock.profiles import PROFILES
from skylb.tools.sim.made import Plan, make
from skylb.tools.sim.read import read
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario
from skylb.tools.sim.simulate import run
from skylb.tools.sim.workload import File
from skylb.tools.text import table
from tests.support.processes import balancer, mocks

SECONDS = 90.0
TIME_SCALE = 0.5
WARMUP_SHARE = 0.2
DRAIN_S = 20.0
SIMULATIONS = 8
TARGETS = {"tokens_per_s": 0.05, "ttft_p50_s": 0.15}
TIMES = ("step_base_us", "prefill_token_us", "attention_us", "decode_seq_us", "context_token_us")

LOADS = {
    "chat-half": ("chat", 15),
    "chat-near-full": ("chat", 30),
    "agents-half": ("agents", 5),
    "agents-near-full": ("agents", 10),
}
"""Kind of users, and how many at once."""


@dataclass(frozen=True)
class Figures:
    """What is compared, and how many requests it covers."""

    tokens_per_s: float
    ttft_p50_s: float
    requests: int

    @staticmethod
    def mean(all_: Sequence["Figures"]) -> "Figures":
        """The mean of several runs."""
        return Figures(
            fmean(one.tokens_per_s for one in all_),
            fmean(one.ttft_p50_s for one in all_),
            round(fmean(one.requests for one in all_)),
        )


@dataclass(frozen=True)
class Compared:
    """One load: as users saw it, as it was recorded, and replayed."""

    load: str
    seen: Figures
    recorded: Figures
    replayed: Figures
    as_seen: Figures
    failed: int
    lag_s: float


def record(load: str, directory: Path, options: argparse.Namespace) -> tuple[Figures, int, float]:
    """Runs a load for real; what its users saw, failures, and the generator's lag."""
    kind, users = LOADS[load]
    workload = directory / "requests.jsonl"
    turns = make(KINDS[kind].kind, Plan({REGION: 1.0}, {REGION: users}, 0.0), seed=1)
    workload.write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
    path = directory / "report.json"
    mock = ("--profile", PROFILE, "--time-scale", str(options.time_scale))
    with (
        mocks(REPLICAS, *mock) as urls,
        balancer(*urls, arguments=["--record", str(directory / "trace")]) as front,
    ):
        flags = {
            "--target": front.url,
            "--workload": workload,
            "--concurrency": users,
            "--time-scale": options.time_scale,
            "--duration-s": options.seconds,
            "--warmup-s": options.seconds * WARMUP_SHARE,
            "--drain-s": DRAIN_S,
            "--json-file": path,
            "--progress": "off",
        }
        words = [str(word) for pair in flags.items() for word in pair]
        subprocess.run([sys.executable, "-m", "skylb", "load", *words], check=True, stdout=subprocess.DEVNULL)
        front.child.popen.terminate()
        front.child.popen.wait(60)
    found = json.loads(path.read_text())
    total = found["total"]
    seen = Figures(total["tokens_per_s"], total["ttft_s"]["p50"], total["ok"])
    return seen, total["failed"], found["generator"]["loop_lag_s"]["p99"] or 0.0


def recorded(trace: Path, seconds: float) -> Figures:
    """What the recording itself says of the measured part."""
    rows = []
    for path in sorted(trace.glob("arrivals-*")):
        text = subprocess.run(["zcat", "-f", str(path)], check=True, capture_output=True).stdout
        rows += [json.loads(line) for line in text.splitlines()[1:]]
    first_s = min(row["t"] for row in rows)
    from_s, until_s = first_s + seconds * WARMUP_SHARE, first_s + seconds
    ended = [row for row in rows if from_s <= row["end"] < until_s and row["status"] == 200]
    tokens = sum(row["in"] + 2 * row["out"] for row in ended)
    ttft = [row["ttft"] for row in rows if row["t"] >= from_s and "ttft" in row]
    return Figures(tokens / (until_s - from_s), median(ttft), len(rows))


def replayed(scenario: Scenario, options: argparse.Namespace) -> Figures:
    """The recording in virtual time."""
    scenario = msgspec.structs.replace(
        scenario,
        duration_s=options.seconds,
        warmup_s=options.seconds * WARMUP_SHARE,
        drain_s=DRAIN_S,
        network=Network(rtt_ms=[[RTT_MS - 2 * JITTER_MS]], jitter_ms=JITTER_MS),
    )
    runs = []
    for seed in range(SIMULATIONS):
        total = run(msgspec.structs.replace(scenario, seed=seed)).total
        runs.append(Figures(total.throughput_tokens_per_s, total.ttft_s.p50 or 0.0, total.completed))
    return Figures.mean(runs)


def same_fleet(trace: Path, time_scale: float) -> Scenario:
    """The fleet as it was."""
    faster = {name: getattr(PROFILES[PROFILE], name) * time_scale for name in TIMES}
    return Scenario(
        regions=[Region(name=REGION, replicas=[Replicas(count=REPLICAS, profile=PROFILE, override=faster)])],
        clients=Clients(mode="sessions"),
        workload=File(path=str(trace)),
    )


def compare(load: str, options: argparse.Namespace, scratch: Path) -> Compared:
    """One load, recorded and replayed."""
    directory = scratch / load
    directory.mkdir()
    seen, failed, lag_s = record(load, directory, options)
    trace = directory / "trace"
    found = read_workload(trace).turns
    replay = replace(replayed(same_fleet(trace, options.time_scale), options), requests=len(found))
    as_seen = replayed(read(trace / "scenario.toml"), options)
    return Compared(load, seen, recorded(trace, options.seconds), replay, as_seen, failed, lag_s)


def rows(found: Sequence[Compared]) -> list[str]:
    """The comparison as a table."""
    columns = ["load", "requests"]
    for title in ("tokens/s", "TTFT P50 ms"):
        columns += [title, "recorded", "replayed", "off", "as seen", "off"]
    lines = []
    for one in found:
        line = [one.load, str(one.recorded.requests)]
        for name, most in TARGETS.items():
            scale = 1e3 if name.startswith("ttft") else 1
            real = getattr(one.seen, name)
            line += [f"{real * scale:.0f}", f"{getattr(one.recorded, name) * scale:.0f}"]
            for other in (one.replayed, one.as_seen):
                off = getattr(other, name) / real - 1
                mark = " !" if abs(off) > most else ""
                line += [f"{getattr(other, name) * scale:.0f}", f"{off:+.1%}{mark}"]
        lines.append(line)
    return table(columns, lines)


def report(found: Sequence[Compared], options: argparse.Namespace) -> list[str]:
    """What is printed and kept."""
    failed = sum(one.failed for one in found)
    lag_s = max(one.lag_s for one in found)
    return [
        *rows(found),
        "",
        "tokens/s, TTFT P50: of the users; recorded: of the recording's lines; replayed: skylb sim with the",
        "same fleet; as seen: with the fleet that the balancer wrote beside the recording (estimated speed)",
        f"replayed: means of {SIMULATIONS} runs. !: off by more than 5 % (tokens/s), 15 % (TTFT P50)",
        "",
        (
            f"{REPLICAS} replicas {PROFILE}; failed requests: {failed}; worst loop lag of the load "
            f"generator, P99: {lag_s * 1e3:.1f} ms (time scale {options.time_scale:g}, "
            f"{options.seconds:g} s a run)"
        ),
    ]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.replay")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--time-scale", type=float, default=TIME_SCALE)
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--write", action="store_true", help="renew bench/results, whole or not")
    options = parser.parse_args(arguments)
    options.loads = options.loads.split(",")
    options.whole = (options.seconds, options.time_scale, options.loads) == (SECONDS, TIME_SCALE, [*LOADS])
    return options


def main() -> None:
    """Compares, prints; stores if whole or asked to."""
    options = parsed()
    heed_stops()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for load in options.loads:
            found.append(compare(load, options, Path(scratch)))
            print(rows(found[-1:])[1], flush=True)
    lines = report(found, options)
    print("\n".join(lines))
    if options.whole or options.write:
        keep("bench-replay", lines)


if __name__ == "__main__":
    main()
