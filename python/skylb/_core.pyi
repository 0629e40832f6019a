"""The Rust core: heads, bodies, decisions, relay, records, replica model.

All times are nanoseconds of ``time.monotonic_ns()`` unless a name says otherwise. Calls are
synchronous, short and hold the GIL. Nothing here opens, logs, or reads a clock.
"""

from typing import ClassVar, Final, final

__version__: Final[str]

# --------------------------------------------------------------------------- request heads

ROUTE_NONE: Final = -1
"""``OPTIONS *``, or the head of a 404."""
ROUTE_HEALTH: Final = 0
ROUTE_MODELS: Final = 1
ROUTE_RESPONSES: Final = 4
ROUTE_PING: Final = 20
ROUTE_READINESS: Final = 38
ROUTE_LIVENESS: Final = 39
ROUTE_FLEET: Final = 40

def policies() -> list[tuple[str, str, str]]:
    """Every policy as ``(name, rule, source)``, in the order of the documents."""

def routes() -> list[tuple[str, str, str, str, str]]:
    """Every route as ``(path, methods, body, served by, about)``."""

def errors() -> list[tuple[str, int, str, str, str]]:
    """Every error that a client, a peer or an operator can read, as ``(code, status, side, retry, about)``.
    The status of what is written only within a stream is 0."""

def steering_headers() -> list[tuple[str, str, str]]:
    """Request headers by which an engine can be steered, as ``(name, fate, effect)``."""

def steering_fields() -> list[tuple[str, str, str]]:
    """Body fields by which an engine can be steered, likewise."""

class RequestError(Exception):
    """A refusal that the client caused.

    ``status`` is the HTTP status, ``code`` a stable word (``"unknown_model"``), ``param`` the
    field at fault or ``None``, ``close`` whether the connection must be closed after the answer
    (framing is lost, or a body would have to be read that nobody wants).
    """

    status: int
    code: str
    message: str
    param: str | None
    close: bool
    allow: str | None  # value of the Allow header for a 405
    head: Head | None
    """The head where it could be read whole (404, 405, 415, 417, 501): method, shape of the error
    and request id are known, and unless ``close`` the connection goes on behind ``head.consumed``."""

@final
class HeadParser:
    """Strict parser of HTTP/1.x request heads (RFC 9112), one for the process.

    Args:
        key_header: header whose value is the ring's key, or ``None``.
        cors: answer OPTIONS (204) instead of 405.
        class_header: header in which a trusted front names a request's class, or ``None``.
    """

    def __new__(
        cls, key_header: str | None = None, cors: bool = False, class_header: str | None = None
    ) -> HeadParser: ...
    def parse(self, data: bytes, start: int = 0) -> Head | None:
        """The head that begins at ``data[start]``, or ``None`` while it is incomplete.

        Raises:
            RequestError: 400, 404, 405, 413 (declared length over the limit is the caller's
                affair), 414, 415, 417, 431, 501, 505.
        """

@final
class Head:
    """One parsed request head. Frozen."""

    @property
    def consumed(self) -> int:
        """Bytes of the head, counted from ``start``, the final empty line included."""
    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str:
        """Path without query and without one slash at its end, as the log may show it."""
    @property
    def route(self) -> int: ...
    @property
    def is_local(self) -> bool:
        """The balancer answers it: one of its own routes, or OPTIONS."""
    @property
    def route_name(self) -> str:
        """The route's template: bounded, fit for a metric label."""
    @property
    def is_head(self) -> bool: ...
    @property
    def is_options(self) -> bool: ...
    @property
    def http11(self) -> bool: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def content_length(self) -> int:
        """Declared length; 0 without a body, -1 when chunked."""
    @property
    def expect_continue(self) -> bool: ...
    @property
    def request_id(self) -> str | None:
        """The client's ``X-Request-Id`` where it is acceptable."""
    @property
    def trace_id(self) -> str | None:
        """Trace id of a valid ``traceparent``."""
    @property
    def anthropic(self) -> bool:
        """Errors take Anthropic's shape."""
    def header(self, name: str) -> str | None:
        """First value of a header (lower-case name), decoded as latin-1."""
    def api_key_digest(self) -> bytes | None:
        """SHA-256 of the API key: of ``Authorization: Bearer``, else of ``X-Api-Key`` or ``Api-Key``. That of
        no text where there is none. ``None``: the request needs no key (health, a browser's preflight)."""
    def signed(self) -> bytes:
        """What a forward's signature covers of the head: path and query, then a line for each end-to-end
        field, sorted by name. Left out is what proxies may change: ``Host``, framing and hop-by-hop fields,
        ``Forwarded``, ``X-Forwarded-*``, ``X-Request-Id``, ``traceparent``, ``tracestate``, ``Via``,
        ``CDN-Loop`` and ``Max-Forwards``."""

@final
class ChunkedDecoder:
    """Strict decoder of a chunked request body; trailers are dropped."""

    def __new__(cls, body_bytes_max: int) -> ChunkedDecoder: ...
    def feed(self, data: bytes) -> bytes:
        """The body bytes in ``data``.

        Raises:
            RequestError: 400 on bad framing, 413 over the limit.
        """
    def skip(self, data: bytes, /) -> None:
        """Follows the framing of a body that nobody wants, of whatever size; also behind a 413.

        Raises:
            RequestError: 400 on bad framing.
        """
    @property
    def done(self) -> bool: ...
    @property
    def rest(self) -> bytes:
        """Bytes after the body's end (pipelined), once ``done``."""

# --------------------------------------------------------------------------- requests

@final
class Sender:
    """Who sent a request: a client's connection, or a peer for one forward. Frozen.

    Args:
        address: of the client, or of the peer; ``None`` over a Unix socket.
        scheme: ``http`` or ``https``, for ``X-Forwarded-Proto``.
        trusted: incoming ``X-Forwarded-*`` are believed (kept, and appended to) instead of replaced, and
            headers that steer engines pass.
        front: the class that a head names counts.
        origin: name of the peer that forwards; empty where it has not said so yet.
    """

    def __new__(
        cls, address: str | None, scheme: str, trusted: bool, front: bool, origin: str | None = None, /
    ) -> Sender: ...
    @property
    def front(self) -> bool: ...

@final
class RequestIds:
    """Ids for requests that bring none.

    Args:
        prefix: what they begin with; random for each process.
        sample_ratio: share of the traces begun here whose spans are exported, 0 to 1. ``None``: requests have
            no traces, and a client's ``traceparent`` passes unchanged.
        seed: of the ids in traces; random for each process.
    """

    def __new__(cls, prefix: str, sample_ratio: float | None = None, seed: int = 0, /) -> RequestIds: ...
    @property
    def traces(self) -> bool:
        """Requests have traces."""
    def make(self) -> str:
        """A new id: the prefix, ``-``, and a number in hexadecimal digits."""

@final
class Tenant:
    """The tenant of a request: a name, nobody, or unknown. Frozen; equal by value.

    A request without a tenant is nobody's. One that names a tenant that cannot be believed, or brings a key
    that is not listed, may be anybody's: its tenant is unknown.

    Args:
        name: of the tenant.
    """

    NOBODY: ClassVar[Tenant]
    UNKNOWN: ClassVar[Tenant]
    def __new__(cls, name: str, /) -> Tenant: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    @property
    def name(self) -> str | None:
        """``None`` for nobody and for unknown."""

@final
class Request:
    """One request, from its head to its end: what was asked for, by whom, and what became of it.

    Everything that decides, counts, logs or sends takes this one object. Its parts are filled in the order
    of its life: head, sender (here), digest (`Engine.submit`), then each push, stay in the hold, and first
    byte. The response of an attempt is a `Relay` of its own, since a request may have several attempts.

    Args:
        head: of the request.
        sender: who sent it.
        ids: where its id comes from, if the head has none that is acceptable.
        start_ns: when the head was complete.
        bytes_in: of the body, framing removed.
    """

    def __new__(
        cls, head: Head, sender: Sender, ids: RequestIds, start_ns: int, bytes_in: int, /
    ) -> Request: ...
    @property
    def tenant(self) -> Tenant:
        """For residency, hold and log: of the API key, of a trusted front's header, or of a forward's
        signature. `Tenant.NOBODY` until it is set."""
    @tenant.setter
    def tenant(self, tenant: Tenant, /) -> None: ...
    def set_forwarded(self, hop: int, attempts_left: int, deadline_ns: int, origin: int | None, /) -> None:
        """What the verified signature of a forward says.

        Args:
            hop: 1 from a peer; more is refused.
            attempts_left: replicas that may be tried.
            deadline_ns: until when it may be held.
            origin: the peer that forwarded it; unknown ones are counted and otherwise ignored.
        """
    def set_bytes_in(self, bytes_in: int, /) -> None:
        """The length of a body that is read beside the event loop."""
    @property
    def id(self) -> int:
        """By which effects name it; 0 before it is submitted."""
    @property
    def start_ns(self) -> int: ...
    @property
    def request_id(self) -> str:
        """``X-Request-Id`` of request and response."""
    @property
    def attempts(self) -> int:
        """Attempts made, replicas and peers counted together."""
    @property
    def model(self) -> str | None:
        """``None`` before the body was read, as the next ones are false or 0."""
    @property
    def rate_limit(self) -> bytes | None:
        """Header lines, each with its CR LF, that tell the client the limits of its tenant
        (``x-ratelimit-limit-requests: 600`` and so on), as they stood when the request was placed or
        refused. ``None``: its tenant has no limit per minute, or a peer forwarded it."""
    @property
    def stream(self) -> bool:
        """The client asks for a stream."""
    @property
    def refusal(self) -> str | None:
        """Why its stream cannot go on elsewhere: its body says so, or the context's length is missing."""
    @property
    def retry_safe(self) -> bool:
        """False for ``background`` and ``store: true``: never sent twice."""
    @property
    def prompt_blocks(self) -> int: ...
    @property
    def prompt_bytes(self) -> int: ...
    @property
    def guessed(self) -> bool:
        """In a worker: it was pushed to a replica that may lack its model, while another could be tried."""
    def edited(self, body: bytes, ask_usage: bool, /) -> bytes:
        """The body that it was submitted with, as an engine is to get it: with a model where it names none,
        without a priority that is not believed or whose tenant has a highest class, and where ``ask_usage``,
        with ``stream_options.include_usage`` if it says nothing of that. Where the tokens of the tenant are
        limited, it asks for usage whatever it says. A relay takes such usage out again."""
    def continued(self, relay: Relay, /) -> bytes | None:
        """The body for a replica that is to go on with the stream of this relay.

        It has the ids that the client has, and what else shapes the answer. From now on the request is sent
        to ``/v1/completions``.

        Returns:
            ``None``: the answer has all the tokens that it may have.
        """
    def not_continued(self, reason: str, /) -> None:
        """Its stream broke and does not go on elsewhere, for this reason.

        Raises:
            ValueError: there is no such reason.
        """
    def pushed(self, push: Push, replica: str, /) -> None:
        """An attempt at the replica of this name begins."""
    def forwarded_to(self, forward: Forward, peer: str, /) -> None:
        """An attempt at the peer of this name begins."""
    def attempt_begins(self, now_ns: int, /) -> None:
        """The attempt that was decided last begins to connect or to be sent; for its span."""
    def first_byte(self, now_ns: int, /) -> None:
        """The first body byte of a response that the engine no longer waits for; `Engine.first_byte` says so
        by itself."""
    def not_attempted(self) -> None:
        """The attempt was not made, for a reason of this process."""
    def hold(self, now_ns: int, /) -> None:
        """It enters the hold."""
    def leave_hold(self, now_ns: int, /) -> None:
        """It leaves the hold, if it is there."""
    def salt_edits(self) -> list[tuple[int, int, bytes]]:
        """What a replica is to get besides, where owners are isolated: the salt of their prefix cache.

        Places are those in the body that `edited` gave, or that the thread edited; a peer gets none of it.

        Returns:
            Places in ascending order, as ``(at, bytes that go, bytes that come)``.
        """
    def upstream(
        self,
        host: str,
        authorization: str | None,
        body_len: int,
        drop_credentials: bool = False,
        path: str | None = None,
        /,
    ) -> bytes:
        """The head to send to a replica, built anew from the parse. HEAD goes out as GET: engines
        answer HEAD with 405, and ``Relay`` drops the body.

        Args:
            host: value of ``Host``.
            authorization: replaces the client's ``Authorization``, ``X-Api-Key`` and ``Api-Key`` where given.
            body_len: the body's length in bytes; a request without a body that is no POST has no
                ``Content-Length``.
            drop_credentials: those three headers are left out, whatever replaces them.
            path: another one than the client's, without a query.

        Raises:
            ValueError: a value has control characters; names it.
        """
    def relay(self, keep_alive: bool, learn: bool = True, /) -> Relay:
        """What reads the response to one attempt, and writes the client's.

        Args:
            keep_alive: the client's connection may stay open afterwards.
            learn: the answer is hashed on its way, and enters the tree on completion; usage that only
                we have asked for is taken out.
        """

# --------------------------------------------------------------------------- responses

FEED_WRITE_INPUT: Final = 1
FEED_WRITE_BUFFER: Final = 2
FEED_FIRST_BYTE: Final = 4
FEED_DONE: Final = 8
FEED_FAILED: Final = 16

@final
class Relay:
    """One response on its way from a replica to a client.

    The response head is withheld until the first *body* byte (for SSE the first complete event),
    so that a retry stays possible. Output consists of whole HTTP chunks and whole SSE events only.

    `Request.relay` makes one for each attempt.
    """

    def set_cors(self, lines: bytes, /) -> None:
        """Header lines, each with its CR LF, that stand in place of the replica's own about CORS."""
    def set_rate_limit(self, lines: bytes, /) -> None:
        """Header lines, as `Request.rate_limit` has them, that stand in place of the replica's own
        ``x-ratelimit-*``. `Request.relay` sets them by itself."""
    def feed(self, data: bytes, /) -> int:
        """Takes what the replica sent; returns ``FEED_*`` flags.

        The common case is exactly ``FEED_WRITE_INPUT``: write ``data`` itself. ``FEED_WRITE_BUFFER``:
        write ``take()`` instead. ``FEED_FIRST_BYTE`` comes once, with the first writable body bytes;
        nothing has been written before it, and ``status`` is known. ``FEED_DONE``: the response is
        complete (it may come without FIRST_BYTE when there is no body: the head is then in the
        buffer). ``FEED_FAILED``: the response is malformed, see ``error``; write nothing of this input.
        """
    def resumed(self) -> None:
        """The client takes bytes again: the gap between events under way is not the replica's."""
    def eof(self) -> int:
        """The replica closed its side: ``FEED_*`` flags (DONE for close-delimited bodies)."""
    def take(self) -> bytes:
        """The bytes to write; empties the buffer."""
    def cut(self, message: str, code: str, status: int = 500, /) -> bytes:
        """Ends a response whose body has begun, or whose head is out: for SSE, one error event in the
        shape of the API and the end of the framing; otherwise ``b""`` (the connection must be cut).
        ``status``: what the error would have as an answer; decides its type."""
    def open(self, head: bytes, /) -> bytes:
        """Begins the client's stream before its first event: what to write, with the comments that came.
        ``b""``: the replica has answered with something else. ``head``: of our own, up to where the
        fields of its framing go; used while the replica's is not here."""
    def go_on(self, before: Relay, /) -> None:
        """This response goes on with the stream of another relay, which is suspended."""
    def suspend(self) -> None:
        """The replica is given up, and another one is to go on. What is not written yet is dropped."""
    def finish(self) -> bytes | None:
        """What ends a stream of which only the end is missing: usage, ``[DONE]`` and the framing.

        Returns:
            ``None``: tokens may be missing too.
        """
    def question(self, model: str, /) -> tuple[str, bytes] | None:
        """What a replica that goes on must be asked first, if anything: path and body; see `replied`."""
    def replied(self, status: int, body: bytes, /) -> bool:
        """Takes the answer to `question`. A status other than 200 makes a `refusal`. Another question
        may follow.

        Returns:
            Whether it is an answer at all.
        """
    @property
    def lacks_ids(self) -> bool:
        """It keeps text: the ids of the stream have to be asked for (`question`)."""
    def fill(self) -> bool:
        """The answer has all tokens that it may have: whether `finish` writes its end now."""
    @property
    def failed(self) -> int:
        """The status by which a stream that may go on elsewhere has said that it failed, else 0."""
    @property
    def keeps(self) -> bool:
        """It keeps what another replica needs to go on with the stream."""
    @property
    def refusal(self) -> str | None:
        """Why the stream cannot go on elsewhere from where it is, if it cannot."""
    def join(self) -> None:
        """The client's stream has begun already: this response goes on with it. An answer that is no
        stream becomes an error event in it."""
    def comment(self) -> bytes:
        """A comment for a stream that is silent; ``b""`` where none may stand."""
    @property
    def accepted(self) -> bool:
        """The replica has taken the request for a stream: status 200, ``text/event-stream``."""
    @property
    def commented(self) -> bool:
        """Whole comments came before the first event, and are withheld."""
    @property
    def verdict(self) -> int:
        """The status by which the answer is judged: its own, or that of an error event."""
    @property
    def status(self) -> int:
        """The replica's status, 0 before the head."""
    @property
    def streaming(self) -> bool:
        """The response is ``text/event-stream``."""
    @property
    def reusable(self) -> bool:
        """After DONE: the upstream connection may serve another request."""
    @property
    def close_client(self) -> bool:
        """The client's connection closes behind the response, and its head says so."""
    @property
    def started(self) -> bool:
        """At least one byte arrived from the replica."""
    @property
    def error(self) -> str | None: ...
    @property
    def retry_after_s(self) -> int | None: ...
    @property
    def refused(self) -> str | None:
        """``X-SkyLB-Refused`` of a peer's answer: why it has not begun the request."""
    @property
    def response_id(self) -> str | None: ...
    @property
    def prompt_tokens(self) -> int:
        """From ``usage``; -1 while unknown. Likewise the next two."""
    @property
    def cached_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def bytes_out(self) -> int:
        """Body bytes handed out for the client."""
    @property
    def events(self) -> int:
        """SSE events handed out."""

@final
class ResponseReader:
    """Reads one response without relaying it (probes, load generator): body without framing."""

    def __new__(cls, is_head: bool = False) -> ResponseReader: ...
    def feed(self, data: bytes, /) -> bytes:
        """The body bytes in ``data``. Malformed input sets ``error`` and returns ``b""``."""
    def eof(self) -> None: ...
    @property
    def status(self) -> int: ...
    def header(self, name: str) -> str | None: ...
    @property
    def done(self) -> bool: ...
    @property
    def reusable(self) -> bool: ...
    @property
    def error(self) -> str | None: ...

# --------------------------------------------------------------------------- probes

@final
class Snapshot:
    """What one ``/metrics`` page said. ``None`` is unknown, never zero."""

    @property
    def running(self) -> int | None: ...
    @property
    def waiting(self) -> int | None:
        """Pending requests, without those that wait for something else than room (``deferred``)."""
    @property
    def deferred(self) -> int | None: ...
    @property
    def kv_usage(self) -> float | None: ...
    @property
    def kv_tokens(self) -> int | None: ...
    @property
    def block_size(self) -> int | None: ...
    @property
    def cache_queries(self) -> int | None:
        """Prefix-cache queries since the engine started, in tokens."""
    @property
    def cache_hits(self) -> int | None: ...
    @property
    def preemptions(self) -> int | None: ...
    @property
    def sleeping(self) -> bool: ...
    @property
    def loras_running(self) -> list[str]: ...

def scan_metrics(page: bytes, dialect: str) -> Snapshot:
    """Reads a Prometheus page, looking only for the names it needs (old and new).

    Values summed over engines (data parallel ranks). Absurd values (negative, NaN, infinite) are
    unknown. Never raises for content.

    Raises:
        ValueError: there is no dialect of that name.
    """

def dialects() -> list[tuple[str, bytes, list[str]]]:
    """Engines whose pages can be read: name, what their metrics' names begin with, and the names of the
    metrics that `scan_metrics` reads."""

# --------------------------------------------------------------------------- decisions

FAILURE_CONNECT: Final = 0
FAILURE_RESET: Final = 1
FAILURE_TIMEOUT: Final = 2
FAILURE_FULL: Final = 3
FAILURE_STATUS: Final = 4
FAILURE_BAD_RESPONSE: Final = 5
FAILURE_REFUSED: Final = 6
"""A peer refused a forward and said why; nothing was begun there, so it costs no attempt and no
mark: elsewhere at once."""
FAILURE_LIMITED: Final = 7
"""A replica answered 429: like ``FAILURE_FULL`` (503), but it may take other requests."""
FAILURE_WITHDRAWN: Final = 8
"""The attempt was given up because a ``Withdraw`` said so."""
FAILURE_ABSENT: Final = 9
"""A replica answered 404 to a request that it was sent on a guess (see `Engine.guessed`): no mark."""
FAILURE_UNAUTHORIZED: Final = 10
"""A replica answered 401 to a key of ours: nothing was begun, so it costs no attempt, but it is a mark."""

PROBE_REFUSED: Final = 0
"""Nobody is there: the connection was refused, or no way leads there."""
PROBE_UNCONNECTED: Final = 1
"""No connection came about in time, or not for a reason of ours."""
PROBE_LATE: Final = 2
"""The connection came about, and no whole answer in time."""
PROBE_UNREADABLE: Final = 3
"""Something was answered, but no readable metrics."""
PROBE_UNSENT: Final = 4
"""It was given up before anything was sent: that says nothing of the replica."""

PROBED_UNKNOWN: Final = 0
PROBED_UP: Final = 1
"""The last probe brought a page that could be read."""
PROBED_BLIND: Final = 2
"""It may serve, but its last probe told nothing of its load."""
PROBED_DOWN: Final = 3
"""Nobody is there."""

MESSAGE_SUMMARY: Final = 0
"""Room, and what is held."""
MESSAGE_DIGEST: Final = 1
"""Hot prefixes."""
MESSAGE_SHARE: Final = 2
"""The load of replicas that balancers of one region push to."""
MESSAGE_TENANTS: Final = 3
"""What tenants with limits ask for at a balancer."""
MESSAGE_CACHED: Final = 4
"""Prompts that were pushed to replicas that balancers of one region push to."""

PEER_ALIVE: Final = 0
PEER_UNREACHABLE: Final = 1
"""Not to be reached from here; it may live."""
PEER_DEAD: Final = 2

OUTCOME_OK: Final = 0
OUTCOME_CLIENT_LEFT: Final = 1
OUTCOME_REPLICA_FAILED: Final = 2
OUTCOME_GIVEN_UP: Final = 3

@final
class Push:
    """Send the request to this replica now. It is counted in flight already."""

    @property
    def request_id(self) -> int: ...
    @property
    def replica(self) -> int: ...
    @property
    def attempt(self) -> int:
        """1 for the first."""
    @property
    def match_blocks(self) -> int: ...
    @property
    def predicted_ttft_ns(self) -> int | None:
        """Predicted time from now to the first body byte; None where the answer is not streamed."""

@final
class Forward:
    """Send the request to this peer now. It is counted already, and one of what the peer has
    granted is used up. ``first_byte``, ``retry`` and ``complete`` follow as for a Push."""

    @property
    def request_id(self) -> int: ...
    @property
    def peer(self) -> int: ...
    @property
    def attempt(self) -> int:
        """1 for the first, replicas and peers counted together."""
    @property
    def attempts_left(self) -> int:
        """Replicas that the peer may try; goes into the signature and there into ``set_forwarded``."""
    @property
    def deadline_ns(self) -> int:
        """Until when the peer may hold it, by this process's clock: what is left goes into the
        signature."""
    @property
    def match_blocks(self) -> int: ...

@final
class Hold:
    """The request waits in the hold; a Push, Forward, Reject or Expire follows."""

    @property
    def request_id(self) -> int: ...

@final
class Reject:
    """Answer the client; the engine has forgotten the request."""

    @property
    def request_id(self) -> int: ...
    @property
    def status(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def retry_after_s(self) -> int | None: ...

@final
class Expire:
    """The hold's deadline passed; the engine has forgotten the request."""

    @property
    def request_id(self) -> int: ...

@final
class Withdraw:
    """The request's replica is down or wedged: give up the attempt, which has had no first byte, and
    report it as failed (``FAILURE_WITHDRAWN``)."""

    @property
    def request_id(self) -> int: ...

@final
class Probe:
    """Send the replica a probe now. It is under way until `Engine.observe` or `Engine.observe_failed`
    reports it, also where it is given up. At most one per replica is under way. Only `Engine.tick` asks
    for probes."""

    @property
    def replica(self) -> int: ...

@final
class Tell:
    """Send the peer a message now, and report it with `Engine.written`. The engine counts it as sent. At
    most one of each kind is under way per peer. Only `Engine.tick` yields messages."""

    @property
    def peer(self) -> int: ...
    @property
    def kind(self) -> int:
        """``MESSAGE_*``."""
    @property
    def payload(self) -> bytes:
        """Opaque; a summary has 16 KiB at most, a digest 32 KiB, a share 56 KiB, what is told of
        tenants 16 KiB."""

@final
class Post:
    """Mail waits for a worker: send what `Engine.take_mail` gives. Once until then."""

    @property
    def worker(self) -> int: ...

@final
class Note:
    """A message of the code around the engine to a worker."""

    @property
    def payload(self) -> bytes: ...

@final
class Placed:
    """The engine process has placed a worker's request: class, limits and receipt are in it. More effects
    follow."""

    @property
    def request_id(self) -> int: ...

_Effect = Push | Forward | Hold | Reject | Expire | Withdraw | Post

@final
class ReplicaGauges:
    """One replica's figures for metrics and the live view."""

    @property
    def replica(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def blind(self) -> bool: ...
    @property
    def asleep(self) -> bool:
        """Its engine says that it sleeps, and its load can be read."""
    @property
    def health(self) -> str:
        """``unknown``, ``up``, ``ejected``, ``probing`` (half-open), ``down``."""
    @property
    def in_flight(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def running(self) -> int | None: ...
    @property
    def waiting(self) -> int | None: ...
    @property
    def kv_used(self) -> float | None:
        """Share of its KV cache in use, 0 to 1, as of its last page; ``None`` while it is blind."""
    @property
    def allowance(self) -> int: ...
    @property
    def tree_blocks(self) -> int: ...
    @property
    def pushed_total(self) -> int: ...
    @property
    def failed_total(self) -> int: ...
    @property
    def match_blocks_total(self) -> int: ...
    @property
    def prompt_blocks_total(self) -> int: ...
    @property
    def cached_tokens_total(self) -> int: ...
    @property
    def prompt_tokens_total(self) -> int: ...

@final
class PeerGauges:
    """One peer's figures for metrics, ``skylb peers`` and the live view."""

    @property
    def peer(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def state(self) -> str:
        """``alive``, ``unreachable``, ``dead``."""
    @property
    def available(self) -> bool:
        """Alive, heard of lately, not draining: forwards may go there while it grants room."""
    @property
    def draining(self) -> bool:
        """It takes no forwards: it said so."""
    @property
    def isolated(self) -> bool:
        """The operator wants nothing sent to it."""
    @property
    def rtt_ns(self) -> int | None: ...
    @property
    def jitter_ns(self) -> int: ...
    @property
    def age_ns(self) -> int | None:
        """Since its last summary arrived; ``None`` before the first."""
    @property
    def room(self) -> int:
        """Requests that may be forwarded to it now, all models together."""
    @property
    def granted(self) -> int:
        """Requests that it may still forward to here."""
    @property
    def hold_requests(self) -> int:
        """Requests in its hold, as it said last."""
    @property
    def in_flight(self) -> int:
        """Forwards to it that have not ended."""
    @property
    def forwarded_total(self) -> int: ...
    @property
    def arrived_total(self) -> int:
        """Forwards from it."""
    @property
    def ok_total(self) -> int:
        """Forwards to it by outcome, as the next ones."""
    @property
    def refused_total(self) -> int: ...
    @property
    def failed_total(self) -> int: ...
    @property
    def client_left_total(self) -> int: ...
    @property
    def tree_blocks(self) -> int:
        """Blocks of prompts it is believed to cache."""
    @property
    def digest_prefixes(self) -> int:
        """Hot prefixes that it has told of and that count still."""
    @property
    def digest_age_ns(self) -> int | None:
        """Since its last digest arrived; ``None`` where none counts."""
    @property
    def digest_hits_total(self) -> int:
        """Forwards to it that were chosen by what it had told."""
    @property
    def digest_tokens_total(self) -> int:
        """Of those whose answers told ``cached_tokens``: tokens that it should have cached."""
    @property
    def digest_tokens_found_total(self) -> int:
        """Of those tokens, the ones it had cached."""

@final
class Scanned:
    """What a body says, until it is submitted."""

    def edits(self, ask_usage: bool, count_usage: bool = False, /) -> list[tuple[int, int, bytes]]:
        """What changes on the way to an engine, as `Request.edited` does it: where, how many bytes go, and
        what comes in their place, in the order of their places. ``count_usage``: the tokens of the tenant are
        limited. The request that is submitted with this knows whether its body now asks for usage."""

@final
class Scanner:
    """Reads bodies from any thread; from `Engine.scanner`."""

    def scan(
        self,
        head: Head,
        body: bytes,
        trusted: bool = False,
        only_model: str | None = None,
        tenant: Tenant | None = None,
        highest: str | None = None,
        continues: bool = False,
        /,
    ) -> Scanned:
        """Reads a body without the GIL.

        Args:
            head: of the request.
            body: its body.
            trusted: the sender may steer engines.
            only_model: what a body means that names no model.
            tenant: of the request; nobody's without one.
            highest: the most urgent class that the request may have; see `Engine.highest_class`.
            continues: its stream may go on elsewhere, if its body and model allow it.

        Raises:
            RequestError: the body is refused (400, 415).
            ValueError: ``highest`` is no class.
        """

@final
class StateWriter:
    """Writes what an engine has learned, by calls of `Engine.export_state`.

    Args:
        secret: what the hashes of prompts are keyed by.
        isolation: the key of `Engine.isolate`, if there is one.
        unix_ns: the wall clock.
        bytes_max: of the state: the prefixes that were used longest ago are left out.
        since: ``clock`` of an earlier state, of which this is the rest: what was used since.
    """

    def __new__(
        cls,
        secret: bytes,
        isolation: bytes | None,
        unix_ns: int,
        bytes_max: int,
        since: int | None = None,
    ) -> StateWriter: ...
    @property
    def clock(self) -> int:
        """The tree's clock when the state was begun, once its first parts are written."""

def read_state_head(state: bytes, /) -> tuple[bytes, bytes | None, int]:
    """Checks a whole state: the secret and the key of isolation in it, and the wall clock of its beginning.

    Raises:
        ValueError: damaged, truncated, of another version, or none.
    """

@final
class Engine:
    """The router's state machine.

    ``submit``, ``first_byte``, ``retry``, ``complete``, ``set_*``, ``observe*``, ``merge_peer``,
    ``peer_*`` and ``tick`` return the effects they cause, for any request, in the order they are to be done.

    Args:
        config_json: the engine's settings (``config.EngineSettings``) as JSON; unknown or missing
            fields are errors.
        secret: 16 or more bytes that key the prefix hashes.
        seed: of the generator for random choices.

    Raises:
        ValueError: the settings do not fit, naming the field.
    """

    def __new__(cls, config_json: bytes, secret: bytes, seed: int) -> Engine: ...
    def isolate(self, key: bytes, /) -> None:
        """From now on no two owners (tenants, else credentials) share a prefix cache, or a session's key.
        To be called before a scanner is taken and before the first request.

        Args:
            key: 32 bytes, secret, the same at all balancers in front of the same replicas.

        Raises:
            ValueError: the key has another length.
        """
    def keep_ids(self, bytes_max: int, tokens_max: int, models: list[str], by_text: bool, /) -> None:
        """Sets what is kept of streams while they may go on elsewhere; to be called before the first request.

        Args:
            bytes_max: memory for the ids of all streams.
            tokens_max: ids that are kept of one stream.
            models: those of which streams go on; empty: of all.
            by_text: also where engines send no ids. What the client has is tokenised anew then.
        """
    @property
    def continuing(self) -> bool:
        """Streams go on elsewhere where their requests allow it."""
    def set_continuing(self, on: bool, /) -> None:
        """Lets the streams of requests that are submitted from now on go on elsewhere, or not."""
    @property
    def kept_bytes(self) -> int:
        """Memory of the ids of all streams."""
    def record_prompts(self, on: bool, /) -> None:
        """Requests keep the hashes of their prompts and answers to their end from now on, or no longer."""
    def submit(self, request_id: int, request: Request, body: bytes | Scanned, /) -> tuple[_Effect, ...]:
        """Reads the body and places the request.

        A forwarded request joins the tail of its class, is placed on replicas of this balancer
        only, and is refused (a Reject with status 503, or 403 for ``residency``; its code is the
        reason for ``X-SkyLB-Refused``) when the model is missing or the hold is over
        ``peer_hold_max``.

        Args:
            request_id: not that of a request which has not ended.
            request: learns what its body says.
            body: whole, framing removed; or what a scanner found in it, which can be submitted once.

        Raises:
            RequestError: the body is refused (400, 415); the engine knows nothing of the request.
        """
    def only_model(self) -> str | None:
        """The one model that is served. Empty: none is known; ``None``: several are."""
    def scanner(self) -> Scanner:
        """Reads bodies as `submit` does, beside the event loop."""
    def first_byte(self, request: Request, relay: Relay, now_ns: int, /) -> tuple[_Effect, ...]:
        """The first body byte of the current attempt arrived."""
    def retry(
        self, request: Request, failure: int, sent: bool, now_ns: int, status: int = 0, /
    ) -> tuple[_Effect, ...]:
        """The current attempt failed before its first body byte; ``sent``: request bytes went out;
        ``status``: of the answer, for ``FAILURE_STATUS``.

        Causes a Push or Forward elsewhere, a Hold, or a Reject (attempts, budget or deadline used up,
        or the request has failed alike at another replica).
        """
    def resume(
        self, request: Request, relay: Relay, failure: int, now_ns: int, status: int = 0, /
    ) -> tuple[_Effect, ...]:
        """The stream of the current attempt broke or is left after its first byte, and can go on elsewhere.

        ``relay`` is of that attempt; ``status`` is that of the answer, if it is the failure."""
    def complete(
        self, request: Request, outcome: int, relay: Relay | None, now_ns: int, /
    ) -> tuple[_Effect, ...]:
        """The request ended (in any phase, held included). Exactly once per submitted request,
        unless a Reject or Expire ended it. Unknown ones are ignored and counted."""
    def set_replicas(self, replicas: list[tuple[int, str]], now_ns: int, /) -> tuple[_Effect, ...]:
        """The whole fleet as ``(id, name)``. New ones start unknown; missing ones are forgotten
        once their in-flight requests end. Ids are never reused."""
    def set_models(
        self, replica: int, models: list[tuple[str, int | None]], cut: bool, now_ns: int, /
    ) -> tuple[bool, tuple[_Effect, ...]]:
        """Sets the models and adapters that a replica serves, as ``(id, max_model_len)``. Returns whether
        that is a change, and the effects.

        ``cut``: the list is incomplete. The replica then also gets requests for models in no list.
        """
    def hide_models(self, replica: int, now_ns: int, /) -> tuple[_Effect, ...]:
        """Notes that a replica lists no models. It then gets requests for any model."""
    def set_looks(self, looks: bool, /) -> None:
        """Whether the driver reads all lists when `look_due` says so. Then a request for a model in no list
        waits for that (the effect is `Hold`) before it is refused."""
    def look_due(self, now_ns: int, /) -> bool:
        """Whether all lists should be read now; they count as being read until `looked`. To be asked
        after a `Hold` and after `tick`."""
    def looked(self, now_ns: int, /) -> tuple[_Effect, ...]:
        """All lists have been read, or could not be."""
    def guessed(self, request: Request, /) -> bool:
        """Whether a request is at a replica whose list lacks its model, while another could be tried."""
    @property
    def policy(self) -> str:
        """The policy that chooses now."""
    @property
    def shadow_policy(self) -> str | None:
        """The policy that is asked about each choice, without effect."""
    def set_policy(self, policy: str, now_ns: int, /) -> tuple[_Effect, ...]:
        """Chooses by another policy from now on. Requests in the hold stay there, and start by its rule.
        What the engine has learned stays.

        Raises:
            ValueError: no policy has this name.
        """
    def set_draining(self, replica: int, draining: bool, now_ns: int, /) -> tuple[_Effect, ...]:
        """Begins or ends the draining of a replica, as operators ask; its health stands apart from that."""
    def set_notice(self, replica: int, at_ns: int | None, ends: bool, now_ns: int, /) -> tuple[_Effect, ...]:
        """A replica is to be left at ``at_ns``; ``None``: it stays. To be drained as well. ``ends``: it
        ends then, and what is there shortly before leaves for others. Otherwise an operator wants it
        empty, and what is there from then on leaves as others have room."""
    def evacuate(
        self, region: str, evacuating: bool, leave_ns: int | None, now_ns: int, /
    ) -> tuple[_Effect, ...]:
        """Operator intent for a region, ours or a peer's. If it is ours: what is new and what is held goes
        to peers while they have room, and peers are told to send nothing. Streams leave the region at
        ``leave_ns``, as others have room; ``None``: they end there."""
    def staying(self) -> tuple[int, int, int]:
        """Of the requests at replicas here: how many there are; how many of them end there whatever an
        operator wants; how many are peers', which go on elsewhere if their balancers let them."""
    def observe(self, replica: int, snapshot: Snapshot, sent_ns: int, now_ns: int, /) -> tuple[_Effect, ...]:
        """A probe sent at ``sent_ns`` was answered at ``now_ns``."""
    def observe_failed(self, replica: int, unread: int, now_ns: int, /) -> tuple[_Effect, ...]:
        """A probe brought nothing, or was given up; ``unread``: ``PROBE_*``."""
    def answered(self, replica: int, now_ns: int, /) -> tuple[_Effect, ...]:
        """A replica has answered something other than a probe. If its last probe got no answer, it
        counts as alive now."""
    def probed_state(self, replica: int, /) -> int:
        """``PROBED_*``: what is known of a replica by its probes, and by requests that found nobody."""
    def heard(self, replicas: list[int], now_ns: int, /) -> tuple[_Effect, ...]:
        """Events, or bytes of other bodies, have come from these replicas since the last call."""
    def set_self(self, name: str, region: str, incarnation: int, /) -> None:
        """This balancer's name and region, before its peers are set. ``incarnation`` is greater after
        each start (wall-clock nanoseconds); it is told to peers and compared with nothing else."""
    def set_peers(self, peers: list[tuple[int, str, str, bool]], now_ns: int, /) -> tuple[_Effect, ...]:
        """All peers as ``(id, name, region, sure)``. Where the region is not sure no rule of residency
        allows requests to go there. New ones start unreachable; forwards to missing ones
        go on until they end. Ids are never reused for another name.

        Raises:
            ValueError: two peers of one id or name, this balancer's own name, or more than 64.
        """
    def peer_started(self, peer: int, incarnation: int, now_ns: int, /) -> None:
        """A connection to a peer begins: numbers of its earlier runs count no more."""
    def peer_rtt(self, peer: int, rtt_ns: int, now_ns: int, /) -> None:
        """One measured round trip; median and jitter are kept here."""
    def peer_state(self, peer: int, state: int, now_ns: int, /) -> tuple[_Effect, ...]:
        """``PEER_*``. What a peer told before it was dead counts no more."""
    def set_isolated(self, peer: int, isolated: bool, now_ns: int, /) -> tuple[_Effect, ...]:
        """Operator intent: nothing is forwarded to an isolated peer, and nothing is granted to it."""
    def set_residency(self, rules: list[tuple[str | None, str | None, list[str]]], /) -> None:
        """Rules ``(tenant, model, regions allowed)``; ``None`` is any. A request keeps to all rules
        that name it. Applies to requests submitted from now on.

        Raises:
            ValueError: a rule without regions, or rules that name more than 63.
        """
    def set_replica_region(self, replica: int, region: str | None, now_ns: int, /) -> tuple[_Effect, ...]:
        """The region of an adopted replica; ``None``: this balancer's."""
    def peer_connected(self, peer: int, kinds: list[int], now_ns: int, /) -> tuple[_Effect, ...]:
        """A connection to this peer begins. It takes these kinds of messages (``MESSAGE_*``). What either
        side reported before no longer counts. From now on `tick` yields messages for the peer."""
    def peer_takes(self, peer: int, kinds: list[int], /) -> None:
        """The connection takes these kinds of messages as well."""
    def peer_disconnected(self, peer: int, /) -> None:
        """The connection to a peer has ended."""
    def written(self, peer: int, kind: int, /) -> None:
        """The last message of this kind (``MESSAGE_*``) has been written: another may follow."""
    def merge_peer(self, peer: int, summary: bytes, now_ns: int, /) -> tuple[_Effect, ...]:
        """What a peer told.

        Raises:
            ValueError: malformed, of another version, or not newer than what it told before; nothing
                happened.
        """
    def set_peer_digest(self, key: bytes, bytes_max: int, interval_ns: int, age_max_ns: int, /) -> None:
        """Tells peers which prefixes are hot here, and believes theirs; without it neither.

        Args:
            key: 24 bytes that all balancers share, as they must the engine's ``secret``; names prefixes.
            bytes_max: of a digest.
            interval_ns: least time between two digests.
            age_max_ns: age at which a peer's digest no longer counts.

        Raises:
            ValueError: the key has another length.
        """
    def merge_peer_digest(self, peer: int, digest: bytes, now_ns: int, /) -> None:
        """A peer told which prefixes are hot there; replaces what it told before.

        Raises:
            ValueError: it cannot be read, its blocks or its key are others, or it is not newer.
        """
    def set_region_cache(self, key: bytes, /) -> None:
        """Tells balancers of our region which prompts are pushed to the replicas that both list, and
        believes theirs; without it neither.

        Args:
            key: 24 bytes that all balancers share, as they must the engine's ``secret``; covers hashes.

        Raises:
            ValueError: the key has another length.
        """
    def merge_cached(self, peer: int, cached: bytes, now_ns: int, /) -> None:
        """A peer of our region told of prompts that it has pushed.

        Raises:
            ValueError: it cannot be read, its blocks or its key are others, or it is not newer.
        """
    def merge_share(self, peer: int, share: bytes, ahead_ns: int, now_ns: int, /) -> tuple[_Effect, ...]:
        """What such a peer told. ``ahead_ns``: how far this process's clock is ahead of the peer's.

        Raises:
            ValueError: malformed, of another version, or the peer is of another region; nothing happened.
        """
    def set_tenants(self, terms: bytes, now_ns: int, /) -> tuple[_Effect, ...]:
        """Sets the terms of all tenants: what each may use, and how much. A tenant that had terms before
        keeps what it has been charged. Applies to requests submitted from now on.

        Args:
            terms: JSON: ``{"tenants": [{"name": str, "weight": int, "models": [str] | null,
                "class": "high" | "normal" | "low" | null, "requests_per_minute": int | null,
                "tokens_per_minute": int | null, "concurrent": int | null,
                "continue_streams": bool | null}]}``. ``null``: no bound. An empty list: no tenant has terms.
            now_ns: the time.

        Raises:
            ValueError: not understood, or a value is out of its range, naming the field; nothing happened.
        """
    def over_limit(self, tenant: Tenant, now_ns: int, /) -> tuple[str, int, bytes | None] | None:
        """Whether a tenant is over a limit whatever its next request says: then that is refused and counted.

        Returns:
            The message of the refusal, when to come back in seconds, and the header lines of
            `Request.rate_limit`. ``None``: `submit` decides, by what the body says.
        """
    def continues(self, tenant: Tenant, /) -> bool:
        """Whether streams of a tenant go on elsewhere where their requests allow it."""
    def highest_class(self, tenant: Tenant, /) -> str | None:
        """The most urgent class that a tenant's requests may have, ``high``, ``normal`` or ``low``; ``None``:
        its terms have no bound."""
    def tenant_usage(self) -> bytes:
        """JSON for operators: by tenant, what it has used of which model, and how it stands with its limits.

        ``{"tenants": [{"name", "weight", "in_flight", "concurrent", "requests", "tokens", "models"}]}``.
        ``concurrent``, ``requests`` and ``tokens`` are ``null`` without such a limit, else
        ``{"limit", "share", "remaining"}``: ``share`` is this balancer's part of the limit, 0 to 1, and
        ``remaining`` what may be used of that part, as of the tenant's last request.
        A model has ``{"model", "requests", "refused", "prompt_tokens", "cached_tokens", "completion_tokens",
        "charged_tokens"}``, counted since this balancer started. Models beyond a bound are one, ``"other"``.
        """
    def export_state(self, writer: StateWriter, now_ns: int, /) -> bytes | None:
        """The next part of what was learned, which may be empty; ``None`` behind the last one. Each takes
        about a millisecond.
        """
    def import_state(self, state: bytes, age_ns: int, now_ns: int, /) -> dict[str, int]:
        """Takes over what another process had learned ``age_ns`` ago. What is not in this fleet is dropped.

        Returns:
            ``replicas_told`` in the state, ``replicas`` of them that are here with the same engine process,
            ``paths`` of the tree, ``sessions``, ``tenants``.

        Raises:
            ValueError: damaged, truncated, of another version or of other blocks; nothing happened.
        """
    def flight(self, now_ns: int, /) -> bytes:
        """The requests at replicas that have not ended, for a process that takes over from this one."""
    def merge_predecessor(self, flight: bytes | None, now_ns: int, /) -> tuple[_Effect, ...]:
        """The process before this one has said which requests it still has at replicas: all of them. They
        count at the gate. ``None``: it has ended.

        Raises:
            ValueError: malformed, or of another version; nothing happened.
        """
    def merge_tenants(self, peer: int, message: bytes, now_ns: int, /) -> tuple[_Effect, ...]:
        """What a peer told of what tenants ask for there.

        Raises:
            ValueError: malformed, of another version, or not newer than what it told before; nothing
                happened.
        """
    def peers(self, now_ns: int, /) -> list[PeerGauges]: ...
    def tick(self, now_ns: int, /) -> tuple[_Effect | Probe | Tell, ...]:
        """Lets time pass: what has waited too long expires, probes and messages are sent."""
    def worker_joined(self, worker: int, /) -> None:
        """A worker's reports come from now on, and effects of its requests go into its mail. Nothing is kept
        of the one that had its number before, which must have left.

        Raises:
            ValueError: the number is not 1 to 64.
        """
    def worker_left(self, worker: int, now_ns: int, /) -> tuple[int, tuple[_Effect, ...]]:
        """A worker is gone: its requests end as given up. How many there were, and what follows."""
    def serve(
        self, worker: int, data: bytes, recorder: Recorder, now_ns: int, /
    ) -> tuple[tuple[_Effect, ...], list[bytes], str | None]:
        """Carries out what a worker reports, as `RemoteEngine` has written it.

        The effects are those of requests of this process; the others go into the workers' mail. The list has
        the worker's messages for the code around the engine. The text says why what follows cannot be read:
        then the worker must leave.

        Args:
            worker: it has joined.
            data: some of its bytes, in their order; a report may be in two parts.
            recorder: counts the records among them.
            now_ns: the time.
        """
    def tell_worker(self, worker: int, note: bytes, /) -> bool:
        """Puts a message into a worker's mail; ``False``: it has not joined."""
    def posts(self) -> tuple[Post, ...]:
        """For whom mail waits that nobody was told of."""
    def take_mail(self, worker: int, /) -> bytes:
        """A worker's mail, for `RemoteEngine.receive`. It is to be sent whole and in order."""
    @property
    def requests_len(self) -> int:
        """Requests that have not ended."""
    def next_deadline_ns(self) -> int | None:
        """When ``tick`` has work at the latest. A call that takes a fact may make it earlier."""
    def models(self, tenant: Tenant, /) -> list[tuple[str, int | None]]:
        """Union over ready replicas, and over peers to which requests of this tenant may go; the length
        of a peer's is not told."""
    def ready(self) -> bool:
        """A replica is ready here, or at a peer that takes requests."""
    def ready_here(self) -> bool:
        """At least one replica is ready here."""
    def gauges(self) -> list[ReplicaGauges]: ...
    def wanted(self) -> list[tuple[str, float, int]]:
        """Replicas that the work at hand would fill, and replicas that may be chosen, for each model in a
        list; 64 models at most. Models that share their replicas have the same figures."""
    @property
    def hold_requests(self) -> int: ...
    @property
    def hold_bytes(self) -> int:
        """Bytes of the bodies in the hold."""
    @property
    def in_flight(self) -> int: ...
    @property
    def tree_bytes(self) -> int: ...
    def prefix_errors(self) -> tuple[list[tuple[float, int]], float]:
        """Predicted minus confirmed cached tokens, of requests where either is not zero: cumulative
        buckets ``(upper bound, count)`` ending with ``inf``, and the sum."""
    def ttft_errors(self) -> tuple[list[tuple[float, int]], float]:
        """How far predicted times from push to first body byte were off, as parts of the real ones, of
        streamed answers: cumulative buckets ``(upper bound, count)`` ending with ``inf``, and the sum."""
    def counters(self) -> dict[str, int]:
        """Monotonic counters by name (``hold_entered``, ``retries``, ``retry_denied``, ``expired``,
        ``unknown_completions``, ``match_blocks``, ``miss_blocks``, ...), for metrics."""
    def state(self, now_ns: int) -> bytes:
        """JSON for operators: replicas, hold, tree. No prompt, key or salt."""
    def keep_receipts(self, len_max: int, now_ns: int, /) -> None:
        """Keeps the receipts of the last ``len_max`` requests from now on, and forgets those there are.

        0: none are kept.
        """
    def receipt(self, request_id: str, now_ns: int, /) -> bytes | None:
        """Why the newest request of this name went where it went, as JSON; ``None``: there is none.

        The receipt has the candidates with their figures, replicas and peers that were closed, decisions, and
        what came of them. It has no prompt, no hash of one, and no key.
        """
    def rehearse(self, request: Request, body: bytes | Scanned, now_ns: int, /) -> bytes:
        """What would be decided now about a request, as JSON. Nothing is changed. The limits of tenants are
        not looked at.

        Raises:
            RequestError: the body is refused (400, 415).
        """
    def receipts(self, len_max: int, now_ns: int, /) -> bytes | None:
        """The newest requests with receipts as JSON, 1,000 at most, and how many are kept since when.
        ``None``: receipts are off."""
    def check_invariants(self) -> None:
        """For tests: raises AssertionError that names the broken invariant."""

# --------------------------------------------------------------------------- records

TOKEN_KINDS: Final[tuple[str, ...]]
"""``prompt`` (all of it), ``cached`` (of those), ``generated``."""
TENANT_OUTCOMES: Final[tuple[str, ...]]
"""``ok``, ``limited`` (429), ``refused`` (another 4xx), ``failed`` (5xx), ``client_left``."""
LOG_OFF: Final = 0
LOG_TEXT: Final = 1
LOG_JSON: Final = 2
LOG_LOGFMT: Final = 3

def spans_rejected(answer: bytes, /) -> int:
    """How many spans a collector has refused, as its ``ExportTraceServiceResponse`` says."""

@final
class RemoteEngine:
    """An engine of another process, as a worker reaches it: the calls for requests, as bytes.

    It has no state of the engine. It reads bodies, writes reports (`take_mail`) and reads decisions
    (`receive`). It keeps what another engine process needs to take over the requests that have not ended.

    Args:
        secret: keys the prefix hashes, the same as the engine's; likewise below.
        block_bytes: of a block.
        prompt_blocks_max: of a prompt.
        believes_all: bodies' own words for their urgency count, whoever sends them.
    """

    only_model: str | None
    """See `Engine.only_model`; to be set when it changes."""

    def __new__(
        cls, secret: bytes, block_bytes: int, prompt_blocks_max: int, believes_all: bool
    ) -> RemoteEngine: ...
    def isolate(self, key: bytes, /) -> None:
        """See `Engine.isolate`.

        Raises:
            ValueError: the key has not 32 bytes.
        """
    def record_prompts(self, on: bool, /) -> None:
        """See `Engine.record_prompts`."""
    def keep_ids(self, bytes_max: int, tokens_max: int, models: list[str], by_text: bool, /) -> None:
        """See `Engine.keep_ids`."""
    @property
    def continuing(self) -> bool:
        """See `Engine.continuing`."""
    def set_continuing(self, on: bool, /) -> None:
        """See `Engine.set_continuing`."""
    def exclude(self, tenants: list[str], /) -> None:
        """Sets the tenants whose streams do not go on elsewhere, by their names."""
    @property
    def kept_bytes(self) -> int:
        """See `Engine.kept_bytes`."""
    def scanner(self) -> Scanner:
        """See `Engine.scanner`."""
    def submit(self, number: int, request: Request, body: bytes | Scanned, /) -> None:
        """Reads the body, and reports the request.

        Args:
            number: of the request, below 2**48; never used again.
            request: learns what its body says.
            body: see `Engine.submit`.

        Raises:
            RequestError: the body is refused; nothing is reported.
        """
    def first_byte(self, request: Request, relay: Relay, now_ns: int, /) -> None:
        """See `Engine.first_byte`."""
    def retry(self, request: Request, failure: int, sent: bool, now_ns: int, status: int = 0, /) -> None:
        """See `Engine.retry`."""
    def resume(self, request: Request, relay: Relay, failure: int, now_ns: int, status: int = 0, /) -> None:
        """See `Engine.resume`."""
    def complete(self, request: Request, outcome: int, relay: Relay | None, now_ns: int, /) -> None:
        """See `Engine.complete`."""
    def heard(self, replicas: list[int], /) -> None:
        """See `Engine.heard`."""
    def tell(self, note: bytes, /) -> None:
        """Sends a message to the code around the engine."""
    def take_mail(self, recorder: Recorder, /) -> bytes:
        """What is to be sent to the engine process, whole and in order; also the recorder's records."""
    def receive(
        self, data: bytes, /
    ) -> tuple[list[Placed | Push | Forward | Hold | Reject | Expire | Withdraw | Note], str | None]:
        """Reads what `Engine.take_mail` gave. What concerns requests that have ended is left out.

        Returns:
            What was read, and why what follows cannot be read, if so; then the line is of no more use.
        """
    @property
    def mail_len(self) -> int:
        """Bytes that wait for `take_mail`, without the recorder's records."""
    def lost(self) -> None:
        """The engine process is gone: nothing is reported until `joined`."""
    def joined(self) -> None:
        """An engine process takes reports from now on. It is to be sent all requests that have not ended
        (`submit_again`); until then nothing else of them is reported."""
    def submit_again(self, bytes_max: int, now_ns: int, /) -> bool:
        """Reports requests that have not ended to an engine process that has joined. Those that wait are
        submitted again, with the time that they have waited; those at replicas are adopted. What has failed
        and was not decided on is decided there.

        Args:
            bytes_max: no further one is reported when so many bytes wait for `take_mail`.
            now_ns: the time.

        Returns:
            Whether there are more.
        """
    def give_up(
        self, retry_after_s: int, number: int | None = None, /
    ) -> list[Placed | Push | Forward | Hold | Reject | Expire | Withdraw | Note]:
        """Refuses the requests that wait for a decision, or one of them: no engine process has come."""
    @property
    def requests_len(self) -> int:
        """Requests that have not ended."""

@final
class Recorder:
    """Counts and histograms of requests, and the access log's lines: one call per request.

    Args:
        log_format: ``LOG_*``.
        log_bytes_max: bound on lines that wait for the writer; beyond it lines are dropped and counted.
        policy: name for the log.
        unix_offset_ns: wall clock minus monotonic clock.
        label_values_max: bound on distinct ``model`` labels; more are counted as ``other``.
    """

    def __new__(
        cls, log_format: int, log_bytes_max: int, policy: str, unix_offset_ns: int, label_values_max: int = 64
    ) -> Recorder: ...
    def complete(
        self, request: Request, relay: Relay | None, status: int, error_code: str | None, now_ns: int, /
    ) -> None:
        """A request ended: counts it and writes its line.

        Args:
            request: with all that is known of it.
            relay: of the response, where there was one.
            status: that the client has seen, 499 where it left.
            error_code: what went wrong, if something did.
            now_ns: the end.
        """
    def refused(
        self,
        status: int,
        error_code: str,
        sender: Sender,
        request_id: str,
        head: Head | None,
        now_ns: int,
        tenant: Tenant | None = None,
        /,
    ) -> None:
        """A request that was refused for its head, or while its body came; ``head`` and ``tenant`` where they
        are known."""
    def export_spans(
        self, resource: list[tuple[str, str]], slow_ns: int, queue_bytes_max: int, unix_offset_ns: int, /
    ) -> None:
        """From now on the spans of requests that have a trace wait for an exporter: of those that are
        sampled, of those that failed, and of slow ones.

        Args:
            resource: names and values that say whose spans they are.
            slow_ns: time to the first body byte from which a request is slow.
            queue_bytes_max: bound on spans that wait; beyond it they are dropped and counted.
            unix_offset_ns: wall clock minus monotonic clock.
        """
    def take_spans(self, unix_offset_ns: int, /) -> tuple[bytes, bytes, int] | None:
        """The spans that wait; empties the queue. ``None``: there are none.

        Args:
            unix_offset_ns: wall clock minus monotonic clock, for the spans to come.

        Returns:
            The beginning and the rest of an ``ExportTraceServiceRequest`` (OTLP), and how many spans it has.
        """
    @property
    def spans_dropped(self) -> int:
        """Spans lost because the exporter did not keep up, or a request had too many."""
    def attempt(self, outcome: str, /) -> None:
        """One attempt at a replica ended: ``ok``, ``connect``, ``reset``, ``timeout``, ``full``,
        ``status``, ``bad_response``, ``client_left``, ``stale`` (reused connection, not an attempt)."""
    def set_log_format(self, log_format: int) -> None: ...
    def set_policy(self, policy: str, /) -> None:
        """Changes the policy that later lines name."""
    def record_arrivals(self, on: bool, /) -> None:
        """Keeps what a recording needs of each request that ends from now on, or no longer."""
    def take_arrivals(self) -> Arrivals:
        """What a recording needs of the requests that ended since the last call. For its thread."""
    @property
    def arrivals_dropped(self) -> int:
        """Requests that a recording lacks because its thread did not keep up."""
    def send_records(self) -> None:
        """From now on `RemoteEngine.take_mail` takes the records, and another process counts them. This one
        writes the log."""
    @property
    def records_dropped(self) -> int:
        """Records lost because no other process took them."""
    def take_log(self) -> bytes:
        """The waiting lines, newline-terminated; empties the queue. Called by the writer thread."""
    @property
    def log_dropped(self) -> int: ...
    def requests(self) -> tuple[tuple[str, ...], list[tuple[tuple[str, ...], int]]]:
        """The names of the labels, and for each series their values and the count."""
    def attempts(self) -> list[tuple[str, int]]: ...
    def models(self) -> list[tuple[str, list[int], int, int]]:
        """Of each model: tokens by `TOKEN_KINDS` as replicas reported them, answers that could report tokens,
        and those of them that reported none. A request that was forwarded counts at the balancer that has the
        replica."""
    def tenants(self) -> list[tuple[str, list[int], list[int], tuple[float, int]]]:
        """Of each tenant: tokens by `TOKEN_KINDS`, requests for inference by `TENANT_OUTCOMES`, and the sum
        (seconds) and number of times to first body byte. Nobody's requests have the name ``""``."""
    def continued(self) -> list[tuple[str, int]]:
        """Times that a stream went on at another replica, by why it was given up."""
    def not_continued(self) -> list[tuple[str, int]]:
        """Streams that broke and did not go on elsewhere, by every reason."""
    def errors(self) -> list[tuple[str, int]]:
        """Requests that ended with an error code (of SkyLB's own, or ``client_left``), by code."""
    @property
    def cut(self) -> int:
        """Answers to clients that had begun, and were cut by a fault."""
    def name_requests(self) -> None:
        """The lines of `LOG_TEXT` have each request's id from now on, not only where there is an error."""
    def histogram(self, name: str) -> tuple[list[tuple[float, int]], float]:
        """``ttft_seconds``, ``request_seconds``, ``hold_seconds``, ``inter_token_seconds`` (the mean time
        between two tokens of a stream) or ``inter_token_worst_seconds`` (the longest between two events):
        cumulative buckets ``(upper bound, count)`` ending with ``inf``, and the sum. All models and classes
        together."""
    def histograms(self, name: str) -> list[tuple[tuple[str, str], tuple[list[tuple[float, int]], float]]]:
        """The same for each ``(model, class)`` that has values."""
    def exemplars(self, name: str) -> list[tuple[tuple[str, str], int, str, float, float]]:
        """Of ``ttft_seconds`` and ``request_seconds``: for each bucket the latest request whose spans went to
        the exporter's queue, if there is one: ``(model, class)``, number of the bucket, trace id in 32
        hexadecimal digits, value in seconds, Unix time of its end."""
    def ttft_held(self) -> list[tuple[tuple[str, str], float]]:
        """For each ``(model, class)``: the part of the sum of ``ttft_seconds`` that was hold, in seconds."""
    def quantile(self, name: str, q: float) -> float | None:
        """Over a sliding window of recent requests (for the live view); seconds. See `histogram`."""

@final
class Arrivals:
    """Requests that ended, on their way from the recorder to a recording."""

    def __len__(self) -> int: ...

@final
class ArrivalWriter:
    """Makes the lines of one recording: which request follows which, and numbers in place of hashes.

    Args:
        region: of the balancer.
        start_ns: when the recording began, on the monotonic clock: time 0 of its lines.
        block_tokens: tokens of a block, about.
        known_max: blocks, users and ends of requests that are remembered, each; twice as many at most.

    Raises:
        ValueError: ``block_tokens`` or ``known_max`` is 0.
    """

    def __new__(cls, region: str, start_ns: int, block_tokens: int, known_max: int) -> ArrivalWriter: ...
    def lines(self, arrivals: Arrivals, /) -> bytes:
        """A line per request, newline-terminated. Without the interpreter's lock."""
    @property
    def forgotten(self) -> int:
        """Blocks, users and ends of requests that are no longer recognised, because there were too many."""

# --------------------------------------------------------------------------- replica model

ADMIT_OK: Final = 0
ADMIT_FULL: Final = 1
ADMIT_TOO_LONG: Final = 2

@final
class ReplicaModel:
    """A continuous-batching replica in virtual or real time; see ``rust/src/sim/replica``.

    Args:
        profile_json: a profile's parameters (``skylb.tools.mock.profiles.Profile.model_json``).

    Raises:
        ValueError: the profile does not fit, naming the field.
    """

    def __new__(cls, profile_json: bytes) -> ReplicaModel: ...
    def submit(self, request_id: int, salt: bytes, prompt: bytes, answer: bytes, now_ns: int, /) -> int:
        """Takes a request into the queue: ``ADMIT_*``. Four bytes are one token.

        Args:
            request_id: not that of a request which has not ended.
            salt: what separates prefix caches beside the text (adapter, ``cache_salt``).
            prompt: the rendered prompt.
            answer: what the request will generate, so that the next turn can hit its KV.
            now_ns: steps that ended by then should have been run by ``advance``.

        Raises:
            ValueError: the id is in use.
        """
    def abort(self, request_id: int, /) -> bool:
        """Ends a request in whatever state; whether it was known."""
    def pause(self, paused_ns: int, /) -> None:
        """The process has stood still for so long: the step under way ends later."""
    def advance(self, now_ns: int, /) -> list[tuple[int, int, int, bool]]:
        """Runs every step that ends by ``now_ns``: ``(request_id, tokens generated so far, prompt
        tokens that were cached, finished)`` per token generated, in step order."""
    def next_ns(self) -> int | None:
        """When the step under way ends; ``None`` when idle."""
    def reset_prefix_cache(self) -> None: ...
    def check_invariants(self) -> None:
        """For tests: raises AssertionError that names the broken invariant."""
    @property
    def running(self) -> int:
        """Requests in the batch now."""
    @property
    def waiting(self) -> int: ...
    @property
    def kv_usage(self) -> float:
        """Share of KV blocks held now, 0 to 1."""
    @property
    def running_gauge(self) -> int:
        """As the metrics page says it: taken at the end of the last step. Likewise the next two."""
    @property
    def waiting_gauge(self) -> int: ...
    @property
    def kv_usage_gauge(self) -> float: ...
    @property
    def blocks(self) -> int:
        """KV blocks in all."""
    @property
    def block_size(self) -> int:
        """Tokens per KV block."""
    @property
    def max_model_len(self) -> int: ...
    @property
    def cache_queries(self) -> int:
        """Prompt tokens looked up since the start. The next ones are totals as well."""
    @property
    def cache_hits(self) -> int: ...
    @property
    def preemptions(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens computed, without cached ones."""
    @property
    def output_tokens(self) -> int: ...

# --------------------------------------------------------------------------- simulator

@final
class Simulator:
    """A fleet in virtual time, driven by the same engine. Same arguments, same result, byte by byte.

    Args:
        scenario_json: what is simulated; the fields are documented in ``rust/src/sim/scenario.rs``.
        requests_json: the workload as columns; documented in ``rust/src/sim/workload.rs``.

    Raises:
        ValueError: scenario or requests are impossible; the text names the field.
    """

    def __new__(cls, scenario_json: bytes, requests_json: bytes, /) -> Simulator: ...
    def advance(self, until_s: float, /) -> float:
        """Runs until virtual time ``until_s`` or the end, without the GIL; returns the time reached.

        Raises:
            AssertionError: an invariant broke (most are looked at with ``check`` only); the text
                names it, the time and the seed. The run cannot go on.
        """
    @property
    def done(self) -> bool:
        """Nothing is left to do: every request has ended, or the time for draining is over."""
    def result(self) -> bytes:
        """The result so far, as JSON; the fields are documented in ``rust/src/sim/result.rs``."""
