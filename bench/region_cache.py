"""``make bench-region-cache``: three balancers of one region against one, where sessions hop between them.

First simulated, over three workloads. Then with real processes before mock replicas, over loopback: each turn
of a conversation goes to a balancer drawn at random. Hits are the replicas' own: tokens found in their prefix
caches, of those looked up. Each case runs with one balancer, with three that tell each other which prompts
they push, and with three that do not.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench.record import keep
from skylb.tools.sim.pool import run_all
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import Clients, Region, Replicas, Scenario
from skylb.tools.sim.workload import Agent, Arena, SharedPrompt, Workload
from tests.support.processes import Balancer, balancer, eventually, get, mocks
from tests.support.raw import ask, request
from tests.support.regions import regions

Fronts = list[Balancer]

BALANCERS = 3
REPLICAS = 4
SEEDS = tuple(range(1, 9))
DURATION_S, WARMUP_S = 900.0, 60.0

WORKLOADS: dict[str, tuple[Workload, int]] = {
    "chat sessions": (Arena(), 24),
    "agents": (Agent(systems=24, system_tokens=4096, think_s=0.5, tokens_max=32_000, rate_per_s=1.0), 6),
    "shared prompts": (SharedPrompt(systems=24, system_tokens=4_000, single=0.5, rate_per_s=4.0), 16),
}
"""With the number of users at once."""

SESSIONS, TURNS = 48, 8
MOCK = ("--profile", "l4-8b", "--time-scale", "0.1", "--kv-tokens", "60000")
QUIET = ("--no-region-cache",)


@dataclass(frozen=True)
class Case:
    """One side of the comparison."""

    name: str
    balancers: int
    tells: bool


CASES = (
    Case("one balancer", 1, tells=True),
    Case("three, silent", BALANCERS, tells=False),
    Case("three", BALANCERS, tells=True),
)


# ---------------------------------------------------------------------------------------------- simulated


def scenario(workload: Workload, users: int, case: Case, seed: int) -> Scenario:
    """One run."""
    return Scenario(
        seed=seed,
        duration_s=DURATION_S,
        warmup_s=WARMUP_S,
        regions=[Region(name="us", balancers=case.balancers, replicas=[Replicas(count=REPLICAS)])],
        clients=Clients(users={"us": users}, hop=True),
        region_cache=case.tells,
        workload=workload,
    )


def simulated() -> Iterator[str]:
    """Hit rates, and what is told, by workload."""
    seeds = f"{len(SEEDS)} seeds, {DURATION_S:g} s each"
    yield f"Simulated, {REPLICAS} replicas, every request to any of the balancers, {seeds}."
    figures_of = f"{'hit rate':>10}{'TTFT p50':>10}{'TTFT p90':>10}{'told, B/s':>12}{'B/request':>11}"
    yield f"{'workload':16}{'balancers':16}{figures_of}"
    for name, (workload, users) in WORKLOADS.items():
        for case in CASES:
            runs = run_all([scenario(workload, users, case, seed) for seed in SEEDS], processes=2)
            results = [result for result in runs.results if isinstance(result, Result)]
            yield f"{name:16}{case.name:16}{figures(results)}"


def figures(results: Sequence[Result]) -> str:
    """Means over seeds."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    hits = mean([result.total.hit_rate or 0.0 for result in results])
    p50 = mean([result.total.ttft_s.p50 or 0.0 for result in results])
    p90 = mean([result.total.ttft_s.p90 or 0.0 for result in results])
    told = mean([result.shares.cached_bytes if result.shares else 0 for result in results])
    each = mean([float(result.total.requests) for result in results])
    per_s = told / DURATION_S
    return f"{100 * hits:9.1f}%{p50:9.2f}s{p90:9.2f}s{per_s:12.0f}{told / max(each, 1.0):11.0f}"


# ------------------------------------------------------------------------------------------- real processes


def counted(urls: Sequence[str]) -> tuple[int, int]:
    """Tokens looked up and found by the replicas so far."""
    states = [json.loads(get(f"{url}/mock/state")) for url in urls]
    return sum(state["cache_queries"] for state in states), sum(state["cache_hits"] for state in states)


async def session(number: int, ports: Sequence[int], seed: int) -> int:
    """A conversation whose turns go to balancers at random; the answers that came whole."""
    rng = random.Random(seed * 10_000 + number)
    words = lambda count: " ".join(f"w{rng.randrange(10**6)}" for _ in range(count))  # noqa: E731
    system = {"role": "system", "content": f"program {number % 6} " + "rule " * 200}
    messages, whole = [system], 0
    await asyncio.sleep(rng.random())
    for _ in range(TURNS):
        messages.append({"role": "user", "content": words(60)})
        body = {"model": "mock", "messages": messages, "max_tokens": 40, "ignore_eos": True}
        answer = await ask(rng.choice(ports), request(body))
        whole += answer.status == 200
        said = json.loads(answer.body)["choices"][0]["message"]["content"]
        messages.append({"role": "assistant", "content": said})
        await asyncio.sleep(rng.random() * 0.6)
    return whole


async def sessions(ports: Sequence[int], seed: int) -> int:
    """All of them at once."""
    return sum(await asyncio.gather(*(session(number, ports, seed) for number in range(SESSIONS))))


def events(found: Fronts, name: str) -> float:
    """One of the engine's counters, over all balancers."""
    sample = f'skylb_engine_events_total{{event="{name}"}} '
    pages = [front.metrics().splitlines() for front in found]
    return sum(float(line.removeprefix(sample)) for page in pages for line in page if line.startswith(sample))


@contextmanager
def fronts(names: Sequence[str], engines: dict[str, list[str]], arguments: Sequence[str]) -> Iterator[Fronts]:
    """Balancers of one region before the same replicas; one has no peers."""
    if len(names) == 1:
        with balancer(*engines[names[0]]) as front:
            yield [front]
        return
    with regions(*names, engines=engines, one_region="us", arguments=arguments) as found:
        for name in names:
            shared = lambda name=name: all(  # noqa: E731
                row["shared"] for row in found[name].front.state()["engine"]["replicas"]
            )
            eventually(shared, what=f"{name} shares its replicas")
        yield [found[name].front for name in names]


def real(case: Case, seed: int) -> str:
    """Processes before mock replicas."""
    names = [f"us-{number}" for number in range(case.balancers)]
    arguments = () if case.tells else QUIET
    with mocks(REPLICAS, *MOCK) as urls:
        engines = dict.fromkeys(names, urls)
        with fronts(names, engines, arguments) as found:
            ports = [front.port for front in found]
            cpu_s = -sum(front.metric("process_cpu_seconds_total") for front in found)
            began_s = time.monotonic()
            whole = asyncio.run(sessions(ports, seed))
            elapsed_s = time.monotonic() - began_s
            cpu_s += sum(front.metric("process_cpu_seconds_total") for front in found)
            looked, hit = counted(urls)
            told = events(found, "cached_bytes")
    requests = SESSIONS * TURNS
    if whole != requests:
        raise SystemExit(f"{requests - whole} of {requests} requests failed")
    return (
        f"{case.name:16}{100 * hit / looked:9.1f}%{told / elapsed_s:12.0f}{told / requests:11.0f}"
        f"{1000 * cpu_s / requests:12.2f}"
    )


def processes() -> Iterator[str]:
    """The same with real processes."""
    yield f"Real processes, {REPLICAS} mock replicas, {SESSIONS} conversations of {TURNS} turns, which hop."
    yield f"{'balancers':16}{'hit rate':>10}{'told, B/s':>12}{'B/request':>11}{'CPU, ms/req':>12}"
    for case in CASES:
        yield real(case, SEEDS[0])


def main() -> None:
    """Measures, prints, keeps."""
    lines = []
    for part in (simulated(), [""], processes()):
        for line in part:
            print(line, flush=True)
            lines.append(line)
    keep("bench-region-cache", lines)


if __name__ == "__main__":
    main()
