"""One request, from accept to complete. The methods stand in the order in which they run.

accept -> parse -> submit -> (hold) -> push or forward -> connect -> send -> first_byte -> relay -> complete

A method whose name is a participle (`pushed`, `relayed`, `client_left`) is called when that has happened. One
whose name is a command (`submit`, `send`, `fail`) does it. Every failure of an attempt goes through
`Exchange.fail`. `Exchange.complete` runs exactly once.
"""

from collections.abc import Sequence
from http import HTTPStatus

from skylb import _core
from skylb._core import Forward, Head, Push, Reject, Relay, Request, RequestError, Scanned
from skylb.clock import monotonic_ns
from skylb.data import answers, asking, continuing, giveup, local, waiting
from skylb.data.context import Context
from skylb.data.cors import preflight
from skylb.data.crossing import PeerLeg
from skylb.data.failures import FAILURES, SHORT, is_for_client
from skylb.data.heads import head_for
from skylb.data.leg import Leg
from skylb.data.phases import CONNECT, ENDED, HOLD, PLACE, RELAY, WAIT, Client
from skylb.data.reading import Part, Read, salted
from skylb.data.withholding import withheld
from skylb.errors import ConnectError, ShortageError
from skylb.mesh.signing import REFUSED_HEADER
from skylb.types import Peer, Replica
from skylb.upstream import Connection

SHORT_PATIENCE_S = 1.0
"""How long a request waits for a connection while this machine lacks descriptors, ports or memory."""

CLIENT_CLOSED_REQUEST = 499
"""Status in log and metrics for a client that left (nginx's convention); never sent."""


class Exchange:
    """One request and its response.

    A leg is an attempt at one target, a replica or a peer, with its response. An exchange has at most one leg
    at a time: the leg of the next attempt replaces that of a failed one. All legs spend one budget, which the
    engine keeps: attempts, retries, and the deadline of the hold.

    Args:
        context: shared parts of the data plane.
        client: where the request came from.
        head: its head.
        body: its whole body, framing removed; charged to the budget already.
        start_ns: when the head was complete.
    """

    __slots__ = (
        "body",
        "body_digest",
        "charged",
        "client",
        "comment_ns",
        "context",
        "early_relay",
        "head",
        "in_engine",
        "legs",
        "phase",
        "phase_ns",
        "request",
    )

    def __init__(self, context: Context, client: Client, head: Head, body: bytes, start_ns: int) -> None:
        self.context = context
        self.client = client
        self.head = head
        self.body = body
        self.charged = length = len(body)
        self.phase = PLACE
        self.phase_ns = start_ns
        self.request = Request(head, client.sender, context.ids, start_ns, length)
        self.in_engine = False
        """The engine keeps the request: it was submitted, and has not ended."""
        self.legs: list[Leg] = []
        self.body_digest: str | None = None
        """SHA-256 of the body as it is sent, if the thread that read the body has computed it."""
        self.early_relay: Relay | None = None
        """The relay that has begun the client's stream before its first event. If no response follows, it
        ends the stream with an error event."""
        self.comment_ns = 0
        """When SkyLB last wrote a head or a comment of its own to the client."""

    # ---------------------------------------------------------------------- submit

    def read_large_body(self, parts: list[bytes]) -> None:
        """Has a thread read a large body; `body_read` follows. The body is charged to the budget already."""
        bytes_in = sum(map(len, parts))
        self.request.set_bytes_in(bytes_in)
        try:
            self.name_tenant()  # the body gets its salt, and no priority above that of its terms
        except RequestError as error:
            self.charged = bytes_in
            self.answer_error(error.code, error.message, param=error.param)
            return
        router, tenant = self.context.router, self.request.tenant
        client = self.client
        highest, continues = router.highest_class(tenant), client.claims is None and router.continues(tenant)
        known = (client.sender.front, router.only_model(), tenant, highest, continues)

        def was_read(read: Read | RequestError, /) -> None:
            self.charged = bytes_in
            self.body_read(read)

        party = self.client.party  # where its tokens are limited, its streams must tell them
        usage = self.context.inject_usage, party is not None and party.metered
        self.context.reading.start(self.head, parts, known, was_read, usage=usage)

    def body_read(self, read: Read | RequestError) -> None:
        """The thread has read the large body, or refuses it. The client may have left meanwhile."""
        if self.phase is ENDED:
            self.release_body()
        elif isinstance(read, RequestError):
            self.answer_error(read.code, read.message, param=read.param)
        else:
            self.body, self.body_digest = read.body, read.digest
            self.submit(read.scanned)

    def submit(self, body: bytes | Scanned) -> None:
        """Answers a request for a local route; asks the engine for a place for any other."""
        try:
            if self.head.is_local:
                self.answer_locally()
                return
            claims, party = self.client.claims, self.client.party
            if party is not None:
                self.request.tenant = party.tenant
            elif claims is not None or self.context.tenants.tells:
                self.name_tenant()
            self.in_engine = True
            self.context.router.submit(self, self.request, body, claims)
        except RequestError as error:
            self.in_engine = False
            self.answer_error(error.code, error.message, param=error.param)

    def name_tenant(self) -> None:
        """Finds out the request's tenant."""
        client = self.client
        if client.party is not None:
            self.request.tenant = client.party.tenant
        else:
            self.request.tenant = self.context.tenants.of(self.head, client.trusted, client.claims)

    def answer_locally(self) -> None:
        """Answers a browser's preflight request, and the routes that need no replica."""
        if self.head.is_options:
            self.answer(204, b"", headers=preflight(self.head))
            return
        if self.head.route not in local.PROBES:
            self.name_tenant()
        local.answer(self.head, self.context, self.request.tenant, self.answer_found)

    def answer_found(self, found: local.Answer, /) -> None:
        """The answer to a route that needs no replica is known. The client may have left meanwhile."""
        if self.phase is not ENDED:
            status, body, code, retry_after_s = found
            self.answer(status, body, code=code, retry_after_s=retry_after_s)

    def submitted(self) -> None:
        """The engine has placed the request. What of its body is changed depends on its tenant."""
        self.body = self.request.edited(self.body, self.context.inject_usage)

    def held(self) -> None:
        """No replica has room: wait."""
        self.drop_leg()
        self.phase = HOLD
        self.phase_ns = now_ns = monotonic_ns()
        self.request.hold(now_ns)

    # ------------------------------------------------------------- push and connect

    def pushed(self, push: Push, replica: Replica, /) -> None:
        """A replica was chosen."""
        self.request.pushed(push, replica.name)
        self.begin(Leg(self, replica, None, self.context.pool, self.phase_ns))

    def forwarded(self, forward: Forward, peer: Peer, /) -> None:
        """A peer was chosen. From here on it is treated like a replica."""
        self.request.forwarded_to(forward, peer.name)
        crossing = self.context.crossing
        pool = self.context.pool if crossing is None else crossing.pool_to(peer)
        self.begin(PeerLeg(self, peer, forward, pool, self.phase_ns))

    def begin(self, leg: Leg) -> None:
        """Begins a leg: takes an idle connection of the pool, or makes one."""
        if self.legs:
            self.drop_leg()
        if self.phase is HOLD:
            self.leave_hold()
            leg.heard_ns = self.phase_ns
        self.legs.append(leg)
        if self.context.traces:
            self.request.attempt_begins(monotonic_ns())
        connection = leg.acquire(only_new=not self.request.retry_safe)
        if connection is None:
            self.connect(leg)
        else:
            self.send(leg, connection)

    def drop_leg(self) -> None:
        """Discards the leg of a failed attempt: nothing of its output is needed."""
        if self.legs:
            self.legs.pop().discard()

    def leave_hold(self) -> None:
        """Adds up the time in the hold."""
        if self.phase is HOLD:
            self.phase_ns = now_ns = monotonic_ns()
            self.request.leave_hold(now_ns)

    def connect(self, leg: Leg) -> None:
        """Opens a connection; ``connected`` or ``connect_failed`` follows."""
        self.phase = CONNECT
        leg.connecting = leg.pool.connect(leg.target, self, patience_s=SHORT_PATIENCE_S)

    def connected(self, connection: Connection, /) -> None:
        """The new connection is up."""
        if self.phase is CONNECT:
            leg = self.legs[-1]
            leg.connecting = None
            self.send(leg, connection)
        else:
            connection.discard()  # the client left while the handshake's last step ran

    def connect_failed(self, error: ConnectError, /) -> None:
        """The replica or peer could not be reached."""
        if self.phase is not CONNECT:
            return
        leg = self.legs[-1]
        leg.connecting = None
        if isinstance(error, ShortageError):
            self.request.not_attempted()
            giveup.give_up(self, *SHORT)
        else:  # its text names an address of ours; metrics and log carry the outcome
            if not leg.sent:
                self.request.not_attempted()
            self.fail(_core.FAILURE_CONNECT, sent=leg.sent)

    # ------------------------------------------------------------------------- send

    def send(self, leg: Leg, connection: Connection) -> None:
        """Writes the request: a head built anew, and the body with its edits."""
        if self.early_relay is not None and asking.ask(self, leg, connection):
            return  # the request follows the answer
        body, client = self.body, self.client
        parts: Sequence[Part] = (body,)
        if self.context.isolates and leg.forward is None:  # a peer makes the salt itself
            parts = salted(body, self.request.salt_edits())
        length = len(body) if len(parts) == 1 else sum(map(len, parts))
        head = head_for(self, leg, body, length)
        self.phase = WAIT
        relay = self.make_relay(begun=self.early_relay)
        continuing.attach(self, relay)
        leg.listen(connection, relay, client.transport.write, client.paused_ns != 0)
        connection.send(head, *parts)

    def make_relay(self, *, learn: bool = True, begun: Relay | None = None) -> Relay:
        """A relay, which reads a response and writes the client's.

        Args:
            learn: whether the answer enters the prefix tree.
            begun: the relay that has written the client's head, if one has.
        """
        context = self.context
        if begun is None:
            keep_alive = self.head.keep_alive and not context.draining
        else:
            keep_alive = not begun.close_client
        relay = self.request.relay(keep_alive, learn)
        if context.cors.lines:
            relay.set_cors(context.cors.lines)
        return relay

    # --------------------------------------------------------- first byte and relay

    def first_byte(self, leg: Leg, /) -> bool:
        """The first body byte is here. ``False``: SkyLB withholds this error, and tries elsewhere."""
        relay = leg.relay
        if (leg.forward is not None or relay.verdict >= 400) and self.withholds(leg, relay):
            return False
        self.phase = RELAY
        self.phase_ns = leg.heard_ns = now_ns = monotonic_ns()
        self.release_body()
        self.context.router.first_byte(self.request, relay, now_ns)
        return True

    def withholds(self, leg: Leg, relay: Relay) -> bool:
        """Whether this is an error that another replica may answer better; reports the attempt as failed."""
        failure = withheld(leg, relay, self.request, self.context)
        if failure is None:
            return False
        leg.withhold()
        refused = failure == _core.FAILURE_REFUSED
        self.fail(failure, sent=not refused, status=0 if refused else relay.verdict)
        return True

    def release_body(self) -> None:
        """Drops the body: from here on the request is not sent again."""
        self.context.budget.give(self.charged)
        self.charged = 0
        self.body = b""

    def relayed(self, leg: Leg, /) -> None:
        """The response is complete: the upstream connection may serve the next request."""
        relay = leg.relay
        if leg.paused:
            leg.resume()
        leg.give_back()
        failed = relay.verdict >= 500
        if self.in_engine and leg.forward is None:
            self.context.recorder.attempt("status" if failed else "ok")
        outcome = _core.OUTCOME_REPLICA_FAILED if failed else _core.OUTCOME_OK
        status = relay.status if self.early_relay is None else 200
        code = "upstream_error" if failed or status != relay.status else None
        self.complete(outcome, status, code, relay=relay, close=relay.close_client)

    def broken(self, leg: Leg, /, *, malformed: bool) -> None:
        """The replica closed the connection early, or its response is malformed."""
        stale = not malformed and self.phase is WAIT and leg.is_stale(monotonic_ns())
        leg.discard()
        if stale:
            self.count(leg, "stale")  # no attempt, no failure
            self.connect(leg)
        else:
            failure = _core.FAILURE_BAD_RESPONSE if malformed else _core.FAILURE_RESET
            said = leg.relay.failed or leg.relay.verdict
            told = said if malformed and said >= 500 else 0
            self.fail(_core.FAILURE_STATUS if told else failure, sent=True, status=told)

    # --------------------------------------------------------------------- failures

    def fail(self, failure: int, *, sent: bool, status: int = 0) -> None:
        """The attempt failed: SkyLB tries elsewhere; a response that has begun goes on there, or ends."""
        outcome, code, message = FAILURES[failure]
        leg = self.legs[-1]
        if self.in_engine:
            self.count(leg, outcome)
        if not leg.withheld:
            leg.discard()
        if self.phase is not RELAY:
            self.phase = PLACE
            self.phase_ns = now_ns = monotonic_ns()
            continuing.wait(self)
            self.context.router.retry(self.request, failure, sent=sent, now_ns=now_ns, status=status)
        elif not continuing.go_on(self, leg, failure, status):
            self.cut(leg.relay, code, message)

    def withdrawn(self) -> None:
        """The replica is down or wedged: gives the attempt up, and tries elsewhere."""
        giveup.withdraw(self)

    def count(self, leg: Leg, outcome: str) -> None:
        """Counts an attempt at a replica; the engine counts forwards."""
        if leg.forward is None:
            self.context.recorder.attempt(outcome)

    def cut(self, relay: Relay, code: str, message: str) -> None:
        """Ends a response that has begun: a stream by one error event, any other by a closed connection."""
        event = relay.cut(message, code)
        if event:
            self.client.transport.write(event)
        else:
            self.client.abort()
        close = not event or relay.close_client
        self.complete(_core.OUTCOME_REPLICA_FAILED, relay.status, code, relay=relay, close=close)

    def rejected(self, reject: Reject, /) -> None:
        """The engine gives up: the client gets the replica's own error if there is one, else ours."""
        self.in_engine = False
        self.leave_hold()
        continuing.gave_up(self)
        leg = self.legs[-1] if self.legs else None
        # Its answer is no part of the stream.
        goes_on = self.early_relay is not None and self.early_relay.keeps
        if leg is not None and leg.withheld and not goes_on and is_for_client(leg.relay):
            self.phase = RELAY
            self.phase_ns = leg.heard_ns = now_ns = monotonic_ns()
            self.request.first_byte(now_ns)
            leg.proceed(paused=self.client.paused_ns != 0)
            return
        if leg is not None:
            leg.discard()
        self.answer_error(reject.code, reject.message, retry_after_s=reject.retry_after_s)

    def expired(self) -> None:
        """The hold's deadline passed."""
        self.in_engine = False
        self.leave_hold()
        continuing.gave_up(self)
        retry_after_s = self.context.limits.retry_after_s
        self.answer_error("hold_timeout", "no replica had room in time", retry_after_s=retry_after_s)

    # ------------------------------------------------------------------ own answers

    def answer_error(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Writes an error in the form of the API that was called; as an event if the stream has begun."""
        relay = self.early_relay
        if relay is not None:
            self.client.transport.write(relay.cut(message, code, answers.status_of(code)))
            self.complete(_core.OUTCOME_OK, HTTPStatus.OK, code, relay=relay, close=relay.close_client)
            return
        body = answers.error_body(code, message, param=param, anthropic=self.head.anthropic)
        status = answers.status_of(code)
        self.answer(status, body, code=code, retry_after_s=retry_after_s, headers=self.refusal(code))

    def refusal(self, code: str) -> answers.Headers:
        """A header that says to a peer that no attempt here counts, so that it tries elsewhere."""
        begun = self.client.claims is None or self.request.attempts > 0
        return () if begun else ((REFUSED_HEADER, code),)

    def answer(
        self,
        status: int,
        body: bytes,
        *,
        code: str | None = None,
        retry_after_s: int | None = None,
        headers: answers.Headers = (),
    ) -> None:
        """Writes a response of our own and completes."""
        close = not self.head.keep_alive or self.context.draining
        self.client.transport.write(
            answers.response(
                status=status,
                body=body,
                request_id=self.request.request_id,
                close=close,
                is_head=self.head.is_head,
                retry_after_s=retry_after_s,
                headers=(*headers, *self.own_headers()),
            )
        )
        self.complete(_core.OUTCOME_OK, status, code, relay=None, close=close)

    def own_headers(self) -> answers.Headers:
        """What every answer of ours has: the limits of the tenant, and CORS."""
        return (*answers.fields_of(self.request.rate_limit), *self.context.cors.headers)

    # ------------------------------------------------------- client gone, deadlines

    def client_left(self) -> None:
        """The client has left. In every phase SkyLB closes the connection to the replica at once."""
        if self.phase is ENDED:
            return
        leg = self.legs[-1] if self.legs else None
        relay = leg.relay if leg is not None and leg.connection is not None else None
        if leg is not None:
            leg.discard()
        if self.phase is HOLD:
            self.leave_hold()
        elif leg is not None and not leg.withheld:
            self.count(leg, "client_left")
        self.complete(
            _core.OUTCOME_CLIENT_LEFT, CLIENT_CLOSED_REQUEST, "client_left", relay=relay, close=True
        )

    def pause(self) -> None:
        """The client takes no more bytes for now."""
        if self.legs:
            self.legs[-1].pause()

    def resume(self) -> None:
        """The client takes bytes again."""
        if self.legs:
            self.legs[-1].resume()

    def sweep(self, now_ns: int) -> None:
        """Checks the deadlines, four times a second."""
        waiting.look(self, now_ns)

    # --------------------------------------------------------------------- complete

    def complete(
        self, outcome: int, status: int, code: str | None, *, relay: Relay | None, close: bool
    ) -> None:
        """Ends the exchange for the engine, the budget, the record and the client. Runs exactly once."""
        now_ns = monotonic_ns()
        self.phase = ENDED
        context, request = self.context, self.request
        if self.in_engine:
            self.in_engine = False
            context.router.complete(request, outcome, relay, now_ns)
        if self.charged:
            self.release_body()
        self.legs.clear()
        context.recorder.complete(request, relay, status, code, now_ns)
        if outcome != _core.OUTCOME_CLIENT_LEFT:
            self.client.finished(close=close, now_ns=now_ns)
