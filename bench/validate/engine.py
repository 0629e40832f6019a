"""The replica model against a real vLLM on the CPU, behind the real proxy.

    python -m bench.validate.engine [--repeats 5] [--seconds 40] [--write]

A whole run renews the results; a shorter one prints, unless ``--write`` is given.

A few micro-runs calibrate the model (step time against prompt tokens, batch and context; what a request
costs besides); sizes and limits are those the engine was started with. The engine's steps have a core of
their own, the API server, the balancer and the users share the other (`bench.validate.cores`). Then the
simulator predicts different, mixed runs: conversations with shared system prompts, more users than
sequences, a cache too small for all. The same requests go through ``skylb serve`` to the same vLLM;
``cached_tokens`` is compared request by request, running and waiting second by second.
``VLLM_ENVIRONMENT`` names the engine's environment (make validate-model sets it).
"""

import argparse
import asyncio
import json
import math
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import aiohttp
import msgspec

from bench.processes import heed_stops
from bench.record import keep
from bench.validate.calibrate import Calibration, Sample, Speeds, fit, residuals, together
from bench.validate.client import Outcome, Users
from bench.validate.cores import apart, ran_s
from skylb.tools.load.turn import Turn
from skylb.tools.sim.made import Plan, make
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import Clients, Network, Region, Replicas, Scenario
from skylb.tools.sim.simulate import run
from skylb.tools.sim.workload import File, SharedPrompt
from skylb.tools.text import table
from tests.engines.vllm import Vllm, fleet, installed
from tests.support.processes import balancer, get

MAX_SEQS = 8
BATCHED_TOKENS = 2048
MODEL_LEN = 4096
KV_BLOCKS = 160
"""Of the CPU's 128 tokens: room for a few conversations, so that the cache must evict."""

USERS = 12
REPEATS = 5
SECONDS = 40.0
"""Length of a run."""

WARMUP_SHARE = 0.2
REGION = "local"
WORKLOAD = SharedPrompt(
    single=0.3,
    more_turns=3.0,
    first_tokens=200,
    first_spread=0.9,
    next_tokens=60,
    answer_tokens=60,
    think_s=0.4,
    think_spread=0.7,
    systems=4,
    system_tokens=384,
    sessions_per_user=4,
    tokens_max=3500,
)
MODEL = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "head_dim": 64,
}
"""Large enough that the engine's steps, not its HTTP server, decide."""

TARGETS = {"tokens_per_s": 0.10, "ttft_p50_s": 0.20, "hit_rate": 0.02}


@dataclass(frozen=True)
class Cache:
    """What the engine says of its KV cache."""

    block_tokens: int
    blocks: int


def make_model(directory: Path) -> Path:
    """The tests' model with more of everything; weights are random anyway."""
    model = directory / "model"
    shutil.copytree(installed() / "model", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | MODEL))
    return model


def cache_of(server: Vllm) -> Cache:
    """Read from ``cache_config_info``."""
    page = get(f"{server.url}/metrics").decode()
    found = {name: int(value) for name, value in re.findall(r'(block_size|num_gpu_blocks)="(\d+)"', page)}
    return Cache(found["block_size"], found["num_gpu_blocks"])


def predicted(path: Path, seconds: float, speeds: Speeds, cache: Cache) -> Result:
    """What the simulator says will happen."""
    override: dict[str, Any] = {
        "block_size": cache.block_tokens,
        "kv_tokens": (cache.blocks - 1) * cache.block_tokens,  # vLLM keeps one block for itself
        "max_model_len": MODEL_LEN,
        "max_num_seqs": MAX_SEQS,
        "max_num_batched_tokens": BATCHED_TOKENS,
    }
    override |= {
        name: value for name, value in asdict(speeds).items() if name not in {"overhead_us", "wake_us"}
    }
    scenario = Scenario(
        duration_s=seconds,
        warmup_s=seconds * WARMUP_SHARE,
        records=True,
        regions=[Region(name=REGION, replicas=[Replicas(profile="l4-8b", override=override)])],
        # Two hops, each there and back.
        network=Network(rtt_ms=[[speeds.overhead_us / 2e3]], window_bytes=0),
        clients=Clients(users={REGION: USERS}, repeat=False),
        workload=File(path=str(path)),
    )
    return run(scenario)


@dataclass
class Measured:
    """A real run: outcomes by request, running and waiting by second."""

    outcomes: dict[int, Outcome]
    loads: list[tuple[float, float]]


async def measured(front: str, server: str, turns: Sequence[Turn], seconds: float, seed: int) -> Measured:
    """Runs the users through the proxy, and looks at the engine's gauges every second."""
    users = Users(front, turns, USERS, seconds, seed)
    loads: list[tuple[float, float]] = []
    watching = asyncio.create_task(_watch(server, loads))
    try:
        outcomes = await users.run()
    finally:
        watching.cancel()
        await asyncio.wait({watching})
    if not watching.cancelled():
        watching.result()  # it never ends by itself: this raises why it did
    return Measured(outcomes, loads)


async def _watch(server: str, loads: list[tuple[float, float]]) -> None:
    gauge = re.compile(r"^vllm:num_requests_(running|waiting)\{[^}]*\} (\S+)", re.MULTILINE)
    async with aiohttp.ClientSession() as http:
        while True:
            await asyncio.sleep(1.0)
            async with http.get(f"{server}/metrics") as answer:
                found = dict(gauge.findall(await answer.text()))
            loads.append((float(found["running"]), float(found["waiting"])))


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that a share ``q`` does not exceed."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def compared(real: Measured, forecast: Result, turns: Sequence[Turn], seconds: float) -> dict[str, Any]:
    """Figures of both, and how far they are apart request by request."""
    by_id = {turn.id: turn for turn in turns}
    warmup_s = seconds * WARMUP_SHARE
    sent = {key: one for key, one in real.outcomes.items() if one.sent_s >= warmup_s}
    ended = [
        (by_id[key], one)
        for key, one in real.outcomes.items()
        if warmup_s <= one.sent_s + one.e2e_s <= seconds
    ]
    measured_s = seconds - warmup_s
    if forecast.records is None:
        raise AssertionError("records were asked for")
    records = forecast.records
    cached = dict(zip(records.id, records.cached_tokens, strict=True))
    both = [(one.cached_tokens, cached[key]) for key, one in sent.items() if key in cached]
    mismatched = [key for key, one in real.outcomes.items() if one.prompt_tokens != by_id[key].in_tokens]
    if mismatched:
        raise AssertionError(f"prompts are not as long as planned: {mismatched[:3]}")
    window = slice(round(warmup_s), round(seconds))
    total = forecast.total
    return {
        "requests": len(sent),
        "real": {
            "tokens_per_s": sum(turn.in_tokens + 2 * turn.out_tokens for turn, _ in ended) / measured_s,
            "ttft_p50_s": quantile([one.ttft_s for one in sent.values()], 0.5),
            "ttft_p90_s": quantile([one.ttft_s for one in sent.values()], 0.9),
            "hit_rate": sum(one.cached_tokens for _, one in ended) / sum(turn.in_tokens for turn, _ in ended),
            "running": fmean(running for running, _ in real.loads[window]),
            "waiting": fmean(waiting for _, waiting in real.loads[window]),
        },
        "predicted": {
            "tokens_per_s": total.throughput_tokens_per_s,
            "ttft_p50_s": total.ttft_s.p50,
            "ttft_p90_s": total.ttft_s.p90,
            "hit_rate": total.hit_rate,
            "running": fmean(forecast.series.running[window]),
            "waiting": fmean(forecast.series.waiting[window]),
        },
        "compared": len(both),
        "cached_equal": sum(ours == theirs for ours, theirs in both) / max(1, len(both)),
        "cached_error": fmean(abs(ours - theirs) for ours, theirs in both) if both else 0.0,
    }


def mean_of(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of all repeats together."""
    if not isinstance(found[0], dict):
        return fmean(found)
    return {name: mean_of([one[name] for one in found]) for name in found[0]}


def rows(found: Sequence[dict[str, Any]]) -> list[str]:
    """Real, predicted, off; one line a repeat, and the mean of all."""
    columns = ["repeat", "requests", "core lost"]
    for title in ("tokens/s", "TTFT P50 ms", "TTFT P90 ms", "hit rate", "running", "waiting"):
        columns += [title, "predicted", "off"]
    columns += ["cached_tokens equal", "mean error"]
    lines = []
    names = [str(number) for number, _ in enumerate(found, 1)]
    for name_of, one in zip([*names, "mean"], [*found, mean_of(found)], strict=True):
        line = [name_of, f"{one['requests']:.0f}", f"{one['core_lost']:.1%}"]
        for name, measured_value in one["real"].items():
            forecast = one["predicted"][name]
            scale, digits = (1e3, 0) if name.startswith("ttft") else (1, 0 if name == "tokens_per_s" else 3)
            if name in {"hit_rate", "running", "waiting"}:
                apart = forecast - measured_value
                off = f"{apart:+.3f}"
            else:
                apart = forecast / measured_value - 1
                off = f"{apart:+.1%}"
            off += " !" if abs(apart) > TARGETS.get(name, math.inf) else ""
            line += [f"{measured_value * scale:.{digits}f}", f"{forecast * scale:.{digits}f}", off]
        line += [f"{one['cached_equal']:.1%}", f"{one['cached_error']:.1f}"]
        lines.append(line)
    return table(columns, lines)


def calibration(server: Vllm, number: int) -> list[Sample]:
    """One round of micro-runs."""
    with balancer(server.url) as front:
        return asyncio.run(Calibration(front.url, server.url, number).run())


def calibrated(samples: Sequence[Sample], speeds: Speeds) -> list[str]:
    """What was measured and what fits it."""
    off = residuals(samples, speeds)
    lines = [
        [
            sample.name,
            f"{sample.seconds * 1e3:.1f}",
            f"{sample.seconds * 1e3 * (1 + share):.1f}",
            f"{share:+.0%}",
        ]
        for sample, share in zip(samples, off, strict=True)
    ]
    fitted = ", ".join(f"{name.removesuffix('_us')} {us:.3g} us" for name, us in asdict(speeds).items())
    return [fitted, "", *table(["micro-run", "ms", "fitted", "off"], lines)]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[Path, Vllm]]:
    """A directory for files, and the engine."""
    with tempfile.TemporaryDirectory() as scratch:
        model = make_model(Path(scratch))
        with fleet(1, *arguments, model=model) as (server,):
            yield Path(scratch), server


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.validate.engine")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--write", action="store_true", help="renew bench/results, whole or not")
    options = parser.parse_args(arguments)
    options.whole = options.repeats >= REPEATS and options.seconds == SECONDS
    return options


def report(repeats: int, seconds: float) -> list[str]:
    """Calibrates, measures, predicts; what is printed and kept."""
    arguments = ["--max-num-seqs", str(MAX_SEQS), "--max-num-batched-tokens", str(BATCHED_TOKENS)]
    arguments += ["--num-gpu-blocks-override", str(KV_BLOCKS)]
    found = []
    with serving(*arguments) as (scratch, server):
        cache = cache_of(server)
        steps = apart(server.child.pid)
        rounds, runs = [calibration(server, 0)], []
        for seed in range(repeats):
            turns = make(WORKLOAD, Plan({REGION: 1.0}, {REGION: USERS}, 0.0), seed)
            ran_before_s, began_s = ran_s(steps), time.monotonic()
            with balancer(server.url) as front:
                real = asyncio.run(measured(front.url, server.url, turns, seconds, seed))
            lost = 1.0 - (ran_s(steps) - ran_before_s) / (time.monotonic() - began_s)
            runs.append((turns, real, lost))
            rounds.append(calibration(server, seed + 1))
            print(f"repeat {seed + 1}: {len(real.outcomes)} requests", file=sys.stderr, flush=True)
        samples = together(rounds)
        size = f"{cache.blocks} blocks of {cache.block_tokens} tokens"
        head = [f"cache: {size}; {MAX_SEQS} sequences, {USERS} users", *calibrated(samples, fit(samples))]
        for seed, (turns, real, lost) in enumerate(runs):
            path = scratch / f"{seed}.jsonl"
            path.write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
            speeds = fit(together(rounds[seed : seed + 2]))
            forecast = predicted(path, seconds, speeds, cache)
            found.append(compared(real, forecast, turns, seconds) | {"core_lost": lost})
    return [
        *head,
        "",
        *rows(found),
        "",
        "!: off by more than 10 % (tokens/s), 20 % (P50), 2 points (hit rate)",
        "each repeat is predicted from the micro-runs right before and right after it; above: all of them",
        "core lost: share of the time that neither the engine core nor its worker was on their core",
    ]


def main() -> None:
    """Compares, prints; stores if whole or asked to. Ctrl-C and SIGTERM end the engine too."""
    options = parsed()
    heed_stops()
    try:
        lines = report(options.repeats, options.seconds)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    print("\n".join(lines))
    if options.whole or options.write:
        keep("validate-model", lines)


if __name__ == "__main__":
    main()
