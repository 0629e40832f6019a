"""What becomes of a client's connection: it stays where its answers said so, and a refusal arrives."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from skylb._core import ResponseReader
from tests.support.processes import PATIENCE_S, Balancer, balancer, eventually, mocks
from tests.support.raw import Connection, ask, chat, request
from tests.support.report import started

TLS = Path(__file__).parents[1] / "support" / "tls"
MIB = 1 << 20
HEALTH = b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"


def fault(url: str, **switches: object) -> None:
    """Sets failure switches of a mock replica."""
    data = json.dumps(switches).encode()
    urlopen(Request(f"{url}/mock/faults", data=data, method="POST"), timeout=PATIENCE_S).close()


@pytest.fixture(scope="module")
def replica() -> Iterator[str]:
    """One mock replica."""
    with mocks(1, "--profile", "instant") as urls:
        yield urls[0]


@pytest.fixture(scope="module")
def front(replica: str) -> Iterator[Balancer]:
    """SkyLB in front of it."""
    with balancer(replica, arguments=["--body-bytes-max", str(8 * MIB)]) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages"])
def test_behind_the_error_event_of_a_cut_stream_the_connection_takes_the_next_request(
    front: Balancer, replica: str, path: str
) -> None:
    body: dict[str, object] = {**chat("hello", stream=True), "prompt": "hello"}
    if path == "/v1/completions":
        del body["messages"]
    else:
        del body["prompt"]

    async def run() -> None:
        connection = await Connection.open(front.port)
        for _ in range(3):
            fault(replica, cut_after_tokens=3)
            cut = await connection.ask(request(body, path=path))
            assert (cut.status, cut.complete) == (200, True)
            assert b'"error"' in cut.body
            fault(replica, cut_after_tokens=None)
            whole = await connection.ask(request(body, path=path))
            assert (whole.status, whole.complete) == (200, True)
            assert b'"error"' not in whole.body
        await connection.close()

    asyncio.run(run())


def large(size: int, head: str) -> Iterator[bytes]:
    """A request of ``size`` body bytes, piece by piece."""
    chunked = "chunked" in head
    yield f"{head}\r\n\r\n".encode() if chunked else f"{head}\r\nContent-Length: {size}\r\n\r\n".encode()
    piece = b" " * MIB
    for _ in range(size // MIB):
        yield b"%x\r\n%b\r\n" % (MIB, piece) if chunked else piece
    if chunked:
        yield b"0\r\n\r\n"


def first_send_then_read(sock: socket.socket, pieces: Iterator[bytes]) -> tuple[int, str, bytes]:
    """Status, `Connection` and body of the answer to a request, read once all of that was sent."""
    sock.settimeout(PATIENCE_S)
    for piece in pieces:
        sock.sendall(piece)
    reader, body = ResponseReader(), b""
    while not reader.done:
        data = sock.recv(65536)
        assert data, "closed without an answer"
        body += reader.feed(data)
    return reader.status, reader.header("connection") or "", body


POST = "POST {} HTTP/1.1\r\nHost: test\r\nContent-Type: {}{}"
JSON = "application/json"
CHUNKED = "\r\nTransfer-Encoding: chunked"
REFUSALS = {
    "413": (POST.format("/v1/chat/completions", JSON, ""), 17, 413),
    "413 in chunks": (POST.format("/v1/chat/completions", JSON, CHUNKED), 17, 413),
    "413 very large": (POST.format("/v1/chat/completions", JSON, ""), 300, 413),
    "404": (POST.format("/nowhere", JSON, ""), 7, 404),
    "404 in chunks": (POST.format("/nowhere", JSON, CHUNKED), 17, 404),
    "404 very large": (POST.format("/nowhere", JSON, ""), 100, 404),
    "415": (POST.format("/v1/chat/completions", "text/plain", ""), 17, 415),
    "405": (POST.format("/health", JSON, ""), 17, 405),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_client_that_sends_everything_first_gets_its_refusal(front: Balancer, name: str) -> None:
    head, mib, status = REFUSALS[name]
    with socket.create_connection(("127.0.0.1", front.port)) as sock:
        answer = first_send_then_read(sock, large(mib * MIB, head))
        assert answer[0] == status
        json.loads(answer[2])
        if answer[1] == "close":
            assert sock.recv(1) == b""
        else:
            assert first_send_then_read(sock, iter([HEALTH]))[0] == 200
    assert front.metric("skylb_buffer_bytes") == 0


def test_a_client_with_tls_that_sends_everything_first_gets_its_refusal(replica: str) -> None:
    arguments = ("--tls-cert", str(TLS / "server-1.pem"), "--tls-key", str(TLS / "server-1.key"))
    running = started("--replica", replica, *arguments)
    try:
        context = ssl.create_default_context(cafile=TLS / "ca.pem")
        for name in ("413 very large", "404 in chunks", "415"):
            head, mib, status = REFUSALS[name]
            with (
                socket.create_connection(running.client_address()) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as sock,
            ):
                assert first_send_then_read(sock, large(mib * MIB, head))[0] == status, name
    finally:
        assert running.child.stop(PATIENCE_S) == 0


def test_a_body_for_which_there_is_no_memory_is_refused_and_read(replica: str) -> None:
    arguments = ["--body-bytes-max", "1000000", "--buffer-bytes-max", "1000000"]
    head = REFUSALS["413"][0] + "\r\nContent-Length: 900000\r\n\r\n"
    with balancer(replica, arguments=arguments) as front:
        with (
            socket.create_connection(("127.0.0.1", front.port)) as first,
            socket.create_connection(("127.0.0.1", front.port)) as second,
        ):
            first.sendall(head.encode() + b" " * 800_000)
            eventually(lambda: front.metric("skylb_buffer_bytes") == 800_000, what="half a body")
            assert first_send_then_read(second, iter([head.encode(), b" " * 900_000]))[0] == 503
        eventually(lambda: front.metric("skylb_buffer_bytes") == 0, what="given back")


def test_pipelined_requests_of_any_size_are_answered_in_turn(front: Balancer) -> None:
    for size, count in ((20_000, 3), (300_000, 4), (50, 200)):
        with (
            socket.create_connection(("127.0.0.1", front.port)) as sock,
            ThreadPoolExecutor(1) as threads,
        ):
            sock.settimeout(PATIENCE_S)
            ids = [f"{size}-{number}" for number in range(count)]
            body = chat("x" * size, max_tokens=1)
            sent = threads.submit(sock.sendall, b"".join(request(body, request_id=name) for name in ids))
            got = b""
            while len(re.findall(rb"(?i)x-request-id", got)) < count:
                data = sock.recv(1 << 16)
                assert data, f"closed after {got[-300:]!r}"
                got += data
            sent.result()
            assert re.findall(rb"(?i)x-request-id: (\S+)", got) == [name.encode() for name in ids]
            assert got.count(b"HTTP/1.1 200 OK\r\n") == count


@pytest.mark.parametrize("ahead", [0, 30_000, 300_000])
def test_a_client_that_leaves_behind_pipelined_requests_is_seen_to_leave(replica: str, ahead: int) -> None:
    with balancer(replica) as front:
        fault(replica, stall_after_tokens=0)
        try:
            with socket.create_connection(("127.0.0.1", front.port)) as sock:
                sock.sendall(request(chat("hello", stream=True)))
                eventually(lambda: front.metric("skylb_replica_in_flight") == 1, what="at the replica")
                if ahead:
                    sock.sendall(request(chat("x" * ahead)))
            eventually(lambda: any(line["status"] == 499 for line in front.log()), what="499 in the log")
            assert front.metric("skylb_replica_in_flight") == 0
            assert front.metric("skylb_buffer_bytes") == 0
        finally:
            fault(replica, stall_after_tokens=None)


def test_a_client_that_reads_more_slowly_than_it_asks_gets_every_answer(front: Balancer) -> None:
    total = 4_000
    head = b"HTTP/1.1 200 OK\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        sock.connect(("127.0.0.1", front.port))
        sock.settimeout(PATIENCE_S)
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(sock.sendall, b"GET /v1/models HTTP/1.1\r\nHost: test\r\n\r\n" * total)
            answers, tail = 0, b""
            while answers < total:
                data = tail + sock.recv(1 << 16)
                answers += data.count(head)
                tail = data[-len(head) + 1 :]
            sent.result()
    assert answers == total


def test_a_large_stream_is_asked_for_usage_and_its_client_does_not_see_it(replica: str) -> None:
    with balancer(replica, arguments=["--inject-usage"]) as front:
        body = chat("x" * 1_000_000, max_tokens=2, stream=True)
        answer = asyncio.run(ask(front.port, request(body)))
        assert (answer.status, answer.complete) == (200, True)
        assert b'"usage"' not in answer.body.replace(b'"usage":null', b"")
        assert front.metric("skylb_replica_prompt_tokens_total") > 0


def test_pages_that_nobody_reads_are_not_made_on_the_admin_listener(front: Balancer) -> None:
    with socket.create_connection(("127.0.0.1", front.admin_port)) as sock:
        sock.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200_000)
            pytest.fail("all of it was read")
        memory = front.metric("process_resident_memory_bytes")
    assert memory < 400 * MIB
