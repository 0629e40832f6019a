"""One client connection of a mock replica: HTTP/1.1 with keep-alive and pipelining.

Heads are read leniently, on purpose: this is the side behind the balancer, and strictness is what is
tested in front of it.
"""

import asyncio
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import msgspec

from skylb._core import ChunkedDecoder, RequestError
from skylb.tools.mock.api import INFERENCE, Context, Shape
from skylb.tools.mock.errors import RefusedError
from skylb.tools.mock.replica import MockReplica, Run
from skylb.tools.mock.routes import JSON, Reply, Routes

HEAD_BYTES_MAX = 64 << 10
PIPELINE_BYTES_MAX = 1 << 20
"""Bytes kept behind a request under way; more closes the connection."""

_FIELD = re.compile(
    rb"^(authorization|content-length|transfer-encoding|connection|expect|x-request-id):[ \t]*([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Head:
    """The parts of a request head that the mock looks at."""

    __slots__ = ("chunked", "close", "continues", "key", "length", "method", "path", "query", "request_id")

    def __init__(self, raw: bytes) -> None:
        line, _, fields = raw.partition(b"\r\n")
        try:
            method, target, version = line.decode("ascii").split(" ")
        except ValueError as error:
            raise RefusedError(400, "Invalid HTTP request received.") from error
        if version != "HTTP/1.1":
            raise RefusedError(505, "This replica speaks HTTP/1.1.")
        self.method = method
        self.path, _, self.query = target.partition("?")
        values = {name.lower(): value for name, value in _FIELD.findall(fields)}
        length = values.get(b"content-length", b"0")
        if _LENGTH.fullmatch(length) is None:
            raise RefusedError(400, "Invalid HTTP request received.")
        self.length = int(length)
        self.chunked = values.get(b"transfer-encoding", b"").lower() == b"chunked"
        self.close = b"close" in values.get(b"connection", b"").lower()
        self.continues = values.get(b"expect", b"").lower() == b"100-continue"
        scheme, _, key = values.get(b"authorization", b"").partition(b" ")
        self.key = key.decode("latin-1") if scheme.lower() == b"bearer" else None
        self.request_id = values.get(b"x-request-id", b"").decode("latin-1") or None


class Clock:
    """The ``Date`` header, and the time that idle connections are measured by; moved by the sweep."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.date = b""
        self.move()

    def move(self) -> None:
        """To the present."""
        self.now_s = time.monotonic()
        self.date = b"date: " + formatdate(time.time(), usegmt=True).encode() + b"\r\nserver: uvicorn\r\n"


class Connection(asyncio.Protocol):
    """A connection; one request at a time is answered, the next waits."""

    __slots__ = (
        "_body_bytes_max",
        "_clock",
        "_close",
        "_connections",
        "_decoder",
        "_feeding",
        "_head",
        "_kept",
        "_missing",
        "_parts",
        "_replica",
        "_routes",
        "_run",
        "_transport",
        "idle_since_s",
    )

    def __init__(
        self,
        replica: MockReplica,
        routes: Routes,
        clock: Clock,
        connections: "set[Connection]",
        body_bytes_max: int,
    ) -> None:
        self._replica = replica
        self._routes = routes
        self._clock = clock
        self._connections = connections
        self._body_bytes_max = body_bytes_max
        self._transport: asyncio.Transport | None = None
        self._kept = b""
        self._feeding = False
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._decoder: ChunkedDecoder | None = None
        self._run: Run | None = None
        self._close = False
        self.idle_since_s: float | None = clock.now_s

    # ------------------------------------------------------------------ what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - either way it is gone
        """The client left, or we closed: a request under way is aborted in the model."""
        self._connections.discard(self)
        self._transport = None
        self._kept = b""
        self._leave()

    def _leave(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.left()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        if self._run is not None:
            self._run.pause()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._run is not None:
            self._run.resume()

    def data_received(self, data: bytes) -> None:
        """Bytes of this request, or of those that come after it."""
        if self._kept:
            data = self._kept + data
        if self._run is None:
            self._feed(data)
        elif len(data) > PIPELINE_BYTES_MAX:
            self.close()
        else:
            self._kept = data

    # ------------------------------------------------------------------ reading

    def _feed(self, data: bytes) -> None:
        """Takes in bytes, and serves every request that is complete until one has to wait."""
        self._feeding = True
        self.idle_since_s = None
        try:
            while data and self._run is None and self._reads():
                if self._head is not None:
                    data = self._take_body(self._head, data)
                elif (rest := self._take_head(data)) is not None:
                    data = rest
                else:
                    break
        except RequestError as error:
            data = self._lost(RefusedError(error.status, error.message))
        except RefusedError as error:
            data = self._lost(error)
        self._kept = data
        self._feeding = False
        if self._run is None and self._head is None:
            self.idle_since_s = self._clock.now_s

    def _reads(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _lost(self, error: RefusedError) -> bytes:
        """The framing is lost: what follows cannot be understood."""
        self._close = True
        self._refuse(error, anthropic=False)
        return b""

    def _take_head(self, data: bytes) -> bytes | None:
        """Reads a head and answers what is left; ``None`` while it is incomplete."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > HEAD_BYTES_MAX:
                raise RefusedError(431, "The request head is too long.")
            return None
        head = Head(data[:end])
        if self._replica.faults.refuse and not head.path.startswith("/mock/"):
            self.abort()
            return b""
        if head.length > self._body_bytes_max:
            raise RefusedError(413, "The request body is too large.")
        self._close = head.close
        rest = data[end + 4 :]
        if head.chunked:
            self._decoder = ChunkedDecoder(self._body_bytes_max)
        elif head.length == 0:
            self._serve(head, b"")
            return rest
        self._head = head
        self._missing = head.length
        if head.continues and not rest:
            self.send(_CONTINUE)
        return rest

    def _take_body(self, head: Head, data: bytes) -> bytes:
        """Reads a body and answers what is left after it."""
        decoder = self._decoder
        if decoder is not None:
            self._parts.append(decoder.feed(data))
            if not decoder.done:
                return b""
            rest = decoder.rest
        else:
            rest = data[self._missing :]
            self._parts.append(data[: self._missing] if rest else data)
            self._missing -= len(self._parts[-1])
            if self._missing:
                return b""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._head = None
        self._decoder = None
        self._parts = []
        self._serve(head, body)
        return rest

    # ------------------------------------------------------------------ serving

    def _serve(self, head: Head, body: bytes) -> None:
        """Answers one request, now or when the model has run it."""
        reader = INFERENCE.get(head.path)
        try:
            self._routes.check_key(head.path, head.key)
            if reader is None:
                self._reply(self._routes.answer(head.method, head.path, head.query, body))
            else:
                self._infer(reader, head, body)
        except RefusedError as error:
            self._refuse(error, anthropic=head.path.startswith("/v1/messages"))
        except msgspec.MsgspecError as error:
            self._refuse(RefusedError(400, str(error)), anthropic=head.path.startswith("/v1/messages"))

    def _infer(self, reader: Callable[[Context, bytes], Shape], head: Head, body: bytes) -> None:
        if head.method != "POST":
            raise RefusedError(405, "Method Not Allowed")
        replica = self._replica
        replica.draw_error()
        context = replica.context(head.request_id)
        run = replica.submit(self, reader(context, body), context.request_id)
        self._run = run
        run.accepted(replica.faults.slow_head_ms / 1000)
        replica.advance()

    # ------------------------------------------------------------------ writing

    def begin_stream(self, preamble: bytes) -> None:
        """Sends the response head of a stream, and its first events."""
        close = b"connection: close\r\n" if self._close else b""
        self.send(b"HTTP/1.1 200 OK\r\n" + self._clock.date + close + _STREAM + preamble)

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        if self._transport is not None:
            self._transport.write(data)

    def finish(self, body: bytes | None) -> None:
        """The run's response is complete; ``body`` is the whole of one that is not streamed."""
        self._run = None
        if body is not None:
            self.send(self._head_of(HTTPStatus.OK, JSON, len(body)) + body)
        self._end()

    def stall(self, body: bytes) -> None:
        """Sends the head and the first byte of a whole response, and nothing more."""
        self.send(self._head_of(HTTPStatus.OK, JSON, len(body)) + body[:1])

    def _reply(self, reply: Reply) -> None:
        head = self._head_of(reply.status, reply.content_type, len(reply.body))
        self.send(head + reply.body)
        self._end()

    def _refuse(self, error: RefusedError, *, anthropic: bool) -> None:
        self._reply(Reply(error.body(anthropic=anthropic), status=error.status))

    def _head_of(self, status: int, content_type: bytes, length: int) -> bytes:
        return b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\ncontent-type: %b\r\n%b\r\n" % (
            status,
            _REASONS.get(status, b"Unknown"),
            self._clock.date,
            length,
            content_type,
            b"connection: close\r\n" if self._close else b"",
        )

    def _end(self) -> None:
        """A response is written: the next request of the connection may come, or may be here."""
        if self._close:
            self.close()
        elif not self._feeding:
            data, self._kept = self._kept, b""
            self._feed(data)

    def cut(self) -> None:
        """Closes after what was sent, in the middle of a response."""
        self._run = None
        self.close()

    def close(self) -> None:
        """Closes after what was sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Resets the connection, without what waits to be sent."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._leave()
