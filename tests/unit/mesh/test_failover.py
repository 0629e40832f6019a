"""Who adopts: a rule that all compute alike."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb._core import Engine
from skylb.addresses import ReplicaUrl, parse_peer
from skylb.config import EngineSettings
from skylb.localrouter import LocalRouter
from skylb.mesh.failover import Failover, Heirs
from skylb.mesh.frames import VERSION, Hello, News, new_nonce
from skylb.mesh.link import Link, State
from skylb.mesh.signing import Identity

NAMES = ("a", "b", "c", "d", "e")
MS = 1_000_000

round_trips = st.fixed_dictionaries(
    {name: st.fixed_dictionaries({other: st.integers(1, 300) for other in NAMES}) for name in NAMES}
)


def mesh(times: dict[str, dict[str, int]], incarnation: int = 1) -> dict[str, Heirs]:
    """Five balancers that have ranked their heirs and told each other."""
    all_heirs = {name: Heirs(Identity(name, incarnation)) for name in NAMES}
    for name, heirs in all_heirs.items():
        heirs.rank({other: times[name][other] * MS for other in NAMES if other != name})
    gossip(all_heirs)
    return all_heirs


def gossip(all_heirs: dict[str, Heirs]) -> None:
    for one in all_heirs.values():
        for other in all_heirs.values():
            for name, (incarnation, sequence, heirs) in other.known().items():
                one.learn(name, incarnation, sequence, heirs)


@given(round_trips, st.sets(st.sampled_from(NAMES), min_size=1, max_size=4))
def test_all_the_living_name_the_same_heir_and_the_heir_lives(
    times: dict[str, dict[str, int]], dead: set[str]
) -> None:
    alive = set(NAMES) - dead
    all_heirs = mesh(times)
    for name in dead:
        named = {all_heirs[one].heir(name, alive) for one in alive}
        assert len(named) == 1
        assert named <= alive


@given(round_trips)
def test_the_closest_is_the_heir(times: dict[str, dict[str, int]]) -> None:
    all_heirs = mesh(times)
    for name in NAMES:
        closest = min((times[name][other], other) for other in NAMES if other != name)
        assert all_heirs[name].heir(name, set(NAMES) - {name}) == closest[1]


def test_what_a_balancer_says_itself_counts_whatever_others_have_said_of_it() -> None:
    heirs = Heirs(Identity("a", 1))
    heirs.learn("b", 1 << 62, 1 << 62, ["a liar's choice"])
    heirs.learn_own("b", 5, 1, ["c"])
    assert heirs.heir("b", {"a", "c"}) == "c"
    heirs.learn("b", 5, 1, ["a"])
    assert heirs.heir("b", {"a", "c"}) == "c"
    heirs.learn("b", 5, 2, ["a"])
    assert heirs.heir("b", {"a", "c"}) == "a"


def test_balancers_that_left_the_list_make_room_for_those_in_it() -> None:
    heirs = Heirs(Identity("a", 1))
    heirs.set_listed(["b", "c"])
    heirs.learn("b", 1, 1, ["a"])
    for number in range(200):
        heirs.learn(f"gone-{number}", 1, 1, ["a"])
    heirs.learn("c", 1, 1, ["b"])
    assert heirs.known() == {"b": (1, 1, ["a"]), "c": (1, 1, ["b"])}


@given(st.lists(st.integers(-2, 2), max_size=50))
def test_jitter_does_not_reorder_neighbours(jitters: list[int]) -> None:
    heirs = Heirs(Identity("a", 1))
    heirs.rank({"b": 40 * MS, "c": 44 * MS, "d": None})
    before = heirs.known()
    assert before["a"][2] == ["b", "c"]
    for jitter in jitters:
        heirs.rank({"b": (42 + jitter) * MS, "c": 42 * MS, "d": None})
    assert heirs.known() == before


def test_a_peer_that_has_come_clearly_closer_moves_forward() -> None:
    heirs = Heirs(Identity("a", 1))
    heirs.rank({"b": 40 * MS, "c": 44 * MS})
    heirs.rank({"b": 40 * MS, "c": 10 * MS})
    assert heirs.known()["a"] == (1, 2, ["c", "b"])


def test_the_newest_word_counts_whoever_brings_it() -> None:
    heirs = Heirs(Identity("a", 1))
    heirs.learn("b", 5, 2, ["c"])
    heirs.learn("b", 5, 1, ["d"])
    heirs.learn("b", 4, 9, ["e"])
    assert heirs.heir("b", {"a", "c", "d", "e"}) == "c"
    heirs.learn("b", 6, 1, ["d"])
    assert heirs.heir("b", {"a", "c", "d", "e"}) == "d"


def test_nobody_tells_a_balancer_who_its_own_heirs_are() -> None:
    heirs = Heirs(Identity("a", 1))
    heirs.learn("a", 9, 9, ["z"])
    assert heirs.known() == {}
    assert heirs.heir("a", {"z"}) is None


class Adopting:
    """What was adopted and given back."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def adopt(self, peer: str, region: str, urls: list[ReplicaUrl]) -> None:
        self.said.append(f"adopts {len(urls)} of {peer} in {region}")

    def hand_back(self, peer: str) -> None:
        self.said.append(f"hands back {peer}")


def test_who_leaves_the_list_while_dead_gets_its_replicas_back() -> None:
    adopting = Adopting()
    failover, links = dead_eu(adopting, ["http://10.0.0.2:8000"], lambda url: None)
    failover.review(links)
    failover.review({})
    assert adopting.said == ["adopts 1 of eu in eu", "hands back eu"]
    assert failover.adopted == {}


def dead_eu(
    adopting: Adopting, replicas: list[str], why_not: Callable[[ReplicaUrl], str | None], *, peer: str = "eu"
) -> tuple[Failover, dict[str, Link]]:
    """The balancer us, the only heir of a peer that is dead and has named these replicas."""
    heirs = Heirs(Identity("us", 1))
    heirs.learn("eu", 1, 1, ["us"])
    router = LocalRouter(Engine(EngineSettings().model_dump_json().encode(), bytes(32), 1))
    link = Link(1, parse_peer(f"{peer}=http://10.0.0.2:1"), router, None)  # type: ignore[arg-type]  # a link that is not served
    link.hello = Hello(VERSION, "eu", "eu", 1, "k1", new_nonce(), 0, "")
    link.state = State.DEAD
    link.news = News([], {}, replicas)
    return Failover("us", heirs, adopting, why_not), {"eu": link}


def test_only_what_may_be_served_is_adopted_and_the_rest_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adopting = Adopting()
    urls = ["http://10.0.0.2:8000", "http://192.0.2.9:8000", "no url"]
    failover, links = dead_eu(adopting, urls, lambda url: None if url.host == "10.0.0.2" else "elsewhere")
    failover.review(links)
    failover.review(links)
    assert adopting.said == ["adopts 1 of eu in eu"]
    assert failover.adopted == {"eu": ("http://10.0.0.2:8000",)}
    assert [line for line in caplog.messages if "not adopted" in line] == [
        "2 of 3 replicas of eu are not adopted: elsewhere"
    ]


def test_nothing_is_adopted_where_nothing_may_be() -> None:
    adopting = Adopting()
    failover, links = dead_eu(adopting, ["http://10.0.0.2:8000"], lambda url: "adopt_from is not given")
    failover.review(links)
    assert adopting.said == []
    assert failover.adopted == {}


@pytest.mark.parametrize(("peer", "region"), [("eu", "eu"), ("eu@eu", "eu"), ("eu@asia", "asia")])
def test_adopted_replicas_are_where_the_list_says_that_their_balancer_is(peer: str, region: str) -> None:
    adopting = Adopting()
    failover, links = dead_eu(adopting, ["http://10.0.0.2:8000"], lambda url: None, peer=peer)
    failover.review(links)
    assert adopting.said == [f"adopts 1 of eu in {region}"]


def test_replicas_of_a_peer_whose_region_is_its_word_alone_are_in_no_region() -> None:
    adopting = Adopting()
    failover, links = dead_eu(adopting, ["http://10.0.0.2:8000"], lambda url: None)
    links["eu"].hello = Hello(VERSION, "eu", "asia", 1, "k1", new_nonce(), 0, "")
    failover.review(links)
    assert adopting.said == ["adopts 1 of eu in "]
