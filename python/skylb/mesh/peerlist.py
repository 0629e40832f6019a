"""The list of peers: flags, a file that is read again when it changes, and DNS, taken together."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from skylb.addresses import PeerUrl, parse_peer
from skylb.config import Settings
from skylb.discovery.file import PEERS, ListFile, read
from skylb.errors import ConfigError
from skylb.tasks import TaskGroup, attempt

log = logging.getLogger("skylb.mesh.peers")

LOOKUP_S = 5.0
"""For one look at DNS; at start no longer is waited for it."""

Lookup = Callable[[str], Awaitable[list[tuple[str, int]]]]
"""Targets and ports of a name's SRV records; raises `OSError`."""


class PeerList:
    """Keeps the mesh's peers as the sources want them.

    A list that contradicts itself, or cannot be had, changes nothing: the last good one stays, and one
    line in the log says why. At start it is an error, for DNS alone only a line.

    Args:
        settings: the sources.
        set_urls: takes all peers.
        lookup: asks DNS; the system's resolver unless given.
    """

    def __init__(
        self, settings: Settings, set_urls: Callable[[Sequence[PeerUrl]], None], lookup: Lookup | None = None
    ) -> None:
        self._mesh = settings.mesh
        self._interval_s = settings.discovery.dns_s
        # All balancers of one set of records are set up alike.
        self._scheme = "http" if settings.mesh.peer_tls_cert is None else "https"
        self._set_urls = set_urls
        self._lookup = lookup or lookup_srv
        self._listed: tuple[PeerUrl, ...] = ()
        self._found: tuple[PeerUrl, ...] = ()
        self._failure: str | None = None
        self._file: ListFile[PeerUrl] | None = None
        if self._mesh.peers_file is not None:
            self._file = ListFile(
                self._mesh.peers_file, self._list, interval_s=settings.discovery.file_s, listing=PEERS
            )

    async def start(self, tasks: TaskGroup) -> None:
        """Reads all sources, and looks at them from now on.

        Raises:
            ConfigError: the file cannot be understood, or contradicts the flags.
        """
        if self._file is not None:
            await self._file.load()
            tasks.start(self._file.run(), name="peers file")
        if self._mesh.peers_dns is not None:
            await attempt(self.look_up(self._mesh.peers_dns), name=f"asking DNS for {self._mesh.peers_dns}")
            tasks.start(self._run(self._mesh.peers_dns), name="look for peers")

    async def renew(self) -> None:
        """Looks at the file at once."""
        if self._file is not None:
            await self._file.look()

    async def _run(self, name: str) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await attempt(self.look_up(name), name=f"asking DNS for {name}")

    async def look_up(self, name: str) -> None:
        """Asks DNS for peers; those that flags or file name, and this balancer, are left out."""
        try:
            async with asyncio.timeout(LOOKUP_S):
                targets = await self._lookup(name)
            known = {self._mesh.balancer, *(url.name for url in (*self._mesh.peer, *self._listed))}
            peers = [_peer(self._scheme, host, port) for host, port in sorted(set(targets))]
            found = [url for url in peers if url.name not in known]
            self._check(f"SRV records of {name}", [*self._mesh.peer, *self._listed, *found])
        except TimeoutError:
            self._tell(f"SRV records of {name}: no answer in {LOOKUP_S:g} s")
        except (OSError, ValueError) as error:
            self._tell(f"SRV records of {name}: {error}")
        except ConfigError as error:
            self._tell(error.faults[0])
        else:
            self._tell(None)
            self._found = tuple(found)
            self._publish()

    def _list(self, urls: Sequence[PeerUrl]) -> None:
        self._check(str(self._mesh.peers_file), [*self._mesh.peer, *urls])
        self._listed = tuple(urls)
        names = {url.name for url in urls}
        self._found = tuple(url for url in self._found if url.name not in names)
        self._publish()

    def _check(self, source: str, urls: Sequence[PeerUrl]) -> None:
        faults = [f"{source}: {sentence}" for _, sentence in self._mesh.peer_conflicts(urls)]
        if faults:
            raise ConfigError(faults)

    def _publish(self) -> None:
        self._set_urls([*self._mesh.peer, *self._listed, *self._found])

    def _tell(self, failure: str | None) -> None:
        if failure != self._failure:
            self._failure = failure
            if failure is None:
                log.info("SRV records of %s are good again", self._mesh.peers_dns)
            else:
                log.error("%s; the last good list stays", failure)


def _peer(scheme: str, host: str, port: int) -> PeerUrl:
    """The balancer behind an SRV record; its name is the target's first label.

    Raises:
        ValueError: that is no name.
    """
    return parse_peer(f"{host.partition('.')[0]}={scheme}://{host}:{port}")


def check_peers_file(settings: Settings) -> None:
    """Reads the file, and starts nothing.

    Raises:
        ConfigError: it cannot be understood, or contradicts the flags.
    """
    path: Path | None = settings.mesh.peers_file
    if path is not None:
        _, urls = read(path, PEERS)
        listed = [*settings.mesh.peer, *urls]
        faults = [f"{path}: {sentence}" for _, sentence in settings.mesh.peer_conflicts(listed)]
        if faults:
            raise ConfigError(faults)


async def lookup_srv(name: str) -> list[tuple[str, int]]:
    """Targets and ports of a name's SRV records (RFC 2782), by the system's resolvers.

    Raises:
        OSError: there are none, or nobody answers.
    """
    import dns.asyncresolver  # noqa: PLC0415 - of an extra, which the settings have asked for
    import dns.exception  # noqa: PLC0415 - as above

    try:
        answer = await dns.asyncresolver.resolve(name, "SRV")
    except dns.exception.DNSException as error:
        raise OSError(str(error)) from error
    return [(record.target.to_text(omit_final_dot=True), record.port) for record in answer]
