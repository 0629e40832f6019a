"""The address that forwards to a peer go to.

The list of peers says the host. A peer may say the port only, so that it cannot redirect forwards elsewhere.
"""

from skylb.addresses import PeerUrl, ReplicaUrl, parse_replica
from skylb.discovery.resolve import literal, resolve
from skylb.mesh.frames import Hello
from skylb.types import Address, Peer


async def resolve_peer(peer_id: int, url: PeerUrl, hello: Hello, region: str) -> Peer:
    """A peer that has said hello, as forwards need it.

    Raises:
        ValueError: it advertises another host than the one at which it is listed.
        OSError: a name has no address.
    """
    forward = url.forward or parse_replica(hello.forward)
    address = (await _addresses(forward))[0] if url.forward else await _advertised(url.sync, forward)
    return Peer(
        id=peer_id,
        name=url.name,
        address=address,
        authority=forward.authority,
        region=region,
        incarnation=hello.incarnation,
    )


async def _advertised(sync: ReplicaUrl, url: ReplicaUrl) -> Address:
    """The address of a peer that wants forwards at ``url``.

    Raises:
        ValueError: it is not at the host at which the peer is listed, or in plain text where that is not.
        OSError: a name has no address.
    """
    if url.scheme == "unix" or (sync.scheme == "https" and url.scheme != "https"):
        raise ValueError(f"{url.scheme} where the list has {sync.scheme}")
    found = await _addresses(url)
    if url.host == sync.host:
        return found[0]
    listed = {address.host for address in await _addresses(sync)}
    same = [address for address in found if address.host in listed]
    if not same:
        raise ValueError(f"{url.host} is not the host of {sync}: list its FORWARD_URL")
    return same[0]


async def _addresses(url: ReplicaUrl) -> list[Address]:
    """All addresses of a URL's host, one or more.

    Raises:
        OSError: it has none.
    """
    known = literal(url)
    addresses = [known] if known is not None else await resolve(url)
    if not addresses:
        raise OSError(f"{url.host} has no address")
    return addresses
