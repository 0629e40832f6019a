"""A peer that cannot be reached, in five ways, while clients go on asking: who notices, and who is hurt.

Three real balancers, over ``skylb wan`` and, where the machine allows it, in network namespaces.
``make chaos-regions`` does the same for longer, with times.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.support import namespaces
from tests.support.partitions import NAMESPACE_WAYS, WAYS, Heal, Load, alone, logged
from tests.support.processes import eventually
from tests.support.regions import Regions, regions

WAN = ("--rtt-s", "0.02")


@pytest.fixture(scope="module")
def far() -> Iterator[Regions]:
    with regions("us", "eu", "asia", wan=WAN) as found:
        yield found


@pytest.fixture(scope="module")
def apart() -> Iterator[Regions]:
    if not namespaces.allowed():
        pytest.skip("needs root, iproute2 and nft")
    with regions("us", "eu", "asia", namespaces=True) as found:
        yield found


@pytest.mark.parametrize("way", WAYS)
def test_a_peer_that_cannot_be_reached_costs_no_request_without_a_first_byte(far: Regions, way: str) -> None:
    nobody_is_hurt(far, f"wan-{way}", lambda: WAYS[way](far))


@pytest.mark.parametrize("way", NAMESPACE_WAYS)
def test_a_peer_that_the_kernel_cuts_off_costs_no_request_without_a_first_byte(
    apart: Regions, way: str
) -> None:
    nobody_is_hurt(apart, f"net-{way}", lambda: NAMESPACE_WAYS[way](apart))


def test_a_region_that_hears_nobody_serves_its_clients_alone(apart: Regions) -> None:
    nobody_is_hurt(apart, "alone", lambda: alone(apart))


def nobody_is_hurt(three: Regions, name: str, begin: Callable[[], Heal]) -> None:
    """Cuts eu off from us under load, heals it when us has noticed, and looks at every answer."""
    us = three["us"]

    def until_eu_is(available: bool) -> None:
        eventually(
            lambda: us.peers()["eu"]["available"] is available,
            what=f"eu available: {available}, after {name}",
        )

    async def run() -> Load:
        load = Load(us.front.port, name)
        await asyncio.sleep(0.5)
        heal = begin()
        try:
            await asyncio.to_thread(until_eu_is, False)
        finally:
            heal()
        await asyncio.to_thread(until_eu_is, True)
        await load.stop()
        return load

    load = asyncio.run(run())
    lines = eventually(lambda: logged(us, name, len(load.answers)), what="every request in the log")
    cut = {name for name, answer in load.answers.items() if answer.done_events == 0}
    assert {name: answer for name, answer in load.answers.items() if answer.status != 200} == {}
    assert all(load.answers[name].error_events == 1 for name in cut)
    assert {lines[name]["peer"] for name in cut} <= {"eu"}
    served = Counter(line["peer"] for line in lines.values())
    assert min(served["eu"], served["asia"], served[None]) > 0
