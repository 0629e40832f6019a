"""How long a replica may take, and what a stream that begins with an error counts as."""

import asyncio

import pytest

from tests.integration.test_contract import HEAD, Script, Scripted, chunk, plain, run
from tests.integration.test_waiting import COMMENT, DONE, FOREVER_S, SOON, end, streamed
from tests.support.processes import Balancer, eventually, sample_sum
from tests.support.raw import Answer, ask, chat, request

# -------------------------------------------------------------------------------------- limits


def test_an_answer_that_stalls_behind_its_first_byte_is_cut() -> None:
    async def stall(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        await asyncio.sleep(FOREVER_S)

    async def work(front: Balancer) -> Answer:
        answer = await asyncio.wait_for(ask(front.port, request(chat("x"))), FOREVER_S / 2)
        line = await asyncio.to_thread(
            eventually, lambda: front.log()[0] if front.log() else None, what="a line"
        )
        assert line["error_code"] == "upstream_timeout"
        return answer

    answer = asyncio.run(run([Scripted(stall)], work, "--timeout-stream-idle-s", "1"))
    assert not answer.complete


def test_an_answer_that_is_no_stream_has_a_limit_of_its_own_and_is_not_run_twice() -> None:
    async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(FOREVER_S)

    replicas = [Scripted(never), Scripted(never)]

    async def work(front: Balancer) -> Answer:
        return await asyncio.wait_for(ask(front.port, request(chat("x"))), FOREVER_S / 2)

    answer = asyncio.run(run(replicas, work, "--timeout-answer-s", "1"))
    assert answer.status == 504
    assert sum(len(replica.requests) for replica in replicas) == 1


def test_an_answer_that_is_no_stream_does_not_count_against_the_limit_of_a_first_event() -> None:
    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2)
        writer.write(plain(b'{"ok": true}'))

    replica = Scripted(slow)

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, request(chat("x")))

    answer = asyncio.run(run([replica], work, "--timeout-first-byte-s", "0.5"))
    assert (answer.status, len(replica.requests)) == (200, 1)


def test_comments_do_not_put_off_the_limit_of_the_first_event() -> None:
    async def talks(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(chunk(COMMENT))
            await asyncio.sleep(0.1)

    async def work(front: Balancer) -> Answer:
        return await asyncio.wait_for(ask(front.port, streamed()), FOREVER_S / 2)

    arguments = ["--timeout-first-byte-s", "1.5", "--engine-attempts-max", "1", *SOON]
    answer = asyncio.run(run([Scripted(talks)], work, *arguments))
    assert answer.error_events == 1


def test_a_gateway_timeout_of_an_answer_that_is_no_stream_is_passed_on_and_not_run_twice() -> None:
    async def times_out(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 4\r\n\r\nlate")

    replicas = [Scripted(times_out), Scripted(times_out)]

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, request(chat("x")))

    answer = asyncio.run(run(replicas, work))
    assert (answer.status, answer.body) == (504, b"late")
    assert sum(len(replica.requests) for replica in replicas) == 1


# --------------------------------------------------------------------------- errors as first events

ERROR = (
    b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","param":null,"code":500}}\n\n'
)


def erring(*parts: bytes) -> Script:
    """A stream that begins with an error."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for part in parts:
            writer.write(chunk(part))
            await writer.drain()
            await asyncio.sleep(0.01)
        await end(writer, DONE)

    return script


async def _well(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await end(writer, b"data: {}\n\n", DONE)


@pytest.mark.parametrize(
    "parts",
    [
        (ERROR,),
        (b": waiting\n\n", ERROR[:20], ERROR[20:]),
        (b'data:{"object":"error",\r\ndata: "message":"m"}\r\n\r\n',),
        (b"event: error\ndata: {}\n\n",),
    ],
)
def test_an_error_as_first_event_is_a_failed_attempt_and_tried_elsewhere(parts: tuple[bytes, ...]) -> None:
    replicas = [Scripted(erring(*parts)), Scripted(_well)]

    async def work(front: Balancer) -> str:
        for index in range(4):
            answer = await ask(front.port, streamed(f"{index}"))
            assert answer.body == b"data: {}\n\n" + DONE
        return await asyncio.to_thread(front.metrics)

    page = asyncio.run(run(replicas, work))
    failed = sum(
        sample_sum(line, "skylb_attempts_total") for line in page.splitlines() if 'outcome="status"' in line
    )
    assert failed == len(replicas[0].requests) > 0


def test_the_last_error_as_first_event_is_passed_on() -> None:
    replica = Scripted(erring(ERROR))

    async def work(front: Balancer) -> Answer:
        answer = await ask(front.port, streamed())
        line = await asyncio.to_thread(
            eventually, lambda: front.log()[0] if front.log() else None, what="a line"
        )
        assert (line["status"], line["error_code"]) == (200, "upstream_error")
        return answer

    answer = asyncio.run(run([replica], work, "--engine-attempts-max", "1"))
    assert answer.body == ERROR + DONE


def test_an_error_that_is_the_requests_own_is_passed_on_and_not_run_twice() -> None:
    refused = b'data: {"error":{"message":"no","type":"BadRequestError","code":400}}\n\n'
    replicas = [Scripted(erring(refused)), Scripted(erring(refused))]

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, streamed())

    answer = asyncio.run(run(replicas, work))
    assert answer.body == refused + DONE
    assert sum(len(replica.requests) for replica in replicas) == 1


def test_a_last_event_without_its_empty_line_is_a_complete_end() -> None:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\ndata: [DONE]")
        await writer.drain()
        writer.close()

    async def work(front: Balancer) -> Answer:
        return await ask(front.port, streamed())

    answer = asyncio.run(run([Scripted(script)], work))
    assert answer.complete
    assert answer.body == b"data: {}\n\n" + DONE
