"""The data plane without sockets: bytes in; writes, and calls of the router, out."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from skylb import _core
from skylb._core import LOG_JSON, PROBE_REFUSED, PROBE_UNREADABLE, Engine, HeadParser, Recorder
from skylb.data.context import Budget, Context, Limits
from skylb.data.failures import FAILURES
from skylb.data.frontend import Frontend
from skylb.data.reading import Reading
from skylb.localrouter import LocalRouter
from skylb.settings.engine import EngineSettings
from skylb.settings.times import TimeoutSettings
from skylb.types import Address, Replica, Upstream
from skylb.upstream import Connection, Pool
from tests.support import virtual
from tests.support.transport import KeepingTransport

OUTCOMES = {
    _core.OUTCOME_OK: "ok",
    _core.OUTCOME_CLIENT_LEFT: "client_left",
    _core.OUTCOME_GIVEN_UP: "client_left",
    _core.OUTCOME_REPLICA_FAILED: "failed",
}

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def post(path: str, fields: dict[str, Any], lines: str = "") -> bytes:
    """A request, head and body."""
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{lines}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chat(
    *, stream: bool = False, model: str = "m", lines: str = "", text: str = "hi", **fields: object
) -> bytes:
    """A chat request, head and body."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}], **fields}
    return post("/v1/chat/completions", body, lines)


def answer(status: int = 200, body: bytes = b'{"id":"x"}', lines: str = "") -> bytes:
    """An answer of a replica."""
    head = (
        f"HTTP/1.1 {status} S\r\nContent-Type: application/json\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(text: str) -> bytes:
    return chunk(f"data: {text}\n\n".encode())


class Wire(KeepingTransport):
    """One side of a connection: what is written is kept, what comes is what the test says."""

    address = ("192.0.2.1", 1)

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__(high=1 << 16)
        self.protocol = protocol
        protocol.connection_made(self)

    # ------------------------------------------------------------- what the test does

    def feed(self, data: bytes) -> None:
        """Bytes from the other side."""
        assert not self.is_closing(), "bytes for a connection that is closed"
        self.protocol.data_received(data)

    def finish(self) -> None:
        """FIN from the other side."""
        if not self.protocol.eof_received():
            self.close()

    def reset(self) -> None:
        """RST from the other side."""
        self._end("reset", ConnectionResetError())

    def taken(self) -> bytes:
        """What was written since the last call."""
        written, self.written = self.written, b""
        return written

    # ------------------------------------------------------------------ asyncio's part

    def write(self, data: Any) -> None:
        assert not self.is_closing(), "written behind the end"
        super().write(data)

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.ended in {"closed", "aborted", "reset"}

    def close(self) -> None:
        self._end("closed", None)

    def abort(self) -> None:
        self._end("aborted", None)

    def _end(self, how: str, error: Exception | None) -> None:
        if not self.is_closing():
            self.ended = how
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)


class Replicas(Pool):
    """Connections to replicas that the test plays."""

    def __init__(self) -> None:
        super().__init__()
        self.wires: list[Wire] = []
        """Every connection ever made, in order."""
        self.refuses: set[int] = set()
        """Replicas that refuse connections."""
        self.silent: set[int] = set()
        """Replicas that connections never come about to."""

    async def open(self, upstream: Upstream) -> Connection:
        if upstream.id in self.refuses:
            raise ConnectionRefusedError("refused")
        if upstream.id in self.silent:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        connection = Connection(self, upstream.id)
        self.wires.append(Wire(connection))
        return connection


class Calls(LocalRouter):
    """The router, with its calls written down."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.calls: list[str] = []

    def submit(self, sink: Any, request: Any, body: Any, claims: Any = None) -> None:
        self.calls.append("submit")
        super().submit(sink, request, body, claims)

    def first_byte(self, request: Any, relay: Any, now_ns: int) -> None:
        self.calls.append("first_byte")
        super().first_byte(request, relay, now_ns)

    def retry(self, request: Any, failure: int, *, sent: bool, now_ns: int, status: int = 0) -> None:
        self.calls.append(f"retry {FAILURES[failure][0]}")
        super().retry(request, failure, sent=sent, now_ns=now_ns, status=status)

    def complete(self, request: Any, outcome: int, relay: Any, now_ns: int) -> None:
        self.calls.append(f"complete {OUTCOMES[outcome]}")
        super().complete(request, outcome, relay, now_ns)


class World:
    """One balancer, some replicas whose load is not known, and clients.

    Args:
        clock: of everything.
        replicas: how many; their ids are 1, 2, ...
        at_once: requests that each takes at once.
        body_bytes_max: of requests.
        budget_bytes: in memory for all clients.
        timeouts: other times than the defaults.
        inject_usage: streams are asked for usage on the client's behalf.
        router: another one than `Calls`.
        engine: other settings of the engine than the defaults.
    """

    def __init__(
        self,
        clock: virtual.Clock,
        *,
        replicas: int = 1,
        at_once: int = 8,
        body_bytes_max: int = 1 << 20,
        budget_bytes: int = 1 << 24,
        timeouts: dict[str, float] | None = None,
        inject_usage: bool = False,
        router: type["Calls"] | None = None,
        **engine: Any,
    ) -> None:
        self.clock = clock
        settings = EngineSettings(blind_outstanding_max=at_once, **engine)
        self.engine = Engine(settings.model_dump_json().encode(), b"k" * 16, 1)
        self.router = (router or Calls)(self.engine)
        self.pool = Replicas()
        self.recorder = Recorder(LOG_JSON, 1 << 20, "predictive", 0)
        self.context = Context(
            router=self.router,
            pool=self.pool,
            recorder=self.recorder,
            parser=HeadParser(),
            budget=Budget(budget_bytes),
            limits=Limits(TimeoutSettings(**(timeouts or {})), body_bytes_max, 10, 1),
            reading=Reading(self.router.scanner(), False),
            inject_usage=inject_usage,
        )
        self.frontend = Frontend(self.context)
        ids = range(1, replicas + 1)
        fleet = [Replica(i, f"http://r{i}", Address("192.0.2.9", i), f"r{i}") for i in ids]
        self.router.set_replicas(fleet)
        for i in ids:
            self.router.set_models(i, [("m", None)])
            self.router.observe_failed(i, PROBE_UNREADABLE)
        self.frontend.serve([])

    def client(self) -> Wire:
        """One more client connection."""
        return Wire(self.frontend.make("http"))

    def down(self, replica: int) -> None:
        """Nobody answers a probe there any more."""
        self.router.observe_failed(replica, PROBE_REFUSED)

    async def sent(self, at: int = -1) -> Wire:
        """The connection to a replica, by number, once a request was written to it."""
        await settle()
        wire = self.pool.wires[at]
        assert wire.written.startswith((b"POST ", b"GET "))
        return wire

    def calls(self) -> list[str]:
        """Calls of the router since the last time."""
        calls, self.router.calls = self.router.calls, []
        return calls

    def log(self) -> list[dict[str, Any]]:
        """Lines of the access log since the last time."""
        return [json.loads(line) for line in self.recorder.take_log().splitlines()]

    def attempts(self) -> dict[str, int]:
        """Attempts by outcome, where there were any."""
        return {outcome: count for outcome, count in self.recorder.attempts() if count}

    async def close(self) -> None:
        """Ends it; nothing is left of any request."""
        await settle()
        assert (self.engine.in_flight, self.engine.hold_requests, self.router.requests_len) == (0, 0, 0)
        assert self.context.budget.bytes == 0
        self.engine.check_invariants()
        await self.frontend.close()
        await self.pool.close()
        self.router.close()


async def settle() -> None:
    """Lets everything run that is due now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Lets virtual time pass until it holds, an hour at most."""
    for _ in range(72_000):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it has not come about within an hour")


def plays(test: Callable[[World], Coroutine[Any, Any, None]], **world: Any) -> None:
    """Runs a test with a world, and looks that nothing is left."""

    async def whole(clock: virtual.Clock) -> None:
        made = World(clock, **world)
        await test(made)
        await made.close()

    virtual.run(whole)
