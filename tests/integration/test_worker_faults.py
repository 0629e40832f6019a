"""A balancer of several processes whose lines break, and whose processes stand still."""

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from skylb.workers.engine import NEXT_LOOK_S
from skylb.workers.watchdog import SILENCE_S
from tests.support.processes import (
    PATIENCE_S,
    SKYLB,
    Balancer,
    Child,
    answers,
    eventually,
    free_port,
    mocks,
)
from tests.support.raw import Answer, ask, chat, request
from tests.support.regions import key_line
from tests.support.workers import (
    HELLO,
    at_rest,
    engine_pid,
    engine_pid_if_any,
    frozen,
    in_flight,
    later,
    line_of,
    pids,
    shares,
    streams,
    whole,
    workers,
)

NONSENSE = b"\xff" * 4096


def inode(sock: socket.socket) -> int:
    """Which socket it is."""
    return os.fstat(sock.fileno()).st_ino


def has_another_line(front: Balancer, pid: int, before: int) -> bool:
    """A process has a line again, and not the one before."""
    try:
        with line_of(front, pid) as line:
            return inode(line) != before and 1 in pids(front)
    except AssertionError:  # it has none at present
        return False


def ends(front: Balancer, line: socket.socket) -> None:
    """The line ends for both sides."""
    del front
    line.shutdown(socket.SHUT_RDWR)


def nonsense_from_the_worker(front: Balancer, line: socket.socket) -> None:
    """The engine process reads what it cannot understand."""
    del front
    line.sendall(NONSENSE)


def nonsense_for_the_worker(front: Balancer, line: socket.socket) -> None:
    """Worker 1 reads what it cannot understand: all workers do."""
    del line
    with line_of(front, engine_pid(front)) as other:
        other.sendall(NONSENSE)


@pytest.mark.parametrize("fault", [ends, nonsense_from_the_worker])
def test_a_line_that_breaks_is_replaced_and_costs_no_stream(fault: object) -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 8) as tasks:
            await later(lambda: in_flight(front) == 8, "eight are in flight")
            before = engine_pid(front), pids(front)
            with line_of(front, before[1][1]) as line:
                number = inode(line)
                fault(front, line)  # type: ignore[operator]  # one of the two above
                await later(lambda: has_another_line(front, before[1][1], number), "another line")
            assert (engine_pid(front), pids(front)) == before
            assert all(map(whole, await asyncio.gather(*tasks)))
        for _ in range(8):
            assert (await ask(front.port, HELLO)).status == 200
        await later(lambda: at_rest(front), "rest")
        assert front.metric("skylb_worker_requests_lost_total") == 0

    with workers() as front:
        asyncio.run(run(front))


def test_a_worker_that_cannot_understand_the_engine_process_gets_another_line() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 4) as tasks:
            await later(lambda: in_flight(front) == 4, "four are in flight")
            before = engine_pid(front), pids(front)
            nonsense_for_the_worker(front, None)  # type: ignore[arg-type]  # it takes the other end
            line = "its decisions cannot be carried out"
            await later(lambda: line in front.child.text(), "a line in the log")
            await later(lambda: pids(front) == before[1], "both have lines")
            assert engine_pid(front) == before[0]
            assert all(map(whole, await asyncio.gather(*tasks)))
        for _ in range(8):
            assert (await ask(front.port, HELLO)).status == 200
        await later(lambda: at_rest(front), "rest")

    with workers() as front:
        asyncio.run(run(front))


def test_a_worker_whose_line_fails_again_and_again_is_ended() -> None:
    with workers(replicas=("--profile", "instant")) as front:
        before = engine_pid(front), pids(front)

        def replaced() -> bool:
            found = pids(front)
            if found.get(1) == before[1][1]:
                try:
                    with line_of(front, before[1][1]) as line:
                        line.sendall(NONSENSE)
                except (AssertionError, OSError):
                    return False  # it has no line at present
            return found.get(1) not in {None, before[1][1]}

        eventually(replaced, what="another worker")
        assert (engine_pid(front), pids(front)[2]) == (before[0], before[1][2])
        assert "its lines fail again and again" in front.child.text()
        for _ in range(8):
            assert asyncio.run(ask(front.port, HELLO)).status == 200


@contextmanager
def stopped(*of: int) -> Iterator[None]:
    """Processes stand still meanwhile."""
    for pid in of:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in of:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue  # it was ended


def test_an_engine_process_that_stands_still_is_replaced_and_costs_no_stream() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 4, tokens=250) as tasks:
            before = engine_pid(front), pids(front)
            with stopped(before[0]):
                line = f"process {before[0]}, the engine process, stands still"
                await later(lambda: line in front.child.text(), "a line in the log")
                await later(lambda: replaced_by(front, before[0]), "another engine process")
            await later(lambda: pids(front) == before[1], "the same workers")
            assert all(map(whole, await asyncio.gather(*tasks)))
            assert (await ask(front.port, HELLO)).status == 200

    with workers() as front:
        asyncio.run(run(front))


def test_a_worker_that_stands_still_is_replaced() -> None:
    with workers(replicas=("--profile", "instant")) as front:
        before = engine_pid(front), pids(front)
        with stopped(before[1][1]):
            line = f"process {before[1][1]}, worker 1, stands still"
            eventually(lambda: line in front.child.text(), what="a line in the log")
            eventually(lambda: pids(front).get(1) not in {None, before[1][1]}, what="another worker")
        assert (engine_pid(front), pids(front)[2]) == (before[0], before[1][2])
        for _ in range(8):
            assert asyncio.run(ask(front.port, HELLO)).status == 200


@pytest.mark.parametrize("number", [0, 2], ids=["engine process", "worker"])
def test_a_process_that_is_killed_while_it_starts_is_started_again(number: int) -> None:
    with mocks(1, "--profile", "instant") as urls:
        port, admin = free_port(), free_port()
        where = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--replica", urls[0]]
        child = Child([*SKYLB, "serve", *where, "--workers", "2"])
        try:
            started = child.require(
                lambda: found if len(found := sorted(children_of(child.pid))) >= 3 else None, what="processes"
            )
            os.kill(started[number], signal.SIGKILL)
            front = Balancer(child, port, admin, Path(os.devnull))
            child.require(lambda: answers(f"{front.admin}/ready"), what="ready")
            child.require(lambda: len(pids(front)) == 2, what="both workers")
            assert "signal 9; it is started again" in child.text()
            assert asyncio.run(ask(port, HELLO)).status == 200
        finally:
            child.stop()


def test_a_standby_that_dies_is_replaced() -> None:
    with workers(replicas=("--profile", "instant")) as front:
        known = {front.child.pid, engine_pid(front), *pids(front).values()}

        def standby() -> int | None:
            found = [pid for pid in children_of(front.child.pid) if pid not in known]
            return found[0] if found and has_loaded(found[0]) else None

        first = eventually(standby, what="a standby")
        known.add(first)
        os.kill(first, signal.SIGKILL)
        second = eventually(standby, what="another standby")
        before = engine_pid(front)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: replaced_by(front, before) == second, what="it becomes the engine process")


def has_loaded(pid: int) -> bool:
    """A process has loaded the code: its supervisor has known it for long."""
    return "/_core." in Path(f"/proc/{pid}/maps").read_text()


def children_of(pid: int) -> list[int]:
    """The processes that one has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def replaced_by(front: Balancer, before: int) -> int | None:
    """The engine process, where it is another one."""
    found = engine_pid_if_any(front)
    return found if found != before else None


def test_nobody_is_blamed_where_all_processes_stood_still() -> None:
    with workers(replicas=("--profile", "instant")) as front:
        before = engine_pid(front), pids(front)
        with stopped(front.child.pid, *children_of(front.child.pid)):
            time.sleep(SILENCE_S + 2)  # the time itself is what is tested
        for _ in range(8):
            assert asyncio.run(ask(front.port, HELLO)).status == 200
        beyond = time.monotonic() + 2
        eventually(lambda: time.monotonic() > beyond, what="looks of the supervisor")
        assert (engine_pid(front), pids(front)) == before


def test_the_next_engine_process_does_not_wait_for_a_replica_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        replica = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with workers(2, "--replica", replica, replicas=("--profile", "instant")) as front:
            before = engine_pid(front)
            os.kill(before, signal.SIGKILL)
            eventually(lambda: replaced_by(front, before), what="another engine process")
            line = f"not every replica answered within {NEXT_LOOK_S:g} s"
            eventually(lambda: line in front.child.text(), what="it goes on")
            eventually(lambda: asyncio.run(ask(front.port, HELLO)).status == 200, what="it serves")


def test_a_new_engine_process_may_number_the_replicas_anew(tmp_path: Path) -> None:
    """The third replica becomes the second: a push to it must not go where the second was."""
    path = tmp_path / "replicas"
    kinds = [mocks(1, "--profile", "instant", "--model", f"model-{name}") for name in "abc"]

    async def run(front: Balancer) -> None:
        async def asks(model: str, number: int) -> Answer:
            body = {**chat("hi", max_tokens=2), "model": model}
            return await ask(front.port, request(body, request_id=f"{model}-{number}"))

        for kill in range(3):
            before = engine_pid(front)
            early = [asyncio.create_task(asks(f"model-{name}", kill)) for name in "bc" * 20]
            os.kill(before, signal.SIGKILL)
            late = [asyncio.create_task(asks(f"model-{name}", kill)) for name in "bc" * 20]
            for answer in await asyncio.gather(*early, *late):
                assert answer.status == 200 or b"engine_away" in answer.body, answer
            await later(lambda before=before: replaced_by(front, before), "another engine process")
            await later(lambda: len(pids(front)) == 2, "both have lines")
            for name in "bc":
                assert (await asks(f"model-{name}", kill)).status == 200
        assert "cannot be carried out" not in front.child.text()

    with ExitStack() as stack:
        urls = [stack.enter_context(kind)[0] for kind in kinds]
        path.write_text("\n".join(urls))
        front = stack.enter_context(workers(2, "--replicas-file", str(path), fleet=0))
        path.write_text("\n".join(urls[1:]))
        front.child.send(signal.SIGHUP)
        eventually(lambda: len(front.state()["engine"]["replicas"]) == 2, what="the first is gone")
        asyncio.run(run(front))


def test_a_balancer_ends_though_a_worker_has_never_heard_of_an_engine_process() -> None:
    with workers(replicas=("--profile", "instant")) as front:
        before = engine_pid(front), pids(front)[1]
        known = children_of(front.child.pid)
        with stopped(before[0]):
            os.kill(before[1], signal.SIGKILL)
            eventually(lambda: set(children_of(front.child.pid)) - {*known}, what="another worker")
            front.child.send(signal.SIGTERM)
            assert front.child.popen.wait(PATIENCE_S) == 0
        assert "not all processes have ended in time" not in front.child.text()


def test_peers_are_refused_when_the_engine_process_accepts_nothing_more(tmp_path: Path) -> None:
    """The supervisor must not keep a listening socket of which nobody accepts."""
    keys = tmp_path / "keys"
    keys.write_text(key_line("k1"))
    keys.chmod(0o600)
    ports = free_port(), free_port()
    flags = ["--peer-key-file", str(keys), "--name", "us"]
    flags += ["--peer", f"eu@eu=http://127.0.0.1:{free_port()},http://127.0.0.1:{free_port()}"]  # it is away
    flags += ["--sync-listen", f"127.0.0.1:{ports[0]}", "--peer-listen", f"127.0.0.1:{ports[1]}"]

    def refused(port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S):
                return False
        except ConnectionRefusedError:
            return True

    async def run(front: Balancer) -> None:
        async with streams(front, 2) as tasks:
            with frozen(front):
                await later(lambda: in_flight(front) == 2, "two are in flight")
                assert not any(map(refused, ports))
                front.child.send(signal.SIGTERM)
                for port in (front.port, *ports):
                    await later(lambda port=port: refused(port), "it is refused")
                assert not any(task.done() for task in tasks), "streams go on meanwhile"
            assert all(map(whole, await asyncio.gather(*tasks)))

    with workers(2, *flags) as front:
        asyncio.run(run(front))


def test_a_process_that_cannot_be_started_is_tried_again() -> None:
    async def run(front: Balancer) -> None:
        async with streams(front, 4) as tasks:
            with frozen(front):
                await later(
                    lambda: in_flight(front) == 4 == sum(shares(front).values()), "four are in flight"
                )
                before, lost = pids(front), shares(front)[1]
                soft, hard = resource.prlimit(front.child.pid, resource.RLIMIT_NOFILE)
                resource.prlimit(front.child.pid, resource.RLIMIT_NOFILE, (1, hard))
                os.kill(before[1], signal.SIGKILL)
            await later(lambda: "cannot be started: Too many open files" in front.child.text(), "a line")
            resource.prlimit(front.child.pid, resource.RLIMIT_NOFILE, (soft, hard))
            await later(lambda: pids(front).get(1) not in {None, before[1]}, "another worker")
            assert sum(map(whole, await asyncio.gather(*tasks))) == 4 - lost

    with workers() as front:
        asyncio.run(run(front))
