"""Forwards that are forged, replayed or changed on the way; orders and replicas that a peer may not give.

The test plays the peer ``us``, against a real balancer's sockets.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from skylb.mesh.frames import (
    Kind,
    News,
    Order,
    encode,
)
from skylb.mesh.signing import Identity, Key
from tests.support.hostile import (
    BODY,
    CANARY,
    CHAT,
    HONEST,
    WRONG,
    Victim,
    as_the_peer,
    attacked,
    clock_known,
    forward,
    peer,
    signed,
)
from tests.support.processes import eventually
from tests.support.raw import Answer, ask


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with attacked(tmp_path_factory.mktemp("keys")) as found:
        yield found


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


def changed(what: str, into: str) -> Make:
    """A genuine forward in which somebody on the way has changed the head."""

    def make(to: Identity, key: Key) -> bytes:
        genuine = forward(signed(to, key=key))
        assert what.encode() in genuine
        return genuine.replace(what.encode(), into.encode(), 1)

    return make


HOSTILE: dict[str, tuple[str, Make]] = {
    "no signature": ("absent", lambda to, key: forward(None)),
    "nonsense": ("malformed", lambda to, key: forward(CANARY)),
    "too long": ("malformed", lambda to, key: forward("v1;" + CANARY * 200)),
    "another body": ("body", lambda to, key: forward(signed(to, key=key), BODY.replace(b"user", b"root"))),
    "another path": ("signature", lambda to, key: forward(signed(to, key=key), path="/v1/completions")),
    "another query": ("signature", lambda to, key: forward(signed(to, key=key), path=f"{CHAT}?x=1")),
    "another media type": ("signature", changed("application/json", "application/json;charset=x")),
    "another credential": ("signature", changed("sk-1", "sk-2")),
    "another session": ("signature", changed("s-1", "s-2")),
    "a field more": ("signature", changed("Host: eu", "Host: eu\r\nX-Vllm-Priority: -9")),
    "a field twice": ("signature", changed("Host: eu", "Host: eu\r\nX-Session-Id: s-0")),
    "a field less": ("signature", changed("Authorization: Bearer sk-1\r\n", "")),
    "a field that is not to be passed on": (
        "signature",
        changed("Host: eu", "Host: eu\r\nConnection: x-session-id"),
    ),
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


@pytest.mark.parametrize(
    ("what", "into"),
    [
        ("Host: eu", "Host: eu.example.net"),
        ("Host: eu", "Host: eu\r\nVia: 1.1 proxy"),
        ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.1, 192.0.2.2"),
        ("Host: eu", "Host: eu\r\nX-Forwarded-Proto: https\r\nX-Request-Id: r-1"),
        ("X-Session-Id: s-1", "x-session-id:   s-1"),
        (
            "Authorization: Bearer sk-1\r\nX-Session-Id: s-1",
            "X-Session-Id: s-1\r\nAuthorization: Bearer sk-1",
        ),
    ],
)
def test_what_a_proxy_on_the_way_may_change_changes_nothing(victim: Victim, what: str, into: str) -> None:
    answers: list[Answer] = []

    async def talk(to: Identity) -> None:
        data = changed(what, into)(to, victim.keys.first)
        answers.append(await ask(victim.forward_port, data))

    asyncio.run(as_the_peer(victim, talk))
    assert [answer.status for answer in answers] == [200]


async def says(victim: Victim, *messages: tuple[Kind, bytes]) -> None:
    """Messages of the genuine peer, all heard when this returns."""
    async with peer(victim) as connection:
        for kind, payload in messages:
            await connection.send(kind, payload)
        await clock_known(connection)


def test_an_order_for_another_region_than_the_peers_own_does_not_count(victim: Victim) -> None:
    before = victim.refused("order", "us")
    order = encode(Order("eu", True, time.time_ns()))
    asyncio.run(says(victim, (Kind.ORDER, order)))
    assert victim.refused("order", "us") == before + 1
    assert victim.front.state()["mesh"]["evacuating"] is False


ELSEWHERE = (
    "unix:/run/canary.sock",
    "http://169.254.169.254:80",
    "http://127.0.0.1:{port}",
    "http://localhost:{port}",
    "http://[::1]:{port}",
    "http://[::ffff:127.0.0.1]:{port}",
    "http://0.0.0.0:{port}",
)


def test_a_dead_peer_makes_nobody_connect_to_hosts_that_are_not_listed(victim: Victim) -> None:
    asked: list[bytes] = []

    async def run() -> None:
        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(note, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            urls = [url.format(port=port) for url in ELSEWHERE]
            resolved = f"replica http://localhost:{port}: the name does not resolve: "
            news = encode(News([], {"us": (1, 1, ["eu"])}, urls))
            async with peer(victim) as connection:
                await connection.send(Kind.NEWS, news)
                await connection.send(Kind.BYE)
            for told in (f"{len(urls) - 1} of {len(urls)} replicas of us are not adopted", resolved):
                await asyncio.to_thread(
                    eventually, lambda told=told: told in victim.front.child.text(), what=told
                )
            row = (await asyncio.to_thread(victim.front.state))["mesh"]["peers"][0]
            assert row["state"] == "dead"

    asyncio.run(run())
    assert asked == []
    assert len(victim.front.state()["engine"]["replicas"]) == 1
