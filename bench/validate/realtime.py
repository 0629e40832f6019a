"""The simulator against ``skylb load`` through the real proxy, in front of mock replicas.

    python -m bench.validate.realtime [--seconds 30] [--policies prefix,least_load] [--scenarios chat]
        [--write]

The same requests, the same engine settings, the same replica model; real are the sockets, the event
loops and the clock. Replicas and users run five times faster than life; the simulator gets the same
faster replicas, so that probes are as old in both. Loads are closed loops.

A closed loop over caches is chaotic: a message that comes 0.05 ms later changes a choice, that choice what
is cached, and so on; P90 of the same requests differs by a quarter between two such runs. So the simulator
runs many times, each with other delays of that size: the mean is the prediction, and the spread says by how
much one real run may be off it for no reason.

A whole run that ends by itself renews the results; others print, unless ``--write`` is given.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import msgspec

from bench.processes import heed_stops
from bench.record import keep
from bench.validate.order import Spread, agreement
from skylb.config import EngineSettings
from skylb.tools.mock.profiles import PROFILES
from skylb.tools.sim.made import Plan, make
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario
from skylb.tools.sim.simulate import run
from skylb.tools.sim.workload import Agent, Arena, File, SharedPrompt, Tree
from skylb.tools.text import table
from tests.support.processes import balancer, mocks

TIME_SCALE = 0.2
PROFILE: Final = "l4-8b"
REPLICAS = 4
REGION = "local"
RTT_MS = 0.4
"""Between two processes of one machine, what they do for a request included (make bench-overhead)."""

JITTER_MS = 0.05
"""Mean of what is added to a message's way, drawn: enough that no two runs are the same."""

SIMULATIONS = 16
POLICIES = tuple(
    dict.fromkeys([EngineSettings().policy, "prefix", "llm_d", "gorgo", "least_load", "round_robin"])
)
REPEATED = POLICIES[:2]
"""Run as often as the load says, each time with other requests."""

WARMUP_SHARE = 0.2
DRAIN_S = 20.0
SECONDS = 30.0
"""Length of a run."""
TARGETS = {"tokens_per_s": 0.05, "ttft_p50_s": 0.10, "ttft_p90_s": 0.20}


@dataclass(frozen=True)
class Load:
    """One load: what is sent, by how many users at once, and how often the policies of `REPEATED` run.

    Shared prompts fill the replicas' KV room to its edge, where chance is largest: more runs.
    """

    kind: Arena | Agent | Tree
    users: int
    repeats: int = 1
    policies: tuple[str, ...] = POLICIES


_AGENT = Agent(
    systems=3,
    system_tokens=1000,
    turns=8.0,
    first_tokens=150,
    answer_tokens=60,
    answer_spread=0.8,
    result_tokens=120,
    think_s=1.0,
    think_spread=1.0,
    tokens_max=8000,
    sessions=1200,
)
"""Agents whose sessions fit into an L4's KV room beside others."""

_SHORT = Arena(single=1.0, first_tokens=200, first_spread=0.6, answer_tokens=20, sessions=8000)

LOADS = {
    "chat": Load(Arena(tokens_max=16_000, think_s=5.0), 30),
    "shared_prompt": Load(SharedPrompt(tokens_max=16_000, think_s=5.0), 40, repeats=3),
    "tree": Load(Tree(), 6),
    "agents": Load(_AGENT, 10, policies=(*REPEATED, "lmetric", "least_load")),
    "short_answers": Load(_SHORT, 32, policies=(*REPEATED, "least_load")),
}
"""All under all policies would take half an hour: the last two run under those that differ most."""


def real(workload: Path, users: int, policy: str, seconds: float) -> dict[str, float]:
    """Figures of ``skylb load`` through ``skylb serve``."""
    mock = ("--profile", PROFILE, "--time-scale", str(TIME_SCALE))
    with (
        tempfile.TemporaryDirectory() as scratch,
        mocks(REPLICAS, *mock) as urls,
        balancer(*urls, arguments=["--policy", policy]) as front,
    ):
        path = Path(scratch) / "report.json"
        options = {
            "--target": front.url,
            "--workload": workload,
            "--concurrency": users,
            "--time-scale": TIME_SCALE,
            "--duration-s": seconds,
            "--warmup-s": seconds * WARMUP_SHARE,
            "--drain-s": DRAIN_S,
            "--json-file": path,
            "--progress": "off",
        }
        words = [str(word) for pair in options.items() for word in pair]
        subprocess.run([sys.executable, "-m", "skylb", "load", *words], check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(path.read_text())
    total, lag_s = found["total"], found["generator"]["loop_lag_s"]["p99"] or 0.0
    return {
        "tokens_per_s": total["tokens_per_s"],
        "ttft_p50_s": total["ttft_s"]["p50"],
        "ttft_p90_s": total["ttft_s"]["p90"],
        "hit_rate": total["hit_rate"],
        "failed": total["failed"],
        "lag_s": lag_s,
    }


def simulated(workload: Path, users: int, policy: str, seconds: float, seed: int) -> dict[str, float]:
    """Figures of the same in virtual time."""
    faster = {
        name: getattr(PROFILES[PROFILE], name) * TIME_SCALE
        for name in ("step_base_us", "prefill_token_us", "attention_us", "decode_seq_us", "context_token_us")
    }
    scenario = Scenario(
        seed=seed,
        duration_s=seconds,
        warmup_s=seconds * WARMUP_SHARE,
        drain_s=DRAIN_S,
        engine={"policy": policy},
        regions=[Region(name=REGION, replicas=[Replicas(count=REPLICAS, profile=PROFILE, override=faster)])],
        network=Network(rtt_ms=[[RTT_MS - 2 * JITTER_MS]], jitter_ms=JITTER_MS),
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


@dataclass
class Compared:
    """One load under one policy: real runs, each with requests of its own, and simulated ones of each."""

    load: str
    policy: str
    real: list[dict[str, float]]
    simulated: list[list[dict[str, float]]]

    def measured(self, name: str) -> float:
        """Mean of the real runs."""
        return fmean(one[name] for one in self.real)

    def forecast(self, name: str) -> Spread:
        """The prediction of that mean, and how far chance takes it."""
        return Spread.of([[one[name] for one in runs] for runs in self.simulated])


def plan(names: Sequence[str], policies: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Every run as repeat, load and policy: all once, then again those that run more often.

    The order of the policies is another one each time, so that none always runs at the same moment.

    Args:
        names: of loads.
        policies: instead of each load's own, if there are any.
    """
    for repeat in range(1, max(LOADS[name].repeats for name in names) + 1):
        for name in names:
            load = LOADS[name]
            times = {
                policy: load.repeats if policy in REPEATED else 1 for policy in policies or load.policies
            }
            now = [policy for policy, count in times.items() if repeat <= count]
            for policy in random.Random(f"{name} {repeat}").sample(now, len(now)):
                yield repeat, name, policy


def compare(found: Compared, seed: int, seconds: float, scratch: Path) -> None:
    """One load under one policy, both ways, once more."""
    load = LOADS[found.load]
    workload = scratch / f"{found.load}-{seed}.jsonl"
    if not workload.exists():
        turns = make(load.kind, Plan({REGION: 1.0}, {REGION: load.users}, 0.0), seed=seed)
        workload.write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
    forecast = [
        simulated(workload, load.users, found.policy, seconds, chance) for chance in range(SIMULATIONS)
    ]
    measured = real(workload, load.users, found.policy, seconds)
    found.real.append(measured)
    found.simulated.append(forecast)


def rows(found: Sequence[Compared]) -> list[str]:
    """The comparison as a table: real, simulated and its interval, and by how much the simulator is off."""
    columns = ["load", "policy", "runs"]
    for title in ("tokens/s", "TTFT P50 ms", "TTFT P90 ms"):
        columns += [title, "simulated", "off"]
    columns += ["hit rate", "simulated"]
    lines = []
    for one in found:
        line = [one.load, one.policy, str(len(one.real))]
        for name, most in TARGETS.items():
            measured, forecast = one.measured(name), one.forecast(name)
            off = forecast.mean / measured - 1
            scale = 1e3 if name.startswith("ttft") else 1
            mark = "" if abs(off) <= most else " !" if forecast.holds(measured) else " !!"
            line += [
                f"{measured * scale:.0f}",
                f"{forecast.mean * scale:.0f} +-{forecast.noise / forecast.mean:.0%}",
                f"{off:+.1%}{mark}",
            ]
        line += [f"{one.measured('hit_rate'):.3f}", f"{one.forecast('hit_rate').mean:.3f}"]
        lines.append(line)
    return table(columns, lines, left=2)


def orders(found: Sequence[Compared]) -> list[str]:
    """Whether real time puts the policies into the order that simulation does, by load."""
    lines = []
    for load in dict.fromkeys(one.load for one in found):
        mine = [one for one in found if one.load == load]
        for title, name in (("P90", "ttft_p90_s"), ("P50", "ttft_p50_s")):
            measured = {one.policy: one.measured(name) for one in mine}
            lines += agreement(
                f"{load}, TTFT {title}", measured, {one.policy: one.forecast(name) for one in mine}
            )
    return lines


def report(found: Sequence[Compared], seconds: float) -> list[str]:
    """What is printed and kept."""
    lag_s = max(run["lag_s"] for one in found for run in one.real)
    failed = sum(run["failed"] for one in found for run in one.real)
    return [
        *rows(found),
        "",
        f"simulated: mean of {SIMULATIONS} runs, +- what chance does to the mean of the real runs (2 sigma)",
        "!: off by more than 5 % (tokens/s), 10 % (P50), 20 % (P90); !!: and by more than chance explains",
        "",
        *orders(found),
        "",
        (
            f"failed requests: {failed:.0f}; worst loop lag of the load generator, P99: {lag_s * 1e3:.1f} ms "
            f"(time scale {TIME_SCALE}, {seconds:g} s a run)"
        ),
    ]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.validate.realtime")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--policies", default="", help="instead of each load's own")
    parser.add_argument("--scenarios", default=",".join(LOADS))
    parser.add_argument("--write", action="store_true", help="renew bench/results, whole or not")
    options = parser.parse_args(arguments)
    options.policies = [name for name in options.policies.split(",") if name]
    options.scenarios = options.scenarios.split(",")
    options.whole = (
        not options.policies and options.seconds == SECONDS and set(options.scenarios) == set(LOADS)
    )
    return options


def main() -> None:
    """Compares, prints; stores if whole or asked to. Ctrl-C and SIGTERM leave what there is."""
    options = parsed()
    heed_stops()
    planned = list(plan(options.scenarios, options.policies))
    every = {
        (name, policy): Compared(name, policy, [], [])
        for name in options.scenarios
        for policy in options.policies or LOADS[name].policies
    }
    status = 0
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for repeat, name, policy in planned:
                compare(every[name, policy], repeat, options.seconds, Path(scratch))
                print(rows([every[name, policy]])[1], flush=True)
        except KeyboardInterrupt:
            print("interrupted: what there is follows", flush=True)
            status = 130
    found = [one for one in every.values() if one.simulated]
    if found:
        lines = report(found, options.seconds)
        print("\n".join(lines))
        if (options.whole and not status) or options.write:
            keep("validate-sim", lines)
    sys.exit(status)


if __name__ == "__main__":
    main()
