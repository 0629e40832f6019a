"""Probes: one ticker asks the engine which load it wants to know, and reports what it finds.

There is no task per probe, and no timer beyond the fetch's own: answers come as callbacks. At most one probe
per replica is under way. Probes that fall due together are spread over the interval, so that neither the loop
nor a shared host sees them in lockstep.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from math import ceil

from skylb import _core
from skylb.clock import Standstill, monotonic_ns
from skylb.control.modellists import Lists, Look, ModelList
from skylb.control.pages import Pages
from skylb.errors import ConnectError, ShortageError, SkyLBError, UnreadableError
from skylb.metrics import Probing
from skylb.router import Router
from skylb.types import Replica
from skylb.upstream import Fetch, Pool, Response

log = logging.getLogger("skylb.control.probe")

TICKS_PER_INTERVAL = 5
"""Looks at what is due per shortest probe interval: a probe is late by a fifth of it at most."""

TICK_S_MAX = 0.05

PAGE_BYTES_MAX = 8 << 20
"""A metrics page; vLLM's has 50 kB, and one label set more per model and engine."""

MODELS_LOOK_NS = 1_000_000_000
"""Between looks for lists of models that are due of replicas that another balancer probes for us."""


class State(Enum):
    """What the last probe found."""

    UNKNOWN = "unknown"
    UP = "up"
    BLIND = "blind"
    DOWN = "down"


UP = State.UP
"""A member looked up on its class costs as much as a call."""


class Watched:
    """One replica as probes see it."""

    __slots__ = (
        "detail",
        "late",
        "looked_at",
        "models",
        "pages",
        "probe",
        "replica",
        "state",
    )

    def __init__(self, replica: Replica, models: ModelList) -> None:
        self.state = State.UNKNOWN
        self.detail = ""
        self.looked_at = False
        """It is known to be down, or its models were asked for."""
        self.late = False
        """Its last probe was not answered in time, nor anything else since."""
        self.pages = Pages(replica)
        self.probe: Probe | None = None
        self.models = models
        self.replica = replica

    def aim(self, replica: Replica) -> None:
        """Takes over the replica as it is now: its key may have changed."""
        self.replica = replica
        self.pages.aim(replica)
        self.models.aim(replica)

    def described(self) -> str:
        """Its state, for people."""
        state = f"{self.state.value}: {self.detail}" if self.detail else self.state.value
        models = self.models.detail if self.state in {State.UP, State.BLIND} else ""
        return f"{state}; {models}" if models else state

    def cancel(self) -> None:
        """Gives up what is under way."""
        if self.probe is not None:
            self.probe.fetch.cancel()
            self.probe = None
        self.models.cancel()


class Probe:
    """One probe under way."""

    __slots__ = ("_done", "fetch", "narrowed", "sent_ns", "watched")

    def __init__(self, watched: Watched, done: "Callable[[Probe, Response | SkyLBError], None]") -> None:
        self.watched = watched
        self.narrowed = watched.pages.narrowed
        self.sent_ns = monotonic_ns()
        self._done = done
        self.fetch: Fetch

    def __call__(self, result: Response | SkyLBError) -> None:
        """The fetch ended."""
        self._done(self, result)


class Prober:
    """Measures the fleet's load, and reads the models of replicas that answer.

    Args:
        router: says whose probe is due and takes the results.
        pool: connections for probes and lists of models.
        costs: where what each probe costs is counted.
        interval_s: shortest time between two probes of one replica.
        timeout_s: for one probe or list of models, the connect included.
        models_s: time between two readings of a replica's models.
    """

    def __init__(
        self,
        router: Router,
        pool: Pool,
        costs: Probing,
        *,
        interval_s: float,
        timeout_s: float,
        models_s: float,
    ) -> None:
        self._router = router
        self._pool = pool
        self._costs = costs
        self._tick_s = min(interval_s / TICKS_PER_INTERVAL, TICK_S_MAX)
        self._standstill = Standstill(self._tick_s)
        self._ticks_per_interval = max(1, round(interval_s / self._tick_s))
        self._timeout_s = timeout_s
        self._timeout_ns = int(timeout_s * 1e9)
        self._lists = Lists(router, pool, timeout_s=timeout_s, interval_s=models_s)
        self._models_looked_ns = 0
        self._look: Look | None = None
        self._watched: dict[int, Watched] = {}
        self._due: dict[int, None] = {}
        self._under_way: dict[Probe, None] = {}
        """In the order in which they were sent; at most one per replica, and those just cancelled."""
        self.settled = asyncio.Event()
        """Set while every replica has been looked at: its first probe has ended and, if it was answered,
        the first list of models too. A request for a model that is just being asked for would be refused."""
        self.settled.set()

    # ------------------------------------------------------------------- the fleet

    def set_replicas(self, replicas: list[Replica]) -> None:
        """The fleet changed: forgets replicas that left, aims at those that changed."""
        ids = {replica.id for replica in replicas}
        for gone in self._watched.keys() - ids:
            self._watched.pop(gone).cancel()
            self._due.pop(gone, None)
        for replica in replicas:
            watched = self._watched.get(replica.id)
            if watched is None:
                self._watched[replica.id] = self._watch(replica)
            elif watched.replica is not replica:
                watched.aim(replica)
        self._costs.retain({replica.name for replica in replicas})
        self._settle()

    def _watch(self, replica: Replica) -> Watched:
        models = ModelList(replica, self._lists, lambda answered: self._listed(watched, answered))
        watched = Watched(replica, models)
        return watched

    def look(self, done: Callable[[], None]) -> None:
        """Reads the lists of all replicas that answer, now; ``done`` is called in the end, once."""
        answering = {State.UP, State.BLIND}
        self._end_look()
        self._look = Look([w.models for w in self._watched.values() if w.state in answering], done)

    def is_up(self, name: str) -> bool:
        """Whether the replica of that name answered its last probe."""
        answering = {State.UP, State.BLIND}
        return any(w.replica.name == name and w.state in answering for w in self._watched.values())

    def states(self) -> dict[str, str]:
        """By replica name: ``up``, ``unknown``, ``blind: why``, ``down: why``.

        What of its models is not known follows behind a semicolon.
        """
        return {w.replica.name: w.described() for w in self._watched.values()}

    # ------------------------------------------------------------------- the ticker

    async def run(self) -> None:
        """Probes until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(self._tick_s)

    def tick(self) -> None:
        """Gives up probes that take too long, and sends this tick's share of those that are due."""
        now_ns = monotonic_ns()
        if not self._standstill.before(now_ns):
            self._time_out(now_ns)
        if now_ns - self._models_looked_ns >= MODELS_LOOK_NS:
            self._models_looked_ns = now_ns
            self._ask_overdue(now_ns)
        due = self._due
        for replica_id in self._router.probes_due():
            due[replica_id] = None
        # A fleet that falls due as one is sent in equal shares, in the same order each time: every replica
        # keeps its interval, and no two shares meet.
        share = ceil(len(self._watched) / self._ticks_per_interval)
        for replica_id in list(due)[:share]:
            del due[replica_id]
            watched = self._watched.get(replica_id)
            if watched is not None and watched.probe is None:
                self._send(watched)

    def _time_out(self, now_ns: int) -> None:
        """All have the same time: the oldest is the first whose time is over."""
        while self._under_way:
            probe = next(iter(self._under_way))
            if now_ns - probe.sent_ns < self._timeout_ns:
                return
            del self._under_way[probe]
            if probe.watched.probe is probe:
                probe.fetch.time_out()

    def _send(self, watched: Watched) -> None:
        watched.probe = probe = Probe(watched, self._answered)
        self._under_way[probe] = None
        probe.fetch = Fetch(
            self._pool,
            watched.replica,
            watched.pages.request,
            timeout_s=None,
            body_bytes_max=PAGE_BYTES_MAX,
            done=probe,
        )

    def _answered(self, probe: Probe, result: Response | SkyLBError) -> None:
        watched = probe.watched
        watched.probe = None
        self._under_way.pop(probe, None)
        now_ns = monotonic_ns()
        if not isinstance(result, Response):
            self._costs.durations.observe(now_ns - probe.sent_ns)
            if isinstance(result, ShortageError):  # it says nothing of the replica
                self._looked_at(watched)
            else:
                self._unanswered(probe, result, now_ns)
            return
        watched.late = False
        snapshot = watched.pages.read(result, probe.narrowed)
        self._costs.answered(
            watched.replica.name,
            duration_ns=now_ns - probe.sent_ns,
            own_ns=monotonic_ns() - now_ns,
            page_bytes=len(result.body),
        )
        if snapshot is None and probe.narrowed:
            self._send(watched)
            return
        if snapshot is None:
            why = "no load among its metrics" if result.status == 200 else f"/metrics answers {result.status}"
            self._change(watched, State.BLIND, why)
            self._router.observe_failed(watched.replica.id, _core.PROBE_UNREADABLE)
        else:
            if watched.state is not UP or watched.detail:
                self._change(watched, UP, "")
            self._router.observe(watched.replica.id, snapshot, probe.sent_ns)
        watched.models.ask_if_due(now_ns)

    def _unanswered(self, probe: Probe, error: SkyLBError, now_ns: int) -> None:
        """No page.

        A connection that cannot be made says that the replica is down. A page that is late or cannot be
        read says nothing of its requests.
        """
        watched = probe.watched
        unread = _unread(error)
        watched.late = unread == _core.PROBE_LATE
        if watched.pages.unanswered(probe.narrowed, late=watched.late):
            self._send(watched)
            return
        if unread == _core.PROBE_UNREADABLE and not probe.narrowed:
            watched.pages.unreadable()
        reason = _reason(error, watched.replica)
        if isinstance(error, ConnectError):
            self._change(watched, State.DOWN, reason)
            self._router.observe_failed(watched.replica.id, unread)
            self._looked_at(watched)
            return
        self._change(watched, State.BLIND, reason)
        self._router.observe_failed(watched.replica.id, unread)
        if watched.late:
            watched.models.hurry()  # whether it answers anything, its list shows
        watched.models.ask_if_due(now_ns)

    def _listed(self, watched: Watched, answered: bool) -> None:
        """A look at the list of models is over."""
        if answered and watched.late:
            watched.late = False
            self._router.observe_failed(watched.replica.id, _core.PROBE_UNREADABLE)
        self._looked_at(watched)

    def _change(self, watched: Watched, state: State, detail: str) -> None:
        watched.detail = detail
        if state is watched.state:
            return
        before, watched.state = watched.state, state
        if before in {State.UNKNOWN, State.DOWN}:
            watched.models.renew()  # a server that was away may have come back with another model
        level = logging.INFO if state is State.UP else logging.WARNING
        log.log(
            level, "replica %s is %s%s", watched.replica.name, state.value, f": {detail}" if detail else ""
        )

    def _looked_at(self, watched: Watched) -> None:
        if not watched.looked_at:
            watched.looked_at = True
            self._settle()

    def _settle(self) -> None:
        if all(watched.looked_at for watched in self._watched.values()):
            self.settled.set()
        else:
            self.settled.clear()

    def _ask_overdue(self, now_ns: int) -> None:
        """Asks for lists that no answered probe of ours has asked for."""
        for watched in self._watched.values():
            if watched.state in {State.UP, State.BLIND}:
                watched.models.ask_if_overdue(now_ns)

    def _end_look(self) -> None:
        look, self._look = self._look, None
        if look is not None:
            look.stop()

    def close(self) -> None:
        """Gives up all probes under way."""
        self._end_look()
        for watched in self._watched.values():
            watched.cancel()
        self._watched.clear()
        self._due.clear()
        self._under_way.clear()


def _unread(error: SkyLBError) -> int:
    if isinstance(error, ConnectError):
        return _core.PROBE_REFUSED if error.refused else _core.PROBE_UNCONNECTED
    return _core.PROBE_UNREADABLE if isinstance(error, UnreadableError) else _core.PROBE_LATE


def _reason(error: SkyLBError, replica: Replica) -> str:
    return str(error).removeprefix(f"{replica.name}: ")
