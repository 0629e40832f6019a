"""The mesh put together: identity, secrets, peers, failover, and what operators see and say."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from skylb.addresses import ReplicaUrl
from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.discovery.resolve import literal
from skylb.errors import ConfigError
from skylb.hosts import why_not
from skylb.mesh import view
from skylb.mesh.failover import Adopter, Failover
from skylb.mesh.link import Link
from skylb.mesh.peerlist import PeerList, check_peers_file
from skylb.mesh.peers import Peers
from skylb.mesh.signing import Identity, Keys, Verifier
from skylb.mesh.tls import MeshTls, check_mesh_tls
from skylb.router import Router
from skylb.tasks import TaskGroup


def check_mesh(settings: Settings) -> None:
    """Reads the mesh's TLS files and the peers file, and starts nothing.

    Raises:
        ConfigError: with the faults of both.
    """
    faults: list[str] = []
    checks: tuple[Callable[[], object], ...] = (
        lambda: check_mesh_tls(settings.mesh),
        lambda: check_peers_file(settings),
    )
    for check in checks:
        try:
            check()
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)


MEET_S = 10.0
"""How long a process that was succeeded keeps its connections to peers that the next one has not met."""

MET_S = 1.0
"""How long a successor waits for peers before it takes forwards."""

MEET_LOOK_S = 0.05
"""Between two looks whether it has."""


class Mesh:
    """Everything that a balancer with peers has and one without has not.

    Args:
        settings: who we are and who the peers are.
        router: takes what peers tell.
        identity: this run of this balancer.
        adopter: serves a dead balancer's replicas.
        keys: the shared secrets.
        on_failure: gets the name of a task that ended with an error, and the error.

    Raises:
        ConfigError: the TLS files do not make a context.
    """

    def __init__(
        self,
        settings: Settings,
        router: Router,
        identity: Identity,
        adopter: Adopter,
        keys: Keys,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self.identity = identity
        self._router = router
        self.tls = MeshTls(settings.mesh)
        self.peers = Peers(settings, router, self.identity, keys, self.tls, self._review, on_failure)
        mesh = settings.mesh
        if mesh.peer_digest:
            router.set_peer_digest(
                keys.mark_key,
                bytes_max=mesh.peer_digest_bytes_max,
                interval_s=mesh.peer_digest_interval_s,
                age_max_s=mesh.peer_digest_age_max_s,
            )
        if mesh.region_cache:
            router.set_region_cache(keys.cover_key)
        self._adopt_from = mesh.adopt_from
        self._failover = Failover(self.identity.name, self.peers.heirs, adopter, self._why_not)
        self._list = PeerList(settings, self.peers.set_urls)
        self._tasks = TaskGroup(on_failure)
        self.verifier = Verifier(self.identity, keys, self.peers.ahead_ns)
        self.forwards_refused: Counter[str] = Counter()
        """Forwards that were not let in, by reason: the data plane counts them here."""

    @property
    def inherited(self) -> frozenset[str]:
        """The dead balancers whose DNS records are ours to take out."""
        return self._failover.inherited

    def _why_not(self, url: ReplicaUrl) -> str | None:
        """Why a dead peer's replica may not be served here, as far as its URL tells."""
        if not self._adopt_from:
            return "adopt_from is not given"
        address = literal(url)
        return None if address is None else why_not(self._adopt_from, url, address)

    def _review(self, links: dict[str, Link]) -> None:
        self._failover.review(links)

    async def look(self) -> None:
        """Finds out who the peers are, and looks from then on.

        Raises:
            ConfigError: the peers file cannot be understood.
        """
        await self._list.start(self._tasks)

    async def start(self, sockets: Sequence[socket.socket], forward: str, *, succeeds: bool = False) -> None:
        """Listens on sockets for peers, and dials those whose turn it is not.

        Args:
            sockets: bound.
            forward: where peers are to send requests, unless the settings say it.
            succeeds: another process has been this balancer until now.
        """
        await self.peers.start(sockets, forward, succeeds=succeeds)

    @property
    def reached(self) -> list[str]:
        """Names of the peers that are connected."""
        return sorted(link.name for link in self.peers.links.values() if link.connection is not None)

    async def met(self, names: Collection[str]) -> None:
        """Waits until these peers are met, for a moment at most: then they sign forwards for this run."""
        for _ in range(round(MET_S / MEET_LOOK_S)):
            found = [peer for peer in self._router.peer_gauges() if peer.name in names]
            if all(peer.available or peer.isolated or peer.draining for peer in found):
                return
            await asyncio.sleep(MEET_LOOK_S)

    def renew(self) -> None:
        """Reads the certificate again, and in the background the peers file; a broken one changes nothing.

        Raises:
            ConfigError: the TLS files do not make a context; the old certificate stays in use.
        """
        self.tls.renew()
        self._tasks.start(self._list.renew(), name="renew peers")

    async def retire(self) -> None:
        """Another process is this balancer from now on, and meets the peers."""
        await self._tasks.stop()
        await self.peers.retire()

    async def close(self) -> None:
        """Says goodbye to the peers; where it has retired, it waits until they have met its successor."""
        await self._tasks.stop()
        for _ in range(round(MEET_S / MEET_LOOK_S) if self.peers.retired else 0):
            if not any(link.connection for link in self.peers.links.values()):
                break
            await asyncio.sleep(MEET_LOOK_S)
        await self.peers.close()

    def set_keys(self, keys: Keys) -> None:
        """Takes over a key file that was read again; connections that stand stay."""
        self.peers.keys = keys
        self.verifier.keys = keys

    def view(self) -> dict[str, Any]:
        """This balancer and its peers, for ``GET /peers``."""
        gauges = {found.name: found for found in self._router.peer_gauges()}
        adopted = self._failover.adopted
        now_ns = monotonic_ns()
        return {
            "name": self.identity.name,
            "region": self.peers.region,
            "evacuating": self.peers.evacuating,
            "stayed": self.peers.evacuation.stayed,
            "leaves_in_s": self.peers.evacuation.leaves_in_s(now_ns),
            "strangers_refused": dict(self.peers.refused),
            "forwards_refused": dict(self.forwards_refused),
            "lists": {
                name: {"age_s": round((now_ns - seen_ns) / 1e9, 3), "fault": fault}
                for name, (seen_ns, fault) in self._list.sources().items()
            },
            "peers": [
                view.row(link, gauges[name], adopted=len(adopted.get(name, ())))
                for name, link in self.peers.links.items()
            ],
        }

    def faults(self) -> dict[str, str]:
        """What is wrong with the sources of the list of peers, by source."""
        return {name: fault for name, (_, fault) in self._list.sources().items() if fault is not None}

    def unreached(self) -> dict[str, str]:
        """Why peers cannot be reached, by name."""
        return {name: link.fault for name, link in self.peers.links.items() if link.fault}

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        now_ns = monotonic_ns()
        age = GaugeMetricFamily(
            "skylb_peer_list_age_seconds",
            "Time since a source of peers was last known to be up to date.",
            labels=("source",),
        )
        for name, (seen_ns, _) in self._list.sources().items():
            age.add_metric((name,), (now_ns - seen_ns) / 1e9)
        yield age
        yield from view.families(
            self.peers.links, self._router.peer_gauges(), self.peers.refused, self.forwards_refused
        )
