"""One client's connection, with a transport that a test reads and stops."""

from typing import Any, cast

import pytest

from skylb.clock import monotonic_ns
from skylb.data.proxy import Exchange
from tests.support.client import CHAT, MODELS, NOWHERE, Kept, S, run, settle


@pytest.mark.parametrize("lines", [b"\r\n", b"\r", b"\r\n\r\n", b"\r\n" * 40])
def test_an_empty_line_behind_a_body_is_no_request_and_nobody_is_answered(lines: bytes) -> None:
    async def test() -> None:
        connection, transport = Kept().connect()
        connection.data_received(MODELS)
        for byte in lines:
            connection.data_received(bytes([byte]))
            await settle()
        timeouts = connection.context.limits.timeouts
        connection.sweep(monotonic_ns() + int((timeouts.head_s + 1) * S))
        assert not transport.ended, "it idles like any other"
        connection.sweep(monotonic_ns() + int((timeouts.client_idle_s + 1) * S))
        assert transport.ended == "closed"  # type: ignore[comparison-overlap]  # since the sweep
        assert transport.answers() == [(200, "keep-alive")]

    run(test())


def test_an_empty_line_behind_a_body_stands_in_nobodys_way() -> None:
    async def test() -> None:
        connection, transport = Kept().connect()
        connection.data_received(MODELS + b"\r\n\r\n" + MODELS + b"\r\n")
        await settle()
        connection.data_received(b"\r\n" + MODELS)
        await settle()
        assert transport.answers() == [(200, "keep-alive")] * 3

    run(test())


def test_a_client_that_sends_an_empty_line_and_no_more_is_closed_without_an_answer() -> None:
    async def test() -> None:
        connection, transport = Kept().connect()
        connection.data_received(b"\r\n")
        connection.sweep(monotonic_ns() + 1000 * S)
        assert (transport.ended, transport.written) == ("closed", b"")

    run(test())


def test_a_head_that_has_begun_is_answered_when_its_time_is_over() -> None:
    async def test() -> None:
        connection, transport = Kept().connect()
        connection.data_received(b"\r\nGET")
        connection.sweep(monotonic_ns() + 1000 * S)
        assert transport.answers() == [(408, "close")]

    run(test())


REFUSED: dict[str, tuple[bytes, bytes, int]] = {
    "unknown path": (NOWHERE + b"Content-Length: 500\r\n\r\n", b"x" * 500, 404),
    "wrong type": (
        CHAT.replace(b"application/json", b"text/plain") + b"Content-Length: 500\r\n\r\n",
        b"x" * 500,
        415,
    ),
    "in chunks": (
        NOWHERE + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1f4\r\n" + b"x" * 500 + b"\r\n0\r\n\r\n",
        404,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_refused_request_is_answered_at_once_and_the_next_one_behind_its_body(name: str, size: int) -> None:
    async def test() -> None:
        head, body, status = REFUSED[name]
        kept = Kept()
        connection, transport = kept.connect()
        connection.data_received(head + body[:1])
        assert transport.answers() == [(status, "keep-alive")]
        data = body[1:] + MODELS
        for at in range(0, len(data), size):
            connection.data_received(data[at : at + size])
        await settle()
        assert transport.answers() == [(status, "keep-alive"), (200, "keep-alive")]
        assert not transport.ended
        assert kept.context.budget.bytes == 0

    run(test())


TOO_LARGE = {
    "length": (CHAT + b"Content-Length: 5000\r\n\r\n", b"x" * 5000),
    "chunks": (CHAT + b"Transfer-Encoding: chunked\r\n\r\n", b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
@pytest.mark.parametrize("half_close", [True, False])
def test_a_body_that_is_too_large_is_read_to_its_end_before_the_connection_closes(
    name: str, half_close: bool
) -> None:
    async def test() -> None:
        head, body = TOO_LARGE[name]
        kept = Kept()
        connection, transport = kept.connect(half_close=half_close)
        connection.data_received(head)
        for at in range(0, len(body), 100):
            assert transport.ended == ""
            connection.data_received(body[at : at + 100])
            connection.sweep(monotonic_ns())
        assert transport.answers() == [(413, "close")]
        assert transport.ended == "closed"
        assert kept.context.budget.bytes == 0

    run(test())


@pytest.mark.parametrize("half_close", [True, False])
def test_a_refused_client_is_read_as_long_as_it_sends_and_its_time_lasts(half_close: bool) -> None:
    async def test() -> None:
        connection, transport = Kept().connect(half_close=half_close)
        connection.data_received(CHAT + b"Content-Length: 10000000000\r\n\r\n")
        now_ns = monotonic_ns()
        while not transport.is_closing():
            connection.data_received(b"x" * 4096)
            now_ns += S // 4
            connection.sweep(now_ns)
        body_s = connection.context.limits.timeouts.body_s
        assert abs((now_ns - monotonic_ns()) / S - body_s) < 2

    run(test())


def test_a_refused_client_that_sends_too_slowly_is_closed() -> None:
    async def test() -> None:
        connection, transport = Kept().connect()
        connection.data_received(CHAT + b"Content-Length: 10000000000\r\n\r\n")
        now_ns = monotonic_ns()
        for _ in range(40):
            connection.data_received(b"x" * 100)
            now_ns += S // 4
            connection.sweep(now_ns)
        assert transport.ended == "closed"

    run(test())


@pytest.mark.parametrize("half_close", [True, False])
def test_where_the_framing_is_lost_the_client_is_read_until_it_is_silent(half_close: bool) -> None:
    async def test() -> None:
        connection, transport = Kept().connect(half_close=half_close)
        connection.data_received(CHAT + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")
        assert transport.answers() == [(400, "close")]
        now_ns = monotonic_ns()
        for _ in range(80):
            assert not transport.is_closing()
            connection.data_received(b"x" * 4096)
            now_ns += S // 4
            connection.sweep(now_ns)
        for _ in range(12):
            now_ns += S // 4
            connection.sweep(now_ns)
        assert transport.ended == "closed"

    run(test())


def test_a_client_that_waits_for_100_continue_is_refused_without_one_and_need_not_send() -> None:
    async def test() -> None:
        for head in (NOWHERE + b"Content-Length: 500\r\n", CHAT + b"Content-Length: 5000\r\n"):
            connection, transport = Kept().connect()
            connection.data_received(head + b"Expect: 100-continue\r\n\r\n")
            assert [close for _, close in transport.answers()] == ["close"]
            connection.sweep(monotonic_ns() + 2 * S)
            assert transport.ended == "closed"

    run(test())


def test_short_memory_is_an_answer_and_the_rest_of_the_body_is_read() -> None:
    async def test() -> None:
        kept = Kept()
        kept.context.budget.take(1 << 24)
        connection, transport = kept.connect()
        connection.data_received(CHAT + b"Content-Length: 900\r\n\r\n" + b"x" * 100)
        assert transport.answers() == [(503, "close")]
        connection.data_received(b"x" * 799)
        assert transport.ended == ""
        connection.data_received(b"x")
        assert transport.ended == "closed"
        assert kept.context.budget.bytes == 1 << 24

    run(test())


def test_nothing_is_begun_for_a_client_that_takes_no_answers() -> None:
    async def test() -> None:
        kept = Kept()
        connection, transport = kept.connect()
        transport.takes = False
        total = 1500
        data = MODELS.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"x" * 900 + b"\r\n\r\n") * total
        sent, step = 0, 1 << 15
        while transport.reading and sent < len(data):
            connection.data_received(data[sent : sent + step])
            sent += step
            await settle()
        assert sent < len(data) / 2, "reading stops"
        begun = len(transport.answers())
        assert transport.waiting < transport.high + 1000
        await settle()
        assert len(transport.answers()) == begun
        assert kept.context.budget.bytes >= transport.waiting, "what waits is charged"
        transport.take_all()
        while kept.context.budget.bytes or sent < len(data):
            if transport.reading and sent < len(data):
                connection.data_received(data[sent : sent + step])
                sent += step
            await settle()
        assert len(transport.answers()) == total
        assert kept.context.budget.bytes == 0

    run(test())


def test_an_answer_of_our_own_is_not_made_where_there_is_no_memory_for_it() -> None:
    async def test() -> None:
        kept = Kept()
        kept.context.budget.owe(1 << 24)
        connection, transport = kept.connect()
        connection.data_received(MODELS)
        assert transport.answers() == [(503, "keep-alive")]

    run(test())


def test_a_client_that_takes_nothing_for_too_long_is_cut_with_all_that_waits() -> None:
    async def test() -> None:
        kept = Kept()
        connection, transport = kept.connect()
        transport.takes = False
        connection.data_received(MODELS * 1000)
        await settle()
        assert len(transport.answers()) < 1000
        connection.sweep(monotonic_ns() + int((kept.context.limits.timeouts.write_stall_s + 1) * S))
        assert transport.ended == "aborted"
        connection.connection_lost(None)
        assert kept.context.budget.bytes == 0

    run(test())


def test_no_body_is_kept_while_the_client_takes_no_answers() -> None:
    async def test() -> None:
        kept = Kept()
        connection, transport = kept.connect()
        transport.takes, transport.high = False, 10
        head = NOWHERE.replace(b"nowhere", b"v1/completions") + b"Content-Length: 900\r\n\r\n"
        connection.data_received(MODELS + head + b"x" * 100)
        await settle()
        assert connection.body is None
        connection.sweep(monotonic_ns() + 50 * S)  # its own limits count from when it is read
        assert len(transport.answers()) == 1
        transport.take_all()
        await settle()
        assert cast(Any, connection.body).charged == 100

    run(test())


def test_while_the_process_ends_a_request_on_a_kept_connection_is_answered_with_close() -> None:
    async def test() -> None:
        kept = Kept()
        connection, transport = kept.connect()
        connection.data_received(MODELS)
        kept.context.drain()
        connection.drain()
        assert transport.ended == "", "the last answer said keep-alive: a request may be on its way"
        connection.data_received(MODELS)
        assert transport.answers() == [(200, "keep-alive"), (200, "close")]
        assert transport.ended == "closed"

    run(test())


def test_while_the_process_ends_an_idle_connection_goes_soon() -> None:
    async def test() -> None:
        kept = Kept()
        connection, transport = kept.connect()
        connection.data_received(MODELS)
        kept.context.drain()
        connection.drain()
        connection.sweep(monotonic_ns() + 2 * S)
        assert transport.ended == "closed"

    run(test())


def test_what_a_client_sent_behind_an_answer_that_closes_does_not_reset_it_away() -> None:
    async def test() -> None:
        connection, transport = Kept().connect()
        connection.data_received(MODELS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + MODELS)
        await settle()
        assert transport.answers() == [(200, "close")]
        assert transport.ended == "eof", "the client is read on"
        connection.sweep(monotonic_ns() + 2 * S)
        assert transport.ended == "closed"

    run(test())


ENDS = {
    "one": MODELS,
    "close": MODELS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    "HTTP/1.0": MODELS.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/1.0 keep-alive": MODELS.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n"),
    "404": MODELS.replace(b"models", b"nothing"),
    "404 close": MODELS.replace(b"models", b"nothing").replace(b"Host", b"Connection: close\r\nHost"),
    "404 with a body": NOWHERE + b"Content-Length: 3\r\n\r\nabc",
    "405": MODELS.replace(b"GET", b"DELETE"),
    "415": CHAT.replace(b"application/json", b"text/plain") + b"Content-Length: 3\r\n\r\nabc",
    "400 head": b"nonsense\r\n\r\n",
    "400 body": CHAT + b"Content-Length: 3\r\n\r\nabc",
    "400 chunk": CHAT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "413": CHAT + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
    "503": CHAT + b'Content-Length: 30\r\n\r\n{"model": "m", "messages": []}',
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("draining", [False, True])
def test_a_connection_ends_exactly_where_its_answer_says_so(name: str, draining: bool) -> None:
    async def test() -> None:
        kept = Kept()
        connection, transport = kept.connect()
        if draining:
            kept.context.drain()
        connection.data_received(ENDS[name])
        await settle()
        assert [announced == "close" for _, announced in transport.answers()] == [bool(transport.ended)]
        assert not draining or transport.ended

    run(test())


def test_a_stream_that_has_begun_keeps_its_word_on_closing_whatever_answers_it() -> None:
    async def test() -> None:
        kept = Kept()
        connection, _ = kept.connect()
        head = kept.context.parser.parse(CHAT + b"Content-Length: 2\r\n\r\n{}")
        assert head is not None
        exchange = Exchange(kept.context, connection, head, b"{}", 1)
        begun = exchange.make_relay()
        kept.context.drain()
        assert not exchange.make_relay(begun=begun).close_client
        assert exchange.make_relay().close_client

    run(test())
