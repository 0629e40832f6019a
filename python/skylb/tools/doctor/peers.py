"""What `skylb doctor` sees of the other balancers: one handshake with each."""

import time
from collections.abc import Sequence

from skylb.addresses import PeerUrl
from skylb.config import Settings
from skylb.discovery.resolve import reachable
from skylb.errors import ConfigError
from skylb.keyfiles import read_keys
from skylb.mesh.address import resolve_peer
from skylb.mesh.greeting import Greeting, greet
from skylb.mesh.peerlist import PeerList
from skylb.mesh.signing import Refused
from skylb.mesh.sync import Closed, new_client
from skylb.mesh.tls import MeshTls
from skylb.startreport import url_of
from skylb.tasks import TaskGroup
from skylb.tools.doctor.findings import Report, in_order

SKEW_S = 1.0
"""As the balancer itself logs it: operators' orders carry the time at which they were given."""

AREA = "peer"

FIXES = {
    "key": "give both the same --peer-key-file",
    "signature": "give both the same --peer-key-file: the key's id is the same, its secret is not",
    "name": "list this balancer there, under its --name",
    "region": "list this balancer there with its --region",
    "certificate": "show a certificate for this balancer's name or host (--peer-tls-cert)",
    "version": "run the same version on both",
}
"""By the reason for which a handshake is refused."""

FIXES_OF_LISTS = {
    "dns": "correct --peers-dns, or its SRV records",
    "kubernetes": "see the API server, the rights of the account, and the Service's port sync",
}
"""By the kind of source; a file is a fault of the configuration."""


async def look(settings: Settings, report: Report) -> None:
    """Greets each peer that the settings list."""
    mesh = settings.mesh
    if mesh.peer_key_file is None or mesh.peer_listen is None:
        return
    try:
        keys, tls = read_keys(mesh.peer_key_file), MeshTls(mesh)
    except ConfigError:
        return  # a fault of the configuration, which is in the report
    if keys is None:
        return
    urls = await _listed(settings, report)
    forward = str(mesh.advertise) if mesh.advertise is not None else url_of(tls.scheme, mesh.peer_listen)
    client = new_client()

    async def one(url: PeerUrl, own: Report) -> None:
        try:
            greeting = await greet(
                client, url, keys, tls.client, name=mesh.balancer, region=mesh.region, forward=forward
            )
        except Closed as closed:
            _closed(url, str(closed), own)
        except Refused as refused:
            fix = FIXES.get(refused.reason, "compare the settings of both")
            own.fault(AREA, f"the handshake fails here: {refused.reason}", fix, url.name)
        else:
            await _greeted(url, greeting, own)

    try:
        await in_order(report, one, urls)
    finally:
        await client.close()


async def _listed(settings: Settings, report: Report) -> Sequence[PeerUrl]:
    """The peers of all sources; what is wrong with a source is a fault."""
    found: list[PeerUrl] = []

    def take(urls: Sequence[PeerUrl]) -> None:
        found[:] = urls

    listed, tasks = PeerList(settings, take), TaskGroup()
    try:
        await listed.start(tasks)
    except ConfigError as error:
        said = {finding.text for finding in report.findings}
        for fault in error.faults:
            if fault not in said:  # else it was a fault of the configuration
                report.fault("peers", fault, "correct the source of peers")
        return found or settings.mesh.peer
    finally:
        await tasks.stop()
    for name, (_, why) in listed.sources().items():
        if why is not None:
            fix = FIXES_OF_LISTS.get(name.partition(" ")[0], "correct the file")
            report.fault("peers", why, fix, name)
        elif not found:
            report.warn("peers", "no other balancer is listed", "nothing, if this is the first one", name)
    return found or settings.mesh.peer


def _closed(url: PeerUrl, why: str, report: Report) -> None:
    reason = why.removeprefix("refused by the peer: ")
    if reason == "incarnation":
        report.ok(AREA, "reached; a balancer of this name is connected to it now", url.name)
    elif reason != why:
        fix = FIXES.get(reason, "compare the settings of both")
        report.fault(AREA, f"it refuses the handshake: {reason}", fix, url.name)
    else:
        report.fault(AREA, f"{url.sync}: {why}", "start it, or correct its address or its TLS", url.name)


async def _greeted(url: PeerUrl, greeting: Greeting, report: Report) -> None:
    hello = greeting.hello
    ahead_s = hello.unix_ms / 1000 - time.time()
    if abs(ahead_s) > SKEW_S:
        where = "ahead of" if ahead_s > 0 else "behind"
        report.warn(AREA, f"its clock is {abs(ahead_s):.0f} s {where} ours", "run NTP on both", url.name)
    try:
        address = (await resolve_peer(0, url, hello, hello.region)).address
    except (ValueError, OSError) as error:
        report.fault(AREA, f"its forward address is no good: {error}", "see its --advertise", url.name)
        return
    if not address.unix and not await reachable(address):
        where = f"{address.host} port {address.port}"
        report.fault(AREA, f"nothing accepts forwards at {where}", "see its --peer-listen", url.name)
        return
    report.ok(
        AREA,
        f"keys match; region {hello.region}, round trip {greeting.rtt_ns / 1e6:.1f} ms, forwards reach it",
        url.name,
    )
