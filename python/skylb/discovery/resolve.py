"""From configured URLs to addresses. Control resolves; the data plane dials addresses."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from skylb.addresses import ReplicaUrl
from skylb.types import Address

ADDRESSES_MAX = 1024
"""Replicas taken from one name."""

REACH_TIMEOUT_S = 0.5
"""For finding out which address of a name accepts connections."""

Resolver = Callable[[ReplicaUrl], Awaitable[list[Address]]]
"""Gives all addresses of a URL's name; raises OSError when it does not resolve."""


def literal(url: ReplicaUrl) -> Address | None:
    """The address of a URL that needs no resolving: an IP address or a Unix socket."""
    if url.scheme == "unix":
        return Address(url.host, 0, unix=True)
    try:
        ip_address(url.host)
    except ValueError:
        return None
    return Address(url.host, url.port, tls=url.scheme == "https")


async def resolve(url: ReplicaUrl) -> list[Address]:
    """All IPv4 and IPv6 addresses that a URL's name stands for, in the resolver's order.

    Raises:
        OSError: the name does not resolve (now).
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except ValueError as error:  # the name cannot even be asked for
        raise OSError(f"{url.host} is no name that resolves: {error}") from error
    hosts = dict.fromkeys(
        str(sockaddr[0]) for family, _, _, _, sockaddr in found if family in {socket.AF_INET, socket.AF_INET6}
    )
    tls = url.scheme == "https"
    server_name = url.host if tls else None
    return [Address(host, url.port, tls=tls, server_name=server_name) for host in hosts]


async def reachable(address: Address) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
