"""The list of peers: flags, a file that is read again when it changes, DNS and Kubernetes, taken together."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from skylb.addresses import PeerUrl, parse_peer
from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.discovery.file import PEERS, ListFile, read
from skylb.discovery.kubernetes.api import Api
from skylb.discovery.kubernetes.peers import peers_of, selector_of
from skylb.discovery.kubernetes.slices import Slice
from skylb.discovery.kubernetes.watch import Place, Watcher
from skylb.errors import ConfigError
from skylb.settings.kubernetes import read_service
from skylb.tasks import TaskGroup, attempt

log = logging.getLogger("skylb.mesh.peers")

LOOKUP_S = 5.0
"""For one look at DNS. At start no longer is waited for it, nor for Kubernetes."""

Lookup = Callable[[str], Awaitable[list[tuple[str, int]]]]
"""Targets and ports of a name's SRV records; raises `OSError`."""


class PeerList:
    """Keeps the mesh's peers as the sources want them.

    A list that contradicts itself, or cannot be had, changes nothing: the last good one stays, and one
    line in the log says why. At start it is an error, for DNS and Kubernetes only a line.

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
        self._found: dict[str, tuple[PeerUrl, ...]] = {}
        """By source, those that nobody wrote down."""
        self._failures: dict[str, str] = {}
        self._refused_ns: dict[str, int] = {}
        """When a source first gave the list that is refused now."""
        self._dns_seen_ns = monotonic_ns()
        self._config = settings.kubernetes.config
        self._watcher: Watcher | None = None
        self._asked = asyncio.Event()
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
        if self._mesh.peer_kubernetes_service is not None:
            api = Api(self._config)
            await api.open()
            self._watcher = self._watcher_of(api, self._mesh.peer_kubernetes_service)
            tasks.start(_follow(api, self._watcher), name="follow peers")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOKUP_S):
                    await self._asked.wait()

    def sources(self) -> dict[str, tuple[int, str | None]]:
        """What the list is made of besides flags.

        By name: when it was last known to be up to date, on the monotonic clock, and what is wrong with it.
        """
        found: dict[str, tuple[int, str | None]] = {}
        if self._file is not None:
            path = str(self._mesh.peers_file)
            found[path] = self._file.seen_ns, self._file.failure
        if (name := self._mesh.peers_dns) is not None:
            source = _of_dns(name)
            found[f"dns {name}"] = self._seen_ns(source, self._dns_seen_ns), self._failures.get(source)
        if (service := self._mesh.peer_kubernetes_service) is not None and self._watcher is not None:
            source = _of_service(service)
            failure = self._watcher.trouble() or self._failures.get(source)
            found[f"kubernetes {service}"] = self._seen_ns(source, self._watcher.seen_ns), failure
        return found

    def _seen_ns(self, source: str, asked_ns: int) -> int:
        """When the list in use was last known to be up to date; its source last answered at ``asked_ns``."""
        return min(asked_ns, self._refused_ns.get(source, asked_ns))

    async def renew(self) -> None:
        """Looks at the file at once, and asks Kubernetes at once if it is away."""
        if self._file is not None:
            await self._file.look()
        if self._watcher is not None:
            self._watcher.look()

    async def _run(self, name: str) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await attempt(self.look_up(name), name=f"asking DNS for {name}")

    async def look_up(self, name: str) -> None:
        """Asks DNS for peers."""
        source = _of_dns(name)
        try:
            async with asyncio.timeout(LOOKUP_S):
                targets = await self._lookup(name)
            peers = [_peer(self._scheme, host, port) for host, port in sorted(set(targets))]
        except TimeoutError:
            self._tell(source, f"{source}: no answer in {LOOKUP_S:g} s")
        except (OSError, ValueError) as error:
            self._tell(source, f"{source}: {error}")
        else:
            self._dns_seen_ns = monotonic_ns()
            self._find(source, peers)

    def _watcher_of(self, api: Api, service: str) -> Watcher:
        name, namespace = read_service(service)
        place = Place("peers", namespace or api.namespace, selector_of(name))

        def take(slices: Sequence[Slice]) -> None:
            faults: dict[str, None] = {}
            tls = self._scheme == "https"
            peers = peers_of(slices, tls=tls, region=self._mesh.region, faults=faults)
            self._find(_of_service(service), peers, next(iter(faults), None))

        return Watcher(api, place, take, self._asked)

    def _find(self, source: str, peers: Sequence[PeerUrl], fault: str | None = None) -> None:
        """Takes the peers that a source has now, but for this balancer and those that flags or file name.

        ``fault`` is why there may be more of them.
        """
        known = {self._mesh.balancer, *(url.name for url in (*self._mesh.peer, *self._listed))}
        found = tuple(url for url in peers if url.name not in known)
        others = [url for other, urls in self._found.items() if other != source for url in urls]
        try:
            self._check(source, [*self._mesh.peer, *self._listed, *others, *found])
        except ConfigError as error:
            self._refused_ns.setdefault(source, monotonic_ns())
            self._tell(source, error.faults[0])
            return
        self._refused_ns.pop(source, None)
        self._tell(source, f"{source}: {fault}" if fault is not None else None)
        self._found[source] = found
        self._publish()

    def _list(self, urls: Sequence[PeerUrl]) -> None:
        self._check(str(self._mesh.peers_file), [*self._mesh.peer, *urls])
        self._listed = tuple(urls)
        names = {url.name for url in urls}
        self._found = {
            source: tuple(url for url in urls if url.name not in names)
            for source, urls in self._found.items()
        }
        self._publish()

    def _check(self, source: str, urls: Sequence[PeerUrl]) -> None:
        faults = [f"{source}: {sentence}" for _, sentence in self._mesh.peer_conflicts(urls)]
        if faults:
            raise ConfigError(faults)

    def _publish(self) -> None:
        found = [url for urls in self._found.values() for url in urls]
        self._set_urls([*self._mesh.peer, *self._listed, *found])

    def _tell(self, source: str, failure: str | None) -> None:
        if failure == self._failures.get(source):
            return
        if failure is None:
            del self._failures[source]
            log.info("%s: good again", source)
        else:
            self._failures[source] = failure
            log.error("%s; the last good list stays", failure)


def _of_dns(name: str) -> str:
    """What the log calls a source."""
    return f"SRV records of {name}"


def _of_service(service: str) -> str:
    return f"Service {service}"


async def _follow(api: Api, watcher: Watcher) -> None:
    try:
        await watcher.run()
    finally:
        await api.close()


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
