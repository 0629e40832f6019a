"""Replicas behind one name: every address that it resolves to is a replica."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from functools import partial

from skylb.addresses import ReplicaUrl
from skylb.clock import monotonic_ns
from skylb.discovery.resolve import ADDRESSES_MAX, Resolver, literal, resolve
from skylb.discovery.source import PENDING, Lack, Offer, Offered, Site, Trouble
from skylb.settings.discovery import DiscoverySettings, DnsFamily
from skylb.tasks import attempt
from skylb.types import Address

log = logging.getLogger("skylb.discovery")

SWITCH_RESOLUTIONS = 3
"""Resolutions in a row without an address of the family in use before the other family is taken. A resolver
that fails for one family alone answers with the other, and would replace the whole fleet."""


def name_of(url: ReplicaUrl) -> str:
    """What the fleet calls the source of a name's addresses."""
    return f"dns {url}"


class DnsSource:
    """Resolves one name every ``interval_s`` and offers a replica per address.

    A name that stops resolving keeps its last addresses: a resolver that is down takes no replica away,
    and replicas that are gone are found out by probes.

    A name with IPv4 and IPv6 addresses most often has one of each for every replica: those of one family are
    taken, as HAProxy does (``resolve-prefer``) and Envoy (``dns_lookup_family: V4_PREFERRED``).

    Args:
        url: whose name stands for the replicas; its port and scheme are theirs.
        offer: takes the whole set of replicas.
        interval_s: time between resolutions.
        family: whose addresses are taken where the name has both.
        resolver: asks the system's resolver unless given.
    """

    def __init__(
        self,
        url: ReplicaUrl,
        offer: Offer,
        *,
        interval_s: float,
        family: DnsFamily = "ipv4",
        resolver: Resolver = resolve,
    ) -> None:
        self._resolver = resolver
        self._family = family
        self._used: str | None = None
        self._missed = 0
        self._left_out = 0
        self._url = url
        self._offer = offer
        self._interval_s = interval_s
        self._failure: str | None = None
        self.name = name_of(url)
        self.passed = asyncio.Event()
        """Set once the name was looked up."""
        self.seen_ns: int | None = monotonic_ns()
        """When it resolved last; at first, when this began."""

    async def load(self) -> None:
        """Nothing is known before the name was looked up."""

    async def look(self) -> None:
        """Names are looked up often as it is."""

    async def run(self) -> None:
        """Resolves until cancelled."""
        while True:
            await attempt(self.resolve_once(), name=f"resolving {self._url}")
            self.passed.set()
            await asyncio.sleep(self._interval_s)

    async def resolve_once(self) -> None:
        """Resolves now, and offers what is found."""
        known = literal(self._url)
        try:
            addresses = [known] if known is not None else await self._resolver(self._url)
        except OSError as error:
            self._tell(error.strerror or str(error))
            return
        self._tell(None)
        self.seen_ns = monotonic_ns()
        addresses = self._of_one_family(addresses)
        if not addresses:
            return
        # Sorted: resolvers rotate their answers, and the fleet's order should not follow.
        replicas = sorted(map(self._offered, addresses), key=lambda replica: replica.name)
        self._tell_left_out(len(replicas) - ADDRESSES_MAX)
        self._offer(replicas[:ADDRESSES_MAX])

    def _of_one_family(self, addresses: list[Address]) -> list[Address]:
        """Those that are taken; none while it is not certain that the family in use is gone."""
        if self._family == "all":
            return addresses
        by_family: dict[str, list[Address]] = {}
        for address in addresses:
            by_family.setdefault("ipv6" if ":" in address.host else "ipv4", []).append(address)
        wanted = self._family if self._family in by_family else next(iter(by_family), None)
        if wanted != self._used and self._used is not None and self._used not in by_family:
            self._missed += 1
            if self._missed < SWITCH_RESOLUTIONS:
                return []
        self._missed = 0
        if wanted != self._used:
            self._used = wanted
            others = len(addresses) - len(by_family.get(wanted or "", ()))
            if others:
                log.info(
                    "replicas of %s: %s addresses are used, and %d others are not", self._url, wanted, others
                )
        return by_family.get(wanted or "", [])

    def troubles(self) -> dict[str, Trouble]:
        """The name and the reason, while it does not resolve."""
        failure = self._failure if self.passed.is_set() or self._failure is not None else PENDING
        return {} if failure is None else {str(self._url): Trouble(Lack.UNRESOLVED, failure)}

    def _offered(self, address: Address) -> Offered:
        if address.unix:
            return Offered(str(self._url), address, self._url.authority)
        name = str(ReplicaUrl(self._url.scheme, address.host, address.port))
        return Offered(name, address, self._url.authority)

    def _tell_left_out(self, left_out: int) -> None:
        if left_out != self._left_out and left_out > 0:
            log.error(
                "replicas of %s: %d addresses after the first %d are left out",
                self._url,
                left_out,
                ADDRESSES_MAX,
            )
        self._left_out = left_out

    def _tell(self, failure: str | None) -> None:
        if failure != self._failure:
            self._failure = failure
            if failure is None:
                log.info("replicas of %s: the name resolves again", self._url)
            else:
                log.warning("replicas of %s: the name does not resolve: %s", self._url, failure)


def sources(urls: Sequence[ReplicaUrl], timing: DiscoverySettings, site: Site) -> Iterator[DnsSource]:
    """One source for each name."""
    for url in urls:
        offer = partial(site.offer, name_of(url))
        yield DnsSource(url, offer, interval_s=timing.dns_s, family=timing.dns_family)
