"""How this process came to its place, and who takes it."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from skylb.config import HANDOVER_VARIABLE, Settings, all_environment
from skylb.handover.giver import Giver, Heir, child_environment
from skylb.handover.protocol import HANDOVER, Intent
from skylb.handover.taker import Heritage
from skylb.listeners import Listening
from skylb.ports import Ports
from skylb.router import Router

log = logging.getLogger("skylb.handover")


class Succession:
    """Takes over from the process before this one, and hands over to the next.

    Args:
        settings: where hand-overs begin, and how long they may take.
        heritage: what this process begins with.
        router: knows what was learned, and what is in flight.
        intent: what operators have asked for.
        end: ends this process at once, in favour of another.
    """

    def __init__(
        self,
        settings: Settings,
        heritage: Heritage,
        router: Router,
        intent: Callable[[], Intent],
        end: Callable[[], None],
    ) -> None:
        self.heritage = heritage
        self.intent = intent
        self.succeeded = end
        self._settings = settings
        self._router = router
        self._giver = Giver(self, timeout_s=settings.takeover_timeout_s)
        self._ports: Ports | None = None

    # ------------------------------------------------------------------ the process before this one

    @property
    def handed(self) -> Mapping[str, Sequence[Listening]] | None:
        """The sockets of a predecessor; ``None`` where there is none."""
        return None if self.heritage.predecessor is None else self.heritage.sockets

    @property
    def main_pid(self) -> int | None:
        """This process, where a service manager knows another one as the service."""
        return None if self.heritage.predecessor is None else os.getpid()

    async def succeed(self) -> None:
        """All is there but clients: a predecessor makes way.

        Raises:
            HandoverError: it does not, because it has given this process up.
        """
        predecessor = self.heritage.predecessor
        if predecessor is not None:
            await predecessor.make_way()
            predecessor.follow(self._router.merge_predecessor)

    # ------------------------------------------------------------------ the one after it

    @property
    def heir(self) -> Heir | None:
        """The process that takes this one's place, once it is ready."""
        return self._giver.heir

    @property
    def failed_total(self) -> int:
        """Hand-overs of this process that came to nothing."""
        return self._giver.failed_total

    def listen(self, ports: Ports) -> None:
        """From now on these sockets can be handed over.

        Raises:
            ListenError: another balancer hands over at the same path, or the path is no good.
        """
        self._ports = ports
        path = self._settings.handover_path
        if path is not None:
            self._giver.listen(path, self.heritage.sockets.get(HANDOVER, ()))

    def start_heir(self) -> None:
        """Starts the program as it is on disk now, which takes over."""
        if self._ports is None:
            log.warning("hand-over: this process does not serve yet: nothing is started")
            return
        self._giver.start_heir(HANDOVER_VARIABLE, child_environment(all_environment()))

    def sockets(self) -> Mapping[str, Sequence[Listening]]:
        """All listening sockets, by the names of `skylb.inherited.LISTENERS`."""
        return {} if self._ports is None else self._ports.by_name()

    async def state(self) -> AsyncIterator[bytes]:
        """What the engine has learned, in parts."""
        return
        yield b""

    def in_flight(self) -> bytes:
        """Requests at replicas that have not ended."""
        return self._router.in_flight()

    # ------------------------------------------------------------------ the end

    async def stop(self) -> Heir | None:
        """Hands over no more; the process that takes over, if there is one."""
        await self._giver.close()
        if self.heir is not None and self._ports is not None:
            self._ports.yield_up()
        return self.heir

    async def close(self) -> None:
        """All requests have ended: an heir and a predecessor are left alone."""
        if self.heir is not None:
            await self.heir.close()
        if self.heritage.predecessor is not None:
            await self.heritage.predecessor.close()
