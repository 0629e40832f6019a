"""Several balancers as one service, over loopback: real processes, mock replicas, one shared secret."""

import base64
import json
import os
import socket
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.namespaces import Namespaces
from tests.support.processes import (
    PATIENCE_S,
    SKYLB,
    Balancer,
    Child,
    answers,
    eventually,
    free_port,
    get,
    start_mocks,
    told_ready,
)

SLOW = ("--profile", "l4-8b", "--time-scale", "0.2", "--max-num-seqs", "4")
"""Mock replicas that four requests fill each."""


def key_line(name: str) -> str:
    """A fresh secret as a line of a key file."""
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}\n"


@dataclass
class Region:
    """One balancer with replicas of its own."""

    name: str
    replicas: list[str]
    front: Balancer
    arguments: list[str]
    forward_port: int
    net: Namespaces | None = None

    @property
    def peers_file(self) -> Path:
        """Where its peers stand."""
        return Path(self.arguments[self.arguments.index("--peers-file") + 1])

    def inside(self) -> AbstractContextManager[None]:
        """Where its loopback addresses mean something."""
        return nullcontext() if self.net is None else self.net.entered(self.name)

    def peers(self) -> dict[str, dict[str, Any]]:
        """``/peers``, by name."""
        with self.inside():
            said = json.loads(get(f"{self.front.admin}/peers"))
        return {row["peer"]: row for row in said["peers"]}

    def verb(self, path: str) -> Any:
        """A POST to the admin listener."""
        request = urllib.request.Request(f"{self.front.admin}{path}", method="POST", data=b"")
        with self.inside(), urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())

    def serves(self) -> set[str]:
        """Names of the replicas that it may push to."""
        with self.inside():
            state = self.front.state()
        return {replica["name"] for replica in state["engine"]["replicas"] if replica["ready"]}

    def start(self) -> None:
        """Starts the balancer, again if it was killed."""
        self.front.child = Child(self.arguments)
        self.ready()

    def ready(self) -> None:
        """Waits until it would take requests."""
        with self.inside():
            self.front.child.require(
                lambda: answers(f"{self.front.admin}/ready"), timeout_s=20, what=f"{self.name} ready"
            )

    def kill(self) -> None:
        """SIGKILL to the balancer alone: its replicas live on."""
        self.front.child.kill()

    def mock_state(self, index: int = 0) -> dict[str, Any]:
        """``/mock/state`` of one replica."""
        state: dict[str, Any] = json.loads(get(f"{self.replicas[index]}/mock/state"))
        return state


class Wan:
    """``skylb wan`` between the regions: each pair's sync and forwards share one link.

    Args:
        ports: of each region: clients, admin, sync, forwards.
        directory: for its control socket.
        arguments: flags of ``skylb wan`` that say what the links are like.
    """

    def __init__(self, ports: dict[str, tuple[int, ...]], directory: Path, arguments: Sequence[str]) -> None:
        self._control = directory / "wan.sock"
        self.ports: dict[tuple[str, str], tuple[int, int]] = {}
        command = [*SKYLB, "wan", "--control", f"unix:{self._control}", *arguments]
        for one in ports:
            for other in ports.keys() - {one}:
                here = self.ports[one, other] = (free_port(), free_port())
                for port, target in zip(here, ports[other][2:], strict=True):
                    command += ["--link", f"{one}-{other}=127.0.0.1:{port},127.0.0.1:{target}"]
        self.child = Child(command)
        self.child.require(self._control.exists, timeout_s=20, what="skylb wan")

    def tell(self, **command: object) -> None:
        """One command, carried out before this returns."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self._control))
            link.sendall(json.dumps(command).encode() + b"\n")
            said = json.loads(link.makefile().readline())
        assert "error" not in said, said


@dataclass
class Regions:
    """All of them."""

    by_name: dict[str, Region] = field(default_factory=dict)
    wan: Wan | None = None
    net: Namespaces | None = None

    def __getitem__(self, name: str) -> Region:
        return self.by_name[name]

    def settled(self) -> None:
        """Waits until everybody hears everybody, and knows what there is room for."""
        for region in self.by_name.values():
            eventually(
                lambda region=region: all(
                    row["state"] == "alive" and row["available"] for row in region.peers().values()
                ),
                what=f"{region.name} hears its peers: {region.peers()}",
            )


def _command(
    own: str,
    ports: dict[str, tuple[int, ...]],
    wan: Wan | None,
    net: Namespaces | None,
    replicas: Sequence[str],
    keys: Path,
    log: Path,
    scheme: str,
    listed: bool,  # in a file rather than flags
    region: str | None,
) -> list[str]:
    port, admin, sync, forward = ports[own]
    address = {name: "127.0.0.1" if net is None else net.address(name) for name in ports}
    command = [] if net is None else net.command(own)
    command += [*SKYLB, "serve", "--name", own, "--peer-key-file", str(keys)]
    command += ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    command += ["--sync-listen", f"{address[own]}:{sync}", "--peer-listen", f"{address[own]}:{forward}"]
    command += ["--access-log", str(log), "--log-format", "json"]
    command += ["--adopt-from", "127.0.0.0/8", "--adopt-from", "10.77.0.0/16", "--trusted-peers", "*"]
    peers: list[str] = []
    for name in ports.keys() - {own}:
        sync, forward = ports[name][2:] if wan is None else wan.ports[own, name]
        urls = f"{scheme}://{address[name]}:{sync},{scheme}://{address[name]}:{forward}"
        peers.append(f"{name}@{region or name}={urls}")
    if listed:
        keys.with_name(f"{own}.peers").write_text("\n".join(peers))
        command += ["--peers-file", str(keys.with_name(f"{own}.peers"))]
    else:
        command += [part for peer in peers for part in ("--peer", peer)]
    for replica in replicas:
        command += ["--replica", replica]
    return command


def _inside(net: Namespaces | None, name: str) -> dict[str, Any]:
    """Where a region's mock replicas run and listen."""
    return {} if net is None else {"prefix": net.command(name), "listen": f"{net.address(name)}:0"}


@contextmanager
def regions(
    *names: str,
    replicas: int = 2,
    mock: Sequence[str] = SLOW,
    arguments: Sequence[str] = (),
    own: Mapping[str, Sequence[str]] | None = None,
    wan: Sequence[str] | None = None,
    engines: Mapping[str, Sequence[str]] | None = None,
    one_region: str | None = None,
    namespaces: bool = False,
    scheme: str = "http",
    listed: bool = False,
) -> Iterator[Regions]:
    """A balancer for each name, with so many replicas each, all of which hear each other.

    ``own`` are arguments of one balancer alone. With ``wan`` everything between them goes through
    ``skylb wan`` with these flags; with ``engines`` each has those replicas instead of mock ones; with
    ``one_region`` they are all in it; with ``namespaces`` each has a network of its own, and the caller's
    thread is in that of the first; ``scheme`` is how they reach each other; if ``listed``,
    their peers stand in a file, which `Region.peers_file` names.
    """
    found = Regions()
    told: dict[str, Callable[[], bool]] = {}
    ports = {name: tuple(free_port() for _ in range(4)) for name in names}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skylb-regions-")))
        keys = directory / "keys"
        keys.write_text(key_line("k1"))
        if namespaces:
            found.net = stack.enter_context(Namespaces.made(names))
            stack.enter_context(found.net.entered(names[0]))
        if wan is not None:
            found.wan = Wan(ports, directory, wan)
            stack.callback(found.wan.child.stop)
        try:
            for name in names:
                urls = list(engines[name]) if engines is not None else []
                if engines is None:
                    child, urls = start_mocks(replicas, *mock, **_inside(found.net, name))
                    stack.callback(child.stop)
                log = directory / f"{name}.jsonl"
                command = [
                    *_command(name, ports, found.wan, found.net, urls, keys, log, scheme, listed, one_region),
                    *arguments,
                ]
                command += ["--region", one_region or name, *(own or {}).get(name, ())]
                variables, told[name] = stack.enter_context(told_ready(command))
                front = Balancer(Child(command, environment=variables), ports[name][0], ports[name][1], log)
                region = Region(name, urls, front, command, ports[name][3], found.net)
                stack.callback(lambda region=region: region.front.child.stop())
                found.by_name[name] = region
            for name, region in found.by_name.items():
                region.ready()
                region.front.child.require(told[name], what=f"all processes of {name} ready")
            found.settled()
            yield found
        except BaseException:
            for region in found.by_name.values():
                print(f"--- {region.name}:\n{region.front.child.text()[-3000:]}")
            raise
