"""``make bench-digest``: what balancers gain by telling each other their hottest prefixes, and what it costs.

Three regions, simulated, each with programs of its own (long system prompts, popular after Zipf). A share
of the sessions of a region's programs begins elsewhere: users who travel, or a front that sends them to the
next region. Requests leave their region because it is crowded or evacuated, or because their tenant may not
be served there. Same requests with the digest on and off, seed by seed; intervals are of 95 %.
"""

import argparse
import json
import random
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median

import msgspec

from bench import choice
from bench.engine import head
from bench.record import keep
from skylb import _core
from skylb.tools.load.conversation import SYSTEM_BASE
from skylb.tools.sim.requests import Requests, requests
from skylb.tools.sim.result import Result
from skylb.tools.sim.scenario import (
    Clients,
    Evacuate,
    Network,
    PeerDigest,
    Region,
    Replicas,
    Residency,
    Scenario,
)
from skylb.tools.sim.simulate import finish, prepare
from skylb.tools.sim.summary import change
from skylb.tools.sim.workload import Agent, SharedPrompt, Workload

REGIONS = ("us", "eu", "asia")
RTT_MS = [[0.5, 90.0, 150.0], [90.0, 0.5, 200.0], [150.0, 200.0, 0.5]]
AWAY = 0.3
"""Of a region's sessions, those of other regions' programs."""

S_NS = 1_000_000_000
MARK_KEY = b"k" * 24
ROUNDS = 30
SAMPLED_NS = 2_100_000
HEAD = head(2_000)
SEEDS = tuple(range(400, 405))
POLICIES = "predictive,prefix"
DURATION_S, WARMUP_S = 210.0, 60.0
OWN_PROGRAMS = 1 << 50
"""Block ids of a region's system prompts begin at a multiple of it above `SYSTEM_BASE`."""

EVEN = {"us": 1.0, "eu": 1.0, "asia": 1.0}
CROWDED = {"us": 0.5, "eu": 0.25, "asia": 0.25}
EVACUATED = Evacuate(region="us", at_s=75.0, until_s=180.0)
MUST_LEAVE = [
    Residency([other for other in REGIONS if other != name], tenant=number)
    for number, name in enumerate(REGIONS)
]
"""A third of every region's users may not be served there."""

AGENT = Agent(systems=24, system_tokens=4096, think_s=0.5, tokens_max=128_000, rate_per_s=3.2)
DOCUMENTS = SharedPrompt(systems=48, system_tokens=24_000, first_tokens=60, single=0.5, rate_per_s=8.0)


@dataclass(frozen=True)
class Case:
    """A workload, and why requests leave their region."""

    policy: str
    name: str
    workload: Workload
    why: str


def cases(policies: Sequence[str]) -> Iterator[Case]:
    """All that is compared."""
    for policy in policies:
        for name, workload in (("documents", DOCUMENTS), ("agents", AGENT)):
            for why in ("crowded", "evacuated", "must leave"):
                yield Case(policy, name, workload, why)


def scenario(case: Case, seed: int, *, digest: bool) -> Scenario:
    """One run."""
    leave = case.why == "must leave"
    shares = CROWDED if case.why == "crowded" else EVEN
    replicas = [Replicas(count=4, profile="h100-8b")]
    return Scenario(
        seed=seed,
        duration_s=DURATION_S,
        warmup_s=WARMUP_S,
        engine={"policy": case.policy, "hold_timeout_s": 600.0},
        regions=[Region(name=name, replicas=replicas) for name in REGIONS],
        # Nothing is drawn per message: runs in which digests change no choice are equal.
        network=Network(rtt_ms=RTT_MS),
        clients=Clients(mode="sessions", tenants=len(REGIONS) if leave else 0),
        faults=[EVACUATED] if case.why == "evacuated" else [],
        residency=MUST_LEAVE if leave else [],
        peer_digest=PeerDigest(enabled=digest),
        workload=msgspec.structs.replace(case.workload, shares=shares),
    )


def spread(made: Requests, seed: int) -> Requests:
    """Each region's programs made its own, and so many of its sessions sent elsewhere."""
    columns = msgspec.json.decode(made.data)
    random_ = random.Random(seed)
    begins: dict[int, str] = {}
    for row, (region, session) in enumerate(zip(columns["region"], columns["session"], strict=True)):
        own = OWN_PROGRAMS * REGIONS.index(region)
        runs = columns["runs"][row]
        columns["runs"][row] = [(start + own * (start >= SYSTEM_BASE), length) for start, length in runs]
        if session not in begins:
            others = [name for name in REGIONS if name != region]
            begins[session] = random_.choice(others) if random_.random() < AWAY else region
        columns["region"][row] = begins[session]
    return Requests(msgspec.json.encode(columns), made.count)


def run(task: tuple[Case, int]) -> list[Result]:
    """One seed without and with the digest."""
    case, seed = task
    made = spread(requests(scenario(case, seed, digest=False)), seed)
    return [finish(prepare(scenario(case, seed, digest=on), made)) for on in (False, True)]


def told(results: list[Result], name: str) -> float:
    """The mean over runs of a counter of all balancers."""
    sums = [sum(balancer.counters[name] for balancer in result.balancers) for result in results]
    return sum(sums) / len(sums)


FIGURES: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("hit rate", lambda result: result.total.hit_rate or 0.0),
    ("mean TTFT s", lambda result: result.total.ttft_s.mean or 0.0),
    ("P90 s", lambda result: result.total.ttft_s.p90 or 0.0),
    ("P99 s", lambda result: result.total.ttft_s.p99 or 0.0),
)


def row(case: Case, pairs: list[list[Result]]) -> str:
    """A line of the table: each figure without the digest, and by what share it changes with it."""
    off, on = ([pair[index] for pair in pairs] for index in (0, 1))
    cells = [case.policy, case.name, case.why]
    for _, figure in FIGURES:
        base, values = [figure(result) for result in off], [figure(result) for result in on]
        found = change(values, base)
        moved = (
            f" {100 * found.mean:+.1f} % [{100 * found.low:+.1f}, {100 * found.high:+.1f}]" if found else ""
        )
        cells.append(f"{sum(base) / len(base):.3f}{moved}")
    crossed = sum(result.forwards.sent for result in on if result.forwards) / len(on)
    bytes_s = max((result.forwards.digest_bytes_per_s_max for result in on if result.forwards), default=0.0)
    hits, tokens, there = (told(on, f"peer_digest_{name}") for name in ("hits", "tokens", "tokens_found"))
    cells += [f"{hits:.0f} of {crossed:.0f}", f"{there / max(1, tokens):.0%}", f"{bytes_s:.0f}"]
    return f"| {' | '.join(cells)} |"


def full_digest(number: int) -> tuple[bytes, float]:
    """What a peer tells whose digest has no room for more, and the milliseconds that it takes to find it."""
    teller = choice.balancer(f"p{number}", f"r{number}", 1, 1_000_000, "prefix")
    teller.set_peer_digest(MARK_KEY, 8 << 10, 1, 30 * S_NS)
    teller.set_peers([(0, "own", "own", True)], 1)
    teller.peer_state(0, _core.PEER_ALIVE, 1)
    request_id, now_ns = 0, choice.NOW_NS
    for _ in range(4):
        for family in range(1_000):
            request_id, now_ns = request_id + 1, now_ns + 3_000_000
            shared = f"{number} {family} " + "shared text " * (45 + family % 400)
            body = chat(f"{shared} of {request_id}")
            request, _ = choice.submit(teller, request_id, HEAD, body, now_ns)
            teller.complete(request, _core.OUTCOME_OK, None, now_ns)
    begin_ns = time.thread_time_ns()
    digest = choice.told(teller, 0, _core.MESSAGE_DIGEST, now_ns)
    return digest, (time.thread_time_ns() - begin_ns) / 1e6


def per_request_us(made: dict[bool, _core.Engine], bodies: list[bytes], step_ns: int) -> dict[bool, float]:
    """``submit`` and ``complete`` without and with digests, so much time apart; medians of rounds in turn."""
    times: dict[bool, list[float]] = {on: [] for on in made}
    request_id, now_ns = 10_000, choice.NOW_NS
    for _ in range(ROUNDS):
        for on, engine in made.items():
            begin_ns = time.thread_time_ns()
            for body in bodies:
                request_id, now_ns = request_id + 1, now_ns + step_ns
                request, _ = choice.submit(engine, request_id, HEAD, body, now_ns)
                engine.complete(request, _core.OUTCOME_OK, None, now_ns)
            times[on].append((time.thread_time_ns() - begin_ns) / 1_000 / len(bodies))
    return {on: median(taken) for on, taken in times.items()}


def costs() -> list[str]:
    """The choice of one of 10 peers that have all told as much as they may, and a push that is looked at."""
    bodies = [chat(f"{number} " + "known words " * 160) for number in range(100)]
    digests, taken_ms = zip(*(full_digest(number) for number in range(choice.PEERS)), strict=True)
    found = {}
    for full in (True, False):
        made = {on: choice.meshed(HEAD, bodies, full=full, policy="predictive") for on in (False, True)}
        made[True].set_peer_digest(MARK_KEY, 8 << 10, 1, 3_600 * S_NS)
        for number, digest in enumerate(digests):
            made[True].merge_peer_digest(number, digest, choice.NOW_NS)
        found[full] = per_request_us(made, bodies, 0 if full else SAMPLED_NS)
        known = json.loads(made[True].state(choice.NOW_NS))["peer_digest"]["bytes"]
    return [
        (
            f"choice of 10 peers, 2 kB, predictive: {found[True][False]:.1f} us without, "
            f"{found[True][True]:.1f} us with 10 digests of {len(digests[0])} bytes"
        ),
        (
            f"push to one of 1,000 replicas, 2 kB, counted: {found[False][False]:.1f} us without, "
            f"{found[False][True]:.1f} us with; at most 500 a second are counted"
        ),
        f"finding what to tell, every 2 s at most, where no more can be known: {median(taken_ms):.1f} ms",
        f"memory of what they told, and of our own: {known >> 10} KiB",
    ]


def chat(text: str) -> bytes:
    """A body."""
    user = str(zlib.crc32(text.encode()) % 97)
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": choice.MODEL, "messages": messages, "user": user}).encode()


def main() -> None:
    """Runs, prints, keeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--print-only", action="store_true")
    parser.add_argument("--table-only", action="store_true")
    given = parser.parse_args()
    lines = [] if given.table_only else costs()
    print(*lines, sep="\n", flush=True)
    titles = ["policy", "workload", "why", *(name for name, _ in FIGURES), "by it", "found", "B/s"]
    lines += [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    print(*lines[-2:], sep="\n", flush=True)
    with ProcessPoolExecutor(given.processes) as pool:
        for case in cases(given.policies.split(",")):
            pairs = list(pool.map(run, [(case, seed) for seed in SEEDS[: given.seeds]]))
            lines.append(row(case, pairs))
            print(lines[-1], flush=True)
    whole = (given.seeds, given.policies) == (len(SEEDS), POLICIES)
    if whole and not (given.print_only or given.table_only):
        keep("bench-digest", lines)


if __name__ == "__main__":
    main()
