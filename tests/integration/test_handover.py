"""One process takes the place of another: nothing is refused, reset or cut."""

import asyncio
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_S, SKYLB, Balancer, Child, balancer, eventually, get, mocks
from tests.support.raw import Connection, ask, chat, request
from tests.support.report import status_of

STREAM = request(chat("stream", max_tokens=50, stream=True))
STALLED = ("--profile", "instant", "--fault-stall-after-tokens", "2")
LONG = ("--drain-timeout-s", "600")


def command(front: Balancer, *arguments: str) -> list[str]:
    """The command line of a process that listens where ``front`` does."""
    listen = ["--listen", f"127.0.0.1:{front.port}", "--admin", f"127.0.0.1:{front.admin_port}"]
    return [*SKYLB, "serve", *listen, "--access-log", str(front.access_log), *arguments]


@contextmanager
def taking_over(front: Balancer, *arguments: str) -> Iterator[Child]:
    """A process that takes over, once it serves."""
    child = Child(command(front, "--takeover", *arguments))
    try:
        child.require(lambda: "try: curl" in child.text(), what="report")
        yield child
    finally:
        child.stop()


def pid_of(front: Balancer) -> int:
    return int(front.state()["process"]["pid"])


def there(path: Path) -> bool:
    return path.exists()


def replicas(urls: Sequence[str]) -> list[str]:
    return [word for url in urls for word in ("--replica", url)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "handover.sock"


def test_a_stream_goes_on_in_the_old_process_while_the_new_one_serves(path: Path) -> None:
    own = ["--handover-socket", str(path), *LONG]
    with mocks(1, *STALLED) as urls, mocks(1, "--profile", "instant") as others:
        with balancer(*urls, arguments=own) as old:

            async def run() -> None:
                connection = await Connection.open(old.port)
                connection.writer.write(STREAM)
                await connection.reader.readuntil(b"\n\n")
                with taking_over(old, *replicas(others), *own) as new:
                    assert old.child.alive(), "its stream is not over"
                    assert pid_of(old) == new.pid
                    assert (await ask(old.port, request(chat("hello")))).status == 200
                    await connection.close()
                    assert old.child.popen.wait(PATIENCE_S) == 0
                    assert there(path), "the new process hands over there"
                assert not there(path)

            asyncio.run(run())


def test_signal_usr2_starts_the_program_again(path: Path) -> None:
    with mocks(1, "--profile", "instant") as urls, balancer(*urls) as front:
        before = pid_of(front)
        front.child.send(signal.SIGUSR2)
        eventually(lambda: pid_of(front) != before, what="another process")
        assert front.child.popen.wait(PATIENCE_S) == 0
        assert asyncio.run(ask(front.port, request(chat("hello")))).status == 200


def test_without_a_balancer_a_process_that_is_to_take_over_starts_as_usual(path: Path) -> None:
    with mocks(1, "--profile", "instant") as urls:
        with balancer(*urls, arguments=["--takeover", "--handover-socket", str(path)]) as front:
            assert status_of(f"{front.admin}/ready") == 200
            assert path.stat().st_mode & 0o777 == 0o600


def test_a_unix_socket_of_clients_stays_though_the_old_process_ends(path: Path, tmp_path: Path) -> None:
    clients = tmp_path / "clients.sock"
    own = ["--handover-socket", str(path), "--listen", f"unix:{clients}"]
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=own) as old:
        with taking_over(old, *replicas(urls), *own):
            assert old.child.popen.wait(PATIENCE_S) == 0
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE_S)
                client.connect(str(clients))
                client.sendall(request(chat("hello")))
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert not clients.exists()


def test_what_cannot_come_up_changes_nothing(path: Path, tmp_path: Path) -> None:
    own = ["--handover-socket", str(path)]
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=own) as old:
        bad = tmp_path / "bad.pem"
        bad.write_text("nothing")
        child = Child(
            command(old, "--takeover", *replicas(urls), *own, "--tls-cert", str(bad), "--tls-key", str(bad))
        )
        assert child.popen.wait(PATIENCE_S) == 2
        old.child.require(lambda: "this process goes on" in old.child.text(), what="a line in the log")
        assert "it cannot serve: tls_cert" in old.child.text()
        assert get(f"{old.url}/v1/models")
        with taking_over(old, *replicas(urls), *own) as new:
            assert pid_of(old) == new.pid, "the next one takes over"
