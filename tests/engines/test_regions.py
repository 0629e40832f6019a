"""Three balancers with one real vLLM each: who is asked first, who never, and what the engines say."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.engines.vllm import Vllm, fleet
from tests.support.processes import Child, eventually
from tests.support.raw import Answer, Connection, chat, request
from tests.support.regions import Region, Regions, regions

REGIONS = ("us", "eu", "asia")
SEQUENCES = 2
CONTEXT = 131_072
LONG = 130_000
"""Tokens: no request ends by itself before all have begun."""

REQUESTS_MAX = 60
"""More than an engine gets whose load nobody knows, because the machine stood still for seconds."""

HELD = 3


@dataclass
class Seen:
    """Requests of one balancer, and the room of its peers as far as it knows."""

    pushed: int
    held: int
    forwarded: dict[str, int]
    room: dict[str, int]
    rtt_ns: dict[str, int]

    @property
    def placed(self) -> int:
        """Requests about which something was decided."""
        return self.pushed + self.held + sum(self.forwarded.values())


@dataclass
class World:
    """The regions, and the engine of each."""

    found: Regions
    engines: dict[str, Vllm]

    def at_work(self) -> dict[str, int]:
        """Requests in each engine, by its own gauges."""
        return {name: int(engine.running + engine.waiting) for name, engine in self.engines.items()}

    def full(self, name: str) -> bool:
        """Whether the engine could not run one more."""
        return self.engines[name].running == SEQUENCES

    def seen(self) -> Seen:
        """What the balancer of us has done, and what it knows."""
        engine = self.found["us"].front.state()["engine"]
        return Seen(
            pushed=sum(replica["in_flight"] for replica in engine["replicas"]),
            held=engine["hold"]["requests"],
            forwarded={peer["name"]: peer["in_flight"] for peer in engine["peers"]},
            room={peer["name"]: peer["room"] if peer["available"] else 0 for peer in engine["peers"]},
            rtt_ns={peer["name"]: peer["rtt_ns"] or 0 for peer in engine["peers"]},
        )

    def peers_known(self, requests: int) -> bool:
        """Whether us has placed so many requests, and knows who is nearer and wherever an engine has room."""
        seen = self.seen()
        nearer = 0 < seen.rtt_ns["eu"] < seen.rtt_ns["asia"]  # as measured: a busy machine adds to either
        open_ = all(seen.room[name] or self.full(name) for name in seen.room)
        return nearer and open_ and seen.placed == requests

    def all_at_work(self, requests: int) -> bool:
        """Whether every one of so many is in an engine, but for those that us holds."""
        return sum(self.at_work().values()) + self.seen().held == requests

    def settled(self, requests: int) -> bool:
        """Whether, besides, none of those that may not leave us is held while its engine has a place."""
        return self.all_at_work(requests) and (self.full("us") or not self.seen().held)

    def at_rest(self) -> None:
        """Waits until no engine has work."""
        eventually(lambda: not any(self.at_work().values()), what="engines at rest", of=self.working)

    @property
    def working(self) -> list[Child]:
        """The processes that have to bring about what a test waits for."""
        fronts = [self.found[name].front.child for name in self.engines]
        return [*(engine.child for engine in self.engines.values()), *fronts]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    longer = ["--max-model-len", str(CONTEXT), "--hf-overrides", f'{{"max_position_embeddings": {CONTEXT}}}']
    with fleet(3, "--max-num-seqs", str(SEQUENCES), *longer) as servers:
        engines = dict(zip(REGIONS, servers, strict=True))
        urls = {name: [engine.url] for name, engine in engines.items()}
        arguments = ["--residency", "home/*=us", "--tenant-header", "x-tenant", "--hold-timeout-s", "3600"]
        arguments += ["--trusted-proxies", "127.0.0.1", "--policy", "prefix"]
        with regions(*REGIONS, engines=urls, wan=("--profile", "us-eu-asia"), arguments=arguments) as found:
            # An engine of which nothing is known yet has room for one: that one is for us, not for the other.
            found["eu"].verb("/peers/asia/isolate")
            found["asia"].verb("/peers/eu/isolate")
            yield World(found, engines)


@dataclass
class Streams:
    """Requests that go on until they are left."""

    region: Region
    name: str
    headers: tuple[str, ...] = ()
    connections: list[Connection] = field(default_factory=list)
    readers: list[asyncio.Task[Answer]] = field(default_factory=list)

    async def begin(self) -> None:
        """One more request."""
        number = len(self.connections)
        connection = await Connection.open(self.region.front.port)
        self.connections.append(connection)
        body = chat(f"{self.name} {number} the quick brown fox", max_tokens=LONG, stream=True, model="tiny")
        connection.writer.write(request(body, request_id=f"{self.name}-{number}", headers=self.headers))
        self.readers.append(asyncio.create_task(connection.answer()))

    async def leave(self) -> None:
        """All clients go, those first that asked last: nobody held is sent on for the others' leaving."""
        for connection, reader in zip(reversed(self.connections), reversed(self.readers), strict=True):
            reader.cancel()
            connection.abort()
        await asyncio.gather(*self.readers, return_exceptions=True)

    def lines(self) -> list[dict[str, object]]:
        """The log's lines in the order in which they were asked."""

        def logged() -> list[dict[str, object]] | None:
            lines = {str(line["request_id"]): line for line in self.region.front.log()}
            names = [f"{self.name}-{number}" for number in range(len(self.connections))]
            return [lines[name] for name in names] if set(names) <= set(lines) else None

        return eventually(logged, what="lines of those who left")


async def until(world: World, probe: Callable[[], bool], what: str) -> None:
    """Waits without keeping the clients from reading."""
    await asyncio.to_thread(eventually, probe, what=what, of=world.working)


async def place_one_more(world: World, streams: Streams) -> Seen:
    """Asks when us knows of its peers' room; what us has done when it has decided."""
    number = len(streams.connections)
    await until(world, lambda: world.peers_known(number), "us knows of its peers' room")
    await streams.begin()
    await until(world, lambda: world.seen().placed > number, "one more is placed")
    return await asyncio.to_thread(world.seen)


def test_a_full_region_spills_to_the_nearer_one_first_and_nothing_crosses_twice(world: World) -> None:
    streams = Streams(world.found["us"], "spill")
    order: list[str] = []

    async def run() -> dict[str, int]:
        before = await asyncio.to_thread(world.seen)
        try:
            while len(order) < REQUESTS_MAX and not all(map(world.full, REGIONS)):
                seen = await place_one_more(world, streams)
                gone = [name for name in seen.forwarded if seen.forwarded[name] > before.forwarded[name]]
                order.append(*gone or ["us"])
                before = seen
                await until(
                    world, lambda: world.all_at_work(len(order)), "the engines have those that are not held"
                )
            return await asyncio.to_thread(world.at_work)
        finally:
            await streams.leave()

    at_work = asyncio.run(run())
    world.at_rest()
    print(f"sent to, in order: {order}; in the engines, by their own gauges: {at_work}")
    assert order[:SEQUENCES] == ["us"] * SEQUENCES
    assert SEQUENCES <= order.index("eu") < order.index("asia")
    assert order[: order.index("asia")].count("eu") >= SEQUENCES
    # Where each was in the end: a region may have refused one, that then stayed here.
    ended = Counter(line["peer"] or "us" for line in streams.lines() if line["peer"] or line["replica"])
    assert at_work == {name: ended[name] for name in REGIONS}
    for name in ("eu", "asia"):
        log = world.found[name].front.log()
        said = [line for line in log if str(line["request_id"]).startswith("spill-") and line["replica"]]
        assert {(line["peer"], line["replica"]) for line in said} == {("us", world.engines[name].url)}
        assert len(said) >= ended[name]  # more, where us gave one up that took too long to begin


def test_a_tenant_that_must_stay_waits_for_its_own_region_while_others_are_idle(world: World) -> None:
    streams = Streams(world.found["us"], "home", headers=("X-Tenant: home",))

    async def run() -> Seen:
        try:
            while (seen := await asyncio.to_thread(world.seen)).held < HELD:
                assert len(streams.connections) < REQUESTS_MAX, (seen, world.at_work())
                await place_one_more(world, streams)
                await until(
                    world, lambda: world.settled(len(streams.connections)), "nobody waits beside a place"
                )
            return seen
        finally:
            await streams.leave()

    seen = asyncio.run(run())
    world.at_rest()
    assert seen.pushed >= SEQUENCES
    # Each was asked when us knew of room elsewhere.
    assert not any(seen.forwarded.values())
    assert not any(line["peer"] for line in streams.lines())
    for name in ("eu", "asia"):
        assert not [line for line in world.found[name].front.log() if "home-" in str(line["request_id"])]
