"""How the data plane stops: a delay, then no new connections, then the end of those that are open."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from skylb.data.context import DRAIN_IDLE_S
from skylb.tasks import TaskGroup

log = logging.getLogger("skylb.data.drain")


class Draining(Protocol):
    """What is drained: a frontend, or what workers have."""

    @property
    def connections_len(self) -> int:
        """Open connections."""

    def stop_accepting(self, idle_s: float) -> None:
        """Nothing new comes in; idle connections go after ``idle_s``."""

    async def drain(self, timeout_s: float) -> int:
        """Waits until all connections are gone, at most ``timeout_s``; returns how many are left."""

    async def close(self) -> None:
        """Ends what is left."""


class Drain:
    """The end of some frontends, in steps that a signal cuts short.

    Args:
        frontends: whose connections are drained.
        delay_s: how long new ones are still taken.
        timeout_s: time for requests under way, from then on.
    """

    def __init__(self, frontends: Sequence[Draining], *, delay_s: float, timeout_s: float) -> None:
        self.frontends = list(frontends)
        self._delay_s = delay_s
        self._timeout_s = timeout_s
        self._begun = asyncio.Event()
        self._hurried = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether the end has begun: this balancer should be sent nothing more."""
        return self._begun.is_set()

    def request(self) -> None:
        """Begins the end; each further call skips what is being waited for."""
        if self._begun.is_set():
            self._hurried.set()
        self._begun.set()

    def at_once(self) -> None:
        """Begins the end without the delay: something is broken."""
        self._delay_s = 0.0
        self._begun.set()

    async def wanted(self) -> None:
        """Waits until the end begins."""
        await self._begun.wait()

    async def delay(self) -> None:
        """Senders of requests have time to see that this balancer is not ready any more."""
        if self._begun.is_set() and self._delay_s:
            log.info("stopping: connections are taken for %g s more", self._delay_s)
            await self._unless_hurried(asyncio.sleep(self._delay_s))
            self._hurried.clear()

    def stop_accepting(self, idle_s: float = DRAIN_IDLE_S) -> None:
        """Nothing new comes in, and the addresses are free; idle connections go after ``idle_s``."""
        for frontend in self.frontends:
            frontend.stop_accepting(idle_s)

    async def drain(self) -> None:
        """Requests under way end, within their time."""
        left = sum(frontend.connections_len for frontend in self.frontends)
        if left:
            log.info("draining %d connections, at most %g s", left, self._timeout_s)
            await self._unless_hurried(self._drained())

    async def _drained(self) -> None:
        await asyncio.gather(*(frontend.drain(self._timeout_s) for frontend in self.frontends))

    async def _unless_hurried(self, waiting: Coroutine[Any, Any, None]) -> None:
        tasks = TaskGroup()
        waited = tasks.start(waiting, name="drain")
        hurried = tasks.start(self._hurried.wait(), name="another signal")
        await asyncio.wait((waited, hurried), return_when=asyncio.FIRST_COMPLETED)
        await tasks.stop()
