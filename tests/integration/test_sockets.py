"""Every kind of socket, to clients and to replicas: TCP, IPv6, Unix, TLS."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_S, SKYLB, Child, eventually, get, mocks, sample_sum
from tests.support.report import Started, started

TLS = Path(__file__).parents[1] / "support" / "tls"
SERVER = ("--tls-cert", str(TLS / "server-1.pem"), "--tls-key", str(TLS / "server-1.key"))


def trusting(*, show: bool = False) -> ssl.SSLContext:
    """A client's context that trusts the tests' authority; ``show`` a certificate of its own."""
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    context.set_alpn_protocols(["http/1.1"])
    if show:
        context.load_cert_chain(TLS / "client.pem", TLS / "client.key")
    return context


def chat(sock: socket.socket, model: str = "mock") -> bytes:
    """One streamed chat over a connected socket; everything the server sent until it closed."""
    body = {"model": model, "stream": True, "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
    sock.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + data)
    answer = b""
    while part := sock.recv(65536):
        answer += part
    return answer


def check(answer: bytes) -> None:
    """The answer is a whole stream."""
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert b"data: [DONE]" in answer


@contextmanager
def serving(*arguments: str, replica: str) -> Iterator[Started]:
    """A balancer that has a ready replica."""
    balancer = started("--replica", replica, *arguments)
    try:
        eventually(balancer.ready, what="ready")
        yield balancer
    finally:
        assert balancer.child.stop(PATIENCE_S) == 0


def test_tls_clients_get_the_certificate_alpn_and_an_answer() -> None:
    with mocks(1, "--profile", "instant") as urls, serving(*SERVER, replica=urls[0]) as balancer:
        with (
            socket.create_connection(balancer.client_address()) as plain,
            trusting().wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            assert sock.selected_alpn_protocol() == "http/1.1"
            check(chat(sock))


def test_silent_tls_handshakes_count_as_connections_and_make_room_for_who_speaks() -> None:
    arguments = (*SERVER, "--connections-max", "4")
    with (
        mocks(1, "--profile", "instant") as urls,
        serving(*arguments, replica=urls[0]) as balancer,
        ExitStack() as stack,
    ):
        for _ in range(8):
            stack.enter_context(socket.create_connection(balancer.client_address()))
        plain = stack.enter_context(socket.create_connection(balancer.client_address()))
        with trusting().wrap_socket(plain, server_hostname="localhost") as sock:
            check(chat(sock))
        page = get(f"{balancer.admin}/metrics").decode()
        assert sample_sum(page, "skylb_connections_closed_total") >= 5


def test_a_plain_request_to_the_tls_listener_gets_no_answer() -> None:
    with mocks(1, "--profile", "instant") as urls, serving(*SERVER, replica=urls[0]) as balancer:
        with socket.create_connection(balancer.client_address()) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP/" not in sock.recv(4096)


def test_a_client_without_the_certificate_asked_for_is_turned_away() -> None:
    arguments = (*SERVER, "--tls-client-ca", str(TLS / "ca.pem"))
    with mocks(1, "--profile", "instant") as urls, serving(*arguments, replica=urls[0]) as balancer:
        with (
            socket.create_connection(balancer.client_address()) as plain,
            trusting(show=True).wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            check(chat(sock))
        with (
            socket.create_connection(balancer.client_address()) as plain,
            trusting().wrap_socket(plain, server_hostname="localhost") as sock,
            pytest.raises(OSError, match=r"certificate|reset|EOF|closed"),
        ):
            check_refused(chat(sock))


def check_refused(answer: bytes) -> None:
    """TLS 1.3 tells a client that it was refused with the first read; some stacks just close."""
    if not answer:
        raise ConnectionResetError("connection closed without an answer")
    pytest.fail(f"answered: {answer[:100]!r}")


def test_a_tls_replica_is_verified_by_the_authority_given() -> None:
    with mocks(1, "--profile", "instant", *SERVER) as urls:
        url = urls[0]
        with serving("--replica-ca", str(TLS / "ca.pem"), replica=url) as balancer:
            with socket.create_connection(balancer.client_address()) as sock:
                check(chat(sock))


def test_a_tls_replica_of_an_unknown_authority_is_never_used() -> None:
    with mocks(1, "--profile", "instant", *SERVER) as urls:
        url = urls[0]
        balancer = started("--replica", url)
        try:
            assert f"  replica  {url}  down" in balancer.child.text()
            with socket.create_connection(balancer.client_address()) as sock:
                assert chat(sock).startswith(b"HTTP/1.1 503 ")
        finally:
            balancer.child.stop()


def test_unix_sockets_on_both_sides(tmp_path: Path) -> None:
    replica = f"unix:{tmp_path / 'replica.sock'}"
    mock = Child([*SKYLB, "mock", "--profile", "instant", "--listen", replica])
    try:
        mock.require(lambda: "ready" in mock.text(), timeout_s=20, what="mock")
        path = tmp_path / "clients.sock"
        with (
            serving("--listen", f"unix:{path}", replica=replica),
            closing(socket.socket(socket.AF_UNIX)) as sock,
        ):
            sock.connect(str(path))
            check(chat(sock))
    finally:
        mock.stop()


def test_ipv6_on_both_sides() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    mock = Child([*SKYLB, "mock", "--profile", "instant", "--listen", "[::1]:0"])
    try:
        mock.require(lambda: "ready" in mock.text(), timeout_s=20, what="mock")
        url = mock.text().split()[0]
        with serving("--listen", "[::1]:0", replica=url) as balancer:
            with socket.create_connection(balancer.client_address()) as sock:
                check(chat(sock))
    finally:
        mock.stop()
