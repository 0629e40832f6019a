"""Replicas that are configured one by one: each URL is one replica, at one address at a time."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from skylb.addresses import ReplicaUrl
from skylb.discovery.resolve import Resolver, literal, reachable, resolve
from skylb.discovery.source import PENDING, Lack, Offer, Offered, Site, Trouble
from skylb.settings.discovery import DiscoverySettings
from skylb.tasks import attempt
from skylb.types import Address

log = logging.getLogger("skylb.discovery")

FLAGS = "flags"
"""What the fleet calls the source of replicas that are given one by one."""

RESOLVES_AT_ONCE_MAX = 16
"""Names resolved side by side: the executor behind getaddrinfo has few threads."""


class NamedSource:
    """Keeps one replica per URL; names are resolved again every ``interval_s``.

    A name with several addresses (``localhost`` on IPv4 and IPv6) means one server: the first address
    that accepts connections is taken and kept as long as the replica answers and the name has it.

    Args:
        offer: takes the whole set of replicas.
        is_up: whether the replica of that name answers at present.
        interval_s: time between resolutions.
        resolver: asks the system's resolver unless given.
    """

    def __init__(
        self,
        offer: Offer,
        is_up: Callable[[str], bool],
        *,
        interval_s: float,
        resolver: Resolver = resolve,
    ) -> None:
        self._resolver = resolver
        self._offer = offer
        self._is_up = is_up
        self._interval_s = interval_s
        self._urls: tuple[ReplicaUrl, ...] = ()
        self._addresses: dict[ReplicaUrl, Address] = {}
        self._failed: dict[ReplicaUrl, str] = {}
        self._changed = asyncio.Event()
        self.name = FLAGS
        self.passed = asyncio.Event()
        """Set once every name was looked up."""
        self.seen_ns: int | None = None
        """What is configured does not age; a name that does not resolve is in `troubles`."""

    async def load(self) -> None:
        """There is nothing to read."""

    async def look(self) -> None:
        """Names are looked up often as it is."""

    def set_urls(self, urls: Sequence[ReplicaUrl]) -> None:
        """Replaces the URLs. Those that need no resolving are offered at once."""
        self._urls = tuple(dict.fromkeys(urls))
        wanted = set(self._urls)
        self._addresses = {url: known for url, known in self._addresses.items() if url in wanted}
        self._failed = {url: reason for url, reason in self._failed.items() if url in wanted}
        for url in self._urls:
            address = literal(url)
            if address is not None:
                self._addresses[url] = address
        self._publish()
        self._changed.set()

    def troubles(self) -> dict[str, Trouble]:
        """Names of replicas without address, with the reason."""
        return {
            str(url): Trouble(Lack.UNRESOLVED, self._failed.get(url, PENDING))
            for url in self._urls
            if url not in self._addresses
        }

    async def run(self) -> None:
        """Resolves names, at once when the URLs change."""
        while True:
            self._changed.clear()
            names = [url for url in self._urls if literal(url) is None]
            for start in range(0, len(names), RESOLVES_AT_ONCE_MAX):
                batch = names[start : start + RESOLVES_AT_ONCE_MAX]
                await asyncio.gather(*(attempt(self._resolve(url), name=f"resolving {url}") for url in batch))
                self._publish()
            self.passed.set()
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _resolve(self, url: ReplicaUrl) -> None:
        try:
            addresses = await self._resolver(url)
        except OSError as error:
            self._tell(url, error.strerror or str(error))
            return
        self._tell(url, None)
        chosen = await self._choose(url, addresses)
        if url in self._urls:  # they may have changed while we waited
            self._addresses[url] = chosen

    async def _choose(self, url: ReplicaUrl, addresses: list[Address]) -> Address:
        current = self._addresses.get(url)
        if len(addresses) == 1:
            return addresses[0]
        if current in addresses and current is not None and self._is_up(str(url)):
            return current
        for address in addresses[:RESOLVES_AT_ONCE_MAX]:
            if await reachable(address):
                return address
        return current if current in addresses and current is not None else addresses[0]

    def _tell(self, url: ReplicaUrl, failure: str | None) -> None:
        if failure == self._failed.get(url):
            return
        if failure is None:
            log.info("replica %s: the name resolves again", url)
            del self._failed[url]
        else:
            log.warning("replica %s: the name does not resolve: %s", url, failure)
            self._failed[url] = failure

    def _publish(self) -> None:
        placed = [(url, self._addresses[url]) for url in self._urls if url in self._addresses]
        self._offer([Offered(str(url), address, url.authority) for url, address in placed])


def sources(urls: Sequence[ReplicaUrl], timing: DiscoverySettings, site: Site) -> Iterator[NamedSource]:
    """The source of the replicas that are given one by one."""
    if urls:
        source = NamedSource(partial(site.offer, FLAGS), site.is_up, interval_s=timing.dns_s)
        source.set_urls(urls)
        yield source
