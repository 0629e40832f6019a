"""The simulator against ``skylb load`` through the real proxy, in front of mock replicas.

    python -m bench.validate.realtime [--seconds 60] [--policies prefix,least_load] [--scenarios chat]

The same requests, the same engine settings, the same replica model; real are the sockets, the event
loops and the clock. Replicas and users run five times faster than life; the simulator gets the same
faster replicas, so that probes are as old in both. Loads are closed loops.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.record import keep
from skylb.config import EngineSettings
from skylb.mock.profiles import PROFILES
from skylb.sim.made import Plan, make
from skylb.sim.result import Result
from skylb.sim.scenario import Clients, Network, Region, Replicas, Scenario
from skylb.sim.simulate import run
from skylb.sim.workload import Arena, File, SharedPrompt, Tree
from skylb.text import table
from tests.support.processes import balancer, mocks

TIME_SCALE = 0.2
PROFILE = "l4-8b"
REPLICAS = 4
REGION = "local"
RTT_MS = 0.4
"""Between two processes of one machine, what they do for a request included (make bench-overhead)."""

WARMUP_SHARE = 0.2
DRAIN_S = 20.0
TARGETS = {"tokens_per_s": 0.05, "ttft_p50_s": 0.10, "ttft_p90_s": 0.20}


@dataclass(frozen=True)
class Load:
    """One load: what is sent, and by how many users at once."""

    kind: Arena | Tree
    users: int


LOADS = {
    "chat": Load(Arena(tokens_max=16_000, think_s=5.0), 30),
    "shared_prompt": Load(SharedPrompt(tokens_max=16_000, think_s=5.0), 40),
    "tree": Load(Tree(), 6),
}


def real(workload: Path, users: int, policy: str, seconds: float) -> dict[str, float]:
    """Figures of ``skylb load`` through ``skylb serve``."""
    mock = ("--profile", PROFILE, "--time-scale", str(TIME_SCALE))
    with (
        tempfile.TemporaryDirectory() as scratch,
        mocks(REPLICAS, *mock) as urls,
        balancer(*urls, arguments=["--policy", policy]) as front,
    ):
        report = Path(scratch) / "report.json"
        options = {
            "--target": front.url,
            "--workload": workload,
            "--concurrency": users,
            "--time-scale": TIME_SCALE,
            "--duration-s": seconds,
            "--warmup-s": seconds * WARMUP_SHARE,
            "--drain-s": DRAIN_S,
            "--json-file": report,
            "--progress": "off",
        }
        words = [str(word) for pair in options.items() for word in pair]
        subprocess.run([sys.executable, "-m", "skylb", "load", *words], check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(report.read_text())
    total, lag_s = found["total"], found["generator"]["loop_lag_s"]["p99"] or 0.0
    return {
        "tokens_per_s": total["tokens_per_s"],
        "ttft_p50_s": total["ttft_s"]["p50"],
        "ttft_p90_s": total["ttft_s"]["p90"],
        "hit_rate": total["hit_rate"],
        "failed": total["failed"],
        "lag_s": lag_s,
    }


def simulated(workload: Path, users: int, policy: str, seconds: float) -> dict[str, float]:
    """Figures of the same in virtual time."""
    faster = {
        name: getattr(PROFILES[PROFILE], name) * TIME_SCALE
        for name in ("step_base_us", "prefill_token_us", "decode_seq_us", "context_token_us")
    }
    scenario = Scenario(
        duration_s=seconds,
        warmup_s=seconds * WARMUP_SHARE,
        drain_s=DRAIN_S,
        engine={"policy": policy},
        regions=[Region(name=REGION, replicas=[Replicas(count=REPLICAS, profile=PROFILE, override=faster)])],
        network=Network(rtt_ms=[[RTT_MS]]),
        clients=Clients(users={REGION: users}, think_scale=TIME_SCALE, repeat=False),
        workload=File(path=str(workload)),
    )
    return figures(run(scenario))


def figures(result: Result) -> dict[str, float]:
    """Those that are compared."""
    total = result.total
    return {
        "tokens_per_s": total.throughput_tokens_per_s,
        "ttft_p50_s": total.ttft_s.p50 or 0.0,
        "ttft_p90_s": total.ttft_s.p90 or 0.0,
        "hit_rate": total.hit_rate or 0.0,
        "failed": total.failures,
    }


def compare(name: str, policy: str, seconds: float, scratch: Path) -> dict[str, Any]:
    """One load under one policy, both ways."""
    load = LOADS[name]
    workload = scratch / f"{name}.jsonl"
    if not workload.exists():
        turns = make(load.kind, Plan({REGION: 1.0}, {REGION: load.users}, 0.0), seed=1)
        workload.write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
    forecast = simulated(workload, load.users, policy, seconds)
    measured = real(workload, load.users, policy, seconds)
    return {"load": name, "policy": policy, "simulated": forecast, "real": measured}


def rows(found: list[dict[str, Any]]) -> list[str]:
    """The comparison as a table: real, simulated, and by how much the simulator is off."""
    columns = ["load", "policy"]
    for title in ("tokens/s", "TTFT P50 ms", "TTFT P90 ms"):
        columns += [title, "simulated", "off"]
    columns += ["hit rate", "simulated"]
    lines = []
    for one in found:
        line = [one["load"], one["policy"]]
        for name, most in TARGETS.items():
            measured, forecast = one["real"][name], one["simulated"][name]
            off = forecast / measured - 1
            scale = 1e3 if name.startswith("ttft") else 1
            mark = "" if abs(off) <= most else " !"
            line += [f"{measured * scale:.0f}", f"{forecast * scale:.0f}", f"{off:+.1%}{mark}"]
        line += [f"{one[which]['hit_rate']:.3f}" for which in ("real", "simulated")]
        lines.append(line)
    return table(columns, lines, left=2)


def same_order(found: list[dict[str, Any]]) -> list[str]:
    """Whether real time puts the policies into the same order of P90 TTFT as simulation, by load."""
    lines = []
    for load in dict.fromkeys(one["load"] for one in found):
        mine = [one for one in found if one["load"] == load]
        orders = [
            [one["policy"] for one in sorted(mine, key=lambda one: one[which]["ttft_p90_s"])]
            for which in ("real", "simulated")
        ]
        word = "the same" if orders[0] == orders[1] else "ANOTHER"
        lines.append(
            f"{load}: by P90 TTFT {' < '.join(orders[0])}; simulated: {word}"
            + ("" if orders[0] == orders[1] else f" ({' < '.join(orders[1])})")
        )
    return lines


def main() -> None:
    """Compares, prints, stores."""
    parser = argparse.ArgumentParser(prog="bench.validate.realtime")
    parser.add_argument("--seconds", type=float, default=60.0)
    policies = dict.fromkeys([EngineSettings().policy, "prefix", "least_load", "round_robin"])
    parser.add_argument("--policies", default=",".join(policies))
    parser.add_argument("--scenarios", default=",".join(LOADS))
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.scenarios.split(","):
            for policy in options.policies.split(","):
                found.append(compare(name, policy, options.seconds, Path(scratch)))
                print(rows(found[-1:])[1], flush=True)
    lines = [
        *rows(found),
        "",
        "!: off by more than 5 % (tokens/s), 10 % (P50), 20 % (P90)",
        *same_order(found),
    ]
    lines.append(
        "worst loop lag of the load generator, P99: "
        f"{max(one['real']['lag_s'] for one in found) * 1e3:.1f} ms (time scale {TIME_SCALE})"
    )
    keep("validate-sim", lines)


if __name__ == "__main__":
    main()
