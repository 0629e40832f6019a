"""Spans of real balancers, at a collector that reads them as OpenTelemetry does."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from tests.support.otlp import Receiver, receiver
from tests.support.processes import PATIENCE_S, Balancer, balancer, eventually, free_port
from tests.support.raw import ask, chat, request
from tests.support.recorder import recording
from tests.support.tracing import CLIENT, arrived, forwarded_is_one_trace, one, send, streams


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


WORKERS = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "workers"])


@WORKERS
def test_a_forwarded_request_is_one_trace(collector: Receiver, workers: tuple[str, ...]) -> None:
    forwarded_is_one_trace(collector, collector.url, *workers)


@WORKERS
def test_a_request_says_what_was_asked_and_what_became_of_it_and_no_prompt(
    collector: Receiver, workers: tuple[str, ...]
) -> None:
    with recording("m") as replica, balancer(replica.url, arguments=flags(collector, *workers)) as front:
        streams(replica)
        send(front.port, "m", "X-Request-Id: r-1", stream=True)
        spans = arrived(collector, "request", "attempt", "stream")
        said, attempt = one(spans, "request").attributes, one(spans, "attempt").attributes
        expected = {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": 8,
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 3,
            "skylb.request_id": "r-1",
            "skylb.sampled_for": "sampled",
            "skylb.policy": "predictive",
            "skylb.replica": replica.url,
            "skylb.attempts": 1,
        }
        assert said.items() >= expected.items()
        assert said["skylb.ttft_s"] == said["gen_ai.response.time_to_first_chunk"] > 0
        assert attempt["server.address"] == "127.0.0.1"
        assert attempt["server.port"] == replica.port
        assert attempt["skylb.outcome"] == "ok"
        assert "secret" not in repr(spans)
        service = spans[0].service
        assert service["service.name"] == "skylb"
        assert service["service.version"]
        (line,) = eventually(front.log, what="a line of the access log")
        assert line["trace_id"] == spans[0].trace


def flags(collector: Receiver, *more: str, ratio: str = "1") -> list[str]:
    return ["--otlp-endpoint", collector.url, "--otlp-sample-ratio", ratio, *more]


def test_without_a_collector_traceparent_passes_byte_for_byte() -> None:
    with recording("m") as replica, balancer(replica.url) as front:
        send(front.port, "m", "Traceparent:  not one at all ", "tracestate: a=b")
        (seen,) = replica.seen
        assert ("Traceparent", "not one at all") in seen.lines
        assert ("tracestate", "a=b") in seen.lines
        assert "skylb_spans" not in front.metrics()


def test_a_trace_begins_here_if_the_client_names_none(collector: Receiver) -> None:
    with recording("m") as replica, balancer(replica.url, arguments=flags(collector)) as front:
        send(front.port, "m", "traceparent: 00-broken", "tracestate: of=another")
        spans = arrived(collector, "request", "attempt")
        (seen,) = replica.seen
        attempt = one(spans, "attempt")
        assert one(spans, "request").parent == ""
        assert seen.headers["traceparent"] == f"00-{attempt.trace}-{attempt.id}-03"
        assert "tracestate" not in seen.headers


@WORKERS
def test_what_is_not_sampled_is_exported_if_it_failed(collector: Receiver, workers: tuple[str, ...]) -> None:
    arguments = flags(collector, *workers, ratio="0")
    with recording("m") as replica, balancer(replica.url, arguments=arguments) as front:
        assert send(front.port).status == 200
        assert send(front.port, "m", f"traceparent: {CLIENT}-00").status == 200
        replica.status = 500
        assert send(front.port, "m", f"traceparent: {CLIENT}-00").status == 500
        spans = arrived(collector, "request", "attempt")
        assert {span.trace for span in spans} == {CLIENT[3:35]}
        failed = one(spans, "request")
        assert failed.failed
        assert failed.attributes["skylb.sampled_for"] == "failed"
        assert failed.attributes["http.response.status_code"] == 500
        attempts = collector.named("attempt")
        assert all(span.failed for span in attempts)
        assert [seen.headers["traceparent"][-3:] for seen in replica.seen] == ["-02", "-00"] + ["-00"] * len(
            attempts
        )
        # The client's word counts more than our share.
        replica.status = 200
        send(front.port, "m", f"traceparent: {CLIENT}-01")
        eventually(lambda: len(collector.named("request")) == 2, what="the request that the client samples")


def test_a_slow_request_is_exported(collector: Receiver) -> None:
    arguments = flags(collector, "--otlp-slow-s", "0.000001", ratio="0")
    with recording("m") as replica, balancer(replica.url, arguments=arguments) as front:
        send(front.port)
        assert one(arrived(collector, "request"), "request").attributes["skylb.sampled_for"] == "slow"


def test_a_request_that_finds_no_replica_is_exported(collector: Receiver) -> None:
    arguments = flags(collector, ratio="0")
    gone = f"http://127.0.0.1:{free_port()}"
    with balancer(gone, arguments=arguments, wait_ready=False) as front:
        assert send(front.port).status == 503
        span = one(arrived(collector, "request"), "request")
        assert span.failed
        assert span.attributes["error.type"] == span.attributes["skylb.error_code"]


def dropped(front: Balancer, reason: str) -> float:
    """Spans that were dropped for a reason."""
    (count,) = re.findall(
        rf'^skylb_spans_dropped_total{{reason="{reason}"}} (\S+)$', front.metrics(), re.MULTILINE
    )
    return float(count)


def test_a_collector_that_is_away_costs_spans_and_no_request(collector: Receiver) -> None:
    port = free_port()
    arguments = ["--otlp-endpoint", f"http://127.0.0.1:{port}", "--otlp-sample-ratio", "1"]
    arguments += ["--otlp-queue-bytes-max", "65536"]
    with recording("m") as replica, balancer(replica.url, arguments=arguments) as front:

        async def burst(count: int) -> set[int]:
            return {(await ask(front.port, request(chat("hi", model="m")))).status for _ in range(count)}

        def lost() -> bool:
            assert asyncio.run(burst(20)) == {200}
            return dropped(front, "queue_full") > 0

        eventually(lost, what="a full queue")
        eventually(lambda: "does not take spans" in front.child.text(), what="a line that says so")
        with receiver(port) as back:
            eventually(lambda: back.spans, what="spans after the outage")
            eventually(
                lambda: "takes spans again" in front.child.text(), what=f"a line: {front.child.text()}"
            )
        assert front.child.text().count("does not take spans") >= 1
        assert front.metric("skylb_spans_exported_total") > 0


def test_a_collector_that_refuses_is_told_of_once(collector: Receiver) -> None:
    collector.status = 400
    with recording("m") as replica, balancer(replica.url, arguments=flags(collector)) as front:
        for rounds in (1, 2):
            send(front.port)
            eventually(lambda rounds=rounds: collector.posts >= rounds, what="a post")
        eventually(lambda: dropped(front, "refused") == 4, what="spans that were refused")
        assert front.child.text().count("does not take spans: HTTP 400") == 1
        collector.status = 200
        send(front.port)
        eventually(lambda: collector.spans, what="spans")


def test_the_last_spans_are_posted_when_the_balancer_stops(collector: Receiver) -> None:
    with recording("m") as replica, balancer(replica.url, arguments=flags(collector)) as front:
        send(front.port)
        front.child.stop()
        assert len(collector.named("request")) == 1


def test_a_collector_that_hangs_does_not_keep_the_balancer_from_stopping(collector: Receiver) -> None:
    collector.hold.clear()
    with recording("m") as replica, balancer(replica.url, arguments=flags(collector)) as front:
        send(front.port)
        eventually(lambda: collector.posts, what="a post")
        assert front.child.stop(PATIENCE_S) == 0
