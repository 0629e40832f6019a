"""One client connection: heads and bodies in, error answers, keep-alive, deadlines.

The way of a request: `data_received` gets bytes, `_receive_head` parses the head, `_receive_body` collects
the body. `_begin` makes an `Exchange` and submits it. The exchange writes the answer, and calls `finished`.

In every phase SkyLB notices that a client leaves, by its FIN: it supports no half-closed connections. uvloop
reports no FIN while reading is paused. It is paused only if the client sends further requests too early. Then
`sweep` checks the socket four times a second.

SkyLB closes a connection if an answer's head said so, if it idles too long, or if a head or body is late.
It also does if the next request cannot be found, or if the client takes nothing of an answer for too long.
"""

import asyncio
import re
from contextlib import ExitStack
from typing import cast

from skylb._core import ROUTE_NONE, Head, RequestError, Sender
from skylb.addresses import client_address
from skylb.clock import monotonic_ns
from skylb.data import answers
from skylb.data.answers import refusal
from skylb.data.body import GRACE_S, Body, Patience
from skylb.data.context import PIPELINE_BYTES_MAX, WRITE_HIGH_WATER_BYTES
from skylb.data.failures import SHUTTING_DOWN
from skylb.data.phases import Connections
from skylb.data.proxy import Exchange
from skylb.data.reading import LARGE_BODY_BYTES
from skylb.data.tenants import OverLimitError
from skylb.data.wire import has_left, is_begun
from skylb.keys.ring import Party
from skylb.mesh.signing import Claims

LINGER_S = 1.0
"""Silence after which a refused client's connection closes, where its next request cannot be found."""

_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class ClientConnection(asyncio.Protocol):
    """One client connection: heads and bodies in, one exchange at a time."""

    __slots__ = (
        "_answered_before",
        "_charged_bytes",
        "_patience",
        "_stopped",
        "body",
        "claims",
        "closing",
        "context",
        "deadline_ns",
        "exchange",
        "frontend",
        "guarded",
        "party",
        "paused_ns",
        "peer",
        "pending",
        "scheme",
        "sender",
        "sent_request",
        "since_ns",
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
        self.sender = Sender(None, scheme, False, False)
        self.claims: Claims | None = None
        """What the signature of a peer's forward vouches for; a client has none."""
        self.guarded = self.context.tenants.keyring is not None
        """Requests need a key."""
        self.party: Party | None = None
        """Who sends the present request, where requests need a key."""
        self.exchange: Exchange | None = None
        self.body: Body | None = None
        """The body that the client sends at present. After a refusal SkyLB reads and drops it."""
        self.pending = b""
        """Part of a head, or bytes that came before their turn."""
        self.paused_ns = 0
        """When the client stopped taking what was written; 0 if it takes it. No request begins meanwhile."""
        self.closing = False
        """An answer that closes the connection was written. SkyLB drops what still comes."""
        self.deadline_ns = 0
        """When the head or body under way must be complete, or the next request must have begun."""
        self.since_ns = 0
        """When the connection was made, or its last request ended."""
        self.sent_request = False
        """The client has sent a whole request."""
        self._answered_before = False
        """A request of this connection has been answered."""
        self._patience: Patience | None = None
        """How long SkyLB still reads from a client whose request it has refused."""
        self._stopped = False
        """Reading is paused: the client has sent too much before its turn."""
        self._charged_bytes = 0
        """Bytes charged to the budget: of answers that the client has not taken, and of early requests."""
        self.transport: asyncio.Transport

    # ------------------------------------------------------------------------ accept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = cast(asyncio.Transport, transport)  # what stream servers hand over
        self.since_ns = monotonic_ns()
        self.deadline_ns = self.since_ns + int(self.context.limits.timeouts.head_s * 1e9)
        self.frontend.opened(self)
        with ExitStack() as undo:
            undo.callback(self.transport.abort)  # the loop logs an error in here, and keeps the socket
            self.set_up()
            undo.pop_all()

    def set_up(self) -> None:
        """Reads the client's address, prepares the socket; an exception here ends the connection."""
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        address = client_address(self.transport.get_extra_info("peername"))
        if address is not None:
            self.peer = str(address)
            self.trusted = self.context.trusts(address)
            self.sender = Sender(self.peer, self.scheme, self.trusted, self.trusted)

    def eof_received(self) -> None:
        """FIN: the client left."""
        self._left()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        del exc  # FIN, RST and our own close mean the same for a request: the client is gone
        self.paused_ns = 0
        self.pending = b""
        self._account()
        self._left()
        self.frontend.closed(self)

    def _left(self) -> None:
        exchange, self.exchange = self.exchange, None
        if self.body is not None:
            self.body.drop()
            self.body = None
        if exchange is not None:
            exchange.client_left()

    # ------------------------------------------------------------------------- parse

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: a head, a body, or the next request too early."""
        if self.exchange is not None or self.paused_ns:
            self.pending += data
            self._regulate()
        elif self.body is not None:
            self._receive_body(self.body, data)
        elif not self.closing:
            self._receive_head(self.pending + data if self.pending else data)
        elif self._patience is not None:
            self._patience.heard(len(data))

    def _receive_head(self, data: bytes) -> None:
        if self._answered_before and data[:2] == b"\r\n":
            data = _EMPTY_LINES.sub(b"", data, count=1)  # some clients end a body so (RFC 9112, 2.2)
        try:
            head = self.context.parser.parse(data)
        except RequestError as error:
            self._refuse_head(error, data)
            return
        now_ns = monotonic_ns()
        if head is None:
            if is_begun(data) and not is_begun(self.pending):
                self.deadline_ns = now_ns + int(self.context.limits.timeouts.head_s * 1e9)
            self.pending = data
            return
        self.pending = b""
        if self.guarded:
            try:
                self.party = self.context.tenants.let_in(head, self.trusted, now_ns)
            except RequestError as error:
                error.head = head
                self._refuse_head(error, data)
                return
        start = head.consumed
        length = head.content_length
        if length == len(data) - start and length <= self.context.limits.body_bytes_max:
            self._begin(head, [data[start:]], now_ns)
        else:
            self._begin_body(head, data[start:], now_ns)

    def _begin_body(self, head: Head, rest: bytes, now_ns: int) -> None:
        """Handles a head whose body is incomplete, or comes with bytes of the next request."""
        timeouts = self.context.limits.timeouts
        body = self.body = self._expect(head, now_ns)
        self.deadline_ns = now_ns + int(timeouts.body_s * 1e9)
        waits = head.expect_continue and not rest
        try:
            self._inspect(body, now_ns)
        except RequestError as error:
            if waits:
                self.body = None  # it may come or not: the next bytes could be anything
            self._refuse(error, head)
        else:
            if waits:
                self.transport.write(answers.CONTINUE)
        if self.body is not None and (rest or body.rest is not None):
            self._receive_body(body, rest)

    def _expect(self, head: Head, now_ns: int) -> Body:
        return Body(head, self.context.limits.body_bytes_max, self.context.budget, now_ns)

    def _inspect(self, body: Body, now_ns: int) -> None:
        """Looks at a request before a byte of its body is kept.

        Raises:
            RequestError: the body is not wanted.
        """
        if self.party is not None:
            self.context.tenants.check_limits(body.head, self.party, self.context.router, now_ns)
        if body.too_large:
            limit = self.context.limits.body_bytes_max
            raise refusal("body_too_large", f"the body may have {limit} bytes")

    def _receive_body(self, body: Body, data: bytes) -> None:
        if self._patience is not None:
            self._patience.heard(len(data))
        try:
            body.feed(data)
        except RequestError as error:
            if self._patience is not None:
                self._wind_up(monotonic_ns())
                return
            self._refuse(error, body.head)
        if self.body is body and body.rest is not None:
            self._body_ends(body, body.rest)

    def _body_ends(self, body: Body, rest: bytes) -> None:
        self.body = None
        self.pending = rest
        if self._patience is not None:
            self.finished(close=self.closing, now_ns=monotonic_ns())
        else:
            self._begin(body.head, body.taken(), body.start_ns)

    # ---------------------------------------------------------------------- exchange

    def _begin(self, head: Head, parts: list[bytes], now_ns: int) -> None:
        """Head and body are complete."""
        length = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        if not self.context.budget.take(length):
            self._refuse(refusal("overloaded", "too many request bytes in memory"), head)
            return
        self.sent_request = True
        if length <= LARGE_BODY_BYTES or head.route == ROUTE_NONE:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self.exchange = exchange = Exchange(self.context, self, head, body, now_ns)
            exchange.submit(body)
        else:
            self.exchange = exchange = Exchange(self.context, self, head, b"", now_ns)
            exchange.read_large_body(parts)

    def finished(self, *, close: bool, now_ns: int) -> None:
        """The exchange is over: closes if the answer's head said so, else handles bytes that came early."""
        self.exchange = None
        self.since_ns = now_ns
        self._patience = None
        self._answered_before = True
        if close:
            self._hang_up(now_ns)
            return
        self.deadline_ns = now_ns + self.context.idle_ns
        if self.pending or self._charged_bytes:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Handles bytes that came before their turn, one request at a time."""
        if self.exchange is None and not self.paused_ns and not self.transport.is_closing():
            data, self.pending = self.pending, b""
            if data:
                self.data_received(data)
        self._regulate()

    def _regulate(self) -> None:
        """Pauses reading while too many bytes wait for their turn; else resumes it."""
        waits = self.exchange is not None or self.paused_ns != 0
        stop = waits and len(self.pending) > PIPELINE_BYTES_MAX
        if stop != self._stopped and not self.transport.is_closing():
            self._stopped = stop
            if stop:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()
        self._account()

    def _account(self) -> None:
        """Charges the budget for bytes of answers that are not taken, and of early requests."""
        owed = len(self.pending)
        if self.paused_ns:
            owed += self.transport.get_write_buffer_size()
        self.context.budget.owe(owed - self._charged_bytes)
        self._charged_bytes = owed

    # ----------------------------------------------------------------------- refusal

    def _refuse_head(self, error: RequestError, data: bytes) -> None:
        """Refuses a request by its head. If its end can be found, the connection stays usable."""
        head = error.head
        self.pending = b""
        if head is None:
            self._refuse(error, None)
            return
        rest = data[head.consumed :]
        now_ns = monotonic_ns()
        if head.expect_continue and not rest:
            self._refuse(error, head)
            return
        self.body = body = self._expect(head, now_ns)
        error.close = error.close or body.too_large
        self._refuse(error, head)
        self._receive_body(body, rest)

    def _refuse(
        self,
        error: RequestError,
        head: Head | None,
        *,
        headers: answers.Headers = (),
    ) -> None:
        """Answers at once a request that has no exchange.

        SkyLB reads and drops the rest of the request's body. Some clients send everything before they read.
        If SkyLB closed with bytes unread, a reset would destroy the answer (RFC 9112, 9.6).
        """
        close = error.close or head is None or not head.keep_alive or self.context.draining
        now_ns = self._answer_refusal(error, head, close=close, headers=headers)
        body = self.body
        if body is not None:
            body.drop()
        if body is None and not close:
            self.finished(close=False, now_ns=now_ns)
        elif body is None or body.lost:
            self._wind_up(now_ns)
        else:
            self.closing = close
            self._patience = self._have_patience(now_ns, GRACE_S)

    def _answer_refusal(
        self,
        error: RequestError,
        head: Head | None,
        *,
        close: bool,
        headers: answers.Headers = (),
    ) -> int:
        request_id = (head.request_id if head is not None else None) or self.context.ids.make()
        tenant = None
        if isinstance(error, OverLimitError):
            headers, tenant = (*headers, *error.headers), error.tenant
        self.transport.write(
            answers.refused(
                error,
                head,
                request_id=request_id,
                close=close,
                retry_after_s=self.context.limits.retry_after_s,
                headers=(*headers, *self.context.cors.headers),
            )
        )
        now_ns = monotonic_ns()
        self.context.refuse(error, self.sender, request_id, head, now_ns, tenant)
        return now_ns

    def _have_patience(self, now_ns: int, window_s: float) -> Patience:
        timeouts = self.context.limits.timeouts
        self.deadline_ns = now_ns + int((timeouts.body_s + GRACE_S) * 1e9)  # the patience ends before
        return Patience(
            now_ns,
            total_s=timeouts.body_s,
            window_s=window_s,
            bytes_per_s_min=timeouts.body_bytes_per_s_min,
        )

    # ----------------------------------------------------------------------- closing

    def _wind_up(self, now_ns: int) -> None:
        """Ends a connection on which the next request cannot be found: reads until the client is silent."""
        self.closing = True
        self.body = None
        self.pending = b""
        self._patience = self._have_patience(now_ns, LINGER_S)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _hang_up(self, now_ns: int) -> None:
        """Closes after an answer whose head said so. If the client has sent more, SkyLB reads that first."""
        if self.pending:
            self._wind_up(now_ns)
            self._regulate()
        else:
            self._close(now_ns)

    def _close(self, now_ns: int) -> None:
        """Closes once everything written has gone out, or after the write-stall time."""
        self.closing = True
        self.body = None
        self._patience = None
        self.deadline_ns = now_ns + int(self.context.limits.timeouts.write_stall_s * 1e9)
        self.transport.close()

    def abort(self) -> None:
        """Cuts the connection; `connection_lost` follows."""
        self.transport.abort()

    # ----------------------------------------------------- back-pressure and deadlines

    def pause_writing(self) -> None:
        """The client does not take what was written."""
        self.paused_ns = monotonic_ns()
        self._account()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        paused_ns, self.paused_ns = self.paused_ns, 0
        self._account()
        if self.exchange is not None:
            self.exchange.resume()
            return
        if self.body is not None:
            waited_ns = monotonic_ns() - paused_ns  # nothing of it was taken meanwhile
            self.body.start_ns += waited_ns
            self.deadline_ns += waited_ns
        if self.pending or self._charged_bytes:
            asyncio.get_running_loop().call_soon(self._go_on)

    def sweep(self, now_ns: int) -> None:
        """Checks the deadline of what the connection waits for."""
        if self._is_given_up(now_ns):
            self.abort()
        elif self.exchange is not None:
            self.exchange.sweep(now_ns)
        elif self.paused_ns:
            return
        elif self._patience is not None and self._patience.over(now_ns):
            self._close(now_ns)
        elif now_ns > self.deadline_ns:
            self._timed_out(now_ns)
        elif self.body is not None and self._patience is None:
            self._check_rate(self.body, now_ns)

    def _is_given_up(self, now_ns: int) -> bool:
        """Whether the client left while reading was paused, or has taken nothing for too long."""
        stall_ns = self.context.limits.timeouts.write_stall_s * 1e9
        stalled = self.paused_ns != 0 and now_ns - self.paused_ns > stall_ns
        return stalled or (self._stopped and has_left(self.transport))

    def _check_rate(self, body: Body, now_ns: int) -> None:
        elapsed_s = (now_ns - body.start_ns) / 1e9
        if (
            elapsed_s > GRACE_S
            and body.charged < elapsed_s * self.context.limits.timeouts.body_bytes_per_s_min
        ):
            self._refuse(refusal("body_timeout", "the request body came too slowly"), body.head)

    def _timed_out(self, now_ns: int) -> None:
        if self.transport.is_closing():
            self.abort()
        elif self.body is not None and self._patience is None:
            self._refuse(refusal("body_timeout", "the request body did not come in time"), self.body.head)
        elif not self.closing and is_begun(self.pending):
            self._refuse(refusal("head_timeout", "the request head did not come in time"), None)
        else:
            self._close(now_ns)

    def drain(self) -> None:
        """Closes soon if idle; a request under way, or one that comes at this moment, is answered first."""
        if self.idle:
            now_ns = monotonic_ns()
            self.deadline_ns = min(self.deadline_ns, now_ns + self.context.idle_ns)

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        busy = self.exchange is not None or self.body is not None or self.closing
        return not busy and not is_begun(self.pending)

    def close_idle(self) -> None:
        """Closes an idle connection at once."""
        self._close(monotonic_ns())

    def shut_down(self) -> None:
        """The process ends: a client that has begun a request gets an answer that says so."""
        if self.idle:
            self._close(monotonic_ns())
        elif not self.closing and self._patience is None:
            self._refuse(refusal(*SHUTTING_DOWN), self.body.head if self.body is not None else None)
