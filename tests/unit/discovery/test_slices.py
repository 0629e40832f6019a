"""What EndpointSlices mean: conditions, ports, families, duplicates, labels. No API server."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from skylb.discovery.kubernetes.peers import peers_of
from skylb.discovery.kubernetes.slices import (
    Slice,
    State,
    read_event,
    read_list,
    read_slice,
    read_status,
    state_of,
)
from skylb.discovery.kubernetes.source import Reading
from skylb.discovery.source import Description, Offered
from skylb.errors import UnreadableError
from tests.support.kubernetes import endpoint, endpoint_slice

TWO_PORTS = (
    {"name": "http", "port": 8000, "protocol": "TCP"},
    {"name": "metrics", "port": 9000, "protocol": "TCP"},
)


def read(*slices: Mapping[str, Any]) -> list[Slice]:
    page = {"metadata": {"resourceVersion": "1"}, "items": list(slices)}
    return list(read_list(json.dumps(page).encode()).items or ())


class World:
    """A reading, and what it makes of slices one after the other."""

    def __init__(self, port: str | None = None, family: Any = "ipv4", region: str = "us") -> None:
        self.reading = Reading(port, family, region)

    def offered(self, *slices: Mapping[str, Any]) -> list[Offered]:
        return self.reading.read("vllm", read(*slices))

    def names(self, *slices: Mapping[str, Any]) -> list[str]:
        return [one.name for one in self.offered(*slices)]

    def states(self, *slices: Mapping[str, Any]) -> dict[str, bool]:
        """Whether each drains, by its host."""
        return {one.address.host: one.draining for one in self.offered(*slices)}


@pytest.mark.parametrize(
    ("ready", "serving", "terminating", "state"),
    [
        (True, True, False, State.READY),
        (None, None, None, State.READY),
        (True, None, None, State.READY),
        (None, True, False, State.READY),
        (False, False, False, State.UNREADY),
        (False, True, False, State.UNREADY),
        (False, True, True, State.DRAINING),
        (False, False, True, State.GONE),
        (False, None, True, State.GONE),
        (True, True, True, State.DRAINING),
        (True, None, True, State.DRAINING),
    ],
)
def test_conditions_say_the_state_and_what_is_not_said_is_true(
    ready: bool | None, serving: bool | None, terminating: bool | None, state: State
) -> None:
    one = endpoint("10.0.0.1", ready=ready, serving=serving, terminating=terminating)
    found = read(endpoint_slice("a", one))[0].endpoints
    assert found is not None
    assert state_of(found[0].conditions) is state


def test_conditions_that_are_absent_altogether_mean_ready() -> None:
    assert World().states(endpoint_slice("a", {"addresses": ["10.0.0.1"]})) == {"10.0.0.1": False}
    both = endpoint_slice("a", {"addresses": ["10.0.0.1"], "conditions": None})
    assert World().states(both) == {"10.0.0.1": False}


def test_an_endpoint_that_terminates_drains_at_once_and_leaves_when_it_no_longer_serves() -> None:
    world = World()
    ready = endpoint("10.0.0.1", ready=True, serving=True, terminating=False, uid="u")
    ending = endpoint("10.0.0.1", ready=False, serving=True, terminating=True, uid="u")
    ended = endpoint("10.0.0.1", ready=False, serving=False, terminating=True, uid="u")
    assert world.states(endpoint_slice("a", ready)) == {"10.0.0.1": False}
    assert world.states(endpoint_slice("a", ending)) == {"10.0.0.1": True}
    assert world.states(endpoint_slice("a", ended)) == {}
    assert world.states(endpoint_slice("a", ready)) == {"10.0.0.1": False}
    assert world.states(endpoint_slice("a")) == {}


def test_one_that_was_never_ready_is_no_replica_and_one_that_was_drains_until_it_is_ready_again() -> None:
    world = World()
    unready = endpoint("10.0.0.1", ready=False, serving=False, terminating=False, uid="u")
    ready = endpoint("10.0.0.1", uid="u")
    other = endpoint("10.0.0.1", ready=False, serving=False, terminating=False, uid="v")
    assert world.states(endpoint_slice("a", unready)) == {}
    assert world.states(endpoint_slice("a", ready)) == {"10.0.0.1": False}
    assert world.states(endpoint_slice("a", unready)) == {"10.0.0.1": True}
    assert world.states(endpoint_slice("a", ready)) == {"10.0.0.1": False}
    assert world.states(endpoint_slice("a", other)) == {}


@pytest.mark.parametrize("ports", [None, ()])
def test_a_slice_without_ports_takes_the_number_and_nothing_else(ports: tuple[Any, ...] | None) -> None:
    one = endpoint_slice("a", endpoint("10.0.0.1"), ports=ports)
    assert World("8000").names(one) == ["http://10.0.0.1:8000"]
    for wanted in (None, "http"):
        world = World(wanted)
        assert world.names(one) == []
        missed = "" if wanted is None else " and not http"
        assert world.reading.faults == [
            f"Service vllm has no TCP port{missed}: expected kubernetes.port to name one of its ports"
        ]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("http", ["http://10.0.0.1:8000"]),
        ("9000", ["http://10.0.0.1:9000"]),
        ("metrics", ["http://10.0.0.1:9000"]),
    ],
)
def test_a_port_is_named_or_numbered(wanted: str, names: list[str]) -> None:
    world = World(wanted)
    assert world.names(endpoint_slice("a", endpoint("10.0.0.1"), ports=TWO_PORTS)) == names
    assert world.reading.faults == []


@pytest.mark.parametrize(("wanted", "missed"), [(None, ""), ("grpc", " and not grpc"), ("80", " and not 80")])
def test_a_port_that_is_not_clear_leaves_the_slice_out_and_says_which_there_are(
    wanted: str | None, missed: str
) -> None:
    world = World(wanted)
    assert world.names(endpoint_slice("a", endpoint("10.0.0.1"), ports=TWO_PORTS)) == []
    there = f"http (8000), metrics (9000){missed}"
    assert world.reading.faults == [
        f"Service vllm has {there}: expected kubernetes.port to name one of its ports"
    ]


def test_other_protocols_do_not_count_and_https_is_taken_as_such() -> None:
    ports = (
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "api", "port": 8443, "protocol": "TCP", "appProtocol": "https"},
    )
    offered = World().offered(endpoint_slice("a", endpoint("10.0.0.1"), ports=ports))
    assert [one.name for one in offered] == ["https://10.0.0.1:8443"]
    assert offered[0].address.tls


def test_the_empty_slice_of_a_service_without_endpoints_is_no_fault() -> None:
    world = World()
    assert world.names(endpoint_slice("a", ports=None)) == []
    assert world.reading.faults == []


def test_an_address_in_two_slices_is_one_replica() -> None:
    world = World()
    one = endpoint_slice("a", endpoint("10.0.0.1", uid="u"), endpoint("10.0.0.2", uid="v"))
    other = endpoint_slice("b", endpoint("10.0.0.2", uid="v"), service="also")
    assert world.names(one, other) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]


@pytest.mark.parametrize("turned", [False, True])
def test_of_one_server_in_two_slices_the_later_state_counts(turned: bool) -> None:
    first, last = ("b", "a") if turned else ("a", "b")
    stale = endpoint_slice(first, endpoint("10.0.0.1", uid="u"))
    fresh = endpoint_slice(last, endpoint("10.0.0.1", ready=False, serving=True, terminating=True, uid="u"))
    assert World().states(stale, fresh) == {"10.0.0.1": True}


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_servers_that_have_had_one_address_the_one_that_serves_counts(turned: bool) -> None:
    first, last = ("b", "a") if turned else ("a", "b")
    old = endpoint_slice(first, endpoint("10.0.0.1", ready=False, serving=True, terminating=True, uid="old"))
    new = endpoint_slice(last, endpoint("10.0.0.1", uid="new"))
    offered = World().offered(old, new)
    assert [(one.draining, one.description.uid) for one in offered if one.description] == [(False, "new")]


def test_of_a_service_with_both_families_one_is_taken() -> None:
    four = endpoint_slice("a4", endpoint("10.0.0.1", uid="u"))
    six = endpoint_slice("a6", endpoint("2001:db8::1", uid="u"), address_type="IPv6")
    alone = endpoint_slice("b6", endpoint("2001:db8::2", uid="v"), address_type="IPv6", service="other")
    one, other, third = "http://10.0.0.1:8000", "http://[2001:db8::1]:8000", "http://[2001:db8::2]:8000"
    assert World(family="ipv4").names(four, six, alone) == [one, third]
    assert World(family="ipv6").names(four, six, alone) == [other, third]
    assert World(family="all").names(four, six, alone) == [one, other, third]


def test_an_empty_slice_of_the_preferred_family_does_not_hide_the_other() -> None:
    four = endpoint_slice("a4")
    six = endpoint_slice("a6", endpoint("2001:db8::1"), address_type="IPv6")
    assert World(family="ipv4").names(four, six) == ["http://[2001:db8::1]:8000"]


def test_names_instead_of_addresses_are_left_out_and_told() -> None:
    world = World()
    assert world.names(endpoint_slice("a", endpoint("vllm.example.net"), address_type="FQDN")) == []
    assert world.reading.faults == ["slice a has names: expected addresses"]


def test_only_the_first_address_of_an_endpoint_counts_and_none_is_no_endpoint() -> None:
    two = {"addresses": ["10.0.0.1", "10.0.0.9"]}
    assert World().names(endpoint_slice("a", two, {"addresses": []}, {"addresses": None})) == [
        "http://10.0.0.1:8000"
    ]


def test_labels_and_annotations_describe_the_replicas_and_the_label_counts() -> None:
    labels = {"skylb.dev/region": "eu", "skylb.dev/weight": "7"}
    annotations = {"skylb.dev/region": "asia", "skylb.dev/role": "prefill"}
    one = endpoint("10.0.0.1", name="vllm-0", uid="u", nodeName="n1", zone="eu-1a")
    offered = World().offered(endpoint_slice("a", one, labels=labels, annotations=annotations))[0]
    assert offered.region == "eu"
    assert offered.description == Description("vllm/vllm-0", "u", "n1", "eu-1a", "prefill", 7)
    assert not offered.draining
    assert not offered.adopted


def test_this_balancers_own_region_need_not_be_said() -> None:
    one = endpoint_slice("a", endpoint("10.0.0.1"), labels={"skylb.dev/region": "us"})
    assert World(region="us").offered(one)[0].region is None


def test_weight_0_drains() -> None:
    one = endpoint_slice("a", endpoint("10.0.0.1"), labels={"skylb.dev/weight": "0"})
    assert World().states(one) == {"10.0.0.1": True}


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("weight", "101", "an integer from 0 to 100"),
        ("weight", "-1", "an integer from 0 to 100"),
        ("weight", "1.5", "an integer from 0 to 100"),
        ("weight", "", "an integer from 0 to 100"),
        ("role", "cook", "one of both, decode, prefill"),
        ("region", "no name", "the name of a region"),
    ],
)
def test_a_label_that_is_no_good_is_told_and_does_not_count(label: str, value: str, expected: str) -> None:
    world = World()
    one = endpoint_slice("a", endpoint("10.0.0.1"), annotations={f"skylb.dev/{label}": value})
    offered = world.offered(one)[0]
    assert (offered.region, offered.draining) == (None, False)
    assert world.reading.faults == [f"slice a: skylb.dev/{label} is {value!r}: expected {expected}"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"metadata": 1}', b'{"items": []}'])
def test_what_is_no_list_is_an_error(content: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_list(content)


def test_what_is_no_event_is_an_error_and_a_status_is_never_one() -> None:
    for line in (b"", b"{}", b'{"type": 7, "object": {}}'):
        with pytest.raises(UnreadableError):
            read_event(line)
    event = read_event(b'{"type": "ADDED", "object": {"metadata": {"name": 1}}}')
    with pytest.raises(UnreadableError):
        read_slice(event.object)
    assert read_status(b"<html>").code == 0
    assert read_status(b'{"code": 410, "reason": "Expired"}').code == 410


SYNC = ({"name": "sync", "port": 9001, "protocol": "TCP"}, {"name": "peer", "port": 9000, "protocol": "TCP"})


def test_peers_are_what_stands_behind_the_port_sync_whatever_its_state() -> None:
    ends = [
        endpoint("10.0.0.2", name="skylb-b", ready=False, serving=False),
        endpoint("10.0.0.1", name="skylb-a"),
        endpoint("10.0.0.3", name="skylb-c", ready=False, serving=True, terminating=True),
    ]
    slices = read(endpoint_slice("a", *ends, ports=SYNC, service="skylb"))
    faults: dict[str, None] = {}
    found = [str(url) for url in peers_of(slices, tls=False, region="us", faults=faults)]
    assert found == [
        "skylb-a@us=http://10.0.0.1:9001",
        "skylb-b@us=http://10.0.0.2:9001",
        "skylb-c@us=http://10.0.0.3:9001",
    ]
    assert not faults


def test_peers_have_the_region_of_their_service_and_speak_tls_where_we_do() -> None:
    one = endpoint_slice("a", endpoint("10.0.0.1", name="b"), ports=SYNC, labels={"skylb.dev/region": "eu"})
    found = peers_of(read(one), tls=True, region="us", faults={})
    assert [str(url) for url in found] == ["b@eu=https://10.0.0.1:9001"]


def test_in_a_cluster_of_ipv6_alone_peers_have_its_addresses() -> None:
    one = endpoint_slice("a", endpoint("fd00::1", name="b"), ports=SYNC, address_type="IPv6")
    found = peers_of(read(one), tls=False, region="us", faults={})
    assert [str(url) for url in found] == ["b@us=http://[fd00::1]:9001"]


def test_what_makes_no_peer_is_told() -> None:
    faults: dict[str, None] = {}
    one = endpoint_slice("a", endpoint("10.0.0.1", name="b"), service="skylb")
    other = endpoint_slice("b", endpoint("10.0.0.2"), endpoint("10.0.0.3", name="x" * 65), ports=SYNC)
    assert peers_of(read(one, other), tls=False, region="us", faults=faults) == []
    assert list(faults) == [
        "Service skylb has http (8000) and not sync: expected a port called sync",
        "10.0.0.2: '' is no name of a balancer: expected the name of its pod",
        f"10.0.0.3: {'x' * 65!r} is no name of a balancer: expected the name of its pod",
    ]
