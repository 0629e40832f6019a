"""Hot prefixes that balancers tell each other: the farthest of three has the prompt cached."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.support.processes import eventually
from tests.support.raw import ask, chat, request
from tests.support.regions import Region, Regions, regions

SHARED = "You are a patient assistant of the harbour office. " * 240
"""12 kB: computing it takes longer than the way to eu."""

LINKS = {"us-asia": 0.01, "us-eu": 0.12, "asia-eu": 0.12}
"""Round trips in seconds."""

TENANTS = ("--tenant-header", "x-tenant", "--trusted-proxies", "127.0.0.1")
AWAY = ("--residency", "not-us/*=eu+asia", "--residency", "not-asia/*=eu+us")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regions]:
    """Tenants may not stay in the region that their name says; in asia digests are off."""
    script = tmp_path_factory.mktemp("wan") / "links.jsonl"
    shapes = [json.dumps({"link": link, "rtt_s": rtt_s}) for link, rtt_s in LINKS.items()]
    script.write_text("\n".join(shapes))
    arguments = ["--policy", "prefix", "--peer-digest", "--peer-digest-interval-s", "0.2", *TENANTS, *AWAY]
    own = {"asia": ["--no-peer-digest"]}
    with regions("us", "eu", "asia", arguments=arguments, own=own, wan=("--script", str(script))) as found:
        heat_up(found["eu"])
        yield found


def heat_up(region: Region) -> None:
    """Several sessions that share a prefix, one after the other."""
    for number in range(6):
        asked = asyncio.run(ask(region.front.port, request(chat(f"{SHARED} Ship {number}?", max_tokens=1))))
        assert asked.status == 200


def has_room(region: Region, name: str) -> bool:
    """Whether a region would send requests to this peer."""
    rows = {row["name"]: row for row in region.front.state()["engine"]["peers"]}
    return bool(rows[name]["available"] and rows[name]["room"] and rows[name]["rtt_ns"])


def leaves(region: Region, text: str, name: str) -> object:
    """The peer that serves a request which must leave its region."""
    tenant = f"X-Tenant: not-{region.name}"
    data = request(chat(text, max_tokens=1), request_id=name, headers=[tenant])
    assert asyncio.run(ask(region.front.port, data)).status == 200

    def found() -> list[dict[str, object]]:
        return [line for line in region.front.log() if line["request_id"] == name]

    return eventually(found, what=f"the access log's line of {name}")[0]["peer"]


def test_what_must_leave_goes_to_the_farther_region_that_has_told_of_its_prefix(three: Regions) -> None:
    us = three["us"]
    eventually(lambda: us.peers()["eu"]["digest"]["prefixes"] > 0, what="eu tells what is hot")
    eventually(lambda: all(has_room(us, name) for name in ("eu", "asia")), what="either may be sent requests")
    assert leaves(us, f"{SHARED} Ship 77?", "hot") == "eu"
    digest = us.peers()["eu"]["digest"]
    assert digest["hits"] == 1
    assert 0 < digest["tokens_found"] <= digest["tokens"]
    assert 0 < digest["bytes_in"] < 1000
    assert us.front.metric("skylb_peer_digest_hits_total") == 1


def test_another_prompt_goes_to_the_nearer(three: Regions) -> None:
    assert leaves(three["us"], "A new prompt. " * 900, "cold") == "asia"


def test_switched_off_a_balancer_tells_nothing_and_sends_to_the_nearer(three: Regions) -> None:
    asia = three["asia"]
    assert asia.peers()["eu"]["digest"]["bytes_in"] > 0
    assert asia.peers()["eu"]["digest"]["prefixes"] == 0
    assert asia.peers()["eu"]["digest"]["fault"] is None
    assert leaves(asia, f"{SHARED} Ship 78?", "off") == "us"
    heat_up(asia)
    assert all(row["digest"]["bytes_out"] == 0 for row in asia.peers().values())
