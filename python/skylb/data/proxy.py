"""One request, from accept to complete; reads top to bottom.

accept -> parse -> submit -> (hold) -> push or forward -> connect -> send -> first_byte -> relay -> complete

Failures leave through `Exchange.fail`, which knows the phase, the failure, and whether response
bytes are out. `Exchange.complete` runs exactly once.
"""

import asyncio
from http import HTTPStatus

from skylb import _core
from skylb._core import Digest, Forward, Head, Push, Reject, Relay, RequestError, Scanned
from skylb.clock import monotonic_ns
from skylb.data import answers, giveup, local, waiting
from skylb.data.context import Context
from skylb.data.cors import preflight
from skylb.data.crossing import PeerResponse
from skylb.data.failures import FAILURES, SHORT, failure_of, is_for_client
from skylb.data.phases import Client, Phase, is_front
from skylb.data.reading import Read
from skylb.data.record import record
from skylb.data.relay import Response
from skylb.errors import ConnectError, ShortageError
from skylb.mesh.signing import REFUSED_HEADER, sha256
from skylb.types import NOBODY, Peer, Replica
from skylb.upstream import Connection, Pool

SHORT_PATIENCE_S = 1.0
"""How long a request waits for a connection that this machine lacks something for."""

CLIENT_CLOSED_REQUEST = 499
"""Status in log and metrics for a client that left (nginx's convention); never sent."""


class Exchange:
    """One request and its response.

    Args:
        context: shared parts of the data plane.
        client: where the request came from.
        head: its head.
        body: its whole body, framing removed; charged to the budget already.
        start_ns: when the head was complete.
    """

    __slots__ = (
        "asks_usage",
        "attempts",
        "body",
        "body_digest",
        "bytes_in",
        "charged",
        "client",
        "connecting",
        "context",
        "digest",
        "first_byte_ns",
        "forward",
        "head",
        "heard_ns",
        "held_ns",
        "id",
        "match_blocks",
        "opened",
        "phase",
        "phase_ns",
        "predicted_ttft_ns",
        "request_id",
        "response",
        "start_ns",
        "target",
        "told_ns",
        "whose",
        "withheld",
    )

    def __init__(self, context: Context, client: Client, head: Head, body: bytes, start_ns: int) -> None:
        self.context = context
        self.client = client
        self.head = head
        self.body = body
        self.bytes_in = self.charged = len(body)
        self.start_ns = self.phase_ns = self.heard_ns = start_ns
        self.request_id = head.request_id or context.ids.make()
        self.asks_usage = False
        """The body as it is sent asks for usage, and the client has not."""
        self.body_digest: str | None = None
        """SHA-256 of the body as it is sent, where that was taken beside the loop."""
        self.phase = Phase.SUBMIT
        self.id = 0
        """The engine's id; 0 while the engine does not know the request (any more)."""
        self.digest: Digest | None = None
        self.whose = NOBODY
        self.target: Replica | Peer | None = None
        """Where the present attempt goes."""
        self.forward: Forward | None = None
        """Set while that is a peer."""
        self.attempts = 0
        self.match_blocks = 0
        self.predicted_ttft_ns: int | None = None
        self.held_ns = 0
        self.first_byte_ns = 0
        self.connecting: asyncio.Task[None] | None = None
        self.response: Response | None = None
        self.opened: Relay | None = None
        """Ends the client's stream where no response does; set once the stream has begun before its
        first event."""
        self.told_ns = 0
        self.withheld: Response | None = None
        """An error response kept back until it is known whether another replica may answer."""

    # ---------------------------------------------------------------------- submit

    def read(self, parts: list[bytes]) -> None:
        """Goes on with a large body, charged already, once that has been read beside the loop."""
        self.bytes_in = sum(map(len, parts))
        only_model = self.context.router.only_model()
        self.context.reading.start(self.head, parts, (is_front(self.client), only_model), self.was_read)

    def was_read(self, read: Read | RequestError, /) -> None:
        """The large body was read, or is refused; the client may have left meanwhile."""
        self.charged = self.bytes_in
        if self.phase is Phase.ENDED:
            self.release_body()
        elif isinstance(read, RequestError):
            self.answer_error(read.status, read.code, read.message, param=read.param)
        else:
            self.body, self.asks_usage, self.body_digest = read.body, read.asks_usage, read.digest
            self.submit(read.scanned)

    def start(self) -> None:
        """Answers what browsers ask first, places everything else."""
        if self.head.is_options:
            self.answer(204, b"", headers=preflight(self.head))
            return
        self.submit(self.body)

    def submit(self, body: bytes | Scanned) -> None:
        """Answers local routes, and asks the engine for a place for everything else."""
        try:
            head, client, front = self.head, self.client, is_front(self.client)
            if head.route not in (_core.ROUTE_HEALTH, _core.ROUTE_PING):
                self.whose = self.context.tenants.of(head, client.trusted, client.claims)
            if head.is_local:
                self.answer_locally()
                return
            self.context.router.submit(self, head, body, self.start_ns, front, self.whose, client.claims)
        except RequestError as error:
            self.answer_error(error.status, error.code, error.message, param=error.param)

    def answer_locally(self) -> None:
        """Answers out of what is known here."""
        status, body, code = local.answer(self.head, self.context, self.whose)
        retry_after_s = self.context.limits.retry_after_s if status == 503 else None
        self.answer(status, body, code=code, retry_after_s=retry_after_s)

    def submitted(self, request_id: int, digest: Digest, /) -> None:
        """The engine has read the body and knows the request."""
        self.id = request_id
        self.digest = digest
        asks_usage = self.context.inject_usage and digest.lacks_usage
        self.asks_usage = self.asks_usage or asks_usage
        self.body = digest.edited(self.body, asks_usage)

    def held(self) -> None:
        """No replica has room: wait."""
        self.drop_withheld()
        self.phase = Phase.HOLD
        self.phase_ns = monotonic_ns()

    # ------------------------------------------------------------- push and connect

    def pushed(self, push: Push, replica: Replica, /) -> None:
        """A replica was chosen."""
        self.forward = None
        self.match_blocks = push.match_blocks
        self.predicted_ttft_ns = push.predicted_ttft_ns
        self.attempt(replica, push.attempt)

    def forwarded(self, forward: Forward, peer: Peer, /) -> None:
        """A peer was chosen: from here on it is to us what a replica is."""
        self.forward = forward
        self.match_blocks = forward.match_blocks
        self.predicted_ttft_ns = None
        self.attempt(peer, forward.attempt)

    def attempt(self, target: Replica | Peer, attempt: int) -> None:
        """Takes a connection that waits, or makes one."""
        self.drop_withheld()
        if self.phase is Phase.HOLD:
            self.leave_hold()
        self.target = target
        self.attempts = attempt
        self.heard_ns = self.phase_ns
        connection = self.pool.acquire(target.id)
        if connection is None:
            self.connect(target)
        else:
            self.send(connection, target)

    @property
    def pool(self) -> Pool:
        """Connections to where the present attempt goes."""
        crossing = self.context.crossing
        return self.context.pool if self.forward is None or crossing is None else crossing.pool

    def leave_hold(self) -> None:
        """Adds up the time in the hold."""
        now_ns = monotonic_ns()
        self.held_ns += now_ns - self.phase_ns
        self.phase_ns = now_ns

    def connect(self, target: Replica | Peer) -> None:
        """Opens a connection; ``connected`` or ``connect_failed`` follows."""
        self.phase = Phase.CONNECT
        self.connecting = self.pool.connect(target, self, patience_s=SHORT_PATIENCE_S)

    def connected(self, connection: Connection, /) -> None:
        """The new connection is up."""
        self.connecting = None
        if self.phase is Phase.CONNECT and self.target is not None:
            self.send(connection, self.target)
        else:
            connection.discard()  # the client left while the handshake's last step ran

    def connect_failed(self, error: ConnectError, /) -> None:
        """The replica or peer could not be reached; nothing was sent."""
        self.connecting = None
        if self.phase is not Phase.CONNECT:
            return
        if isinstance(error, ShortageError):
            self.attempts -= 1
            giveup.give_up(self, *SHORT)
        else:  # its text names an address of ours; metrics and log carry the outcome
            self.fail(_core.FAILURE_CONNECT, sent=False)

    # ------------------------------------------------------------------------- send

    def send(self, connection: Connection, target: Replica | Peer) -> None:
        """Writes the request: the head built anew, the body as it came but for its edits."""
        head, body, client = self.head, self.body, self.client
        upstream_head = head.upstream(
            target.authority,
            self.request_id,
            client.peer,
            client.scheme,
            client.trusted,
            target.authorization,
            len(body) if body or head.method == "POST" else -1,
        )
        respond: type[Response] = Response
        forward, crossing = self.forward, self.context.crossing
        if forward is not None and crossing is not None and isinstance(target, Peer):
            digest, front = self.body_digest or sha256(self.body), client.trusted
            upstream_head = crossing.sign(upstream_head, forward, target, head, self.whose, front, digest)
            respond = PeerResponse
        self.phase = Phase.WAIT
        relay = self.relay(self.digest, drop_usage=self.asks_usage, begun=self.opened)
        if self.opened is not None:
            relay.join()
        self.response = respond(self, connection, relay, client.transport.write, client.paused_ns != 0)
        connection.send(upstream_head, body)

    def relay(self, digest: Digest | None, *, drop_usage: bool = False, begun: Relay | None = None) -> Relay:
        """Reads a response, and writes the client's; ``begun`` has told the client whether it closes."""
        head = self.head
        keep_alive = head.keep_alive and not self.context.draining
        relay = Relay(
            head.http11,
            keep_alive if begun is None else not begun.close_client,
            head.is_head,
            self.request_id,
            head.anthropic,
            drop_usage,
            head.route == _core.ROUTE_RESPONSES,
            digest,
        )
        if self.context.cors.lines:
            relay.set_cors(self.context.cors.lines)
        return relay

    # --------------------------------------------------------- first byte and relay

    def first_byte(self, response: Response, /) -> bool:
        """The first body byte is here; a replica's own failure may still be tried elsewhere."""
        relay = response.relay
        if self.forward is not None and relay.refused is not None:
            self.withheld = response
            self.fail(_core.FAILURE_REFUSED, sent=False)
            return False
        failure = failure_of(relay.verdict, self.id, self.context.router)
        if failure is not None and (relay.verdict != HTTPStatus.TOO_MANY_REQUESTS or self.forward is None):
            self.withheld = response
            self.fail(failure, sent=True, status=relay.verdict)
            return False
        now_ns = monotonic_ns()
        self.phase = Phase.RELAY
        self.phase_ns = self.heard_ns = self.first_byte_ns = now_ns
        self.release_body()
        self.context.router.first_byte(self.id, relay, now_ns)
        return True

    def release_body(self) -> None:
        """From here on the request is not sent again."""
        self.context.budget.give(self.charged)
        self.charged = 0
        self.body = b""

    def relayed(self, response: Response, /) -> None:
        """The response is complete: the upstream connection may serve the next request."""
        self.response = None
        relay, connection = response.relay, response.connection
        response.resume()
        if relay.reusable:
            connection.pool.release(connection)
        else:
            connection.discard()
        failed = relay.verdict >= 500
        if self.id:
            self.count(FAILURES[_core.FAILURE_STATUS][0] if failed else "ok")
        outcome = _core.OUTCOME_REPLICA_FAILED if failed else _core.OUTCOME_OK
        status = relay.status if self.opened is None else HTTPStatus.OK
        code = "upstream_error" if failed or status != relay.status else None
        self.complete(outcome, status, code, relay=relay, close=relay.close_client)

    def broken(self, response: Response, /, *, malformed: bool) -> None:
        """The replica closed early or spoke nonsense."""
        stale = not malformed and response.connection.reused and not response.relay.started
        response.discard()
        if stale and self.target is not None and self.phase is Phase.WAIT:
            self.response = None
            self.count("stale")  # closed before it saw the request: no attempt, no failure
            self.connect(self.target)
        else:
            self.fail(_core.FAILURE_BAD_RESPONSE if malformed else _core.FAILURE_RESET, sent=True)

    # --------------------------------------------------------------------- failures

    def fail(self, failure: int, *, sent: bool, status: int = 0) -> None:
        """The attempt failed: try elsewhere, or, with response bytes out, end the response."""
        outcome, code, message = FAILURES[failure]
        if self.id:
            self.count(outcome)
        response, self.response = self.response, None
        if response is not None and response is not self.withheld:
            response.discard()
        if self.phase is not Phase.RELAY:
            self.phase = Phase.SUBMIT
            self.phase_ns = monotonic_ns()
            self.context.router.retry(self.id, failure, sent=sent, now_ns=self.phase_ns, status=status)
        elif response is not None:
            self.cut(response.relay, code, message)

    def withdrawn(self) -> None:
        """The replica is down or wedged: gives the attempt up, and tries elsewhere."""
        giveup.withdraw(self)

    def count(self, outcome: str) -> None:
        """An attempt at a replica ended; forwards are counted by the engine, attempts by who pushes."""
        if self.forward is None:
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
        self.id = 0
        response, self.withheld = self.withheld, None
        if response is not None and is_for_client(response.relay):
            self.response = response
            self.phase = Phase.RELAY
            self.heard_ns = self.first_byte_ns = self.phase_ns
            response.proceed()
            return
        if response is not None:
            response.discard()
        self.answer_error(reject.status, reject.code, reject.message, retry_after_s=reject.retry_after_s)

    def expired(self) -> None:
        """The hold's deadline passed."""
        self.id = 0
        self.leave_hold()
        retry_after_s = self.context.limits.retry_after_s
        self.answer_error(503, "hold_timeout", "no replica had room in time", retry_after_s=retry_after_s)

    def drop_withheld(self) -> None:
        """Another replica will answer: the error response is not needed."""
        response, self.withheld = self.withheld, None
        if response is not None:
            response.discard()

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
        begun = self.client.claims is None or self.attempts > 0
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
                request_id=self.request_id,
                close=close,
                is_head=self.head.is_head,
                retry_after_s=retry_after_s,
                headers=(*headers, *self.context.cors.headers),
            )
        )
        self.complete(_core.OUTCOME_OK, status, code, relay=None, close=close)

    # ------------------------------------------------------- client gone, deadlines

    def client_left(self) -> None:
        """The client is gone, in whatever phase: the replica must hear of it at once."""
        if self.phase is Phase.ENDED:
            return
        connecting, self.connecting = self.connecting, None
        if connecting is not None:
            connecting.cancel()
        response, self.response = self.response, None
        if response is not None:
            response.discard()
        if self.phase is Phase.HOLD:
            self.leave_hold()
        elif self.target is not None:
            self.count("client_left")
        relay = response.relay if response is not None else None
        self.complete(
            _core.OUTCOME_CLIENT_LEFT, CLIENT_CLOSED_REQUEST, "client_left", relay=relay, close=True
        )

    def pause(self) -> None:
        """The client takes no more bytes for now."""
        if self.response is not None:
            self.response.pause()

    def resume(self) -> None:
        """The client takes bytes again."""
        if self.response is not None:
            self.response.resume()

    def sweep(self, now_ns: int) -> None:
        """Looks at the time, four times a second."""
        waiting.look(self, now_ns)

    # --------------------------------------------------------------------- complete

    def complete(
        self, outcome: int, status: int, code: str | None, *, relay: Relay | None, close: bool
    ) -> None:
        """Ends the exchange: engine, budget, record, client. Exactly once."""
        now_ns = monotonic_ns()
        self.phase = Phase.ENDED
        context = self.context
        request_id, self.id = self.id, 0
        if request_id:
            context.router.complete(request_id, outcome, relay, now_ns)
        self.release_body()
        record(self, relay, status, code, now_ns)
        if outcome != _core.OUTCOME_CLIENT_LEFT:
            self.client.finished(close=close, now_ns=now_ns)
