"""What a child has reported counts, also if it has died since."""

import asyncio
import sys

from skylb.config import Settings
from skylb.handover.taker import Heritage
from skylb.workers import orders
from skylb.workers.children import Child
from skylb.workers.orders import ENGINE
from skylb.workers.supervisor import Supervisor

CHILD = """
import socket, sys
from skylb.handover.protocol import Intent
from skylb.workers import orders
channel = socket.socket(fileno=int(sys.argv[1]))
orders.send(channel, orders.Ready())
orders.send(channel, orders.Intends(Intent(draining=["http://a:1"])))
"""
"""It ends as soon as it has said everything."""


async def died(supervisor: Supervisor) -> None:
    """Such a child is the engine process, and dies before the supervisor reads anything."""
    ours, theirs = orders.pair()
    with theirs:
        number = theirs.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(number), pass_fds=[number]
        )
    child = Child(process, ours, supervisor._reported)
    asyncio.get_running_loop().remove_reader(ours)
    supervisor._children[ENGINE] = child
    assert await child.wait() == 0


def test_what_was_reported_before_a_death_counts() -> None:
    async def run() -> None:
        supervisor = Supervisor(Settings(replica=("http://127.0.0.1:9",), workers=2), {}, Heritage())
        await died(supervisor)
        assert supervisor._intent.draining == ["http://a:1"], "the next one must know the order"
        assert ENGINE in supervisor._ready, "it could start"

    asyncio.run(run())
