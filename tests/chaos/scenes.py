"""What happens in each scene of ``make chaos``."""

import asyncio
import itertools
import os
import signal
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack

from tests.chaos.clients import Crowd, Ledger
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.sockets import Lines, peers_of, unread_bytes
from tests.support.partitions import WAYS
from tests.support.processes import PATIENCE_S, Balancer, answers, balancer, eventually
from tests.support.regions import Regions, regions
from tests.support.workers import parent_of

Scene = Callable[[float], Awaitable[tuple[int, Ledger]]]
"""Plays for so many seconds; how many faults there were, and what the clients got."""

Fault = Callable[[int], Awaitable[None]]
"""The fault of this number, and what mends it."""

CLIENTS = 20
REPLICAS = 4
EVERY_S = 2.0
"""Between two faults."""

DOWN_S = 1.0
"""How long somebody stays away."""

FROZEN_S = 15.0
"""Longer than it takes to find a replica wedged whose pages do not come."""

CUT_S = 8.0
NOTICE_S = 2.0
"""A replica ends so long after it was announced; what is there leaves 0.5 s before."""

WITHIN_S = 0.3
"""Streams leave an evacuated region after so long."""

CONTINUING = ("--continue-streams", "--continue-by-text")
HERE, THERE = "us", "eu"
REGION = ("--profile", "l4-8b", "--time-scale", "0.3", "--max-num-seqs", "4")

OCEAN = ("--rtt-s", "0.02")
WORKERS = ("--workers", "2")

LOOK_S = 0.05
"""Between two looks at sockets, of which so many in a row find nothing unread:"""

SETTLED = 3

PATIENT = ["--hold-timeout-s", "60"]
"""Clients wait rather than be refused while replicas are away."""


async def in_thread(work: Callable[[], object]) -> None:
    """Runs what blocks, beside the clients."""
    await asyncio.get_running_loop().run_in_executor(None, work)


async def under_load(crowd: Crowd, seconds: float, fault: Fault) -> tuple[int, Ledger]:
    """Clients ask, and faults follow each other."""
    loop = asyncio.get_running_loop()
    ending = loop.time() + seconds
    faults = 0
    for number in itertools.count():
        await asyncio.sleep(EVERY_S)
        if loop.time() > ending - EVERY_S:
            break
        await fault(number)
        faults += 1
    return faults, await crowd.stop()


async def over_replicas(
    name: str, seconds: float, fault: Callable[[Fleet, int], Awaitable[None]], *arguments: str
) -> tuple[int, Ledger]:
    """One balancer, and faults of its replicas in turn."""
    with ExitStack() as stack:
        replicas = stack.enter_context(fleet(REPLICAS))
        front = stack.enter_context(balancer(*replicas.urls, arguments=[*PATIENT, *arguments]))

        async def one(number: int) -> None:
            await fault(replicas, number % len(replicas))

        return await under_load(Crowd(front.url, CLIENTS, name), seconds, one)


async def killed(replicas: Fleet, index: int) -> None:
    """A replica dies, and comes back with nothing cached."""
    await in_thread(lambda: replicas.kill(index))
    await asyncio.sleep(DOWN_S)
    await in_thread(lambda: replicas.start(index))


async def frozen(replicas: Fleet, index: int) -> None:
    """A replica stands still for longer than it takes to be found wedged, and goes on."""
    replicas.freeze(index)
    await asyncio.sleep(FROZEN_S)
    replicas.thaw(index)


async def over_regions(
    name: str,
    seconds: float,
    fault: Callable[[Regions, int], Awaitable[None]],
    *arguments: str,
    wan: Sequence[str] | None = None,
) -> tuple[int, Ledger]:
    """Two regions, of which clients ask at `HERE` only, more than its replicas run at once.

    With ``wan`` all that is between them goes through ``skylb wan`` with these flags.
    """
    with regions(HERE, THERE, mock=REGION, arguments=[*PATIENT, *arguments], wan=wan) as found:
        crowd = Crowd(found[HERE].front.url, CLIENTS, name)
        return await under_load(crowd, seconds, lambda number: fault(found, number))


async def peer_killed(found: Regions, number: int) -> None:
    """The balancer that serves the rest of the requests dies, and is started again."""
    del number
    await in_thread(found[THERE].kill)
    await asyncio.sleep(DOWN_S)
    await in_thread(found[THERE].start)
    await in_thread(found.settled)


async def way_cut(found: Regions, number: int) -> None:
    """The way to the peer is cut, and open again: connections break, or nothing comes through any more."""
    heal = WAYS[("link_down", "blackhole")[number % 2]](found)
    await asyncio.sleep(CUT_S)
    await in_thread(heal)
    await in_thread(found.settled)


async def evacuated(found: Regions, number: int) -> None:
    """All that is here leaves, and may come back."""
    del number
    await in_thread(lambda: found[HERE].verb(f"/regions/{HERE}/evacuate?within={WITHIN_S}"))
    await asyncio.sleep(DOWN_S)
    await in_thread(lambda: found[HERE].verb(f"/regions/{HERE}/undrain"))


def order(front: Balancer, method: str, path: str) -> None:
    """What an operator asks of the balancer."""
    request = urllib.request.Request(f"{front.admin}{path}", method=method, data=b"")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        answer.read()


async def announced(seconds: float) -> tuple[int, Ledger]:
    """One replica after the other is announced to end, dies in time, and is replaced at its address."""
    with ExitStack() as stack:
        replicas = stack.enter_context(fleet(REPLICAS))
        front = stack.enter_context(balancer(*replicas.urls, arguments=[*PATIENT, *CONTINUING]))

        async def end(number: int) -> None:
            index = number % len(replicas)
            path = f"/replicas/{replicas.urls[index].removeprefix('http://')}/leave"
            await in_thread(lambda: order(front, "POST", f"{path}?in={NOTICE_S}"))
            await asyncio.sleep(NOTICE_S)
            await killed(replicas, index)
            await in_thread(lambda: order(front, "DELETE", path))

        crowd = Crowd(front.url, CLIENTS, "announced")
        return await under_load(crowd, seconds, end)


def pid_of(front: Balancer) -> int:
    """The process that answers at the admin address now."""
    return int(front.state()["process"]["pid"])


def succeed(front: Balancer) -> None:
    """The balancer is replaced by a process of its own making, as at an upgrade."""
    before = pid_of(front)
    os.kill(before, signal.SIGUSR2)
    eventually(lambda: pid_of(front) != before, what="another process takes over")


def succeed_all(front: Balancer) -> None:
    """All processes of a balancer with workers are replaced by such that the supervisor has started."""
    before = pid_of(front)
    os.kill(parent_of(before), signal.SIGUSR2)
    eventually(lambda: answers(f"{front.admin}/health") and pid_of(front) != before, what="another balancer")


async def replaced(seconds: float) -> tuple[int, Ledger]:
    """One process of the balancer after the other takes its place."""
    with ExitStack() as stack:
        replicas = stack.enter_context(fleet(REPLICAS))
        front = stack.enter_context(balancer(*replicas.urls, arguments=PATIENT))
        crowd = Crowd(front.url, CLIENTS, "replaced")
        return await under_load(crowd, seconds, lambda _: in_thread(lambda: succeed(front)))


async def workers_replaced(seconds: float) -> tuple[int, Ledger]:
    """One balancer with workers after the other takes its place."""
    with ExitStack() as stack:
        replicas = stack.enter_context(fleet(REPLICAS))
        front = stack.enter_context(balancer(*replicas.urls, arguments=[*PATIENT, "--workers", "2"]))

        async def replace(_number: int) -> None:
            await in_thread(lambda: succeed_all(front))

        return await under_load(Crowd(front.url, CLIENTS, "workers"), seconds, replace)


def kill_engine_process(front: Balancer) -> None:
    """The process that decides dies, and another one takes its place."""
    before = pid_of(front)
    os.kill(before, signal.SIGKILL)
    another(front, before)


def another(front: Balancer, before: int) -> None:
    """Waits for the engine process that takes the place of this one."""
    eventually(lambda: answers(f"{front.admin}/health") and pid_of(front) != before, what="another one")


async def engine_killed(seconds: float) -> tuple[int, Ledger]:
    """The engine process of a balancer with workers dies again and again."""
    with ExitStack() as stack:
        replicas = stack.enter_context(fleet(REPLICAS))
        front = stack.enter_context(balancer(*replicas.urls, arguments=[*PATIENT, *WORKERS]))

        async def kill(_number: int) -> None:
            await in_thread(lambda: kill_engine_process(front))

        return await under_load(Crowd(front.url, CLIENTS, "engine"), seconds, kill)


async def engine_and_replica_killed(seconds: float) -> tuple[int, Ledger]:
    """The engine process dies, and a replica before another one has taken its place."""
    with ExitStack() as stack:
        replicas = stack.enter_context(fleet(REPLICAS))
        arguments = [*PATIENT, *WORKERS, *CONTINUING]
        front = stack.enter_context(balancer(*replicas.urls, arguments=arguments))

        async def kill(number: int) -> None:
            before = pid_of(front)
            os.kill(before, signal.SIGKILL)
            await killed(replicas, number % len(replicas))
            await in_thread(lambda: another(front, before))

        return await under_load(Crowd(front.url, CLIENTS, "both"), seconds, kill)


async def worker_killed(seconds: float) -> tuple[int, Ledger]:
    """Workers of a balancer with two die in turn. Those notice it that were connected to one, and no others.

    Each request has a connection of its own. A worker is stopped before it is killed: whose requests are at
    it is then certain, once the clients have read what it has written.
    """
    with ExitStack() as stack:
        replicas = stack.enter_context(fleet(REPLICAS))
        front = stack.enter_context(balancer(*replicas.urls, arguments=[*PATIENT, *WORKERS]))
        await in_thread(lambda: eventually(lambda: len(workers_of(front)) == 2, what="workers"))
        lines = Lines()
        crowd = Crowd(front.url, CLIENTS, "worker", lines=lines)

        async def kill(number: int) -> None:
            await in_thread(lambda: eventually(lambda: len(workers_of(front)) == 2, what="workers"))
            pid = workers_of(front)[1 + number % 2]
            os.kill(pid, signal.SIGSTOP)
            ports = await settled(pid, front.port)
            at_it = {asked for client, asked in crowd.asking.items() if lines.ports.get(client) in ports}
            crowd.ledger.cut |= at_it
            os.kill(pid, signal.SIGKILL)

        return await under_load(crowd, seconds, kill)


async def settled(pid: int, port: int) -> set[int]:
    """The ports of the clients of a process that is stopped, once they have read all that it has written."""
    rests = 0
    while rests < SETTLED:
        await asyncio.sleep(LOOK_S)
        ports = peers_of(pid, port)
        rests = rests + 1 if not unread_bytes(ports) else 0
    return ports


def workers_of(front: Balancer) -> dict[int, int]:
    """The processes of the workers that serve, by their numbers."""
    found = front.state()["workers"]
    return {of["worker"]: of["pid"] for of in found if of["attached"] and of["pid"]}


def over(fault: Callable[[Fleet, int], Awaitable[None]], *arguments: str) -> Scene:
    """A scene of replicas' faults."""
    return lambda seconds: over_replicas(fault.__name__, seconds, fault, *arguments)


def between(
    fault: Callable[[Regions, int], Awaitable[None]], *arguments: str, wan: Sequence[str] | None = None
) -> Scene:
    """A scene of regions' faults."""
    return lambda seconds: over_regions(fault.__name__, seconds, fault, *arguments, wan=wan)


SCENES: dict[str, Scene] = {
    "replicas killed": over(killed, *CONTINUING),
    "replicas frozen": over(frozen, *CONTINUING),
    "the peer's balancer killed": between(peer_killed, *CONTINUING),
    "the way to the peer cut": between(way_cut, *CONTINUING, wan=OCEAN),
    "a replica leaves by notice": announced,
    "the region evacuated": between(evacuated, *CONTINUING),
    "the balancer replaced": replaced,
    "the engine process killed": engine_killed,
    "replicas killed, 2 workers": over(killed, *CONTINUING, *WORKERS),
    "the engine process killed, then a replica": engine_and_replica_killed,
    "a worker killed": worker_killed,
    "the balancer with workers replaced": workers_replaced,
}
"""By the name in the table."""
