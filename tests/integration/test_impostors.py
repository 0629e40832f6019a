"""Whoever answers at the address of a peer, without the secret: no more comes of it than a refusal."""

import asyncio
import socket as socketlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import msgspec
import pytest
from aiohttp import web

from skylb.mesh.frames import VERSION, encode
from skylb.mesh.sync import PATH
from tests.support.hostile import CANARY, Victim, attacked, hello
from tests.support.processes import eventually, free_port
from tests.support.raw import ask, chat, request

ZOE = 2
"""Its place in the list of peers."""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with attacked(tmp_path_factory.mktemp("keys")) as found:
        yield found


Misbehave = Callable[[web.WebSocketResponse], Awaitable[None]]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def ping_and_reset(socket: web.WebSocketResponse) -> None:
    await socket.ping(b"x")
    assert socket._req is not None
    transport = socket._req.transport
    assert transport is not None
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socketlib.SOL_SOCKET, socketlib.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def nested_hello(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b"\x91" * 60_000)


async def nested_field(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(encode(hello(name="zoe")).replace(b"\x98", b"\x99", 1) + b"\x91" * 60_000)


async def huge_numbers(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(
        msgspec.msgpack.encode([VERSION, "zoe", "us", 1, "k1", bytes(32), (1 << 64) - 1, ""])
    )


async def another_version(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(msgspec.msgpack.encode([VERSION + 1, "zoe"]))


async def nothing(socket: web.WebSocketResponse) -> None:
    await socket.receive()


async def a_reset(socket: web.WebSocketResponse) -> None:
    assert socket._req is not None
    assert socket._req.transport is not None
    socket._req.transport.abort()


async def text_and_pings(socket: web.WebSocketResponse) -> None:
    for _ in range(100):
        await socket.ping(b"y" * 100)
    await socket.send_str(CANARY)


@asynccontextmanager
async def answering(
    port: int, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
) -> AsyncIterator[None]:
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "misbehave",
    [
        ping_and_reset,
        nested_hello,
        nested_field,
        huge_numbers,
        another_version,
        nothing,
        a_reset,
        text_and_pings,
    ],
)
def test_whoever_answers_at_a_peers_address_ends_nothing_but_that_connection(
    victim: Victim, misbehave: Misbehave
) -> None:
    async def run() -> None:
        met = asyncio.Event()
        times = 0

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal times
            socket = web.WebSocketResponse(autoping=False)
            await socket.prepare(request)
            await socket.receive()
            with suppress(ConnectionError, aiohttp.ClientError):
                await misbehave(socket)
                await socket.receive()
            times += 1
            if times == 2:
                met.set()  # it has come back
            return socket

        async with answering(victim.dialled_port, handler):
            await met.wait()

    asyncio.run(run())
    assert asyncio.run(ask(victim.front.port, request(chat("still there?")))).status == 200
    assert victim.front.state()["mesh"]["peers"][ZOE]["fault"]


def test_nobody_at_a_peers_address_sends_a_balancer_elsewhere(victim: Victim) -> None:
    elsewhere = free_port()
    asked: list[str] = []

    async def run() -> None:
        met = asyncio.Event()

        async def redirect(request: web.BaseRequest) -> web.StreamResponse:
            met.set()
            asked.append(request.path)
            raise web.HTTPFound(f"http://127.0.0.1:{elsewhere}/elsewhere")

        async with answering(victim.dialled_port, redirect), answering(elsewhere, redirect):
            await met.wait()
            said = "not reached: it redirects"
            await asyncio.to_thread(
                eventually, lambda: victim.front.state()["mesh"]["peers"][ZOE]["fault"] == said, what=said
            )

    asyncio.run(run())
    assert set(asked) == {PATH}
