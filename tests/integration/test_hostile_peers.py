"""Peer messages that are forged, replayed, skewed, cut or too long, against a real balancer's sockets.

The test plays the peer ``us`` with the product's own handshake and signatures, then misbehaves.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import msgspec
import pytest

from skylb.control.frames import FRAME_BYTES_MAX, VERSION, Hello, Kind, Ping, encode, new_nonce
from skylb.control.sync import PATH, RECEIVE_BURST_BYTES, Closed, Connection, Meter, dial, shake
from skylb.signing import HEADER, Claims, Identity, Key, Keys, parse_keys, sign
from tests.support.processes import Balancer, balancer, eventually, free_port, mocks
from tests.support.raw import Answer, ask, chat, request
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


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    path: Path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(key_line("k1"))
    sync, forward, nobody = free_port(), free_port(), free_port()
    arguments = ["--region", "eu", "--peer-key-file", str(path), "--peer", f"us=http://127.0.0.1:{nobody}"]
    arguments += ["--sync-listen", f"127.0.0.1:{sync}", "--peer-listen", f"127.0.0.1:{forward}"]
    with mocks(1) as urls, balancer(*urls, arguments=arguments) as front:
        found = Victim(front, parse_keys(path.read_text()), sync, forward)
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


# ------------------------------------------------------------------------------- handshake

HELLOS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "malformed"),
    "no message": (CANARY.encode(), "malformed"),
    "cut short": (encode(hello())[:-1], "malformed"),
    "name too long": (encode(hello(name=CANARY * 20)), "malformed"),
    "unknown name": (encode(hello(name=CANARY)), "name"),
    "its own name": (encode(hello(name="eu")), "name"),
    "unknown key": (encode(hello(key=CANARY)), "key"),
    "later version": (encode(hello(version=VERSION + 1)), "version"),
    "too large": (bytes(FRAME_BYTES_MAX + 1), "oversized"),
}


@pytest.mark.parametrize(("data", "reason"), HELLOS.values(), ids=HELLOS.keys())
def test_a_hello_that_may_not_come_in_is_refused_and_counted(
    victim: Victim, data: bytes, reason: str
) -> None:
    async def run() -> None:
        async with socket_to(victim) as found:
            await found.send_bytes(data)
            said = await why_closed(found)
            assert said in {reason, ""}  # the library itself closes on one that is too long

    before = victim.refused(reason)
    asyncio.run(run())
    eventually(lambda: victim.refused(reason) == before + 1, what=f"counted: {reason}")


def test_who_does_not_know_the_secret_is_not_let_in_and_peers_says_so(victim: Victim) -> None:
    async def run() -> None:
        async with socket_to(victim) as found:
            with pytest.raises(Closed, match="refused by the peer: signature"):
                await shake(found, WRONG, hello(), lambda _: Meter(), dialled=True)

    before = victim.refused("signature")
    asyncio.run(run())
    eventually(lambda: victim.refused("signature") == before + 1, what="counted")
    said = victim.front.state()["mesh"]
    assert said["peers"][0]["fault"] == "a connection in the name of us was not let in: signature"
    assert said["strangers_refused"]["signature"] == before + 1


def test_a_recorded_connection_cannot_be_played_again(victim: Victim) -> None:
    recorded: list[bytes] = []

    async def record() -> None:
        async with socket_to(victim) as found:
            send = found.send_bytes

            async def noted(data: bytes) -> None:
                recorded.append(data)
                await send(data)

            found.send_bytes = noted  # type: ignore[method-assign,assignment]  # listens in
            connection = await shake(found, victim.keys, hello(), lambda _: Meter(), dialled=True)
            await connection.send(Kind.BYE)

    async def play() -> str:
        async with socket_to(victim) as found:
            for data in recorded:
                await found.send_bytes(data)
            return await why_closed(found)

    asyncio.run(record())
    assert len(recorded) == 3
    assert asyncio.run(play()) == "signature"


def test_a_connection_that_says_nothing_is_given_up_and_the_balancer_goes_on(victim: Victim) -> None:
    async def run() -> str:
        async with socket_to(victim) as found:
            return await why_closed(found)

    asyncio.run(run())
    assert asyncio.run(ask(victim.front.port, request(chat("still there?")))).status == 200


# --------------------------------------------------------------------------------- messages


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


Send = Callable[[aiohttp.ClientWebSocketResponse, Connection], Awaitable[None]]


def sealed(connection: Connection, kind: int, payload: bytes) -> bytes:
    """The next genuine message, not sent."""
    return connection._session.seal(kind, payload)  # type: ignore[arg-type]  # any kind, on purpose


async def forged(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    message = bytearray(sealed(connection, Kind.NEWS, CANARY.encode()))
    message[-1] ^= 1
    await socket.send_bytes(bytes(message))


async def repeated(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    message = sealed(connection, Kind.PING, encode(Ping(1, 1)))
    await socket.send_bytes(message)
    await socket.send_bytes(message)


async def left_out(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    sealed(connection, Kind.PING, encode(Ping(1, 1)))
    await socket.send_bytes(sealed(connection, Kind.PING, encode(Ping(2, 1))))


async def cut(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    await socket.send_bytes(sealed(connection, Kind.PING, encode(Ping(1, 1)))[:20])


async def text(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    del connection
    await socket.send_str(CANARY)


async def news_of_nonsense(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    await socket.send_bytes(sealed(connection, Kind.NEWS, CANARY.encode()))


async def an_answer_to_no_ping(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    await socket.send_bytes(sealed(connection, Kind.PONG, CANARY.encode()))


async def an_unknown_kind(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    await socket.send_bytes(sealed(connection, 99, b""))


async def a_flood(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    with suppress(aiohttp.ClientError, ConnectionError):  # the balancer may have closed before the last one
        for _ in range(2 * RECEIVE_BURST_BYTES // 60_000):
            await socket.send_bytes(sealed(connection, Kind.SUMMARY, bytes(60_000)))


@pytest.mark.parametrize(
    ("send", "reason"),
    [
        (a_flood, "flood"),
        (forged, "signature"),
        (repeated, "replayed"),
        (left_out, "replayed"),
        (cut, "truncated"),
        (text, "malformed"),
        (news_of_nonsense, "malformed"),
        (an_answer_to_no_ping, "malformed"),
        (an_unknown_kind, "malformed"),
    ],
)
def test_a_message_that_is_not_the_peers_next_one_ends_the_connection(
    victim: Victim, send: Send, reason: str
) -> None:
    async def run() -> str:
        async with socket_to(victim) as found:
            connection = await shake(found, victim.keys, hello(), lambda _: Meter(), dialled=True)
            await send(found, connection)
            return await why_closed(found)

    before = victim.refused(reason, "us")
    assert asyncio.run(run()) == reason
    assert victim.refused(reason, "us") == before + 1


def test_a_peer_whose_clock_is_an_hour_off_is_heard_and_peers_says_so(victim: Victim) -> None:
    async def run() -> tuple[dict[str, object], Answer]:
        hour_ahead = int(time.time() * 1000) + 3_600_000
        async with peer(victim, hello(unix_ms=hour_ahead)) as connection:
            await clock_known(connection)
            data = forward(signed(Identity("eu", connection.hello.incarnation), key=victim.keys.first))
            answer = await ask(victim.forward_port, data)
            mesh = await asyncio.to_thread(victim.front.state)
            return mesh["mesh"]["peers"][0], answer

    row, answer = asyncio.run(run())
    assert 3500 < float(str(row["clock_skew_s"])) < 3700
    assert (row["state"], answer.status) == ("alive", 200)
    assert victim.front.child.text().count("its wall clock is +3") == 1


@pytest.mark.parametrize(
    ("kind", "reason"), [(Kind.SUMMARY, "summary"), (Kind.DIGEST, "digest"), (Kind.SHARE, "share")]
)
def test_a_word_to_the_engine_that_it_cannot_read_is_counted_and_the_connection_stands(
    victim: Victim, kind: Kind, reason: str
) -> None:
    async def run() -> None:
        async with peer(victim) as connection:
            await clock_known(connection)
            for payload in (b"", CANARY.encode(), bytes(40_000)):
                await connection.send(kind, payload)
            await clock_known(connection)

    before = victim.refused(reason, "us")
    asyncio.run(run())
    assert victim.refused(reason, "us") == before + 3


# --------------------------------------------------------------------------------- forwards

BODY = b'{"model":"mock","messages":[{"role":"user","content":"%s"}],"max_tokens":2}' % CANARY.encode()
CHAT = "/v1/chat/completions"
HONEST = Claims("us", 1, 1, 20_000)


def forward(header: str | None, body: bytes = BODY, path: str = CHAT) -> bytes:
    """The bytes of a forwarded request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: eu",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{HEADER}: {header}"] if header is not None else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def as_the_peer(victim: Victim, talk: Callable[[Identity], Awaitable[None]]) -> None:
    """Talks while the balancer knows the peer's clock."""
    async with peer(victim) as connection:
        await clock_known(connection)
        await talk(Identity("eu", connection.hello.incarnation))


def signed(to: Identity, *, claims: Claims = HONEST, key: Key, ahead_s: float = 0.0) -> str:
    now_ns = peer_ns() + int(ahead_s * 1e9)
    return sign(key, to=to, method="POST", path=CHAT, body=BODY, claims=claims, now_ns=now_ns)


def test_a_forward_is_let_in_once_and_its_replay_is_not(victim: Victim) -> None:
    answers: list[Answer] = []

    async def talk(to: Identity) -> None:
        data = forward(signed(to, key=victim.keys.first))
        answers.extend([await ask(victim.forward_port, data), await ask(victim.forward_port, data)])

    before = victim.turned_away("replayed")
    asyncio.run(as_the_peer(victim, talk))
    assert [answer.status for answer in answers] == [200, 403]
    assert victim.turned_away("replayed") == before + 1


Make = Callable[[Identity, Key], bytes]

HOSTILE: dict[str, tuple[str, Make]] = {
    "no signature": ("absent", lambda to, key: forward(None)),
    "nonsense": ("malformed", lambda to, key: forward(CANARY)),
    "too long": ("malformed", lambda to, key: forward("v1;" + CANARY * 200)),
    "another body": ("body", lambda to, key: forward(signed(to, key=key), BODY.replace(b"user", b"root"))),
    "another path": ("signature", lambda to, key: forward(signed(to, key=key), path="/v1/completions")),
    "another secret": ("signature", lambda to, key: forward(signed(to, key=WRONG.first))),
    "an unknown key": ("key", lambda to, key: forward(signed(to, key=replace(key, id="k7")))),
    "for another balancer": ("signature", lambda to, key: forward(signed(replace(to, name="asia"), key=key))),
    "for an earlier run": ("signature", lambda to, key: forward(signed(replace(to, incarnation=1), key=key))),
    "from no peer": (
        "origin",
        lambda to, key: forward(signed(to, key=key, claims=replace(HONEST, origin="mars"))),
    ),
    "from itself": (
        "origin",
        lambda to, key: forward(signed(to, key=key, claims=replace(HONEST, origin="eu"))),
    ),
    "a second hop": ("hop", lambda to, key: forward(signed(to, key=key, claims=replace(HONEST, hop=2)))),
    "no hop": ("hop", lambda to, key: forward(signed(to, key=key, claims=replace(HONEST, hop=0)))),
    "an hour old": ("stale", lambda to, key: forward(signed(to, key=key, ahead_s=-3600))),
    "an hour ahead": ("stale", lambda to, key: forward(signed(to, key=key, ahead_s=3600))),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_forward_is_refused_and_counted(victim: Victim, what: str) -> None:
    reason, make = HOSTILE[what]
    answers: list[Answer] = []

    async def talk(to: Identity) -> None:
        answers.append(await ask(victim.forward_port, make(to, victim.keys.first)))

    before, served = victim.turned_away(reason), victim.front.metric("skylb_attempts_total")
    asyncio.run(as_the_peer(victim, talk))
    assert [answer.status for answer in answers] == [403]
    assert victim.turned_away(reason) == before + 1
    assert victim.front.metric("skylb_attempts_total") == served


def test_the_sync_listener_speaks_nothing_but_sync(victim: Victim) -> None:
    async def run() -> list[int]:
        statuses = []
        async with aiohttp.ClientSession() as client:
            for path in ("/", PATH, "/metrics", "/state", "/peers"):
                async with client.get(f"http://127.0.0.1:{victim.sync_port}{path}") as answer:
                    statuses.append(answer.status)
        return statuses

    assert asyncio.run(run()) == [404, 400, 404, 404, 404]
