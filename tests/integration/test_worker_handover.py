"""Balancers with workers take each other's place, and keep what they have learned."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.callers import Callers, Door
from tests.support.processes import PATIENCE_S, SKYLB, Balancer, Child, balancer, eventually, mocks
from tests.support.raw import Connection, ask, chat, request
from tests.support.workers import engine_pid_if_any, parent_of, pids

FAST = ("--profile", "instant")
STALLED = (*FAST, "--fault-stall-after-tokens", "2")
STREAM = request(chat("stream", max_tokens=50, stream=True))
HELLO = request(chat("hello"))


def flags(count: int) -> list[str]:
    return ["--workers", str(count)] if count > 1 else []


def command(front: Balancer, *arguments: str) -> list[str]:
    """The command line of a process that listens where ``front`` does."""
    listen = ["--listen", f"127.0.0.1:{front.port}", "--admin", f"127.0.0.1:{front.admin_port}"]
    return [*SKYLB, "serve", *listen, "--access-log", str(front.access_log), *arguments]


def serves(front: Balancer, child: Child, before: int | None) -> None:
    """Waits until another engine than ``before`` answers, and all that it needs."""
    child.require(lambda: engine_pid_if_any(front) not in {None, before}, what="takes over")


@contextmanager
def terminated(children: list[Child]) -> Iterator[None]:
    try:
        yield
    finally:
        for child in children:
            child.stop()


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 2), (2, 1), (2, 3)])
def test_a_hand_over_under_load_refuses_resets_and_cuts_nothing(old: int, new: int, tmp_path: Path) -> None:
    clients = tmp_path / "clients.sock"
    path = tmp_path / "handover.sock"
    own = ["--handover-socket", str(path), "--listen", f"unix:{clients}"]
    children: list[Child] = []
    with (
        mocks(2, *FAST) as urls,
        balancer(*urls, arguments=[*own, *flags(old)]) as front,
        terminated(children),
    ):
        words = [word for url in urls for word in ("--replica", url)]

        async def run() -> tuple[int, dict[str, int]]:
            doors = [Door("TCP", port=front.port), Door("Unix", path=str(clients))]
            async with Callers(doors, 6) as callers:
                before = engine_pid_if_any(front)
                after = Child(command(front, "--takeover", *words, *own, *flags(new)))
                children.append(after)
                await asyncio.to_thread(serves, front, after, before)
                assert await asyncio.to_thread(front.child.popen.wait, PATIENCE_S) == 0
                answered = callers.total().outcomes["ok"]
                more = lambda: callers.total().outcomes["ok"] >= answered + 50  # noqa: E731 - of this moment
                await asyncio.to_thread(eventually, more, what="more answers")
            return callers.total().outcomes["ok"], callers.total().faults

        answered, faults = asyncio.run(run())
        assert answered > 50
        assert faults == {}
        if new > 1:
            eventually(lambda: len(pids(front)) == new, what="all workers serve")
        assert clients.exists()
    assert not clients.exists()


def test_a_stream_goes_on_in_the_old_workers_while_the_new_ones_serve(tmp_path: Path) -> None:
    own = ["--handover-socket", str(tmp_path / "h.sock"), "--drain-timeout-s", "600", *flags(2)]
    children: list[Child] = []
    with (
        mocks(1, *STALLED) as urls,
        mocks(1, *FAST) as others,
        balancer(*urls, arguments=own) as old,
        terminated(children),
    ):

        async def run() -> None:
            connection = await Connection.open(old.port)
            connection.writer.write(STREAM)
            await connection.reader.readuntil(b"\n\n")
            before = engine_pid_if_any(old)
            children.append(Child(command(old, "--takeover", "--replica", others[0], *own)))
            await asyncio.to_thread(serves, old, children[0], before)
            assert before is not None
            gone = lambda: not listens(before, old.port)  # noqa: E731 - of this moment
            await asyncio.to_thread(eventually, gone, what="the old engine process lets go of the port")
            assert (await ask(old.port, HELLO)).status == 200
            assert old.child.alive(), "its stream is not over"
            await connection.close()
            assert await asyncio.to_thread(old.child.popen.wait, PATIENCE_S) == 0

        asyncio.run(run())


def listens(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens at a port of IPv4."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    names = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found.add(str(entry.readlink()))
    return not names.isdisjoint(found)


def test_signal_usr2_starts_all_processes_again() -> None:
    with mocks(1, *FAST) as urls, balancer(*urls, arguments=flags(2)) as front:
        before = engine_pid_if_any(front)
        front.child.send(signal.SIGUSR2)
        serves(front, front.child, before)
        heir = engine_pid_if_any(front)
        assert heir is not None
        supervisor = parent_of(heir)
        try:
            assert front.child.popen.wait(PATIENCE_S) == 0
            assert asyncio.run(ask(front.port, HELLO)).status == 200
        finally:
            with suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGTERM)
        eventually(lambda: engine_pid_if_any(front) is None, what="its end")


def test_new_workers_that_cannot_come_up_change_nothing(tmp_path: Path) -> None:
    own = ["--handover-socket", str(tmp_path / "h.sock"), *flags(2)]
    with mocks(1, *FAST) as urls, balancer(*urls, arguments=own) as old:
        before = engine_pid_if_any(old)
        bad = [*command(old, "--takeover", "--replica", urls[0], *own)]
        bad[bad.index("--access-log") + 1] = str(tmp_path / "nowhere" / "log")
        child = Child(bad)
        assert child.ends() != 0
        child.stop()
        old.child.require(lambda: "this process goes on" in old.child.text(), what="a line in the log")
        assert engine_pid_if_any(old) == before
        assert asyncio.run(ask(old.port, HELLO)).status == 200


def test_a_balancer_with_workers_keeps_what_it_has_learned(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    own = ["--state-dir", str(tmp_path), "--state-interval-s", "1", *flags(2)]
    with mocks(1, *FAST) as urls:
        with balancer(*urls, arguments=own) as front:
            assert outcome(front) == "absent"
            asyncio.run(ask(front.port, request(chat("a prompt of many blocks " * 80))))
            eventually((tmp_path / "state").exists, what="a state")
            written = (tmp_path / "state").stat().st_mtime_ns
            eventually(lambda: (tmp_path / "state").stat().st_mtime_ns > written, what="another one")
            front.child.kill()
        with balancer(*urls, arguments=own) as front:
            assert outcome(front) == "warm"
            eventually(lambda: tree_blocks(front) > 0, what="the tree is there")


def tree_blocks(front: Balancer) -> int:
    return sum(replica["tree_blocks"] for replica in front.state()["engine"]["replicas"])


def outcome(front: Balancer) -> str:
    pages = front.metrics().splitlines()
    found = [line for line in pages if line.startswith("skylb_state_start{") and line.endswith(" 1.0")]
    return found[0].partition('outcome="')[2].partition('"')[0]
