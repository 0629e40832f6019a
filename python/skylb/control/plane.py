"""The control plane put together: sources of replicas, fleet, probes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from skylb.addresses import ReplicaUrl
from skylb.config import Settings
from skylb.control.fleet import Fleet
from skylb.control.probe import Prober
from skylb.discovery import DnsSource, FileSource, NamedSource
from skylb.discovery.file import REPLICAS
from skylb.discovery.resolve import resolve
from skylb.discovery.target import Target
from skylb.hosts import why_not
from skylb.keyfiles import read_secret
from skylb.metrics import Metrics
from skylb.router import Router
from skylb.tasks import TaskGroup
from skylb.types import Address, Replica
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
            interval_s=settings.engine.probe_interval_s,
            timeout_s=settings.timeout.probe_s,
            models_s=settings.discovery.models_s,
        )
        router.look_with(self._prober.look)
        self._fleet = Fleet(router, (pool, self._pool), self._fleet_changed)
        self.on_own: Callable[[list[str]], None] | None = None
        """Hears the names of this balancer's own replicas, after each change of the fleet."""
        self._adopted: dict[str, asyncio.Task[None]] = {}
        self._named: list[NamedSource] = []
        self._dns: list[DnsSource] = []
        self._file: FileSource[ReplicaUrl] | None = None

    async def start(self) -> None:
        """Offers the configured fleet and starts to measure it; a replica that is down is no error.

        Raises:
            ConfigError: the replicas file cannot be understood.
        """
        settings = self._settings
        if settings.replica_key_file is not None and settings.tls_client_ca is None:
            log.warning(
                "replica_key_file: requests reach the replicas with this key, whoever sent them: clients are "
                "not checked here (tls_client_ca); for probes alone there is probe_key_file"
            )
        self._named_source("flags").set_urls(settings.replica)
        if settings.replicas_file is not None:
            listed = self._named_source(str(settings.replicas_file))
            self._file = FileSource(
                settings.replicas_file,
                listed.set_urls,
                interval_s=settings.discovery.file_s,
                listing=REPLICAS,
            )
            await self._file.load()
            self._tasks.start(self._file.run(), name="replicas file")
        for url in settings.replicas_dns:
            source = DnsSource(
                url,
                partial(self._fleet.offer, f"dns {url}"),
                interval_s=settings.discovery.dns_s,
                family=settings.discovery.dns_family,
            )
            self._dns.append(source)
            self._tasks.start(source.run(), name=f"resolve {url}")
        for named in self._named:
            self._tasks.start(named.run(), name="resolve replicas")
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

        def offer(targets: Sequence[Target]) -> None:
            self._fleet.offer(f"adopted {peer}", [replace(target, region=region) for target in targets])

        source = NamedSource(
            offer,
            self._prober.is_up,
            interval_s=self._settings.discovery.dns_s,
            resolver=self._resolve_adopted,
        )
        source.set_urls(urls)
        self._adopted[peer] = self._tasks.start(source.run(), name=f"resolve replicas of {peer}")

    async def _resolve_adopted(self, url: ReplicaUrl) -> list[Address]:
        found = await resolve(url)
        ranges = self._settings.mesh.adopt_from
        allowed = [address for address in found if why_not(ranges, url, address) is None]
        if not allowed:
            raise OSError(why_not(ranges, url, found[0]) if found else "it has no address")
        return allowed

    def hand_back(self, peer: str) -> None:
        """Serves them no longer; requests under way at them end."""
        task = self._adopted.pop(peer, None)
        if task is not None:
            task.cancel()
            self._fleet.offer(f"adopted {peer}", ())

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
        """Looks at the replicas file at once, in the background; a broken one changes nothing."""
        if self._file is not None:
            self._tasks.start(self._file.look(), name="renew")

    async def first_look(self, timeout_s: float) -> None:
        """Waits until each replica was probed once, ``timeout_s`` at most: for the lines at start."""
        try:
            async with asyncio.timeout(timeout_s):
                for passed in [source.passed for source in self._named] + [dns.passed for dns in self._dns]:
                    await passed.wait()
                await self._prober.settled.wait()
        except TimeoutError:
            log.warning("not every replica was looked at within %g s", timeout_s)

    def read_keys(self) -> None:
        """Reads the files of the keys that replicas are sent.

        Raises:
            ConfigError: one cannot be read or understood; what was read before stays.
        """
        settings = self._settings
        key = read_secret(settings.replica_key_file, "replica_key_file")
        probe_key = read_secret(settings.probe_key_file, "probe_key_file")
        self.set_authorization(_bearer(key), _bearer(probe_key))

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

    def states(self) -> dict[str, str]:
        """By replica name: ``up``, ``unknown``, ``blind: why``, ``down: why`` or ``unresolved: why``.

        What of its models is not known follows behind a semicolon.
        """
        states = self._prober.states()
        by_source = [named.unresolved() for named in self._named] + [dns.unresolved() for dns in self._dns]
        for unresolved in by_source:
            states.update((name, f"unresolved: {why}") for name, why in unresolved.items())
        return states

    def _named_source(self, name: str) -> NamedSource:
        source = NamedSource(
            partial(self._fleet.offer, name), self._prober.is_up, interval_s=self._settings.discovery.dns_s
        )
        self._named.append(source)
        return source


def _bearer(key: str | None) -> str | None:
    return None if key is None else f"Bearer {key}"
