"""Listening sockets, bound for real."""

import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest

from skylb.addresses import ListenAddress
from skylb.errors import ConfigError, ListenError
from skylb.listeners import ServerTls, bind, bound_address, client_tls, unlink


def test_port_0_gives_a_port_and_says_which() -> None:
    (sock,) = bind(ListenAddress("127.0.0.1", 0))
    with closing(sock):
        address = bound_address(sock)
        assert address.port > 0
        with socket.create_connection((address.host, address.port)):
            pass


def test_a_port_in_use_is_a_clear_error() -> None:
    (sock,) = bind(ListenAddress("127.0.0.1", 0))
    with (
        closing(sock),
        pytest.raises(ListenError, match=r"cannot listen on 127\.0\.0\.1:\d+: already in use"),
    ):
        bind(bound_address(sock))


def test_a_foreign_address_and_an_unknown_name_are_clear_errors() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        bind(ListenAddress("192.0.2.1", 0))
    with pytest.raises(ListenError, match=r"cannot listen on nowhere\.invalid:0: "):
        bind(ListenAddress("nowhere.invalid", 0))


def test_the_ipv6_wildcard_takes_ipv4_clients_too() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    (sock,) = bind(ListenAddress("::", 0))
    with closing(sock), socket.create_connection(("127.0.0.1", bound_address(sock).port)):
        pass


def test_a_unix_socket_left_behind_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    address = ListenAddress(str(tmp_path / "s"), 0, unix=True)
    (first,) = bind(address)
    with closing(first):
        assert bound_address(first) == address
        with pytest.raises(ListenError, match="already in use"):
            bind(address)
    (second,) = bind(address)
    with closing(second), closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(address.host)
    unlink(address)
    assert not Path(address.host).exists()


def test_another_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError):
        bind(ListenAddress(str(path), 0, unix=True))
    assert path.read_text() == "data"


def test_files_that_make_no_tls_context_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "x.pem"
    path.write_text("no certificate")
    with pytest.raises(ConfigError, match="tls_cert"):
        ServerTls(path, path, None)
    with pytest.raises(ConfigError, match="replica_ca"):
        client_tls(path)


def test_certificates_of_replicas_are_verified() -> None:
    context = client_tls(None)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
