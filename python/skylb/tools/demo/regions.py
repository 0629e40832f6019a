"""The demo's regions: their replicas, their balancers, and the sea between them."""

import asyncio
import base64
import re
import secrets
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import msgspec

from skylb.addresses import parse_listen, parse_replica
from skylb.tools.demo.children import Child, Children
from skylb.tools.demo.settings import DemoSettings
from skylb.tools.wan import tell
from skylb.tools.wan.command import Answer
from skylb.tools.wan.link import LinkState
from skylb.types import Address, Replica

_ADDRESS = re.compile(r"^\s*(clients|admin)\s+(http://[^\s]+)")
_PORT = re.compile(r"^(\w+)-(\w+) (127\.0\.0\.1:\d+) -> unix:\S+/(\w+)\.sock")

DOORS = ("clients", "sync", "forwards")
"""What a balancer listens for, and the sea leads to."""

FIRST_ENTRANCE = 1000
"""Ids of places that the load is sent to later begin here; those of its settings count from 0."""

ANY_PORT = "127.0.0.1:0"


@dataclass(slots=True)
class ReplicaProcess:
    """One mock replica; its URL stays when it is killed and started again."""

    name: str
    url: str = ""
    child: Child | None = None


@dataclass(slots=True)
class Region:
    """A region's processes and where they answer."""

    name: str
    replicas: list[ReplicaProcess]
    clients: str = ""
    admin: str = ""
    balancer: Child | None = None
    evacuating: bool = False
    sea: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where this region finds another one's door: by region and door, as ``HOST:PORT``."""


class World:
    """All regions.

    Args:
        settings: of the demo.
        children: keeps the processes.
        directory: for sockets and the secret; private to this user.
    """

    def __init__(self, settings: DemoSettings, children: Children, directory: Path) -> None:
        self._settings = settings
        self._children = children
        self._directory = directory
        self._control = ""
        self.regions: dict[str, Region] = {
            name: Region(
                name, [ReplicaProcess(f"{name}-{number}") for number in range(1, settings.replicas + 1)]
            )
            for name in settings.regions
        }
        self.links: list[LinkState] = []
        self.policy: str = settings.policy
        """Of all balancers, those that start later too."""
        self.share = True
        """Whether the regions forward to each other."""
        self.continuing = False
        """Whether streams go on at another replica."""

    async def start(self) -> None:
        """Starts everything.

        Raises:
            DemoError: a process ended or did not get ready.
        """
        key = self._directory / "key"
        key.touch(mode=0o600)
        key.write_text(f"demo:{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
        replicas = [replica for region in self.regions.values() for replica in region.replicas]
        starts = [self.start_replica(replica) for replica in replicas]
        if len(self.regions) > 1:
            starts.append(self._start_sea())
        await asyncio.gather(*starts)
        await asyncio.gather(*(self.start_balancer(region) for region in self.regions.values()))

    # ------------------------------------------------------------------------------- replicas

    async def start_replica(self, replica: ReplicaProcess) -> None:
        """Starts a replica, where it was before if it was."""
        settings = self._settings
        found: list[str] = []

        def ready(line: str) -> bool:
            if line.startswith("http://"):
                found.append(line.strip())
            return line.strip() == "ready"

        listen = parse_replica(replica.url).authority if replica.url else ANY_PORT
        arguments = ["mock", "--listen", listen, "--profile", "l4-8b"]
        arguments += ["--time-scale", str(settings.time_scale), "--max-num-seqs", str(settings.sequences)]
        replica.child = await self._children.start(f"skylb mock {replica.name}", arguments, ready)
        replica.url = found[0]

    def replica(self, name: str) -> ReplicaProcess:
        """A replica by its name.

        Raises:
            KeyError: there is none.
        """
        return {r.name: r for region in self.regions.values() for r in region.replicas}[name]

    # ------------------------------------------------------------------------------ balancers

    def _door(self, region: str, door: str) -> str:
        return f"unix:{self._directory / f'{region}_{door}.sock'}"

    async def start_balancer(self, region: Region) -> None:
        """Starts a region's balancer, where it was before if it was."""
        urls: dict[str, str] = {}

        def ready(line: str) -> bool:
            if match := _ADDRESS.match(line):
                urls[match[1]] = match[2]
            return len(urls) == 2

        def listen(url: str) -> str:
            return parse_replica(url).authority if url else ANY_PORT

        arguments = ["serve", "--listen", listen(region.clients), "--admin", listen(region.admin)]
        arguments += ["--policy", self.policy, "--no-access-log", "--log-level", "error"]
        arguments += ["--drain-timeout-s", "1"]
        if self.continuing:
            arguments.append("--continue-streams")
        for replica in region.replicas:
            arguments += ["--replica", replica.url]
        if len(self.regions) > 1:
            arguments += self._mesh(region)
        region.balancer = await self._children.start(f"skylb serve {region.name}", arguments, ready)
        region.clients, region.admin = urls["clients"], urls["admin"]

    def _mesh(self, region: Region) -> list[str]:
        """Doors for the other regions, and where to find theirs."""
        arguments = ["--listen", self._door(region.name, "clients")]
        arguments += ["--sync-listen", self._door(region.name, "sync")]
        arguments += ["--peer-listen", self._door(region.name, "forwards")]
        arguments += ["--region", region.name, "--peer-key-file", str(self._directory / "key")]
        arguments += ["--adopt-from", "127.0.0.1"]
        for other in self.regions:
            if other != region.name:
                sync, forwards = (f"http://{region.sea[other, door]}" for door in ("sync", "forwards"))
                arguments += ["--peer", f"{other}={sync},{forwards}"]
        return arguments

    def entrance(self, users: str, balancer: str) -> Replica:
        """Where users of one region reach a region's balancer."""
        at = self.regions[users]
        url = parse_replica(at.clients if users == balancer else f"http://{at.sea[balancer, 'clients']}")
        names = list(self.regions)
        number = FIRST_ENTRANCE + names.index(users) * len(names) + names.index(balancer)
        return Replica(number, str(url), Address(url.host, url.port), url.authority)

    # ------------------------------------------------------------------------------- the sea

    async def _start_sea(self) -> None:
        arguments = ["wan", "--profile", "us-eu-asia", "--control", f"unix:{self._directory / 'wan.sock'}"]
        for origin, target in permutations(self.regions, 2):
            for door in DOORS:
                arguments += ["--link", f"{origin}-{target}={ANY_PORT},{self._door(target, door)}"]

        def ready(line: str) -> bool:
            if match := _PORT.match(line):
                origin, target, address, file = match.groups()
                self.regions[origin].sea[target, file.removeprefix(f"{target}_")] = address
            if line.startswith("control "):
                self._control = line.removeprefix("control ").strip()
            return line.strip() == "ready"

        await self._children.start("skylb wan", arguments, ready)
        await self.weather()

    async def weather(self, **command: str) -> None:
        """Tells the sea, and reads how it is."""
        if not self._control:
            return
        lines = (msgspec.json.encode(command).decode(), "{}")[not command :]
        answers = await tell(parse_listen(self._control), lines)
        self.links = msgspec.json.decode(answers[-1], type=Answer).links

    def rtt_s(self, one: str, other: str) -> float:
        """Round trip between two regions; 0 within one."""
        found = (link.shape.rtt_s for link in self.links if set(link.name.split("-")) == {one, other})
        return next(found, 0.0)

    def nearest(self, users: str) -> str | None:
        """Where DNS would send a region's users: the nearest balancer that runs and is not evacuated."""
        able = [region for region in self.regions.values() if region.balancer is not None]
        able = [region for region in able if not region.evacuating] or able
        return min((region.name for region in able), key=lambda name: self.rtt_s(users, name), default=None)
