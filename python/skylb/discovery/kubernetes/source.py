"""The replicas that EndpointSlices list."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from functools import partial

from skylb.addresses import ReplicaUrl
from skylb.discovery.kubernetes.api import Api
from skylb.discovery.kubernetes.slices import (
    Found,
    Port,
    Slice,
    State,
    merged,
    of_family,
    port_of,
    region_of,
)
from skylb.discovery.kubernetes.watch import Place, Watcher
from skylb.discovery.source import REPLICAS_MAX, Description, Lack, Offer, Offered, Site, Trouble
from skylb.settings.discovery import DiscoverySettings, DnsFamily
from skylb.settings.kubernetes import KubernetesSettings
from skylb.types import Address

log = logging.getLogger("skylb.discovery.kubernetes")

ROLE = "skylb.dev/role"
WEIGHT = "skylb.dev/weight"
"""Like `REGION`, labels of a Service or slice, or annotations of a slice, about all its replicas."""

ROLES = ("both", "decode", "prefill")
WEIGHT_MAX = 100

FAULTS_MAX = 20
"""Faults of slices that are kept, to be told once."""


class Reading:
    """Makes replicas of slices; a pure function of what it is given, but for the names that it remembers.

    An endpoint that is not ready, and does not end, is no replica yet. If it was one, it stays and drains:
    its server still has its cache, and may come back.

    Args:
        port: name or number; ``None``: the only one.
        family: whose addresses are taken where a Service has both.
        region: this balancer's.
    """

    def __init__(self, port: str | None, family: DnsFamily, region: str) -> None:
        self._port = port
        self._family = family
        self._region = region
        self._offered: dict[str, str] = {}
        """By name, the uid of what was offered before."""
        self.faults: list[str] = []
        """What is wrong with the slices read last."""

    def read(self, namespace: str, slices: Sequence[Slice]) -> list[Offered]:
        """The replicas, by name; all of them, however many."""
        faults: dict[str, None] = {}
        found = merged(self._placed(slices, faults))
        offered = [one for place in found if (one := self._replica(namespace, place, faults)) is not None]
        offered.sort(key=lambda one: one.name)  # slices come and go: the fleet's order should not follow
        self._offered = {one.name: _uid(one) for one in offered}
        self.faults = list(faults)[:FAULTS_MAX]
        return offered

    def _placed(self, slices: Sequence[Slice], faults: dict[str, None]) -> Iterator[tuple[Slice, Port]]:
        for one in slices:
            if one.address_type == "FQDN" and one.endpoints:
                faults[f"slice {one.metadata.name} has names: expected addresses"] = None
        for one in of_family(slices, self._family):
            if not one.endpoints:
                continue  # a Service without pods has a slice without ports
            try:
                yield one, port_of(one, self._port)
            except ValueError as error:
                faults[f"{error}: expected kubernetes.port to name one of its ports"] = None

    def _replica(self, namespace: str, found: Found, faults: dict[str, None]) -> Offered | None:
        port = found.port.port or 0
        tls = found.port.app_protocol == "https"
        url = ReplicaUrl("https" if tls else "http", found.host, port)
        target = found.endpoint.target_ref
        uid = target.uid if target is not None else ""
        known = self._offered.get(str(url)) == uid
        if found.state is State.GONE or (found.state is State.UNREADY and not known):
            return None
        weight = _weight(found.slice, faults)
        description = Description(
            instance=f"{namespace}/{target.name}" if target is not None and target.name else "",
            uid=uid,
            node=found.endpoint.node_name or "",
            zone=found.endpoint.zone or "",
            role=_role(found.slice, faults),
            weight=weight,
        )
        region = region_of(found.slice, faults)
        return Offered(
            str(url),
            Address(found.host, port, tls=tls),
            url.authority,
            region=region if region != self._region else None,
            draining=found.state is not State.READY or weight == 0,
            description=description,
        )


def _uid(offered: Offered) -> str:
    return offered.description.uid if offered.description is not None else ""


def _role(one: Slice, faults: dict[str, None]) -> str:
    said = one.said(ROLE) or ""
    if said and said not in ROLES:
        faults[f"slice {one.metadata.name}: {ROLE} is {said!r}: expected one of {', '.join(ROLES)}"] = None
        return ""
    return said


def _weight(one: Slice, faults: dict[str, None]) -> int | None:
    said = one.said(WEIGHT)
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) <= 3 and int(said) <= WEIGHT_MAX):
        faults[
            f"slice {one.metadata.name}: {WEIGHT} is {said!r}: expected an integer from 0 to {WEIGHT_MAX}"
        ] = None
        return None
    return int(said)


class KubernetesSource:
    """The replicas of one namespace.

    Args:
        settings: which slices, and how the API server is reached.
        namespace: where; ``None``: the account's own.
        family: whose addresses are taken where a Service has both.
        site: takes the replicas.
        api: whom to ask, unless the settings say it.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        namespace: str | None,
        family: DnsFamily,
        site: Site,
        api: Api | None = None,
    ) -> None:
        self._selector = settings.selector or ""
        self._namespace = namespace
        self._api = api or Api(settings.config)
        self._site = site
        self._offer: Offer = lambda _: None
        self._reading = Reading(settings.port, family, site.region)
        self._watcher: Watcher | None = None
        self._told: list[str] = []
        self._empty = False
        self._left_out = 0
        self.name = "kubernetes"
        self.passed = asyncio.Event()

    @property
    def seen_ns(self) -> int | None:
        """When the API server was last heard; ``None`` before it was asked."""
        return self._watcher.seen_ns if self._watcher is not None else None

    async def load(self) -> None:
        """Reads how the API server is reached, and does not ask it: it may be away at start.

        Raises:
            ConfigError: that cannot be read.
        """
        await self._api.open()
        namespace = self._namespace or self._api.namespace
        self.name = f"kubernetes {namespace}"
        self._offer = partial(self._site.offer, self.name)
        place = Place("replicas", namespace, self._selector)
        self._watcher = Watcher(self._api, place, partial(self._take, namespace), self.passed)

    async def run(self) -> None:
        """Follows the slices until cancelled."""
        if self._watcher is None:
            return
        try:
            await self._watcher.run()
        finally:
            await self._api.close()

    async def look(self) -> None:
        """Asks the API server at once, if it is away."""
        if self._watcher is not None:
            self._watcher.look()

    def troubles(self) -> dict[str, Trouble]:
        """Why the list is not known, or may be out of date, and what of the slices makes no replica."""
        if self._watcher is None:
            return {}
        found = [*filter(None, [self._watcher.trouble()]), *self._reading.faults]
        return {self.name: Trouble(Lack.UNLISTED, "; ".join(found))} if found else {}

    def _take(self, namespace: str, slices: Sequence[Slice]) -> None:
        offered = self._reading.read(namespace, slices)
        new = [fault for fault in self._reading.faults if fault not in self._told]
        self._told = self._reading.faults
        for fault in new:
            log.error("%s: %s", self.name, fault)
        if not slices and not self._empty:
            log.warning("%s: no EndpointSlice matches %s", self.name, self._selector)
        self._empty = not slices
        left_out = max(0, len(offered) - REPLICAS_MAX)
        if left_out and left_out != self._left_out:
            log.error("%s: %d replicas after the first %d are left out", self.name, left_out, REPLICAS_MAX)
        self._left_out = left_out
        self._offer(offered[:REPLICAS_MAX])


def sources(
    settings: KubernetesSettings, timing: DiscoverySettings, site: Site
) -> Iterator[KubernetesSource]:
    """One source for each namespace."""
    for namespace in settings.namespace or (None,):
        yield KubernetesSource(settings, namespace, timing.dns_family, site)
