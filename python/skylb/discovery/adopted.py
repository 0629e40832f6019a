"""The replicas of a dead peer, which this balancer serves while that peer is away."""

from collections.abc import Sequence
from dataclasses import replace

from skylb.addresses import ReplicaUrl
from skylb.discovery.named import NamedSource
from skylb.discovery.resolve import resolve
from skylb.discovery.source import Offered, Site
from skylb.hosts import HostRange, why_not
from skylb.settings.discovery import DiscoverySettings
from skylb.types import Address


def name_of(peer: str) -> str:
    """What the fleet calls the source of a peer's replicas."""
    return f"adopted {peer}"


def adopted(
    peer: str,
    region: str,
    urls: Sequence[ReplicaUrl],
    *,
    ranges: Sequence[HostRange],
    timing: DiscoverySettings,
    site: Site,
) -> NamedSource:
    """The source of a dead peer's replicas. They keep their region.

    A name is looked up again and again: only addresses in ``ranges`` are ever connected to.
    """

    def offer(found: Sequence[Offered]) -> None:
        site.offer(name_of(peer), [replace(one, region=region, adopted=True) for one in found])

    async def allowed(url: ReplicaUrl) -> list[Address]:
        found = await resolve(url)
        within = [address for address in found if why_not(ranges, url, address) is None]
        if not within:
            raise OSError(why_not(ranges, url, found[0]) if found else "it has no address")
        return within

    source = NamedSource(offer, site.is_up, interval_s=timing.dns_s, resolver=allowed)
    source.name = name_of(peer)
    source.set_urls(urls)
    return source
