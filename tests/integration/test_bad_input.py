"""Bad requests over real sockets: the right status, the right shape, and not a byte to any replica."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skylb._core import ResponseReader
from tests.support.processes import Balancer, balancer, free_port, get, mocks
from tests.support.raw import Connection, ask, chat, request

pytestmark = pytest.mark.any_clock

TABLE = Path(__file__).parents[1] / "data" / "http_requests.json"


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[str]]:
    """Two mock replicas."""
    with mocks(2, "--profile", "instant") as urls:
        yield urls


@pytest.fixture(scope="module")
def front(replicas: list[str]) -> Iterator[Balancer]:
    """SkyLB in front of both."""
    with balancer(*replicas) as running:
        yield running


def attempts(front: Balancer) -> float:
    """Attempts at any replica so far."""
    return front.metric("skylb_attempts_total")


def raw(case: dict[str, Any]) -> bytes:
    """The bytes of one row of the table."""
    text: str = case["raw"]
    if fill := case.get("fill"):
        text = text.replace("@@", fill["text"] * fill["count"])
    return text.encode("latin-1")


async def converse(port: int, data: bytes, name: str = "") -> tuple[int, bytes]:
    """Sends bytes and reads until the connection closes or one response is complete."""
    connection = await Connection.open(port)
    try:
        connection.writer.write(data)
        reader = ResponseReader(data.startswith(b"HEAD "))
        body = b""
        while not reader.done:
            try:
                part = await asyncio.wait_for(connection.reader.read(65536), 15)
            except TimeoutError:
                pytest.fail(f"{name}: no answer")
            if not part:
                break
            body += reader.feed(part)
        return reader.status, body
    finally:
        connection.abort()


@pytest.mark.parametrize("limit", [None, 1024])
def test_every_refused_row_of_the_table_is_refused_and_reaches_no_replica(
    replicas: list[str], limit: int | None
) -> None:
    table = json.loads(TABLE.read_text())
    rows = [case for case in table if case["expect"] != "ok" and case.get("body_bytes_max") == limit]
    assert rows
    arguments = ["--body-bytes-max", str(limit)] if limit else []
    with balancer(*replicas, arguments=arguments) as front:
        check_refused(front, rows)


def check_refused(front: Balancer, rows: list[dict[str, Any]]) -> None:
    """Sends all rows; statuses are right, bodies are errors, replicas hear nothing."""
    before = attempts(front)

    async def run() -> list[tuple[int, bytes]]:
        return [await converse(front.port, raw(case), case["name"]) for case in rows]

    answers = asyncio.run(run())
    wrong = [
        (case["name"], case["expect"], status)
        for case, (status, _) in zip(rows, answers, strict=True)
        if str(status) != str(case["expect"])
    ]
    assert not wrong
    assert attempts(front) == before
    for case, (_, body) in zip(rows, answers, strict=True):
        if body and not case["raw"].startswith("HEAD"):
            error = json.loads(body)["error"]
            assert error["message"], case["name"]
            assert error["type"], case["name"]


BODIES = {
    "malformed": (b'{"model": "mock", "messages": [', 400, "invalid_json", None),
    "not an object": (b"[1, 2]", 400, None, None),
    "trailing bytes": (b'{"model": "mock", "messages": []} x', 400, "invalid_json", None),
    "not UTF-8": (
        b'{"model": "mock", "messages": [{"role": "user", "content": "\xff"}]}',
        400,
        "invalid_json",
        None,
    ),
    "wrong type of stream": (
        b'{"model": "mock", "stream": "maybe", "messages": [{"role": "user", "content": "x"}]}',
        400,
        "invalid_type",
        "stream",
    ),
    "wrong type of messages": (b'{"model": "mock", "messages": "hello"}', 400, "invalid_type", "messages"),
    "duplicate model": (
        b'{"model": "mock", "mod\\u0065l": "other", "messages": [{"role": "user", "content": "x"}]}',
        400,
        "duplicate_key",
        "model",
    ),
    "deep": (
        b'{"model": "mock", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        400,
        "body_too_complex",
        None,
    ),
    "unknown model": (
        b'{"model": "huge", "messages": [{"role": "user", "content": "x"}]}',
        404,
        "model_not_found",
        None,
    ),
    "empty": (b"", 400, None, None),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused_by_name_and_the_connection_goes_on(front: Balancer, name: str) -> None:
    body, status, code, param = BODIES[name]
    before = attempts(front)

    async def run() -> None:
        connection = await Connection.open(front.port)
        answer = await connection.ask(request(body))
        assert answer.status == status, answer
        error = json.loads(answer.body)["error"]
        assert code is None or error["code"] == code, error
        assert param is None or error["param"] == param, error
        again = await connection.ask(b"GET /v1/models HTTP/1.1\r\nHost: test\r\n\r\n")
        assert again.status == 200
        await connection.close()

    asyncio.run(run())
    assert attempts(front) == before


def test_the_unknown_model_answer_names_the_known_ones(front: Balancer) -> None:
    answer = asyncio.run(ask(front.port, request(chat("x", model="huge"))))
    assert "mock" in json.loads(answer.body)["error"]["message"]


def test_anthropic_clients_get_errors_in_their_shape(front: Balancer) -> None:
    answer = asyncio.run(ask(front.port, request(b"{", path="/v1/messages")))
    error = json.loads(answer.body)
    assert answer.status == 400
    assert error["type"] == "error"
    assert error["error"]["type"] == "invalid_request_error"


def test_a_body_over_the_limit_is_refused_before_it_is_read(replicas: list[str]) -> None:
    with balancer(*replicas, arguments=["--body-bytes-max", "1000"]) as front:
        for size, status in ((1000, 200), (1001, 413)):
            body = json.dumps(chat("x")).encode()
            padded = body[:-1] + b" " * (size - len(body)) + b"}"
            assert asyncio.run(ask(front.port, request(padded))).status == status
        chunked = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % 1001 + b" " * 1001
        )
        assert asyncio.run(converse(front.port, chunked))[0] == 413


def test_no_replica_ready_is_503_with_retry_after() -> None:
    with balancer(f"http://127.0.0.1:{free_port()}", wait_ready=False) as front:
        answer = asyncio.run(ask(front.port, request(chat("x"))))
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert json.loads(answer.body)["error"]["code"] == "no_replica_ready"


def test_slow_heads_and_slow_bodies_are_cut_off(replicas: list[str]) -> None:
    arguments = ["--timeout-head-s", "1", "--timeout-body-s", "1"]
    with balancer(*replicas, arguments=arguments) as front:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n"
        assert asyncio.run(converse(front.port, head))[0] == 408
        body = head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        assert asyncio.run(converse(front.port, body))[0] == 408
        assert json.loads(get(f"{front.admin}/state"))["process"]["buffer_bytes"] == 0


def test_a_browser_may_read_refusals_and_preflights_of_the_origin_that_is_let_in(
    replicas: list[str],
) -> None:
    preflight = b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: test\r\nOrigin: https://app.test\r\n\r\n"
    unknown = b"GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n"
    malformed = b"GET /v1/models HTTP/1.1\r\n\r\n"
    model = request(chat("hello", model="another"))
    with balancer(*replicas, arguments=["--cors-origin", "https://app.test"]) as front:
        for data, status in ((preflight, 204), (unknown, 404), (malformed, 400), (model, 404)):
            answer = asyncio.run(ask(front.port, data))
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == "https://app.test"
