"""Which hosts may be served for a dead peer."""

import pytest

from skylb.addresses import parse_replica
from skylb.discovery.resolve import literal
from skylb.hosts import parse_range, why_not
from skylb.types import Address


def refused(ranges: str, url: str, address: str | None = None) -> str | None:
    """Why a replica is refused; its name resolves to ``address``, or is one."""
    parsed = parse_replica(url)
    at = literal(parsed) if address is None else Address(address, parsed.port)
    assert at is not None
    return why_not([parse_range(text) for text in ranges.split()], parsed, at)


@pytest.mark.parametrize(
    ("ranges", "url", "address"),
    [
        ("10.2.0.0/16", "http://10.2.3.4:8000", None),
        ("10.2.3.4", "https://10.2.3.4:8000", None),
        ("10.2.0.0/16", "http://gpu-1:8000", "10.2.3.4"),
        ("10.2.0.0/16", "http://[::ffff:10.2.3.4]:8000", None),
        ("10.9.0.0/16 fd12::/64", "http://[fd12::7]:8000", None),
        ("127.0.0.0/8", "http://localhost:8000", "127.0.0.1"),
        ("::1", "http://localhost:8000", "::1"),
        ("gpu-1.example.net", "http://GPU-1.example.net:8000", "10.2.3.4"),
        ("*.example.net", "http://gpu-1.eu.example.net.:8000", "203.0.113.9"),
        ("0.0.0.0/0", "http://203.0.113.9:8000", None),
    ],
)
def test_a_replica_in_a_range_may_be_served(ranges: str, url: str, address: str | None) -> None:
    assert refused(ranges, url, address) is None


ANYWHERE = "0.0.0.0/0 ::/0 *.example.net"


@pytest.mark.parametrize(
    ("ranges", "url", "address"),
    [
        ("", "http://10.2.3.4:8000", None),
        ("10.2.0.0/16", "http://10.3.0.1:8000", None),
        ("10.2.0.0/16", "http://gpu-1:8000", "10.3.0.1"),
        ("*.example.net", "http://example.net:8000", "10.2.3.4"),
        ("*.example.net", "http://evilexample.net:8000", "10.2.3.4"),
        ("*.example.net", "http://10.2.3.4:8000", None),
        # A name that is listed does not bring one to this machine, nor to whoever hands out credentials.
        ("*.example.net", "http://gpu-1.example.net:8000", "127.0.0.1"),
        ("*.example.net", "http://gpu-1.example.net:8000", "::1"),
        ("*.example.net", "http://gpu-1.example.net:8000", "::ffff:127.0.0.1"),
        (ANYWHERE, "http://gpu-1.example.net:8000", "169.254.169.254"),
        (ANYWHERE, "http://169.254.169.254:80", None),
        (ANYWHERE, "http://[::ffff:169.254.169.254]:80", None),
        (ANYWHERE, "http://[::169.254.169.254]:80", None),
        (ANYWHERE, "http://[64:ff9b::a9fe:a9fe]:80", None),
        (ANYWHERE, "http://[2002:a9fe:a9fe::1]:80", None),
        (ANYWHERE, "http://[fd00:ec2::254]:80", None),
        (ANYWHERE, "http://[fe80::1]:80", None),
        (ANYWHERE, "http://gpu-1.example.net:80", "fe80::1%eth0"),
        (ANYWHERE, "http://0.0.0.0:80", None),
        (ANYWHERE, "http://[::]:80", None),
        (ANYWHERE, "http://168.63.129.16:80", None),
        (ANYWHERE, "http://255.255.255.255:80", None),
        (ANYWHERE, "http://2852039166:80", "169.254.169.254"),
        (ANYWHERE, "unix:/run/docker.sock", None),
    ],
)
def test_everything_else_may_not(ranges: str, url: str, address: str | None) -> None:
    assert refused(ranges, url, address) is not None


@pytest.mark.parametrize(
    "text", ["", "*", "*.", "10.2.0.1/16", "http://gpu-1:8000", "a b", "169.254.0.0/16", "fe80::/64"]
)
def test_what_is_no_range_or_can_have_no_replica_is_no_setting(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_range(text)


@pytest.mark.parametrize("text", ["10.2.0.0/16", "fd12::/64", "gpu-1.example.net", "*.example.net"])
def test_a_range_is_shown_as_it_is_written(text: str) -> None:
    assert str(parse_range(text)) == text
