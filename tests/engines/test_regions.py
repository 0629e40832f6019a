"""Three balancers with one real vLLM each: who is asked first, who never, and what the engines say."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.engines.vllm import Vllm, fleet
from tests.support.processes import eventually
from tests.support.raw import Connection, chat, request
from tests.support.regions import Region, Regions, regions

REGIONS = ("us", "eu", "asia")
SEQUENCES = 2
LONG = 3000
"""Tokens: no request ends by itself before all have begun."""

REQUESTS_MAX = 12


@dataclass
class World:
    """The regions, and the engine of each."""

    found: Regions
    engines: dict[str, Vllm]

    def at_work(self) -> dict[str, int]:
        """Requests in each engine, by its own gauges."""
        return {name: int(engine.running + engine.waiting) for name, engine in self.engines.items()}

    def full(self) -> bool:
        """Whether no engine could run one more."""
        return all(engine.running == SEQUENCES for engine in self.engines.values())

    def at_rest(self) -> None:
        """Waits until no engine has work."""
        eventually(
            lambda: not any(self.at_work().values()),
            timeout_s=30.0,
            what="engines at rest",
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with fleet(3, "--max-num-seqs", str(SEQUENCES)) as servers:
        engines = dict(zip(REGIONS, servers, strict=True))
        urls = {name: [engine.url] for name, engine in engines.items()}
        arguments = ["--residency", "home/*=us", "--tenant-header", "x-tenant", "--hold-timeout-s", "120"]
        arguments += ["--trusted-proxies", "127.0.0.1", "--policy", "prefix"]
        with regions(*REGIONS, engines=urls, wan=("--profile", "us-eu-asia"), arguments=arguments) as found:
            yield World(found, engines)


@dataclass
class Streams:
    """Requests that go on until they are left."""

    region: Region
    name: str
    headers: tuple[str, ...] = ()
    connections: list[Connection] = field(default_factory=list)

    async def begin(self, *, wait_s: float) -> bool:
        """One more request; whether its answer began within the time."""
        number = len(self.connections)
        connection = await Connection.open(self.region.front.port)
        self.connections.append(connection)
        body = chat(f"{self.name} {number} the quick brown fox", max_tokens=LONG, stream=True, model="tiny")
        connection.writer.write(request(body, request_id=f"{self.name}-{number}", headers=self.headers))
        try:
            async with asyncio.timeout(wait_s):
                await connection.reader.readuntil(b"data: ")
        except TimeoutError:
            return False
        return True

    async def leave(self) -> list[dict[str, object]]:
        """All clients go; the log's lines in the order in which they were asked."""
        for connection in self.connections:
            connection.abort()

        def logged() -> list[dict[str, object]] | None:
            lines = {str(line["request_id"]): line for line in self.region.front.log()}
            names = [f"{self.name}-{number}" for number in range(len(self.connections))]
            return [lines[name] for name in names] if set(names) <= set(lines) else None

        return await asyncio.to_thread(eventually, logged, what="lines of those who left")


def where(lines: list[dict[str, object]]) -> list[str]:
    """The region that each was sent to; those that were held till the end left out."""
    return [str(line["peer"] or "us") for line in lines if line["peer"] or line["replica"]]


def test_a_full_region_spills_to_the_nearer_one_first_and_nothing_crosses_twice(world: World) -> None:
    us = world.found["us"]

    async def run() -> tuple[dict[str, int], list[dict[str, object]]]:
        streams = Streams(us, "spill")
        while len(streams.connections) < REQUESTS_MAX and not await asyncio.to_thread(world.full):
            await streams.begin(wait_s=2.0)  # one that is to wait in an engine's queue does not begin
        return await asyncio.to_thread(world.at_work), await streams.leave()

    at_work, lines = asyncio.run(run())
    order = where(lines)
    world.at_rest()
    print(f"sent to, in order: {order}; in the engines, by their own gauges: {at_work}")
    assert order[:SEQUENCES] == ["us"] * SEQUENCES
    assert SEQUENCES <= order.index("eu") < order.index("asia")
    assert order[: order.index("asia")].count("eu") >= SEQUENCES
    assert at_work == {name: order.count(name) for name in REGIONS}
    for name in ("eu", "asia"):
        log = world.found[name].front.log()
        said = [line for line in log if str(line["request_id"]).startswith("spill-")]
        assert {(line["peer"], line["replica"]) for line in said} == {("us", world.engines[name].url)}
        assert len(said) == order.count(name)


def test_a_tenant_that_must_stay_waits_for_its_own_region_while_others_are_idle(world: World) -> None:
    us = world.found["us"]

    async def run() -> tuple[dict[str, int], list[dict[str, object]]]:
        streams = Streams(us, "home", headers=("X-Tenant: home",))
        begun = [await streams.begin(wait_s=2.0) for _ in range(SEQUENCES + 3)]
        assert begun == [True] * SEQUENCES + [False] * 3
        return await asyncio.to_thread(world.at_work), await streams.leave()

    at_work, lines = asyncio.run(run())
    world.at_rest()
    assert set(where(lines)) == {"us"}
    assert (at_work["eu"], at_work["asia"]) == (0, 0)
