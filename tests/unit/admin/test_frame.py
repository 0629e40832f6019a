"""What a balancer shows of itself and its peers."""

from typing import Any

import msgspec

from skylb.admin.frame import own_frame
from skylb.admin.state import State


def state(uptime_s: float, forwarded: int) -> State:
    peer = {
        "name": "eu",
        "region": "eu",
        "state": "alive",
        "rtt_ns": 90_000_000,
        "room": 3,
        "forwarded_total": forwarded,
    }
    engine: dict[str, Any] = {"replicas": [], "hold": {"requests": 2}, "peers": [peer]}
    process = {"uptime_s": uptime_s, "policy": "prefix"}
    mesh = {"name": "us", "region": "us", "evacuating": False}
    return msgspec.convert({"process": process, "engine": engine, "mesh": mesh}, State)


def test_forwards_per_second_are_counted_between_two_frames() -> None:
    assert own_frame(state(10.0, 100)).flows[0].per_s == 0
    assert own_frame(state(12.0, 107), state(10.0, 100)).flows[0].per_s == 3.5


def test_peers_are_regions_without_replicas_of_ours() -> None:
    frame = own_frame(state(10.0, 0))
    assert [(region.name, region.balancer, region.replicas) for region in frame.regions] == [
        ("us", "up", []),
        ("eu", "up", []),
    ]
    assert frame.links[0].rtt_s == 0.09
    assert frame.regions[0].held == 2
