"""The engine process's side of its workers: a line to each, its view, and its figures."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb._core import Recorder, Tenant
from skylb.data.proxy import Exchange
from skylb.localrouter import LocalRouter
from skylb.mesh.signing import Identity
from skylb.tasks import TaskGroup
from skylb.workers import orders, protocol
from skylb.workers.line import Line
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
    pid: int = 0
    """The process that had a line last."""
    serial: int = 0
    """Of that line."""
    lost: int = 0
    """Requests that this process had when its line ended: lost where it does not come back."""
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
        report: called when a line has ended, for the supervisor to make another one.
    """

    def __init__(
        self,
        router: LocalRouter,
        recorder: Recorder,
        identity: Identity,
        leaves: Callable[[], bool],
        report: Callable[[orders.Broken], None],
    ) -> None:
        self._router = router
        self._recorder = recorder
        self._identity = identity
        self._leaves = leaves
        self._report = report
        self.seats: dict[int, Seat] = {}
        self.workers_end = False
        """They have been ordered to end too. Where this process alone ends, they wait for the next one."""
        self.starts: dict[str, int] = {}
        """How often processes of this balancer have been started again, by kind."""
        self.lost_total = 0
        """Requests of workers that have died."""
        self._holds = False
        """Workers accept no connections for now."""
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

    async def join(self, order: orders.Line, descriptor: int) -> None:
        """A worker gets a line: a new worker, or one whose line has ended."""
        seat = self.seats.setdefault(order.worker, Seat(order.worker))
        if seat.line is not None:
            seat.line.abort()
            self._left(seat)
        if order.pid != seat.pid:
            self._succeeded(seat)
        seat.pid, seat.serial, seat.lost = order.pid, order.serial, 0
        seat.line = line = Line(partial(self._received, seat), partial(self._ended, seat))
        self._router.worker_joined(order.worker)
        seat.view = None
        self._show(seat, self._now())  # before an effect can name a replica of which the worker knows nothing
        await line.open(descriptor)

    def _succeeded(self, seat: Seat) -> None:
        """Another process has this place from now on."""
        seat.before.update(seat.figures.counters)
        seat.figures = Figures({}, {})
        self.lost_total += seat.lost
        if seat.lost:
            log.warning("worker %d has died, and %d requests with it", seat.number, seat.lost)

    def _received(self, seat: Seat, line: Line, data: bytes) -> None:
        if seat.line is line and not understood(self._receive, seat, data):
            line.abort()
            self._ended(seat, line, "its reports cannot be carried out")

    def _ended(self, seat: Seat, line: Line, why: str) -> None:
        """A line is of no use any more."""
        if seat.line is line:
            self._left(seat)
            self._report(orders.Broken(seat.number, seat.serial, why))

    def _left(self, seat: Seat) -> None:
        """A worker has no line. It may be dead: its requests end here. Another line brings them back."""
        seat.line = None
        seat.figures = Figures({}, seat.figures.counters)
        seat.lost = self._router.worker_left(seat.number)
        if self._emptied is not None and not self.lines_len and not self._emptied.done():
            self._emptied.set_result(None)

    # --------------------------------------------------------------------------- mail out

    def _post(self, worker: int) -> None:
        """Mail waits for a worker: it goes out behind this turn of the loop, with what joins it till then."""
        asyncio.get_running_loop().call_soon(self._send, worker)

    def _send(self, worker: int) -> None:
        seat = self.seats.get(worker)
        if seat is not None and seat.line is not None:
            seat.line.write(self._router.take_mail(worker))

    def _now(self) -> View:
        router = self._router
        return View(
            ready=router.ready(),
            leaves=self._leaves(),
            only_model=router.only_model(),
            policy=router.policy,
            continuing=router.continuing,
            identity=(self._identity.name, self._identity.incarnation),
            replicas=router.replicas(),
            peers=router.peers(),
            silent_peers=router.silent_peers(),
            holds=self._holds,
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
        notes, fault = self._router.serve(seat.number, data, self._recorder)
        for note in notes:
            found = protocol.decode_up(note)
            if isinstance(found, Figures):
                seat.figures = found
            else:
                self._answer(seat.number, found)
        if fault is not None:
            raise ValueError(fault)

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
        """Open connections of clients, at all workers; not less than workers that have a line.

        A worker may have accepted one since it has reported. It closes its line when it has drained.
        """
        return max(self.gauge("connections"), self.lines_len)

    def hold(self, *, holds: bool) -> None:
        """Workers accept no connections, or do again."""
        self._holds = holds
        self._show_all()

    @property
    def loaded_len(self) -> int:
        """Workers that have all they need to serve."""
        return sum(bool(seat.figures.gauges.get("loaded")) for seat in self.seats.values())

    def stop_accepting(self, idle_s: float) -> None:
        """Workers do that by themselves: the supervisor has told them."""
        del idle_s  # theirs

    async def drain(self, timeout_s: float) -> int:
        """Waits until no worker is left, for as long as they have, and a moment more; if they end at all."""
        if self.lines_len and self.workers_end:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=timeout_s + CLOSING_S)
        return self.lines_len

    async def close(self) -> None:
        """Ends all lines."""
        if self._look is not None:
            self._look.cancel()
        for seat in self.seats.values():
            if seat.line is not None:
                seat.line.abort()
                self._left(seat)
