"""What goes wrong in each phase of a request, without sockets."""

from collections.abc import Awaitable, Callable

import pytest

from skylb.data.failures import SHUTTING_DOWN
from skylb.data.giveup import give_up
from tests.support.dataplane import (
    END,
    STREAM_HEAD,
    Wire,
    World,
    answer,
    chat,
    chunk,
    event,
    plays,
    post,
    settle,
    until,
)

ERROR_EVENT = b'data: {"error":{"message":'

# ------------------------------------------------------------------------------ retries


@pytest.mark.parametrize(
    ("fails", "outcome"),
    [
        (lambda wire: wire.reset(), "reset"),
        (lambda wire: wire.finish(), "reset"),
        (lambda wire: wire.feed(b"SSH-2.0\r\n"), "bad_response"),
        (lambda wire: wire.feed(answer(500)), "status"),
        (lambda wire: wire.feed(answer(503)), "full"),
        (lambda wire: wire.feed(answer(429)), "limited"),
        (lambda wire: wire.feed(STREAM_HEAD + event('{"error":{"code":500}}')), "status"),
    ],
)
def test_an_attempt_that_fails_before_its_first_byte_is_made_elsewhere(
    fails: Callable[[Wire], None], outcome: str
) -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        first = await world.sent()
        fails(first)
        second = await world.sent()
        assert second is not first
        assert client.written == b""
        second.feed(STREAM_HEAD + event("1") + END)
        assert world.calls() == ["submit", f"retry {outcome}", "first_byte", "complete ok"]
        assert world.attempts() == {outcome: 1, "ok": 1}
        assert client.written.endswith(event("1") + END)
        await settle()
        assert first.ended
        # A replica that has not begun the request costs no attempt.
        assert world.log()[0]["attempts"] == (1 if outcome in {"full", "limited"} else 2)

    plays(test, replicas=2)


def test_a_replica_that_refuses_connections_is_passed_over() -> None:
    async def test(world: World) -> None:
        world.pool.refuses = {1, 2}
        client = world.client()
        client.feed(chat())
        replica = await world.sent()
        assert replica.protocol.upstream_id == 3  # type: ignore[attr-defined]  # a Connection
        replica.feed(answer())
        found = world.attempts()
        assert found["ok"] == 1
        assert 1 <= found["connect"] <= 2
        assert world.log()[0]["attempts"] == 1, "nobody was there: no attempt"

    plays(test, replicas=3)


def test_a_connection_that_does_not_come_about_in_time_is_a_failure() -> None:
    async def test(world: World) -> None:
        world.pool.silent = {1}
        client = world.client()
        client.feed(chat())
        await until(lambda: bool(client.written))
        assert client.written.startswith(b"HTTP/1.1 50")
        assert world.attempts()["connect"] >= 1
        assert world.log()[0]["total_s"] >= 1.5

    plays(test, attempts_max=1)


def test_where_nobody_else_can_answer_the_replicas_own_error_is_passed_on() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat())
        replica = await world.sent()
        replica.feed(answer(500, b'{"error":"mine"}'))
        assert client.written.startswith(b"HTTP/1.1 500 ")
        assert client.written.endswith(b'{"error":"mine"}')
        assert world.calls() == ["submit", "retry status"]
        assert world.log()[0]["status"] == 500
        assert world.pool.idle_len_of(1) == 1

    plays(test, attempts_max=1)


def test_a_request_that_may_not_be_sent_twice_is_not() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(post("/v1/responses", {"model": "m", "input": "hi", "store": True}))
        (await world.sent()).reset()
        await settle()
        assert client.written.startswith(b"HTTP/1.1 502 ")
        assert len(world.pool.wires) == 1

    plays(test, replicas=2)


def test_a_connection_that_died_while_it_waited_costs_no_attempt() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat())
        (await world.sent()).feed(answer())
        client.feed(chat())
        first = await world.sent()
        first.reset()
        await settle()
        again = await world.sent()
        assert again is not first
        again.feed(answer())
        assert world.calls() == ["submit", "first_byte", "complete ok"] * 2
        assert world.attempts() == {"ok": 2, "stale": 1}
        assert [line["attempts"] for line in world.log()] == [1, 1]

    plays(test)


def test_a_replica_that_goes_down_loses_the_requests_that_have_no_first_byte() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        first = await world.sent()
        at = first.protocol.upstream_id  # type: ignore[attr-defined]  # a Connection
        world.down(at)
        second = await world.sent()
        assert second is not first
        await settle()
        assert first.ended == "aborted"
        second.feed(STREAM_HEAD + event("1") + END)
        assert world.calls() == ["submit", "retry withdrawn", "first_byte", "complete ok"]
        assert world.attempts() == {"withdrawn": 1, "ok": 1}

    plays(test, replicas=2)


# --------------------------------------------------------------------- behind the first byte


def test_a_stream_that_breaks_ends_with_one_error_event_behind_a_whole_one() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        replica = await world.sent()
        replica.feed(STREAM_HEAD + event("1") + chunk(b"data: 2"))
        client.taken()
        replica.reset()
        await settle()
        assert ERROR_EVENT in client.written
        assert b"data: 2" not in client.written
        assert client.written.endswith(END)
        assert world.calls() == ["submit", "first_byte", "complete failed"]
        assert world.log()[0]["error_code"] == "upstream_reset"

    plays(test, replicas=2)


def test_any_other_answer_that_breaks_is_cut_and_not_made_to_look_whole() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat())
        replica = await world.sent()
        replica.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        assert client.written.endswith(b"\r\n\r\nabc")
        replica.finish()
        await settle()
        assert client.written.endswith(b"\r\n\r\nabc")
        assert client.ended == "aborted"
        assert world.calls() == ["submit", "first_byte", "complete failed"]

    plays(test)


def test_a_stream_that_says_nothing_for_too_long_is_ended() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        (await world.sent()).feed(STREAM_HEAD + event("1"))
        await until(lambda: ERROR_EVENT in client.written)
        (line,) = world.log()
        assert line["error_code"] == "upstream_timeout"
        assert 20 < line["total_s"] < 21

    plays(test, timeouts={"stream_idle_s": 20.0, "stream_keep_alive_s": 0.0})


def test_a_first_byte_that_does_not_come_is_asked_for_elsewhere() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        first = await world.sent()
        await until(lambda: len(world.pool.wires) == 2)
        second = await world.sent()
        second.feed(STREAM_HEAD + event("1") + END)
        await settle()
        assert first.ended == "aborted"
        assert world.attempts() == {"timeout": 1, "ok": 1}
        assert 5 < world.log()[0]["ttft_s"] < 6

    plays(test, replicas=2, timeouts={"first_byte_s": 5.0})


# ------------------------------------------------------------------------------ the hold


def test_a_request_waits_for_room_and_goes_when_another_ends() -> None:
    async def test(world: World) -> None:
        first, second = world.client(), world.client()
        first.feed(chat(text="first"))
        replica = await world.sent()
        second.feed(chat(text="second"))
        await settle()
        assert (len(world.pool.wires), world.engine.hold_requests) == (1, 1)
        world.clock.advance(0.5)
        replica.taken()
        replica.feed(answer())
        assert b"second" in (await world.sent()).written
        replica.feed(answer())
        assert [line["held_s"] for line in world.log()] == [0.0, 0.5]
        assert second.written.startswith(b"HTTP/1.1 200 ")

    plays(test, at_once=1)


def test_a_replica_is_not_read_for_a_client_that_takes_nothing_already() -> None:
    async def test(world: World) -> None:
        first, second = world.client(), world.client()
        first.feed(chat())
        replica = await world.sent()
        second.feed(chat())
        second.protocol.pause_writing()
        replica.taken()
        replica.feed(answer())
        await world.sent()
        assert not replica.reading
        second.take_all()
        assert replica.reading
        replica.feed(answer())

    plays(test, at_once=1)


def test_the_hold_ends_with_503_and_when_to_come_back() -> None:
    async def test(world: World) -> None:
        first, second = world.client(), world.client()
        first.feed(chat())
        replica = await world.sent()
        second.feed(chat())
        await until(lambda: bool(second.written))
        assert second.written.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in second.written
        assert b'"code":"hold_timeout"' in second.written
        (line,) = world.log()
        assert 3 <= line["held_s"] < 3.5
        replica.feed(answer())

    plays(test, at_once=1, hold_timeout_s=3.0)


def test_a_held_stream_begins_before_its_time_is_over_and_its_refusal_is_an_event() -> None:
    async def test(world: World) -> None:
        first, second = world.client(), world.client()
        first.feed(chat())
        replica = await world.sent()
        second.feed(chat(stream=True))
        await until(lambda: bool(second.written))
        assert second.taken().startswith(b"HTTP/1.1 200 OK\r\n")
        await until(lambda: bool(second.written))
        assert second.taken() == chunk(b": keep-alive\n\n")
        await until(lambda: ERROR_EVENT in second.written)
        assert b'"code":"hold_timeout"' in second.written
        assert second.written.endswith(END)
        (line,) = world.log()
        assert (line["status"], line["error_code"]) == (200, "hold_timeout")
        replica.feed(answer())

    plays(test, at_once=1, hold_timeout_s=20.0, timeouts={"stream_keep_alive_s": 2.0})


# ---------------------------------------------------------------------- the client leaves


async def body_comes(world: World, client: Wire) -> None:
    client.feed(chat()[:-3])


async def held(world: World, client: Wire) -> None:
    other = world.client()
    other.feed(chat())
    await world.sent()
    client.feed(chat())
    await settle()
    assert world.engine.hold_requests == 1
    other.finish()  # whoever stands before it leaves as well, behind it


async def connecting(world: World, client: Wire) -> None:
    world.pool.silent = {1}
    client.feed(chat())
    await settle()


async def sent(world: World, client: Wire) -> None:
    client.feed(chat())
    await world.sent()


async def relayed(world: World, client: Wire) -> None:
    client.feed(chat(stream=True))
    (await world.sent()).feed(STREAM_HEAD + event("1"))


async def large_body_is_read(world: World, client: Wire) -> None:
    client.feed(chat(text="x" * 400_000))


@pytest.mark.parametrize("how", [Wire.finish, Wire.reset], ids=["fin", "rst"])
@pytest.mark.parametrize(
    "phase",
    [body_comes, large_body_is_read, connecting, sent, relayed, held],
    ids=lambda phase: phase.__name__,
)
def test_a_client_that_leaves_takes_its_request_along(
    phase: Callable[[World, Wire], Awaitable[None]], how: Callable[[Wire], None]
) -> None:
    async def test(world: World) -> None:
        client = world.client()
        await phase(world, client)
        written = client.written
        how(client)
        await settle()
        assert client.written == written, "nobody reads it"
        assert all(wire.ended == "aborted" for wire in world.pool.wires)
        left = [line for line in world.log() if line["status"] == 499]
        assert len(left) == (0 if phase is body_comes else 2 if phase is held else 1)

    plays(test, at_once=1)


def test_a_client_that_takes_nothing_for_too_long_is_cut() -> None:
    async def test(world: World) -> None:
        client = world.client()
        client.feed(chat(stream=True))
        replica = await world.sent()
        client.takes = False
        replica.feed(STREAM_HEAD + event("x" * 40_000))
        await until(lambda: bool(client.ended and replica.ended))
        assert (client.ended, replica.ended) == ("aborted", "aborted")
        assert world.log()[0]["error_code"] == "client_left"

    plays(test, timeouts={"write_stall_s": 5.0})


# -------------------------------------------------------------------------------- the end


def test_at_the_end_streams_end_with_an_event_and_others_are_told_to_come_again() -> None:
    async def test(world: World) -> None:
        stream, unary, waiting = world.client(), world.client(), world.client()
        stream.feed(chat(stream=True))
        (await world.sent()).feed(STREAM_HEAD + event("1"))
        unary.feed(chat())
        await world.sent()
        waiting.feed(chat())
        await settle()
        assert world.engine.hold_requests == 1
        for client in (waiting, unary, stream):
            give_up(client.protocol.exchange, *SHUTTING_DOWN)  # type: ignore[attr-defined]  # a ClientConnection
        assert ERROR_EVENT in stream.written
        assert stream.written.endswith(END)
        for client in (unary, waiting):
            assert client.written.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in client.written
        await settle()
        assert all(wire.ended == "aborted" for wire in world.pool.wires)

    plays(test, at_once=2)
