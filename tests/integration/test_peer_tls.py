"""Balancers that speak TLS to each other, and show each other certificates."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import SLOW, Regions, regions

TLS = Path(__file__).parents[1] / "support" / "tls"
MUTUAL = (
    *("--peer-tls-cert", str(TLS / "server-1.pem"), "--peer-tls-key", str(TLS / "server-1.key")),
    *("--peer-tls-ca", str(TLS / "ca.pem")),
)


@pytest.fixture(scope="module")
def both() -> Iterator[Regions]:
    with regions("us", "eu", replicas=1, mock=SLOW, arguments=MUTUAL, scheme="https") as found:
        yield found


def test_they_hear_each_other_and_forward(both: Regions) -> None:
    async def burst() -> list[Answer]:
        bodies = [chat(f"number {number} asks", max_tokens=30) for number in range(16)]
        return await asyncio.gather(*(ask(both["us"].front.port, request(body)) for body in bodies))

    assert all(answer.status == 200 for answer in asyncio.run(burst()))
    assert both["us"].peers()["eu"]["forwards_out"] > 0


@pytest.mark.parametrize("port", ["sync", "forward"])
def test_who_shows_no_certificate_is_not_heard(both: Regions, port: str) -> None:
    arguments = both["us"].arguments
    sync = int(arguments[arguments.index("--sync-listen") + 1].rpartition(":")[2])
    number = sync if port == "sync" else both["us"].forward_port
    context = ssl.create_default_context(cafile=TLS / "ca.pem")

    async def knock() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", number, ssl=context)
        writer.write(b"GET /sync HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return await reader.read(1)
        finally:
            writer.close()

    # TLS 1.3 tells a client that its certificate is missing after the handshake, if it still listens.
    try:
        said = asyncio.run(knock())
    except (ssl.SSLError, ConnectionError):
        said = b""
    assert said == b""


def test_who_speaks_plain_text_gets_no_answer(both: Regions) -> None:
    async def knock() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", both["us"].forward_port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return await reader.read()
        finally:
            writer.close()

    try:
        said = asyncio.run(knock())
    except ConnectionError:
        said = b""
    assert b"HTTP/1.1" not in said
