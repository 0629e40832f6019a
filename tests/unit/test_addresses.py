import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb.addresses import (
    ListenAddress,
    PeerUrl,
    ReplicaUrl,
    client_address,
    is_name,
    parse_ip,
    parse_listen,
    parse_network,
    parse_peer,
    parse_replica,
)

PORTS = st.integers(min_value=1, max_value=65535)
HOSTS = st.one_of(
    st.ip_addresses().filter(lambda address: getattr(address, "ipv4_mapped", None) is None).map(str),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,5}){0,2}", fullmatch=True),
)


@given(HOSTS, PORTS)
def test_a_listen_address_reads_back_what_it_prints(host: str, port: int) -> None:
    address = ListenAddress(host, port)
    assert parse_listen(str(address)) == address


@given(st.sampled_from(["http", "https"]), HOSTS, PORTS)
def test_a_replica_reads_back_what_it_prints(scheme: str, host: str, port: int) -> None:
    url = ReplicaUrl("http" if scheme == "http" else "https", host, port)
    assert parse_replica(str(url)) == url


def test_the_usual_forms_are_read() -> None:
    assert parse_listen("127.0.0.1:8080") == ListenAddress("127.0.0.1", 8080)
    assert parse_listen("[::]:80") == ListenAddress("::", 80)
    assert parse_listen("unix:/run/skylb.sock") == ListenAddress("/run/skylb.sock", 0, unix=True)
    assert parse_replica("http://GPU-1") == ReplicaUrl("http", "gpu-1", 80)
    assert parse_replica("https://gpu-1.example/") == ReplicaUrl("https", "gpu-1.example", 443)
    assert parse_replica("http://[2001:DB8::1]:8000").authority == "[2001:db8::1]:8000"
    assert parse_replica("unix:/run/vllm.sock") == ReplicaUrl("unix", "/run/vllm.sock", 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8080", "missing"),
        (":8080", "missing"),
        ("host:", "port"),
        ("host:65536", "port"),
        ("host:\uff18\uff10", "port"),
        ("::1:80", "brackets"),
        ("[::g]:80", "IPv6"),
        ("a b:80", "host"),
        ("unix:", "path"),
        ("unix:" + "x" * 108, "longer"),
    ],
)
def test_a_bad_listen_address_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("127.0.0.1:8000", "scheme"),
        ("ftp://a", "scheme"),
        ("http://a/v1", "path"),
        ("http://a?x=1", "path"),
        ("http://user:secret@a", "credentials"),
        ("http://a:0", "port"),
        ("http://", "host"),
    ],
)
def test_a_bad_replica_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_replica(text)


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "127.0.0.2:80", True),
        ("[::]:80", "127.0.0.1:80", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "a:80", False),
    ],
)
def test_addresses_collide_when_both_cannot_be_bound(one: str, other: str, collide: bool) -> None:
    assert parse_listen(one).collides(parse_listen(other)) is collide
    assert parse_listen(other).collides(parse_listen(one)) is collide


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/a", True),
        ("0.0.0.0:1", False),
        ("a:1", False),
    ],
)
def test_loopback_is_told_from_the_network(text: str, loopback: bool) -> None:
    assert parse_listen(text).is_loopback is loopback


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::FFFF:7f00:1", "127.0.0.1"),
        ("0:0:0:0:0:ffff:10.1.2.3", "10.1.2.3"),
        ("2001:DB8::0001", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:10.1.2.3%2", "10.1.2.3"),
        ("::1", "::1"),
    ],
)
def test_an_address_has_one_form_however_it_is_written(text: str, plain: str) -> None:
    assert str(parse_ip(text)) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("fd00::/8", "fd00::/8"),
    ],
)
def test_a_network_has_the_form_of_the_addresses_in_it(text: str, plain: str) -> None:
    assert str(parse_network(text)) == plain


def test_who_connects_has_an_address_of_one_form_or_none() -> None:
    assert client_address(("::ffff:192.0.2.7", 5, 0, 0)) == parse_ip("192.0.2.7")
    assert client_address(("fe80::7%eth0", 5, 0, 2)) == parse_ip("fe80::7")
    assert client_address(("192.0.2.7", 5)) == parse_ip("192.0.2.7")
    for none in ("", b"", None):
        assert client_address(none) is None, "a Unix socket, or a client that has left"


def test_configured_addresses_have_the_same_form() -> None:
    assert parse_listen("[::ffff:127.0.0.1]:80") == ListenAddress("127.0.0.1", 80)
    assert parse_replica("http://[::ffff:10.0.0.1]:8000").authority == "10.0.0.1:8000"
    assert parse_replica("http://[fe80::1%eth0]:8000").authority == "[fe80::1]:8000"
    assert ListenAddress("::ffff:127.0.0.1", 80).is_loopback
    assert ListenAddress("::ffff:0.0.0.0", 80).is_wildcard


@given(st.from_regex(r"[a-z][a-z0-9._-]{0,63}", fullmatch=True).filter(is_name), HOSTS, PORTS, st.booleans())
def test_a_peer_reads_back_what_it_prints(name: str, host: str, port: int, with_forward: bool) -> None:
    url = ReplicaUrl("http", host, port)
    peer = PeerUrl(name, url, url if with_forward else None)
    assert parse_peer(str(peer)) == peer


@pytest.mark.parametrize(
    "text", ["eu", "=http://a:1", "e u=http://a:1", "eu=unix:/a", "eu=http://a:1,", "eu="]
)
def test_a_peer_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME=|port|host|scheme|TCP"):
        parse_peer(text)
