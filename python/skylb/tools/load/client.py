"""One request of the load generator, from its first byte out to its last byte in.

There is no task, future or timer per chunk. Bytes come from `skylb.upstream.Connection`, the core's
`ResponseReader` takes off the framing, and each SSE event is decoded into the few fields that matter.

Kinds of error:

================  ==========================================================
``connect``       no connection
``reset``         closed before a response head
``truncated``     closed, or ended, before the answer was complete
``stream_error``  an error event within a stream
``http_NNN``      an answer with this status
``bad_response``  neither HTTP nor the JSON that was expected
``silent``        no byte for ``silence_s``
``client_limit``  ``in_flight_max`` reached: not sent
``other``         any of these, once there are 64 different ones
================  ==========================================================
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from skylb._core import ResponseReader
from skylb.clock import monotonic_ns
from skylb.errors import ConnectError
from skylb.types import Replica
from skylb.upstream import Connection, Pool

EVENT_BYTES_MAX = 4 << 20
"""A line of a stream that is longer is an error."""

ERROR_BODY_BYTES_MAX = 64 << 10


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """The ``usage`` object of OpenAI's API."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens the engine found in its cache; 0 where it does not say."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details is not None else 0


class _Error(msgspec.Struct, gc=False):
    message: str = ""
    code: str | int | None = None


class _Answer(msgspec.Struct, gc=False):
    """An event of a stream, or a whole answer."""

    choices: tuple[_Choice, ...] = ()
    usage: Usage | None = None
    error: _Error | None = None

    @property
    def has_content(self) -> bool:
        for choice in self.choices:
            part = choice.delta or choice.message
            if choice.text or (part is not None and (part.content or part.reasoning_content)):
                return True
        return False


_decoder = msgspec.json.Decoder(_Answer)


class Observer(Protocol):
    """Receives what happens to a request."""

    def content(self, exchange: "Exchange", now_ns: int, /) -> None:
        """A content event arrived; ``exchange.last_ns`` is still that of the one before, or 0."""

    def ended(self, exchange: "Exchange", now_ns: int, /) -> None:
        """The request is over: ``exchange.kind`` is ``None`` if it succeeded. Called once."""


class Exchange:
    """One request and its response.

    Attributes:
        kind: kind of error, ``None`` while under way and after success.
        message: what the error said.
        usage: from the answer, where it has any.
        first_ns: when the first content event came, 0 before.
        last_ns: when the last one came.
        stale: the connection it first went over had been closed meanwhile; it was sent again.
        touched_ns: when something last happened.
    """

    __slots__ = (
        "_body", "_body_bytes", "_body_bytes_max", "_connect", "_connection", "_done", "_finished",
        "_observer", "_pool", "_reader", "_replica", "_request", "_rest", "_stream", "first_ns", "kind",
        "last_ns", "message", "stale", "start_ns", "touched_ns", "usage",
    )  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        replica: Replica,
        request: bytes,
        observer: Observer,
        *,
        stream: bool,
        body_bytes_max: int,
    ) -> None:
        self._pool = pool
        self._replica = replica
        self._request = request
        self._observer = observer
        self._stream = stream
        self._body_bytes_max = body_bytes_max
        self._reader = ResponseReader()
        self._connect: Callable[[], object] | None = None
        self._connection: Connection | None = None
        self._rest = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._done = False
        self._finished = False
        self.start_ns = 0
        self.touched_ns = 0
        self.first_ns = 0
        self.last_ns = 0
        self.stale = False
        self.kind: str | None = None
        self.message = ""
        self.usage: Usage | None = None

    def start(self) -> None:
        """Sends the request, over an idle connection where there is one."""
        self.start_ns = self.touched_ns = monotonic_ns()
        connection = self._pool.acquire(self._replica.id)
        if connection is None:
            self._connect = self._pool.connect(self._replica, self).cancel
        else:
            self.connected(connection)

    def fail(self, kind: str, message: str) -> None:
        """Gives the request up."""
        if not self._finished:
            self._end(kind, message)

    # ------------------------------------------------------------------ what the connection tells

    def connected(self, connection: Connection, /) -> None:
        """The connection is there: sends."""
        self._connect = None
        self._connection = connection
        connection.sink = self
        connection.transport.write(self._request)

    def connect_failed(self, error: ConnectError, /) -> None:
        """There is none to be had."""
        self._connect = None
        self._end("connect", str(error))

    def upstream_data(self, data: bytes, /) -> None:
        """Bytes of the response."""
        now_ns = self.touched_ns = monotonic_ns()
        reader = self._reader
        body = reader.feed(data)
        if body:
            if self._stream and reader.status == 200:
                self._events(body, now_ns)
            else:
                self._collect(body)
        if self._finished:
            return
        if reader.error is not None:
            self._end("bad_response", reader.error)
        elif reader.done:
            self._complete(now_ns)

    def upstream_closed(self, error: Exception | None, /) -> None:
        """The target closed. A reused connection that was closed meanwhile is replaced, once."""
        connection, self._connection = self._connection, None
        reader = self._reader
        if connection is not None and connection.reused and not reader.status and not self.stale:
            self.stale = True
            self._connect = self._pool.connect(self._replica, self).cancel
            return
        reader.eof()
        if reader.done:
            self._complete(monotonic_ns())
        else:
            self._end("truncated" if reader.status else "reset", str(error or "closed"))

    # --------------------------------------------------------------------------------- the body

    def _events(self, body: bytes, now_ns: int) -> None:
        lines = (self._rest + body if self._rest else body).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now_ns)
                if self._finished:
                    return
        if len(self._rest) > EVENT_BYTES_MAX:
            self._end("bad_response", f"a line of more than {EVENT_BYTES_MAX} bytes")

    def _event(self, data: bytes, now_ns: int) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        answer = self._decode(data)
        if answer is None:
            return
        if answer.has_content:
            self._observer.content(self, now_ns)
            self.last_ns = now_ns
            if not self.first_ns:
                self.first_ns = now_ns
        if answer.usage is not None:
            self.usage = answer.usage

    def _decode(self, data: bytes) -> _Answer | None:
        """An event or answer; ``None`` after it has ended the request."""
        try:
            answer = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._end("bad_response", f"{error}: {data[:80]!r}")
            return None
        if answer.error is not None:
            self._end("stream_error", f"{answer.error.code}: {answer.error.message}")
            return None
        return answer

    def _collect(self, body: bytes) -> None:
        self._body_bytes += len(body)
        limit = self._body_bytes_max if self._reader.status == 200 else ERROR_BODY_BYTES_MAX
        if self._body_bytes > limit:
            self._end(
                "bad_response" if self._reader.status == 200 else f"http_{self._reader.status}",
                "body too long",
            )
        else:
            self._body.append(body)

    def _complete(self, now_ns: int) -> None:
        """The response ended as HTTP; whether the answer did is another question."""
        status = self._reader.status
        if self._reader.reusable and self._connection is not None:
            connection, self._connection = self._connection, None
            self._pool.release(connection)
        if status == 200 and self._stream:
            self._end(*((None, "") if self._done else ("truncated", "the stream ended without [DONE]")))
            return
        body = b"".join(self._body)
        if status != 200:
            self._end(f"http_{status}", body[:200].decode("latin-1"))
            return
        answer = self._decode(body)
        if answer is None:
            return
        self.usage = answer.usage
        self.last_ns = now_ns
        self._end(*((None, "") if answer.choices else ("bad_response", "an answer without choices")))

    def _end(self, kind: str | None, message: str) -> None:
        self._finished = True
        self.kind, self.message = kind, message
        cancel, self._connect = self._connect, None
        if cancel is not None:
            cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()
        self._observer.ended(self, monotonic_ns())


def request_head(path: str, authority: str, body_bytes: int, headers: Mapping[str, str]) -> bytes:
    """The head of a POST with a JSON body, and ``headers`` beside the usual ones."""
    further = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n"
        f"Accept: */*\r\n{further}Content-Length: {body_bytes}\r\n\r\n"
    ).encode("latin-1")
