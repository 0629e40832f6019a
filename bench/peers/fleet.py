"""Everything that runs during one measurement: mock replicas, links between regions, proxies."""

import json
import secrets
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.cases import PROFILE, Case, Entry, Layout
from bench.peers.rivals import MODEL, Rival, Site
from bench.processes import Process, Proxy, bound, free_port, ready_lines, wait_ready
from skylb.tools.synthetic import Answer
from skylb.tools.wan.shape import PROFILES

WAN_PROFILE = "us-eu-asia"
PEERS_READY_S = 30.0
MOCK_KEEP_ALIVE_S = 600.0
"""No connection is closed for being idle: how long each router keeps one is not what is compared."""


@dataclass
class Fleet:
    """What a load needs, and what can be asked afterwards."""

    replicas: list[str] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    """Where the clients of each region connect."""
    proxies: list[Proxy] = field(default_factory=list)
    others: list[Process] = field(default_factory=list)
    """Replicas and links."""


class Links:
    """Ports that lead from one region to an address in another, all in one ``skylb wan``."""

    def __init__(self) -> None:
        self._flags: list[str] = []
        self._ends: set[frozenset[str]] = set()

    def through(self, origin: str, far: str, port: int) -> int:
        """A port at ``origin`` that leads to ``port`` at ``far``."""
        if origin == far:
            return port
        here = free_port()
        self._ends.add(frozenset((origin, far)))
        self._flags += ["--link", f"{origin}-{far}=127.0.0.1:{here},127.0.0.1:{port}"]
        return here

    def command(self, scale: float, script: Path) -> list[str]:
        """The relay's command line; nothing if no link is needed."""
        if not self._flags:
            return []
        script.write_text(wan_script(self._ends, scale))
        command = [sys.executable, "-m", "skylb", "wan", "--profile", WAN_PROFILE]
        return [*command, "--script", str(script), *self._flags]


def wan_script(links: Collection[frozenset[str]], scale: float) -> str:
    """Commands that give each of these links the profile's figures in faster time."""
    lines = []
    for ends in sorted(links, key=sorted):
        shape = PROFILES[WAN_PROFILE][ends]
        command = {
            "link": "-".join(sorted(ends)),
            "rtt_s": shape.rtt_s * scale,
            "jitter_s": shape.jitter_s * scale,
            "bytes_per_s": round(shape.bytes_per_s / scale),
        }
        lines.append(json.dumps(command) + "\n")
    return "".join(lines)


def first_body() -> bytes:
    """A request of two tokens, to see whether a proxy answers."""
    content = "ready" + Answer(2, 16).directive()
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 2,
        "stream": True,
    }
    return json.dumps(body).encode()


@contextmanager
def fleet(entry: Entry, rest: frozenset[int], scratch: Path) -> Iterator[Fleet]:
    """Starts all of it, ready; ends all of it.

    Args:
        entry: the row.
        rest: CPUs of everything but the proxies.
        scratch: a directory of its own.

    Raises:
        RuntimeError: something is not installed or did not start.
    """
    with ExitStack() as stack:

        def start(process: Process) -> Process:
            stack.callback(process.stop)
            process.start()
            return process

        found, case = Fleet(), entry.case
        count = sum(case.replicas.values())
        command = [sys.executable, "-m", "skylb", "mock", "--listen", "127.0.0.1:0", "--count", str(count)]
        command += ["--model", MODEL, "--profile", PROFILE, "--time-scale", str(case.scale)]
        command += ["--keep-alive-s", str(MOCK_KEEP_ALIVE_S)]
        mocks = start(Process("mock replicas", command, rest, scratch / "mock.log"))
        found.others.append(mocks)
        found.replicas = bound(mocks, count)
        links = Links()
        build = BUILDERS[entry.layout]
        found.proxies, found.targets = build(entry.rival, case, found.replicas, links, scratch)
        relay = links.command(case.scale, scratch / "wan.script")
        if relay:
            found.others.append(start(Process("skylb wan", relay, rest, scratch / "wan.log")))
            ready_lines(found.others[-1])
        for proxy in found.proxies:
            start(proxy.process)
        for proxy in found.proxies:
            wait_ready(proxy, first_body(), entry.rival.ready_s)
        if entry.layout == "peers":
            _acquainted(found.proxies)
        yield found


Built = tuple[list[Proxy], dict[str, str]]
Builder = Callable[[Rival, Case, list[str], Links, Path], Built]


def by_region(case: Case, urls: list[str]) -> dict[str, list[str]]:
    """Each region's replicas."""
    rest = iter(urls)
    return {region: [next(rest) for _ in range(count)] for region, count in case.replicas.items()}


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _router(rival: Rival, case: Case, urls: list[str], links: Links, scratch: Path) -> Built:
    """One proxy in the first region, before all replicas; other regions' users reach it over a link."""
    home = case.regions[0]
    upstreams = [
        f"http://127.0.0.1:{links.through(home, region, _port(url))}"
        for region, own in by_region(case, urls).items()
        for url in own
    ]
    proxy = rival.proxy(Site(home, upstreams, free_port(), scratch, case.scale))
    targets = {
        region: f"http://127.0.0.1:{links.through(region, home, proxy.port)}" for region in case.regions
    }
    return [proxy], targets


def _local(rival: Rival, case: Case, urls: list[str], links: Links, scratch: Path) -> Built:
    """One proxy in each region, before that region's replicas."""
    del links
    proxies = {
        region: rival.proxy(Site(region, own, free_port(), scratch, case.scale))
        for region, own in by_region(case, urls).items()
    }
    return list(proxies.values()), {region: proxy.url for region, proxy in proxies.items()}


def _all(rival: Rival, case: Case, urls: list[str], links: Links, scratch: Path) -> Built:
    """One proxy in each region, before the replicas of all; its own come first."""
    own = by_region(case, urls)
    proxies = {}
    for home in case.regions:
        upstreams = [
            f"http://127.0.0.1:{links.through(home, region, _port(url))}"
            for region in sorted(case.regions, key=lambda region: region != home)
            for url in own[region]
        ]
        site = Site(home, upstreams, free_port(), scratch, case.scale, near=len(own[home]))
        proxies[home] = rival.proxy(site)
    return list(proxies.values()), {region: proxy.url for region, proxy in proxies.items()}


def _peers(rival: Rival, case: Case, urls: list[str], links: Links, scratch: Path) -> Built:
    """A SkyLB in each region; each is the others' peer, over links."""
    key = scratch / "key"
    key.touch(mode=0o600)
    key.write_text(f"bench:{b64encode(secrets.token_bytes(32)).decode()}\n")
    ports = {region: (free_port(), free_port()) for region in case.regions}
    proxies = {}
    for region, own in by_region(case, urls).items():
        sync, forward = ports[region]
        extra = ["--region", region, "--peer-key-file", str(key)]
        extra += ["--sync-listen", f"127.0.0.1:{sync}", "--peer-listen", f"127.0.0.1:{forward}"]
        for other in case.regions:
            if other != region:
                through = [links.through(region, other, port) for port in ports[other]]
                extra += ["--peer", f"{other}=" + ",".join(f"http://127.0.0.1:{port}" for port in through)]
        proxies[region] = rival.proxy(Site(region, own, free_port(), scratch, case.scale), extra)
    return list(proxies.values()), {region: proxy.url for region, proxy in proxies.items()}


BUILDERS: dict[Layout, Builder] = {
    "one": _router,
    "global": _router,
    "local": _local,
    "all": _all,
    "peers": _peers,
}


def _acquainted(proxies: list[Proxy]) -> None:
    """Waits until every SkyLB knows each of its peers and how much room it has.

    Raises:
        RuntimeError: it does not.
    """
    deadline = time.monotonic() + PEERS_READY_S
    for proxy in proxies:
        command = proxy.process.command
        admin = command[command.index("--admin") + 1]
        while not all(row["state"] == "alive" and row["available"] for row in _peer_rows(admin)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"peers do not find each other\n{proxy.process.tail()}")
            time.sleep(0.1)


def _peer_rows(admin: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://{admin}/peers", timeout=5) as answer:
        rows: list[dict[str, Any]] = json.loads(answer.read())["peers"]
    return rows
