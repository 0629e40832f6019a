"""Peers of an earlier and of a later version: what they are told, and what is made of what they tell."""

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.mesh.frames import KINDS_OF_ALL, Kind, News, Ping, encode, read_news
from tests.support.wire import Frame, Wire, World, mesh_settings

PING: Frame = (Kind.PING, encode(Ping(monotonic_ns(), 0)))
SHARE: Frame = (Kind.SHARE, b"\x01\x00\x01\x01\x00\x00")


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory: Path = tmp_path_factory.mktemp("keys")
    return mesh_settings(directory)


def heard(
    configured: Settings, frames: list[Frame], kinds: set[int], *, enough: list[int], replicas: int = 3
) -> tuple[World, Wire]:
    """A connection of a peer of our region that knows these kinds, until it has heard enough."""
    world = World(configured)

    def is_enough(sent: list[Frame]) -> bool:
        return Counter(enough) <= Counter(kind for kind, _ in sent)

    async def run() -> Wire:
        world.peers.set_replicas([f"http://replica-{number:0>240}:80" for number in range(replicas)])
        return await world.hears("eu", frames, kinds, is_enough)

    return world, asyncio.run(run())


def test_a_peer_of_before_is_told_nothing_that_it_does_not_know(configured: Settings) -> None:
    _, wire = heard(configured, [PING], set(KINDS_OF_ALL), enough=[Kind.SUMMARY] * 2, replicas=256)
    assert {kind for kind, _ in wire.sent} >= {Kind.PING, Kind.PONG, Kind.NEWS, Kind.SUMMARY}
    assert {kind for kind, _ in wire.sent} <= KINDS_OF_ALL
    news = [read_news(payload) for kind, payload in wire.sent if kind == Kind.NEWS]
    assert not any(said.same_replicas for said in news)
    assert len(news[0].replicas) > 100


def test_a_peer_that_shows_that_it_knows_a_kind_is_told_it(configured: Settings) -> None:
    _, wire = heard(configured, [PING, SHARE], set(KINDS_OF_ALL), enough=[Kind.SHARE])
    assert Kind.SHARE in {kind for kind, _ in wire.sent}


def test_a_peer_that_knows_all_kinds_is_told_all_replicas(configured: Settings) -> None:
    _, wire = heard(configured, [PING], set(Kind), enough=[Kind.MORE] * 6, replicas=256)
    kinds = [kind for kind, _ in wire.sent]
    assert Kind.SHARE in kinds
    assert kinds.count(Kind.MORE) > 5


def test_what_a_later_version_adds_changes_nothing_else(configured: Settings) -> None:
    news = News(["us"], {"eu": (5, 1, ["us"])}, ["http://10.0.0.1:80"])
    more_fields = msgspec.msgpack.encode([*msgspec.structs.astuple(news), {"later": 1}])
    frames = [PING, (99, b"later"), (Kind.NEWS, more_fields), (100, b""), (Kind.SUMMARY, b"\x02later")]
    world, _ = heard(configured, frames, {*Kind, 99, 100}, enough=[])
    link = world.peers.links["eu"]
    assert link.news.replicas == ["http://10.0.0.1:80"]
    assert link.meter.passed_over == 2
    assert link.meter.refused == {"summary": 1}
    assert link.fault == "closed"
