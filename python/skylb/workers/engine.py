"""The composition root of the engine process: a balancer whose clients are at workers."""

import asyncio
import logging

from skylb.app import Service
from skylb.handover.taker import Heritage
from skylb.listeners import Listening
from skylb.ports import Ports
from skylb.tasks import TaskGroup
from skylb.workers.child import Channel, listening
from skylb.workers.hub import Clients, Hub
from skylb.workers.orders import Boot, Line, Ready, Status

log = logging.getLogger("skylb.workers")

NEXT_LOOK_S = 0.5
"""As `FIRST_LOOK_S`, in the place of an engine process that died: requests wait meanwhile."""

STATUS_S = 1.0
"""Between two looks whether the supervisor is to be told another status."""


class EngineService(Service):
    """The parts of a balancer, without listeners for clients, and with lines to workers.

    Args:
        boot: what it is to be.
        sockets: bound by the supervisor, by what they are for.
        channel: to the supervisor.

    Raises:
        ConfigError: a file that the settings name is no good.
    """

    def __init__(self, boot: Boot, sockets: dict[str, list[Listening]], channel: Channel) -> None:
        super().__init__(boot.settings, heritage=Heritage(of_siblings=boot.secrets))
        self._boot = boot
        self._bound = sockets
        self._early: list[tuple[Line, int]] = []
        """Lines that came before it was known which requests workers may submit."""
        self._open = False
        self._channel = channel
        self.hub = Hub(
            self.router,
            self.recorder,
            self.identity,
            self.operations.leaves,
            channel.report,
        )
        self.ending.frontends.append(self.hub)
        self.operations.attach(self.hub, Clients(self.hub))
        self.hub.starts = dict(boot.starts)
        if boot.starts.get("engine"):
            self.first_look_s = NEXT_LOOK_S
        self._tasks = TaskGroup(self.part_failed)
        self._said: str | None = None
        self._teller: asyncio.TimerHandle | None = None

    async def bind(self) -> Ports:
        """The sockets that the supervisor has bound."""
        bound = self._bound
        return Ports([], bound.get("forwards", []), bound.get("sync", []), bound.get("admin", []), [])

    async def let_in(self, ports: Ports) -> None:
        """Takes what workers report."""
        del ports
        self.operations.addresses = {name: list(group) for name, group in self._boot.addresses.items()}
        self.frontend.serve([])
        self.hub.start()
        self._open = True
        early, self._early = self._early, []
        for order, descriptor in early:
            self._line_came(order, descriptor)

    def install_signals(self) -> None:
        """Takes the supervisor's orders in place of signals."""
        self._channel.listen(self.request_stop, self.renew, self._line_came)

    def _line_came(self, order: Line, descriptor: int) -> None:
        if not self._open:
            self._early.append((order, descriptor))
            return
        self.hub.starts = dict(order.starts)
        self._tasks.start(self.hub.join(order, descriptor), name="line")

    def serving(self) -> None:
        """The supervisor tells the service manager."""
        self._channel.report(Ready())
        self._tell()

    def _tell(self) -> None:
        self._teller = asyncio.get_running_loop().call_later(STATUS_S, self._tell)
        status = self.status()
        if status != self._said:
            self._said = status
            self._channel.report(Status(status))


async def run(channel: Channel, boot: Boot, descriptors: list[int]) -> None:
    """Runs the engine process until the supervisor ends it.

    Raises:
        ConfigError: a file that the settings name is no good.
        TaskFailedError: a part of it failed.
    """
    await EngineService(boot, listening(boot, descriptors), channel).run()
