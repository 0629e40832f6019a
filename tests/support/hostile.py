"""A balancer to misbehave against: its only peers are played by the test, with the product's handshake."""

import asyncio
import hashlib
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from skylb._core import HeadParser
from skylb.mesh.frames import VERSION, Hello, Kind, Ping, encode, new_nonce
from skylb.mesh.signing import HEADER, Claims, Identity, Key, Keys, parse_keys, sign
from skylb.mesh.sync import Connection, Meter, dial, shake
from tests.support.processes import PATIENCE_S, Balancer, balancer, free_port, mocks
from tests.support.regions import key_line

CANARY = "canary-3f9a"
"""In everything hostile that could end up in a log."""

TLS = ssl.create_default_context()
"""For no ``https://`` here; costly to make."""

WRONG = Keys([Key("k1", b"not the secret at all")])


@dataclass
class Victim:
    """The balancer ``eu``, whose only peer is played by the test."""

    front: Balancer
    keys: Keys
    sync_port: int
    forward_port: int
    dialled_port: int
    """Where it dials the peer ``zoe``, which is not there."""

    def post(self, path: str) -> None:
        """A verb of an operator; errors raise."""
        request = urllib.request.Request(f"{self.front.admin}{path}", method="POST", data=b"")
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()

    def passed_over(self) -> float:
        """How many messages of unknown kinds of the peer ``us`` it has passed over."""
        page = self.front.metrics()
        return float(page.partition('skylb_peer_passed_over_total{peer="us"} ')[2].partition("\n")[0])

    def refused(self, reason: str, peer: str = "unknown") -> float:
        """How many messages or connections it has refused for this reason."""
        wanted = f'skylb_peer_refused_total{{peer="{peer}",reason="{reason}"}} '
        page = self.front.metrics().splitlines()
        return sum(float(line.removeprefix(wanted)) for line in page if line.startswith(wanted))

    def turned_away(self, reason: str) -> float:
        """How many forwards it has not let in for this reason."""
        wanted = f'skylb_forwards_turned_away_total{{reason="{reason}"}} '
        page = self.front.metrics().splitlines()
        return sum(float(line.removeprefix(wanted)) for line in page if line.startswith(wanted))


@contextmanager
def attacked(directory: Path, *more: str) -> Iterator[Victim]:
    """The victim, with ``more`` arguments; what it has said and logged by the end holds nothing hostile."""
    path = directory / "keys"
    path.write_text(key_line("k1"))
    sync, forward, nobody, dialled = (free_port() for _ in range(4))
    arguments = ["--region", "eu", "--peer-key-file", str(path), "--peer", f"us=http://127.0.0.1:{nobody}"]
    arguments += ["--peer", f"asia-1@asia=http://127.0.0.1:{free_port()}"]
    arguments += ["--peer", f"zoe=http://127.0.0.1:{dialled}"]
    arguments += ["--adopt-from", "10.77.0.0/16", "--adopt-from", "*.example.net"]
    arguments += ["--sync-listen", f"127.0.0.1:{sync}", "--peer-listen", f"127.0.0.1:{forward}"]
    with mocks(1) as urls, balancer(*urls, arguments=[*arguments, *more]) as front:
        found = Victim(front, parse_keys(path.read_text()), sync, forward, dialled)
        yield found
        said = front.child.text() + front.access_log.read_text() + front.metrics()
        assert CANARY not in said
        assert "Traceback" not in said


def hello(**changed: object) -> Hello:
    incarnation = time.time_ns()
    unix_ms = incarnation // 1_000_000
    said = Hello(VERSION, "us", "us", incarnation, "k1", new_nonce(), unix_ms, "http://127.0.0.1:9")
    return msgspec.structs.replace(said, **changed)


@asynccontextmanager
async def socket_to(victim: Victim) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket on which nothing has been said."""
    async with aiohttp.ClientSession() as client:
        found = await dial(client, f"http://127.0.0.1:{victim.sync_port}", TLS)
        try:
            yield found
        finally:
            await found.close()


@asynccontextmanager
async def peer(victim: Victim, ours: Hello | None = None) -> AsyncIterator[Connection]:
    """A connection of the genuine peer."""
    async with socket_to(victim) as found:
        yield await shake(found, victim.keys, ours or hello(), lambda _: Meter(), dialled=True)


async def why_closed(found: aiohttp.ClientWebSocketResponse) -> str:
    """What the balancer says when it closes."""
    async with asyncio.timeout(5):
        while True:
            message = await found.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.extra or ""
            if message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}:
                return ""


def peer_ns() -> int:
    """The peer's monotonic clock: of a machine that has run for longer than any test looks back, as this one
    may not have."""
    return time.monotonic_ns() + 10**15


async def clock_known(connection: Connection) -> None:
    """Tells the balancer the peer's clock, and waits until it has heard."""
    await connection.send(Kind.PING, ping := encode(Ping(peer_ns(), 0)))
    async with asyncio.timeout(5):
        while (await connection.receive()) != (Kind.PONG, ping):
            pass


BODY = b'{"model":"mock","messages":[{"role":"user","content":"%s"}],"max_tokens":2}' % CANARY.encode()
CHAT = "/v1/chat/completions"
HONEST = Claims("us", 1, 1, 20_000)


FIELDS = (
    "Host: eu",
    "Content-Type: application/json",
    "Authorization: Bearer sk-1",
    "X-Session-Id: s-1",
    "X-Forwarded-For: 192.0.2.1",
    f"Content-Length: {len(BODY)}",
)


def head(fields: Sequence[str] = FIELDS, path: str = CHAT) -> str:
    """A forward's head without its end."""
    return "\r\n".join([f"POST {path} HTTP/1.1", *fields, ""])


def forward(
    header: str | None, body: bytes = BODY, path: str = CHAT, fields: Sequence[str] = FIELDS
) -> bytes:
    """The bytes of a forwarded request."""
    signature = f"{HEADER}: {header}\r\n" if header is not None else ""
    return f"{head(fields, path)}{signature}\r\n".encode() + body


async def as_the_peer(victim: Victim, talk: Callable[[Identity], Awaitable[None]]) -> None:
    """Talks while the balancer knows the peer's clock."""
    async with peer(victim) as connection:
        await clock_known(connection)
        await talk(Identity("eu", connection.hello.incarnation))


def signed(to: Identity, *, claims: Claims = HONEST, key: Key, ahead_s: float = 0.0) -> str:
    now_ns = peer_ns() + int(ahead_s * 1e9)
    sent = HeadParser().parse(f"{head()}\r\n".encode())
    assert sent is not None
    return sign(
        key,
        to=to,
        method="POST",
        head=sent.signed(),
        body_digest=hashlib.sha256(BODY).hexdigest(),
        claims=claims,
        now_ns=now_ns,
    )
