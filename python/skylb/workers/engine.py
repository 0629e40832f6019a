"""The composition root of the engine process: a balancer whose clients are at workers."""

import asyncio
import logging
import os
import socket

import msgspec

from skylb.app import Service
from skylb.handover.protocol import HANDOVER, HandoverError
from skylb.handover.succession import Onlooker
from skylb.handover.taker import Heritage, Predecessor
from skylb.listeners import Listening
from skylb.ports import HAND_OVER_S, Ports
from skylb.tasks import TaskGroup
from skylb.workers.child import Channel, listening
from skylb.workers.hub import LOOK_S, Clients, Hub
from skylb.workers.orders import (
    Accepts,
    Boot,
    GaveUp,
    HandsOver,
    Intends,
    Line,
    Ready,
    Status,
    Stop,
    Succeed,
    Succeeded,
)

log = logging.getLogger("skylb.workers")

NEXT_LOOK_S = 0.5
"""As `FIRST_LOOK_S`, in the place of an engine process that died: requests wait meanwhile."""

STATUS_S = 1.0
"""Between two looks whether the supervisor is to be told another status."""


class Reporter(Onlooker):
    """Reports what a hand-over comes to: the supervisor acts on it if this process dies.

    Args:
        channel: to the supervisor.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begun(self, pid: int) -> None:
        """This process hands over to another one."""
        self._channel.report(HandsOver(pid))

    def gave_up(self, pid: int) -> None:
        """It does not, or no more."""
        self._channel.report(GaveUp(pid))

    def accepts(self, *, accepts: bool) -> None:
        """This process serves in the place of the one before it; or that one serves after all."""
        self._channel.report(Accepts(accepts))


class EngineService(Service):
    """The parts of a balancer, without listeners for clients, and with lines to workers.

    Args:
        boot: what it is to be.
        sockets: bound by the supervisor, by what they are for.
        channel: to the supervisor.
        heritage: what it begins with.

    Raises:
        ConfigError: a file that the settings name is no good.
    """

    def __init__(
        self, boot: Boot, sockets: dict[str, list[Listening]], channel: Channel, heritage: Heritage
    ) -> None:
        super().__init__(boot.settings, heritage=heritage)
        self._boot = boot
        self._bound = sockets
        self._early: list[tuple[Line, int]] = []
        """Lines that came before it was known which requests workers may submit."""
        self._open = False
        self._channel = channel
        self.succession.onlooker = Reporter(channel)
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
            self.succession.patience_s = HAND_OVER_S  # of the dead process, or of an heir that ends
        self._tasks = TaskGroup(self.part_failed)
        self._said: str | None = None
        self._intends = boot.intent
        self.operations.ordered = self._tell_intent
        self._teller: asyncio.TimerHandle | None = None

    async def bind(self) -> Ports:
        """The sockets that the supervisor has bound."""
        bound = self._bound
        clients = bound.get("clients", [])  # workers accept there: these are to be handed over
        return Ports(clients, bound.get("forwards", []), bound.get("sync", []), bound.get("admin", []), [])

    async def ready(self) -> None:
        """A predecessor accepts until all workers could.

        Raises:
            HandoverError: one of them has ended.
        """
        if self.succession.handed is not None:
            self.hub.hold(holds=True)
            self._take_lines()
            while self.hub.loaded_len < self.settings.workers:
                if self.ending.begun:
                    raise HandoverError("a worker could not be started")
                await asyncio.sleep(LOOK_S)

    async def let_in(self, ports: Ports) -> None:
        """Takes what workers report."""
        del ports
        self.operations.addresses = {name: list(group) for name, group in self._boot.addresses.items()}
        self.frontend.serve([])
        self._take_lines()
        self.hub.hold(holds=False)

    def _take_lines(self) -> None:
        if self._open:
            return
        self.hub.start()
        self._open = True
        early, self._early = self._early, []
        for order, descriptor in early:
            self._line_came(order, descriptor)

    async def hold(self) -> None:
        """Workers accept no connection until `go_on`."""
        await super().hold()
        self.hub.hold(holds=True)

    def go_on(self) -> None:
        """Workers accept connections again."""
        super().go_on()
        self.hub.hold(holds=False)

    def succeeded(self) -> None:
        """Another process takes this balancer's place: workers end, and this process behind them."""
        heir = self.succession.heir
        if heir is not None:
            self._channel.report(Succeeded(heir.pid))
        self._leave_clients()
        super().succeeded()

    def install_signals(self) -> None:
        """Takes the supervisor's orders in place of signals."""
        self._channel.listen(self._stop_ordered, self.renew, self._line_came, self._greet)

    def _greet(self, order: Succeed, descriptor: int) -> None:
        self.succession.greet(socket.socket(fileno=descriptor), order.pid)

    def _stop_ordered(self, order: Stop) -> None:
        del order
        self._leave_clients()
        self.request_stop()

    def _leave_clients(self) -> None:
        """Workers end, and accept there as long as they may; then nobody here does."""
        self.hub.workers_end = True
        for sock in self._bound.get("clients", []):
            sock.close()

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

    def _tell_intent(self) -> None:
        """The next engine process is to know what operators have ordered. It does not wait for peers."""
        intent = msgspec.structs.replace(self.intent(), reached=[])
        if intent != self._intends:
            self._intends = intent
            self._channel.report(Intends(intent))

    def _tell(self) -> None:
        self._teller = asyncio.get_running_loop().call_later(STATUS_S, self._tell)
        self._tell_intent()  # peers order too
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
    sockets = listening(boot, descriptors)
    heritage = await _heritage(boot, descriptors[sum(boot.sockets.values()) :])
    heritage.sockets = {HANDOVER: sockets.pop(HANDOVER, [])}
    await EngineService(boot, sockets, channel, heritage).run()


async def _heritage(boot: Boot, descriptors: list[int]) -> Heritage:
    """What a balancer that makes way has given; else what an earlier engine process has kept."""
    found, settings = Heritage(of_siblings=boot.secrets, intent=boot.intent), boot.settings
    if boot.heritage is None:
        if settings.state_dir is not None:
            await asyncio.to_thread(
                found.read,
                settings.state_dir,
                age_max_s=settings.state_age_max_s,
                bytes_max=settings.state_bytes_max,
            )
        return found
    connection, state = descriptors
    found.predecessor = Predecessor(socket.socket(fileno=connection), boot.heritage.pid)
    found.intent = boot.heritage.intent
    with os.fdopen(state, "rb") as file:
        file.seek(0)
        found.keep(file.read())
    return found
