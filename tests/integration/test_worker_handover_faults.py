"""Something dies in a hand-over between balancers with workers: one balancer is left, and it serves."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skylb.handover.protocol import Kind
from tests.support.handovers import Side, giver, gives, taker
from tests.support.manager import asked, listening, manager, service
from tests.support.processes import PATIENCE_S, SKYLB, Balancer, Child, balancer, eventually, free_port, mocks
from tests.support.raw import ask, chat, request
from tests.support.workers import engine_pid, engine_pid_if_any, pids

FAST = ("--profile", "instant")
HELLO = request(chat("hello"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "handover.sock"


def flags(count: int) -> list[str]:
    return ["--workers", str(count)] if count > 1 else []


def answers(front: Balancer) -> None:
    assert asyncio.run(ask(front.port, HELLO)).status == 200


def await_another_engine(front: Balancer, before: int) -> None:
    front.child.require(lambda: engine_pid_if_any(front) not in {None, before}, what="another engine process")


# ---------------------------------------------------------------------- the old balancer


@pytest.mark.parametrize("new", [1, 2])
def test_the_old_balancer_goes_on_if_its_engine_process_dies_while_the_new_one_starts(
    new: int, path: Path
) -> None:
    own = ["--handover-socket", str(path)]
    with (
        mocks(1, *FAST) as urls,
        balancer(*urls, arguments=[*own, *flags(2)]) as old,
        listening() as silent,
    ):
        before = engine_pid(old)
        late = f"http://127.0.0.1:{silent.getsockname()[1]}"  # its first probe takes all of its time
        child = Child(heir_of(old, *own, *flags(new), "--replica", late))
        try:
            child.require(lambda: asked(silent), what="its first probe")
            with silent.accept()[0]:
                os.kill(before, signal.SIGKILL)
                assert child.popen.wait(PATIENCE_S) == -signal.SIGKILL, child.text()
        finally:
            child.stop()
        await_another_engine(old, before)
        answers(old)
        child = Child(heir_of(old, *own, *flags(new), "--replica", urls[0]))
        try:
            child.require(lambda: not old.child.alive(), what="the next one takes over")
            assert old.child.popen.returncode == 0
            answers(old)
        finally:
            child.stop()


def heir_of(front: Balancer, *arguments: str) -> list[str]:
    listen = ["--listen", f"127.0.0.1:{front.port}", "--admin", f"127.0.0.1:{front.admin_port}"]
    return [*SKYLB, "serve", "--takeover", *listen, "--access-log", str(front.access_log), *arguments]


def test_workers_accept_again_if_the_engine_process_dies_when_they_have_made_way(path: Path) -> None:
    own = ["--handover-socket", str(path), *flags(2)]
    with mocks(1, *FAST) as urls, balancer(*urls, arguments=own) as old:
        before = engine_pid(old)
        with taker(path) as heir:
            heir.get_ready()
            os.kill(before, signal.SIGKILL)
            assert heir.process.wait(PATIENCE_S) == -signal.SIGKILL
        await_another_engine(old, before)
        answers(old)


def test_an_heir_that_hangs_is_ended_and_another_one_can_be_started() -> None:
    own = ["--takeover-timeout-s", "1", *flags(2)]
    with mocks(1, *FAST) as urls, balancer(*urls, arguments=own) as front:
        front.child.send(signal.SIGUSR2)
        heir = front.child.require(lambda: started(front), what="an heir")[0]
        os.kill(heir, signal.SIGSTOP)
        killed = f"process {heir} does not end: killed"
        eventually(lambda: killed in front.child.text(), what="its end")
        eventually(lambda: not Path(f"/proc/{heir}").exists(), what="nothing of it is left")
        front.child.send(signal.SIGUSR2)
        front.child.require(lambda: len(started(front)) == 2, what="another heir")


def started(front: Balancer) -> list[int]:
    return [int(pid) for pid in re.findall(r"hand-over: started process (\d+)", front.child.text())]


def test_a_signal_to_end_at_the_moment_of_success_leaves_the_heir_its_files(
    path: Path, tmp_path: Path
) -> None:
    clients, admin = tmp_path / "clients.sock", free_port()
    words = ["--listen", f"unix:{clients}", "--admin", f"127.0.0.1:{admin}", "--handover-socket", str(path)]
    with (
        manager() as systemd,
        mocks(1, *FAST) as urls,
        service(systemd, *words, "--replica", urls[0], *flags(2)) as old,
        taker(path) as heir,
    ):
        engine = engine_pid(Balancer(old, 0, admin, tmp_path))
        heir.get_ready()
        os.kill(engine, signal.SIGSTOP)
        try:
            heir.send(Kind.ACCEPTING)
            old.send(signal.SIGTERM)
            systemd.await_message(old, STOPPING="1")
        finally:
            os.kill(engine, signal.SIGCONT)
        systemd.await_message(MAINPID=str(heir.process.pid))
        assert old.popen.wait(PATIENCE_S) == 0
        assert clients.exists()


# ---------------------------------------------------------------------- the new balancer


@contextmanager
def heir(path: Path, address: str, *arguments: str) -> Iterator[Balancer]:
    """A balancer that takes over at ``path``, and listens at ``address``."""
    admin, log = free_port(), path.with_name("access.jsonl")
    words = ["--handover-socket", str(path), "--listen", address, "--admin", f"127.0.0.1:{admin}"]
    child = Child([*SKYLB, "serve", "--takeover", *words, "--access-log", str(log), *arguments])
    try:
        yield Balancer(
            child, 0 if address.startswith("unix:") else int(address.rpartition(":")[2]), admin, log
        )
    except BaseException:
        print(child.text()[-3000:])
        raise
    finally:
        child.stop()


@contextmanager
def taking_over(path: Path, *arguments: str) -> Iterator[tuple[Balancer, Side]]:
    """A balancer that could serve, and the one before it, which has to make way."""
    with listening() as clients, gives(path) as at:
        port = clients.getsockname()[1]
        with heir(path, f"127.0.0.1:{port}", *arguments) as new, giver(at, clients) as old:
            old.expect(Kind.READY)
            yield new, old


def test_a_new_engine_process_that_dies_once_it_accepts_is_started_again(path: Path) -> None:
    with mocks(1, *FAST) as urls, taking_over(path, "--replica", urls[0], *flags(2)) as (new, old):
        old.send(Kind.YIELDED)
        old.expect(Kind.ACCEPTING)
        before = engine_pid(new)
        os.kill(before, signal.SIGKILL)
        await_another_engine(new, before)
        answers(new)
        eventually(lambda: len(pids(new)) == 2, what="all workers serve")


def test_a_new_engine_process_that_is_refused_ends_all_though_a_worker_was_started_again(path: Path) -> None:
    with mocks(1, *FAST) as urls, taking_over(path, "--replica", urls[0], *flags(2)) as (new, old):
        os.kill(children_of(new.child.pid)[-1], signal.SIGKILL)
        new.child.require(lambda: "it is started again" in new.child.text(), what="a worker is started")
        old.send(Kind.REFUSED, b"as a test wants it")
        assert new.child.popen.wait(PATIENCE_S) == 1
        assert "this one up: as a test wants it" in new.child.text()


def children_of(parent: int) -> list[int]:
    """Processes that a process has started, the first of them first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == parent:
            found.append((int(fields[19]), int(stat.parent.name)))
    return [pid for _, pid in sorted(found)]


@pytest.mark.parametrize("count", [1, 2])
def test_one_that_is_refused_in_the_last_moment_leaves_the_files_alone(
    count: int, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "clients.sock"
    with (
        mocks(1, *FAST) as urls,
        listening(str(file)) as clients,
        gives(path) as at,
        heir(path, f"unix:{file}", "--drain-timeout-s", "1", "--replica", urls[0], *flags(count)) as new,
        giver(at, clients) as old,
    ):
        old.expect(Kind.READY)
        old.send(Kind.YIELDED)
        old.expect(Kind.ACCEPTING)
        old.send(Kind.REFUSED, b"as a test wants it")
        assert new.child.popen.wait(PATIENCE_S) == 1
        assert "this one up: as a test wants it" in new.child.text()
        assert file.exists()
        assert path.exists()
