"""Who is dead and who only cannot be reached, and operators' words: one balancer's view, without sockets."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from skylb._core import Engine
from skylb.addresses import parse_peer
from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.localrouter import LocalRouter
from skylb.mesh.address import resolve_peer
from skylb.mesh.frames import VERSION, Hello, News, Order, new_nonce
from skylb.mesh.link import Link, State
from skylb.mesh.peers import DEAD_AFTER_S, Peers
from skylb.mesh.signing import Identity, Key, Keys
from skylb.mesh.tls import MeshTls
from skylb.options import load

LATER_NS = int((DEAD_AFTER_S + 1) * 1e9)


class World:
    """The balancer us, whose peers eu and asia are heard; what it told failover."""

    def __init__(self, settings: Settings) -> None:
        self.changes = 0
        router = LocalRouter(Engine(settings.engine.model_dump_json().encode(), bytes(32), 1))
        identity = Identity("us", 1)
        router.set_self(identity, "us")
        self.peers = Peers(
            settings,
            router,
            identity,
            Keys([Key("k1", bytes(16))]),
            MeshTls(settings.mesh),
            self._changed,
            self._failed,
        )
        for name in ("eu", "asia"):
            self.hears(name)

    def _changed(self, links: dict[str, Link]) -> None:
        del links
        self.changes += 1

    def _failed(self, name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    def state(self, name: str) -> State:
        return self.peers.links[name].state

    def hears(self, name: str) -> None:
        self.peers.established(self.peers.links[name])

    def loses(self, name: str, *, goodbye: bool = False) -> None:
        link = self.peers.links[name]
        link.left, link.lost_ns = goodbye, monotonic_ns()
        self.peers.lost(link)

    def greets(self, name: str, region: str) -> None:
        """A peer's hello, as far as it is believed."""
        self.peers.links[name].hello = Hello(VERSION, name, region, 1, "k1", new_nonce(), 0, "")

    def says(self, name: str, *reached: str) -> None:
        self.peers.links[name].news = News(list(reached), {}, [])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return made(tmp_path)


def made(tmp_path: Path, *peers: str, trusted: Sequence[str] = ()) -> World:
    keys = tmp_path / "keys"
    keys.write_text("k1:MDEyMzQ1Njc4OWFiY2RlZg==\n")
    flags = {
        "replica": ["http://10.0.0.9:1"],
        "region": ["us"],
        "peer_key_file": [str(keys)],
        "peer_listen": ["127.0.0.1:0"],
        "sync_listen": ["127.0.0.1:0"],
        "peer": ["eu=http://10.0.0.2:1", "asia=http://10.0.0.3:1", *peers],
        "trusted_peers": list(trusted),
    }
    return World(load(Settings, flags=flags).settings)


def test_a_peer_that_nobody_hears_is_dead_after_a_while_and_not_before(world: World) -> None:
    world.says("asia", "us")
    world.loses("eu")
    world.peers.judge(monotonic_ns())
    assert world.state("eu") is State.UNREACHABLE
    world.peers.judge(monotonic_ns() + LATER_NS)
    assert world.state("eu") is State.DEAD


def test_a_peer_that_another_hears_is_unreachable_and_not_dead(world: World) -> None:
    world.says("asia", "us", "eu")
    world.loses("eu")
    world.peers.judge(monotonic_ns() + LATER_NS)
    assert world.state("eu") is State.UNREACHABLE
    world.says("asia", "us")
    world.peers.judge(monotonic_ns() + LATER_NS)
    assert world.state("eu") is State.DEAD
    world.says("asia", "us", "eu")
    world.peers.judge(monotonic_ns() + LATER_NS)
    assert world.state("eu") is State.UNREACHABLE


def test_who_is_not_heard_is_no_witness(world: World) -> None:
    world.says("asia", "us", "eu")
    world.loses("eu")
    world.loses("asia")
    world.peers.judge(monotonic_ns() + LATER_NS)
    assert (world.state("eu"), world.state("asia")) == (State.DEAD, State.DEAD)


def test_who_says_goodbye_is_dead_at_once_whatever_others_still_believe(world: World) -> None:
    world.says("asia", "us", "eu")
    world.loses("eu", goodbye=True)
    assert world.state("eu") is State.DEAD
    world.peers.judge(monotonic_ns() + LATER_NS)
    assert world.state("eu") is State.DEAD
    world.hears("eu")
    assert world.state("eu") is State.ALIVE


def test_every_change_of_state_reaches_failover_and_the_news(world: World) -> None:
    before, news = world.changes, world.peers.news
    world.loses("eu")
    assert world.changes == before + 1
    assert world.peers.news != news
    world.loses("eu")
    assert world.changes == before + 1


def test_of_two_words_for_a_region_the_later_counts_and_is_passed_on_once(world: World) -> None:
    peers = world.peers
    peers.carry_out(Order("us", True, 5))
    assert peers.evacuating
    peers.carry_out(Order("us", False, 4))
    assert peers.evacuating
    peers.carry_out(Order("us", False, 6))
    assert not peers.evacuating
    assert peers.orders() == [Order("us", False, 6)]


def test_a_word_given_here_counts_though_the_clock_of_the_one_before_was_ahead(world: World) -> None:
    far_future_ns = monotonic_ns() * 1_000_000
    world.peers.carry_out(Order("us", True, far_future_ns))
    assert world.peers.evacuate("us", evacuating=False) == ["us"]
    assert not world.peers.evacuating
    assert world.peers.evacuate("mars", evacuating=True) == []


def test_an_isolated_peer_may_not_forward(world: World) -> None:
    link = world.peers.links["eu"]
    link._offsets_ns.append(7)
    assert world.peers.ahead_ns("eu") == 7
    world.peers.isolate("eu", isolated=True)
    assert world.peers.ahead_ns("eu") is None
    world.peers.isolate("eu", isolated=False)
    assert world.peers.ahead_ns("eu") == 7
    assert world.peers.ahead_ns("mars") is None


def test_peers_come_and_go_with_the_list_and_keep_their_number(world: World) -> None:
    eu, asia = (world.peers.links[name] for name in ("eu", "asia"))
    world.peers.set_urls([asia.url, parse_peer("us-2=http://10.0.0.4:1")])
    assert set(world.peers.links) == {"asia", "us-2"}
    assert world.peers.links["asia"] is asia
    assert world.peers.links["us-2"].id not in {eu.id, asia.id}
    world.peers.lost(eu)  # its connection ends only now
    world.peers.set_urls([asia.url, parse_peer("eu=http://10.0.0.9:1")])
    back = world.peers.links["eu"]
    assert (back is eu, back.id, back.state) == (False, eu.id, State.UNREACHABLE)
    world.peers.lost(eu)
    assert world.state("asia") is State.ALIVE


def test_a_peer_at_another_address_is_met_anew(world: World) -> None:
    before = world.peers.links["eu"]
    world.peers.set_urls([parse_peer("eu=http://10.0.0.9:1"), world.peers.links["asia"].url])
    assert world.peers.links["eu"] is not before
    assert world.state("eu") is State.UNREACHABLE


def orders_of(world: World, peer: str, region: str) -> list[Order]:
    """What is known after a peer has passed an order on for a region."""
    link = world.peers.links[peer]
    world.peers.ordered(link, Order(region, True, 5))
    return world.peers.orders()


def test_an_order_of_a_peer_is_for_its_own_region_only(world: World) -> None:
    world.greets("eu", "eu")
    assert orders_of(world, "eu", "us") == []
    assert orders_of(world, "eu", "asia") == []
    assert not world.peers.evacuating
    assert world.peers.links["eu"].meter.refused == {"order": 2}
    assert orders_of(world, "eu", "eu") == [Order("eu", True, 5)]


def test_an_order_of_a_peer_whose_region_is_its_word_alone_is_for_none(world: World) -> None:
    world.greets("eu", "us")
    assert world.peers.links["eu"].region == "us"
    assert orders_of(world, "eu", "us") == []
    assert orders_of(world, "eu", "eu") == []


@pytest.mark.parametrize("trusted", ["eu", "*"])
def test_an_order_of_a_peer_that_the_settings_trust_is_for_every_region(tmp_path: Path, trusted: str) -> None:
    world = made(tmp_path, trusted=[trusted])
    assert orders_of(world, "eu", "us") == [Order("us", True, 5)]
    assert world.peers.evacuating


def test_a_peer_says_who_its_own_heirs_are_and_those_of_its_region(tmp_path: Path) -> None:
    world = made(tmp_path, "eu-2@eu=http://10.0.0.4:1", "eu-3=http://10.0.0.5:1")
    world.greets("eu", "eu")
    world.greets("eu-3", "eu")  # unlisted: its word alone
    link = world.peers.links["eu"]
    link.news = News([], {name: (1, 1, ["eu"]) for name in ("eu", "eu-2", "eu-3", "asia", "mars")}, [])
    world.peers.told(link)
    assert set(world.peers.heirs.known()) == {"eu", "eu-2"}
    liar = world.peers.links["eu-3"]
    liar.news = News([], {name: (9, 9, ["eu-3"]) for name in ("eu", "eu-2", "eu-3")}, [])
    world.peers.told(liar)
    assert world.peers.heirs.known()["eu"] == (1, 1, ["eu"])
    assert world.peers.heirs.known()["eu-3"] == (9, 9, ["eu-3"])


def test_a_region_is_as_listed_and_what_a_peer_says_of_itself_changes_nothing(tmp_path: Path) -> None:
    world = made(tmp_path, "eu-2@eu=http://10.0.0.4:1")
    listed, named = world.peers.links["eu-2"], world.peers.links["asia"]
    assert (listed.region, listed.sure_region, named.region) == ("eu", "eu", "")
    assert listed.may_be_in("eu")
    assert not listed.may_be_in("asia")
    assert named.may_be_in("mars")  # once: the first word is kept, and no rule of residency goes by it
    world.greets("asia", "mars")
    assert (named.region, named.sure_region) == ("mars", "")
    assert not named.may_be_in("asia")


@pytest.mark.parametrize(
    ("listed", "advertised", "address"),
    [
        ("http://10.0.0.2:1", "http://10.0.0.2:9", "10.0.0.2"),
        ("http://localhost:1", "http://127.0.0.1:9", "127.0.0.1"),
        ("http://10.0.0.2:1", "https://10.0.0.2:9", "10.0.0.2"),
        ("http://10.0.0.2:1,http://10.7.7.7:9", "unix:/run/x.sock", "10.7.7.7"),
        ("http://10.0.0.2:1", "http://169.254.169.254:80", None),
        ("http://10.0.0.2:1", "http://10.0.0.3:9", None),
        ("http://10.0.0.2:1", "unix:/run/docker.sock", None),
        ("https://10.0.0.2:1", "http://10.0.0.2:9", None),
        ("http://10.0.0.2:1", "", None),
    ],
)
def test_forwards_go_to_the_host_at_which_a_peer_is_listed(
    listed: str, advertised: str, address: str | None
) -> None:
    hello = Hello(VERSION, "eu", "eu", 1, "k1", new_nonce(), 0, advertised)
    found = resolve_peer(1, parse_peer(f"eu={listed}"), hello, "eu")
    if address is None:
        with pytest.raises(ValueError, match=r"."):
            asyncio.run(found)
    else:
        assert asyncio.run(found).address.host == address
