"""A peer that a test plays: the product's handshake and engine, and answers to forwards of the test's own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp

from skylb._core import MESSAGE_SUMMARY, PEER_ALIVE, PROBE_UNREADABLE, Engine, Tell
from skylb.config import EngineSettings
from skylb.mesh.frames import VERSION, Hello, Kind, Ping, encode, new_nonce
from skylb.mesh.signing import Keys
from skylb.mesh.sync import PATH, Closed, Connection, Meter, shake

ROOM = 32
"""Requests that the played peer would take at once."""

VICTIM = 1
"""The balancer under test, in the played peer's engine."""

TICK_S = 0.02

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _engine(name: str, region: str, incarnation: int, victim: tuple[str, str], models: list[str]) -> Engine:
    """An engine with room for the models."""
    settings = EngineSettings(blind_outstanding_max=ROOM)
    engine = Engine(settings.model_dump_json().encode(), bytes(32), 1)
    now_ns = time.monotonic_ns()
    engine.set_self(name, region, incarnation)
    engine.set_replicas([(1, "http://replica")], now_ns)
    engine.set_models(1, [(model, None) for model in models], False, now_ns)
    engine.observe_failed(1, PROBE_UNREADABLE, now_ns)
    engine.set_peers([(VICTIM, *victim, True)], now_ns)
    engine.peer_state(VICTIM, PEER_ALIVE, now_ns)
    engine.peer_connected(VICTIM, [MESSAGE_SUMMARY], now_ns)
    return engine


async def _hear(connection: Connection, engine: Engine) -> None:
    while True:
        kind, payload = await connection.receive()
        now_ns = time.monotonic_ns()
        if kind is Kind.PING:
            await connection.send(Kind.PONG, payload)
        elif kind is Kind.SUMMARY:
            engine.merge_peer(VICTIM, payload, now_ns)


async def _tell(connection: Connection, engine: Engine) -> None:
    pinged_ns = 0
    while True:
        now_ns = time.monotonic_ns()
        if now_ns - pinged_ns > 1e9:
            pinged_ns = now_ns
            await connection.send(Kind.PING, encode(Ping(now_ns, 0)))
        engine.observe_failed(1, PROBE_UNREADABLE, now_ns)
        for effect in engine.tick(now_ns):
            if isinstance(effect, Tell):
                await connection.send(Kind.SUMMARY, effect.payload)
                engine.written(VICTIM, MESSAGE_SUMMARY)
        await asyncio.sleep(TICK_S)


@asynccontextmanager
async def played(
    keys: Keys,
    sync_port: int,
    talk: Talk,
    *,
    name: str = "us",
    region: str = "us",
    victim: tuple[str, str] = ("eu", "eu"),
    models: tuple[str, ...] = ("mock",),
) -> AsyncIterator[Engine]:
    """The peer of this name, which grants room and has forwards answered by ``talk``; its engine."""
    incarnation = time.time_ns()
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    forward = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    unix_ms = incarnation // 1_000_000
    hello = Hello(VERSION, name, region, incarnation, keys.first.id, new_nonce(), unix_ms, forward)
    engine = _engine(name, region, incarnation, victim, list(models))
    async with server, aiohttp.ClientSession() as client:
        socket = await client.ws_connect(f"http://127.0.0.1:{sync_port}{PATH}")
        connection = await shake(socket, keys, hello, lambda _: Meter(), dialled=True)
        tasks = [asyncio.ensure_future(part(connection, engine)) for part in (_hear, _tell)]
        try:
            yield engine
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError, Closed):
                    await task
            await socket.close()
