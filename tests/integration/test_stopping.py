"""How a balancer ends: a delay, a drain, an answer for who is left, and its addresses for a successor."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.processes import (
    PATIENCE_S,
    SKYLB,
    Balancer,
    Child,
    answers,
    balancer,
    eventually,
    free_port,
    mocks,
)
from tests.support.raw import Answer, Connection, ask, chat, request
from tests.support.regions import key_line
from tests.support.report import status_of

STREAM = request(chat("stream", max_tokens=50, stream=True))
STALLED = ("--profile", "instant", "--fault-stall-after-tokens", "2")
LONG = ["--drain-timeout-s", "600"]


def not_ready(front: Balancer) -> bool:
    return status_of(f"{front.admin}/ready") == 503


async def stream(front: Balancer) -> Connection:
    """A stream that has begun and does not go on."""
    connection = await Connection.open(front.port)
    connection.writer.write(STREAM)
    await connection.reader.readuntil(b"\n\n")
    return connection


def test_during_the_delay_new_connections_are_served_though_it_is_not_ready_and_a_signal_ends_it() -> None:
    with (
        mocks(1, "--profile", "instant") as urls,
        balancer(*urls, arguments=["--drain-delay-s", "600"]) as front,
    ):
        front.child.send(signal.SIGTERM)
        eventually(lambda: not_ready(front), what="not ready")
        for _ in range(3):
            assert asyncio.run(ask(front.port, request(chat("hello")))).status == 200
        front.child.send(signal.SIGTERM)
        assert front.child.popen.wait(PATIENCE_S) == 0


def test_the_delay_ends_by_itself_and_then_requests_under_way_end() -> None:
    with (
        mocks(1, *STALLED) as urls,
        balancer(*urls, arguments=["--drain-delay-s", "0.5", "--drain-timeout-s", "600"]) as front,
    ):

        async def run() -> None:
            connection = await stream(front)
            front.child.send(signal.SIGTERM)
            eventually(lambda: not answers(f"{front.url}/v1/models"), what="no new connections")
            assert front.child.alive(), "the stream is not over"
            connection.abort()

        asyncio.run(run())
        assert front.child.popen.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("hurried", [False, True])
def test_a_stream_that_is_left_at_the_end_gets_the_error_event(hurried: bool) -> None:
    timeout = ["--drain-timeout-s", "600" if hurried else "0.5"]
    with mocks(1, *STALLED) as urls, balancer(*urls, arguments=timeout) as front:

        async def run() -> bytes:
            connection = await stream(front)
            front.child.send(signal.SIGTERM)
            if hurried:
                eventually(lambda: not_ready(front), what="not ready")
                front.child.send(signal.SIGTERM)
            rest = await asyncio.wait_for(connection.reader.read(), PATIENCE_S)
            await connection.close()
            return rest

        rest = asyncio.run(run())
        assert rest.count(b'data: {"error"') == 1
        assert b'"code":"shutting_down"' in rest
        assert rest.endswith(b"\r\n0\r\n\r\n"), "the body is ended, not cut"
        assert front.child.popen.wait(PATIENCE_S) == 0
        assert front.log()[-1]["error_code"] == "shutting_down"


def test_requests_without_a_byte_are_answered_at_the_end() -> None:
    one_at_a_time = [
        "--engine-push",
        "outstanding",
        "--engine-outstanding-max",
        "1",
        "--drain-timeout-s",
        "0.5",
    ]
    with (
        mocks(1, "--profile", "l4-8b", "--time-scale", "1000000") as urls,
        balancer(*urls, arguments=one_at_a_time) as front,
    ):

        async def run() -> list[Answer]:
            waiting, held, sending = [await Connection.open(front.port) for _ in range(3)]
            for connection in (waiting, held):
                connection.writer.write(request(chat("hello")))
            sending.writer.write(request(chat("hello"))[:-5])
            eventually(lambda: front.metric("skylb_hold_requests") == 1, what="one held")
            front.child.send(signal.SIGTERM)
            found = [await asyncio.wait_for(c.answer(), PATIENCE_S) for c in (waiting, held, sending)]
            for connection in (waiting, held, sending):
                await connection.close()
            return found

        for answer in asyncio.run(run()):
            assert (answer.status, answer.complete) == (503, True)
            assert answer.headers["retry-after"] == "1"
            assert json.loads(answer.body)["error"]["code"] == "shutting_down"
        assert front.child.popen.wait(PATIENCE_S) == 0


def test_a_stream_that_has_begun_without_a_token_gets_the_error_event_too() -> None:
    arguments = ["--drain-timeout-s", "0.5", "--timeout-stream-keep-alive-s", "0.1"]
    with (
        mocks(1, "--profile", "l4-8b", "--time-scale", "1000000") as urls,
        balancer(*urls, arguments=arguments) as front,
    ):

        async def run() -> bytes:
            connection = await Connection.open(front.port)
            connection.writer.write(STREAM)
            await asyncio.wait_for(connection.reader.readuntil(b"\n\n"), PATIENCE_S)
            front.child.send(signal.SIGTERM)
            rest = await asyncio.wait_for(connection.reader.read(), PATIENCE_S)
            await connection.close()
            return rest

        rest = asyncio.run(run())
        assert rest.count(b'"code":"shutting_down"') == 1
        assert rest.endswith(b"\r\n0\r\n\r\n"), "the body is ended, not cut"
        assert front.child.popen.wait(PATIENCE_S) == 0


@contextmanager
def beside(front: Balancer, arguments: Sequence[str]) -> Iterator[Child]:
    """One more process with the same command line, once it serves."""
    child = Child(list(arguments))
    try:
        child.require(lambda: "try: curl" in child.text(), timeout_s=PATIENCE_S, what="report")
        yield child
    finally:
        child.stop()


def test_a_successor_takes_all_addresses_over_while_the_old_process_drains(tmp_path: Path) -> None:
    keys, unix = tmp_path / "keys", tmp_path / "clients.sock"
    keys.write_text(key_line("k1"))
    keys.chmod(0o600)
    arguments = [*LONG, "--listen", f"unix:{unix}", "--region", "eu", "--peer-key-file", str(keys)]
    arguments += ["--peer", f"us=http://127.0.0.1:{free_port()}"]
    arguments += ["--peer-listen", f"127.0.0.1:{free_port()}", "--sync-listen", f"127.0.0.1:{free_port()}"]
    with (
        mocks(1, *STALLED) as urls,
        mocks(1, "--profile", "instant") as others,
        balancer(*urls, arguments=arguments) as old,
    ):
        command = [*SKYLB, "serve", "--listen", f"127.0.0.1:{old.port}", "--admin"]
        command += [f"127.0.0.1:{old.admin_port}", "--replica", others[0], *arguments]

        async def run() -> None:
            connection = await stream(old)
            old.child.send(signal.SIGTERM)
            eventually(lambda: not_ready(old), what="not ready")
            with beside(old, command) as new:
                assert old.child.alive(), "its stream is not over"
                eventually(lambda: status_of(f"{old.admin}/ready") == 200, what="the successor is ready")
                assert old.state()["process"]["pid"] == new.pid
                assert (await ask(old.port, request(chat("hello")))).status == 200
                await connection.close()
                assert old.child.popen.wait(PATIENCE_S) == 0
                with ExitStack() as stack:
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.settimeout(PATIENCE_S)
                    client.connect(str(unix))
                    client.sendall(request(chat("hello")))
                    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert not unix.exists()

        asyncio.run(run())


def test_the_admin_listener_stays_as_long_as_there_is_no_successor() -> None:
    with mocks(1, *STALLED) as urls, balancer(*urls, arguments=LONG) as front:

        async def run() -> None:
            connection = await stream(front)
            front.child.send(signal.SIGTERM)
            eventually(lambda: not answers(f"{front.url}/v1/models"), what="no new connections")
            for _ in range(20):
                assert not_ready(front)
            assert front.metric("skylb_connections") == 1
            connection.abort()

        asyncio.run(run())
        assert front.child.popen.wait(PATIENCE_S) == 0
