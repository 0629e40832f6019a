"""The peers that the EndpointSlices of a Service list."""

from collections.abc import Sequence

from skylb.addresses import PeerUrl, ReplicaUrl, is_name
from skylb.discovery.kubernetes.slices import SERVICE, Port, Slice, merged, of_family, port_of, region_of

SYNC_PORT = "sync"
"""What the Service calls the port of --sync-listen."""


def selector_of(service: str) -> str:
    """Selects the slices of a Service."""
    return f"{SERVICE}={service}"


def peers_of(slices: Sequence[Slice], *, tls: bool, region: str, faults: dict[str, None]) -> list[PeerUrl]:
    """The balancers behind a Service, ready or not: whether a peer is there, the mesh finds out.

    Args:
        slices: of the Service.
        tls: whether peers speak TLS.
        region: of those whose Service says none.
        faults: gets what makes no peer, in order, each once.
    """
    placed: list[tuple[Slice, Port]] = []
    for one in of_family(slices, "ipv4"):
        if not one.endpoints:
            continue
        try:
            placed.append((one, port_of(one, SYNC_PORT)))
        except ValueError as error:
            faults[f"{error}: expected a port called {SYNC_PORT}"] = None
    found: dict[str, PeerUrl] = {}
    for place in merged(placed):
        target = place.endpoint.target_ref
        name = target.name if target is not None else ""
        if not is_name(name):
            faults[f"{place.host}: {name!r} is no name of a balancer: expected the name of its pod"] = None
            continue
        url = ReplicaUrl("https" if tls else "http", place.host, place.port.port or 0)
        found[name] = PeerUrl(name, url, None, region_of(place.slice, faults) or region)
    return [found[name] for name in sorted(found)]
