"""Tenants' limits through Python: what the binding adds to the engine, which Rust tests on its own."""

import json

import pytest

from skylb import _core
from skylb._core import Engine, Push, Reject, Request, Tenant
from tests.support import core
from tests.unit.test_engine import MS, SECRET, body, settings

NO_LIMITS = {
    "weight": 1,
    "class": None,
    "models": None,
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "concurrent": None,
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"

BEGINNING = (
    b'data: {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}}\n\n'
)


def terms(**more: object) -> bytes:
    return json.dumps({"tenants": [{"name": "acme", **NO_LIMITS, **more}]}).encode()


def engine(**more: object) -> Engine:
    """One replica that takes what comes, and the terms of one tenant."""
    made = Engine(settings(blind_outstanding_max=64), SECRET, 1)
    made.set_replicas([(7, "http://a")], 1)
    made.set_models(7, [("m", 4096), ("secret", 4096)], False, 1)
    made.observe_failed(7, _core.PROBE_UNREADABLE, 1)
    assert made.set_tenants(terms(**more), 1) == ()
    return made


def submit(engine: Engine, request_id: int, said: bytes) -> tuple[Request, object]:
    request = core.request(start_ns=2)
    request.tenant = Tenant("acme")
    (effect,) = engine.submit(request_id, request, said)
    return request, effect


def used(engine: Engine) -> dict[str, int]:
    """The counts of the one tenant for the one model that it has used."""
    (tenant,) = json.loads(engine.tenant_usage())["tenants"]
    (row,) = tenant["models"]
    assert row["model"] == "m"
    return {name: count for name, count in row.items() if name != "model"}


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


def test_a_tenant_over_its_limit_is_told_how_it_stands() -> None:
    made = engine(requests_per_minute=1)
    placed, effect = submit(made, 1, body())
    assert isinstance(effect, Push)
    told = {"limit": b"1", "remaining": b"0", "reset": b"1m0s"}
    lines = b"".join(b"x-ratelimit-%s-requests: %s\r\n" % (name.encode(), told[name]) for name in told)
    assert placed.rate_limit == lines
    refused, effect = submit(made, 2, body())
    assert isinstance(effect, Reject)
    assert (effect.status, effect.code, effect.retry_after_s) == (429, "rate_limit_exceeded", 60)
    assert refused.rate_limit == lines


def test_a_client_that_leaves_before_the_first_byte_pays_for_a_prompt_that_was_sent() -> None:
    for relay, charged in ((None, 0), (core.relay(), 500)):
        made = engine(tokens_per_minute=100_000)
        placed, _ = submit(made, 1, body("x" * 2_000))
        made.complete(placed, _core.OUTCOME_CLIENT_LEFT, relay, 3)
        assert charged <= used(made)["charged_tokens"] <= 2 * charged


def test_a_tenant_without_limits_per_minute_has_no_lines_about_them() -> None:
    placed, _ = submit(engine(concurrent=3), 1, body())
    assert placed.rate_limit is None
    assert core.request(start_ns=2).rate_limit is None


def test_what_a_tenant_may_not_use_is_refused_and_not_listed() -> None:
    made = engine(models=["m"])
    _, effect = submit(made, 1, json.dumps({"model": "secret", "prompt": "x"}).encode())
    assert isinstance(effect, Reject)
    assert (effect.status, effect.code) == (403, "model_not_allowed")
    assert made.models(Tenant("acme")) == [("m", 4096)]
    assert len(made.models(Tenant.NOBODY)) == 2


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (b"{", "EOF"),
        (terms(weight=0), r"tenants\[0\].weight: expected 1 to 1000"),
        (terms(burst=3), r"tenants\[0\].burst"),
        (terms(requests_per_minute=-1), r"tenants\[0\].requests_per_minute"),
    ],
)
def test_terms_that_cannot_be_read_are_refused_with_the_field_and_change_nothing(
    wrong: bytes, text: str
) -> None:
    made = engine(requests_per_minute=1)
    with pytest.raises(ValueError, match=text):
        made.set_tenants(wrong, 2)
    submit(made, 1, body())
    _, effect = submit(made, 2, body())
    assert isinstance(effect, Reject)


def test_an_answer_has_our_lines_and_none_of_the_replica() -> None:
    made = engine(requests_per_minute=600)
    placed, _ = submit(made, 1, body())
    relay = placed.relay(True)
    relay.feed(b"HTTP/1.1 200 OK\r\nX-RateLimit-Limit-Requests: 5\r\nContent-Length: 2\r\n\r\n{}")
    written = relay.take()
    assert written.lower().count(b"x-ratelimit-limit-requests: ") == 1
    assert b"x-ratelimit-remaining-requests: 599\r\n" in written


def test_the_lines_of_a_replica_pass_where_there_are_none_of_ours() -> None:
    relay = core.request(start_ns=2).relay(True)
    relay.feed(b"HTTP/1.1 200 OK\r\nX-RateLimit-Limit-Requests: 5\r\nContent-Length: 2\r\n\r\n{}")
    assert b"X-RateLimit-Limit-Requests: 5\r\n" in relay.take()


def test_where_tokens_are_limited_a_stream_is_asked_for_usage_which_the_client_does_not_see() -> None:
    made = engine(tokens_per_minute=100_000)
    said = body(stream=True)
    placed, _ = submit(made, 1, said)
    assert json.loads(placed.edited(said, False))["stream_options"] == {"include_usage": True}
    relay = placed.relay(True)
    told = {"prompt_tokens": 9, "completion_tokens": 2}
    relay.feed(HEAD + b"\r\n" + chunk(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'))
    made.first_byte(placed, relay, 3 * MS)
    relay.feed(chunk(b'data: {"choices": [], "usage": %s}\n\n' % json.dumps(told).encode()))
    relay.feed(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    assert b"usage" not in relay.take()
    made.complete(placed, _core.OUTCOME_OK, relay, 4 * MS)
    row = used(made)
    assert (row["prompt_tokens"], row["completion_tokens"], row["charged_tokens"]) == (9, 2, 11)


@pytest.mark.parametrize(
    ("events", "completion"),
    [
        pytest.param([b"data: {}\n\n"] * 5, 5, id="nothing is reported"),
        pytest.param(
            [BEGINNING] + [b"data: {}\n\n"] * 4,
            1 + 4,
            id="at the beginning",
        ),
        pytest.param(
            [b'data: {"usage": {"prompt_tokens": 7, "completion_tokens": %d}}\n\n' % n for n in range(1, 7)],
            6,
            id="all the time",
        ),
    ],
)
def test_a_stream_that_is_cut_is_charged_the_events_behind_its_last_usage(
    events: list[bytes], completion: int
) -> None:
    made = engine(tokens_per_minute=100_000)
    placed, _ = submit(made, 1, body(stream=True))
    relay = placed.relay(True)
    relay.feed(HEAD + b"\r\n")
    for event in events:
        relay.feed(chunk(event))
    made.first_byte(placed, relay, 3 * MS)
    made.complete(placed, _core.OUTCOME_CLIENT_LEFT, relay, 4 * MS)
    row = used(made)
    assert row["completion_tokens"] == completion
    assert row["charged_tokens"] == row["prompt_tokens"] + completion


def test_an_error_costs_no_tokens_whether_it_is_a_status_or_an_event() -> None:
    made = engine(tokens_per_minute=100_000)
    for number, answer in enumerate(
        (
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}",
            HEAD + b"\r\n" + chunk(b'data: {"error": {"message": "no", "code": 400}}\n\n') + b"0\r\n\r\n",
        ),
        start=1,
    ):
        placed, _ = submit(made, number, body(stream=True))
        relay = placed.relay(True)
        relay.feed(answer)
        made.first_byte(placed, relay, 3 * MS)
        made.complete(placed, _core.OUTCOME_OK, relay, 4 * MS)
    row = used(made)
    assert (row["requests"], row["charged_tokens"]) == (2, 0)


def test_what_a_peer_says_of_tenants_is_refused_where_it_cannot_be_read() -> None:
    made = engine(requests_per_minute=1)
    made.set_self("us", "us", 1)
    made.set_peers([(1, "eu", "eu", True)], 1)
    for message in (b"", b"\x09", b"\x01garbage", bytes(20_000)):
        with pytest.raises(ValueError, match="message about tenants"):
            made.merge_tenants(1, message, 2)
    assert made.counters()["tenants_refused"] == 4
