"""The connections of one kind of listener.

A `Frontend` bounds their number, and closes an idle one to make room for a new one. It checks their
deadlines, and ends them when the process stops.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb.clock import Standstill, monotonic_ns
from skylb.data import answers
from skylb.data.accept import ACCEPTS_AT_ONCE, Acceptor, Verdict
from skylb.data.client import ClientConnection
from skylb.data.context import DRAIN_IDLE_S, SWEEP_S, Context
from skylb.data.failures import SHUTTING_DOWN
from skylb.data.giveup import give_up
from skylb.data.proxy import Exchange
from skylb.descriptors import DOINGS, Shortage
from skylb.listeners import Listening

Listener = tuple[Listening, ssl.SSLContext | None]

SPARED_NS = 2_000_000_000
"""An idle connection is not closed for another one before it has been idle for so long."""

LOOK_NS = 20_000_000
"""Between two looks for idle connections: one takes a millisecond where there are 16,000."""

GIVEN_BACK = 8
"""Idle connections closed at once when the process is short of descriptors."""

Accept = Callable[["Frontend", str], ClientConnection]
"""Makes a connection from its frontend and scheme."""


class Frontend:
    """The listeners of one kind, and their connections.

    Where `connections_max` are open, an idle one is closed for the next: first those that have asked
    nothing yet, the oldest first. Where none is idle, the next one is answered 503.

    Args:
        context: shared parts of the data plane.
        name: of the kind, in metrics: ``clients`` or ``peers``.
        accept: makes a connection.
    """

    standing_closed = True
    """Whether connections that have asked something before are closed for others."""
    refusal_headers: answers.Headers = ()

    def __init__(self, context: Context, name: str = "clients", accept: Accept = ClientConnection) -> None:
        self.context = context
        self.name = name
        self.connections_max = context.limits.connections_max
        self.handshake_s = context.limits.timeouts.head_s
        self.accepts_at_once = ACCEPTS_AT_ONCE
        self.shortage = Shortage()
        self.closed_total = 0
        """Idle connections closed to make room."""
        self.refused_total = 0
        """Connections turned away for want of room."""
        self._accept = accept
        self._connections: dict[ClientConnection, None] = {}
        self._acceptors: list[Acceptor] = []
        self._spare: deque[ClientConnection] = deque()
        """Idle connections in the order in which they are closed, as of the last look."""
        self._some_idle = False
        """At the last look there were idle ones, be it only for a moment, or such as just came in."""
        self._looked_ns = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._standstill = Standstill(SWEEP_S)
        self._drained: asyncio.Future[None] | None = None

    @property
    def connections_len(self) -> int:
        """Open connections, those included that are just coming in."""
        return len(self._connections) + sum(acceptor.entering_len for acceptor in self._acceptors)

    def exchanges(self) -> Iterator[Exchange]:
        """The requests under way."""
        for connection in self._connections:
            if connection.exchange is not None:
                yield connection.exchange

    def serve(self, listeners: Sequence[Listener]) -> None:
        """Accepts on bound sockets, with TLS where a context comes along."""
        for bound, tls in listeners:
            acceptor = Acceptor(self, bound, tls)
            self._acceptors.append(acceptor)
            acceptor.resume()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    # ---------------------------------------------------------------------- who comes in

    def make(self, scheme: str) -> ClientConnection:
        """The protocol of one more connection."""
        return self._accept(self, scheme)

    def verdict(self) -> Verdict:
        """Whether one more may come in; closes an idle one for it where need be."""
        if self.connections_len < self.connections_max or self._make_room():
            return Verdict.YES
        return Verdict.SOON if self._some_idle else Verdict.NO

    def _make_room(self) -> bool:
        before_ns = monotonic_ns() - SPARED_NS
        if any(acceptor.drop_entering(before_ns) for acceptor in self._acceptors):
            self.closed_total += 1
            return True
        if not self._spare and before_ns - self._looked_ns >= LOOK_NS:
            self._look_for_idle(before_ns)
        while self._spare:
            connection = self._spare.popleft()
            if connection.idle:
                self.closed_total += 1
                connection.close_idle()
                return True
        return False

    def _look_for_idle(self, before_ns: int) -> None:
        """A look at all connections, so not too often."""
        self._looked_ns = before_ns
        fresh: list[ClientConnection] = []
        standing: list[tuple[int, ClientConnection]] = []
        self._some_idle = any(acceptor.entering_len for acceptor in self._acceptors)
        for connection in self._connections:
            if not connection.idle or (connection.sent_request and not self.standing_closed):
                continue
            self._some_idle = True
            if connection.since_ns > before_ns:
                continue
            if connection.sent_request:
                standing.append((connection.since_ns, connection))
            else:
                fresh.append(connection)
        standing.sort(key=lambda found: found[0])
        self._spare = deque((*fresh, *(connection for _, connection in standing)))

    def refusal(self) -> bytes:
        """What one reads that may not come in; counted."""
        self.refused_total += 1
        limits = self.context.limits
        return answers.response(
            status=answers.status_of("overloaded"),
            body=answers.error_body("overloaded", "too many connections"),
            request_id=self.context.ids.make(),
            close=True,
            retry_after_s=limits.retry_after_s,
            headers=(*self.refusal_headers, *self.context.cors.headers),
        )

    def give_back(self) -> None:
        """Closes some idle connections: the process is short of descriptors."""
        for _ in range(GIVEN_BACK):
            if not self._make_room():
                return

    def opened(self, connection: ClientConnection) -> None:
        """A client connected."""
        self._connections[connection] = None

    def closed(self, connection: ClientConnection) -> None:
        """A client connection is gone."""
        self._connections.pop(connection, None)
        if self.connections_len < self.connections_max:
            for acceptor in self._acceptors:
                acceptor.resume()
        if self._drained is not None and not self._connections and not self._drained.done():
            self._drained.set_result(None)

    # ------------------------------------------------------------------------------ sweep

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        now_ns = monotonic_ns()
        if self._standstill.before(now_ns):
            return
        for connection in list(self._connections):
            connection.sweep(now_ns)
        for acceptor in self._acceptors:
            acceptor.resume()
        self.context.tell_heard(now_ns)
        self.context.sweep_pools()

    # -------------------------------------------------------------------------------- end

    def hold(self) -> None:
        """Takes no connections until `go_on`: they wait in the kernel's queue."""
        for acceptor in self._acceptors:
            acceptor.hold()

    def go_on(self) -> None:
        """Takes connections again."""
        for acceptor in self._acceptors:
            acceptor.go_on()

    def stop_accepting(self, idle_s: float = DRAIN_IDLE_S) -> None:
        """Frees the addresses; idle connections go after ``idle_s``, requests under way are finished."""
        self.context.drain(idle_s)
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(self._connections):
            connection.drain()

    async def drain(self, timeout_s: float) -> int:
        """Waits until all connections are gone, at most ``timeout_s``; returns how many are left."""
        for acceptor in self._acceptors:
            await acceptor.settle(timeout_s)
        if self._connections:
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=timeout_s)
        return len(self._connections)

    async def close(self) -> None:
        """Ends what is left: with the stream's error event, or an answer, where there is a request."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for acceptor in self._acceptors:
            await acceptor.stop()
        for connection in list(self._connections):
            if connection.exchange is not None:
                give_up(connection.exchange, *SHUTTING_DOWN)
            connection.shut_down()
        await self.drain(1.0)
        for connection in list(self._connections):
            connection.abort()
        self.context.reading.close()
        await self.drain(1.0)


class Counted(Protocol):
    """Connections that are counted: a frontend's, or those at workers."""

    @property
    def name(self) -> str:
        """Of the kind."""

    @property
    def connections_len(self) -> int:
        """Open connections."""

    @property
    def connections_max(self) -> int:
        """Connections at once at most."""

    @property
    def closed_total(self) -> int:
        """Idle connections closed to make room."""

    @property
    def refused_total(self) -> int:
        """Connections turned away for want of room."""

    def exchanges(self) -> Iterator[Exchange]:
        """The requests under way."""


def families(frontends: Sequence[Counted], shortages: Mapping[str, int]) -> Iterator[Metric]:
    """For ``/metrics``: connections by listener, and what this process was short of."""
    listener = ("listener",)
    now = GaugeMetricFamily("skylb_connections", "Open connections.", labels=listener)
    most = GaugeMetricFamily("skylb_connections_max", "Connections at once at most.", labels=listener)
    closed = CounterMetricFamily(
        "skylb_connections_closed", "Idle connections closed to make room.", labels=listener
    )
    refused = CounterMetricFamily(
        "skylb_connections_refused", "Connections turned away for want of room.", labels=listener
    )
    for frontend in frontends:
        name = (frontend.name,)
        now.add_metric(name, frontend.connections_len)
        most.add_metric(name, frontend.connections_max)
        closed.add_metric(name, frontend.closed_total)
        refused.add_metric(name, frontend.refused_total)
    yield from (now, most, closed, refused)
    short = CounterMetricFamily(
        "skylb_shortages", "What this machine lacked descriptors, ports or memory for.", labels=("doing",)
    )
    # All from the start: Prometheus misses the first event of a series that begins with it.
    for doing in DOINGS:
        short.add_metric((doing,), shortages.get(doing, 0))
    yield short
