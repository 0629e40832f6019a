"""The fleet: one list of replicas out of all sources, with an id and the operator's intent for each."""

import logging
from collections.abc import Callable, Mapping, Sequence
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

    A name keeps its id while its address stays, and the uid where its source knows one. With another it is
    another server, with an empty cache and no history: it gets a new id.

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
        self._offered: dict[str, Offered] = {}
        self._draining: dict[str, None] = {}
        self._leaving: dict[str, tuple[int, bool]] = {}
        """Of the fleet, those that are left at a time of the monotonic clock, and whether they end then."""
        self._expected: dict[str, tuple[int, bool]] = {}
        """The same of replicas that no source has offered yet."""
        self._ids = count(1)
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
        """Operator intent, kept by name while a replica is away; ``False`` for an unknown name.

        A replica that its source lets drain does so whatever the operator wants.
        """
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
            self._router.set_draining(replica.id, self.drains(name))
            if name in self._leaving and not draining:
                del self._leaving[name]
                self._router.set_notice(replica.id, None, ends=False)
        return True

    def leave(self, name: str, at_ns: int, *, ends: bool = True) -> bool:
        """A replica is left at this time of the monotonic clock; ``False`` for an unknown name.

        It drains. If it ``ends`` then, it is left before; otherwise an operator wants it empty. The notice is
        of this server: it is forgotten when the replica leaves the fleet.
        """
        replica = self._replicas.get(name)
        if replica is None:
            return False
        self.set_draining(name, draining=True)
        self._leaving[name] = (at_ns, ends)
        self._router.set_notice(replica.id, at_ns, ends=ends)
        return True

    def drains(self, name: str) -> bool:
        """Whether an operator or its source wants a replica to get no new requests."""
        offered = self._offered.get(name)
        return offered is not None and (name in self._draining or offered.draining)

    def drained(self) -> dict[str, str]:
        """The replicas that get no new requests, by name: who wants it."""
        found = {
            name: "its source says that it leaves" for name, one in self._offered.items() if one.draining
        }
        found |= {name: "by an operator" for name in self._draining if name in self._offered}
        ending = [name for name, (_, ends) in self._leaving.items() if ends]
        return found | dict.fromkeys(ending, "it was announced to end")

    def drained_by_operators(self) -> list[str]:
        """The replicas that operators drain without a time, offered or not; the latest comes last."""
        return [name for name in self._draining if name not in self._leaving and name not in self._expected]

    def leaving(self) -> dict[str, tuple[int, bool]]:
        """The replicas that are left at a time of the monotonic clock, and whether they end then."""
        return {**self._expected, **self._leaving}

    def intend(self, draining: Sequence[str], leaving: Mapping[str, tuple[int, bool]]) -> None:
        """What operators have asked of the process before this one, also of replicas not offered yet."""
        for name in draining:
            self._draining[name] = None
            self.set_draining(name, draining=True)
        for name, (at_ns, ends) in leaving.items():
            if not self.leave(name, at_ns, ends=ends):
                self._draining[name] = None
                self._expected[name] = (at_ns, ends)
        while len(self._expected) > INTENTS_MAX:
            del self._expected[next(iter(self._expected))]

    def replicas(self) -> list[Replica]:
        """The fleet as it stands."""
        return list(self._replicas.values())

    def own(self) -> list[str]:
        """Names of the replicas of this region that are not adopted.

        Who adopts them takes them for replicas of this region: those of another one would leave it.
        """
        ours = ((name, offered) for name, offered in self._offered.items() if offered.region is None)
        return [name for name, offered in ours if not offered.adopted]

    def offered(self) -> dict[str, Offered]:
        """What the sources say of each replica, by its name."""
        return dict(self._offered)

    def sizes(self) -> dict[str, int]:
        """How many replicas each source offers, by its name."""
        return {source: len(offered) for source, offered in self._sources.items()}

    def replica(self, name: str) -> Replica | None:
        """A replica of the fleet by its name."""
        return self._replicas.get(name)

    def _apply(self) -> None:
        before, offered_before, own_before = self._replicas, self._offered, self.own()
        chosen = self._merged()
        self._replicas = after = {offered.name: self._identified(offered) for offered in chosen}
        self._offered = {offered.name: offered for offered in chosen}
        for name in [
            name for name in self._leaving if name not in after or before[name].id != after[name].id
        ]:
            del self._leaving[name]
            self._draining.pop(name, None)
        if before != after:
            self._tell(before, after)
            self._router.set_replicas(list(after.values()))
        ids_before = {replica.id for replica in before.values()}
        for replica in after.values():
            was = offered_before.get(replica.name) if replica.id in ids_before else None
            self._apply_offer(replica, was)
        for name in [name for name in self._expected if name in after]:
            at_ns, ends = self._expected.pop(name)
            if name in self._draining:  # no operator has taken it back meanwhile
                self.leave(name, at_ns, ends=ends)
        for gone in ids_before.difference(replica.id for replica in after.values()):
            for pool in self._pools:
                pool.forget(gone)
        if before != after or own_before != self.own():
            self._changed(list(after.values()))

    def _apply_offer(self, replica: Replica, was: Offered | None) -> None:
        """Tells the router what changed of a replica besides its address; ``None``: it is new."""
        offered = self._offered[replica.name]
        drained = was is not None and (replica.name in self._draining or was.draining)
        if self.drains(replica.name) != drained:
            self._router.set_draining(replica.id, not drained)
            if was is not None:
                said = "draining, as its source says" if not drained else "no longer draining"
                log.info("replica %s: %s", replica.name, said)
        if offered.region != (was.region if was is not None else None):
            self._router.set_replica_region(replica.id, offered.region)

    def _merged(self) -> list[Offered]:
        by_name: dict[str, Offered] = {}
        offered = [replica for source in self._sources.values() for replica in source]
        for replica in sorted(offered, key=lambda replica: replica.adopted):
            by_name.setdefault(replica.name, replica)
        if len(by_name) > REPLICAS_MAX:
            log.error(
                "%d replicas are configured; those after the first %d are left out",
                len(by_name),
                REPLICAS_MAX,
            )
        return list(by_name.values())[:REPLICAS_MAX]

    def _identified(self, offered: Offered) -> Replica:
        known = self._replicas.get(offered.name)
        same = known is not None and known.address == offered.address and self._is_same(offered)
        replica = Replica(
            id=known.id if known is not None and same else next(self._ids),
            name=offered.name,
            address=offered.address,
            authority=offered.authority,
            authorization=self._authorization,
            probe_authorization=self._probe_authorization,
        )
        return known if known == replica and known is not None else replica

    def _is_same(self, offered: Offered) -> bool:
        """Whether this is the server that the name meant before, as far as its source can tell."""
        before = self._offered[offered.name].description
        now = offered.description
        return before is None or now is None or before.uid == now.uid

    def _tell(self, before: dict[str, Replica], after: dict[str, Replica]) -> None:
        for name in after.keys() - before.keys():
            log.info("replica %s joined", name)
        for name in before.keys() - after.keys():
            log.info("replica %s left", name)
        for name in after.keys() & before.keys():
            if before[name].address != after[name].address:
                log.info("replica %s moved to %s", name, after[name].address.host)
            elif before[name].id != after[name].id:
                log.info("replica %s is another server now", name)
