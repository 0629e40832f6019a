"""A thousand clients leave in each phase; afterwards nothing counts them."""

import asyncio
import json
import signal
import socket
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tests.support.processes import (
    PATIENCE_S,
    Balancer,
    balancer,
    eventually,
    get,
    mocks,
    sample_sum,
    start_mocks,
)
from tests.support.raw import Connection, chat, request, until

CLIENTS = 1000


def fault(url: str, **switches: object) -> None:
    """Sets failure switches of a mock replica."""
    body = json.dumps(switches).encode()
    urllib.request.urlopen(
        urllib.request.Request(f"{url}/mock/faults", data=body, method="POST"), timeout=PATIENCE_S
    ).close()


def descriptors(front: Balancer) -> int:
    """Open file descriptors of the balancer."""
    return len(list(Path(f"/proc/{front.child.pid}/fd").iterdir()))


def at_rest(front: Balancer) -> bool:
    """No request, body byte or hold entry is left."""
    page = front.metrics()
    names = ("skylb_replica_in_flight", "skylb_hold_requests", "skylb_buffer_bytes")
    return all(sample_sum(page, name) == 0 for name in names)


async def crowd(port: int, count: int, data: bytes) -> list[Connection]:
    """``count`` connections, each with one request sent."""
    connections = []
    for _ in range(count):
        connection = await Connection.open(port)
        connection.writer.write(data)
        connections.append(connection)
    return connections


def check_rest(front: Balancer, before: int) -> None:
    """Everything is back to zero, connections included, and 499 was logged for each client."""
    eventually(lambda: at_rest(front), what="counters back to zero")
    eventually(lambda: descriptors(front) <= before + 8, what="connections closed")
    eventually(lambda: sum(e["status"] == 499 for e in front.log()) == CLIENTS, what="499 in the log")


def test_a_thousand_clients_leave_while_streaming() -> None:
    with mocks(2, "--profile", "instant", "--time-scale", "1") as urls, balancer(*urls) as front:
        for url in urls:
            fault(url, stall_after_tokens=2)
        before = descriptors(front)

        async def run() -> None:
            data = request(chat("stream", max_tokens=50, stream=True))
            connections = await crowd(front.port, CLIENTS, data)
            for connection in connections:
                await connection.reader.readuntil(b"\n\n")
            for connection in connections:
                connection.abort()

        asyncio.run(run())
        check_rest(front, before)
        assert all(
            sample_sum(get(f"{url}/metrics").decode(), "vllm:num_requests_running") == 0 for url in urls
        )


def test_a_thousand_clients_leave_while_waiting_for_the_first_byte() -> None:
    with (
        mocks(2, "--profile", "instant") as urls,
        balancer(*urls, arguments=["--engine-push", "blind"]) as front,
    ):
        for url in urls:
            fault(url, stall_after_tokens=0)
        before = descriptors(front)

        async def run() -> None:
            connections = await crowd(front.port, CLIENTS, request(chat("wait", stream=True)))
            await until(lambda: front_in_flight(front) >= CLIENTS)
            for connection in connections:
                connection.abort()

        asyncio.run(run())
        check_rest(front, before)


def front_in_flight(front: Balancer) -> float:
    """Requests in flight at replicas."""
    return front.metric("skylb_replica_in_flight")


def test_a_thousand_clients_leave_while_held() -> None:
    arguments = ["--engine-push", "outstanding", "--engine-outstanding-max", "1"]
    with mocks(2, "--profile", "instant") as urls, balancer(*urls, arguments=arguments) as front:
        for url in urls:
            fault(url, stall_after_tokens=1)
        before = descriptors(front)

        async def run() -> None:
            connections = await crowd(front.port, CLIENTS, request(chat("hold", max_tokens=50, stream=True)))
            await until(lambda: front.metric("skylb_hold_requests") >= CLIENTS - 2)
            for connection in reversed(connections):
                connection.abort()

        asyncio.run(run())
        check_rest(front, before)
        completed = [e for e in front.log() if e["attempts"]]
        assert len(completed) <= 2 + 2  # the two that ran, and at most one push each that crossed a leaving


def test_a_thousand_clients_leave_while_connecting() -> None:
    arguments = [
        "--engine-push",
        "blind",
        "--timeout-connect-s",
        "30",
        "--engine-probe-stale-s",
        "60",
        "--timeout-probe-s",
        "60",
    ]
    with ExitStack() as stack:
        child, urls = start_mocks(1, "--profile", "instant")
        stack.callback(child.stop)
        stack.callback(child.send, signal.SIGCONT)
        front = stack.enter_context(balancer(*urls, arguments=arguments))
        before = descriptors(front)
        child.send(signal.SIGSTOP)
        fillers = fill_backlog(int(urls[0].rsplit(":", 1)[1]))
        stack.callback(lambda: [sock.close() for sock in fillers])

        async def run() -> None:
            connections = await crowd(front.port, CLIENTS, request(chat("connect")))
            await until(lambda: front_in_flight(front) >= CLIENTS)
            assert syn_sent(front) > CLIENTS // 2
            for connection in connections:
                connection.abort()

        asyncio.run(run())
        check_rest(front, before)


def fill_backlog(port: int) -> list[socket.socket]:
    """Connects to a stopped process until the kernel accepts no more for it."""
    fillers = []
    while True:
        sock = socket.socket()
        sock.settimeout(0.3)
        fillers.append(sock)
        try:
            sock.connect(("127.0.0.1", port))
        except TimeoutError:
            return fillers


def syn_sent(front: Balancer) -> int:
    """Connections of the balancer whose handshake is not complete (state 02 in /proc/net/tcp)."""
    return sum(line.split()[3] == "02" for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
