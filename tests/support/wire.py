"""One balancer and its peers' connections, without sockets: the test says what peers say."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import cast

from skylb._core import Engine
from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.localrouter import LocalRouter
from skylb.mesh.frames import (
    FRAME_BYTES_MAX,
    MAC_BYTES,
    VERSION,
    Hello,
    Kind,
    News,
    Ping,
    encode,
    new_nonce,
)
from skylb.mesh.link import State
from skylb.mesh.peers import Peers
from skylb.mesh.signing import Identity, Key, Keys
from skylb.mesh.sync import Closed, Connection
from skylb.mesh.tls import MeshTls
from skylb.options import load
from skylb.settings.mesh import MeshSettings

ROOM_BYTES = FRAME_BYTES_MAX - MAC_BYTES - 20
"""For a payload, whatever its kind and number."""

Frame = tuple[int, bytes]


class Wire:
    """A connection whose peer is the test: it says what it is given, and ends when it has heard enough."""

    def __init__(self, hello: Hello, frames: Iterable[Frame], kinds: set[int]) -> None:
        self.hello = hello
        self.kinds = kinds
        self.sent: list[Frame] = []
        self.enough: Callable[[list[Frame]], bool] = lambda _: True
        self._frames = deque(frames)
        self._heard = asyncio.Event()

    async def receive(self) -> Frame:
        """As `Connection.receive`, the bytes being the peer's own."""
        await asyncio.sleep(0)
        if not self._frames:
            while not self.enough(self.sent):
                self._heard.clear()
                await self._heard.wait()
            raise Closed("closed")
        kind, payload = self._frames.popleft()
        self.kinds |= {kind} & set(Kind)
        return kind, payload

    async def send(self, kind: int, payload: bytes = b"") -> None:
        """As `Connection.send`, which can send no more than fits."""
        assert len(payload) <= ROOM_BYTES
        self.sent.append((kind, payload))
        self._heard.set()

    async def close(self, reason: str = "") -> None:
        """As `Connection.close`."""


@cache
def _tls(mesh: MeshSettings) -> MeshTls:
    """Costly to make."""
    return MeshTls(mesh)


class World:
    """The balancer us in the region us, with the peers eu and asia; a failure ends the test."""

    def __init__(self, settings: Settings) -> None:
        self.router = LocalRouter(Engine(settings.engine.model_dump_json().encode(), bytes(32), 1))
        identity = Identity("us", 1)
        self.router.set_self(identity, "us")
        keys, tls = Keys([Key("k1", bytes(16))]), _tls(settings.mesh)
        self.peers = Peers(settings, self.router, identity, keys, tls, lambda _: None, self._failed)
        self.runs = 1

    def _failed(self, name: str, error: BaseException) -> None:
        raise AssertionError(f"{name} would have ended the process") from error

    async def hears(
        self,
        name: str,
        frames: Iterable[Frame],
        kinds: Iterable[int] = Kind,
        enough: Callable[[list[Frame]], bool] = lambda _: True,
    ) -> Wire:
        """One connection of a peer, to its end."""
        self.runs += 1
        url = self.peers.links[name].url
        unix_ms, forward = time.time_ns() // 1_000_000, str(url.sync)
        said = Hello(VERSION, name, url.region or name, self.runs, "k1", new_nonce(), unix_ms, forward)
        wire = Wire(said, frames, set(kinds))
        wire.enough = enough
        await self.peers._serve(self.peers.links[name], cast(Connection, wire))
        self.peers.judge(monotonic_ns())
        return wire

    async def is_as_good_as_new(self) -> None:
        """Both peers are heard, news, clocks and orders of theirs count, and ours fit on the wire."""
        for name in ("eu", "asia"):
            link = self.peers.links[name]
            ping = encode(Ping(monotonic_ns(), 5))
            news = encode(News(["us"], {name: (self.runs, 1, ["us"])}, ["http://10.0.0.1:80"]))
            wire = await self.hears(name, [(Kind.PING, ping), (Kind.NEWS, news)])
            assert (Kind.PONG, ping) in wire.sent
            assert (link.fault, link.state) == ("closed", State.UNREACHABLE)
            assert link.news.replicas == ["http://10.0.0.1:80"]
            assert self.peers.heirs.known()[name][2] == ["us"]
        for evacuating in (True, False):
            self.peers.evacuate("us", evacuating=evacuating)
            assert self.peers.evacuating is evacuating


def mesh_settings(directory: Path) -> Settings:
    """Of the balancer us, whose peers are eu and asia."""
    path = directory / "keys"
    path.write_text("k1:MDEyMzQ1Njc4OWFiY2RlZg==\n")
    flags = {
        "replica": ["http://10.0.0.9:1"],
        "region": ["us"],
        "peer_key_file": [str(path)],
        "peer_listen": ["127.0.0.1:0"],
        "sync_listen": ["127.0.0.1:0"],
        "peer": ["eu@us=http://10.0.0.2:1", "asia@us=http://10.0.0.3:1"],
    }
    return load(Settings, flags=flags).settings
