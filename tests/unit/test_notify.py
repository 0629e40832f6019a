"""Messages to the service manager, over a real socket."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from skylb.errors import ConfigError
from skylb.notify import Notifier

PID = 7


def status() -> str:
    return "fine"


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """A manager's socket, under an abstract name that the kernel chose."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind("")
        sock.setblocking(False)
        yield sock


def name_of(sock: socket.socket) -> str:
    return "@" + bytes(sock.getsockname())[1:].decode()


def said(sock: socket.socket) -> list[list[str]]:
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(sock.recv(4096).decode().split("\n"))
    return found


def test_without_a_manager_nothing_is_asked_or_sent() -> None:
    def never() -> str:
        raise AssertionError

    notifier = Notifier.of({}, PID, never)
    with notifier.reload():
        notifier.ready()
    notifier.stopping(1.0)
    notifier.close()


def test_a_reload_before_the_start_and_behind_the_end_is_not_reported(manager: socket.socket) -> None:
    async def run() -> None:
        notifier = Notifier.of({"NOTIFY_SOCKET": name_of(manager)}, PID, status)
        with notifier.reload():
            pass
        notifier.ready()
        notifier.stopping(5)
        with notifier.reload():
            pass
        notifier.close()

    asyncio.run(run())
    assert said(manager) == [["READY=1", "STATUS=fine"], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000"]]


def test_a_message_that_could_not_be_sent_goes_out_with_the_next_one(manager: socket.socket) -> None:
    name = name_of(manager)
    manager.close()

    async def run() -> list[list[str]]:
        notifier = Notifier.of({"NOTIFY_SOCKET": name}, PID, status)
        notifier.ready()
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as again:
            again.bind("\0" + name[1:])
            again.setblocking(False)
            notifier.stopping(5)
            notifier.close()
            return said(again)

    assert asyncio.run(run()) == [["READY=1", "STATUS=fine", "STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000"]]


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "NOTIFY_SOCKET: 'vsock:2:1': expected /PATH or @NAME"),
        ({"NOTIFY_SOCKET": ""}, "NOTIFY_SOCKET: '': expected"),
        ({"WATCHDOG_USEC": "9" * 5000}, "WATCHDOG_USEC: '9+': expected"),
        ({"WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC: 'soon': expected a number of microseconds"),
        ({"WATCHDOG_USEC": "0", "WATCHDOG_PID": "7"}, "WATCHDOG_USEC: '0': expected"),
    ],
)
def test_what_no_manager_writes_is_a_fault(variables: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError, match=f"^{fault}"):
        Notifier.of(variables, PID, status)


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    Notifier.of({"WATCHDOG_USEC": "0", "WATCHDOG_PID": "8"}, PID, status)


def test_a_service_that_does_not_live_gives_no_sign_of_life(manager: socket.socket) -> None:
    alive = [False]

    async def run() -> None:
        variables = {"NOTIFY_SOCKET": name_of(manager), "WATCHDOG_USEC": "15000"}
        notifier = Notifier.of(variables, PID, status, lambda: alive[0])
        notifier.ready()
        await asyncio.sleep(0.1)  # many times as long as between two signs of life
        assert said(manager) == [["READY=1", "STATUS=fine"]]
        alive[0] = True
        await asyncio.sleep(0.1)
        assert ["WATCHDOG=1"] in said(manager)
        notifier.close()

    asyncio.run(run())
