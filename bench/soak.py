"""``make soak``: many requests, of whose clients some leave early; what the balancer keeps of them.

Clients ask over connections that stay open. One request in twenty is left: before its body is whole, while it
waits, or in its stream. Most prompts are new, and the prefix tree is small, so that it is full soon and each
request makes room in it. The balancer's resident memory is read every 10,000 requests. Its slope is that of a
straight line through all readings after the first tenth. At the end every count must be what it was at the
beginning: descriptors, connections, requests in flight and held.

    python -m bench.soak [--requests 1000000]
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.overhead import work
from bench.overhead.cpu import cpu_ns, rss_bytes
from bench.overhead.measure import upstreams
from bench.processes import Process, Proxy, free_port, wait_ready
from bench.record import keep
from skylb._core import ResponseReader
from tests.support.processes import SKYLB, eventually, get

REQUESTS = 1_000_000
LEAVE = 0.05
CONNECTIONS = 64
REPLICAS = 4
EVERY = 10_000
"""Requests between two readings of memory."""

SLOPE_MAX_MIB = 1.0
"""Per 100,000 requests."""

TREE_BYTES = 8 << 20
STREAMED = 0.5
STEP_US = 500
"""How long a mock replica takes for a token: clients then find every phase to leave in."""

PHASES = ("sending", "waiting", "streaming")
ANSWER_S = 60.0
QUIET_S = 30.0


@dataclass
class Tally:
    """What the clients saw."""

    pid: int
    """The balancer's."""
    begun: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """Answered, an error, or in which phase its client left."""
    memory: list[tuple[int, int]] = field(default_factory=list)
    """After so many requests, bytes."""

    def begin(self) -> None:
        """One more request."""
        self.begun += 1
        if self.begun % EVERY == 0:
            self.memory.append((self.begun, rss_bytes(self.pid)))


class Client:
    """One after the other over one connection, which a client that leaves takes with it.

    Args:
        port: the balancer's.
        tally: of all clients.
        seed: decides what it asks, and when it leaves.
    """

    def __init__(self, port: int, tally: Tally, seed: int) -> None:
        self._port = port
        self._tally = tally
        self._rng = random.Random(seed)
        self._systems = [work.text(self._rng, 600) for _ in range(8)]
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, requests: int) -> None:
        """Asks until so many have been begun by all."""
        while self._tally.begun < requests:
            self._tally.begin()
            try:
                how = await asyncio.wait_for(self._ask(), ANSWER_S)
            except (OSError, TimeoutError) as error:
                how = type(error).__name__
                self._leave()
            self._tally.ended[how] += 1
        self._leave()

    async def _ask(self) -> str:
        rng = self._rng
        stream = rng.random() < STREAMED
        payload = work.body(rng, self._systems, size=1_500, stream=stream, tokens=rng.randint(2, 12))
        request = work.http(payload)
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        leaves = rng.choice(PHASES) if rng.random() < LEAVE else ""
        if leaves == "sending":
            writer.write(request[: -rng.randint(1, len(payload))])
            await asyncio.sleep(0)
            return self._leave(leaves)
        writer.write(request)
        if leaves == "waiting":
            await asyncio.sleep(rng.random() * 0.004)
            return self._leave(leaves)
        framing = ResponseReader()
        while not framing.done:
            data = await reader.read(65536)
            if not data or framing.error is not None:
                self._leave()
                return framing.error or "closed"
            framing.feed(data)
            if leaves:
                return self._leave(leaves)
        return "answered" if framing.status == 200 else str(framing.status)

    def _leave(self, how: str = "") -> str:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
        return how


@dataclass(frozen=True)
class Rest:
    """What there is of a balancer that has nothing to do."""

    descriptors: int
    """But those of idle connections to replicas."""
    connections: int
    requests: int
    in_flight: int
    held: int
    buffer_bytes: int

    @classmethod
    def of(cls, pid: int, admin: str) -> "Rest":
        """As it is now."""
        state = json.loads(get(f"{admin}/state"))
        process, engine = state["process"], state["engine"]
        return cls(
            descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())) - process["upstream_idle"],
            connections=process["connections"],
            requests=process["requests"] + engine["requests"],
            in_flight=engine["in_flight"],
            held=engine["hold"]["requests"],
            buffer_bytes=process["buffer_bytes"],
        )


async def asked(port: int, requests: int, tally: Tally) -> None:
    """All clients until the end."""
    await asyncio.gather(*(Client(port, tally, seed).run(requests) for seed in range(CONNECTIONS)))


def slope_mib(memory: Sequence[tuple[int, int]]) -> float:
    """MiB per 100,000 requests, by least squares."""
    counts, sizes = zip(*memory, strict=True)
    return float(statistics.linear_regression(counts, sizes).slope * 100_000 / (1 << 20))


def balancer(urls: Sequence[str], scratch: Path) -> tuple[Proxy, str]:
    """A balancer with what is on by default, and receipts; and its admin listener."""
    port, admin = free_port(), free_port()
    command = [*SKYLB, "serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    command += ["--access-log", "off", "--receipts", "1000", "--engine-tree-bytes-max", str(TREE_BYTES)]
    command += [argument for url in urls for argument in ("--replica", url)]
    process = Process("skylb", command, frozenset(), scratch / "skylb.log")
    return Proxy("skylb", port, process), f"http://127.0.0.1:{admin}"


def run(requests: int) -> tuple[list[str], bool]:
    """The lines of the report, and whether all is well."""
    with (
        upstreams(REPLICAS, "--step-base-us", str(STEP_US)) as urls,
        tempfile.TemporaryDirectory() as scratch,
    ):
        proxy, admin = balancer(urls, Path(scratch))
        try:
            proxy.process.start()
            wait_ready(proxy, work.requests(1, size=500)[0].partition(b"\r\n\r\n")[2])
            pid = proxy.process.pid
            tally = Tally(pid)
            start = eventually(lambda: at_rest(pid, admin), what="the balancer rests before it begins")
            before, began = cpu_ns(pid), time.monotonic()
            uvloop.run(asked(proxy.port, requests, tally))
            wall_s, cpu_s = time.monotonic() - began, (cpu_ns(pid) - before) / 1e9
            with suppress(AssertionError):  # it is told below
                eventually(lambda: at_rest(pid, admin) == start, timeout_s=QUIET_S, what="rest")
            end = Rest.of(pid, admin)
        finally:
            proxy.process.stop()
    return report(tally, start, end, wall_s, cpu_s)


def at_rest(pid: int, admin: str) -> Rest | None:
    """What it has, once no request is under way."""
    found = Rest.of(pid, admin)
    return None if found.connections or found.requests else found


def report(tally: Tally, start: Rest, end: Rest, wall_s: float, cpu_s: float) -> tuple[list[str], bool]:
    """The lines, and whether all is well."""
    begun = tally.begun
    steady = [reading for reading in tally.memory if reading[0] > begun / 10]
    slope = slope_mib(steady)
    left = sum(tally.ended[phase] for phase in PHASES)
    failed = sum(tally.ended.values()) - left - tally.ended["answered"]
    good = slope < SLOPE_MAX_MIB and end == start and not failed
    lines = [
        (
            f"{begun:,} requests in {wall_s:.0f} s ({begun / wall_s:,.0f}/s), "
            f"{cpu_s / begun * 1e6:.0f} us of CPU each"
        ),
        f"answered {tally.ended['answered']:,}; their clients left {left:,} ({100 * left / begun:.1f} %): "
        + ", ".join(f"{phase} {tally.ended[phase]:,}" for phase in PHASES),
        f"failed {failed}: " + (", ".join(f"{k} {n}" for k, n in failures(tally)) or "none"),
        "",
        "| requests | resident memory, MiB |",
        "|---|---|",
    ]
    step = max(1, len(tally.memory) // 10)
    lines += [f"| {count:,} | {size / (1 << 20):.1f} |" for count, size in tally.memory[::step]]
    lines += [
        "",
        f"slope {slope:+.3f} MiB per 100,000 requests (goal: below {SLOPE_MAX_MIB:g})",
        f"at rest before: {start}",
        f"at rest after:  {end}",
    ]
    return lines, good


def failures(tally: Tally) -> list[tuple[str, int]]:
    """How requests ended that nobody left, and that were not answered."""
    return [(how, n) for how, n in tally.ended.most_common() if how not in {*PHASES, "answered"}]


def main() -> None:
    """Runs, prints, stores what a whole run found; status 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="bench.soak")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    requests = parser.parse_args().requests
    lines, good = run(requests)
    print("\n".join(lines))
    if requests >= REQUESTS:
        keep("soak", lines)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
