"""A process that is short of descriptors serves with what it has, says so, and blames nobody else."""

import asyncio
import http.client
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from tests.support.processes import SKYLB, Balancer, Child, answers, balancer, eventually, free_port, mocks
from tests.support.raw import Answer, Connection, ask, chat, request

IDLE = 150
STANDING = 40
PATIENCE_S = 60.0


@contextmanager
def limited(ulimit: str, *replicas: str) -> Iterator[Balancer]:
    """A balancer started by a shell with this ``ulimit``."""
    port, admin_port = free_port(), free_port()
    arguments = [
        "--listen",
        f"127.0.0.1:{port}",
        "--admin",
        f"127.0.0.1:{admin_port}",
        "--log-format",
        "json",
    ]
    for replica in replicas:
        arguments += ["--replica", replica]
    child = Child(["bash", "-c", f'{ulimit} && exec "$0" "$@"', *SKYLB, "serve", *arguments])
    try:
        front = Balancer(child, port, admin_port, child.out)
        child.require(lambda: answers(f"{front.admin}/ready"), timeout_s=PATIENCE_S, what="ready")
        yield front
    except BaseException:
        print(child.text()[-3000:])
        raise
    finally:
        child.stop()


def blamed(front: Balancer) -> float:
    """Attempts that the replicas are said to have failed."""
    return front.metric("skylb_replica_failed_total")


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with mocks(1, "--profile", "instant") as urls, limited("ulimit -S -n 64", *urls) as front:
        assert front.metric("process_max_fds") == hard
        said = f"{hard} descriptors (64 at the start)"
        eventually(lambda: said in front.child.text(), what="a line about descriptors")


def test_where_descriptors_are_few_standing_and_new_clients_are_answered_and_admin_is_reachable() -> None:
    with ExitStack() as stack:
        urls = stack.enter_context(mocks(1, "--profile", "instant"))
        front = stack.enter_context(limited("ulimit -n 128", *urls))
        said = r"128 descriptors .* of clients; the settings allow 16384"
        eventually(lambda: re.search(said, front.child.text()), what="a line about descriptors")
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", front.port))) for _ in range(IDLE)]

        async def run() -> list[Answer]:
            data = request(chat("hello"))
            standing = [await Connection.open(front.port) for _ in range(STANDING)]
            first = await asyncio.gather(*(connection.ask(data) for connection in standing))
            again = await asyncio.gather(*(connection.ask(data) for connection in standing))
            for connection in standing:
                await connection.close()
            return [*first, *again]

        assert {answer.status for answer in asyncio.run(asyncio.wait_for(run(), PATIENCE_S))} == {200}
        assert answers(f"{front.admin}/ready")
        assert blamed(front) == 0
        assert front.metric("skylb_connections_closed_total") > 0, "idle ones made room"
        assert front.metric("skylb_connections_refused_total") == 0
        assert len(idle) == IDLE


def test_clients_that_stand_idle_for_a_moment_only_keep_their_connections() -> None:
    with ExitStack() as stack:
        urls = stack.enter_context(mocks(1, "--profile", "instant"))
        front = stack.enter_context(limited("ulimit -n 128", *urls))

        async def run() -> list[Answer]:
            clients = [await Connection.open(front.port) for _ in range(IDLE)]
            asked = (connection.ask(request(chat("hello"))) for connection in clients[:STANDING])
            found = await asyncio.gather(*asked)
            for connection in clients:
                connection.abort()
            return found

        assert {answer.status for answer in asyncio.run(asyncio.wait_for(run(), PATIENCE_S))} == {200}
        assert blamed(front) == 0


def test_who_finds_every_connection_busy_is_told_to_come_again() -> None:
    with (
        mocks(1, "--profile", "instant", "--fault-stall-after-tokens", "2") as urls,
        balancer(*urls, arguments=["--connections-max", "2"]) as front,
    ):

        async def run() -> Answer:
            busy = [await Connection.open(front.port) for _ in range(2)]
            for connection in busy:
                connection.writer.write(request(chat("stream", max_tokens=50, stream=True)))
                await connection.reader.readuntil(b"\n\n")
            answer = await ask(front.port, request(chat("hello")))
            for connection in busy:
                connection.abort()
            return answer

        answer = asyncio.run(run())
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert b'"code":"overloaded"' in answer.body
        assert front.metric("skylb_connections_refused_total") == 1


def test_a_connection_that_this_machine_lacks_a_descriptor_for_is_no_fault_of_the_replica() -> None:
    arguments = ["--timeout-upstream-idle-s", "0.2"]
    with mocks(1, "--profile", "instant") as urls, balancer(*urls, arguments=arguments) as front:
        admin = http.client.HTTPConnection("127.0.0.1", front.admin_port, timeout=PATIENCE_S)

        def page(path: str) -> str:
            admin.request("GET", path)
            return admin.getresponse().read().decode()

        async def run() -> None:
            client = await Connection.open(front.port)
            assert (await client.ask(request(chat("hello")))).status == 200
            resource.prlimit(front.child.pid, resource.RLIMIT_NOFILE, (4, limits[1]))
            late = await Connection.open(front.port)
            late.writer.write(request(chat("hello")))
            eventually(lambda: "skylb_shortages_total" in page("/metrics"), what="a shortage was noticed")
            eventually(lambda: '"upstream_idle":0,' in page("/state"), what="no connection stands")
            answer = await client.ask(request(chat("hello")))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert b'"code":"overloaded"' in answer.body
            resource.prlimit(front.child.pid, resource.RLIMIT_NOFILE, limits)
            assert (await late.answer()).status == 200, "it waited in the kernel's queue"
            assert (await client.ask(request(chat("hello")))).status == 200
            await client.close()
            await late.close()

        limits = resource.prlimit(front.child.pid, resource.RLIMIT_NOFILE)
        with closing(admin):
            page("/metrics")
            asyncio.run(run())
        eventually(lambda: answers(f"{front.admin}/ready"), what="ready")
        assert blamed(front) == 0
        assert " is down" not in front.child.text()
        eventually(lambda: "this process is short of it" in front.child.text(), what="a line about it")
        assert front.child.text().count("this process is short of it") == 1


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_process_started_without_standard_descriptors_serves_and_ends_as_others_do(closed: str) -> None:
    port, admin_port = free_port(), free_port()
    with mocks(1, "--profile", "instant") as urls:
        listen = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin_port}"]
        command = [*SKYLB, "serve", *listen, "--replica", urls[0]]
        child = Child(["bash", "-c", f'exec "$0" "$@" {closed}', *command])
        try:
            child.require(
                lambda: answers(f"http://127.0.0.1:{admin_port}/ready"), timeout_s=PATIENCE_S, what="ready"
            )
            assert asyncio.run(ask(port, request(chat("hello")))).status == 200
        finally:
            assert child.stop(PATIENCE_S) == 0
