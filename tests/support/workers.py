"""Balancers with workers, for tests."""

import asyncio
import ctypes
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.processes import Balancer, balancer, eventually, mocks, standing_still
from tests.support.raw import Answer, Connection, chat, request

STEADY = ("--profile", "l4-8b", "--time-scale", "0.5")
"""Streams of 200 tokens take seconds."""

HELLO = request(chat("hello"))


@contextmanager
def workers(
    count: int = 2, *arguments: str, replicas: tuple[str, ...] = STEADY, fleet: int = 2
) -> Iterator[Balancer]:
    """A balancer with workers, in front of mock replicas; all workers serve."""
    with ExitStack() as stack:
        urls = stack.enter_context(mocks(fleet, *replicas)) if fleet else []
        flags = ["--workers", str(count), "--drain-timeout-s", "20", *arguments]
        front = stack.enter_context(balancer(*urls, arguments=flags))
        eventually(lambda: len(pids(front)) == count, what="workers")
        yield front


def pids(front: Balancer) -> dict[int, int]:
    """The processes of the workers that serve, by their numbers."""
    found = front.state()["workers"]
    return {worker["worker"]: worker["pid"] for worker in found if worker["attached"] and worker["pid"]}


def engine_pid(front: Balancer) -> int:
    """The engine process."""
    pid = front.state()["process"]["pid"]
    assert isinstance(pid, int)
    return pid


def parent_of(pid: int) -> int:
    """The process that has started another one: of an engine process the supervisor."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def engine_pid_if_any(front: Balancer) -> int | None:
    """The engine process, where it answers."""
    try:
        return engine_pid(front)
    except OSError:
        return None


def shares(front: Balancer) -> dict[int, int]:
    """Requests under way at each worker, as it has told last."""
    return {worker["worker"]: worker["requests"] for worker in front.state()["workers"]}


def in_flight(front: Balancer) -> int:
    """Requests at replicas, as the engine counts them."""
    return sum(replica["in_flight"] for replica in front.state()["engine"]["replicas"])


def at_rest(front: Balancer) -> bool:
    """Nothing is under way, and nothing is counted that is not."""
    state = front.state()
    return (in_flight(front), state["process"]["requests"], state["engine"]["requests"]) == (0, 0, 0)


def streaming(name: str, tokens: int = 150) -> bytes:
    """A request for a stream of some seconds."""
    return request(chat(name, max_tokens=tokens, stream=True), request_id=name)


@asynccontextmanager
async def streams(
    front: Balancer, count: int, tokens: int = 150
) -> AsyncIterator[list[asyncio.Task[Answer]]]:
    """Streams that have begun, each on a connection of its own."""
    connections = [await Connection.open(front.port) for _ in range(count)]
    for number, connection in enumerate(connections):
        connection.writer.write(streaming(f"stream-{number}", tokens))
    for connection in connections:
        await connection.reader.readuntil(b"\n\n")
        await connection.reader.readuntil(b"\n\n")
    tasks = [asyncio.create_task(rest(connection)) for connection in connections]
    try:
        yield tasks
    finally:
        for connection in connections:
            connection.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def frozen(front: Balancer) -> Iterator[None]:
    """`standing_still`, of all replicas of a balancer."""
    with standing_still(*(replica["name"] for replica in front.state()["engine"]["replicas"])):
        yield


async def rest(connection: Connection) -> Answer:
    """What comes of a stream that has begun."""
    answer = Answer(status=200)
    try:
        while data := await connection.reader.read(65536):
            answer.body += data
            if b"data: [DONE]" in answer.body or b'data: {"error"' in answer.body:
                break
    except ConnectionError as error:
        answer.error = type(error).__name__
    return answer


def whole(answer: Answer) -> bool:
    """The stream ended well."""
    return answer.done_events == 1 and answer.error_events == 0


async def later(condition: object, what: str) -> None:
    """Waits for a condition beside the loop."""
    await asyncio.to_thread(eventually, condition, what=what)


PIDFD_GETFD = 438
"""Of ``pidfd_getfd(2)``, on every architecture."""


def line_of(front: Balancer, pid: int) -> socket.socket:
    """The end of the line that a worker has: a duplicate of the worker's descriptor.

    The supervisor has made it: so says ``SO_PEERCRED`` of no other stream socket of that process.
    """
    pidfd = os.pidfd_open(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if not str(path.readlink()).startswith("socket:"):
                    continue
                descriptor = libc.syscall(PIDFD_GETFD, pidfd, int(path.name), 0)
                if descriptor < 0:
                    pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
                sock = socket.socket(fileno=descriptor)
                if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
                    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    if struct.unpack("3i", credentials)[0] == front.child.pid:
                        return sock
                sock.close()
    finally:
        os.close(pidfd)
    raise AssertionError(f"process {pid} has no line")
