"""The commands of INSTALL.md and README.md, word for word, as a stranger types them in a clean clone."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.distribution import pages
from tests.distribution.checkout import Checkout
from tests.distribution.pages import Command
from tests.distribution.quiet import network
from tests.support.processes import Child

PORTS = (8080, 8081, 8101, 8102)
"""What the pages' commands listen at."""

TIMEOUT_S = 3600.0
"""Of one command: builds share this machine with others."""

STOPPED = {0, 130, -signal.SIGINT}
"""Status of what is stopped by Ctrl-C: a command has 0 or 130, and make ends by the signal itself."""


@pytest.fixture
def inside() -> Iterator[list[str]]:
    """Words that begin a command in a network of its own, else none if the pages' ports are free here."""
    with network() as words:
        if words is None:
            if taken := [port for port in PORTS if is_taken(port)]:
                pytest.skip(f"port {taken[0]} is in use, and this machine gives no network of our own")
            print("the commands ran in this machine's own network")
        yield words or []


def is_taken(port: int) -> bool:
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Stranger:
    """Types commands in a clone. What serves goes on in a terminal of its own until the page ends."""

    def __init__(self, checkout: Checkout, inside: list[str]) -> None:
        self._checkout = checkout
        self._inside = inside
        self._serving = ExitStack()

    def types(self, command: Command) -> None:
        """Runs a command; one that serves, until it is ready, and then what it says to try."""
        began = time.monotonic()
        if command.serves:
            child = self._start(command)
            for line in pages.to_try(child.text()):
                said = self._run(line, local=True)
                assert "data: {" in said, said
        else:
            self._run(command.text, local=command.local)
        print(f"ok {time.monotonic() - began:6.1f} s  {command.text}")

    def _words(self, text: str, *, local: bool) -> list[str]:
        environment = [f"{name}={value}" for name, value in self._checkout.environment.items()]
        command = ["env", "-i", f"--chdir={self._checkout.tree}", *environment, "bash", "-c", text]
        return [*self._inside, *command] if local else command

    def _run(self, text: str, *, local: bool) -> str:
        child = Child(self._words(text, local=local))
        try:
            status = child.popen.wait(TIMEOUT_S)
            assert status == 0, f"{text}: status {status}\n{child.text()[-5000:]}"
            return child.text()
        finally:
            child.stop()

    def _start(self, command: Command) -> Child:
        child = Child(self._words(f"exec {command.text}", local=True))
        self._serving.callback(self._stop, child, command)
        ready = pages.READY[command.serves]
        child.require(lambda: ready in child.text(), timeout_s=120.0, what=command.text)
        return child

    def _stop(self, child: Child, command: Command) -> None:
        """Ctrl-C, which every process of the terminal gets."""
        try:
            assert child.alive(), f"{command.text}: ended before it was stopped\n{child.text()[-3000:]}"
            os.killpg(child.pid, signal.SIGINT)
            status = child.popen.wait(60)
            assert status in STOPPED, f"{command.text}: status {status} after Ctrl-C\n{child.text()[-3000:]}"
        finally:
            child.stop()

    def leaves(self) -> None:
        """Stops what serves, the last first."""
        self._serving.close()


def walk(page: str, checkout: Checkout, inside: list[str]) -> int:
    """Types all commands of a page; how many."""
    found = list(pages.commands((checkout.tree / page).read_text()))
    stranger = Stranger(checkout, inside)
    try:
        for command in found:
            stranger.types(command)
    finally:
        stranger.leaves()
    return len(found)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the page names the wheel for x86-64")
def test_every_command_of_install_works(checkout: Checkout, inside: list[str]) -> None:
    assert walk("docs/INSTALL.md", checkout, inside) > 5


def test_every_command_of_the_readme_works(checkout: Checkout, inside: list[str]) -> None:
    assert walk("README.md", checkout, inside) >= 5
