"""Balancers that speak TLS to each other, and show each other certificates."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skylb.mesh.frames import VERSION, Hello, encode, new_nonce
from skylb.mesh.sync import PATH
from tests.support.processes import balancer, free_port, mocks
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import SLOW, Regions, key_line, regions

TLS = Path(__file__).parents[1] / "support" / "tls"
MUTUAL = (
    *("--peer-tls-cert", str(TLS / "server-1.pem"), "--peer-tls-key", str(TLS / "server-1.key")),
    *("--peer-tls-ca", str(TLS / "ca.pem")),
)
UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: eu\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
).encode()


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


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("us=https://10.77.0.9:1", b"certificate"),
        ("us=https://127.0.0.1:1", b"eu"),
        ("localhost=https://10.77.0.9:1", b"eu"),
    ],
)
def test_a_peer_speaks_in_the_name_for_which_its_certificate_is(
    tmp_path: Path, listed: str, said: bytes
) -> None:
    """The certificate is for localhost and 127.0.0.1: the host of a peer in the list, or its name."""
    path, sync = tmp_path / "keys", free_port()
    path.write_text(key_line("k1"))
    arguments = ["--region", "eu", "--peer-key-file", str(path), "--peer", listed, *MUTUAL]
    arguments += ["--sync-listen", f"127.0.0.1:{sync}", "--peer-listen", f"127.0.0.1:{free_port()}"]
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    context.load_cert_chain(TLS / "client.pem", TLS / "client.key")
    name = listed.partition("=")[0]
    hello = encode(Hello(VERSION, name, name, 1, "k1", new_nonce(), 0, "https://127.0.0.1:9"))

    async def greet() -> bytes:
        """What the balancer says to a hello: its own, or in a closing message why not."""
        reader, writer = await asyncio.open_connection("127.0.0.1", sync, ssl=context)
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        # One message of a client under 64 KiB (RFC 6455, 5.2); a mask of zeros changes nothing.
        writer.write(b"\x82\xfe" + len(hello).to_bytes(2, "big") + bytes(4) + hello)
        try:
            return await reader.read(200)
        finally:
            writer.transport.abort()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    with mocks(1) as urls, balancer(*urls, arguments=arguments):
        assert said in asyncio.run(greet())


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


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"GET /sync HTTP/1.1\r\n"])
def test_who_begins_no_tls_at_the_sync_listener_is_closed(both: Regions, said: bytes) -> None:
    arguments = both["us"].arguments
    sync = int(arguments[arguments.index("--sync-listen") + 1].rpartition(":")[2])

    async def wait() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sync)
        writer.write(said)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    asyncio.run(wait())
    assert both["us"].peers()["eu"]["state"] == "alive"
