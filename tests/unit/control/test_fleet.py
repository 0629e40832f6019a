"""The fleet: what sources offer, what operators want, and what the router is told."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from skylb.control.fleet import Fleet
from skylb.discovery.source import Description, Offered
from skylb.router import Router
from skylb.types import Address, Replica

A = Offered("http://10.0.0.1:8000", Address("10.0.0.1", 8000), "10.0.0.1:8000")
B = Offered("http://10.0.0.2:8000", Address("10.0.0.2", 8000), "10.0.0.2:8000")


class Told:
    """Stands for the router."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def set_replicas(self, replicas: Sequence[Replica]) -> None:
        self.calls.append(("replicas", [replica.id for replica in replicas]))

    def set_draining(self, replica_id: int, draining: bool) -> None:
        self.calls.append(("draining", replica_id, draining))

    def set_notice(self, replica_id: int, at_ns: int | None, *, ends: bool) -> None:
        self.calls.append(("notice", replica_id, at_ns))

    def set_replica_region(self, replica_id: int, region: str | None) -> None:
        self.calls.append(("region", replica_id, region))

    def new(self) -> list[tuple[Any, ...]]:
        """What it was told since."""
        found, self.calls = self.calls, []
        return found


class World:
    def __init__(self) -> None:
        self.told = Told()
        self.changes: list[list[str]] = []
        self.fleet = Fleet(cast("Router", self.told), (), self._changed)

    def _changed(self, replicas: list[Replica]) -> None:
        self.changes.append([replica.name for replica in replicas])

    def offer(self, *replicas: Offered, source: str = "s") -> list[tuple[Any, ...]]:
        """What the router is told of an offer."""
        self.fleet.offer(source, replicas)
        return self.told.new()


def test_a_replica_that_its_source_lets_drain_drains_and_comes_back_with_its_id() -> None:
    world = World()
    assert world.offer(A, B) == [("replicas", [1, 2])]
    assert world.offer(replace(A, draining=True), B) == [("draining", 1, True)]
    assert world.offer(replace(A, draining=True), B) == []
    assert world.offer(A, B) == [("draining", 1, False)]
    assert world.changes == [[A.name, B.name]]


def test_one_that_drains_from_the_start_never_gets_a_request() -> None:
    assert World().offer(replace(A, draining=True)) == [("replicas", [1]), ("draining", 1, True)]


@pytest.mark.parametrize("operator_first", [True, False])
def test_neither_the_operator_nor_the_source_ends_the_others_drain(operator_first: bool) -> None:
    world = World()
    world.offer(A)
    fleet = world.fleet
    if operator_first:
        fleet.set_draining(A.name, draining=True)
        assert world.told.new() == [("draining", 1, True)]
        assert world.offer(replace(A, draining=True)) == []
        assert world.offer(A) == []
        assert fleet.drains(A.name)
        fleet.set_draining(A.name, draining=False)
        assert world.told.new() == [("draining", 1, False)]
    else:
        world.offer(replace(A, draining=True))
        fleet.set_draining(A.name, draining=True)
        fleet.set_draining(A.name, draining=False)
        assert world.told.new() == [("draining", 1, True), ("draining", 1, True)]
        assert fleet.drains(A.name)
        assert world.offer(A) == [("draining", 1, False)]
    assert not fleet.drains(A.name)


def test_another_server_at_the_same_address_has_another_id_and_keeps_the_operators_drain() -> None:
    world = World()
    old, new = (replace(A, description=Description(uid=uid)) for uid in ("old", "new"))
    world.offer(old)
    world.fleet.set_draining(A.name, draining=True)
    world.told.new()
    assert world.offer(new) == [("replicas", [2]), ("draining", 2, True)]
    assert world.offer(replace(new, description=Description(uid="new", zone="z"))) == []


def test_a_region_that_changes_is_told_and_one_of_our_own_is_not() -> None:
    world = World()
    assert world.offer(A, replace(B, region="eu")) == [("replicas", [1, 2]), ("region", 2, "eu")]
    assert world.offer(replace(A, region="eu"), B) == [("region", 1, "eu"), ("region", 2, None)]


def test_peers_may_adopt_what_is_ours_and_in_our_region() -> None:
    world = World()
    world.offer(A)
    world.offer(replace(B, region="us", adopted=True), source="adopted us")
    assert world.fleet.own() == [A.name]
    assert world.fleet.sizes() == {"s": 1, "adopted us": 1}
    world.offer(replace(A, region="eu"))
    assert world.fleet.own() == [], "who adopts it would take it for one of our region"


def test_of_one_name_our_own_source_counts_before_one_that_is_adopted() -> None:
    world = World()
    world.offer(replace(A, region="us", adopted=True, draining=True), source="adopted us")
    assert world.fleet.own() == []
    assert world.offer(A) == [("draining", 1, False), ("region", 1, None)]
    assert world.fleet.own() == [A.name]
    assert len(world.changes) == 2, "who tells peers of our replicas hears of it"


def test_a_replica_that_is_announced_to_end_drains_and_its_successor_does_not() -> None:
    world = World()
    world.offer(A, B)
    assert not world.fleet.leave("http://nobody:1", 5)
    assert world.fleet.leave(A.name, 5)
    assert world.told.new() == [("draining", 1, True), ("notice", 1, 5)]
    assert world.fleet.drained() == {A.name: "it was announced to end"}
    assert world.fleet.set_draining(A.name, draining=False)
    assert world.told.new() == [("draining", 1, False), ("notice", 1, None)]
    assert world.fleet.leave(A.name, 7)
    world.told.new()
    assert world.offer(B) == [("replicas", [2])]
    assert world.offer(A, B) == [("replicas", [3, 2])]
    assert world.fleet.drained() == {}
