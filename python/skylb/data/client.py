"""One client connection: heads and bodies in, error answers, keep-alive, deadlines.

A client's leaving must be seen in every phase, and uvloop reports no FIN while reading is paused:
so reading is never paused on a client whose request is complete. FIN is leaving; there are no
half-closed clients.
"""

import asyncio
from contextlib import ExitStack
from typing import Protocol, cast

from skylb._core import ChunkedDecoder, Head, RequestError
from skylb.addresses import client_address
from skylb.clock import monotonic_ns
from skylb.data import answers
from skylb.data.answers import refusal
from skylb.data.context import PIPELINE_BYTES_MAX, WRITE_HIGH_WATER_BYTES, Context
from skylb.data.proxy import Exchange
from skylb.signing import Claims

LINGER_S = 1.0
"""How long a refused client may go on sending before the socket is closed under it (RFC 9112 9.6)."""

LINGER_BYTES_MAX = 256 << 10
"""How much a refused client may go on sending."""

BODY_GRACE_S = 5.0
"""A body's minimum rate counts from here on."""


class Connections(Protocol):
    """What keeps the client connections."""

    context: Context

    def opened(self, connection: "ClientConnection", /) -> None:
        """A client connected."""

    def closed(self, connection: "ClientConnection", /) -> None:
        """A client connection is gone."""


class ClientConnection(asyncio.Protocol):
    """One client connection: heads and bodies in, one exchange at a time."""

    __slots__ = (
        "body_start_ns",
        "charged",
        "chunks",
        "claims",
        "closing",
        "context",
        "deadline_ns",
        "decoder",
        "discarded",
        "exchange",
        "frontend",
        "head",
        "paused_ns",
        "peer",
        "pending",
        "scheme",
        "transport",
        "trusted",
    )

    def __init__(self, frontend: Connections, scheme: str) -> None:
        self.frontend = frontend
        self.context = frontend.context
        self.scheme = scheme
        self.peer: str | None = None
        """The client's address; a Unix socket has none."""
        self.trusted = False
        self.claims: Claims | None = None
        """What the signature of a peer's forward vouches for; a client has none."""
        self.exchange: Exchange | None = None
        self.pending = b""
        """Part of a head, or pipelined bytes behind the exchange under way."""
        self.head: Head | None = None
        """A head whose body is not complete yet."""
        self.chunks: list[bytes] = []
        self.charged = 0
        self.decoder: ChunkedDecoder | None = None
        self.body_start_ns = 0
        self.paused_ns = 0
        self.closing = False
        """An answer that closes the connection is out; what still comes is thrown away."""
        self.discarded = 0
        self.deadline_ns = 0
        self.transport: asyncio.Transport

    # ------------------------------------------------------------------------ accept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = cast(asyncio.Transport, transport)  # what stream servers hand over
        self.deadline_ns = monotonic_ns() + int(self.context.limits.timeouts.head_s * 1e9)
        self.frontend.opened(self)
        with ExitStack() as undo:
            undo.callback(self.transport.abort)  # the loop logs an error in here, and keeps the socket
            self.set_up()
            undo.pop_all()

    def set_up(self) -> None:
        """Looks at who connected, and prepares the socket; what fails in here ends the connection."""
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        address = client_address(self.transport.get_extra_info("peername"))
        if address is not None:
            self.peer = str(address)
            self.trusted = self.context.trusts(address)

    def eof_received(self) -> None:
        """FIN: the client left."""
        self._left()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        del exc  # FIN, RST and our own close are one to a request: the client is gone
        self._left()
        self.frontend.closed(self)

    def _left(self) -> None:
        exchange, self.exchange = self.exchange, None
        self._drop_body()
        if exchange is not None:
            exchange.client_left()

    # ------------------------------------------------------------------------- parse

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: a head, a body, or the next request too early."""
        if self.closing:
            self._linger(data)
        elif self.exchange is not None:
            self._pipeline(data)
        elif self.head is not None:
            self._receive_body(data)
        else:
            self._receive_head(self.pending + data if self.pending else data)

    def _pipeline(self, data: bytes) -> None:
        self.pending += data
        if len(self.pending) > PIPELINE_BYTES_MAX:
            self.abort()

    def _receive_head(self, data: bytes) -> None:
        try:
            head = self.context.parser.parse(data)
        except RequestError as error:
            self._refuse_head(error, data)
            return
        now_ns = monotonic_ns()
        if head is None:
            if not self.pending:
                self.deadline_ns = now_ns + int(self.context.limits.timeouts.head_s * 1e9)
            self.pending = data
            return
        self.pending = b""
        start = head.consumed
        length = head.content_length
        if length == len(data) - start and length <= self.context.limits.body_bytes_max:
            self._begin(head, data[start:], now_ns)
        else:
            self._begin_body(head, data[start:], now_ns)

    def _begin_body(self, head: Head, rest: bytes, now_ns: int) -> None:
        """The body is not here yet, or the next request is here already."""
        limits = self.context.limits
        if head.content_length > limits.body_bytes_max:
            self._refuse(
                refusal(413, "body_too_large", f"the body may have {limits.body_bytes_max} bytes"), head
            )
            return
        self.head = head
        self.body_start_ns = now_ns
        self.deadline_ns = now_ns + int(limits.timeouts.body_s * 1e9)
        if head.content_length < 0:
            self.decoder = ChunkedDecoder(limits.body_bytes_max)
        if head.expect_continue and not rest:
            self.transport.write(answers.CONTINUE)
        if rest or head.content_length == 0:
            self._receive_body(rest)

    def _receive_body(self, data: bytes) -> None:
        head, decoder = self.head, self.decoder
        if head is None:
            return
        rest = b""
        if decoder is not None:
            try:
                data = decoder.feed(data)
            except RequestError as error:
                self._refuse(error, head)
                return
            complete, rest = decoder.done, decoder.rest
        else:
            missing = head.content_length - self.charged
            if len(data) > missing:
                data, rest = data[:missing], data[missing:]
            complete = len(data) == missing
        if not self._keep(data):
            return
        if complete:
            self._complete_body(head, rest)

    def _keep(self, data: bytes) -> bool:
        """Charges and keeps a part of the body; refuses the request when memory is short."""
        if not self.context.budget.take(len(data)):
            error = refusal(503, "overloaded", "too many request bytes in memory")
            self._refuse(error, self.head, retry_after_s=self.context.limits.retry_after_s)
            return False
        self.charged += len(data)
        self.chunks.append(data)
        return True

    def _complete_body(self, head: Head, rest: bytes) -> None:
        body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        now_ns = self.body_start_ns
        self.context.budget.give(self.charged)  # `_begin` charges the whole
        self.charged = 0
        self._drop_body()
        self.pending = rest
        self._begin(head, body, now_ns)

    def _drop_body(self) -> None:
        self.context.budget.give(self.charged)
        self.charged = 0
        self.chunks = []
        self.head = None
        self.decoder = None

    # ---------------------------------------------------------------------- exchange

    def _begin(self, head: Head, body: bytes, now_ns: int) -> None:
        """Head and body are complete."""
        if len(self.pending) > PIPELINE_BYTES_MAX:
            self.abort()
            return
        if not self.context.budget.take(len(body)):
            error = refusal(503, "overloaded", "too many request bytes in memory")
            self._refuse(error, head, retry_after_s=self.context.limits.retry_after_s)
            return
        self.exchange = exchange = Exchange(self.context, self, head, body, now_ns)
        exchange.start()

    def finished(self, *, close: bool, now_ns: int) -> None:
        """The exchange is over: close, or go on with what came meanwhile."""
        self.exchange = None
        if close or self.context.draining:
            self._close(now_ns)
        else:
            self.deadline_ns = now_ns + int(self.context.limits.timeouts.client_idle_s * 1e9)
            if self.pending:
                asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self.exchange is None and self.pending and not self.transport.is_closing():
            data, self.pending = self.pending, b""
            self._receive_head(data)

    # ----------------------------------------------------------------------- refusal

    def _refuse_head(self, error: RequestError, data: bytes) -> None:
        """A head without an exchange; where its framing is sound the connection goes on behind it."""
        head = error.head
        if error.close or head is None:
            self._refuse(error, head)
            return
        now_ns = self._answer_refusal(error, head, close=not head.keep_alive)
        self.pending = data[head.consumed :]
        self.finished(close=not head.keep_alive, now_ns=now_ns)

    def _refuse(
        self,
        error: RequestError,
        head: Head | None,
        *,
        retry_after_s: int | None = None,
        headers: answers.Headers = (),
    ) -> None:
        """Answers a request that has no exchange, and closes: its body is not wanted."""
        now_ns = self._answer_refusal(error, head, close=True, retry_after_s=retry_after_s, headers=headers)
        self._drop_body()
        self._linger_close(now_ns)

    def _answer_refusal(
        self,
        error: RequestError,
        head: Head | None,
        *,
        close: bool,
        retry_after_s: int | None = None,
        headers: answers.Headers = (),
    ) -> int:
        anthropic = head is not None and head.anthropic
        body = answers.error_body(
            error.status, error.code, error.message, param=error.param, anthropic=anthropic
        )
        headers = (*headers, *answers.allow_origin(self.context.cors_origin))
        self.transport.write(
            answers.response(
                status=error.status,
                body=body,
                request_id=(head.request_id if head is not None else None) or self.context.ids.make(),
                close=close,
                is_head=head is not None and head.is_head,
                retry_after_s=retry_after_s,
                headers=(*headers, ("Allow", error.allow)) if error.allow else headers,
            )
        )
        now_ns = monotonic_ns()
        self.context.recorder.refused(error.status, error.code, self.peer, now_ns)
        return now_ns

    def _linger_close(self, now_ns: int) -> None:
        """Sends FIN and reads on for a moment: closing on unread bytes would reset the answer away."""
        self.closing = True
        self.pending = b""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.deadline_ns = now_ns + int(LINGER_S * 1e9)
        else:
            self._close(now_ns)

    def _linger(self, data: bytes) -> None:
        self.discarded += len(data)
        if self.discarded > LINGER_BYTES_MAX:
            self.abort()

    def _close(self, now_ns: int) -> None:
        """Closes once everything written has gone out, or after the write-stall time."""
        self.closing = True
        self.deadline_ns = now_ns + int(self.context.limits.timeouts.write_stall_s * 1e9)
        self.transport.close()

    def abort(self) -> None:
        """Cuts the connection; `connection_lost` follows."""
        self.transport.abort()

    # ----------------------------------------------------- back-pressure and deadlines

    def pause_writing(self) -> None:
        """The client does not take what was written."""
        self.paused_ns = monotonic_ns()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        self.paused_ns = 0
        if self.exchange is not None:
            self.exchange.resume()

    def sweep(self, now_ns: int) -> None:
        """Checks the deadline of what the connection waits for."""
        if self.paused_ns and now_ns - self.paused_ns > self.context.limits.timeouts.write_stall_s * 1e9:
            self.abort()
        elif self.exchange is not None:
            self.exchange.sweep(now_ns)
        elif now_ns > self.deadline_ns:
            self._timed_out(now_ns)
        elif self.head is not None:
            self._check_rate(self.head, now_ns)

    def _check_rate(self, head: Head, now_ns: int) -> None:
        elapsed_s = (now_ns - self.body_start_ns) / 1e9
        if (
            elapsed_s > BODY_GRACE_S
            and self.charged < elapsed_s * self.context.limits.timeouts.body_bytes_per_s_min
        ):
            self._refuse(refusal(408, "body_timeout", "the request body came too slowly"), head)

    def _timed_out(self, now_ns: int) -> None:
        if self.closing:
            self.abort()
        elif self.head is not None:
            self._refuse(refusal(408, "body_timeout", "the request body did not come in time"), self.head)
        elif self.pending:
            self._refuse(refusal(408, "head_timeout", "the request head did not come in time"), None)
        else:
            self._close(now_ns)

    def drain(self) -> None:
        """Closes if idle; a request under way is finished first."""
        if self.exchange is None and self.head is None and not self.pending and not self.closing:
            self._close(monotonic_ns())
