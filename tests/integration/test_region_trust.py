"""What a peer with the secret can and cannot do: it is played by the test, against a real balancer."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from skylb.data.crossing import PROCESSING
from skylb.mesh.signing import Keys, parse_keys
from tests.support.played import played
from tests.support.processes import Balancer, balancer, eventually, free_port
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import key_line

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
)


@dataclass
class Lonely:
    """The balancer eu, whose only replica is down: what it serves it forwards."""

    front: Balancer
    keys: Keys
    sync_port: int


@contextmanager
def lonely(tmp_path: Path, peer: str, *, arguments: Sequence[str] = ()) -> Iterator[Lonely]:
    """``peer`` is its name in the list, with its region or without."""
    path = tmp_path / "keys"
    path.write_text(key_line("k1"))
    sync = free_port()
    command = ["--region", "eu", "--peer-key-file", str(path), *arguments]
    command += ["--peer", f"{peer}=http://127.0.0.1:{free_port()}"]
    command += ["--sync-listen", f"127.0.0.1:{sync}", "--peer-listen", f"127.0.0.1:{free_port()}"]
    with balancer(f"http://127.0.0.1:{free_port()}", arguments=command, wait_ready=False) as front:
        yield Lonely(front, parse_keys(path.read_text()), sync)


async def available(victim: Lonely) -> None:
    """Waits until the victim would forward to the played peer."""

    def heard() -> bool:
        row = victim.front.state()["mesh"]["peers"][0]
        return bool(row["available"] and row["room"])

    await asyncio.to_thread(eventually, heard, what="the played peer is heard")


class Answering:
    """Answers forwards, and counts them."""

    def __init__(self) -> None:
        self.forwards = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.forwards += 1
            writer.write(ANSWER)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize(
    ("peer", "region", "status"),
    [
        ("us@us", "us", 403),  # the rule does not allow us
        ("us@asia", "asia", 200),
        ("asia", "asia", 200),
        ("us", "asia", 403),  # its region is its word alone
    ],
)
def test_a_request_that_must_go_to_a_region_goes_where_the_list_says_that_it_is(
    tmp_path: Path, peer: str, region: str, status: int
) -> None:
    answering = Answering()

    async def run(victim: Lonely) -> Answer:
        name = peer.partition("@")[0]
        async with played(victim.keys, victim.sync_port, answering, name=name, region=region):
            await available(victim)
            return await ask(victim.front.port, request(chat("where to?")))

    with lonely(tmp_path, peer, arguments=["--residency", "*/*=asia"]) as victim:
        assert asyncio.run(run(victim)).status == status
    assert answering.forwards == (status == 200)


def test_a_peer_that_says_for_ever_that_it_waits_does_not_hold_a_client_for_ever(tmp_path: Path) -> None:
    waits = 0

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waits
        waits += 1
        with suppress(ConnectionError, asyncio.CancelledError):
            while not reader.at_eof():
                writer.write(PROCESSING)
                await writer.drain()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await reader.read(65536)
        writer.close()

    async def run(victim: Lonely) -> Answer:
        async with played(victim.keys, victim.sync_port, wait, name="us", region="us"):
            await available(victim)
            return await ask(victim.front.port, request(chat("still there?")))

    limits = ["--hold-timeout-s", "1", "--timeout-first-byte-s", "2", "--timeout-answer-s", "2"]
    with lonely(tmp_path, "us", arguments=limits) as victim:
        answer = asyncio.run(run(victim))
    assert answer.status in {502, 503, 504}
    assert waits > 0
