"""The binding of heads, chunked bodies, relay and reader; the rules themselves are tested in Rust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb._core import (
    FEED_DONE,
    FEED_FAILED,
    FEED_FIRST_BYTE,
    FEED_WRITE_BUFFER,
    FEED_WRITE_INPUT,
    ROUTE_HEALTH,
    ROUTE_MODELS,
    ROUTE_NONE,
    ROUTE_RESPONSES,
    ChunkedDecoder,
    Head,
    HeadParser,
    Relay,
    Request,
    RequestError,
    RequestIds,
    ResponseReader,
    Sender,
)
from tests.support import core

DATA = Path(__file__).parents[1] / "data"
BODY_BYTES_MAX = 16 << 20

POST = (
    b"POST /v1/completions?a=b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer k\r\nX-Forwarded-For: 1.1.1.1\r\nContent-Length: 2\r\n\r\n"
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def table(name: str) -> list[Any]:
    cases: list[dict[str, Any]] = json.loads((DATA / name).read_text())
    return [pytest.param(case, id=case["name"]) for case in cases]


def raw(case: dict[str, Any]) -> bytes:
    text: str = case["raw"]
    if fill := case.get("fill"):
        text = text.replace("@@", fill["text"] * fill["count"])
    return text.encode("latin-1")


def parse(head: bytes, parser: HeadParser | None = None) -> Head:
    parsed = (parser or HeadParser()).parse(head)
    assert parsed is not None
    return parsed


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def relay(*, http11: bool = True, keep_alive: bool = True) -> Relay:
    version = b"HTTP/1.1" if http11 else b"HTTP/1.0"
    return core.relay(parse(POST.replace(b"HTTP/1.1", version, 1)), keep_alive=keep_alive)


# ------------------------------------------------------------------------ request heads


def judge(data: bytes, body_bytes_max: int) -> int | str:
    """What a connection does with its first request."""
    try:
        complete = read(data, body_bytes_max)
    except RequestError as error:
        return error.status
    return "ok" if complete else "incomplete"


def read(data: bytes, body_bytes_max: int) -> bool:
    head = HeadParser().parse(data)
    if head is None:
        return False
    rest = data[head.consumed :]
    if head.content_length < 0:
        decoder = ChunkedDecoder(body_bytes_max)
        decoder.feed(rest)
        return decoder.done
    if head.content_length > body_bytes_max:
        error = RequestError("too large")
        error.status = 413
        raise error
    return len(rest) >= head.content_length


@pytest.mark.parametrize("case", table("http_requests.json"))
def test_a_raw_request_gets_its_verdict(case: dict[str, Any]) -> None:
    assert judge(raw(case), case.get("body_bytes_max", BODY_BYTES_MAX)) == case["expect"], case["why"]


def test_a_head_tells_what_it_asks_for() -> None:
    head = parse(POST + b"{}")
    assert head.consumed == len(POST)
    assert (head.method, head.target, head.route_name) == ("POST", "/v1/completions", "/v1/completions")
    assert (head.http11, head.keep_alive, head.is_head, head.is_options) == (True, True, False, False)
    assert (head.content_length, head.expect_continue, head.anthropic) == (2, False, False)
    assert (head.request_id, head.trace_id) == (None, None)
    assert head.header("authorization") == "Bearer k"
    assert head.header("accept") is None


def test_routes_are_told_by_number() -> None:
    def route(line: bytes) -> int:
        return parse(line + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\r\n").route

    assert route(b"GET /health") == ROUTE_HEALTH
    assert route(b"HEAD /v1/models/a/b") == ROUTE_MODELS
    assert route(b"POST /v1/responses") == ROUTE_RESPONSES


def test_a_head_is_parsed_where_it_starts() -> None:
    pipelined = POST + b"{}" + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    head = HeadParser().parse(pipelined, len(POST) + 2)
    assert head is not None
    assert (head.target, head.consumed) == ("/health", len(pipelined) - len(POST) - 2)
    assert HeadParser().parse(pipelined, len(pipelined)) is None


def test_an_incomplete_head_is_no_error() -> None:
    for cut in range(len(POST)):
        assert HeadParser().parse(POST[:cut]) is None


def test_a_value_outside_ascii_is_read_as_latin_1() -> None:
    head = parse(b"GET /health HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9\xff\r\n\r\n")
    assert head.header("x") == "caf\xc3\xa9\xff"


def test_a_refusal_of_a_well_formed_head_carries_the_head() -> None:
    wire = b"HEAD /v1/messages HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n"
    with pytest.raises(RequestError, match="POST") as caught:
        HeadParser().parse(wire)
    error = caught.value
    assert (error.status, error.code, error.param, error.close, error.allow) == (
        405,
        "method_not_allowed",
        None,
        False,
        "POST",
    )
    head = error.head
    assert head is not None
    assert (head.is_head, head.anthropic, head.request_id, head.consumed) == (True, True, "mine", len(wire))


def test_a_refusal_of_malformed_bytes_carries_no_head_and_closes() -> None:
    with pytest.raises(RequestError) as caught:
        HeadParser().parse(b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n")
    assert (caught.value.status, caught.value.close, caught.value.head) == (400, True, None)


def test_a_request_error_raised_by_hand_has_every_attribute() -> None:
    error = RequestError("text")
    assert (error.status, error.code, error.message, error.close) == (400, "bad_request", "", True)
    assert (error.param, error.allow, error.head) == (None, None, None)


def test_options_is_answered_with_cors_only() -> None:
    wire = b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"
    head = parse(wire, HeadParser(cors=True))
    assert (head.is_options, head.route, head.route_name) == (True, ROUTE_NONE, "other")
    with pytest.raises(RequestError) as caught:
        HeadParser().parse(wire)
    assert caught.value.status == 405


def sent(trusted: bool, prefix: str, method: bytes = b"POST") -> Request:
    wire = (
        POST
        if method == b"POST"
        else b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"
    )
    return Request(parse(wire), Sender("192.0.2.7", "https", trusted, trusted), RequestIds(prefix), 1, 2)


def test_the_upstream_head_is_ours() -> None:
    assert sent(False, "req").upstream("r:1", "Bearer ours", 2) == (
        b"POST /v1/completions?a=b HTTP/1.1\r\nHost: r:1\r\nContent-Type: application/json\r\n"
        b"Accept-Encoding: identity\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        b"X-Request-Id: req-1\r\nAuthorization: Bearer ours\r\nContent-Length: 2\r\n\r\n"
    )
    assert b"\r\nContent-Length: 0\r\n" in sent(False, "req").upstream("r:1", None, 0)
    trusted = sent(True, "req", b"GET").upstream("r:1", None, 0)
    assert b"\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n" in trusted
    assert b"Content-Length" not in trusted


def test_a_value_that_would_split_the_upstream_head_is_refused() -> None:
    with pytest.raises(ValueError, match="request_id"):
        sent(False, "a\r\nX: b").upstream("r:1", None, 2)


# ---------------------------------------------------------------------- chunked bodies


def test_a_chunked_body_comes_without_framing_and_with_what_follows() -> None:
    decoder = ChunkedDecoder(10)
    assert decoder.feed(b"3\r\nabc\r\n2;x\r\nd") == b"abcd"
    assert not decoder.done
    assert decoder.feed(b"e\r\n0\r\nX: y\r\n\r\nGET") == b"e"
    assert decoder.done
    assert decoder.rest == b"GET"


def test_a_chunked_body_over_the_limit_is_refused_when_it_is_announced() -> None:
    decoder = ChunkedDecoder(10)
    with pytest.raises(RequestError) as caught:
        decoder.feed(b"b\r\n")
    assert (caught.value.status, caught.value.code, caught.value.close) == (413, "body_too_large", True)
    with pytest.raises(RequestError):
        decoder.feed(b"more")


# ------------------------------------------------------------------------------- relay


def test_whole_events_pass_and_the_rest_is_withheld() -> None:
    stream = relay()
    assert stream.feed(STREAM_HEAD) == 0
    assert (stream.status, stream.streaming, stream.started) == (200, True, True)
    assert stream.feed(chunk(b"data: 1\n\n")) == FEED_WRITE_BUFFER | FEED_FIRST_BYTE
    assert stream.take().endswith(b"\r\n\r\n" + chunk(b"data: 1\n\n"))
    assert stream.take() == b""
    assert stream.feed(chunk(b"data: 2\n\n")) == FEED_WRITE_INPUT
    assert stream.feed(chunk(b"data: 3")) == 0
    assert stream.feed(chunk(b"\n\n") + b"0\r\n\r\n") == FEED_WRITE_BUFFER | FEED_DONE
    assert stream.take() == chunk(b"data: 3\n\n") + b"0\r\n\r\n"
    assert (stream.reusable, stream.close_client, stream.error) == (True, False, None)
    assert (stream.events, stream.bytes_out) == (3, 27)


def test_a_broken_stream_ends_with_one_error_event() -> None:
    stream = relay()
    stream.feed(STREAM_HEAD + chunk(b"data: 1\n\n"))
    stream.take()
    assert stream.feed(chunk(b"data: 2") + b"zz\r\n") == FEED_FAILED
    assert stream.error is not None
    assert stream.error.startswith("expected ")
    event = b'data: {"error":{"message":"lost","type":"server_error","param":null,"code":"replica_lost"}}\n\n'
    assert stream.cut("lost", "replica_lost") == chunk(event) + b"0\r\n\r\n"
    assert stream.cut("lost", "replica_lost") == b""
    assert not stream.close_client, "the head has not said so"


def test_usage_is_read_in_passing() -> None:
    body = b'{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}'
    unary = relay()
    assert (unary.prompt_tokens, unary.cached_tokens, unary.completion_tokens) == (-1, -1, -1)
    unary.feed(b"HTTP/1.1 200 OK\r\nRetry-After: 3\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert (unary.prompt_tokens, unary.cached_tokens, unary.completion_tokens) == (9, 4, 3)
    assert (unary.retry_after_s, unary.response_id) == (3, None)


def test_the_id_of_a_response_is_told_where_it_is_asked_for() -> None:
    responses = core.relay(core.head("/v1/responses"))
    responses.feed(STREAM_HEAD + chunk(b'data: {"response":{"id":"resp_1"}}\n\n'))
    assert responses.response_id == "resp_1"


def test_the_end_of_the_connection_ends_a_body_without_length() -> None:
    unary = relay()
    assert unary.feed(b"HTTP/1.1 200 OK\r\n\r\nab") == FEED_WRITE_BUFFER | FEED_FIRST_BYTE
    assert unary.eof() == FEED_WRITE_BUFFER | FEED_DONE
    assert unary.take().endswith(b"2\r\nab\r\n0\r\n\r\n")
    assert not unary.reusable
    short = relay()
    short.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert short.eof() == FEED_FAILED


@pytest.mark.parametrize("case", table("http_responses.json"))
def test_a_raw_response_gets_its_verdict_and_a_fault_writes_nothing(case: dict[str, Any]) -> None:
    response = relay()
    wire = raw(case)
    flags = response.feed(wire) if wire else 0
    written = b"" if flags & FEED_FAILED else response.take()
    if case.get("eof"):
        flags |= response.eof()
    if flags & FEED_FAILED:
        verdict = "failed"
        assert response.take() == b""
        assert written == b"" or case.get("eof")
    elif flags & FEED_DONE:
        verdict = "ok" if response.reusable else "close"
    else:
        verdict = "incomplete"
    assert verdict == case["expect"], case["why"]


@given(
    events=st.lists(
        st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20), max_size=8
    ),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    size=st.integers(1, 50),
    http11=st.booleans(),
)
def test_event_bytes_out_are_event_bytes_in(
    events: list[str], cuts: list[int], size: int, http11: bool
) -> None:
    payload = "".join(f"data: {event}\n\n" for event in events).encode()
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    wire = STREAM_HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    stream = relay(http11=http11)
    out, at, turn = b"", 0, 0
    while at < len(wire):
        data = wire[at : at + cuts[turn % len(cuts)]]
        flags = stream.feed(data)
        out += data if flags & FEED_WRITE_INPUT else stream.take()
        at, turn = at + len(data), turn + 1
    client = ResponseReader()
    body = client.feed(out)
    client.eof()
    assert (client.done, client.error, body) == (True, None, payload)
    assert stream.events == len(events)


# ------------------------------------------------------------------------------ reader


def test_a_reader_gives_the_body_without_framing() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nX-A: caf\xe9\r\nTransfer-Enc") == b""
    assert (reader.status, reader.header("x-a"), reader.done) == (0, None, False)
    assert reader.feed(b"oding: chunked\r\n\r\n3\r\nabc") == b"abc"
    assert (reader.status, reader.header("x-a"), reader.header("x-b")) == (200, "caf\xe9", None)
    assert reader.feed(b"\r\n0\r\n\r\n") == b""
    assert (reader.done, reader.reusable, reader.error) == (True, True, None)


def test_a_reader_expects_no_body_after_head() -> None:
    reader = ResponseReader(is_head=True)
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") == b""
    assert reader.done


def test_a_reader_names_what_is_wrong() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab") == b"ab"
    reader.eof()
    assert (reader.done, reader.reusable) == (False, False)
    assert reader.error is not None
