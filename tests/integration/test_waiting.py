"""What a client hears while its request waits: the beginning of its stream, and comments."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anthropic
import openai
import pytest

from skylb._core import ResponseReader
from tests.integration.test_contract import HEAD, Script, Scripted, chunk, plain, run
from tests.support.processes import Balancer, eventually
from tests.support.raw import Answer, Connection, ask, chat, request, until
from tests.support.regions import regions

COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
SOON = ("--timeout-stream-keep-alive-s", "0.3", "--timeout-stream-commit-s", "0")
"""Comments so often that a test need not wait for them."""

FOREVER_S = 60.0
"""Longer than any test waits."""


def streamed(text: str = "x") -> bytes:
    """A streamed chat."""
    return request(chat(text, stream=True))


async def end(writer: asyncio.StreamWriter, *events: bytes) -> None:
    """The last events of a stream."""
    writer.write(b"".join(map(chunk, events)) + b"0\r\n\r\n")


class Gate:
    """Lets a script go on when the test says so."""

    def __init__(self) -> None:
        self.passed = asyncio.Event()

    def after(self, *before: bytes, then: tuple[bytes, ...] = (b"data: {}\n\n", DONE)) -> Script:
        """A stream that waits behind its first bytes."""

        async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD + b"".join(map(chunk, before)))
            await self.passed.wait()
            await end(writer, *then)

        return script


async def read_until(connection: Connection, wanted: Callable[[bytes], bool]) -> bytes:
    """Reads until what was read is as wanted."""
    seen = b""
    async with asyncio.timeout(FOREVER_S):
        while not wanted(seen):
            part = await connection.reader.read(65536)
            assert part, f"the connection ended behind {seen!r}"
            seen += part
    return seen


async def watch(front: Balancer, wanted: Callable[[bytes], bool], gate: Gate, data: bytes = b"") -> bytes:
    """One stream: all its bytes. The gate opens when the client has seen what is wanted."""
    connection = await Connection.open(front.port)
    connection.writer.write(data or streamed())
    seen = await read_until(connection, wanted)
    gate.passed.set()
    if not seen.endswith(b"0\r\n\r\n"):
        seen += await read_until(connection, lambda rest: rest.endswith(b"0\r\n\r\n"))
    await connection.close()
    return seen


def body_of(seen: bytes) -> bytes:
    """The body of a whole response."""
    reader = ResponseReader()
    body = reader.feed(seen)
    assert reader.done, seen
    return body


# ------------------------------------------------------------------------------- comments


def test_an_engines_comments_before_the_first_token_are_passed_on() -> None:
    async def work(gate: Gate, front: Balancer) -> bytes:
        return await watch(front, lambda seen: b": engine\n\n" in seen, gate)

    async def main() -> bytes:
        gate = Gate()
        replica = Scripted(gate.after(b": engine\n\n"))
        return bytes(await run([replica], partial(work, gate), "--timeout-stream-commit-s", "0.1"))

    seen = asyncio.run(main())
    assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
    assert seen.count(b"HTTP/1.1") == 1
    assert seen.index(b": engine") < seen.index(b"data: {}") < seen.index(b"data: [DONE]")


def test_a_head_and_comments_are_withheld_until_the_client_has_waited() -> None:
    async def dies(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(COMMENT))
        await writer.drain()
        writer.transport.abort()

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, streamed())

    answer = asyncio.run(run([Scripted(dies)], work, "--engine-attempts-max", "1"))
    assert answer.status == 502


def test_a_replica_that_dies_behind_its_comments_is_replaced_within_the_same_stream() -> None:
    async def main() -> bytes:
        gate = Gate()

        async def dies(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD + chunk(b": engine\n\n"))
            await gate.passed.wait()
            writer.transport.abort()

        async def whole(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD)
            await end(writer, b"data: {}\n\n", DONE)

        scripts = iter([dies, whole])  # whichever replica is asked first

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await next(scripts)(reader, writer)

        async def work(front: Balancer) -> bytes:
            return await watch(front, lambda seen: b": engine" in seen, gate)

        return bytes(await run([Scripted(script), Scripted(script)], work, *SOON))

    seen = asyncio.run(main())
    assert seen.count(b"HTTP/1.1") == 1
    assert body_of(seen).replace(COMMENT, b"") == b": engine\n\ndata: {}\n\n" + DONE


def test_a_stream_that_has_begun_and_fails_for_good_ends_with_one_error_event() -> None:
    async def main() -> Answer:
        gate = Gate()

        async def dies(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD + chunk(COMMENT))
            await gate.passed.wait()
            writer.transport.abort()

        async def work(front: Balancer) -> Answer:
            connection = await Connection.open(front.port)
            connection.writer.write(streamed())
            seen = await read_until(connection, lambda seen: COMMENT in seen)
            gate.passed.set()
            seen += await read_until(connection, lambda seen: seen.endswith(b"0\r\n\r\n"))
            await connection.close()
            line = await asyncio.to_thread(
                eventually, lambda: front.log()[0] if front.log() else None, what="a line"
            )
            assert (line["status"], line["error_code"]) == (200, "upstream_reset")
            return Answer(body=seen)

        answer: Answer = await run([Scripted(dies)], work, *SOON, "--engine-attempts-max", "1")
        return answer

    answer = asyncio.run(main())
    assert answer.body.count(b'{"error"') == 1
    assert answer.done_events == 0


def test_an_answer_that_is_no_stream_is_told_in_the_stream_that_has_begun() -> None:
    async def main() -> bytes:
        gate = Gate()

        async def refuses(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.passed.wait()
            body = b'{"error":{"message":"the prompt is too long","type":"BadRequestError","code":400}}'
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        async def work(front: Balancer) -> bytes:
            return await watch(front, lambda seen: COMMENT in seen, gate)

        return bytes(await run([Scripted(refuses)], work, *SOON))

    seen = asyncio.run(main())
    assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"the prompt is too long" in seen
    assert seen.count(b'{"error"') == 1


def test_a_held_stream_hears_comments_and_then_its_answer() -> None:
    arguments = ["--engine-push", "outstanding", "--engine-outstanding-max", "1", *SOON]

    async def main() -> tuple[bytes, bytes]:
        gates = [Gate(), Gate()]
        gates[1].passed.set()
        scripts = iter([gates[0].after(b"data: first\n\n"), gates[1].after()])

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await next(scripts)(reader, writer)

        async def work(front: Balancer) -> tuple[bytes, bytes]:
            first = await Connection.open(front.port)
            first.writer.write(streamed())
            seen = await read_until(first, lambda seen: b"data: first" in seen)
            held = await watch(front, lambda seen: seen.count(COMMENT) >= 2, gates[0])
            seen += await read_until(first, lambda seen: seen.endswith(b"0\r\n\r\n"))
            await first.close()
            return seen, held

        found: tuple[bytes, bytes] = await run([Scripted(script)], work, *arguments)
        return found

    _, held = asyncio.run(main())
    assert held.startswith(b"HTTP/1.1 200 OK\r\n")
    assert held.count(b"HTTP/1.1") == 1
    assert body_of(held).replace(COMMENT, b"") == b"data: {}\n\n" + DONE


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", b'data: {"error":{"message":'),
        ("/v1/messages", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"'),
        ("/v1/responses", b'event: error\ndata: {"type":"error","code":"hold_timeout"'),
    ],
)
def test_a_held_stream_that_has_begun_is_refused_in_an_event(path: str, shape: bytes) -> None:
    arguments = ["--engine-push", "outstanding", "--engine-outstanding-max", "1", "--hold-timeout-s", "3"]

    async def main() -> tuple[bytes, bytes]:
        gate = Gate()

        async def work(front: Balancer) -> tuple[bytes, bytes]:
            first = await Connection.open(front.port)
            first.writer.write(streamed())
            await read_until(first, lambda seen: b"data: first" in seen)
            body = {
                "model": "mock",
                "messages": [{"role": "user", "content": "x"}],
                "input": "x",
                "max_tokens": 4,
            }
            connection = await Connection.open(front.port)
            connection.writer.write(request({**body, "stream": True}, path=path))
            seen = await read_until(connection, lambda seen: seen.endswith(b"0\r\n\r\n"))
            # The connection goes on: the end of the answer was the end of its framing.
            gate.passed.set()
            await first.close()
            await connection.close()
            return seen, b""

        replica = Scripted(gate.after(b"data: first\n\n"))
        found: tuple[bytes, bytes] = await run([replica], work, *arguments, *SOON)
        return found

    seen, _ = asyncio.run(main())
    assert COMMENT in seen
    assert seen.count(shape) == 1, seen


def test_a_silent_stream_hears_comments_between_whole_events_only() -> None:
    async def main() -> bytes:
        gate = Gate()
        script = gate.after(b"data: one\n\ndata: tw", then=(b"o\n\n", DONE))

        async def work(front: Balancer) -> bytes:
            return await watch(front, lambda seen: seen.count(COMMENT) >= 2, gate)

        return bytes(await run([Scripted(script)], work, *SOON))

    body = body_of(asyncio.run(main()))
    assert body.startswith(b"data: one\n\n" + COMMENT)
    assert body.endswith(COMMENT + b"data: two\n\n" + DONE)


def test_comments_can_be_switched_off() -> None:
    async def main() -> Answer:
        async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD + chunk(b"data: {}\n\n"))
            await asyncio.sleep(1.5)
            await end(writer, DONE)

        async def work(front: Balancer) -> Answer:
            return await ask(front.port, streamed())

        answer: Answer = await run([Scripted(slow)], work, "--timeout-stream-keep-alive-s", "0")
        return answer

    assert asyncio.run(main()).body == b"data: {}\n\n" + DONE


def test_a_client_of_http_1_0_hears_comments_too() -> None:
    async def main() -> bytes:
        gate = Gate()

        async def work(front: Balancer) -> bytes:
            connection = await Connection.open(front.port)
            connection.writer.write(streamed().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
            seen = await read_until(connection, lambda seen: seen.count(COMMENT) >= 2)
            gate.passed.set()
            seen += await connection.reader.read(-1)
            await connection.close()
            return seen

        return bytes(await run([Scripted(gate.after())], work, *SOON))

    head, _, body = asyncio.run(main()).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert body.replace(COMMENT, b"") == b"data: {}\n\n" + DONE


def test_a_request_that_asks_for_no_stream_hears_nothing_before_its_answer() -> None:
    async def main() -> Answer:
        async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(2)
            writer.write(plain(b'{"ok": true}'))

        async def work(front: Balancer) -> Answer:
            return await ask(front.port, request(chat("x")))

        answer: Answer = await run([Scripted(slow)], work, *SOON)
        return answer

    answer = asyncio.run(main())
    assert (answer.status, answer.body) == (200, b'{"ok": true}')


@pytest.mark.parametrize(
    "slow",
    [
        ("--profile", "l4-8b", "--fault-slow-head-ms", "4000"),
        ("--profile", "l4-8b", "--time-scale", "30", "--fault-comment-ms", "200"),
    ],
    ids=["of the balancer", "of the engine"],
)
def test_comments_reach_the_client_over_a_forward(slow: Sequence[str]) -> None:
    with regions("us", "eu", mock=slow, arguments=SOON) as two:
        us = two["us"]
        us.verb("/regions/us/evacuate")

        def forwarded() -> Answer | None:
            answer = asyncio.run(ask(us.front.port, streamed()))
            line = eventually(lambda: us.front.log()[-1] if us.front.log() else None, what="a line")
            return answer if line["peer"] == "eu" else None

        answer = eventually(forwarded, what="a stream that is forwarded")
        assert answer.status == 200
        assert COMMENT in answer.body
        assert answer.done_events == 1


# ------------------------------------------------------------------------------------ who waits


def test_one_credential_holds_a_quarter_and_the_rest_is_left_to_others() -> None:
    arguments = ["--engine-push", "outstanding", "--engine-outstanding-max", "1", "--hold-len-max", "16"]

    def of(key: str, index: int) -> bytes:
        headers = (f"Authorization: Bearer {key}",)
        return request(chat(f"{key} {index}", stream=True), headers=headers)

    async def main() -> Counter[int]:
        gate = Gate()

        async def work(front: Balancer) -> Counter[int]:
            first = await Connection.open(front.port)
            first.writer.write(of("a", 0))
            await read_until(first, lambda seen: b"data: first" in seen)
            flood = [asyncio.ensure_future(ask(front.port, of("a", index))) for index in range(1, 13)]
            await until(lambda: sum(asked.done() for asked in flood) == 8)
            other = asyncio.ensure_future(ask(front.port, of("b", 0)))
            held = partial(front.metric, "skylb_hold_requests")
            await asyncio.to_thread(eventually, lambda: held() == 5, what="the other one is held")
            gate.passed.set()
            await read_until(first, lambda seen: seen.endswith(b"0\r\n\r\n"))
            await first.close()
            assert (await other).status == 200
            return Counter([answer.status for answer in await asyncio.gather(*flood)])

        found: Counter[int] = await run([Scripted(gate.after(b"data: first\n\n"))], work, *arguments)
        return found

    assert asyncio.run(main()) == {429: 8, 200: 4}


# -------------------------------------------------------------------------------- client libraries


def _events(api: str) -> tuple[bytes, ...]:
    if api == "anthropic":
        return (
            (
                b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
                b'"role":"assistant","model":"mock","content":[],"stop_reason":null,"stop_sequence":null,'
                b'"usage":{"input_tokens":1,"output_tokens":0}}}\n\n'
            ),
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        )
    if api == "responses":
        return (
            (
                b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi",'
                b'"item_id":"i","output_index":0,"content_index":0,"logprobs":[],"sequence_number":4}\n\n'
            ),
        )
    return (
        (
            b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"mock",'
            b'"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
        ),
        DONE,
    )


def _asked(api: str, url: str) -> list[Any]:
    """What a client library makes of a stream."""
    if api == "anthropic":
        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as claude:
            return list(
                claude.messages.create(
                    model="mock", max_tokens=4, messages=[{"role": "user", "content": "x"}], stream=True
                )
            )
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        if api == "responses":
            return list(client.responses.create(model="mock", input="x", store=False, stream=True))
        return list(
            client.chat.completions.create(
                model="mock", messages=[{"role": "user", "content": "x"}], stream=True
            )
        )


@pytest.mark.parametrize("api", ["chat", "anthropic", "responses"])
def test_client_libraries_pass_over_comments(api: str) -> None:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *rest = _events(api)
        writer.write(HEAD)
        await asyncio.sleep(1)
        writer.write(chunk(first))
        await asyncio.sleep(1)
        await end(writer, *rest)

    async def work(front: Balancer) -> list[Any]:
        return await asyncio.to_thread(_asked, api, front.url)

    events = asyncio.run(run([Scripted(script)], work, *SOON))
    assert len(events) == (2 if api == "anthropic" else 1)


def test_the_openai_library_reads_the_error_event_of_a_cut_response() -> None:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(_events("responses")[0]))
        await writer.drain()
        writer.transport.abort()

    async def work(front: Balancer) -> list[Any]:
        return await asyncio.to_thread(_asked, "responses", front.url)

    *_, error = asyncio.run(run([Scripted(script)], work))
    assert (error.type, error.code, error.sequence_number) == ("error", "upstream_reset", 5)
    assert error.message
