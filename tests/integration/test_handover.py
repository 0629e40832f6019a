"""One process takes the place of another: nothing is refused, reset or cut."""

import asyncio
import json
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from skylb.data.context import YIELD_IDLE_S
from skylb.handover.protocol import VERSION, Hello, Kind, Waiting, encode
from tests.support.callers import Callers, Door
from tests.support.manager import asked, listening, manager, service
from tests.support.processes import (
    PATIENCE_S,
    SKYLB,
    Balancer,
    Child,
    balancer,
    eventually,
    free_port,
    get,
    mocks,
)
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
        reports(child)
        yield child
    finally:
        child.stop()


def reports(child: Child) -> None:
    """Waits until it serves."""
    child.require(lambda: "try: curl" in child.text(), what="report")


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
        assert child.ends() == 2
        old.child.require(lambda: "this process goes on" in old.child.text(), what="a line in the log")
        assert "it cannot serve: tls_cert" in old.child.text()
        assert get(f"{old.url}/v1/models")
        with taking_over(old, *replicas(urls), *own) as new:
            assert pid_of(old) == new.pid, "the next one takes over"


def test_three_in_a_row_under_load_refuse_reset_and_cut_nothing(path: Path, tmp_path: Path) -> None:
    clients = tmp_path / "clients.sock"
    own = ["--handover-socket", str(path), "--listen", f"unix:{clients}"]
    with mocks(2, "--profile", "instant") as urls, balancer(*urls, arguments=own) as first:

        async def run() -> dict[str, int]:
            doors = [Door("TCP", port=first.port), Door("Unix", path=str(clients))]
            async with Callers(doors, 6) as callers:
                before = first.child
                for _ in range(3):
                    after = Child(command(first, "--takeover", *replicas(urls), *own))
                    successors.append(after)
                    await asyncio.to_thread(reports, after)
                    assert await asyncio.to_thread(before.popen.wait, PATIENCE_S) == 0
                    before = after
            assert callers.total().outcomes["ok"] > 0
            return callers.total().faults

        successors: list[Child] = []
        try:
            assert asyncio.run(run()) == {}
        finally:
            for child in successors:
                child.stop()


def test_an_idle_connection_has_time_for_another_request(path: Path) -> None:
    own = ["--handover-socket", str(path)]
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=own) as old:

        async def run() -> None:
            connection = await Connection.open(old.port)
            assert (await connection.ask(request(chat("hello")))).status == 200
            with taking_over(old, *replicas(urls), *own):
                assert await connection.reader.read() == b""
                await connection.close()
                assert await asyncio.to_thread(old.child.popen.wait, PATIENCE_S) == 0

        asyncio.run(run())
        lines = [json.loads(line) for line in old.child.text().splitlines()]
        begins, ends = [
            datetime.fromisoformat(line["ts"])
            for line in lines
            if line["type"] == "stop" or line["message"].startswith("draining")
        ]
        assert (ends - begins).total_seconds() >= YIELD_IDLE_S


# ---------------------------------------------------------------------- what fails


class Stranger:
    """A process that begins a hand-over as this test wants."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(path))
        self.waiting = Waiting(self.sock)

    def hello(self, version: int = VERSION) -> None:
        self.sock.sendall(encode(Kind.HELLO, Hello(version, "test", 1)))

    def close(self) -> None:
        while self.waiting.descriptors:
            socket.close(self.waiting.descriptors.pop())
        self.sock.close()


@contextmanager
def stranger(path: Path) -> Iterator[Stranger]:
    found = Stranger(path)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def front(path: Path) -> Iterator[Balancer]:
    own = ["--handover-socket", str(path), "--takeover-timeout-s", "2"]
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=own) as found:
        yield found
        assert asyncio.run(ask(found.port, request(chat("hello")))).status == 200, "it goes on"
        assert found.state()["process"]["stopping"] is False


def says(front: Balancer, text: str) -> None:
    front.child.require(lambda: text in front.child.text(), what=text)
    assert "this process goes on" in front.child.text()
    assert front.metric("skylb_handovers_failed_total") == 1


def test_another_version_is_refused_with_both_numbers(front: Balancer, path: Path) -> None:
    with stranger(path) as other:
        other.hello(VERSION + 1)
        answer = other.waiting.receive()
    assert answer is not None
    assert answer[0] is Kind.REFUSED
    assert f"it speaks version {VERSION + 1}" in answer[1].decode()
    says(front, f"this one {VERSION}")


def test_who_says_nothing_of_ours_is_refused(front: Balancer, path: Path) -> None:
    with stranger(path) as other:
        other.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        says(front, "no frame of ours")


def test_one_that_is_killed_while_it_receives_changes_nothing(front: Balancer, path: Path) -> None:
    with stranger(path) as other:
        other.hello()
        frame = other.waiting.receive()
        assert frame is not None
        assert frame[0] is Kind.SOCKETS
    says(front, "it ended before it was ready")


def test_one_that_is_not_ready_in_time_is_given_up(front: Balancer, path: Path) -> None:
    with stranger(path) as other:
        other.hello()
        says(front, "it was not ready within 2 s")
        kinds = []
        while (frame := other.waiting.receive()) is not None:
            kinds.append(frame[0])
    assert (kinds[0], kinds[-1]) == (Kind.SOCKETS, Kind.REFUSED)


def test_one_that_ends_after_it_was_ready_changes_nothing(front: Balancer, path: Path) -> None:
    with stranger(path) as other:
        other.hello()
        kinds = []
        while (frame := other.waiting.receive()) is not None and frame[0] is not Kind.STATE_END:
            kinds.append(frame[0])
        other.sock.sendall(encode(Kind.READY))
        while (frame := other.waiting.receive()) is not None and frame[0] is not Kind.YIELDED:
            kinds.append(frame[0])
        assert frame is not None, kinds
        with socket.create_connection(("127.0.0.1", front.port), PATIENCE_S) as client:
            client.sendall(request(chat("it waits in the queue")))
            other.close()
            client.settimeout(PATIENCE_S)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    says(front, "it ended before it served")


def test_one_that_fails_after_it_was_ready_changes_nothing(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "skylb.toml"
    file.write_text(f'handover_socket = "{path}"')
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=["--config", str(file)]) as old:
        file.write_text(f'handover_socket = "{tmp_path}/nowhere/h.sock"')
        before = pid_of(old)
        old.child.send(signal.SIGUSR2)
        old.child.require(lambda: "this process goes on" in old.child.text(), what="a line in the log")
        assert "it cannot serve: --handover-socket" in old.child.text()
        assert pid_of(old) == before
        assert asyncio.run(ask(old.port, request(chat("hello")))).status == 200
        file.write_text(f'handover_socket = "{path}"')
        with taking_over(old, *replicas(urls), "--config", str(file)) as new:
            assert pid_of(old) == new.pid, "the next one takes over"


def test_a_second_take_over_at_the_same_time_is_refused(path: Path) -> None:
    own = ["--handover-socket", str(path), "--replica", "http://127.0.0.1:9"]
    with balancer(arguments=own, wait_ready=False) as old:
        old.child.require(lambda: '"type":"start"' in old.child.text(), what="it hands over from now on")
        with stranger(path) as other:
            other.hello()
            second = Child(command(old, "--takeover", *own))
            assert second.ends() == 1
            assert "another hand-over is under way" in second.text()
            second.stop()


def test_one_that_is_killed_while_it_starts_changes_nothing(path: Path) -> None:
    own = ["--handover-socket", str(path)]
    with (
        mocks(1, "--profile", "instant") as urls,
        balancer(*urls, arguments=own) as old,
        listening() as silent,
    ):
        late = f"http://127.0.0.1:{silent.getsockname()[1]}"  # its first probe takes all of its time
        child = Child(command(old, "--takeover", *own, "--replica", late))
        child.require(lambda: asked(silent), what="its first probe")
        with silent.accept()[0]:
            child.kill()
        says(old, "it ended before it was ready")
        child.stop()
        assert asyncio.run(ask(old.port, request(chat("hello")))).status == 200


def send(url: str, method: str, data: bytes = b"") -> dict[str, object]:
    asked = urllib.request.Request(url, method=method, data=data)
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        return dict(json.loads(answer.read()))


def test_what_operators_have_asked_for_goes_along(path: Path, tmp_path: Path) -> None:
    own = ["--handover-socket", str(path)]
    with mocks(4, "--profile", "instant") as urls, balancer(*urls, arguments=own) as old:
        names = [url.removeprefix("http://") for url in urls]
        verbs = ("drain", "leave?in=500", "drain", "leave?in=400")
        for name, verb in zip(names, verbs, strict=True):
            send(f"{old.admin}/replicas/{name}/{verb}", "POST")
        send(f"{old.admin}/continuing", "PUT", b'{"continuing": "on"}')
        listed = tmp_path / "replicas"
        listed.write_text("\n".join(urls[:2]))  # the new process does not know the others at its start
        with taking_over(old, *own, "--replicas-file", str(listed)) as new:
            assert pid_of(old) == new.pid
            told = send(f"{old.admin}/continuing", "PUT", b'{"continuing": "on"}')
            assert told == {"continuing": "on", "before": "on"}
            listed.write_text("\n".join(urls))
            new.send(signal.SIGHUP)
            eventually(lambda: len(old.state()["engine"]["replicas"]) == 4, what="all are there")
            found = [
                row
                for name in names
                for row in old.state()["engine"]["replicas"]
                if row["name"].endswith(name)
            ]
            assert [row["draining"] for row in found] == [True] * 4
            assert [row["leaves_in_s"] is None for row in found] == [True, False, True, False]
            assert 400 < found[1]["leaves_in_s"] <= 500
            assert 0 < found[3]["leaves_in_s"] <= 400


def test_a_start_that_fails_leaves_the_state_of_the_balancer_that_runs_alone(tmp_path: Path) -> None:
    own = ["--state-dir", str(tmp_path)]
    tmp_path.chmod(0o700)
    with mocks(1, "--profile", "instant") as urls:
        with balancer(*urls, arguments=own) as front:
            cached_of(front.port, "a prompt " * 100)
        before = (tmp_path / "state").read_bytes()
        with balancer(*urls, arguments=[*own, "--state-interval-s", "600"]):
            ports = ["--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
            child = Child([*SKYLB, "serve", *ports, *replicas(urls), *own])
            assert child.ends() == 1
            assert "--handover-socket: cannot listen" in child.text()
            child.stop()
            assert (tmp_path / "state").read_bytes() == before


def test_the_hand_over_socket_is_closed_where_the_new_settings_have_none(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "skylb.toml"
    file.write_text(f'handover_socket = "{path}"')
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=["--config", str(file)]) as old:
        assert there(path)
        file.write_text("")
        before = pid_of(old)
        old.child.send(signal.SIGUSR2)
        eventually(lambda: pid_of(old) != before, what="another process")
        assert old.child.popen.wait(PATIENCE_S) == 0
        assert not there(path)


def test_a_socket_of_another_name_is_bound_anew_and_one_that_is_not_wanted_is_closed(path: Path) -> None:
    own = ["--handover-socket", str(path)]
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=own) as old:
        port = free_port()
        moved = [*SKYLB, "serve", "--takeover", "--listen", f"127.0.0.1:{port}", *own, *replicas(urls)]
        child = Child([*moved, "--admin", f"127.0.0.1:{old.admin_port}"])
        try:
            reports(child)
            assert old.child.popen.wait(PATIENCE_S) == 0
            assert asyncio.run(ask(port, request(chat("hello")))).status == 200
            with pytest.raises(ConnectionRefusedError):
                asyncio.run(ask(old.port, request(chat("hello"))))
        finally:
            child.stop()


# ---------------------------------------------------------------------- under a service manager


def test_a_service_goes_on_as_the_new_process_with_the_managers_socket(path: Path) -> None:
    with manager() as systemd, listening() as clients, mocks(1, "--profile", "instant") as urls:
        words = [*replicas(urls), "--admin", f"127.0.0.1:{free_port()}", "--handover-socket", str(path)]
        with service(systemd, *words, sockets=[(clients, "client")]) as old:
            old.send(signal.SIGUSR2)
            said = systemd.await_message(
                old, MAINPID=eventually(lambda: main_pid(systemd.read()), what="MAINPID")
            )
            systemd.await_message(READY="1", MAINPID=said["MAINPID"])
            assert int(said["MAINPID"]) != old.pid
            assert old.popen.wait(PATIENCE_S) == 0
            assert not any("STOPPING" in message for message in systemd.read()), "the service does not stop"
            port = clients.getsockname()[1]
            assert asyncio.run(ask(port, request(chat("hello")))).status == 200
            assert "127.0.0.1:8080" not in old.text(), "the manager's socket takes the place of all addresses"


def main_pid(messages: list[dict[str, str]]) -> str | None:
    return next((message["MAINPID"] for message in messages if "MAINPID" in message), None)


# ---------------------------------------------------------------------- the state


def cached_of(port: int, text: str) -> int:
    """Tokens of a prompt that the replica had cached."""
    answer = asyncio.run(ask(port, request(chat(text))))
    assert answer.status == 200
    return int(answer.body.partition(b'"cached_tokens":')[2].split(b"}")[0] or 0)


def tree_blocks(front: Balancer) -> int:
    return sum(replica["tree_blocks"] for replica in front.state()["engine"]["replicas"])


def outcome(front: Balancer) -> str:
    pages = front.metrics().splitlines()
    found = [line for line in pages if line.startswith("skylb_state_start{") and line.endswith(" 1.0")]
    return found[0].partition('outcome="')[2].partition('"')[0]


def test_what_was_learned_is_kept_over_a_restart_and_a_damaged_file_starts_cold(tmp_path: Path) -> None:
    state = tmp_path / "kept"
    own = ["--state-dir", str(state)]
    text = "a prompt that is long enough for many blocks " * 40
    with mocks(3, "--profile", "instant") as urls:
        with balancer(*urls, arguments=own) as front:
            assert outcome(front) == "absent"
            cached_of(front.port, text)
            assert front.child.stop(PATIENCE_S) == 0
        file = state / "state"
        assert (file.stat().st_mode & 0o777, state.stat().st_mode & 0o777) == (0o600, 0o700)
        with balancer(*urls, arguments=own) as front:
            assert outcome(front) == "warm"
            eventually(
                lambda: tree_blocks(front) > 0, what="the tree is there"
            )  # it is read behind the probes
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        with balancer(*urls, arguments=own) as front:
            assert outcome(front) == "foreign"
            eventually(lambda: "its checksum does not fit" in front.child.text(), what="a line in the log")


def test_the_state_is_written_every_so_often(tmp_path: Path) -> None:
    own = ["--state-dir", str(tmp_path), "--state-interval-s", "1"]
    tmp_path.chmod(0o700)
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=own) as front:
        eventually((tmp_path / "state").exists, what="a state")
        began = time.time()
        eventually(lambda: (tmp_path / "state").stat().st_mtime > began, what="another one")
        front.child.kill()
        with balancer(*urls, arguments=own) as after:
            assert outcome(after) == "warm", "a balancer that is killed has kept it"
