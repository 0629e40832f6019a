"""How this process came to its place, what it keeps, and who takes its place."""

import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb.clock import unix_ns
from skylb.config import HANDOVER_VARIABLE, Settings, all_environment
from skylb.errors import SkyLBError
from skylb.handover.giver import Giver, Heir, child_environment
from skylb.handover.protocol import HANDOVER, HandoverError, Intent
from skylb.handover.state import OUTCOMES, Exporter, Kept, Secrets, StateFile, make_directory
from skylb.handover.taker import Heritage
from skylb.listeners import Listening
from skylb.ports import Ports
from skylb.router import Router
from skylb.tasks import TaskGroup

log = logging.getLogger("skylb.handover")


class Service(Protocol):
    """The balancer, as far as its succession concerns it."""

    def intent(self) -> Intent:
        """What operators have asked for, which no setting says."""

    async def hold(self) -> None:
        """Accepts no connection until `go_on`."""

    def go_on(self) -> None:
        """Accepts connections again."""

    def succeeded(self) -> None:
        """Another process takes this one's place: it ends at once."""

    def part_failed(self, name: str, error: BaseException, /) -> None:
        """A task ended with an error."""


class Onlooker:
    """Gets to know what a hand-over comes to. This one makes nothing of it."""

    def begun(self, pid: int) -> None:
        """This process hands over to another one."""

    def gave_up(self, pid: int) -> None:
        """It does not, or no more."""

    def accepts(self, *, accepts: bool) -> None:
        """This process serves in the place of the one before it; or that one serves after all."""


class Succession:
    """Takes over from the process before this one, keeps what is learned, and hands over to the next.

    Args:
        settings: where hand-overs begin, how long they may take, and where the state is kept.
        heritage: what this process begins with.
        router: knows what was learned, and what is in flight.
        secrets: what hashes are keyed by here.
        service: the balancer.

    Raises:
        ConfigError: the directory of the state cannot be made, or others may write to it.
    """

    def __init__(
        self,
        settings: Settings,
        heritage: Heritage,
        router: Router,
        secrets: Secrets,
        service: Service,
    ) -> None:
        self.heritage = heritage
        self.onlooker = Onlooker()
        self.patience_s = 0.0
        """How long to wait for the path of the hand-over socket, where another process still holds it."""
        self.intent = service.intent
        self.succeeded = service.succeeded
        self.hold = service.hold
        self.go_on = service.go_on
        self.in_flight = router.in_flight
        self._settings = settings
        self._router = router
        self._secrets = secrets
        self._giver = Giver(self, timeout_s=settings.takeover_timeout_s)
        self._ports: Ports | None = None
        self._serves = heritage.predecessor is None
        """No other process has the state: it may be written."""
        self._exporter = Exporter(router, secrets, settings.state_bytes_max)
        self._file: StateFile | None = None
        self._tasks = TaskGroup(service.part_failed)
        if settings.state_dir is not None:
            make_directory(settings.state_dir)
            self._file = StateFile(settings.state_dir, Exporter(router, secrets, settings.state_bytes_max))

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
        """All is there but clients: takes over what was learned. A predecessor accepts no more for now.

        Raises:
            HandoverError: it does not, because it has given this process up.
        """
        heritage = self.heritage
        if heritage.state is not None:
            heritage.outcome, heritage.why = self._take(heritage.state)
            heritage.state = None  # tens of megabytes
        if heritage.why:
            level = logging.INFO if heritage.outcome == "absent" else logging.WARNING
            log.log(level, "starts without what was learned: %s", heritage.why)
        if heritage.predecessor is not None:
            await heritage.predecessor.make_way(self._take_rest, self._router.merge_predecessor)
            heritage.predecessor.follow(self._router.merge_predecessor)

    def accept(self) -> None:
        """Nothing can fail any more: this process serves, and a predecessor ends.

        Raises:
            HandoverError: the predecessor has given this process up.
        """
        if self.heritage.predecessor is not None:
            self.heritage.predecessor.accept()
            self.onlooker.accepts(accepts=True)

    def failed(self, kind: object, error: BaseException | None, trace: object) -> None:
        """The start has ended with this error, if there is one: a predecessor gets to know why."""
        del kind, trace
        if isinstance(error, SkyLBError) and self.heritage.predecessor is not None:
            self.heritage.predecessor.fault(str(error))

    async def retired(self) -> None:
        """A predecessor has let go of peers and DNS records.

        Raises:
            HandoverError: it has given this process up in the last moment.
        """
        heritage = self.heritage
        if heritage.predecessor is None:
            return
        try:
            await heritage.predecessor.retired()
        except HandoverError:
            self.onlooker.accepts(accepts=False)
            raise
        heritage.own_files()
        for sock in heritage.sockets.get(HANDOVER, ()):
            if not self._giver.keeps(sock):
                sock.release()  # the settings have none, or another path
        self._serves = True
        log.info("hand-over: took over from process %d", heritage.predecessor.pid)

    def _take(self, kept: Kept) -> tuple[str, str]:
        """The outcome, and why, where it is a cold start."""
        if kept.secrets != self._secrets:
            return "secret", "its hashes are keyed by another secret: a key file has changed"
        try:
            found = self._router.import_state(kept.data, max(0, kept.age_ns))
        except ValueError as error:
            return "foreign", str(error)
        log.info(
            "starts with a state of %.1f s ago: %d of %d replicas, %d prefixes, %d sessions, %d tenants",
            max(0, kept.age_ns) / 1e9,
            *(found[name] for name in ("replicas", "replicas_told", "paths", "sessions", "tenants")),
        )
        return "warm", ""

    def _take_rest(self, data: bytes) -> None:
        try:
            outcome, why = self._take(Kept.of(data))
        except ValueError as error:
            outcome, why = "foreign", str(error)
        if outcome != "warm":
            log.warning("what the predecessor has learned last is not known: %s", why)

    # ------------------------------------------------------------------ the one after it

    @property
    def heir(self) -> Heir | None:
        """The process that takes this one's place, once it is ready."""
        return self._giver.heir

    async def start(self, ports: Ports) -> None:
        """From now on the state is kept, and these sockets can be handed over.

        Raises:
            ListenError: another balancer hands over at the same path, or the path is no good.
        """
        path = self._settings.handover_path
        if path is not None:
            await self._giver.listen(path, self.heritage.sockets.get(HANDOVER, ()), self.patience_s)
        self._ports = ports
        if self._file is not None:
            self._tasks.start(self._file.run(self._settings.state_interval_s), name="keep the state")

    def start_heir(self) -> None:
        """Starts the program as it is on disk now, which takes over."""
        if self._ports is None or self.heir is not None:
            log.warning("hand-over: this process does not serve yet, or no more: nothing is started")
            return
        self._giver.start_heir(HANDOVER_VARIABLE, child_environment(all_environment()))

    def greet(self, sock: socket.socket, pid: int) -> None:
        """Hands over to a process that this balancer has started; the connection to it is this object's."""
        if self._ports is None:
            log.warning("hand-over: this process does not serve yet: process %d gets nothing", pid)
            sock.close()
        else:
            self._giver.greet(sock, pid)

    def begun(self, pid: int) -> None:
        """A process gets all this from now on, to serve in its place."""
        self.onlooker.begun(pid)

    def gave_up(self, pid: int) -> None:
        """A process does not serve in its place."""
        self.onlooker.gave_up(pid)

    def sockets(self) -> Mapping[str, Sequence[Listening]]:
        """All listening sockets, by the names of `skylb.inherited.LISTENERS`."""
        return {} if self._ports is None else self._ports.by_name()

    def state(self) -> AsyncIterator[bytes]:
        """What the engine has learned, in parts."""
        return self._exporter.parts()

    def rest(self) -> AsyncIterator[bytes]:
        """What it has learned since then."""
        return self._exporter.parts(self._exporter.clock)

    # ------------------------------------------------------------------ the end

    async def stop(self) -> Heir | None:
        """Hands over no more, and keeps the state no more; the process that takes over, if there is one."""
        await self._giver.close()
        await self._tasks.stop()
        if self.heir is not None and self._ports is not None:
            self._ports.yield_up()
        return self.heir

    async def keep(self) -> None:
        """Writes the state for the last time, before another process may read it."""
        if self._file is not None and self._ports is not None and self._serves:
            await self._file.save()

    async def close(self) -> None:
        """All requests have ended: an heir and a predecessor are left alone."""
        if self.heir is not None:
            await self.heir.close()
        if self.heritage.predecessor is not None:
            await self.heritage.predecessor.close()

    # ------------------------------------------------------------------ figures

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""
        start = GaugeMetricFamily(
            "skylb_state_start", "What became of the kept state at the start.", labels=("outcome",)
        )
        for outcome in OUTCOMES:
            start.add_metric((outcome,), outcome == self.heritage.outcome)
        yield start
        yield CounterMetricFamily(
            "skylb_handovers_failed", "Hand-overs that came to nothing.", value=self._giver.failed_total
        )
        if self._file is None:
            return
        age_s = (unix_ns() - self._file.written_ns) / 1e9 if self._file.written_ns else 0.0
        yield GaugeMetricFamily("skylb_state_age_seconds", "Time since the state was written.", value=age_s)
        yield GaugeMetricFamily(
            "skylb_state_bytes", "Size of the state that was written last.", value=self._file.bytes
        )
        yield CounterMetricFamily(
            "skylb_state_write_failures", "States that could not be written.", value=self._file.failed_total
        )
