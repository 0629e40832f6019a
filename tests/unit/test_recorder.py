"""The Recorder through Python: what one finished request leaves behind."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from skylb import _core
from skylb._core import (
    Engine,
    Head,
    HeadParser,
    Push,
    Recorder,
    Relay,
    Request,
    RequestError,
    RequestIds,
    Sender,
    Tenant,
)
from skylb.config import EngineSettings
from tests.support import core

CANARY = "canary-7f3a"
"""Stands in prompt, key, salt and user: nothing of it may reach the log (docs/PROMISES.md, L9)."""

BODY = json.dumps(
    {
        "model": "m",
        "messages": [{"role": "user", "content": f"{CANARY} " * 64}],
        "user": CANARY,
        "cache_salt": CANARY,
    }
).encode()

FIELDS = (
    "ts request_id trace_id tenant client method route model status error_code replica peer policy attempts "
    "prompt_blocks match_blocks held_s predicted_ttft_s ttft_s total_s bytes_in bytes_out"
)
"""The access log's fields, in the interface's order."""

CLIENT = Sender("127.0.0.1:1", "http", False, False)
WALL = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
END_NS = 9_000_000_000
REPLICA = "http://127.0.0.1:8101"
OFFSET_NS = int(WALL.timestamp() * 1_000_000) * 1000 - END_NS


def head(path: str = "/v1/chat/completions", method: str = "POST") -> Head:
    lines = f"Authorization: Bearer {CANARY}\r\n"
    lines += "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
    return core.head(path, method, lines, len(BODY))


def engine() -> Engine:
    """With one replica, whose load cannot be read."""
    made = Engine(EngineSettings().model_dump_json().encode(), b"k" * 16, 1)
    made.set_replicas([(7, REPLICA)], 1)
    made.set_models(7, [("m", None)], False, 1)
    made.observe_failed(7, _core.PROBE_UNREADABLE, 1)
    return made


def relay() -> Relay:
    return core.answered(b'{"id": "x", "choices": []}')


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


def streamed(*events: bytes) -> Relay:
    """An answer whose events came one by one."""
    sender = Sender("127.0.0.1:50000", "http", False, False)
    answer = Request(head(), sender, RequestIds("r"), 1, len(BODY)).relay(True)
    answer.feed(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for event in events:
        answer.feed(chunk(event))
    return answer


def made(
    *,
    of: Head | None = None,
    submitted: bool = True,
    pushed: bool = True,
    prefix: str = "r",
    tenant: Tenant = Tenant.NOBODY,
    origin: str | None = None,
    held_ns: int = 0,
    first_byte_ns: int = END_NS - 1_500_000_000,
) -> Request:
    """A request with a course."""
    sender = Sender("127.0.0.1:50000", "http", False, False, origin)
    request = Request(of or head(), sender, RequestIds(prefix), END_NS - 2_000_000_000, len(BODY))
    request.tenant = tenant
    if submitted:
        (push,) = engine().submit(1, request, BODY)
        assert isinstance(push, Push)
        if pushed:
            request.pushed(push, REPLICA)
    request.hold(1)
    request.leave_hold(1 + held_ns)
    request.first_byte(first_byte_ns)
    return request


def recorder(log_format: int = _core.LOG_JSON, **fields: int) -> Recorder:
    return Recorder(log_format, 1 << 20, "prefix", OFFSET_NS, **fields)


def complete(
    recorded: Recorder, *, answer: bool = True, status: int = 200, code: str | None = None, **changed: Any
) -> None:
    recorded.complete(made(**changed), relay() if answer else None, status, code, END_NS)


UNPLACED = {"submitted": False, "answer": False}


class TestLine:
    def test_it_has_the_interface_s_fields_and_what_the_parts_know(self) -> None:
        recorded = recorder()
        complete(recorded)
        line = json.loads(recorded.take_log())
        assert " ".join(line).replace("ts type ", "ts ") == FIELDS
        assert line["ts"] == "2026-03-01T12:30:15.250000Z"
        assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert (line["method"], line["route"], line["model"]) == ("POST", "/v1/chat/completions", "m")
        assert line["prompt_blocks"] == made().prompt_blocks > 0
        assert (line["replica"], line["attempts"], line["match_blocks"]) == (REPLICA, 1, 0)
        assert (line["held_s"], line["ttft_s"], line["total_s"]) == (0, 0.5, 2)
        assert line["bytes_out"] == relay().bytes_out > 0
        assert line["tenant"] is line["peer"] is line["error_code"] is None

    def test_it_names_the_tenant_and_tells_nobody_from_unknown(self) -> None:
        recorded = recorder()
        for tenant in (Tenant("acme"), Tenant.NOBODY, Tenant.UNKNOWN):
            complete(recorded, tenant=tenant)
        lines = [json.loads(line) for line in recorded.take_log().splitlines()]
        assert [line["tenant"] for line in lines] == ["acme", None, None]
        assert [line.get("tenant_known") for line in lines] == [None, None, False]

    @pytest.mark.parametrize("log_format", [_core.LOG_TEXT, _core.LOG_LOGFMT, _core.LOG_JSON])
    def test_nothing_of_a_prompt_a_key_or_a_salt_is_in_it(self, log_format: int) -> None:
        recorded = recorder(log_format)
        complete(recorded)
        line = recorded.take_log()
        assert line.count(b"\n") == 1
        assert CANARY.encode() not in line

    def test_a_request_that_got_nowhere_has_a_line_too(self) -> None:
        recorded = recorder()
        complete(recorded, **UNPLACED, first_byte_ns=0, status=499, code="x")
        line = json.loads(recorded.take_log())
        assert line["model"] is line["replica"] is line["ttft_s"] is None
        assert (line["status"], line["error_code"], line["bytes_out"]) == (499, "x", 0)

    def test_logfmt_has_the_same_fields(self) -> None:
        recorded = recorder(_core.LOG_LOGFMT)
        complete(recorded)
        pairs = [field.partition("=") for field in recorded.take_log().decode().split()]
        assert " ".join(name for name, _, _ in pairs) == FIELDS

    def test_a_forged_request_id_stays_inside_its_field(self) -> None:
        recorded = recorder(_core.LOG_LOGFMT)
        complete(recorded, prefix="a status=200\nts=1")
        assert recorded.take_log().count(b"\n") == 1

    def test_the_form_can_be_changed_and_switched_off(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        complete(recorded)
        assert recorded.take_log() == b""
        recorded.set_log_format(_core.LOG_LOGFMT)
        complete(recorded)
        assert recorded.take_log().startswith(b"ts=")

    def test_lines_beyond_the_bound_are_counted(self) -> None:
        recorded = Recorder(_core.LOG_TEXT, 1000, "prefix", OFFSET_NS)
        for _ in range(10):
            complete(recorded)
        kept = recorded.take_log()
        assert len(kept) <= 1000
        assert kept.count(b"\n") + recorded.log_dropped == 10


class TestCounts:
    def test_requests_are_counted_by_route_model_status_and_sender(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        complete(recorded)
        complete(recorded, status=503)
        complete(recorded, of=head("/health", "GET"), **UNPLACED)
        recorded.refused(400, "bad_host", CLIENT, "", None, END_NS)
        recorded.refused(503, "overloaded", Sender("127.0.0.1:1", "http", False, False, ""), "", None, END_NS)
        labels, series = recorded.requests()
        assert labels == ("route", "model", "status", "from")
        assert sorted(series) == [
            (("/health", "", "200", "client"), 1),
            (("/v1/chat/completions", "m", "200", "client"), 1),
            (("/v1/chat/completions", "m", "503", "client"), 1),
            (("invalid", "", "400", "client"), 1),
            (("invalid", "", "503", "peer"), 1),
        ]

    def test_clients_cannot_make_labels(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        with pytest.raises(RequestError) as caught:
            HeadParser().parse(b"GET /made/up HTTP/1.1\r\nHost: a\r\n\r\n")
        unknown = caught.value.head
        assert unknown is not None
        complete(recorded, of=unknown, **UNPLACED, status=404)
        complete(recorded, pushed=False, status=404)
        labels = {label for (route, model, *_), _ in recorded.requests()[1] for label in (route, model)}
        assert labels == {"other", "", "/v1/chat/completions"}

    def test_models_beyond_the_bound_are_other(self) -> None:
        recorded = recorder(_core.LOG_OFF, label_values_max=0)
        complete(recorded)
        assert recorded.requests()[1] == [(("/v1/chat/completions", "other", "200", "client"), 1)]

    def test_attempts_are_counted_by_outcome_from_zero(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        recorded.attempt("ok")
        recorded.attempt("stale")
        counts = dict(recorded.attempts())
        assert (counts["ok"], counts["stale"], counts["timeout"]) == (1, 1, 0)

    def test_an_unknown_outcome_is_a_fault_of_the_caller(self) -> None:
        with pytest.raises(ValueError, match="outcome: expected one of ok, "):
            recorder().attempt("splendid")


class TestUsage:
    def test_errors_are_counted_by_code(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        complete(recorded)
        complete(recorded, status=503, code="hold_timeout")
        complete(recorded, status=503, code="hold_timeout")
        recorded.refused(431, "head_too_large", CLIENT, "", None, END_NS)
        assert recorded.errors() == [("hold_timeout", 2), ("head_too_large", 1)]

    def test_tokens_are_counted_by_model_and_tenant(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        answer = core.answered(json.dumps({"usage": usage}).encode())
        recorded.complete(made(tenant=Tenant("acme")), answer, 200, None, END_NS)
        complete(recorded)
        assert recorded.models() == [("m", [9, 4, 2], 2, 1)]
        assert recorded.tenants() == [
            ("", [0, 0, 0], [1, 0, 0, 0, 0], (0.5, 1)),
            ("acme", [9, 4, 2], [1, 0, 0, 0, 0], (0.5, 1)),
        ]
        assert _core.TOKEN_KINDS == ("prompt", "cached", "generated")
        assert _core.TENANT_OUTCOMES == ("ok", "limited", "refused", "failed", "client_left")


class TestDistributions:
    def test_only_inference_is_measured(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        complete(recorded, of=head("/health", "GET"), **UNPLACED)
        complete(recorded, of=head("/v1/models", "GET"), **UNPLACED)
        assert recorded.histogram("request_seconds")[1] == 0
        complete(recorded, held_ns=250_000_000)
        assert recorded.histogram("request_seconds")[1] == 2
        assert recorded.histogram("ttft_seconds")[1] == 0.5
        assert recorded.histogram("hold_seconds")[1] == 0.25

    def test_buckets_are_cumulative_and_end_with_infinity(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        complete(recorded)
        buckets, _ = recorded.histogram("ttft_seconds")
        assert buckets[-1] == (float("inf"), 1)
        assert [count for bound, count in buckets if bound < 0.5] == [0] * 9
        assert (0.5, 1) in buckets

    def test_each_model_and_class_has_a_histogram(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        assert recorded.histograms("ttft_seconds") == []
        complete(recorded)
        ((labels, found),) = recorded.histograms("ttft_seconds")
        assert labels == ("m", "normal")
        assert found == recorded.histogram("ttft_seconds")

    def test_the_gaps_of_a_stream_are_measured(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        complete(recorded)
        assert recorded.quantile("inter_token_seconds", 0.5) is None
        request, answer = made(), streamed(b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n")
        recorded.complete(request, answer, 200, None, END_NS)
        mean_s = recorded.quantile("inter_token_seconds", 0.5)
        worst_s = recorded.quantile("inter_token_worst_seconds", 0.5)
        assert mean_s is not None
        assert worst_s is not None
        assert 0 < mean_s <= worst_s
        failed = streamed(b'data: {"error": {"message": "x", "code": 500}}\n\n', b"data: 2\n\n")
        recorded.complete(request, failed, 500, "upstream_error", END_NS)
        assert recorded.histogram("inter_token_seconds")[0][-1][1] == 1

    def test_time_in_which_the_client_took_nothing_is_no_gap(self) -> None:
        recorded, answer = recorder(_core.LOG_OFF), streamed(b"data: 1\n\n")
        answer.resumed()
        answer.feed(chunk(b"data: 2\n\n"))
        recorded.complete(made(), answer, 200, None, END_NS)
        assert recorded.quantile("inter_token_seconds", 0.5) is None

    def test_quantiles_look_at_recent_requests(self) -> None:
        recorded = recorder(_core.LOG_OFF)
        assert recorded.quantile("ttft_seconds", 0.5) is None
        for tenths in range(1, 11):
            complete(recorded, first_byte_ns=END_NS - 2_000_000_000 + tenths * 100_000_000)
        assert recorded.quantile("ttft_seconds", 0.5) == pytest.approx(0.5)
        assert recorded.quantile("ttft_seconds", 1.0) == pytest.approx(1.0)
        last, answer = made(), relay()
        for _ in range(1024):
            recorded.complete(last, answer, 200, None, END_NS)
        assert recorded.quantile("ttft_seconds", 1.0) == pytest.approx(0.5)

    def test_bad_arguments_are_named(self) -> None:
        recorded = recorder()
        with pytest.raises(ValueError, match="name: expected one of ttft_seconds, "):
            recorded.histogram("seconds")
        with pytest.raises(ValueError, match="name: expected one of ttft_seconds, "):
            recorded.histograms("seconds")
        with pytest.raises(ValueError, match="q: expected 0 to 1"):
            recorded.quantile("ttft_seconds", float("nan"))
        with pytest.raises(ValueError, match="log_format: expected"):
            recorded.set_log_format(7)
