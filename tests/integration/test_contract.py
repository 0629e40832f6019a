"""The contract of a request and a stream, against replicas that misbehave on purpose."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Balancer, balancer, eventually, get, mocks, sample_sum
from tests.support.raw import Answer, Connection, ask, chat, request

pytestmark = pytest.mark.any_clock

RESPONSES = Path(__file__).parents[1] / "data" / "http_responses.json"

METRICS = (
    b'vllm:num_requests_running{engine="0",model_name="mock"} 0.0\n'
    b'vllm:num_requests_waiting{engine="0",model_name="mock"} 0.0\n'
)
MODELS = b'{"object":"list","data":[{"id":"mock","object":"model","max_model_len":4096}]}'

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def plain(body: bytes, kind: bytes = b"application/json") -> bytes:
    """A whole 200 response."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


class Scripted:
    """A replica whose inference answers follow a script; probes are answered properly."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.url = ""
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens on loopback."""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        """Closes the listener and what is still open."""
        if self.server is not None:
            self.server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, keep-alive."""
        self.writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /metrics"):
                    writer.write(plain(METRICS, b"text/plain"))
                elif head.startswith(b"GET /v1/models"):
                    writer.write(plain(MODELS))
                else:
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    self.requests.append(head + await reader.readexactly(length))
                    await self.script(reader, writer)
        writer.close()


async def serve(replicas: list[Scripted], *arguments: str) -> tuple[ExitStack, Balancer]:
    """A balancer process in front of scripted replicas of this loop."""
    for replica in replicas:
        await replica.start()
    stack = ExitStack()
    context = balancer(*(r.url for r in replicas), arguments=list(arguments))
    front = await asyncio.to_thread(stack.enter_context, context)
    return stack, front


async def run(replicas: list[Scripted], work: Callable[[Balancer], Awaitable[Any]], *arguments: str) -> Any:
    """Runs ``work`` against a balancer in front of ``replicas``."""
    stack, front = await serve(replicas, *arguments)
    try:
        result = await work(front)
        assert await asyncio.to_thread(front.metric, "skylb_replica_in_flight") == 0
        return result
    finally:
        await asyncio.to_thread(stack.close)
        for replica in replicas:
            replica.stop()


async def healthy(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers."""
    writer.write(plain(b'{"ok": true}'))


def status(code: int, text: bytes = b'{"error": {"message": "no"}}') -> Script:
    """Answers with an error status."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d Oops\r\nContent-Length: %d\r\n\r\n%b" % (code, len(text), text))

    return script


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes without a byte."""
    writer.close()


FAILING = {"500": status(500), "502": status(502), "503": status(503), "hang up": hang_up}


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_before_the_first_body_byte_is_tried_elsewhere(name: str) -> None:
    replicas = [Scripted(FAILING[name]), Scripted(healthy)]

    async def work(front: Balancer) -> None:
        # Equals are drawn: six requests in a row go past one of two replicas often enough.
        for index in range(60):
            answer = await ask(front.port, request(chat(f"{index} different prompt")))
            assert (answer.status, answer.body) == (200, b'{"ok": true}')
            if index >= 5 and replicas[0].requests:
                break

    asyncio.run(run(replicas, work))
    assert replicas[0].requests, "the failing replica was never tried: the test shows nothing"


def test_an_error_of_every_replica_is_passed_on_as_it_is() -> None:
    replicas = [Scripted(status(500, b'{"error": {"message": "engine dead"}}')) for _ in range(2)]

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, request(chat("x")))

    answer = asyncio.run(run(replicas, work))
    assert answer.status == 500
    assert b"engine dead" in answer.body
    assert sum(len(r.requests) for r in replicas) == 2


def test_full_everywhere_is_503_with_retry_after_and_no_mark_against_anyone() -> None:
    replicas = [Scripted(status(503)) for _ in range(2)]

    async def work(front: Balancer) -> Answer:
        answer = await ask(front.port, request(chat("x")))
        page = await asyncio.to_thread(front.metrics)
        assert sample_sum(page, "skylb_replica_ready") == 2
        return answer

    answer = asyncio.run(run(replicas, work))
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1


def test_a_request_with_store_is_never_sent_twice() -> None:
    replicas = [Scripted(hang_up), Scripted(hang_up)]

    async def work(front: Balancer) -> Answer:
        body = {"model": "mock", "input": "x", "store": True}
        return await ask(front.port, request(body, path="/v1/responses"))

    answer = asyncio.run(run(replicas, work))
    assert answer.status == 502
    assert sum(len(r.requests) for r in replicas) == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_a_stream_that_dies_before_its_first_whole_event_is_tried_elsewhere() -> None:
    async def head_only(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"10\r\ndata: {")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async def whole(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: {}\n\n") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    replicas = [Scripted(head_only), Scripted(whole)]

    async def work(front: Balancer) -> None:
        for index in range(4):
            answer = await ask(front.port, request(chat(f"{index}", stream=True)))
            assert answer.body == b"data: {}\n\ndata: [DONE]\n\n"

    asyncio.run(run(replicas, work))
    assert replicas[0].requests


def test_a_stream_cut_in_the_middle_of_an_event_ends_with_whole_events_and_one_error() -> None:
    async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: one\n\n") + chunk(b"data: tw"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, request(chat("x", stream=True)))

    answer = asyncio.run(run([Scripted(cut)], work))
    events = [e for e in answer.body.split(b"\n\n") if e]
    assert events[0] == b"data: one"
    assert len(events) == 2
    assert set(json.loads(events[1].removeprefix(b"data: "))["error"]) >= {"message", "type", "code"}
    assert answer.complete
    assert not answer.done_events


def test_a_silent_stream_ends_with_one_error_after_the_idle_time() -> None:
    async def stall(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: one\n\n"))
        await asyncio.sleep(30)

    async def work(front: Balancer) -> tuple[Answer, float]:
        started = time.monotonic()
        return await ask(front.port, request(chat("x", stream=True))), time.monotonic() - started

    answer, _ = asyncio.run(run([Scripted(stall)], work, "--timeout-stream-idle-s", "1"))
    assert answer.error_events == 1


def test_a_body_that_is_cut_short_never_looks_whole() -> None:
    async def short(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, request(chat("x")))

    answer = asyncio.run(run([Scripted(short)], work))
    assert not answer.complete


def test_hostile_responses_never_reach_the_client_malformed() -> None:
    rows = json.loads(RESPONSES.read_text())
    rows = [row for row in rows if row["expect"] == "failed"]
    payload = {"data": b""}

    async def hostile(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload["data"])
        await writer.drain()
        writer.close()

    async def work(front: Balancer) -> list[tuple[str, Answer]]:
        answers = []
        for row in rows:
            text: str = row["raw"]
            if fill := row.get("fill"):
                text = text.replace("@@", fill["text"] * fill["count"])
            payload["data"] = text.encode("latin-1")
            answers.append((row["name"], await ask(front.port, request(chat("x")))))
        return answers

    arguments = ["--engine-attempts-max", "1", "--engine-eject-failures", "100000"]
    answers = asyncio.run(run([Scripted(hostile)], work, *arguments))
    for name, answer in answers:
        assert answer.error is None or not answer.complete, name
        whole = answer.complete and answer.status == 200 and not answer.error_events
        assert not whole, f"{name}: looks whole: {answer}"


def test_pipelined_requests_are_answered_in_order_and_chunked_bodies_are_taken() -> None:
    with mocks(1, "--profile", "instant") as urls, balancer(*urls) as front:

        async def work() -> None:
            connection = await Connection.open(front.port)
            first = request(chat("a"), request_id="first")
            body = json.dumps(chat("b")).encode()
            second = (
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                b"X-Request-Id: second\r\nTransfer-Encoding: chunked\r\n\r\n"
                + chunk(body[:10])
                + chunk(body[10:])
                + b"0\r\n\r\n"
            )
            connection.writer.write(first + second)
            seen = b""
            while seen.count(b"HTTP/1.1 200") < 2 or not seen.endswith(b"}"):
                part = await asyncio.wait_for(connection.reader.read(65536), 10)
                assert part
                seen += part
            lowered = seen.lower()
            assert lowered.index(b"x-request-id: first") < lowered.index(b"x-request-id: second")
            await connection.close()

        asyncio.run(work())


def test_a_client_that_expects_100_gets_it_before_it_sends_the_body() -> None:
    with mocks(1, "--profile", "instant") as urls, balancer(*urls) as front:

        async def work() -> None:
            connection = await Connection.open(front.port)
            head, _, body = request(chat("a")).partition(b"\r\n\r\n")
            connection.writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
            line = await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 5)
            assert line == b"HTTP/1.1 100 Continue\r\n\r\n"
            answer = await connection.ask(body)
            assert answer.status == 200
            await connection.close()

        asyncio.run(work())


def test_what_is_held_longer_than_the_limit_is_refused_with_retry_after() -> None:
    arguments = ["--engine-push", "outstanding", "--engine-outstanding-max", "1", "--hold-timeout-s", "1"]
    with mocks(1, "--profile", "l4-8b") as urls, balancer(*urls, arguments=arguments) as front:

        async def work() -> list[Answer]:
            asks = [ask(front.port, request(chat(f"{i}", max_tokens=60))) for i in range(3)]
            return await asyncio.gather(*asks)

        statuses = sorted(answer.status for answer in asyncio.run(work()))
        assert statuses == [200, 503, 503]
        assert front.metric("skylb_hold_requests") == 0


def test_a_stuck_reader_stops_the_replica_and_takes_little_memory() -> None:
    with mocks(1, "--profile", "instant") as urls, balancer(*urls) as front:

        async def work() -> None:
            connection = await Connection.open(front.port)
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads and writes
            connection.writer.write(request(chat("x", max_tokens=200_000, stream=True)))
            before = rss(front)
            await asyncio.sleep(2)
            assert rss(front) - before < 8 << 20
            connection.abort()

        asyncio.run(work())
        eventually(lambda: front.metric("skylb_replica_in_flight") == 0, what="in flight back to 0")
        gone = "vllm:num_requests_running"
        eventually(lambda: sample_sum(get(f"{urls[0]}/metrics").decode(), gone) == 0, what="engine free")


def rss(front: Balancer) -> int:
    """Resident memory of the balancer in bytes."""
    return int(Path(f"/proc/{front.child.pid}/statm").read_text().split()[1]) * 4096
