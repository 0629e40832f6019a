"""The engine process's side of its workers: a line to each, its view, and its figures."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb._core import Recorder, Tenant
from skylb.data.proxy import Exchange
from skylb.localrouter import LocalRouter
from skylb.mesh.signing import Identity
from skylb.tasks import TaskGroup
from skylb.workers import protocol
from skylb.workers.line import Line, open_line
from skylb.workers.protocol import Asked, Figures, Listing, View
from skylb.workers.router import understood

log = logging.getLogger("skylb.workers")

CLOSING_S = 3.0
"""What workers take besides to end what did not end in time: error events, the last bytes."""

PROCESSES = ("engine", "worker")

LOOK_S = 0.1
"""Between two looks whether workers need to know something new."""


class Clients:
    """The connections of clients at all workers, as a frontend's are counted.

    Args:
        hub: knows the workers' figures.
    """

    name = "clients"

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    @property
    def connections_len(self) -> int:
        """Open connections."""
        return self._hub.gauge("connections")

    @property
    def connections_max(self) -> int:
        """Connections at once at most."""
        return self._hub.gauge("connections_max")

    @property
    def closed_total(self) -> int:
        """Idle connections closed to make room."""
        return self._hub.counter("connections_closed")

    @property
    def refused_total(self) -> int:
        """Connections turned away for want of room."""
        return self._hub.counter("connections_refused")

    def exchanges(self) -> Iterator[Exchange]:
        """None of them is here."""
        return iter(())


@dataclass
class Seat:
    """A worker's place."""

    number: int
    line: Line | None = None
    view: View | None = None
    """What it was told last."""
    figures: Figures = field(default_factory=lambda: Figures({}, {}))
    before: Counter[str] = field(default_factory=Counter)
    """What earlier workers of this place have counted."""


class Hub:
    """The lines of all workers.

    Args:
        router: has the engine.
        recorder: counts what workers record.
        identity: of this balancer.
        leaves: whether this balancer is being stopped, or its region evacuated.
        cut: called with the number of a worker whose line had to be cut.
    """

    def __init__(
        self,
        router: LocalRouter,
        recorder: Recorder,
        identity: Identity,
        leaves: Callable[[], bool],
        cut: Callable[[int], None],
    ) -> None:
        self._router = router
        self._recorder = recorder
        self._identity = identity
        self._leaves = leaves
        self._cut = cut
        self.seats: dict[int, Seat] = {}
        self.starts: dict[str, int] = {}
        """How often processes of this balancer have been started again, by kind."""
        self.lost_total = 0
        """Requests of workers that have died."""
        self._tasks = TaskGroup()
        self._look: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        router.workers_with(self._post, self._show_all)

    @property
    def lines_len(self) -> int:
        """Workers that have a line."""
        return sum(seat.line is not None for seat in self.seats.values())

    def start(self) -> None:
        """Looks from now on whether workers need to know something new."""
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._looked)

    async def join(self, worker: int, descriptor: int) -> None:
        """A worker gets a line, in the place of one that has died or is new."""
        seat = self.seats.setdefault(worker, Seat(worker))
        if seat.line is not None:
            self._left(seat, seat.line)
        self._router.worker_joined(worker)
        seat.view = None

        def received(data: bytes) -> None:
            if not understood(self._receive, seat, data):
                self._give_up(seat)

        line = await open_line(descriptor, received, lambda: self._left(seat, line))
        seat.line = line
        self._show(seat, self._now())

    def _left(self, seat: Seat, line: Line) -> None:
        """A worker's line has ended: its requests have too."""
        if seat.line is not line:
            return
        seat.line = None
        line.transport.abort()
        seat.before.update(seat.figures.counters)
        seat.figures = Figures({}, {})
        lost = self._router.worker_left(seat.number)
        self.lost_total += lost
        if lost:
            log.warning("worker %d is gone, and %d requests with it", seat.number, lost)
        if self._emptied is not None and not self.lines_len and not self._emptied.done():
            self._emptied.set_result(None)

    def _give_up(self, seat: Seat) -> None:
        if seat.line is not None:
            self._left(seat, seat.line)
            self._cut(seat.number)

    # --------------------------------------------------------------------------- mail out

    def _post(self, worker: int) -> None:
        """Mail waits for a worker: it goes out behind this turn of the loop, with what joins it till then."""
        asyncio.get_running_loop().call_soon(self._send, worker)

    def _send(self, worker: int) -> None:
        seat = self.seats.get(worker)
        if seat is None or seat.line is None:
            return
        seat.line.transport.write(self._router.take_mail(worker))
        if seat.line.choked:
            log.error("worker %d does not read what the engine process tells it", worker)
            self._give_up(seat)

    def _now(self) -> View:
        router = self._router
        return View(
            ready=router.ready(),
            leaves=self._leaves(),
            only_model=router.only_model(),
            policy=router.policy,
            identity=(self._identity.name, self._identity.incarnation),
            replicas=router.replicas(),
            peers=router.peers(),
        )

    def _show_all(self) -> None:
        view = self._now()
        for seat in self.seats.values():
            if seat.line is not None:
                self._show(seat, view)

    def _show(self, seat: Seat, view: View) -> None:
        """Tells a worker how it is here, if that is news."""
        if view != seat.view:
            seat.view = view
            self._router.tell_worker(seat.number, protocol.encode(view))

    def _looked(self) -> None:
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._looked)
        self._show_all()

    # ---------------------------------------------------------------------------- notes in

    def _receive(self, seat: Seat, data: bytes) -> None:
        for note in self._router.serve(seat.number, data, self._recorder):
            found = protocol.decode_up(note)
            if isinstance(found, Figures):
                seat.figures = found
            else:
                self._answer(seat.number, found)

    def _answer(self, worker: int, asked: Asked) -> None:
        if asked.models:
            tenant = Tenant.UNKNOWN if asked.unknown else Tenant.NOBODY
            tenant = Tenant(asked.tenant) if asked.tenant is not None else tenant
            listing = Listing(asked.number, models=self._router.models(tenant))
        else:
            listing = Listing(asked.number, loads=self._router.loads())
        self._router.tell_worker(worker, protocol.encode(listing))

    # ----------------------------------------------------------------------------- figures

    def gauge(self, name: str) -> int:
        """The sum over the workers that live."""
        return sum(seat.figures.gauges.get(name, 0) for seat in self.seats.values())

    def counter(self, name: str) -> int:
        """The sum over all workers there were."""
        seats = self.seats.values()
        return sum(seat.before[name] + seat.figures.counters.get(name, 0) for seat in seats)

    def by_model(self, name: str) -> Counter[str]:
        """The sum over the workers that live, by model, of a gauge that they tell so."""
        found: Counter[str] = Counter()
        for seat in self.seats.values():
            for gauge, count in seat.figures.gauges.items():
                kind, _, model = gauge.partition(" ")
                if kind == name:
                    found[model] += count
        return found

    def view(self) -> list[dict[str, Any]]:
        """Each worker, for operators."""
        return [self._view(seat) for _, seat in sorted(self.seats.items())]

    def _view(self, seat: Seat) -> dict[str, Any]:
        gauges, counters = seat.figures.gauges, seat.figures.counters
        return {
            "worker": seat.number,
            "attached": seat.line is not None,
            "pid": gauges.get("pid"),
            "connections": gauges.get("connections", 0),
            "requests": gauges.get("requests", 0),
            "cpu_s": round(counters.get("cpu_ns", 0) / 1e9, 3),
            "lag_ms": gauges.get("lag_us", 0) / 1e3,
        }

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        yield GaugeMetricFamily("skylb_workers", "Workers that have a line.", value=self.lines_len)
        restarts = CounterMetricFamily(
            "skylb_process_restarts", "Processes of this balancer that died.", labels=("process",)
        )
        for kind in PROCESSES:
            restarts.add_metric((kind,), self.starts.get(kind, 0))
        yield restarts
        yield CounterMetricFamily(
            "skylb_worker_requests_lost", "Requests under way in workers that died.", value=self.lost_total
        )
        yield CounterMetricFamily(
            "skylb_worker_cpu_seconds", "CPU time of workers.", value=self.counter("cpu_ns") / 1e9
        )

    # --------------------------------------------------------------------------------- end

    @property
    def connections_len(self) -> int:
        """Open connections of clients, at all workers."""
        return self.gauge("connections")

    def stop_accepting(self, idle_s: float) -> None:
        """Workers do that by themselves: the supervisor has told them."""
        del idle_s  # theirs

    async def drain(self, timeout_s: float) -> int:
        """Waits until no worker is left, for as long as they have, and a moment more."""
        if self.lines_len:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=timeout_s + CLOSING_S)
        return self.lines_len

    async def close(self) -> None:
        """Ends all lines."""
        if self._look is not None:
            self._look.cancel()
        for seat in self.seats.values():
            if seat.line is not None:
                self._left(seat, seat.line)
