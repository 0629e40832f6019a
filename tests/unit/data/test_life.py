"""The life of a request without sockets: bytes in; writes, and calls of the router, out."""

import pytest

from tests.support.dataplane import END, STREAM_HEAD, World, answer, chat, chunk, event, plays, settle


def test_a_request_goes_through_its_phases_and_leaves_one_record() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(lines="X-Request-Id: one\r\n"))
        assert world.calls() == ["submit"]
        replica = await world.sent()
        head, _, body = replica.taken().partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: r1\r\n")
        assert b"\r\nX-Forwarded-For: 192.0.2.1\r\n" in head
        assert body.startswith(b'{"model": "m"')
        assert (client.written, world.context.budget.bytes) == (b"", len(body))
        world.clock.advance(0.25)
        replica.feed(answer(body=b'{"id":"x"}'))
        assert world.calls() == ["first_byte", "complete ok"]
        head, _, body = client.taken().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 S\r\n")
        assert (b"\r\nX-Request-Id: one" in head, body) == (True, b'{"id":"x"}')
        (line,) = world.log()
        assert (line["request_id"], line["status"], line["replica"], line["attempts"]) == (
            "one",
            200,
            "http://r1",
            1,
        )
        assert (line["ttft_s"], line["total_s"], line["bytes_out"]) == (0.25, 0.25, 10)
        assert world.attempts() == {"ok": 1}
        assert world.pool.idle_len_of(1) == 1

    plays(test)


def test_the_next_request_takes_the_connection_that_waits() -> None:
    async def test(world: World) -> None:
        client = world.client()
        for _ in range(3):
            client.feed(chat())
            replica = await world.sent()
            replica.taken()
            replica.feed(answer())
        assert len(world.pool.wires) == 1
        assert client.written.count(b"HTTP/1.1 200") == 3

    plays(test)


def test_a_stream_is_passed_on_event_by_event_and_half_an_event_waits() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        replica = await world.sent()
        replica.feed(STREAM_HEAD)
        assert (client.written, world.calls()) == (b"", ["submit"])
        replica.feed(event("1"))
        assert world.calls() == ["first_byte"]
        assert client.taken().endswith(b"\r\n\r\n" + event("1"))
        replica.feed(event("2"))
        assert client.taken() == event("2")
        replica.feed(chunk(b"data: 3"))
        assert client.taken() == b""
        replica.feed(chunk(b"\n\n") + END)
        assert client.taken() == event("3") + END
        assert world.calls() == ["complete ok"]

    plays(test)


def test_requests_that_come_too_early_are_taken_one_behind_the_other() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(text="first") + chat(text="second"))
        replica = await world.sent()
        assert (b"first" in replica.written, b"second" in replica.taken()) == (True, False)
        replica.feed(answer(body=b"1"))
        assert client.taken().endswith(b"\r\n\r\n1")
        replica = await world.sent()
        assert b"second" in replica.taken()
        replica.feed(answer(body=b"2"))
        assert client.taken().endswith(b"\r\n\r\n2")
        assert world.calls() == ["submit", "first_byte", "complete ok"] * 2

    plays(test)


def test_a_body_comes_in_parts_or_in_chunks_whose_trailers_are_dropped() -> None:
    async def test(world: World) -> None:
        whole = chat()
        client = world.client()
        for at in range(len(whole)):
            assert world.calls() == []
            client.feed(whole[at : at + 1])
        (await world.sent()).feed(answer())
        head, _, body = whole.partition(b"\r\n\r\n")
        head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
        client.feed(head + b"\r\n\r\n" + chunk(body[:5]) + chunk(body[5:]) + b"0\r\nX-Trailer: t\r\n\r\n")
        replica = await world.sent()
        sent = replica.taken()
        assert sent.endswith(b"\r\n\r\n" + body)
        assert b"X-Trailer" not in sent
        replica.feed(answer())
        assert world.calls() == ["submit", "first_byte", "complete ok"] * 2

    plays(test)


def test_interim_answers_and_trailers_of_a_replica_are_not_passed_on() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat())
        replica = await world.sent()
        replica.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        assert (client.written, world.calls()) == (b"", ["submit"])
        replica.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc"))
        replica.feed(b"0\r\nX-Trailer: t\r\n\r\n")
        written = client.taken()
        assert written.endswith(b"\r\n\r\n" + chunk(b"abc") + END)
        assert b"103" not in written
        assert b"X-Trailer" not in written
        assert world.pool.idle_len_of(1) == 1

    plays(test)


def test_a_client_that_takes_nothing_stops_its_replica_and_starts_it_again() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        replica = await world.sent()
        client.takes = False
        replica.feed(STREAM_HEAD + event("x" * 40_000))
        assert not replica.reading
        client.take_all()
        assert replica.reading
        replica.feed(event("2") + END)
        assert client.written.endswith(event("2") + END)

    plays(test)


def test_usage_that_only_we_have_asked_for_is_asked_and_taken_out_again() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        replica = await world.sent()
        assert b'"include_usage"' in replica.written
        usage = '{"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":9}}'
        replica.feed(STREAM_HEAD + event('{"choices":[{}]}') + event(usage) + END)
        assert b"usage" not in client.written
        assert world.engine.gauges()[0].prompt_tokens_total == 40

    plays(test, inject_usage=True)


def test_a_large_body_is_read_beside_the_loop_and_sent_as_it_came() -> None:
    async def test(world: World) -> None:
        client = world.client()
        whole = chat(text="x" * 400_000)
        client.feed(whole)
        assert world.calls() == []
        replica = await world.sent()
        assert replica.taken().endswith(whole.partition(b"\r\n\r\n")[2])
        replica.feed(answer())
        assert world.calls() == ["submit", "first_byte", "complete ok"]
        assert world.log()[0]["bytes_in"] == len(whole.partition(b"\r\n\r\n")[2])

    plays(test)


@pytest.mark.parametrize(
    ("wire", "status", "code"),
    [
        (chat(text="x" * 3000), 413, "body_too_large"),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 17_000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET /made/up HTTP/1.1\r\nHost: a\r\n\r\n", 404, "unknown_path"),
        (chat(model="other"), 404, "model_not_found"),
        (chat().replace(b'{"model"', b'["model"'), 400, "invalid_json"),
        (chat().replace(b"POST", b"GET", 1), 405, "method_not_allowed"),
        (chat().replace(b"application/json", b"text/plain"), 415, ""),
    ],
)
def test_what_is_refused_reaches_no_replica(wire: bytes, status: int, code: str) -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(wire)
        await settle()
        assert client.written.startswith(b"HTTP/1.1 %d " % status), client.written
        assert f'"code":"{code}'.encode() in client.written
        assert world.pool.wires == []
        assert world.log()[0]["status"] == status

    plays(test, body_bytes_max=2000)


def test_short_memory_refuses_the_second_request_and_not_the_first() -> None:
    async def test(world: World) -> None:
        first, second = world.client(), world.client()
        first.feed(chat(text="x" * 600))
        second.feed(chat(text="x" * 600))
        assert second.written.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"overloaded"' in second.written
        (await world.sent()).feed(answer())
        assert first.written.startswith(b"HTTP/1.1 200 ")

    plays(test, budget_bytes=1000)


def test_an_answer_on_a_connection_that_closes_says_so() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(lines="Connection: close\r\n"))
        (await world.sent()).feed(answer())
        assert b"\r\nConnection: close\r\n" in client.written
        assert client.ended == "closed"

    plays(test)
