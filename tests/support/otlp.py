"""A collector for tests: takes OTLP over HTTP, and reads spans with OpenTelemetry's own classes."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

KINDS = {WireSpan.SPAN_KIND_INTERNAL: "internal", WireSpan.SPAN_KIND_SERVER: "server"} | {
    WireSpan.SPAN_KIND_CLIENT: "client"
}


@dataclass(frozen=True)
class Span:
    """One span."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: dict[str, int]
    """When, by name."""
    failed: bool
    state: str
    remote: bool
    """Its parent is known to be of another process."""
    service: dict[str, Any]
    """Of the resource."""

    def within(self, other: "Span") -> bool:
        """Whether it begins and ends while the other one lasts."""
        return other.start_ns <= self.start_ns <= self.end_ns <= other.end_ns


def decoded(body: bytes) -> list[Span]:
    """The spans of a message."""
    message = ExportTraceServiceRequest.FromString(body)
    return [
        _span(span, _values(group.resource.attributes))
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _span(span: WireSpan, service: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        events={event.name: event.time_unix_nano for event in span.events},
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        state=span.trace_state,
        remote=span.flags & 0x300 == 0x300,
        service=service,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


@dataclass
class Receiver:
    """What came, and how it is answered."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    posts: int = 0
    """Requests that came, the refused ones too."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the last request, by name in lower case."""
    status: int = 200
    retry_after: str | None = None
    rejects: int = 0
    """Spans that each answer says it has refused."""
    hold: Event = field(default_factory=Event)
    """No answer is given before this is set."""

    def __post_init__(self) -> None:
        self.hold.set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[Span]:
        """The spans of one name."""
        return [span for span in self.spans if span.name == name]


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """A collector on loopback, in threads of its own."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":  # what a collector that passes spans on sends
                body = gzip.decompress(body)
            found.headers = {name.lower(): value for name, value in self.headers.items()}
            found.posts += 1
            found.hold.wait(30)
            answer = ExportTraceServiceResponse()
            if found.rejects:
                answer.partial_success.rejected_spans = found.rejects
            status = found.status if self.path == "/v1/traces" else 404
            if status == 200:
                found.spans += decoded(body)
            payload = answer.SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(payload)))
            if found.retry_after is not None:
                self.send_header("Retry-After", found.retry_after)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            pass  # the exporter has left

    with Server(("127.0.0.1", port), Handler) as server:
        found.port = server.server_port
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            found.hold.set()
            server.shutdown()
            thread.join()
