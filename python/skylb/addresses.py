"""How sockets and replicas are written: parsed once, printed back the same way."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal
from urllib.parse import urlsplit

UNIX_PATH_BYTES_MAX = 107
"""``sun_path`` of unix(7): 108 bytes, the closing NUL included."""

HOST_LEN_MAX = 253
"""Of a domain name (RFC 1035, 2.3.4, less what the wire adds)."""

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0.0.0.0/96")


def parse_ip(text: str) -> IpAddress:
    """Reads an IP address in its one form: what is compared, logged or sent goes through here.

    An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2; what a listener on ``[::]`` sees of an IPv4 client)
    is that IPv4 address, and a scope id (RFC 4007, 11), which means something on this machine only, is
    left out.

    Raises:
        ValueError: it is none.
    """
    address = ip_address(text.partition("%")[0])
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def parse_network(text: str) -> IpNetwork:
    """Reads an IP address or network in the form of `parse_ip`.

    Raises:
        ValueError: it is none, or has bits behind its prefix.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


def client_address(peername: object) -> IpAddress | None:
    """The address of who connected.

    Args:
        peername: what ``getpeername`` of its socket answers, or ``None`` where it is gone already.

    Returns:
        ``None`` for who has none: over a Unix socket.
    """
    return parse_ip(str(peername[0])) if isinstance(peername, tuple) else None


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listening socket binds: ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

    ``host`` is the socket's path for ``unix``; ``port`` is 0 then, and 0 for "any free port".
    """

    host: str
    port: int
    unix: bool = False

    def __str__(self) -> str:
        """The form it is configured in."""
        if self.unix:
            return f"unix:{self.host}"
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.unix or self.host == "localhost":
            return True
        try:
            return parse_ip(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Whether it binds every address of the machine."""
        if self.unix:
            return False
        try:
            return parse_ip(self.host).is_unspecified
        except ValueError:
            return False

    def collides(self, other: "ListenAddress") -> bool:
        """Whether both cannot be bound at once."""
        if self.unix or other.unix:
            return self.unix and other.unix and self.host == other.host
        if self.port != other.port or self.port == 0:
            return False
        return self.host == other.host or self.is_wildcard or other.is_wildcard


@dataclass(frozen=True, slots=True)
class ReplicaUrl:
    """Where a replica answers, as configured: nothing is resolved yet.

    ``host`` is the socket's path for ``unix``; ``port`` is 0 then.
    """

    scheme: Literal["http", "https", "unix"]
    host: str
    port: int

    def __str__(self) -> str:
        """The canonical form, also the replica's name in logs, metrics and ``/state``."""
        if self.scheme == "unix":
            return f"unix:{self.host}"
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"

    @property
    def authority(self) -> str:
        """Value of ``Host`` (RFC 9110, section 7.2)."""
        host = self.host.partition("%")[0]  # a scope id never goes on the wire (RFC 6874, 4)
        return "localhost" if self.scheme == "unix" else f"{_bracketed(host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class PeerUrl:
    """Another balancer, as configured: ``NAME[@REGION]=SYNC_URL[,FORWARD_URL]``; nothing is resolved yet.

    Without ``forward`` the peer says at which port of its host forwards arrive. Without ``region`` it is in
    the region of its own name.
    """

    name: str
    sync: ReplicaUrl
    forward: ReplicaUrl | None
    region: str | None = None

    def __str__(self) -> str:
        """The canonical form."""
        named = self.name if self.region is None else f"{self.name}@{self.region}"
        return f"{named}={self.sync}" + (f",{self.forward}" if self.forward is not None else "")


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a balancer or a region may be called so: fit for a header, a label and a log line."""
    return _NAME.fullmatch(text) is not None


def parse_peer(text: str) -> PeerUrl:
    """Reads ``NAME[@REGION]=SYNC_URL[,FORWARD_URL]``.

    Raises:
        ValueError: says what is wrong with ``text``.
    """
    named, equals, urls = text.partition("=")
    name, at, region = named.partition("@")
    if not equals or not is_name(name):
        raise ValueError("there is no NAME= of letters, digits, dots, dashes and underscores, at most 64")
    if at and not is_name(region):
        raise ValueError(
            "the region is not a name of letters, digits, dots, dashes and underscores, at most 64"
        )
    sync, comma, forward = urls.partition(",")
    sync_url = parse_replica(sync.strip())
    if sync_url.scheme == "unix":
        raise ValueError("peers synchronise over TCP: http or https")
    forward_url = parse_replica(forward.strip()) if comma else None
    return PeerUrl(name, sync_url, forward_url, region if at else None)


def parse_listen(text: str) -> ListenAddress:
    """Reads ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``.

    Raises:
        ValueError: says what is wrong with ``text``.
    """
    if text.startswith("unix:"):
        return ListenAddress(_unix_path(text), 0, unix=True)
    host, colon, digits = text.rpartition(":")
    if not colon or not host:
        raise ValueError("the port or the host is missing")
    return ListenAddress(_host(host), _port(digits, least=0))


def parse_replica(text: str) -> ReplicaUrl:
    """Reads ``http://HOST[:PORT]``, ``https://HOST[:PORT]`` or ``unix:PATH``.

    Raises:
        ValueError: says what is wrong with ``text``.
    """
    if text.startswith("unix:"):
        return ReplicaUrl("unix", _unix_path(text), 0)
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("the scheme is neither http nor https")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("a path, query or fragment does not belong here: SkyLB adds the request's own")
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong here: use replica_key_file")
    host, _, digits = parts.netloc.rpartition(":")
    if not host or parts.netloc.endswith("]"):
        host, digits = parts.netloc, "443" if parts.scheme == "https" else "80"
    return ReplicaUrl("https" if parts.scheme == "https" else "http", _host(host), _port(digits, least=1))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _unix_path(text: str) -> str:
    path = text.removeprefix("unix:")
    if not path or "\0" in path:
        raise ValueError("the path of the socket is missing or holds a NUL")
    if len(path.encode()) > UNIX_PATH_BYTES_MAX:
        raise ValueError(f"the path of the socket is longer than {UNIX_PATH_BYTES_MAX} bytes")
    return path


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            address = IPv6Address(text[1:-1])
        except ValueError:
            raise ValueError("no IPv6 address between the brackets") from None
        return str(address.ipv4_mapped or address)
    if ":" in text:
        raise ValueError("an IPv6 address needs brackets")
    if len(text) > HOST_LEN_MAX:
        raise ValueError(f"the host is longer than {HOST_LEN_MAX} characters")
    if not is_host(text):
        raise ValueError("the host is not a name or an address")
    return text.lower()


def same_address(one: str, other: str) -> bool:
    """Whether two texts are one IP address."""
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return False


def is_host(text: str) -> bool:
    """Whether this can be the name of a host, or an IPv4 address."""
    return bool(text) and all(part and _is_label(part) for part in text.removesuffix(".").split("."))


def _is_label(text: str) -> bool:
    return len(text) <= 63 and text.isascii() and text.replace("-", "a").replace("_", "a").isalnum()


def _port(digits: str, *, least: int) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and least <= int(digits) <= 65535):
        raise ValueError(f"the port is not a number from {least} to 65535")
    return int(digits)
