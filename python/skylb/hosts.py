"""Which hosts of a dead peer's replicas this balancer may send to.

An operator names ranges of hosts. Link-local, metadata and similar addresses are refused in any case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from skylb.addresses import ReplicaUrl, is_host
from skylb.types import Address

NEVER = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this host (RFC 1122, 3.2.1.3)
            "169.254.0.0/16",  # link-local (RFC 3927): metadata of most clouds
            "168.63.129.16/32",  # Azure's wire server
            "100.100.100.200/32",  # metadata of Alibaba Cloud
            "192.0.0.192/32",  # metadata of Oracle Cloud, its older address
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            "::/128",
            "fe80::/10",  # link-local (RFC 4291, 2.5.6)
            "fd00:ec2::/32",  # metadata of AWS over IPv6
            "fd20:ce::/32",  # metadata of Google Cloud over IPv6
            "ff00::/8",  # multicast
        ),
    )
)
"""Whatever the settings say: nothing here is a replica, and some of it hands out credentials."""

_NAT64 = ip_network("64:ff9b::/96")
"""RFC 6052, 2.1: an IPv4 address stands at the end."""

_COMPATIBLE = ip_network("::/96")
"""RFC 4291, 2.5.5.1: as above."""

Ip = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class HostRange:
    """Addresses by network, or hosts by name: ``10.2.0.0/16``, ``gpu-1.example.net``, ``*.example.net``."""

    network: IPv4Network | IPv6Network | None
    host: str = ""
    """A name, or the end of names with its leading dot."""

    def __str__(self) -> str:
        """The form it is configured in."""
        if self.network is not None:
            return str(self.network)
        return f"*{self.host}" if self.host.startswith(".") else self.host

    def has_name(self, host: str) -> bool:
        """Whether a host of this name is meant, wherever it is."""
        host = host.removesuffix(".")
        if not self.host:
            return False
        return host.endswith(self.host) if self.host.startswith(".") else host == self.host

    def has_address(self, address: Ip) -> bool:
        """Whether this address is meant."""
        return (
            self.network is not None and address.version == self.network.version and address in self.network
        )


def parse_range(text: str) -> HostRange:
    """Reads a network, an address, a host's name, or ``*.`` and the end of names.

    Raises:
        ValueError: says what is wrong with ``text``.
    """
    text = text.strip().lower()
    try:
        network = ip_network(text.strip("[]"))
    except ValueError:
        if "/" in text:
            raise ValueError("no network, as 10.2.0.0/16, with all bits behind its prefix 0") from None
    else:
        if any(network.version == never.version and network.subnet_of(never) for never in NEVER):  # type: ignore[arg-type]  # of one version
            raise ValueError("no replica is at these addresses: link-local, metadata, multicast or reserved")
        return HostRange(network)
    name = text.removeprefix("*.").removesuffix(".")
    if not is_host(name):
        raise ValueError("neither a network nor the name of a host")
    return HostRange(None, f".{name}" if text.startswith("*.") else name)


def _embedded(address: Ip) -> Iterator[Ip]:
    """The address, and the IPv4 address that it stands for, if it does."""
    yield address
    if isinstance(address, IPv6Address):
        yield from filter(None, (address.ipv4_mapped, address.sixtofour))
        if address in _NAT64 or (address in _COMPATIBLE and not address.is_loopback):
            yield IPv4Address(int(address) & 0xFFFFFFFF)


def why_not(ranges: Sequence[HostRange], url: ReplicaUrl, address: Address) -> str | None:
    """Why the replica at a resolved address may not be served; ``None``: it may be.

    The address decides, not the name alone: a name that is listed may resolve anywhere but to this machine
    and to `NEVER`, another one only into a listed network.

    Args:
        ranges: what the operator allows.
        url: the replica as its peer names it.
        address: where it is to be dialled.
    """
    if address.unix or url.scheme == "unix":
        return "a socket of this machine"
    try:
        found = list(_embedded(ip_address(address.host.partition("%")[0])))
    except ValueError:
        return "not an address"
    if any(one.version == never.version and one in never for one in found for never in NEVER):
        return f"{address.host} is never served: link-local, metadata, multicast or reserved"
    real = found[-1]
    if any(allowed.has_address(real) for allowed in ranges):
        return None
    if not real.is_loopback and any(allowed.has_name(url.host) for allowed in ranges):
        return None
    return f"{address.host} is outside of adopt_from"
