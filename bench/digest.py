"""``make bench-digest``: what balancers gain by telling each other their hottest prefixes, and what it costs.

Three regions, simulated, each with programs of its own (long system prompts, popular after Zipf). A share
of the sessions of a region's programs begins elsewhere: users who travel, or a front that sends them to the
next region. Same requests with the digest on and off, seed by seed.
"""

import argparse
import json
import random
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median

import msgspec

from bench import choice
from bench.engine import head
from bench.record import keep
from skylb import _core
from skylb.load.conversation import SYSTEM_BASE
from skylb.sim.requests import Requests, requests
from skylb.sim.result import Result
from skylb.sim.scenario import Clients, Network, PeerDigest, Region, Replicas, Scenario
from skylb.sim.simulate import finish, prepare
from skylb.sim.summary import change
from skylb.sim.workload import Agent, SharedPrompt, Workload

REGIONS = ("us", "eu", "asia")
RTT_MS = [[0.5, 90.0, 150.0], [90.0, 0.5, 200.0], [150.0, 200.0, 0.5]]
SHARES = {"us": 0.5, "eu": 0.25, "asia": 0.25}
"""Of the sessions: us has half as many again as its share of the replicas."""

S_NS = 1_000_000_000
MARK_KEY = b"k" * 24
ROUNDS = 30
HEAD = head(2_000)
SEEDS = tuple(range(400, 406))
DURATION_S, WARMUP_S = 420.0, 120.0
OWN_PROGRAMS = 1 << 50
"""Block ids of a region's system prompts begin at a multiple of it above `SYSTEM_BASE`."""


@dataclass(frozen=True)
class Case:
    """One workload, the share of sessions that begin away from their program's region, and a policy."""

    name: str
    workload: Workload
    profile: str
    away: float
    policy: str


def cases(policies: tuple[str, ...], rate: float) -> Iterator[Case]:
    """All that is compared."""
    chat = SharedPrompt(systems=24, system_tokens=4096, tokens_max=16_000, rate_per_s=1.5 * rate)
    agent = Agent(systems=24, system_tokens=4096, think_s=0.5, tokens_max=128_000, rate_per_s=4.0 * rate)
    for policy in policies:
        for away in (0.0, 0.3):
            yield Case("chat", chat, "l4-8b", away, policy)
            yield Case("agent", agent, "h100-8b", away, policy)


def scenario(case: Case, seed: int, *, digest: bool) -> Scenario:
    """One run."""
    replicas = [Replicas(count=4, profile=case.profile)]
    return Scenario(
        seed=seed,
        duration_s=DURATION_S,
        warmup_s=WARMUP_S,
        engine={"policy": case.policy, "hold_timeout_s": 600.0},
        regions=[Region(name=name, replicas=replicas) for name in REGIONS],
        network=Network(rtt_ms=RTT_MS, jitter_ms=2.0),
        clients=Clients(mode="sessions"),
        peer_digest=PeerDigest(enabled=digest),
        workload=msgspec.structs.replace(case.workload, shares=SHARES),
    )


def spread(made: Requests, away: float, seed: int) -> Requests:
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
            begins[session] = random_.choice(others) if random_.random() < away else region
        columns["region"][row] = begins[session]
    return Requests(msgspec.json.encode(columns), made.count)


def run(task: tuple[Case, int]) -> list[Result]:
    """One seed without and with the digest."""
    case, seed = task
    made = spread(requests(scenario(case, seed, digest=False)), case.away, seed)
    return [finish(prepare(scenario(case, seed, digest=on), made)) for on in (False, True)]


def told(results: list[Result], name: str) -> float:
    """The mean over runs of a counter of all balancers."""
    sums = [sum(balancer.counters[name] for balancer in result.balancers) for result in results]
    return sum(sums) / len(sums)


def row(case: Case, pairs: list[list[Result]]) -> str:
    """A line of the table."""
    off, on = ([pair[index] for pair in pairs] for index in (0, 1))

    def moved(of: str) -> str:
        values = [
            [getattr(r.total.ttft_s, of) if of != "hit" else r.total.hit_rate for r in side]
            for side in (on, off)
        ]
        found = change(values[0], values[1])
        return (
            "-"
            if found is None
            else f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        )

    def mean(of: str, side: list[Result]) -> float:
        return sum((getattr(r.total.ttft_s, of) or 0) for r in side) / len(side)

    crossed = [sum(r.forwards.sent for r in side if r.forwards) / len(side) for side in (off, on)]
    bytes_s = max((r.forwards.digest_bytes_per_s_max for r in on if r.forwards), default=0.0)
    hits, tokens, found = (told(on, f"peer_digest_{name}") for name in ("hits", "tokens", "tokens_found"))
    hit_rate = sum(r.total.hit_rate or 0 for r in off) / len(off)
    return (
        f"{case.policy:10} {case.name:5} {case.away:4.0%} | {hit_rate:.3f} {moved('hit'):>22} | "
        f"{1000 * mean('p50', off):5.0f} {moved('p50'):>22} | "
        f"{1000 * mean('p90', off):6.0f} {moved('p90'):>22} | "
        f"{crossed[0]:6.0f} {crossed[1]:6.0f} | {hits:5.0f} {found / max(1, tokens):4.0%} | {bytes_s:5.0f}"
    )


def full_digest(number: int) -> bytes:
    """What a peer tells whose digest has no room for more."""
    teller = choice.balancer(f"p{number}", f"r{number}", 1, 1_000_000, "prefix")
    teller.set_peer_digest(MARK_KEY, 8 << 10, 1, 30 * S_NS)
    teller.set_peers([(0, "own", "own")], 1)
    teller.peer_state(0, _core.PEER_ALIVE, 1)
    request_id, now_ns = 0, choice.NOW_NS
    for _ in range(4):
        for family in range(1_000):
            request_id, now_ns = request_id + 1, now_ns + 3_000_000
            shared = f"{number} {family} " + "shared text " * (45 + family % 400)
            body = chat(f"{shared} of {request_id}")
            teller.submit(request_id, HEAD, body, now_ns)
            teller.complete(request_id, _core.OUTCOME_OK, None, now_ns)
    if not teller.peer_digest_due(0, now_ns):
        raise RuntimeError("nothing to tell")
    return teller.peer_digest(0, now_ns)


def costs() -> list[str]:
    """The choice of one of 10 peers that have all told as much as they may, against none that has."""
    bodies = [chat(f"{number} " + "known words " * 160) for number in range(100)]
    made = {on: choice.meshed(HEAD, bodies, full=True, policy="predictive") for on in (False, True)}
    digests = [full_digest(number) for number in range(choice.PEERS)]
    made[True].set_peer_digest(MARK_KEY, 8 << 10, 1, 3_600 * S_NS)
    for number, digest in enumerate(digests):
        made[True].merge_peer_digest(number, digest, choice.NOW_NS)
    known = json.loads(made[True].state(choice.NOW_NS))["peer_digest"]["bytes"]
    times: dict[bool, list[float]] = {False: [], True: []}
    request_id = 10_000
    for _ in range(ROUNDS):
        for on, engine in made.items():
            begin_ns = time.thread_time_ns()
            for body in bodies:
                request_id += 1
                engine.submit(request_id, HEAD, body, choice.NOW_NS)
                engine.complete(request_id, _core.OUTCOME_OK, None, choice.NOW_NS)
            times[on].append((time.thread_time_ns() - begin_ns) / 1_000 / len(bodies))
    off_us, on_us = median(times[False]), median(times[True])
    prefixes = made[True].peers(choice.NOW_NS)[0].digest_prefixes
    told = f"10 digests of {len(digests[0])} bytes ({prefixes} prefixes)"
    return [
        f"choice of 10 peers, 2 kB, predictive: {off_us:.1f} us without, {on_us:.1f} us with {told}",
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
    parser.add_argument("--policies", default="predictive,prefix")
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--print-only", action="store_true")
    parser.add_argument("--table-only", action="store_true")
    given = parser.parse_args()
    lines = [] if given.table_only else costs()
    print(*lines, sep="\n", flush=True)
    title = (
        f"{'policy':10} {'work':5} away | hits, change % {'':12}| TTFT P50 ms, change % {'':5} | "
        f"P90 ms, change % {'':12} | crossed off, on | by it, found | B/s"
    )
    lines.append(title)
    print(title, flush=True)
    with ProcessPoolExecutor(given.processes) as pool:
        for case in cases(tuple(given.policies.split(",")), given.rate):
            pairs = list(pool.map(run, [(case, seed) for seed in SEEDS[: given.seeds]]))
            lines.append(row(case, pairs))
            print(lines[-1], flush=True)
    if not given.print_only:
        keep("bench-digest", lines)


if __name__ == "__main__":
    main()
