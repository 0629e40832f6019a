"""The thread that posts spans: what it drops, counts and says, without a balancer."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skylb import _core
from skylb._core import HeadParser, Recorder, Request, RequestIds, Sender
from skylb.errors import ConfigError
from skylb.listeners import client_tls
from skylb.tracing.collector import HEADERS_MAX, Collector, read_headers
from skylb.tracing.exporter import SpanExporter
from tests.support.otlp import Receiver, receiver
from tests.support.processes import eventually, free_port

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n"
)
OFFSET_NS = 1_767_225_600_000_000_000
QUEUE_BYTES_MAX = 64 << 10


def a_recorder(queue_bytes_max: int = QUEUE_BYTES_MAX) -> Recorder:
    recorder = Recorder(_core.LOG_OFF, 0, "predictive", OFFSET_NS)
    recorder.export_spans([("service.name", "skylb")], 10**18, queue_bytes_max, OFFSET_NS)
    return recorder


IDS = RequestIds("r", 1.0, 7)


def end(recorder: Recorder, ids: RequestIds = IDS, status: int = 200) -> None:
    """One request ends."""
    head = HeadParser().parse(HEAD)
    assert head is not None
    request = Request(head, Sender("192.0.2.7", "http", False, False), ids, 1_000, 2)
    recorder.complete(request, None, status, None, 3_000)


def an_exporter(recorder: Recorder, url: str, *, keep_s: float = 60.0) -> SpanExporter:
    collector = Collector(url, [("X-Key", "k")], timeout_s=5.0, tls=client_tls(None))
    return SpanExporter(
        recorder, collector, interval_s=0.01, keep_s=keep_s, pause_s=0.01, offset_ns=lambda: OFFSET_NS
    )


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def test_spans_are_posted_with_the_given_headers(collector: Receiver) -> None:
    recorder = a_recorder()
    exporter = an_exporter(recorder, collector.url)
    end(recorder)
    exporter.start()
    eventually(lambda: exporter.exported, what="spans")
    end(recorder)
    exporter.stop()
    assert [span.start_ns - OFFSET_NS for span in collector.spans] == [1_000, 1_000]
    assert collector.headers["content-type"] == "application/x-protobuf"
    assert collector.headers["x-key"] == "k"
    assert exporter.exported == 2
    assert sum(exporter.dropped().values()) == 0


def test_what_may_be_sent_again_is_and_one_line_tells_of_an_outage(
    collector: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skylb")
    recorder = a_recorder()
    exporter = an_exporter(recorder, collector.url)
    collector.status, collector.retry_after = 503, "0"
    exporter.start()
    end(recorder)
    eventually(lambda: collector.posts >= 3, what="three tries")
    collector.status = 200
    eventually(lambda: exporter.exported == 1, what="the span")
    exporter.stop()
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == [
        "HTTP 503; they are dropped beyond otlp.queue_bytes_max",
        f"collector {collector.url}/v1/traces takes spans again; 0 were lost",
    ]


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "refused"), (401, "refused"), (404, "refused"), (503, "unreachable")]
)
def test_what_the_collector_does_not_take_is_dropped_and_counted(
    collector: Receiver, status: int, reason: str
) -> None:
    recorder = a_recorder()
    exporter = an_exporter(recorder, collector.url, keep_s=0.05)
    collector.status = status
    end(recorder)
    exporter.start()
    eventually(lambda: exporter.dropped()[reason], what="a span that is dropped")
    exporter.stop()
    assert exporter.dropped() == {"queue_full": 0, "unreachable": 0, "refused": 0} | {reason: 1}
    assert exporter.exported == 0


def test_a_fault_costs_the_spans_under_way_and_not_those_that_follow(
    collector: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = a_recorder()
    exporter = an_exporter(recorder, collector.url)
    post, faults = exporter.collector.post, [ValueError("planted"), ValueError("planted")]

    def fails(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return post(*arguments)

    monkeypatch.setattr(exporter.collector, "post", fails)
    exporter.start()
    for lost in (1, 2):
        end(recorder)
        eventually(lambda lost=lost: exporter.dropped()["unreachable"] == lost, what="a span that is dropped")
    end(recorder)
    eventually(lambda: exporter.exported, what="a span")
    exporter.stop()
    (record,) = caplog.records
    assert record.exc_info is not None


def test_spans_that_the_collector_has_rejected_are_counted(collector: Receiver) -> None:
    recorder = a_recorder()
    exporter = an_exporter(recorder, collector.url)
    collector.rejects = 2
    for _ in range(3):
        end(recorder)
    exporter.start()
    eventually(lambda: exporter.exported, what="spans")
    exporter.stop()
    assert exporter.exported == 1
    assert exporter.dropped()["refused"] == 2


def test_without_a_collector_the_queue_has_a_bound_and_a_stop_does_not_wait() -> None:
    recorder = a_recorder()
    exporter = an_exporter(recorder, f"http://127.0.0.1:{free_port()}")
    exporter.start()
    for _ in range(1_000):
        end(recorder)
    exporter.stop(0.2)
    assert recorder.spans_dropped > 0
    dropped = exporter.dropped()
    assert dropped["queue_full"] == recorder.spans_dropped
    waiting = recorder.take_spans(OFFSET_NS)
    assert sum(dropped.values()) + (waiting[2] if waiting is not None else 0) == 1_000


def test_a_connection_that_the_collector_has_closed_is_made_anew() -> None:
    recorder, port = a_recorder(), free_port()
    exporter = an_exporter(recorder, f"http://127.0.0.1:{port}")
    exporter.start()
    for expected in (1, 2):
        with receiver(port):
            end(recorder)
            eventually(lambda expected=expected: exporter.exported == expected, what="a span")
    exporter.stop()
    assert sum(exporter.dropped().values()) == 0


def test_only_what_is_sampled_or_failed_has_spans() -> None:
    recorder = a_recorder()
    never = RequestIds("r", 0.0, 7)
    end(recorder, never)
    assert recorder.take_spans(OFFSET_NS) is None
    end(recorder, never, status=503)
    taken = recorder.take_spans(OFFSET_NS)
    assert taken is not None
    assert taken[2] == 1
    end(recorder, RequestIds("r"), status=503)
    assert recorder.take_spans(OFFSET_NS) is None


def test_a_url_has_the_path_of_traces_once() -> None:
    def url(endpoint: str) -> str:
        return Collector(endpoint, [], timeout_s=1.0, tls=client_tls(None)).url

    assert url("http://a:4318") == "http://a:4318/v1/traces"
    assert url("https://a:4318/otlp") == "https://a:4318/otlp/v1/traces"
    assert url("http://a:4318/v1/traces") == "http://a:4318/v1/traces"


def test_a_file_of_headers_is_read_and_its_faults_do_not_show_it(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("# ours\n\nAuthorization: Bearer s3cret\nX-Scope-OrgID:team\n")
    assert read_headers(path) == [("Authorization", "Bearer s3cret"), ("X-Scope-OrgID", "team")]
    assert read_headers(None) == []
    for text in ("s3cret", "Host: s3cret", "X Y: s3cret", "Content-Length: 3", "X-Key: s3cret\x01"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="line 1: expected NAME: VALUE") as caught:
            read_headers(path)
        assert "s3cret" not in str(caught.value)
    path.write_text("X-Key: k\n" * (HEADERS_MAX + 1))
    with pytest.raises(ConfigError, match="at most 32 headers"):
        read_headers(path)
