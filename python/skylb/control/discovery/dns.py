"""Replicas behind one name: every address that it resolves to is a replica."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from skylb.addresses import ReplicaUrl
from skylb.control.discovery.resolve import Resolver, literal, resolve
from skylb.control.fleet import Target
from skylb.types import Address

log = logging.getLogger("skylb.control.discovery")


class DnsSource:
    """Resolves one name every ``interval_s`` and offers a target per address.

    A name that stops resolving keeps its last addresses: a resolver that is down takes no replica away,
    and replicas that are gone are found out by probes.

    Args:
        url: whose name stands for the replicas; its port and scheme are theirs.
        offer: takes the whole set of targets.
        interval_s: time between resolutions.
        resolver: asks the system's resolver unless given.
    """

    def __init__(
        self,
        url: ReplicaUrl,
        offer: Callable[[Sequence[Target]], None],
        *,
        interval_s: float,
        resolver: Resolver = resolve,
    ) -> None:
        self._resolver = resolver
        self._url = url
        self._offer = offer
        self._interval_s = interval_s
        self._failure: str | None = None
        self.passed = asyncio.Event()
        """Set once the name was looked up."""

    async def run(self) -> None:
        """Resolves until cancelled."""
        while True:
            await self.resolve_once()
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
        # Sorted: resolvers rotate their answers, and the fleet's order should not follow.
        self._offer(sorted(map(self._target, addresses), key=lambda target: target.name))

    def unresolved(self) -> dict[str, str]:
        """The name and the reason, while it does not resolve."""
        return {} if self._failure is None else {str(self._url): self._failure}

    def _target(self, address: Address) -> Target:
        if address.unix:
            return Target(str(self._url), address, self._url.authority)
        name = str(ReplicaUrl(self._url.scheme, address.host, address.port))
        return Target(name, address, self._url.authority)

    def _tell(self, failure: str | None) -> None:
        if failure != self._failure:
            self._failure = failure
            if failure is None:
                log.info("replicas of %s: the name resolves again", self._url)
            else:
                log.warning("replicas of %s: the name does not resolve: %s", self._url, failure)
