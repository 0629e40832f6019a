"""Which records are kept and when: the keeper against DNS as a dictionary."""

import asyncio
import base64
from collections.abc import Collection
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb.addresses import IpAddress
from skylb.control.naming import DnsError, Keeper, Wish
from skylb.control.naming.keeper import LEAVE_AFTER_S, REFRESH_S, RETRY_S
from skylb.control.naming.provider import by_type
from skylb.control.naming.rfc2136 import Place, Rfc2136, parse_key

HERE = (ip_address("192.0.2.1"),)


class Records:
    """A provider that remembers, and can fail."""

    def __init__(self) -> None:
        self.by_balancer: dict[str, set[IpAddress]] = {}
        self.asked = 0
        self.fault: str | None = None
        self.unforeseen = False

    async def publish(self, balancer: str, addresses: Collection[IpAddress]) -> bool:
        self._ask()
        changed = self.by_balancer.get(balancer) != set(addresses)
        self.by_balancer[balancer] = set(addresses)
        return changed

    async def withdraw(self, balancer: str, *, unless_last: bool = False) -> bool:
        self._ask()
        if unless_last and self.by_balancer.keys() <= {balancer}:
            return False
        return self.by_balancer.pop(balancer, None) is not None

    def _ask(self) -> None:
        self.asked += 1
        if self.unforeseen:
            raise KeyError("ResourceRecordSets")
        if self.fault is not None:
            raise DnsError(self.fault)


class Scene:
    """A keeper, its clock and its wish."""

    def __init__(self) -> None:
        self.records = Records()
        self.now_s = 100.0
        self.wish = Wish()
        self.keeper = Keeper(
            self.records, "us", HERE, lambda: self.wish, now_ns=lambda: round(self.now_s * 1e9)
        )

    def step(self, after_s: float = 0.5) -> set[str]:
        """Who is in DNS after a look."""
        self.now_s += after_s
        asyncio.run(self.keeper.step())
        return set(self.records.by_balancer)


def test_a_balancer_that_serves_is_in_and_one_that_leaves_is_out_at_once() -> None:
    scene = Scene()
    assert scene.step() == {"us"}
    scene.wish = Wish(leaving=True)
    assert scene.step() == set()
    scene.wish = Wish()
    assert scene.step() == {"us"}
    assert scene.keeper.figures.changes == 3


def test_one_that_is_not_ready_leaves_after_a_while_and_only_where_others_are_left() -> None:
    scene = Scene()
    scene.records.by_balancer["eu"] = {ip_address("192.0.2.2")}
    scene.step()
    scene.wish = Wish(ready=False)
    assert scene.step(LEAVE_AFTER_S / 2) == {"us", "eu"}
    assert scene.step(LEAVE_AFTER_S) == {"eu"}
    del scene.records.by_balancer["eu"]
    scene.wish = Wish()
    assert scene.step() == {"us"}
    scene.wish = Wish(ready=False)
    scene.step()
    assert scene.step(2 * LEAVE_AFTER_S) == {"us"}, "an empty answer helps nobody"


def test_a_dead_peer_is_taken_out_once_and_may_come_back() -> None:
    scene = Scene()
    scene.records.by_balancer["eu"] = {ip_address("192.0.2.2")}
    scene.wish = Wish(dead=frozenset({"eu"}))
    assert scene.step() == {"us"}
    scene.records.by_balancer["eu"] = {ip_address("192.0.2.2")}
    assert scene.step() == {"us", "eu"}, "it has said itself that it is back"
    scene.wish = Wish()
    scene.step()
    scene.wish = Wish(dead=frozenset({"eu"}))
    assert scene.step() == {"us"}


def test_a_record_that_somebody_else_took_out_is_put_back() -> None:
    scene = Scene()
    scene.step()
    scene.records.by_balancer.clear()
    assert scene.step() == set()
    assert scene.step(REFRESH_S) == {"us"}


def test_without_a_change_nobody_is_asked_until_it_is_time() -> None:
    scene = Scene()
    scene.step()
    asked = scene.records.asked
    for _ in range(20):
        scene.step(REFRESH_S / 25)
    assert scene.records.asked == asked


def test_a_failure_is_told_once_and_tried_again_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    scene.records.fault = "no route"
    scene.step()
    for looks, wait_s in enumerate(RETRY_S, 1):
        scene.step(wait_s - 0.1)
        assert scene.records.asked == looks, f"asked again within {wait_s} s"
        scene.step(0.2)
        assert scene.records.asked == looks + 1
    assert [record.message for record in caplog.records] == ["the DNS records cannot be updated: no route"]
    assert scene.keeper.figures.failures == len(RETRY_S) + 1
    scene.records.fault = None
    assert scene.step(RETRY_S[-1]) == {"us"}
    assert scene.keeper.figures.fault == ""


def test_an_answer_that_nobody_has_foreseen_is_a_failure_like_others() -> None:
    scene = Scene()
    scene.records.unforeseen = True
    assert scene.step() == set()
    assert scene.keeper.figures.fault == "KeyError: 'ResourceRecordSets'"
    asyncio.run(scene.keeper.close())
    scene.records.unforeseen = False
    assert scene.step(RETRY_S[0]) == {"us"}
    scene.records.unforeseen = True
    asyncio.run(scene.keeper.close())


def test_at_the_end_the_record_goes_also_where_it_was_the_last() -> None:
    scene = Scene()
    scene.step()
    scene.wish = Wish(ready=False)
    scene.step(2 * LEAVE_AFTER_S)
    asyncio.run(scene.keeper.close())
    assert scene.records.by_balancer == {}


def test_at_the_end_a_server_that_does_not_answer_delays_nothing_for_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    scene.step()
    scene.records.fault = "no route"
    asyncio.run(scene.keeper.close())
    assert [record.message for record in caplog.records] == ["the DNS records still lead here: no route"]


@given(st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), max_size=8, unique=True))
def test_addresses_are_sorted_by_the_type_of_their_record(addresses: list[IpAddress]) -> None:
    found = by_type(addresses)
    assert {ip_address(text) for texts in found.values() for text in texts} == set(addresses)
    assert all(":" not in text for text in found["A"])
    assert all(":" in text for text in found["AAAA"])


SECRET = base64.b64encode(b"x" * 32).decode()


def test_a_key_is_read_as_nsupdate_reads_it() -> None:
    key = parse_key(f"hmac-sha256:skylb:{SECRET}")
    assert str(key.name) == "skylb."
    assert key.secret == b"x" * 32


@pytest.mark.parametrize(
    "text", ["", SECRET, f"skylb:{SECRET}", f"hmac-sha0:skylb:{SECRET}", "hmac-sha256:skylb:%%", "a..b:c:d"]
)
def test_a_key_that_is_none_is_refused_without_telling_it(text: str) -> None:
    with pytest.raises(ValueError, match="ALGORITHM:NAME:BASE64") as refused:
        parse_key(text)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("zone", "name"), [("example.org", "api.example.net"), ("a..b", "a..b"), ("example.org", "x" * 64)]
)
def test_a_name_outside_the_zone_or_none_at_all_is_refused(zone: str, name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        Rfc2136(Place("192.0.2.53", 53, zone, name, 30), None)
