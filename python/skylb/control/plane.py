"""The control plane put together: sources of replicas, fleet, probes."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from skylb.addresses import ReplicaUrl
from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.control.fleet import Fleet
from skylb.control.probe import Prober
from skylb.discovery.adopted import adopted, name_of
from skylb.discovery.source import Offered, Site, Source
from skylb.discovery.sources import make
from skylb.keyfiles import read_secret
from skylb.metrics import Metrics
from skylb.router import Router
from skylb.tasks import TaskGroup
from skylb.types import Replica
from skylb.upstream import Pool

log = logging.getLogger("skylb.control")

PROBE_RECEIVE_BUFFER_BYTES = 128 << 10
"""Room for a whole metrics page: with the data plane's 32 KiB a page of 50 kB comes in two or more reads,
and probing 100 replicas at 100 ms costs 1.5 times the CPU time (measured side by side)."""

PROBE_CONNECTIONS_IDLE_MAX = 2
"""Per replica: one for probes, one for the list of models. Probes have connections of their own also so
that they never take a request's warm one."""

SWEEP_S = 1.0


class Control:
    """Everything that writes facts into the router.

    Args:
        settings: the fleet, and how often to look at it.
        router: takes the facts.
        pool: the data plane's connections; replicas that leave are forgotten there too.
        metrics: counts what probes cost.
        on_failure: told of a task that ended with an error, by name: without it facts would go stale.
    """

    def __init__(
        self,
        settings: Settings,
        router: Router,
        pool: Pool,
        metrics: Metrics,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._settings = settings
        self._tasks = TaskGroup(on_failure)
        self._pool = pool.sibling(
            idle_len_max=PROBE_CONNECTIONS_IDLE_MAX, receive_buffer_bytes=PROBE_RECEIVE_BUFFER_BYTES
        )
        self._prober = Prober(
            router,
            self._pool,
            metrics.probing,
            timeout_s=settings.timeout.probe_s,
            models_s=settings.discovery.models_s,
        )
        router.refresh_models_with(self._prober.look)
        self._fleet = Fleet(router, (pool, self._pool), self._fleet_changed)
        self.on_own: Callable[[list[str]], None] | None = None
        """Hears the names of this balancer's own replicas, after each change of the fleet."""
        self._adopted: dict[str, asyncio.Task[None]] = {}
        self._site = Site(self._fleet.offer, self._prober.is_up, settings.mesh.region)
        self._sources: list[Source] = []

    async def start(self) -> None:
        """Offers the configured fleet and starts to measure it; a replica that is down is no error.

        Raises:
            ConfigError: a source of replicas cannot be understood.
        """
        settings = self._settings
        self._sources = make(settings, settings.discovery, self._site)
        for source in self._sources:
            await source.load()
            # What a source has opened it closes at the end of its task, also where the next one is no good.
            self._tasks.start(source.run(), name=f"replicas of {source.name}")
        self._tasks.start(self._prober.run(), name="probe")
        self._tasks.start(self._sweep(), name="sweep probes' connections")

    def _fleet_changed(self, replicas: list[Replica]) -> None:
        self._prober.set_replicas(replicas)
        if self.on_own is not None:
            self.on_own(self._fleet.own())

    def adopt(self, peer: str, region: str, urls: Sequence[ReplicaUrl]) -> None:
        """Serves a dead balancer's replicas as well; they keep their region.

        A name is looked up again and again: only addresses in ``adopt_from`` are ever connected to.
        """
        self.hand_back(peer)
        settings = self._settings
        ranges = settings.mesh.adopt_from
        source = adopted(peer, region, urls, ranges=ranges, timing=settings.discovery, site=self._site)
        self._adopted[peer] = self._tasks.start(source.run(), name=f"replicas of {source.name}")

    def hand_back(self, peer: str) -> None:
        """Serves them no longer; requests under way at them end."""
        task = self._adopted.pop(peer, None)
        if task is not None:
            task.cancel()
            self._fleet.offer(name_of(peer), ())

    async def close(self) -> None:
        """Ends all tasks and probes."""
        await self._tasks.stop()
        self._prober.close()
        await self._pool.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._pool.sweep()

    def renew(self) -> None:
        """Lets the sources look at once, in the background; what is broken changes nothing."""
        for source in self._sources:
            self._tasks.start(source.look(), name="renew")

    async def first_look(self, timeout_s: float) -> None:
        """Waits until each replica was probed once, ``timeout_s`` at most: for the lines at start."""
        try:
            async with asyncio.timeout(timeout_s):
                for source in self._sources:
                    await source.passed.wait()
                await self._prober.settled.wait()
        except TimeoutError:
            log.warning("not every replica answered within %g s", timeout_s)

    def read_keys(self) -> None:
        """Reads the files of the keys that replicas are sent.

        Raises:
            ConfigError: one cannot be read or understood; what was read before stays.
        """
        settings = self._settings
        key = read_secret(settings.replica_key_file, "replica_key_file")
        probe_key = read_secret(settings.probe_key_file, "probe_key_file")
        self.set_authorization(bearer(key), bearer(probe_key))

    def set_authorization(self, authorization: str | None, probe: str | None = None) -> None:
        """Changes the values of ``Authorization`` that replicas are sent.

        Args:
            authorization: with requests, instead of the client's; with probes unless they have their own.
            probe: with probes and requests for lists of models alone.
        """
        self._fleet.set_authorization(authorization, authorization if probe is None else probe)

    def set_draining(self, name: str, *, draining: bool) -> bool:
        """Operator intent for a replica by name; ``False`` when there is none of that name."""
        return self._fleet.set_draining(name, draining=draining)

    def leave(self, name: str, at_ns: int, *, ends: bool = True) -> bool:
        """A replica ends, or is to be empty, at this time of the monotonic clock; see `Fleet.leave`."""
        return self._fleet.leave(name, at_ns, ends=ends)

    def drains(self, name: str) -> bool:
        """Whether a replica is to get no new requests; ``False`` for an unknown name."""
        return self._fleet.drains(name)

    def drained(self) -> dict[str, str]:
        """The replicas that get no new requests, by name: who wants it."""
        return self._fleet.drained()

    def drained_by_operators(self) -> list[str]:
        """The replicas that operators drain without a time."""
        return self._fleet.drained_by_operators()

    def leaving(self) -> dict[str, tuple[int, bool]]:
        """The replicas that are left at a time of the monotonic clock, and whether they end then."""
        return self._fleet.leaving()

    def intend(self, draining: Sequence[str], leaving: Mapping[str, tuple[int, bool]]) -> None:
        """What operators have asked of the process before this one, also of replicas not offered yet."""
        self._fleet.intend(draining, leaving)

    def states(self) -> dict[str, str]:
        """By replica name: ``up``, ``unknown``, ``blind: why``, ``down: why``, or what its source lacks.

        What of its models is not known follows behind a semicolon.
        """
        states = self._prober.states()
        for source in self._sources:
            states.update((name, str(trouble)) for name, trouble in source.troubles().items())
        return states

    def discovery(self) -> dict[str, Any]:
        """Where the replicas come from, for ``/state``: sources, and what these know of each replica."""
        now_ns = monotonic_ns()
        sizes = self._fleet.sizes()
        sources = {
            source.name: {
                "age_s": round((now_ns - source.seen_ns) / 1e9, 3) if source.seen_ns is not None else None,
                "replicas": sizes.get(source.name, 0),
            }
            for source in self._sources
        }
        return {"sources": sources, "replicas": _described(self._fleet.offered())}

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        now_ns = monotonic_ns()
        age = GaugeMetricFamily(
            "skylb_discovery_age_seconds",
            "Time since a source of replicas was last known to be up to date.",
            labels=("source",),
        )
        for source in self._sources:
            if source.seen_ns is not None:
                age.add_metric((source.name,), (now_ns - source.seen_ns) / 1e9)
        yield age
        replicas = GaugeMetricFamily(
            "skylb_discovery_replicas", "Replicas that a source offers.", labels=("source",)
        )
        for name, size in self._fleet.sizes().items():
            replicas.add_metric((name,), size)
        yield replicas


def _described(offered: dict[str, Offered]) -> dict[str, dict[str, Any]]:
    """What sources know of replicas, where they know something."""
    return {
        name: {
            "instance": one.description.instance,
            "node": one.description.node,
            "zone": one.description.zone,
            "role": one.description.role,
            "weight": one.description.weight,
            "region": one.region,
            "draining": one.draining,
        }
        for name, one in offered.items()
        if one.description is not None
    }


def bearer(key: str | None) -> str | None:
    """``Authorization`` with a key."""
    return None if key is None else f"Bearer {key}"
