"""What EndpointSlices say (discovery.k8s.io/v1): pure functions from their JSON to endpoints.

Fields that may be null or absent are so here. Only the first address of an endpoint counts, as the API asks
of those that read it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import msgspec

from skylb.addresses import is_name
from skylb.errors import UnreadableError
from skylb.settings.discovery import DnsFamily

SLICES_MAX = 4096
"""Slices of one namespace that are kept; each has 100 endpoints as Kubernetes comes."""

ENDPOINTS_MAX = 1000
"""Of one slice, as the API allows."""

SERVICE = "kubernetes.io/service-name"
"""Label of a slice: its Service."""

REGION = "skylb.dev/region"
"""Label of a Service or slice, or annotation of a slice: the region of its pods, where it is not ours."""

T = TypeVar("T")

_FAMILIES = {"IPv4": "ipv4", "IPv6": "ipv6"}


class Reference(msgspec.Struct, frozen=True):
    """The pod behind an endpoint."""

    name: str = ""
    uid: str = ""


class Conditions(msgspec.Struct, frozen=True):
    """Of an endpoint; ``None`` is not said."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One address of a Service."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    target_ref: Reference | None = None
    node_name: str | None = None
    zone: str | None = None


class Port(msgspec.Struct, frozen=True, rename="camel"):
    """A port of all endpoints of a slice."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None
    app_protocol: str | None = None

    def __str__(self) -> str:
        """For people."""
        return f"{self.name} ({self.port})" if self.name else str(self.port)


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Of a slice, a list or a bookmark."""

    name: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    continue_: str | None = msgspec.field(default=None, name="continue")


class Slice(msgspec.Struct, frozen=True, rename="camel"):
    """An EndpointSlice."""

    metadata: Metadata
    address_type: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[Port] | None = None

    @property
    def service(self) -> str:
        """Its Service, or itself where nobody says it."""
        return (self.metadata.labels or {}).get(SERVICE) or self.metadata.name

    def said(self, name: str) -> str | None:
        """A label, or the annotation of that name where it has no such label."""
        labels, annotations = self.metadata.labels or {}, self.metadata.annotations or {}
        return labels.get(name, annotations.get(name))


class SliceList(msgspec.Struct, frozen=True):
    """A page of a list."""

    metadata: Metadata
    items: list[Slice] | None = None


class Event(msgspec.Struct, frozen=True):
    """An event of a watch."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct, frozen=True):
    """An answer that is an error."""

    code: int = 0
    reason: str = ""
    message: str = ""


class State(IntEnum):
    """What an endpoint may be sent. Of one pod, the later state counts: it never goes back while it ends."""

    UNREADY = 0
    """No new requests for the time being."""
    READY = 1
    DRAINING = 2
    """It terminates, and still serves."""
    GONE = 3


_BEST = {State.GONE: 0, State.UNREADY: 1, State.DRAINING: 2, State.READY: 3}
"""Of two pods at one address, the one that can be sent most counts: the other one has left it."""


def state_of(conditions: Conditions | None) -> State:
    """What the conditions mean.

    ``ready`` counts as true where nobody says it, ``serving`` as ``ready`` and ``terminating`` as false (the
    API's reference). An endpoint that terminates is draining, also where its Service has
    ``publishNotReadyAddresses`` and calls it ready.
    """
    said = conditions or Conditions()
    ready = said.ready is not False
    serving = ready if said.serving is None else said.serving
    if said.terminating:
        return State.DRAINING if serving else State.GONE
    return State.READY if ready else State.UNREADY


@dataclass(frozen=True, slots=True)
class Found:
    """An endpoint at an address and port: as one of the slices has it, in the state that all of them give."""

    host: str
    port: Port
    state: State
    endpoint: Endpoint
    slice: Slice


def of_family(slices: Iterable[Slice], family: DnsFamily) -> list[Slice]:
    """The slices whose addresses are taken, in the order of their names.

    A Service with addresses of both families has each pod in both: those of one family are taken.
    """
    known = sorted(
        (one for one in slices if one.address_type in _FAMILIES), key=lambda one: one.metadata.name
    )
    if family == "all":
        return known
    preferred = {one.service for one in known if one.endpoints and _FAMILIES[one.address_type] == family}
    return [one for one in known if _FAMILIES[one.address_type] == family or one.service not in preferred]


def merged(placed: Iterable[tuple[Slice, Port]]) -> list[Found]:
    """The endpoints of slices at the ports that are meant, each address once.

    An address can stand in two slices for a moment, and in those of two Services for ever.
    """
    by_place: dict[tuple[str, int], dict[str, Found]] = {}
    for one, port in placed:
        for endpoint in (one.endpoints or ())[:ENDPOINTS_MAX]:
            if not endpoint.addresses:
                continue
            host = endpoint.addresses[0]
            state = state_of(endpoint.conditions)
            at_place = by_place.setdefault((host, port.port or 0), {})
            uid = endpoint.target_ref.uid if endpoint.target_ref is not None else ""
            before = at_place.get(uid)
            if before is None or before.state < state:
                at_place[uid] = Found(host, port, state, endpoint, one)
    return [max(found.values(), key=lambda one: _BEST[one.state]) for found in by_place.values()]


def port_of(one: Slice, wanted: str | None) -> Port:
    """The port of a slice that is meant.

    Args:
        one: the slice.
        wanted: a name or number; ``None``: its only TCP port.

    Raises:
        ValueError: there is none, or nobody says which; what is there instead.
    """
    ports = [port for port in one.ports or () if port.port and port.protocol in {None, "TCP"}]
    if wanted is not None and wanted.isdigit():
        number = int(wanted)
        fitting = [port for port in ports if port.port == number]
        if not ports:
            fitting = [Port(port=number)]  # a headless Service may name no ports: all are open
    elif wanted is not None:
        fitting = [port for port in ports if port.name == wanted]
    else:
        fitting = ports
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(str(port) for port in sorted(ports, key=lambda port: port.port or 0)) or "no TCP port"
    missed = "" if wanted is None else f" and not {wanted}"
    raise ValueError(f"Service {one.service} has {there}{missed}")


def region_of(one: Slice, faults: dict[str, None]) -> str | None:
    """The region that a slice says; what is no name is added to the faults.

    Args:
        one: the slice.
        faults: in order, each once.
    """
    said = one.said(REGION)
    if said is not None and not is_name(said):
        faults[f"slice {one.metadata.name}: {REGION} is {said!r}: expected the name of a region"] = None
        return None
    return said


def read_list(content: bytes) -> SliceList:
    """Reads a page of a list.

    Raises:
        UnreadableError: it is none.
    """
    return _decoded(_LIST, content)


def read_event(line: bytes) -> Event:
    """Reads one line of a watch.

    Raises:
        UnreadableError: it is no event.
    """
    return _decoded(_EVENT, line)


def read_slice(content: msgspec.Raw) -> Slice:
    """Reads the object of an event; of a bookmark only the metadata mean something.

    Raises:
        UnreadableError: it is no slice.
    """
    return _decoded(_SLICE, content)


def read_status(content: bytes | msgspec.Raw) -> Status:
    """Reads an error; empty where it is none of the API server's own."""
    try:
        return _STATUS.decode(content)
    except ValueError:
        return Status()


def _decoded(decoder: msgspec.json.Decoder[T], content: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(content)
    except ValueError as error:  # of msgspec, or of text that is not UTF-8
        raise UnreadableError(str(error)) from error


_LIST = msgspec.json.Decoder(SliceList)
_EVENT = msgspec.json.Decoder(Event)
_SLICE = msgspec.json.Decoder(Slice)
_STATUS = msgspec.json.Decoder(Status)
