"""DNS records at real servers: BIND 9 by signed updates, and Route 53 as moto plays it."""

import asyncio
import base64
import json
import sys
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

from skylb.control.naming import DnsError
from skylb.control.naming.rfc2136 import Place, Rfc2136, parse_key
from skylb.control.naming.route53 import LatencyRecord, Route53
from tests.support.named import NAMED, NameServer, name_server
from tests.support.processes import Child, eventually, free_port, get
from tests.support.regions import regions

US, EU, EU6 = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::2")
NAME = "api.example.org"


# ------------------------------------------------------------------------------------- RFC 2136


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    if NAMED is None:
        pytest.skip("there is no BIND here (Debian: apt install bind9)")
    with name_server(tmp_path_factory.mktemp("named")) as found:
        yield found


@pytest.fixture
def records(server: NameServer) -> Iterator[Rfc2136]:
    found = provider(server)
    yield found
    for balancer in ("us", "eu"):
        asyncio.run(found.withdraw(balancer))
    assert answer(server) == set()


def provider(server: NameServer, key: str | None = "") -> Rfc2136:
    place = Place("127.0.0.1", server.port, "example.org", NAME, 20)
    return Rfc2136(place, None if key is None else parse_key(key or server.key))


def answer(server: NameServer, name: str = NAME) -> set[str]:
    """What a resolver would be told."""
    found = set()
    for kind in ("A", "AAAA"):
        said = dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", 5, server.port)
        found |= {str(record) for records in said.answer for record in records}
    return found


def serial(server: NameServer) -> int:
    """Of the zone: each change counts it up."""
    said = dns.query.udp(dns.message.make_query("example.org", "SOA"), "127.0.0.1", 5, server.port)
    return int(said.answer[0][0].serial)


def test_balancers_enter_the_answer_and_leave_it(server: NameServer, records: Rfc2136) -> None:
    assert asyncio.run(records.publish("us", [US]))
    assert asyncio.run(records.publish("eu", [EU, EU6]))
    assert answer(server) == {str(US), str(EU), str(EU6)}
    assert answer(server, f"eu.{NAME}") == {str(EU), str(EU6)}
    assert asyncio.run(records.withdraw("eu"))
    assert answer(server) == {str(US)}
    assert answer(server, f"eu.{NAME}") == set()


def test_what_is_as_it_should_be_is_not_written_again(server: NameServer, records: Rfc2136) -> None:
    asyncio.run(records.publish("us", [US]))
    before = serial(server)
    assert not asyncio.run(records.publish("us", [US]))
    assert not asyncio.run(records.withdraw("eu"))
    assert serial(server) == before


def test_a_balancer_that_moves_leaves_no_old_address_behind(server: NameServer, records: Rfc2136) -> None:
    asyncio.run(records.publish("us", [US, EU6]))
    asyncio.run(records.publish("us", [EU]))
    assert answer(server) == {str(EU)}
    assert answer(server, f"us.{NAME}") == {str(EU)}


def test_the_last_balancer_stays_where_it_is_asked_to(server: NameServer, records: Rfc2136) -> None:
    asyncio.run(records.publish("us", [US]))
    assert not asyncio.run(records.withdraw("us", unless_last=True))
    assert answer(server) == {str(US)}
    asyncio.run(records.publish("eu", [EU]))
    assert asyncio.run(records.withdraw("us", unless_last=True))
    assert answer(server) == {str(EU)}


def test_updates_of_several_balancers_at_once_lose_nothing(server: NameServer, records: Rfc2136) -> None:
    async def all_at_once() -> None:
        for _ in range(5):
            await asyncio.gather(records.publish("us", [US]), records.publish("eu", [EU, EU6]))
            await asyncio.gather(records.withdraw("us"), records.withdraw("eu"))
        await asyncio.gather(records.publish("us", [US]), records.publish("eu", [EU, EU6]))

    asyncio.run(all_at_once())
    assert answer(server) == {str(US), str(EU), str(EU6)}


WRONG = f"hmac-sha256:skylb:{base64.b64encode(b'y' * 32).decode()}"
STRANGER = f"hmac-sha256:stranger:{base64.b64encode(b'y' * 32).decode()}"


@pytest.mark.parametrize("key", [None, WRONG, STRANGER], ids=["none", "wrong", "unknown"])
def test_without_the_right_key_nothing_changes_and_the_reason_is_told(
    server: NameServer, key: str | None
) -> None:
    with pytest.raises(DnsError, match=f"{NAME}.*127.0.0.1 port {server.port}"):
        asyncio.run(provider(server, key).publish("us", [US]))
    assert answer(server) == set()


def test_a_server_that_is_not_there_is_a_fault_with_its_address() -> None:
    nobody = Rfc2136(Place("127.0.0.1", free_port(), "example.org", NAME, 20), None)
    with pytest.raises(DnsError, match="Connect call failed"):
        asyncio.run(nobody.withdraw("us"))


def settings(server: NameServer, key: Path, address: object) -> list[str]:
    """Of a balancer whose records are kept there."""
    words = ["--dns-provider", "rfc2136", "--dns-name", NAME, "--dns-zone", "example.org"]
    words += ["--dns-server", f"127.0.0.1:{server.port}", "--dns-key-file", str(key)]
    return [*words, "--dns-address", str(address)]


def told(server: NameServer, addresses: set[str], what: str) -> None:
    """Waits until resolvers are told so; long enough for a look that comes again."""
    eventually(lambda: answer(server) == addresses, timeout_s=40, what=what)


def test_dead_and_evacuated_regions_leave_the_answer_and_return(server: NameServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(server.key)
    own = {"us": settings(server, key, US), "eu": settings(server, key, EU)}
    both = {str(US), str(EU)}
    with regions("us", "eu", replicas=1, own=own) as found:
        told(server, both, "both are in DNS")
        found["eu"].kill()
        told(server, {str(US)}, "the dead one is taken out by its peer")
        found["eu"].start()
        told(server, both, "it is back")
        found.settled()
        found["eu"].verb("/regions/us/evacuate")
        told(server, {str(EU)}, "the evacuated region leaves")
        found["eu"].verb("/regions/us/undrain")
        told(server, both, "it takes work again")
        assert found["us"].front.state()["dns"]["published"]
    assert answer(server) == set(), "who stops in order takes its own records out"


# ------------------------------------------------------------------------------------- Route 53


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    port = free_port()
    child = Child([sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        child.require(lambda: _answers(url), timeout_s=30, what="moto's server")
        yield url
    finally:
        child.stop()


def _answers(url: str) -> bool:
    try:
        return bool(get(f"{url}/moto-api/data.json"))
    except OSError:
        return False


@pytest.fixture
def zone(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    variables = {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    import boto3  # noqa: PLC0415 - it takes two seconds

    client = boto3.client("route53")
    made = client.create_hosted_zone(Name="example.org", CallerReference="test")
    yield made["HostedZone"]["Id"]
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST"))


def latency(zone: str, aws_region: str, **more: Any) -> Route53:
    return Route53(LatencyRecord(zone=zone, name=NAME, aws_region=aws_region, ttl_s=20, **more))


def listed(zone: str) -> list[tuple[str, str, str, list[str]]]:
    """All address records, as AWS tells them."""
    import boto3  # noqa: PLC0415 - as above

    found = boto3.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return sorted(
        (
            record["SetIdentifier"],
            record["Region"],
            record["Type"],
            [value["Value"] for value in record["ResourceRecords"]],
        )
        for record in found
        if record["Type"] in {"A", "AAAA"}
    )


def test_a_latency_record_per_region_enters_and_leaves(zone: str) -> None:
    us, eu = latency(zone, "us-east-1"), latency(zone, "eu-central-1")
    assert asyncio.run(us.publish("us", [US]))
    assert asyncio.run(eu.publish("eu", [EU, EU6]))
    assert not asyncio.run(eu.publish("eu", [EU6, EU])), "it is there already"
    assert listed(zone) == [
        ("eu", "eu-central-1", "A", [str(EU)]),
        ("eu", "eu-central-1", "AAAA", [str(EU6)]),
        ("us", "us-east-1", "A", [str(US)]),
    ]
    assert asyncio.run(eu.withdraw("us")), "a dead region is taken out by another one"
    assert asyncio.run(eu.publish("eu", [EU]))
    # Told to delete one type of an identifier, moto deletes all; AWS does not. The next look mends it.
    asyncio.run(eu.publish("eu", [EU]))
    assert listed(zone) == [("eu", "eu-central-1", "A", [str(EU)])]
    assert not asyncio.run(eu.withdraw("eu", unless_last=True))
    assert asyncio.run(eu.withdraw("eu"))
    assert listed(zone) == []


def test_a_health_check_goes_with_the_record(zone: str) -> None:
    checked = latency(zone, "us-east-1", health_check="11111111-2222-3333-4444-555555555555")
    assert asyncio.run(checked.publish("us", [US]))
    assert not asyncio.run(checked.publish("us", [US]))
    import boto3  # noqa: PLC0415 - as above

    found = boto3.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert "11111111-2222-3333-4444-555555555555" in json.dumps(found)


def test_a_zone_that_is_not_there_is_a_fault_with_awss_words(zone: str) -> None:
    del zone
    with pytest.raises(DnsError, match="NoSuchHostedZone"):
        asyncio.run(latency("Z0000000", "us-east-1").publish("us", [US]))


def test_an_endpoint_that_is_not_there_is_a_fault(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(DnsError, match="Route 53"):
        asyncio.run(latency(zone, "us-east-1").withdraw("us"))
