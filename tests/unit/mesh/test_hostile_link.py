"""Whatever a proven peer sends, no more ends than its connection; and the next one is as good as new."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from skylb.addresses import parse_peer
from skylb.config import Settings
from skylb.mesh.frames import KIND_MAX, NUMBER_MAX, Kind, More, Order, encode
from tests.support.wire import Frame, World, mesh_settings

HUGE = (1 << 64) - 1


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return mesh_settings(tmp_path_factory.mktemp("keys"))


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


numbers = st.one_of(st.integers(-(1 << 63), HUGE), st.sampled_from([0, 1, -1, 1 << 62, (1 << 63) - 1, HUGE]))
texts = st.one_of(st.sampled_from(["us", "eu", "asia", ""]), st.text(max_size=80))
leaves = st.one_of(st.none(), st.booleans(), numbers, st.floats(), texts, st.binary(max_size=40))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
names = st.lists(texts, max_size=5)
nearly = st.one_of(
    st.builds(lambda *fields: (Kind.PING, packed(fields)), numbers, numbers, values),
    st.builds(lambda *fields: (Kind.ORDER, packed(fields)), texts, st.booleans(), numbers),
    st.builds(
        lambda *fields: (Kind.NEWS, packed(fields)),
        names,
        st.dictionaries(texts, st.tuples(numbers, numbers, names), max_size=4),
        names,
        st.booleans(),
    ),
)
anything = st.tuples(
    st.one_of(st.sampled_from(list(Kind)), st.integers(0, KIND_MAX)),
    st.one_of(values.map(packed), st.binary(max_size=200)),
)
nested: Frame = (Kind.PING, b"\x93\x01\x01" + b"\x91" * 60_000)
share = b"\x01\x00\x01\x01\x00\x00"
latest_share = b"\x01" + b"\xff" * 9 + b"\x01\x01\x01\x00\x00"
late_clock: list[Frame] = [(Kind.PING, packed([HUGE, 0])), (Kind.SHARE, share)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(nearly, anything), max_size=6))
@example([nested])
@example(late_clock)
@example([(Kind.PING, packed([NUMBER_MAX, 0])), (Kind.SHARE, share)])
@example([(Kind.PING, packed([0, NUMBER_MAX])), (Kind.SHARE, latest_share)])
@example([(Kind.ORDER, packed(["us", True, HUGE]))])
@example([(Kind.ORDER, packed(["us", True, NUMBER_MAX]))])
@example([(Kind.NEWS, packed([[], {"asia": (NUMBER_MAX, NUMBER_MAX, ["eu"])}, []]))])
@example([(Kind.NEWS, packed([["asia"], {}, ["unix:/x", "http://", "http://a\x00b", "h" * 300]]))])
@example([(Kind.PING, packed([0, 0]))] * 3 + [(Kind.PONG, b"\x93\x01\x01" + b"\x91" * 65_000)])
@example([(99, b""), (Kind.READY, b"")])
def test_no_message_of_a_peer_ends_more_than_its_connection(
    configured: Settings, frames: list[Frame]
) -> None:
    async def run() -> None:
        world = World(configured)
        await world.hears("eu", frames)
        await world.is_as_good_as_new()

    asyncio.run(run())


def test_a_peer_is_listed_in_another_region_as_often_as_anybody_likes(configured: Settings) -> None:
    async def run() -> None:
        world = World(configured)
        urls = [link.url for link in world.peers.links.values()]
        for number in range(200):
            world.peers.set_urls([parse_peer(f"eu@region-{number}=http://10.0.0.2:1"), urls[1]])
            await world.hears("eu", [(Kind.PING, packed([0, 0]))])
            assert world.peers.links["eu"].fault == "closed"
        world.peers.set_urls(urls)
        await world.is_as_good_as_new()

    asyncio.run(run())


def test_orders_and_heirs_of_however_many_names_leave_room_for_those_that_count(configured: Settings) -> None:
    async def run() -> None:
        world = World(configured)
        for number in range(200):
            order = Order(f"region-{number}", True, number)
            more = More({f"balancer-{number}": (NUMBER_MAX, 1, ["us"])}, ["http://10.0.0.2:1"] * 5)
            await world.hears("eu", [(Kind.ORDER, encode(order)), (Kind.MORE, encode(more))])
        assert set(world.peers.heirs.known()) <= {"us", "eu", "asia"}
        await world.is_as_good_as_new()

    asyncio.run(run())


def test_peers_of_however_many_names_come_and_go(configured: Settings) -> None:
    async def run() -> None:
        world = World(configured)
        urls = [link.url for link in world.peers.links.values()]
        for number in range(2_000):
            world.peers.set_urls([*urls, parse_peer(f"balancer-{number}=http://10.0.1.1:1")])
        assert len(world.peers._ids) <= 1_024 + 3
        ids = [link.id for link in world.peers.links.values()]
        assert len(set(ids)) == 3
        await world.is_as_good_as_new()

    asyncio.run(run())


def test_an_error_that_nobody_has_foreseen_ends_the_connection_and_is_counted(
    configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("of a kind that was never thought of")

    async def run() -> None:
        world = World(configured)
        with monkeypatch.context() as patch:
            patch.setattr(world.router, "merge_peer", broken)
            await world.hears("eu", [(Kind.SUMMARY, b"x")])
        link = world.peers.links["eu"]
        assert (link.fault, link.meter.refused["failed"]) == ("it failed: RuntimeError", 1)
        await world.is_as_good_as_new()

    asyncio.run(run())
