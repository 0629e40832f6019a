"""`skylb serve` under a service manager: what it reports, and the sockets that it is passed."""

import asyncio
import shutil
import signal
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.manager import listening, manager, service
from tests.support.processes import PATIENCE_S, SKYLB, Child, eventually, free_port, get, mocks
from tests.support.raw import Connection, ask, chat, request
from tests.support.report import status_of

LOCAL = "127.0.0.1"
DOWN = ["--replica", "http://127.0.0.1:9"]
FREE = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
STALLED = ("--profile", "instant", "--fault-stall-after-tokens", "2")


def url_of(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_it_is_ready_once_it_serves_and_stopping_once_it_ends() -> None:
    with manager() as systemd, ExitStack() as stack:
        child = stack.enter_context(service(systemd, *DOWN, *FREE, "--drain-timeout-s", "7"))
        assert systemd.read()[0]["STATUS"] == "serving: 0 of 1 replicas ready"
        assert "try: curl" in child.text(), "the report is there, so its addresses are"
        assert child.stop(PATIENCE_S) == 0
        assert systemd.await_message(STOPPING="1") == {
            "STOPPING": "1",
            "EXTEND_TIMEOUT_USEC": "17000000",
            "STATUS": "stopping: 0 of 1 replicas ready",
        }


def test_the_status_follows_the_replicas() -> None:
    with manager() as systemd, mocks(1, "--profile", "instant") as urls:
        ready = "serving: 1 of 1 replicas ready"
        with service(systemd, "--replica", urls[0], *FREE) as child:
            systemd.await_message(child, STATUS=ready)


def test_a_start_that_fails_is_never_ready() -> None:
    with manager() as systemd, closing(listening()) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        child = systemd.start(*DOWN, "--listen", address, "--admin", "127.0.0.1:0")
        assert child.ends() == 1
        assert not any("READY" in said for said in systemd.read())
        child.stop()


def test_a_reload_begins_with_its_time_and_ends_ready() -> None:
    with manager() as systemd, service(systemd, *DOWN, *FREE) as child:
        begun = len(systemd.read())
        child.send(signal.SIGHUP)
        said = systemd.await_message(child, RELOADING="1")
        assert int(said["MONOTONIC_USEC"]) > 0
        eventually(lambda: {"READY": "1"}.items() <= systemd.read()[-1].items(), what="ready again")
        assert [sorted(said)[0] for said in systemd.read()[begun:]] == ["MONOTONIC_USEC", "READY"]


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_signs_of_life_come_while_the_manager_asks_for_them_also_during_the_drain(
    workers: tuple[str, ...],
) -> None:
    watched = {"WATCHDOG_USEC": "300000"}
    with manager() as systemd, mocks(1, *STALLED) as urls:
        port = free_port()
        arguments = ["--replica", urls[0], "--drain-timeout-s", "600", "--admin", "127.0.0.1:0"]
        arguments += ["--listen", f"127.0.0.1:{port}", *workers]
        with service(systemd, *arguments, environment=watched) as child:
            systemd.await_message(child, WATCHDOG="1")

            async def run() -> None:
                connection = await Connection.open(port)
                connection.writer.write(request(chat("stream", max_tokens=50, stream=True)))
                await connection.reader.readuntil(b"\n\n")
                child.send(signal.SIGTERM)
                systemd.await_message(child, STOPPING="1")
                begun = len(systemd.read())
                eventually(lambda: sum("WATCHDOG" in said for said in systemd.read()[begun:]) > 2, of=[child])
                connection.abort()

            asyncio.run(run())
            assert child.popen.wait(PATIENCE_S) == 0


def test_without_the_watchdog_there_are_no_signs_of_life() -> None:
    with manager() as systemd, service(systemd, *DOWN, *FREE) as child:
        child.send(signal.SIGHUP)
        systemd.await_message(child, RELOADING="1")
        assert not any("WATCHDOG" in said for said in systemd.read())


def test_a_manager_that_is_away_is_no_reason_to_end() -> None:
    with manager() as systemd:
        with service(systemd, *DOWN, *FREE) as child:
            systemd.path.unlink()
            child.send(signal.SIGHUP)
            child.require(lambda: "the service manager cannot be reached" in child.text(), what="a warning")
            assert child.alive()


# ------------------------------------------------------------------------------ sockets


def test_names_say_which_listener_a_socket_is_and_no_address_of_the_settings_is_bound(tmp_path: Path) -> None:
    unix = tmp_path / "clients"
    with manager() as systemd, ExitStack() as stack:
        client, admin, more = (
            stack.enter_context(closing(listening(at))) for at in (LOCAL, LOCAL, str(unix))
        )
        sockets = [(client, "client"), (admin, "admin"), (more, "client")]
        with (
            closing(listening()) as taken,
            service(
                systemd,
                *DOWN,
                "--listen",
                f"127.0.0.1:{taken.getsockname()[1]}",
                "--admin",
                "127.0.0.1:0",
                sockets=sockets,
            ),
        ):
            assert status_of(f"{url_of(client)}/health") == 503, "no replica is ready"
            assert status_of(f"{url_of(admin)}/health") == 200
            assert talk(unix).startswith(b"HTTP/1.1 503 ")
        assert unix.is_socket(), "its file is the manager's"


def talk(path: Path) -> bytes:
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        sock.sendall(HEALTH)
        return sock.recv(65536)


@pytest.mark.parametrize("name", ["", "unknown", "skylb.socket"])
def test_a_socket_without_a_name_is_the_listener_at_its_address(name: str) -> None:
    with manager() as systemd, closing(listening()) as client:
        address = f"localhost:{client.getsockname()[1]}"
        arguments = [*DOWN, "--listen", address, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        with service(systemd, *arguments, sockets=[(client, name)]) as child:
            assert status_of(f"{url_of(client)}/health") == 503
            assert child.text().count("\n  clients ") == 2, "the other address is bound as ever"


def test_every_socket_that_fits_nothing_is_named_and_nothing_starts(tmp_path: Path) -> None:
    with manager() as systemd, ExitStack() as stack:
        stray, wrong, peer = (stack.enter_context(closing(listening())) for _ in range(3))
        silent = stack.enter_context(closing(socket.socket()))
        plain = stack.enter_context((tmp_path / "file").open("w"))
        sockets = [(stray, ""), (wrong, "clients"), (peer, "peer"), (silent, "client"), (plain, "client")]
        child = systemd.start(*DOWN, *FREE, sockets=sockets)  # type: ignore[arg-type]  # one is no socket
        assert child.ends() == 2
        said = child.text()
        assert "5 faults in the configuration" in said
        for fault in (
            f"socket 3 at 127.0.0.1:{stray.getsockname()[1]}: it has no name, so it is expected at an addr",
            "socket 4 (clients) at 127.0.0.1:",
            "expected the name client, admin, peer or sync, or none",
            "socket 5 (peer) at 127.0.0.1:",
            "expected peer_listen in the settings too",
            "socket 6 (client): expected a socket that listens for streams",
            "socket 7 (client): no socket: Socket operation on non-socket",
        ):
            assert fault in said
        child.stop()


def test_sockets_that_are_meant_for_another_process_are_left_alone() -> None:
    with manager() as systemd, closing(listening()) as sock:
        child = Child(
            [*SKYLB, "serve", *DOWN, *FREE],
            environment={"LISTEN_FDS": "1", "LISTEN_PID": "1", "NOTIFY_SOCKET": str(systemd.path)},
            descriptors=[sock.fileno()],
        )
        try:
            systemd.await_message(child, READY="1")
        finally:
            assert child.stop(PATIENCE_S) == 0


def test_an_admin_socket_that_others_reach_asks_for_a_token_although_the_settings_say_loopback() -> None:
    with manager() as systemd, closing(listening("0.0.0.0")) as admin:
        arguments = [*DOWN, "--listen", "127.0.0.1:0"]
        with service(systemd, *arguments, sockets=[(admin, "admin")]):
            assert status_of(f"{url_of(admin)}/health") == 200
            assert status_of(f"{url_of(admin)}/state") == 403


def test_connections_wait_in_an_inherited_socket_while_the_service_is_restarted() -> None:
    with manager() as systemd, mocks(1, "--profile", "instant") as urls, ExitStack() as stack:
        client, admin = (stack.enter_context(closing(listening())) for _ in range(2))
        sockets, arguments = [(client, "client"), (admin, "admin")], ["--replica", urls[0]]
        with service(systemd, *arguments, sockets=sockets):
            eventually(lambda: status_of(f"{url_of(admin)}/ready") == 200, what="ready")
        waiting = stack.enter_context(closing(socket.create_connection(client.getsockname(), PATIENCE_S)))
        waiting.sendall(HEALTH)
        systemd.messages.clear()
        with service(systemd, *arguments, sockets=sockets):
            assert waiting.recv(65536).startswith(b"HTTP/1.1 ")


def test_the_admin_listener_stays_during_the_drain_though_the_manager_keeps_the_clients_socket() -> None:
    with manager() as systemd, mocks(1, *STALLED) as urls, closing(listening()) as client:
        admin = f"127.0.0.1:{free_port()}"
        arguments = ["--replica", urls[0], "--admin", admin, "--drain-timeout-s", "600"]
        with service(systemd, *arguments, sockets=[(client, "client")]) as child:
            eventually(lambda: status_of(f"http://{admin}/ready") == 200, what="ready")

            async def run() -> None:
                connection = await Connection.open(client.getsockname()[1])
                connection.writer.write(request(chat("stream", max_tokens=50, stream=True)))
                await connection.reader.readuntil(b"\n\n")
                child.send(signal.SIGTERM)
                systemd.await_message(child, STOPPING="1")
                late = await Connection.open(client.getsockname()[1])  # the manager's queue takes it
                for _ in range(20):
                    assert status_of(f"http://{admin}/ready") == 503
                assert "the admin address is free" not in child.text()
                late.abort()
                connection.abort()

            asyncio.run(run())
            assert child.popen.wait(PATIENCE_S) == 0


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd is not installed")
def test_the_real_systemd_socket_activate_starts_it_with_the_first_connection() -> None:
    port, admin = free_port(), free_port()
    names = ["--fdname", "client:admin", "-l", f"127.0.0.1:{port}", "-l", f"127.0.0.1:{admin}"]
    with mocks(1, "--profile", "instant") as urls:
        command = ["systemd-socket-activate", *names, *SKYLB, "serve", "--replica", urls[0]]
        child = Child(command)
        try:
            child.require(lambda: "Listening on" in child.text(), what="the activator listens")
            assert not child.text().count("replica "), "nothing runs before the first connection"
            assert get(f"http://127.0.0.1:{admin}/health")
            eventually(lambda: status_of(f"http://127.0.0.1:{admin}/ready") == 200, what="ready")
            assert asyncio.run(ask(port, request(chat("hello")))).status == 200
        finally:
            assert child.stop(PATIENCE_S) == 0
