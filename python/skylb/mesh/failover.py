"""Which balancer serves the replicas of a dead one. All balancers compute it by one rule, without a leader.

Each balancer names its heirs while it lives, the closest peer first. All others remember that list and pass
it on. When a balancer is dead, the first of its heirs that is alive adopts its replicas. It gives them back
when the balancer returns. Two balancers may differ in which peers they believe alive. Then both may adopt,
or for a while none. That does no harm, because the gate counts what others push.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from skylb.addresses import ReplicaUrl, parse_replica
from skylb.mesh.link import Link, State
from skylb.mesh.signing import Identity
from skylb.settings.mesh import PEERS_MAX

log = logging.getLogger("skylb.mesh.failover")

CLOSER_RATIO = 0.8
"""A peer moves forward in the list when its round trip is below this share of the one before it."""

CLOSER_NS = 2_000_000
"""And when it is closer by this much: jitter must not reorder neighbours."""


class Heirs:
    """Which balancer takes over from which, as far as is known here.

    Args:
        identity: this run of this balancer.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._sequence = 0
        self._ranked: list[str] = []
        self._listed: frozenset[str] | None = None
        self._known: dict[str, tuple[int, int, list[str]]] = {}

    def set_listed(self, names: Iterable[str]) -> None:
        """All peers of the list: what is said of others gives way to them."""
        self._listed = frozenset(names) | {self._identity.name}

    def rank(self, round_trips_ns: Mapping[str, int | None]) -> None:
        """Orders this balancer's heirs by distance, and changes the order only for a reason.

        Args:
            round_trips_ns: of every peer, ``None`` for those never reached; these are no heirs.
        """
        reached = {name: rtt_ns for name, rtt_ns in round_trips_ns.items() if rtt_ns is not None}
        ranked = [name for name in self._ranked if name in reached]
        for name in sorted(reached.keys() - set(ranked), key=lambda name: (reached[name], name)):
            closer = [index for index, other in enumerate(ranked) if reached[name] < reached[other]]
            ranked.insert(closer[0] if closer else len(ranked), name)
        for index in range(1, len(ranked)):
            here = index
            while here and _clearly_closer(reached[ranked[here]], reached[ranked[here - 1]]):
                ranked[here - 1], ranked[here] = ranked[here], ranked[here - 1]
                here -= 1
        if ranked != self._ranked:
            self._ranked = ranked
            self._sequence += 1
            self._known[self._identity.name] = (self._identity.incarnation, self._sequence, ranked)

    def learn(self, name: str, incarnation: int, sequence: int, heirs: list[str]) -> None:
        """What somebody says of a balancer's heirs; the newest counts."""
        known = self._known.get(name)
        if known is None or (incarnation, sequence) > known[:2]:
            self._take(name, incarnation, sequence, heirs)

    def learn_own(self, name: str, incarnation: int, sequence: int, heirs: list[str]) -> None:
        """What a balancer itself says of its heirs: that counts, whatever others said of later ones."""
        self._take(name, incarnation, sequence, heirs)

    def _take(self, name: str, incarnation: int, sequence: int, heirs: list[str]) -> None:
        if name == self._identity.name:
            return
        if name not in self._known and len(self._known) > PEERS_MAX:
            others = [other for other in self._known if not self._is_listed(other)]
            if not others or not self._is_listed(name):
                return
            del self._known[others[0]]
        self._known[name] = (incarnation, sequence, heirs)

    def known(self) -> dict[str, tuple[int, int, list[str]]]:
        """All that is known of those in the list, in an order that does not depend on when it was learned."""
        return {name: self._known[name] for name in sorted(self._known) if self._is_listed(name)}

    def _is_listed(self, name: str) -> bool:
        return self._listed is None or name in self._listed

    def heir(self, dead: str, alive: set[str]) -> str | None:
        """Who serves a dead balancer's replicas.

        Args:
            dead: its name.
            alive: the living, this balancer included.
        """
        _, _, heirs = self._known.get(dead, (0, 0, []))
        return next((name for name in heirs if name in alive), None)


def _clearly_closer(one_ns: int, other_ns: int) -> bool:
    return one_ns < CLOSER_RATIO * other_ns and one_ns < other_ns - CLOSER_NS


class Adopter(Protocol):
    """Takes replicas into this balancer's fleet, and lets them go."""

    def adopt(self, peer: str, region: str, urls: list[ReplicaUrl]) -> None:
        """Serves a peer's replicas, which keep their region."""

    def hand_back(self, peer: str) -> None:
        """Serves them no longer; requests under way end."""


class Failover:
    """Adopts and hands back, on every change in the mesh.

    Args:
        name: this balancer.
        heirs: which balancer takes over from which.
        adopter: carries it out.
        why_not: why a replica may not be served here, as far as its URL tells; ``None``: it may.
    """

    def __init__(
        self, name: str, heirs: Heirs, adopter: Adopter, why_not: Callable[[ReplicaUrl], str | None]
    ) -> None:
        self._name = name
        self._heirs = heirs
        self._adopter = adopter
        self._why_not = why_not
        self._wanted: dict[str, tuple[str, ...]] = {}
        """By dead balancer whose heir this one is, the replicas that it has named."""
        self.adopted: dict[str, tuple[str, ...]] = {}
        """By dead balancer, the replicas that are served for it."""
        self.inherited: frozenset[str] = frozenset()
        """The dead balancers whose DNS records are ours to take out."""

    def review(self, links: Mapping[str, Link]) -> None:
        """Compares what should be served with what is."""
        alive = {self._name} | {name for name, link in links.items() if link.state is State.ALIVE}
        dead = [name for name, link in links.items() if link.state is State.DEAD]
        heirs = {name: self._heirs.heir(name, alive) for name in dead}
        # Who dies before it has named heirs has its records taken out all the same.
        self.inherited = frozenset(name for name, heir in heirs.items() if (heir or min(alive)) == self._name)
        for name in self._wanted.keys() - links.keys():
            self._set(name, "", ())
        for name, link in links.items():
            wanted = tuple(link.news.replicas) if heirs.get(name) == self._name else ()
            if wanted != self._wanted.get(name, ()):
                self._set(name, link.sure_region, wanted)

    def _set(self, name: str, region: str, wanted: tuple[str, ...]) -> None:
        self._wanted.pop(name, None)
        if wanted:
            self._wanted[name] = wanted
        urls = self._allowed(name, wanted)
        if urls:
            log.warning("adopting %d replicas of %s", len(urls), name)
            self.adopted[name] = tuple(map(str, urls))
            self._adopter.adopt(name, region, urls)
        elif self.adopted.pop(name, None) is not None:
            log.warning("handing back the replicas of %s", name)
            self._adopter.hand_back(name)

    def _allowed(self, name: str, wanted: tuple[str, ...]) -> list[ReplicaUrl]:
        """The URLs that may be used; a peer of another version may know more kinds of them."""
        urls, first = [], ""
        for text in wanted:
            try:
                url = parse_replica(text)
                why = self._why_not(url)
            except ValueError as error:
                why = str(error)
            if why is None:
                urls.append(url)
            else:
                first = first or why
        if first:
            left = len(wanted) - len(urls)
            log.warning("%d of %d replicas of %s are not adopted: %s", left, len(wanted), name, first)
        return urls
