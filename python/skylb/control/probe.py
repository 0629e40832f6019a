"""Probes: carries out those that the engine asks for, and reports what they find.

There is no task and no timer per probe: answers come as callbacks, and one sweep gives up what takes too
long. The engine says what is known of a replica by its probes; here are only the texts.
"""

import asyncio
import logging
from collections.abc import Callable

from skylb import _core
from skylb.clock import Standstill, monotonic_ns
from skylb.control.modellists import Lists, Look, ModelList
from skylb.control.pages import Pages, refusal
from skylb.errors import ConnectError, ShortageError, SkyLBError, UnreadableError
from skylb.metrics import Probing
from skylb.router import Router
from skylb.types import Replica
from skylb.upstream import Fetch, Pool, Response

log = logging.getLogger("skylb.control.probe")

SWEEP_S_MAX = 0.25
"""Between looks for probes that take too long."""

SWEEPS_PER_TIMEOUT = 8
"""A probe's time is exceeded by one part of so many at most."""

PAGE_BYTES_MAX = 8 << 20
"""A metrics page; vLLM's has 50 kB, and one label set more per model and engine."""

MODELS_LOOK_NS = 1_000_000_000
"""Between looks for lists of models that are due of replicas that another balancer probes for us."""


NAMES = {
    _core.PROBED_UNKNOWN: "unknown",
    _core.PROBED_UP: "up",
    _core.PROBED_BLIND: "blind",
    _core.PROBED_DOWN: "down",
}
"""The engine's word for a replica, for people."""

ANSWERING = frozenset({_core.PROBED_UP, _core.PROBED_BLIND})


class Watched:
    """One replica as probes see it."""

    __slots__ = (
        "detail",
        "looked_at",
        "models",
        "pages",
        "probe",
        "reached",
        "replica",
        "said",
    )

    def __init__(self, replica: Replica, models: ModelList) -> None:
        self.said = _core.PROBED_UNKNOWN
        """What the log said of it last."""
        self.detail = ""
        """Why, as of the last probe."""
        self.reached = True
        """Its last probe made a connection. The engine waits longer before it calls a replica down that did
        not accept one in time: its backlog may be full."""
        self.looked_at = False
        """It is known to be down, or its models were asked for."""
        self.pages = Pages(replica)
        self.probe: Probe | None = None
        self.models = models
        self.replica = replica

    def aim(self, replica: Replica) -> None:
        """Takes over the replica as it is now: its key may have changed."""
        self.replica = replica
        self.pages.aim(replica)
        self.models.aim(replica)

    def met(self, *, reached: bool) -> None:
        """A probe ended, having made a connection or not."""
        if reached and not self.reached:
            self.models.renew()  # a server that was away may have come back with another model
        self.reached = reached

    def described(self, probed: int) -> str:
        """Its state (``PROBED_*``), for people."""
        detail = self.detail if probed == self.said else ""  # requests may have found out more
        state = f"{NAMES[probed]}: {detail}" if detail else NAMES[probed]
        models = self.models.detail if probed in ANSWERING else ""
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
        router: asks for probes and takes the results.
        pool: connections for probes and lists of models.
        costs: where what each probe costs is counted.
        timeout_s: for one probe or list of models, the connect included.
        models_s: time between two readings of a replica's models.
    """

    def __init__(
        self,
        router: Router,
        pool: Pool,
        costs: Probing,
        *,
        timeout_s: float,
        models_s: float,
    ) -> None:
        self._router = router
        self._pool = pool
        self._costs = costs
        self._sweep_s = min(timeout_s / SWEEPS_PER_TIMEOUT, SWEEP_S_MAX)
        self._standstill = Standstill(self._sweep_s)
        self._timeout_ns = int(timeout_s * 1e9)
        self._lists = Lists(router, pool, timeout_s=timeout_s, interval_s=models_s)
        self._models_looked_ns = 0
        self._look: Look | None = None
        self._watched: dict[int, Watched] = {}
        self._under_way: dict[Probe, None] = {}
        """In the order in which they were sent; at most one per replica, and those just cancelled."""
        self.settled = asyncio.Event()
        """Set while every replica has been looked at: its first probe has ended and, if it was answered,
        the first list of models too. A request for a model that is just being asked for would be refused."""
        self.settled.set()
        router.probe_with(self.probe)

    # ------------------------------------------------------------------- the fleet

    def set_replicas(self, replicas: list[Replica]) -> None:
        """The fleet changed: forgets replicas that left, aims at those that changed."""
        ids = {replica.id for replica in replicas}
        for gone in self._watched.keys() - ids:
            self._watched.pop(gone).cancel()
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
        self._end_look()
        self._look = Look([w.models for w in self._watched.values() if self._answers(w)], done)

    def is_up(self, name: str) -> bool:
        """Whether the replica of that name answered its last probe."""
        return any(w.replica.name == name and self._answers(w) for w in self._watched.values())

    def _answers(self, watched: Watched) -> bool:
        return watched.reached and self._router.probed_state(watched.replica.id) in ANSWERING

    def states(self) -> dict[str, str]:
        """By replica name: ``up``, ``unknown``, ``blind: why``, ``down: why``.

        What of its models is not known follows behind a semicolon.
        """
        probed = self._router.probed_state
        return {w.replica.name: w.described(probed(w.replica.id)) for w in self._watched.values()}

    # ------------------------------------------------------------------- probes

    def probe(self, replica_id: int) -> None:
        """The engine wants to know this replica's load."""
        watched = self._watched.get(replica_id)
        if watched is not None:  # else all is over
            self._send(watched)

    async def run(self) -> None:
        """Gives up what takes too long, until cancelled."""
        while True:
            self.sweep()
            await asyncio.sleep(self._sweep_s)

    def sweep(self) -> None:
        """Gives up probes that take too long, and asks for lists that no probe of ours has asked for."""
        now_ns = monotonic_ns()
        if not self._standstill.before(now_ns):
            self._time_out(now_ns)
        if now_ns - self._models_looked_ns >= MODELS_LOOK_NS:
            self._models_looked_ns = now_ns
            self._ask_overdue(now_ns)

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
                self._router.observe_failed(watched.replica.id, _core.PROBE_UNSENT)
                self._looked_at(watched)
            else:
                self._unanswered(probe, result, now_ns)
            return
        watched.met(reached=True)
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
            known = "no load among its metrics"
            why = known if result.status == 200 else refusal("/metrics", result.status, watched.replica)
            self._router.observe_failed(watched.replica.id, _core.PROBE_UNREADABLE)
            self._say(watched, why)
        else:
            self._router.observe(watched.replica.id, snapshot, probe.sent_ns)
            self._say(watched, "")
        watched.models.ask_if_due(now_ns)

    def _unanswered(self, probe: Probe, error: SkyLBError, now_ns: int) -> None:
        """No page. What that says of the replica, the engine decides."""
        watched = probe.watched
        unread = _unread(error)
        late = unread == _core.PROBE_LATE
        if watched.pages.unanswered(probe.narrowed, late=late):
            self._send(watched)
            return
        watched.met(reached=not isinstance(error, ConnectError))
        if unread == _core.PROBE_UNREADABLE and not probe.narrowed:
            watched.pages.unreadable()
        self._router.observe_failed(watched.replica.id, unread)
        self._say(watched, _reason(error, watched.replica))
        if not watched.reached:
            self._looked_at(watched)
            return
        if late:
            watched.models.hurry()  # whether it answers anything, its list shows
        watched.models.ask_if_due(now_ns)

    def _listed(self, watched: Watched, answered: bool) -> None:
        """A look at the list of models is over."""
        if answered:
            self._router.answered(watched.replica.id)
        self._looked_at(watched)

    def _say(self, watched: Watched, detail: str) -> None:
        """What the engine makes of a probe, in the log if it is new."""
        watched.detail = detail
        probed = self._router.probed_state(watched.replica.id)
        if probed == watched.said:
            return
        before, watched.said = watched.said, probed
        if before not in ANSWERING:
            watched.models.renew()  # a server that was away may have come back with another model
        level = logging.INFO if probed == _core.PROBED_UP else logging.WARNING
        log.log(
            level, "replica %s is %s%s", watched.replica.name, NAMES[probed], f": {detail}" if detail else ""
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
            if self._answers(watched):
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
        self._under_way.clear()


def _unread(error: SkyLBError) -> int:
    if isinstance(error, ConnectError):
        return _core.PROBE_REFUSED if error.refused else _core.PROBE_UNCONNECTED
    return _core.PROBE_UNREADABLE if isinstance(error, UnreadableError) else _core.PROBE_LATE


def _reason(error: SkyLBError, replica: Replica) -> str:
    return str(error).removeprefix(f"{replica.name}: ")
