"""One request, from accept to complete; reads top to bottom.

accept -> parse -> submit -> (hold) -> push or forward -> connect -> send -> first_byte -> relay -> complete

Failures leave through `Exchange.fail`, which knows the phase, the failure, and whether response
bytes are out. `Exchange.complete` runs exactly once.
"""

from http import HTTPStatus

from skylb import _core
from skylb._core import Forward, Head, Push, Reject, Relay, Request, RequestError, Scanned
from skylb.clock import monotonic_ns
from skylb.data import answers, giveup, local, waiting
from skylb.data.context import Context
from skylb.data.cors import preflight
from skylb.data.crossing import PeerLeg
from skylb.data.failures import FAILURES, SHORT, failure_of, is_for_client
from skylb.data.leg import Leg
from skylb.data.phases import CONNECT, ENDED, HOLD, RELAY, SUBMIT, WAIT, Client
from skylb.data.reading import Read
from skylb.errors import ConnectError, ShortageError
from skylb.mesh.signing import REFUSED_HEADER, sha256
from skylb.types import Peer, Replica
from skylb.upstream import Connection

SHORT_PATIENCE_S = 1.0
"""How long a request waits for a connection that this machine lacks something for."""

CLIENT_CLOSED_REQUEST = 499
"""Status in log and metrics for a client that left (nginx's convention); never sent."""


class Exchange:
    """One request and its response.

    The work is done in legs, one after the other; each is a part of it at one target, and keeps what it
    put out. At present there is one: a failed attempt's leg is replaced by the next attempt's. All legs
    spend one budget, which the engine keeps: attempts, retries, and the deadline of the hold.

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
        "context",
        "head",
        "known",
        "legs",
        "opened",
        "phase",
        "phase_ns",
        "request",
        "told_ns",
    )

    def __init__(self, context: Context, client: Client, head: Head, body: bytes, start_ns: int) -> None:
        self.context = context
        self.client = client
        self.head = head
        self.body = body
        self.charged = length = len(body)
        self.phase = SUBMIT
        self.phase_ns = start_ns
        self.request = Request(head, client.sender, context.ids, start_ns, length)
        self.known = False
        """The engine knows the request."""
        self.legs: list[Leg] = []
        self.body_digest: str | None = None
        """SHA-256 of the body as it is sent, where that was taken beside the loop."""
        self.opened: Relay | None = None
        """Ends the client's stream where no response does; set once the stream has begun before its
        first event."""
        self.told_ns = 0

    # ---------------------------------------------------------------------- submit

    def read(self, parts: list[bytes]) -> None:
        """Goes on with a large body, charged already, once that has been read beside the loop."""
        bytes_in = sum(map(len, parts))
        self.request.set_bytes_in(bytes_in)
        known = (self.client.sender.front, self.context.router.only_model())

        def was_read(read: Read | RequestError, /) -> None:
            self.charged = bytes_in
            self.was_read(read)

        self.context.reading.start(self.head, parts, known, was_read)

    def was_read(self, read: Read | RequestError) -> None:
        """The large body was read, or is refused; the client may have left meanwhile."""
        if self.phase is ENDED:
            self.release_body()
        elif isinstance(read, RequestError):
            self.answer_error(read.status, read.code, read.message, param=read.param)
        else:
            self.body, self.body_digest = read.body, read.digest
            self.submit(read.scanned)

    def submit(self, body: bytes | Scanned) -> None:
        """Answers what is answered here, and asks the engine for a place for everything else."""
        try:
            if self.head.is_local:
                self.answer_locally()
                return
            claims = self.client.claims
            if claims is not None or self.context.tenants.tells:
                self.name_tenant()
            self.context.router.submit(self, self.request, body, claims)
        except RequestError as error:
            self.answer_error(error.status, error.code, error.message, param=error.param)

    def name_tenant(self) -> None:
        """Finds out the request's tenant."""
        self.request.tenant = self.context.tenants.of(self.head, self.client.trusted, self.client.claims)

    def answer_locally(self) -> None:
        """Answers what browsers ask first, and what is known here."""
        if self.head.is_options:
            self.answer(204, b"", headers=preflight(self.head))
            return
        if self.head.route not in (_core.ROUTE_HEALTH, _core.ROUTE_PING):
            self.name_tenant()
        status, body, code = local.answer(self.head, self.context, self.request.tenant)
        retry_after_s = self.context.limits.retry_after_s if status == 503 else None
        self.answer(status, body, code=code, retry_after_s=retry_after_s)

    def submitted(self) -> None:
        """The engine has read the body and knows the request."""
        self.known = True
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
        """A peer was chosen: from here on it is to us what a replica is."""
        self.request.forwarded_to(forward, peer.name)
        crossing = self.context.crossing
        pool = self.context.pool if crossing is None else crossing.pool
        self.begin(PeerLeg(self, peer, forward, pool, self.phase_ns))

    def begin(self, leg: Leg) -> None:
        """Takes a connection that waits, or makes one."""
        if self.legs:
            self.drop_leg()
        if self.phase is HOLD:
            self.leave_hold()
            leg.heard_ns = self.phase_ns
        self.legs.append(leg)
        connection = leg.pool.acquire(leg.target.id)
        if connection is None:
            self.connect(leg)
        else:
            self.send(leg, connection)

    def drop_leg(self) -> None:
        """The last leg has failed: another target will answer, nothing of this one's output is needed."""
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
        """The replica or peer could not be reached; nothing was sent."""
        if self.phase is not CONNECT:
            return
        self.legs[-1].connecting = None
        if isinstance(error, ShortageError):
            self.request.not_attempted()
            giveup.give_up(self, *SHORT)
        else:  # its text names an address of ours; metrics and log carry the outcome
            self.fail(_core.FAILURE_CONNECT, sent=False)

    # ------------------------------------------------------------------------- send

    def send(self, leg: Leg, connection: Connection) -> None:
        """Writes the request: the head built anew, the body as it came but for its edits."""
        body, client, target = self.body, self.client, leg.target
        head = self.request.upstream(target.authority, target.authorization, len(body))
        forward, crossing = leg.forward, self.context.crossing
        if forward is not None and crossing is not None and isinstance(target, Peer):
            digest = self.body_digest or sha256(body)
            head = crossing.sign(
                head, forward, target, self.head, self.request.tenant, client.trusted, digest
            )
        self.phase = WAIT
        relay = self.relay(begun=self.opened)
        if self.opened is not None:
            relay.join()
        leg.listen(connection, relay, client.transport.write, client.paused_ns != 0)
        connection.send(head, body)

    def relay(self, *, learn: bool = True, begun: Relay | None = None) -> Relay:
        """Reads a response, and writes the client's.

        Args:
            learn: the answer enters the tree.
            begun: has told the client whether its connection closes.
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
        """The first body byte is here; a replica's own failure may still be tried elsewhere."""
        relay = leg.relay
        if (leg.forward is not None or relay.verdict >= 400) and self.withholds(leg, relay):
            return False
        self.phase = RELAY
        self.phase_ns = leg.heard_ns = now_ns = monotonic_ns()
        self.release_body()
        self.context.router.first_byte(self.request, relay, now_ns)
        return True

    def withholds(self, leg: Leg, relay: Relay) -> bool:
        """Keeps an error response back until it is known whether another replica may answer."""
        if leg.forward is not None and relay.refused is not None:
            leg.withheld = True
            self.fail(_core.FAILURE_REFUSED, sent=False)
            return True
        status = relay.verdict
        failure = failure_of(status, self.request, self.context.router)
        if failure is None or (status == HTTPStatus.TOO_MANY_REQUESTS and leg.forward is not None):
            return False
        leg.withheld = True
        self.fail(failure, sent=True, status=status)
        return True

    def release_body(self) -> None:
        """From here on the request is not sent again."""
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
        if self.known and leg.forward is None:
            self.context.recorder.attempt("status" if failed else "ok")
        outcome = _core.OUTCOME_REPLICA_FAILED if failed else _core.OUTCOME_OK
        status = relay.status if self.opened is None else 200
        code = "upstream_error" if failed or status != relay.status else None
        self.complete(outcome, status, code, relay=relay, close=relay.close_client)

    def broken(self, leg: Leg, /, *, malformed: bool) -> None:
        """The replica closed early or spoke nonsense."""
        reused = leg.connection is not None and leg.connection.reused
        stale = not malformed and reused and not leg.relay.started
        leg.discard()
        if stale and self.phase is WAIT:
            self.count(leg, "stale")  # closed before it saw the request: no attempt, no failure
            self.connect(leg)
        else:
            self.fail(_core.FAILURE_BAD_RESPONSE if malformed else _core.FAILURE_RESET, sent=True)

    # --------------------------------------------------------------------- failures

    def fail(self, failure: int, *, sent: bool, status: int = 0) -> None:
        """The attempt failed: try elsewhere, or, with response bytes out, end the response."""
        outcome, code, message = FAILURES[failure]
        leg = self.legs[-1]
        if self.known:
            self.count(leg, outcome)
        if not leg.withheld:
            leg.discard()
        if self.phase is not RELAY:
            self.phase = SUBMIT
            self.phase_ns = now_ns = monotonic_ns()
            self.context.router.retry(self.request, failure, sent=sent, now_ns=now_ns, status=status)
        else:
            self.cut(leg.relay, code, message)

    def withdrawn(self) -> None:
        """The replica is down or wedged: gives the attempt up, and tries elsewhere."""
        giveup.withdraw(self)

    def count(self, leg: Leg, outcome: str) -> None:
        """An attempt at a replica ended; forwards are counted by the engine, attempts by who pushes."""
        if leg.forward is None:
            self.context.recorder.attempt(outcome)

    def cut(self, relay: Relay, code: str, message: str) -> None:
        """One in-band error event for a stream; anything else is cut, never made to look whole."""
        event = relay.cut(message, code)
        if event:
            self.client.transport.write(event)
        else:
            self.client.abort()
        close = not event or relay.close_client
        self.complete(_core.OUTCOME_REPLICA_FAILED, relay.status, code, relay=relay, close=close)

    def rejected(self, reject: Reject, /) -> None:
        """The engine gives up: pass on the replica's own error where there is one, else ours."""
        self.known = False
        leg = self.legs[-1] if self.legs else None
        if leg is not None and leg.withheld and is_for_client(leg.relay):
            self.phase = RELAY
            leg.heard_ns = self.phase_ns
            self.request.first_byte(self.phase_ns)
            leg.proceed()
            return
        if leg is not None:
            leg.discard()
        self.answer_error(reject.status, reject.code, reject.message, retry_after_s=reject.retry_after_s)

    def expired(self) -> None:
        """The hold's deadline passed."""
        self.known = False
        self.leave_hold()
        retry_after_s = self.context.limits.retry_after_s
        self.answer_error(503, "hold_timeout", "no replica had room in time", retry_after_s=retry_after_s)

    # ------------------------------------------------------------------ own answers

    def answer_error(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """A refusal in the shape of the API that was asked: in an event where the stream has begun."""
        relay = self.opened
        if relay is not None:
            self.client.transport.write(relay.cut(message, code, status))
            self.complete(_core.OUTCOME_OK, HTTPStatus.OK, code, relay=relay, close=relay.close_client)
            return
        body = answers.error_body(status, code, message, param=param, anthropic=self.head.anthropic)
        self.answer(status, body, code=code, retry_after_s=retry_after_s, headers=self.refusal(code))

    def refusal(self, code: str) -> answers.Headers:
        """Tells a peer that nothing was begun here, so that it tries elsewhere."""
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
                headers=(*headers, *self.context.cors.headers),
            )
        )
        self.complete(_core.OUTCOME_OK, status, code, relay=None, close=close)

    # ------------------------------------------------------- client gone, deadlines

    def client_left(self) -> None:
        """The client is gone, in whatever phase: the connection to the replica closes at once."""
        if self.phase is ENDED:
            return
        leg = self.legs[-1] if self.legs else None
        relay = None
        if leg is not None:
            relay = leg.relay if leg.connection is not None else None
            leg.discard()
        if self.phase is HOLD:
            self.leave_hold()
        elif leg is not None:
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
        """Looks at the time, four times a second."""
        waiting.look(self, now_ns)

    # --------------------------------------------------------------------- complete

    def complete(
        self, outcome: int, status: int, code: str | None, *, relay: Relay | None, close: bool
    ) -> None:
        """Ends the exchange: engine, budget, record, client. Exactly once."""
        now_ns = monotonic_ns()
        self.phase = ENDED
        context, request = self.context, self.request
        if self.known:
            self.known = False
            context.router.complete(request, outcome, relay, now_ns)
        if self.charged:
            self.release_body()
        self.legs.clear()
        context.recorder.complete(request, relay, status, code, now_ns)
        if outcome != _core.OUTCOME_CLIENT_LEFT:
            self.client.finished(close=close, now_ns=now_ns)
