"""Peer messages that are forged, replayed, skewed, cut or too long, against a real balancer's sockets.

The test plays the peer ``us`` with the product's own handshake and signatures, then misbehaves.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import aiohttp
import msgspec
import pytest

from skylb.mesh.frames import (
    FRAME_BYTES_MAX,
    VERSION,
    Kind,
    News,
    Order,
    Ping,
    encode,
)
from skylb.mesh.listener import PENDING_MAX
from skylb.mesh.signing import Identity
from skylb.mesh.sync import PATH, RECEIVE_BURST_BYTES, Closed, Connection, Meter, shake
from tests.support.hostile import (
    CANARY,
    WRONG,
    Victim,
    attacked,
    clock_known,
    forward,
    hello,
    peer,
    signed,
    socket_to,
    why_closed,
)
from tests.support.processes import eventually
from tests.support.raw import Answer, ask, chat, request


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with attacked(tmp_path_factory.mktemp("keys")) as found:
        yield found


# ------------------------------------------------------------------------------- handshake

HELLOS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "malformed"),
    "no message": (CANARY.encode(), "malformed"),
    "cut short": (encode(hello())[:-1], "malformed"),
    "name too long": (encode(hello(name=CANARY * 20)), "malformed"),
    "unknown name": (encode(hello(name=CANARY)), "name"),
    "its own name": (encode(hello(name="eu")), "name"),
    "another region than listed": (encode(hello(name="asia-1", region="eu")), "region"),
    "a region that is no name": (encode(hello(region="e u")), "region"),
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
    assert victim.front.state()["mesh"]["strangers_refused"]["signature"] == before + 1

    def says_so() -> bool:
        asyncio.run(run())  # again: the victim calls the peer as well, and then says that nobody is there
        fault = victim.front.state()["mesh"]["peers"][0]["fault"]
        return bool(fault == "refused a connection in the name of us: signature")

    eventually(says_so, what="the peer's fault")


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


def test_silent_connections_are_closed_and_few_and_peers_come_in_all_the_same(victim: Victim) -> None:
    async def run() -> None:
        writers = []
        for _ in range(2 * PENDING_MAX):
            _, writer = await asyncio.open_connection("127.0.0.1", victim.sync_port)
            writers.append(writer)
        async with peer(victim) as connection:
            await clock_known(connection)
        # All of them come to their end, those that asked for something else too.
        reader, writer = await asyncio.open_connection("127.0.0.1", victim.sync_port)
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: eu\r\n\r\nGET /sync HT")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 404")
        for one in (*writers, writer):
            one.close()
            with suppress(ConnectionError):
                await one.wait_closed()

    crowded, silent = victim.refused("crowded"), victim.refused("silent")
    asyncio.run(run())
    eventually(lambda: victim.refused("silent") > silent, what="counted: silent")
    assert victim.refused("crowded") >= crowded + PENDING_MAX


def test_a_hello_of_another_version_is_told_by_its_version_on_both_sides(victim: Victim) -> None:
    async def run() -> str:
        async with socket_to(victim) as found:
            await found.send_bytes(msgspec.msgpack.encode([VERSION + 1, "us", {"all": "else"}]))
            return await why_closed(found)

    assert asyncio.run(run()) == "version"
    why = f"it speaks version {VERSION + 1} of the peers' protocol, this balancer {VERSION}"
    said = f"refused a connection in the name of us: {why}"
    eventually(lambda: victim.front.state()["mesh"]["peers"][0]["fault"] == said, what=said)


# --------------------------------------------------------------------------------- messages


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


async def a_nested_ping(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    await socket.send_bytes(sealed(connection, Kind.PING, b"\x93\x01\x01" + b"\x91" * 60_000))


async def a_clock_beyond_all_others(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    await socket.send_bytes(sealed(connection, Kind.PING, msgspec.msgpack.encode([(1 << 64) - 1, 0])))
    with suppress(aiohttp.ClientError, ConnectionError):
        await socket.send_bytes(sealed(connection, Kind.SHARE, b"\x01\x00\x01\x01\x00\x00"))


async def an_order_after_which_nothing_comes(
    socket: aiohttp.ClientWebSocketResponse, connection: Connection
) -> None:
    await socket.send_bytes(
        sealed(connection, Kind.ORDER, msgspec.msgpack.encode(["eu", True, (1 << 64) - 1]))
    )


async def pings_of_the_websocket(socket: aiohttp.ClientWebSocketResponse, connection: Connection) -> None:
    del connection
    with suppress(aiohttp.ClientError, ConnectionError):
        for _ in range(100):
            await socket.ping(b"x" * 100)


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
        (a_nested_ping, "malformed"),
        (a_clock_beyond_all_others, "malformed"),
        (an_order_after_which_nothing_comes, "malformed"),
        (pings_of_the_websocket, "flood"),
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


def test_messages_of_a_kind_that_a_later_version_adds_are_passed_over_and_counted(victim: Victim) -> None:
    async def run() -> None:
        async with peer(victim) as connection:
            await clock_known(connection)
            for _ in range(3):
                await connection.send(99, CANARY.encode())  # type: ignore[arg-type]  # any kind, on purpose
            await clock_known(connection)

    before = victim.passed_over()
    asyncio.run(run())
    assert victim.passed_over() == before + 3


def test_an_order_far_ahead_of_time_is_not_taken_and_operators_words_go_on_counting(victim: Victim) -> None:
    async def run() -> None:
        async with peer(victim) as connection:
            await clock_known(connection)
            await connection.send(Kind.ORDER, encode(Order("eu", True, 1 << 62)))
            await clock_known(connection)
            assert victim.front.state()["mesh"]["evacuating"] is False
            # The next operator's word comes after whatever was said before.
            for verb, evacuating in (("evacuate", True), ("undrain", False)):
                await asyncio.to_thread(victim.post, f"/regions/eu/{verb}")
                assert victim.front.state()["mesh"]["evacuating"] is evacuating

    before = victim.refused("order", "us")
    asyncio.run(run())
    assert victim.refused("order", "us") == before + 1


def test_a_peer_that_calls_itself_by_ever_new_regions_ends_nothing(victim: Victim) -> None:
    async def run() -> None:
        for number in range(80):
            async with socket_to(victim) as found:
                await found.send_bytes(encode(hello(region=f"region-{number}")))
                assert await why_closed(found) == "region"

    asyncio.run(run())
    assert asyncio.run(ask(victim.front.port, request(chat("still there?")))).status == 200


def test_a_peer_of_the_most_and_longest_names_is_told_all_that_is_known(victim: Victim) -> None:
    names = [f"{number:0>64}" for number in range(64)]

    async def run() -> None:
        async with peer(victim) as connection:
            await clock_known(connection)
            for name in names:
                news = News(names, {name: (1, 1, names)}, [f"http://10.0.0.1:{port}" for port in range(1, 9)])
                await connection.send(Kind.NEWS, encode(news))
            await clock_known(connection)
            await clock_known(connection)

    asyncio.run(run())
    assert asyncio.run(ask(victim.front.port, request(chat("still there?")))).status == 200


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
    ("kind", "reason"),
    [(Kind.SUMMARY, "summary"), (Kind.DIGEST, "digest"), (Kind.SHARE, "share"), (Kind.TENANTS, "tenants")],
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


def test_the_sync_listener_speaks_nothing_but_sync(victim: Victim) -> None:
    async def run() -> list[int]:
        statuses = []
        async with aiohttp.ClientSession() as client:
            for path in ("/", PATH, "/metrics", "/state", "/peers"):
                async with client.get(f"http://127.0.0.1:{victim.sync_port}{path}") as answer:
                    statuses.append(answer.status)
        return statuses

    assert asyncio.run(run()) == [404, 400, 404, 404, 404]
