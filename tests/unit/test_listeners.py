"""Listening sockets, bound for real."""

import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest

from skylb.addresses import ListenAddress
from skylb.errors import ConfigError, ListenError
from skylb.listeners import ServerTls, bind, bound_address, client_tls

TLS = Path(__file__).parents[1] / "support" / "tls"


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
        second.release()
    assert not Path(address.host).exists()


def test_a_unix_socket_that_a_successor_has_bound_meanwhile_is_left_alone(tmp_path: Path) -> None:
    address = ListenAddress(str(tmp_path / "s"), 0, unix=True)
    (first,) = bind(address)
    Path(address.host).unlink()
    (successor,) = bind(address)
    with closing(successor), closing(socket.socket(socket.AF_UNIX)) as client:
        first.release()
        client.connect(address.host)


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


def served_name(server: ServerTls, client: ssl.SSLContext) -> str:
    """Common name of the certificate that a handshake in memory shows."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.context.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    waiting: list[ssl.SSLObject] = [client_side, server_side]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    shown = client_side.getpeercert()
    assert shown is not None
    subject = shown["subject"]
    return str(subject[0][0][1])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and key that a test may overwrite."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes((TLS / "server-1.pem").read_bytes())
    key.write_bytes((TLS / "server-1.key").read_bytes())
    return cert, key


def test_a_renewed_certificate_is_shown_to_new_clients(pair: tuple[Path, Path]) -> None:
    cert, key = pair
    server, client = ServerTls(cert, key, None), client_tls(TLS / "ca.pem")
    assert served_name(server, client) == "server-1"
    cert.write_bytes((TLS / "server-2.pem").read_bytes())
    key.write_bytes((TLS / "server-2.key").read_bytes())
    server.renew()
    assert served_name(server, client) == "server-2"


def test_a_certificate_that_cannot_be_renewed_stays_in_use(pair: tuple[Path, Path]) -> None:
    cert, key = pair
    server, client = ServerTls(cert, key, None), client_tls(TLS / "ca.pem")
    cert.write_bytes((TLS / "server-2.pem").read_bytes())  # its key is not there yet
    with pytest.raises(ConfigError, match="tls_cert"):
        server.renew()
    assert served_name(server, client) == "server-1"


def test_a_client_authority_asks_clients_for_a_certificate(pair: tuple[Path, Path]) -> None:
    server = ServerTls(*pair, TLS / "ca.pem")
    bare, shown = client_tls(TLS / "ca.pem"), client_tls(TLS / "ca.pem")
    shown.load_cert_chain(TLS / "client.pem", TLS / "client.key")
    assert served_name(server, shown) == "server-1"
    with pytest.raises(ssl.SSLError):
        served_name(server, bare)
