"""Settings of the mesh: who this balancer is, who its peers are, and how they reach each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from skylb.addresses import PeerUrl, ReplicaUrl, is_name, parse_peer
from skylb.errors import missing
from skylb.hosts import HostRange, parse_range
from skylb.settings import kubernetes
from skylb.settings.kubernetes import read_service
from skylb.settings.sections import COMMON, TENANTS
from skylb.settings.values import (
    EXPERIMENTAL,
    FILE,
    LISTEN,
    URL,
    Bytes,
    Count,
    Expected,
    File,
    Group,
    Listen,
    Placeholder,
    Seconds,
    Url,
)

PEERS_MAX = 64
"""Peers of one balancer: every pair keeps a connection."""

SOURCES = ("peer", "peers_file", "peers_dns", "peer_kubernetes_service")
"""The settings that say who the peers are; together they make one list."""

RULES_MAX = 256
RANGES_MAX = 256
ANY_PEER = "*"
"""In `trusted_peers`: all of them."""

REGIONS_MAX = 63
"""Regions that rules of residency may name; see `Engine.set_residency`."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
SRV_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,252}$"
NAME = Expected("a name of letters, digits, dots, dashes and underscores, at most 64")


def _peer(value: object) -> object:
    return parse_peer(value) if isinstance(value, str) else value


def _service(value: object) -> object:
    if isinstance(value, str):
        read_service(value)
    return value


def _range(value: object) -> object:
    return parse_range(value) if isinstance(value, str) else value


def _trusted(value: object) -> object:
    if value != ANY_PEER and not (isinstance(value, str) and is_name(value)):
        raise ValueError("neither the name of a peer nor *")
    return value


def _joined(value: object) -> object:
    """A variable's list is cut at every comma, so also within ``NAME=SYNC_URL,FORWARD_URL``."""
    if not isinstance(value, list | tuple):
        return value
    joined: list[object] = []
    for part in value:
        is_url = isinstance(part, str) and part.startswith(("http://", "https://", "unix:"))
        before = joined[-1] if joined else None
        if is_url and isinstance(before, str) and "," not in before:
            joined[-1] = f"{before},{part}"
        else:
            joined.append(part)
    return joined


@dataclass(frozen=True, slots=True)
class ResidencyRule:
    """``TENANT/MODEL=REGION+REGION``: where requests may be served; ``None`` is any tenant or model."""

    tenant: str | None
    model: str | None
    regions: tuple[str, ...]

    def __str__(self) -> str:
        """The form it is configured in."""
        return f"{self.tenant or '*'}/{self.model or '*'}={'+'.join(self.regions)}"


def _residency(value: object) -> object:
    if not isinstance(value, str):
        return value
    named, equals, regions = value.rpartition("=")
    tenant, slash, model = named.partition("/")
    if not equals or not slash or not tenant or not model:
        raise ValueError("there is no TENANT/MODEL= in front of the regions; * stands for any")
    names = tuple(regions.split("+"))
    if not all(map(is_name, names)):
        raise ValueError("the regions are not names joined by +")
    return ResidencyRule(None if tenant == "*" else tenant, None if model == "*" else model, names)


Residency = Annotated[ResidencyRule, BeforeValidator(_residency), PlainSerializer(str)]
Peer = Annotated[PeerUrl, BeforeValidator(_peer), PlainSerializer(str)]
Hosts = Annotated[HostRange, BeforeValidator(_range), PlainSerializer(str)]
Trusted = Annotated[str, BeforeValidator(_trusted)]


class MeshSettings(Group):
    """Balancers that share load."""

    region: Annotated[
        str,
        NAME,
        COMMON,
        Field(pattern=NAME_PATTERN, description="Region of this balancer and its replicas."),
    ] = "local"
    name: Annotated[
        str | None,
        NAME,
        Field(
            pattern=NAME_PATTERN,
            description="Name of this balancer among its peers. Without it, peers use the region's name. "
            "Balancers of one region need distinct names.",
        ),
    ] = None
    peer: Annotated[
        tuple[Peer, ...],
        BeforeValidator(_joined),
        Expected("NAME=SYNC_URL or NAME@REGION=SYNC_URL, with ,FORWARD_URL behind it or without"),
        Placeholder("NAME[@REGION]=SYNC_URL[,FORWARD_URL]"),
        COMMON,
        Field(
            max_length=PEERS_MAX,
            description="Another balancer. Without REGION, its region is called NAME. Forwards go to "
            "FORWARD_URL. Without it, they go to the host of SYNC_URL, at the port that the peer advertises.",
        ),
    ] = ()
    peers_file: Annotated[
        File | None,
        FILE,
        Field(
            description="File of peers, one NAME[@REGION]=SYNC_URL[,FORWARD_URL] per line. SkyLB reads it "
            "again when it changes."
        ),
    ] = None
    peers_dns: Annotated[
        str | None,
        Expected("the name of SRV records, as _skylb._tcp.example.net"),
        Field(
            pattern=SRV_PATTERN,
            description="Name of SRV records that list the peers' sync listeners. The first label of a "
            "target is the balancer's name.",
        ),
    ] = None
    peer_kubernetes_service: Annotated[
        str | None,
        BeforeValidator(_service),
        Expected("NAME or NAME.NAMESPACE of a Service"),
        Placeholder("NAME[.NAMESPACE]"),
        Field(
            description="Headless Service of the balancers in Kubernetes. Each of its pods is a peer, which "
            "has the pod's name. Give that name to each with --name. SkyLB reaches the peers at the "
            "Service's port called sync."
        ),
    ] = None
    peer_key_file: Annotated[
        File | None,
        FILE,
        COMMON,
        Field(
            description="File of secrets that all peers share, one KEYID:BASE64 per line. The first one "
            "signs; each of them verifies."
        ),
    ] = None
    peer_tls_cert: Annotated[
        File | None,
        FILE,
        Field(
            description="Certificate chain (PEM) of --sync-listen and --peer-listen. SkyLB also shows it to "
            "peers that it connects to."
        ),
    ] = None
    peer_tls_key: Annotated[File | None, FILE, Field(description="Private key (PEM) of --peer-tls-cert.")] = (
        None
    )
    peer_tls_ca: Annotated[
        File | None,
        FILE,
        Field(
            description="Certificates (PEM) that verify https peers, instead of the system's. With "
            "--peer-tls-cert, each peer must also show a certificate that one of them signed."
        ),
    ] = None
    peer_listen: Annotated[
        Listen | None, LISTEN, COMMON, Field(description="Address that peers send forwarded requests to.")
    ] = None
    sync_listen: Annotated[
        Listen | None,
        LISTEN,
        COMMON,
        Field(description="Address that peers connect to for the exchange of state."),
    ] = None
    advertise: Annotated[
        Url | None,
        URL,
        Field(
            description="URL that peers send forwarded requests to. Without it, they use the address of "
            "--peer-listen. Give it if --peer-listen is a wildcard address."
        ),
    ] = None
    trusted_peers: Annotated[
        tuple[Trusted, ...],
        Expected("the name of a peer, or * for all"),
        Field(
            max_length=PEERS_MAX,
            description="Peer that may evacuate any region, and may say which balancer adopts the replicas "
            "of any region. Other peers may do so for their own region only.",
        ),
    ] = ()
    adopt_from: Annotated[
        tuple[Hosts, ...],
        Expected("a network or address, as 10.2.0.0/16, a host's name, or *.DOMAIN"),
        Placeholder("HOSTS"),
        Field(
            max_length=RANGES_MAX,
            description="Hosts whose replicas this balancer may serve while their own balancer is dead.",
        ),
    ] = ()

    peer_connections_max: Annotated[
        Count,
        Field(
            ge=1,
            description="Maximum number of connections at --peer-listen at once. The process's file "
            "descriptors may allow fewer.",
        ),
    ] = 4096

    region_cache: Annotated[
        bool,
        Field(
            description="Balancers of one region tell each other which prompts they sent to which replica. "
            "Then it does not matter which of them a session reaches."
        ),
    ] = True
    peer_digest: Annotated[
        bool,
        Field(
            description="Exchange the hottest prefixes with balancers of other regions. Turn it on where "
            "many large prompts leave their region for the first time."
        ),
    ] = False
    peer_digest_bytes_max: Annotated[
        Bytes,
        EXPERIMENTAL,
        Field(
            ge=128,
            le=32 << 10,
            description="Largest message of hot prefixes, at 9 bytes per prefix. A larger one names more "
            "prefixes.",
        ),
    ] = 8 << 10
    peer_digest_interval_s: Annotated[
        Seconds,
        EXPERIMENTAL,
        Field(
            ge=0.1,
            le=3600,
            description="Least time between two messages of hot prefixes. A shorter time costs more traffic.",
        ),
    ] = 2.0
    peer_digest_age_max_s: Annotated[
        Seconds,
        EXPERIMENTAL,
        Field(ge=1, le=3600, description="Age from which a peer's hot prefixes no longer count."),
    ] = 30.0

    residency: Annotated[
        tuple[Residency, ...],
        Expected("TENANT/MODEL=REGION or TENANT/MODEL=REGION+REGION"),
        Placeholder("TENANT/MODEL=REGION[+REGION...]"),
        TENANTS,
        Field(
            max_length=RULES_MAX,
            description="Regions that may serve the requests of a tenant for a model. As TENANT or MODEL, "
            "* stands for any. A request must satisfy every rule that matches it.",
        ),
    ] = ()
    tenant_header: Annotated[
        str | None,
        Expected("the name of a header"),
        TENANTS,
        Field(
            pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
            description="Header in which a trusted proxy names the tenant.",
        ),
    ] = None
    tenant_key_file: Annotated[
        File | None,
        FILE,
        TENANTS,
        Field(
            description="File of tenants by API key, one TENANT:SHA256 per line. SHA256 is the key's "
            "digest in hexadecimal."
        ),
    ] = None
    isolate_tenants: Annotated[
        bool,
        TENANTS,
        Field(
            description="Give each tenant a prefix cache of its own in the engines. Then no tenant can tell "
            "from the time of an answer what another has asked. Tenants no longer share a system prompt's "
            "cache. Set it alike at all balancers of a mesh."
        ),
    ] = False
    isolation_key_file: Annotated[
        File | None,
        FILE,
        TENANTS,
        Field(
            description="File with the key of --isolate-tenants, one word of at least 16 characters, the "
            "same at all balancers. Without it the key comes from --peer-key-file, else each start draws one."
        ),
    ] = None

    @property
    def compares_prompts(self) -> bool:
        """Hashes of prompts are compared with those of peers, so they must be keyed alike."""
        return self.peer_digest or self.region_cache

    @property
    def balancer(self) -> str:
        """What peers call this balancer."""
        return self.name or self.region

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        yield from self._residency_conflicts()
        if self.isolation_key_file is not None and not self.isolate_tenants:
            yield (
                {"isolation_key_file", "isolate_tenants"},
                "isolation_key_file is given without isolate_tenants: expected both",
            )
        for options, sentence in self.peer_conflicts(self.peer):
            yield options, f"peer: {sentence}"
        if self.peers_dns is not None and find_spec("dns") is None:
            yield {"peers_dns"}, f"peers_dns: {missing('dnspython')}"
        yield from self._kubernetes_conflicts()
        source = next((name for name in SOURCES if getattr(self, name)), "")
        for option in ("peer_key_file", "peer_listen", "sync_listen") if source else ():
            if getattr(self, option) is None:
                yield {source, option}, f"{source} is given without {option}: expected both"
        listens = self.peer_listen or self.sync_listen
        if listens is not None and not source:
            option = "sync_listen" if self.peer_listen is None else "peer_listen"
            yield {"peer", option}, f"{option} is given without peer: expected both"
        if (self.peer_tls_cert is None) != (self.peer_tls_key is None):
            one, other = ("cert", "key") if self.peer_tls_key is None else ("key", "cert")
            yield (
                {"peer_tls_cert", "peer_tls_key"},
                f"peer_tls_{one} is given without peer_tls_{other}: expected both or neither",
            )
        if self.peer_listen is not None and self.peer_listen.is_wildcard and self.advertise is None:
            yield (
                {"peer_listen", "advertise"},
                f"peer_listen: {self.peer_listen} says no peer where to connect: expected advertise as well",
            )
        if self.advertise is not None and self.advertise.scheme == "unix":
            yield (
                {"advertise"},
                f"advertise: {self.advertise} is no place that a peer can reach: expected http or https",
            )

    def _kubernetes_conflicts(self) -> Iterator[tuple[set[str], str]]:
        if self.peer_kubernetes_service is None:
            return
        if (absent := kubernetes.uninstalled()) is not None:
            yield {"peer_kubernetes_service"}, f"peer_kubernetes_service: {absent}"
        if self.name is None:
            yield (
                {"peer_kubernetes_service", "name"},
                "peer_kubernetes_service is given without name: expected the name of this pod as well",
            )

    def _residency_conflicts(self) -> Iterator[tuple[set[str], str]]:
        tenants = sorted({rule.tenant for rule in self.residency if rule.tenant is not None})
        if tenants and self.tenant_header is None and self.tenant_key_file is None:
            yield (
                {"residency", "tenant_header", "tenant_key_file"},
                f"residency names {tenants[0]}: expected tenant_header or tenant_key_file too",
            )
        regions = {region for rule in self.residency for region in rule.regions}
        if len(regions) > REGIONS_MAX:
            yield {"residency"}, f"residency names {len(regions)} regions: expected at most {REGIONS_MAX}"

    def peer_conflicts(self, peers: Sequence[PeerUrl]) -> Iterator[tuple[set[str], str]]:
        """What is wrong with a list of peers, wherever it comes from."""
        if len(peers) > PEERS_MAX:
            # No more is said: of very many peers, to compare each with all would take long.
            yield {"peer"}, f"{len(peers)} peers: expected at most {PEERS_MAX}"
            return
        for index, peer in enumerate(peers):
            before = peers[:index]
            if peer.name == self.balancer or self._listens_at(peer.sync):
                options = {"peer", "name", "region", "sync_listen"}
                yield options, f"{peer} is this balancer itself: expected others"
            if peer in before:
                yield {"peer"}, f"{peer} is given twice: expected distinct peers"
            elif any(peer.name == other.name for other in before):
                yield {"peer"}, f"two peers are called {peer.name}: expected one of each name"
            elif any(peer.sync == other.sync for other in before):
                yield {"peer"}, f"two peers are at {peer.sync}: expected distinct addresses"

    def _listens_at(self, url: ReplicaUrl) -> bool:
        here = self.sync_listen
        return here is not None and url.port == here.port != 0 and url.host == here.host
