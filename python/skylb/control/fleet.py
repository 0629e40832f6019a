"""The fleet: one list of replicas out of all sources, with an id and the operator's intent for each."""

import logging
from collections.abc import Callable, Sequence
from itertools import count

from skylb.discovery.source import REPLICAS_MAX, Offered
from skylb.router import Router
from skylb.types import Replica
from skylb.upstream import Pool

log = logging.getLogger("skylb.control.fleet")

INTENTS_MAX = 4096
"""Names whose draining is remembered, those of absent replicas included; the oldest is forgotten."""


class Fleet:
    """Merges what the sources offer into one list for the router.

    A name keeps its id while its address stays. With another address it is another server, with an
    empty cache and no history: it gets a new id.

    Args:
        router: gets every change.
        pools: close their idle connections to replicas that left.
        changed: gets the fleet after each change.
    """

    def __init__(
        self, router: Router, pools: Sequence[Pool], changed: Callable[[list[Replica]], None]
    ) -> None:
        self._router = router
        self._pools = tuple(pools)
        self._changed = changed
        self._sources: dict[str, tuple[Offered, ...]] = {}
        self._replicas: dict[str, Replica] = {}
        self._draining: dict[str, None] = {}
        self._ids = count(1)
        self._regions: dict[str, str | None] = {}
        self._authorization: str | None = None
        self._probe_authorization: str | None = None

    def offer(self, source: str, replicas: Sequence[Offered]) -> None:
        """Replaces what one source wants.

        Of replicas with one name the first source's counts, and any source's before one that is adopted.
        """
        offered = tuple(replicas)
        if self._sources.get(source) != offered:
            self._sources[source] = offered
            self._apply()

    def set_authorization(self, authorization: str | None, probe: str | None) -> None:
        """Changes the values of ``Authorization`` that replicas are sent: with requests, and with probes."""
        if (authorization, probe) != (self._authorization, self._probe_authorization):
            self._authorization, self._probe_authorization = authorization, probe
            self._apply()

    def set_draining(self, name: str, *, draining: bool) -> bool:
        """Operator intent, kept by name while a replica is away; ``False`` for an unknown name."""
        replica = self._replicas.get(name)
        if replica is None and name not in self._draining:
            return False
        if draining:
            self._draining[name] = None
            if len(self._draining) > INTENTS_MAX:
                del self._draining[next(iter(self._draining))]
        else:
            self._draining.pop(name, None)
        if replica is not None:
            log.info("replica %s: %s", name, "draining" if draining else "no longer draining")
            self._router.set_draining(replica.id, draining)
        return True

    def replicas(self) -> list[Replica]:
        """The fleet as it stands."""
        return list(self._replicas.values())

    def own(self) -> list[str]:
        """Names of the replicas that are not adopted."""
        return [name for name in self._replicas if self._regions.get(name) is None]

    def replica(self, name: str) -> Replica | None:
        """A replica of the fleet by its name."""
        return self._replicas.get(name)

    def _apply(self) -> None:
        before, regions_before = self._replicas, self._regions
        self._replicas = after = self._merged()
        if before == after:
            return
        self._tell(before, after)
        self._router.set_replicas(list(after.values()))
        ids_before = {replica.id for replica in before.values()}
        for replica in after.values():
            if replica.id not in ids_before and replica.name in self._draining:
                self._router.set_draining(replica.id, True)
            if self._regions[replica.name] != regions_before.get(replica.name):
                self._router.set_replica_region(replica.id, self._regions[replica.name])
        for gone in ids_before.difference(replica.id for replica in after.values()):
            for pool in self._pools:
                pool.forget(gone)
        self._changed(list(after.values()))

    def _merged(self) -> dict[str, Replica]:
        by_name: dict[str, Offered] = {}
        offered = [replica for source in self._sources.values() for replica in source]
        for replica in sorted(offered, key=lambda replica: replica.region is not None):
            by_name.setdefault(replica.name, replica)
        if len(by_name) > REPLICAS_MAX:
            log.error(
                "%d replicas are configured; those after the first %d are left out",
                len(by_name),
                REPLICAS_MAX,
            )
        chosen = list(by_name.values())[:REPLICAS_MAX]
        self._regions = {replica.name: replica.region for replica in chosen}
        return {replica.name: self._identified(replica) for replica in chosen}

    def _identified(self, offered: Offered) -> Replica:
        known = self._replicas.get(offered.name)
        same = known is not None and known.address == offered.address
        replica = Replica(
            id=known.id if known is not None and same else next(self._ids),
            name=offered.name,
            address=offered.address,
            authority=offered.authority,
            authorization=self._authorization,
            probe_authorization=self._probe_authorization,
        )
        return known if known == replica and known is not None else replica

    def _tell(self, before: dict[str, Replica], after: dict[str, Replica]) -> None:
        for name in after.keys() - before.keys():
            log.info("replica %s joined", name)
        for name in before.keys() - after.keys():
            log.info("replica %s left", name)
        for name in after.keys() & before.keys():
            if before[name].address != after[name].address:
                log.info("replica %s moved to %s", name, after[name].address.host)
