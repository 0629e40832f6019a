"""Keeps the DNS records right: this balancer's own while it serves, and none of a dead one."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb.addresses import IpAddress
from skylb.clock import monotonic_ns
from skylb.control.naming.provider import DnsError, Provider
from skylb.tasks import attempt

log = logging.getLogger("skylb.control.naming")

LOOK_S = 0.5
"""Between looks at what should be in DNS."""

REFRESH_S = 10.0
"""After so long the records are compared again: somebody may have changed them, or taken us for dead."""

LEAVE_AFTER_S = 10.0
"""A balancer without a replica that is up leaves the answer after so long; a drained one at once."""

RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits after a failure, the last one again and again."""

CLOSE_S = 3.0
"""How long the end of the process waits for its record to go."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What should be in DNS.

    Attributes:
        leaving: this balancer is evacuated or stops.
        ready: it can serve.
        dead: balancers whose records are ours to take out.
    """

    leaving: bool = False
    ready: bool = True
    dead: frozenset[str] = frozenset()


@dataclass(slots=True)
class Figures:
    """For ``/metrics`` and ``/state``."""

    changes: int = 0
    failures: int = 0
    fault: str = ""
    published: bool | None = None
    withdrawn: set[str] = field(default_factory=set)
    """Dead balancers whose records are out; as many as there are peers, at most."""


class Keeper:
    """Compares what should be in DNS with what is.

    Args:
        provider: where the records are.
        balancer: our name.
        addresses: under which clients reach this balancer.
        wish: asked again and again.
        now_ns: the clock.
    """

    def __init__(
        self,
        provider: Provider,
        balancer: str,
        addresses: Collection[IpAddress],
        wish: Callable[[], Wish],
        now_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.provider = provider
        self._balancer = balancer
        self._addresses = addresses
        self._wish = wish
        self._now_ns = now_ns
        self._ready_ns = now_ns()
        self._done: tuple[bool, frozenset[str]] | None = None
        self._next_ns = 0
        self._failed = 0
        self.figures = Figures()

    async def run(self) -> None:
        """Keeps them until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """One look, and what has to be done."""
        error = await attempt(self._step(), name="a look at DNS")
        if error is not None:  # an answer of a kind that nobody has foreseen
            self._fail(DnsError(f"{type(error).__name__}: {error}"), self._now_ns())

    async def _step(self) -> None:
        wish, now_ns = self._wish(), self._now_ns()
        if wish.ready:
            self._ready_ns = now_ns
        serves = not wish.leaving and now_ns - self._ready_ns < LEAVE_AFTER_S * 1e9
        wanted = (serves, wish.dead)
        # After a failure the wait counts, whatever is wished meanwhile: the server may be down.
        if now_ns < self._next_ns and (self._failed or wanted == self._done):
            return
        try:
            await self._keep(serves, wish)
        except DnsError as error:
            self._fail(error, now_ns)
            return
        self._done = wanted
        self._next_ns = now_ns + round(REFRESH_S * 1e9)
        self._failed = 0
        if self.figures.fault:
            log.info("the DNS records are correct again")
            self.figures.fault = ""

    async def close(self) -> None:
        """Takes this balancer out, if it was in."""
        if self._done is not None:
            await attempt(self._leave(), name="leaving DNS")

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._change(self.provider.withdraw(self._balancer), f"{self._balancer} leaves DNS")
        except (DnsError, TimeoutError) as error:
            log.warning("the DNS records still lead here: %s", str(error) or "no answer in time")
        else:
            self.figures.published = False

    async def _keep(self, serves: bool, wish: Wish) -> None:
        provider, figures = self.provider, self.figures
        if serves:
            done = provider.publish(self._balancer, self._addresses)
            await self._change(done, f"{self._balancer} enters DNS")
        else:
            done = provider.withdraw(self._balancer, unless_last=not wish.leaving)
            await self._change(done, f"{self._balancer} leaves DNS")
        figures.published = serves
        figures.withdrawn &= wish.dead
        for name in sorted(wish.dead - figures.withdrawn):
            await self._change(provider.withdraw(name), f"{name}, which is dead, leaves DNS")
            figures.withdrawn.add(name)

    async def _change(self, doing: Coroutine[Any, Any, bool], said: str) -> None:
        if await doing:
            self.figures.changes += 1
            log.info("%s", said)

    def _fail(self, error: DnsError, now_ns: int) -> None:
        self.figures.failures += 1
        self._next_ns = now_ns + round(RETRY_S[min(self._failed, len(RETRY_S) - 1)] * 1e9)
        self._failed += 1
        if str(error) != self.figures.fault:
            self.figures.fault = str(error)
            log.warning("the DNS records cannot be updated: %s", error)

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        figures = self.figures
        yield CounterMetricFamily("skylb_dns_changes", "Changes made to DNS records.", value=figures.changes)
        yield CounterMetricFamily("skylb_dns_failures", "Failed looks at DNS.", value=figures.failures)
        yield GaugeMetricFamily(
            "skylb_dns_fault", "1 while DNS cannot be kept as it should be.", value=bool(figures.fault)
        )
        yield GaugeMetricFamily(
            "skylb_dns_published",
            "1 while DNS is to lead here.",
            value=bool(figures.published),
        )
