"""``skylb wan`` over real sockets: what arrives, in which order, and what a fault does to it.

Times are asserted from below only (a relay cannot be faster than its link), or as "it ends at all".
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skylb.addresses import ListenAddress
from skylb.errors import ConfigError
from skylb.tools.wan import Relay, WanSettings
from skylb.tools.wan.command import Answer
from skylb.tools.wan.settings import parse_port
from skylb.tools.wan.window import INITIAL_BYTES
from tests.support.mock import run
from tests.support.processes import SKYLB, Child

ENOUGH_S = 20.0
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Target:
    """A server that keeps what it is sent, echoing it if told so."""

    port: int = 0
    echo: bool = True
    accepted: int = 0
    received: bytearray = field(default_factory=bytearray)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.writers.append(writer)
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.received += data
                if self.echo:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@dataclass
class Stage:
    """A target, and a link `us`-`eu` with one port each way to it."""

    relay: Relay
    target: Target
    streams: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, port: int = 0) -> Stream:
        address = self.relay.addresses[port]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        self.streams.append(writer)
        return reader, writer

    def tell(self, **command: object) -> Answer:
        answer = self.relay.command(json.dumps(command).encode())
        assert answer.error is None
        return answer


@asynccontextmanager
async def stage(*, echo: bool = True, **settings: object) -> AsyncIterator[Stage]:
    target = Target(echo=echo)
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0)
    target.port = server.sockets[0].getsockname()[1]
    links = tuple(
        parse_port(f"{name}=127.0.0.1:0,127.0.0.1:{target.port}") for name in ("us-eu", "eu-us", "us-asia")
    )
    relay = await Relay.start(WanSettings(link=links, **settings))  # type: ignore[arg-type]  # as a test gives them
    staged = Stage(relay, target)
    try:
        yield staged
    finally:
        for writer in [*staged.streams, *target.writers]:
            writer.transport.abort()
        await relay.close()
        server.close()
        await server.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(ENOUGH_S):
        while not condition():  # noqa: ASYNC110 - the other side of a socket tells nobody
            await asyncio.sleep(0.005)


async def reset(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends, by RST or (where that overtakes nothing) by FIN."""
    try:
        async with asyncio.timeout(ENOUGH_S):
            await reader.read()
    except ConnectionError:
        return True
    return reader.at_eof()


def pattern(count: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in range(count // 4))


def over_sockets(check: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """A coroutine as a test."""

    def wrapped() -> None:
        run(check)

    wrapped.__name__ = check.__name__  # type: ignore[attr-defined]  # a function's own
    return wrapped


@over_sockets
async def test_bytes_arrive_complete_and_in_order_both_ways() -> None:
    data = pattern(3 << 20)
    async with stage(rtt_s=0.004, jitter_s=0.003, bytes_per_s=50_000_000) as staged:
        reader, writer = await staged.connect()
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(ENOUGH_S):
            assert await reader.read() == data
        assert staged.target.received == data
        await until(lambda: staged.relay.command(b"{}").links[0].connections == 0)
        state = staged.tell(link="us-eu").links[0]
        assert state.carried_bytes == {"us": len(data), "eu": len(data)}
        assert state.lost_bytes == {"us": 0, "eu": 0}


@over_sockets
async def test_a_round_trip_takes_at_least_the_round_trip_and_the_first_one_a_handshake_more() -> None:
    async with stage(rtt_s=0.1) as staged:
        began_s = time.monotonic()
        reader, writer = await staged.connect()
        for trip in (2, 3):
            writer.write(b"ping")
            async with asyncio.timeout(ENOUGH_S):
                assert await reader.readexactly(4) == b"ping"
            assert time.monotonic() - began_s >= trip * 0.1 - 0.002


@over_sockets
async def test_slow_start_lets_ten_segments_through_per_round_trip_at_first() -> None:
    async with stage(echo=False, rtt_s=0.15) as staged:
        _, writer = await staged.connect()
        began_s = time.monotonic()
        writer.write(bytes(400_000))
        await until(lambda: len(staged.target.received) == 400_000)
        # A handshake, four round trips of waiting for acknowledgements, half a one there.
        assert time.monotonic() - began_s >= 5.5 * 0.15 - 0.002


@over_sockets
async def test_a_narrow_link_is_shared_by_its_connections() -> None:
    async with stage(echo=False, bytes_per_s=1_000_000, slow_start=False) as staged:
        began_s = time.monotonic()
        for _ in range(4):
            (await staged.connect())[1].write(bytes(50_000))
        await until(lambda: len(staged.target.received) == 200_000)
        assert time.monotonic() - began_s >= 0.2 - 0.002


@over_sockets
async def test_a_target_that_does_not_read_is_felt_at_the_other_end() -> None:
    async with stage(window_bytes_max=65_536) as staged:
        reader, writer = await staged.connect()
        writer.transport.set_write_buffer_limits(high=1 << 16)
        sent = 0
        with suppress(TimeoutError):
            while sent < 256 << 20:  # the echo is never read: everything on the way fills up
                writer.write(bytes(1 << 16))
                sent += 1 << 16
                async with asyncio.timeout(0.5):
                    await writer.drain()
        assert sent < 64 << 20
        del reader


@over_sockets
async def test_a_refused_connection_is_refused_at_the_other_end() -> None:
    async with stage() as staged:
        closed = await asyncio.start_server(staged.target.serve, "127.0.0.1", 0)
        port = closed.sockets[0].getsockname()[1]
        closed.close()
        await closed.wait_closed()
        relay = await Relay.start(WanSettings(link=(parse_port(f"a-b=127.0.0.1:0,127.0.0.1:{port}"),)))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.addresses[0].port)
            assert await reset(reader)
            writer.transport.abort()
        finally:
            await relay.close()


@over_sockets
async def test_a_client_that_leaves_is_seen_at_the_target() -> None:
    async with stage(echo=False) as staged:
        _, writer = await staged.connect()
        writer.write(b"x")
        await until(lambda: staged.target.received == b"x")
        writer.transport.abort()
        await until(lambda: staged.tell(link="us-eu").links[0].connections == 0)
        await until(staged.target.writers[0].transport.is_closing)


@over_sockets
async def test_cut_resets_what_is_there_and_what_comes_and_only_on_its_link() -> None:
    async with stage() as staged:
        reader, writer = await staged.connect()
        other_reader, other_writer = await staged.connect(2)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        staged.tell(link="eu-us", fault="cut")
        assert await reset(reader)
        with suppress(ConnectionError):
            assert await reset((await staged.connect())[0])
        with suppress(ConnectionError):
            assert await reset((await staged.connect(1))[0])
        other_writer.write(b"b")
        assert await other_reader.readexactly(1) == b"b"
        staged.tell(link="us-eu", fault="none")
        reader, writer = await staged.connect()
        writer.write(b"c")
        assert await reader.readexactly(1) == b"c"
        assert staged.tell(link="us-eu").links[0].reset_total >= 1


@over_sockets
async def test_what_stalls_arrives_afterwards_connections_made_meanwhile_included() -> None:
    async with stage() as staged:
        reader, writer = await staged.connect()
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        staged.tell(fault="stall")
        writer.write(b"2")
        late_reader, late_writer = await staged.connect()
        late_writer.write(b"3")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readexactly(1)
        assert bytes(staged.target.received) == b"1"
        staged.tell(fault="none")
        assert await reader.readexactly(1) == b"2"
        assert await late_reader.readexactly(1) == b"3"


@over_sockets
async def test_one_way_drop_loses_one_end_and_starves_the_other_of_acknowledgements() -> None:
    async with stage(echo=False) as staged:
        reader, writer = await staged.connect()
        idle_reader, idle_writer = await staged.connect()
        writer.write(b"there")
        idle_writer.write(b"!")
        await until(lambda: len(staged.target.received) == 6)
        staged.tell(link="us-eu", fault="drop", **{"from": "us"})
        writer.write(b"lost")
        await until(lambda: staged.tell(link="us-eu").links[0].lost_bytes == {"us": 4, "eu": 0})
        back = next(w for w in staged.target.writers if w is staged.target.writers[0])
        back.write(bytes(5 * INITIAL_BYTES))
        got = 0
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.3):
                    got += len(await reader.read(1 << 16))
        assert got == INITIAL_BYTES  # one window, and then nobody acknowledges
        staged.tell(link="us-eu", fault="none")
        assert await reset(reader)
        assert len(staged.target.received) == 6
        staged.target.writers[1].write(b"ok")  # the one that lost nothing goes on
        assert await idle_reader.readexactly(2) == b"ok"


@over_sockets
async def test_a_blackhole_takes_everything_and_tells_nobody_until_it_is_over() -> None:
    async with stage() as staged:
        reader, writer = await staged.connect()
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        staged.tell(link="us-eu", fault="blackhole")
        writer.write(b"2")
        fresh_reader, _ = await staged.connect(1)
        writer.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await fresh_reader.read(1)
        assert staged.target.accepted == 1
        assert not staged.target.writers[0].transport.is_closing()
        staged.tell(link="us-eu", fault="none")
        await until(staged.target.writers[0].transport.is_closing)
        assert await reset(fresh_reader)
        assert bytes(staged.target.received) == b"1"


@over_sockets
async def test_accept_stall_takes_connections_and_carries_nothing() -> None:
    async with stage() as staged:
        reader, writer = await staged.connect()
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        staged.tell(link="us-eu", fault="accept_stall")
        assert await reset(reader)
        reader, writer = await staged.connect()
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read(1)
        assert staged.target.accepted == 1
        staged.tell(link="us-eu", fault="none")
        assert await reset(reader)


@over_sockets
async def test_a_command_that_does_not_fit_changes_nothing_and_says_why() -> None:
    async with stage() as staged:
        for line, reason in (
            (b'{"link": "us-mars", "fault": "cut"}', "expected one of us-eu, us-asia, or *"),
            (b'{"link": "us-eu", "fault": "drop"}', "expected from"),
            (b'{"link": "us-eu", "fault": "drop", "from": "asia"}', "expected an end of us-eu"),
            (b'{"link": "us-eu", "fault": "cut", "from": "us"}', "with fault drop or stall only"),
        ):
            error = staged.relay.command(line).error
            assert error is not None
            assert reason in error
        assert all(link.fault == "none" for link in staged.tell().links)


@over_sockets
async def test_figures_can_be_changed_while_it_runs() -> None:
    async with stage() as staged:
        assert staged.tell(link="eu-us", rtt_s=0.05, slow_start=False).links[0].shape.rtt_s == 0.05
        reader, writer = await staged.connect()
        began_s = time.monotonic()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert time.monotonic() - began_s >= 0.1 - 0.002


@over_sockets
async def test_a_script_is_performed_in_its_order() -> None:
    script = Path(__file__).parent / "wan_script.jsonl"
    async with stage(script=script) as staged:
        await until(lambda: staged.tell(link="us-eu").links[0].fault == "stall")
        await until(lambda: staged.tell(link="us-eu").links[0].fault == "none")
        assert staged.tell(link="us-asia").links[0].shape.rtt_s == 0.25


@over_sockets
async def test_a_script_that_does_not_fit_the_links_is_a_fault_of_the_configuration() -> None:
    script = Path(__file__).parent / "wan_script.jsonl"
    link = (parse_port("us-mars=127.0.0.1:0,127.0.0.1:9"),)
    with pytest.raises(ConfigError, match="expected one of us-mars"):
        await Relay.start(WanSettings(link=link, script=script))


def test_the_command_relays_obeys_and_leaves(tmp_path: Path) -> None:
    control = f"unix:{tmp_path}/wan.sock"
    words = [
        "wan",
        "--profile",
        "us-eu-asia",
        "--control",
        control,
        "--link",
        "us-eu=127.0.0.1:0,127.0.0.1:9",
    ]
    child = Child([*SKYLB, *words])
    try:
        child.require(lambda: "\nready" in child.text(), timeout_s=ENOUGH_S, what="ready")
        assert "us-eu 127.0.0.1:" in child.text()
        told = Child([*SKYLB, "wan", "--control", control, "--tell", '{"link":"us-eu","fault":"cut"}'])
        assert told.popen.wait(ENOUGH_S) == 0
        links = json.loads(told.text())["links"]
        assert [(link["name"], link["fault"], link["shape"]["rtt_s"]) for link in links] == [
            ("us-eu", "cut", 0.09)
        ]
        wrong = Child([*SKYLB, "wan", "--control", control, "--tell", '{"link":"us-mars"}'])
        assert wrong.popen.wait(ENOUGH_S) == 1
        assert "expected one of us-eu" in wrong.text()
    finally:
        child.stop()
    assert not (tmp_path / "wan.sock").exists()


def test_listen_addresses_are_told_apart() -> None:
    assert parse_port("us-eu=127.0.0.1:1,127.0.0.1:2").listen == ListenAddress("127.0.0.1", 1)
