"""A balancer with a peer is succeeded by another process: the peer notices no outage."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_S, Child, eventually
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import Region, regions

FAST = ("--profile", "instant")
PAUSE_S = 0.02
CLIENTS = 4
MORE = 40
"""Answers between two hand-overs."""
HANDOVERS = int(os.environ.get("HANDOVERS", "2"))


class Watch:
    """Looks at what one balancer thinks of another, until it is stopped."""

    def __init__(self, here: Region, peer: str) -> None:
        self.states: set[str] = set()
        self._here, self._peer = here, peer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(PAUSE_S):
            self.states.add(self._here.peers()[self._peer]["state"])

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def succeed(region: Region, path: str) -> Child:
    """Another process takes over; the one before has ended then."""
    before = region.front.child
    after = Child([*region.arguments, "--takeover"])
    after.require(lambda: '"type":"start"' in after.text(), what="takes over")
    region.front.child = after
    assert before.popen.wait(PATIENCE_S) == 0, path
    return after


class Clients:
    """Clients that ask one request after the other, until they are stopped."""

    def __init__(self, region: Region) -> None:
        self.answers: list[Answer] = []
        self._region = region
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask(number) for number in range(CLIENTS)))

    async def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            text = f"client {number}, request {len(self.answers)}"
            self.answers.append(await ask(self._region.front.port, request(chat(text, max_tokens=4))))
            await asyncio.sleep(PAUSE_S)

    def answered(self) -> None:
        """Waits for some more answers."""
        before = len(self.answers)
        eventually(lambda: len(self.answers) >= before + MORE, what="more answers")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("name", ["eu", "us"])
def test_forwards_go_on_and_the_peer_is_not_taken_for_dead(name: str, tmp_path: Path) -> None:
    """Of the two, ``eu`` dials: so one of them is met by its successor, and the other one meets it."""
    path = str(tmp_path / "h.sock")
    with regions("us", "eu", replicas=1, mock=FAST) as found:
        there, here = found[name], found["us" if name == "eu" else "eu"]
        there.arguments += ["--handover-socket", path]
        there.front.child.stop()
        there.start()
        found.settled()
        here.verb(f"/replicas/{here.replicas[0].removeprefix('http://')}/drain")
        clients, watch = Clients(here), Watch(here, name)
        try:
            for _ in range(HANDOVERS):
                clients.answered()
                succeed(there, path)
            clients.answered()
        finally:
            clients.stop()
            watch.stop()
        assert watch.states == {"alive"}
        faults = [answer for answer in clients.answers if (answer.status, answer.complete) != (200, True)]
        assert faults == []
        assert here.serves() <= set(here.replicas), "it has adopted nothing"
        assert here.peers()[name]["forwards_out"] >= len(clients.answers)


def test_an_evacuated_region_stays_so_though_no_peer_reminds_its_balancer(tmp_path: Path) -> None:
    path = str(tmp_path / "h.sock")
    with regions("us", "eu", replicas=1, mock=FAST) as found:
        us = found["us"]
        trusted = us.arguments.index("--trusted-peers")
        us.arguments[trusted : trusted + 2] = ["--handover-socket", path]
        us.front.child.stop()
        us.start()
        found.settled()
        us.verb("/regions/us/evacuate")
        succeed(us, path)
        assert us.front.state()["mesh"]["evacuating"] is True
        us.verb("/regions/us/undrain")
        assert us.front.state()["mesh"]["evacuating"] is False
