"""One handshake with a peer and a goodbye, for finding out whether they would understand each other."""

import asyncio
import ssl
import time
from dataclasses import dataclass

import aiohttp

from skylb.addresses import PeerUrl
from skylb.clock import monotonic_ns
from skylb.mesh.frames import VERSION, Hello, Kind, new_nonce
from skylb.mesh.signing import Keys, Refused
from skylb.mesh.sync import HANDSHAKE_S, Closed, Meter, close, dial, shake

INCARNATION = 0
"""Below that of every run: a peer that is connected to a balancer of our name refuses the handshake, and
keeps that connection."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a peer has proven."""

    hello: Hello
    rtt_ns: int
    """Of a ping."""


async def greet(
    client: aiohttp.ClientSession,
    url: PeerUrl,
    keys: Keys,
    tls: ssl.SSLContext,
    *,
    name: str,
    region: str,
    forward: str,
) -> Greeting:
    """Says hello and goodbye.

    Args:
        client: dials.
        url: the peer.
        keys: the shared secrets.
        tls: for ``https`` peers.
        name: how the peer lists this balancer.
        region: where it is.
        forward: URL that forwards to it go to.

    Raises:
        Closed: it is not reached, or has ended the connection; the text says why.
        Refused: what it said is not let in here.
    """
    ours = Hello(
        VERSION, name, region, INCARNATION, keys.first.id, new_nonce(), time.time_ns() // 1_000_000, forward
    )

    def expected(hello: Hello) -> Meter:
        if hello.name != url.name:
            raise Refused("name")
        return Meter()

    try:
        async with asyncio.timeout(HANDSHAKE_S):
            socket = await dial(client, str(url.sync), tls)
            try:
                began_ns = monotonic_ns()
                connection = await shake(socket, keys, ours, expected, dialled=True)
                rtt_ns = (monotonic_ns() - began_ns) // 2  # two round trips: both hellos, then both proofs
                await connection.send(Kind.BYE)
            finally:
                await close(socket, "")
    except TimeoutError:
        raise Closed("not reached: timed out") from None
    return Greeting(connection.hello, rtt_ns)
