"""The supervisor: binds the sockets, starts the other processes, and starts each again that dies.

It does nothing else, so that nothing else can end it. A child that dies takes only its own work with it.
Where the supervisor dies, all children end, because their channels to it close.
"""

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import Mapping

from skylb import parts
from skylb._core import __version__
from skylb.clock import monotonic_ns
from skylb.config import HANDOVER_VARIABLE, Settings
from skylb.errors import SkyLBError, TaskFailedError
from skylb.handover.protocol import HANDOVER, Intent
from skylb.handover.taker import Heritage, inherit
from skylb.inherited import passed
from skylb.keyfiles import read_keys
from skylb.notify import Notifier
from skylb.output import EXIT_VERSION
from skylb.ports import Ports
from skylb.tasks import TaskGroup
from skylb.workers.child import BEAT_S
from skylb.workers.children import Child, spawn
from skylb.workers.heirs import Heirs
from skylb.workers.links import PAUSE_MAX_S, PAUSE_S, Links
from skylb.workers.orders import (
    ENGINE,
    Accepts,
    Boot,
    Broken,
    GaveUp,
    HandsOver,
    Intends,
    Legacy,
    Ready,
    Renew,
    Report,
    Status,
    Stop,
    Succeeded,
)
from skylb.workers.watchdog import SILENCE_S, WORKER_SILENCE_S, Watchdog

log = logging.getLogger("skylb.workers")

KILL_S = 10.0
"""What children may take to end, besides the time that the settings give them."""


class Supervisor:
    """All processes of one balancer.

    Args:
        settings: what to run.
        manager: variables that the service manager has set.
        heritage: what a balancer that makes way has given, or an earlier one has kept.

    Raises:
        ConfigError: a file that the settings name is no good, or such a variable.
    """

    def __init__(self, settings: Settings, manager: Mapping[str, str], heritage: Heritage) -> None:
        parts.check_files(settings)
        self._settings = settings
        self._status = "starting"
        self._intent = Intent()
        self._notifier = Notifier.of(manager, os.getpid(), lambda: self._status, self._alive)
        self._passed = passed(manager, os.getpid())
        keys = read_keys(settings.mesh.peer_key_file)
        isolation = parts.isolation(settings, keys, heritage.secrets)
        self._secrets = parts.secrets(settings, keys, isolation, heritage.secrets)
        self._heritage: Heritage | None = heritage
        """Until the engine process has it."""
        self._handed = heritage.sockets
        self._succeeds = heritage.predecessor is not None
        self._accepts = False
        """This balancer has taken the place of the one before it, which ends."""
        self._heir: int | None = None
        """The process that takes this one's place."""
        quiet = settings.model_copy(update={"access_log": "off"})
        self._logs = parts.logs(quiet, parts.recorder(quiet))
        self._ports: Ports | None = None
        self._children: dict[int, Child] = {}
        self._standby: Child | None = None
        """A process that has loaded everything, to become the engine process should that die."""
        self._keeper: asyncio.Task[None] | None = None
        """Has such a process made again and again."""
        self._looker: asyncio.TimerHandle | None = None
        self._ready: set[int] = set()
        self._stopping = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._failure: str | None = None
        self._starts: Counter[str] = Counter(engine=0, worker=0)
        self._pauses: dict[int, float] = {}
        self._tasks = TaskGroup(self._part_failed)
        self._heirs = Heirs(self._tasks)
        self._links = Links(self._children, self._starts, self._tasks)
        self._watchdog = Watchdog()
        self._engine_beat_ns = monotonic_ns()
        """Of the engine process that has beaten last."""

    # ------------------------------------------------------------------ start and stop

    async def run(self) -> None:
        """Serves until a signal ends it.

        Raises:
            ListenError: an address cannot be bound.
            ConfigError: a socket was passed that no listener wants.
            TaskFailedError: a child could not be started.
        """
        self._logs.start()
        try:
            handed = self._handed if self._succeeds else None
            self._ports = await Ports.bind(self._settings, self._passed, handed)
            self._install_signals()
            numbers = range(ENGINE, self._settings.workers + 1)
            started = [await spawn(self._reported) for _ in numbers]
            for number, child in zip(numbers, started, strict=True):
                self._lead(number, child, self._ports)
            for worker in numbers[1:]:
                self._links.connect(worker)
            self._look()
            await self._stopping.wait()
            await self._stop(self._ports)
        finally:
            if self._looker is not None:
                self._looker.cancel()
            for child in (*self._children.values(), *filter(None, [self._standby])):
                child.kill()
            await self._tasks.stop()
            self._heirs.close()
            if self._ports is not None:
                self._ports.release()
            await asyncio.to_thread(self._logs.stop)
            self._notifier.close()
        if self._failure is not None:
            raise TaskFailedError(self._failure)

    def _lead(self, number: int, child: Child, ports: Ports) -> None:
        """Tells a child what it is, and watches it."""
        groups = {"clients": ports.clients}
        heritage, self._heritage = (self._heritage, None) if number == ENGINE else (None, self._heritage)
        if number == ENGINE:
            groups |= {"forwards": ports.peers, "sync": ports.sync, "admin": ports.admin}
            groups[HANDOVER] = [] if heritage is None else self._handed.get(HANDOVER, [])
        self._children[number] = child
        sockets = [sock for group in groups.values() for sock in group]
        legacy, descriptors = _legacy(heritage)
        boot = Boot(
            settings=self._settings,
            worker=number,
            secrets=self._secrets,
            sockets={name: len(group) for name, group in groups.items()},
            addresses=ports.named(),
            starts=dict(self._starts),
            inherited=[sock.inherited for sock in sockets],
            intent=self._intent,
            heritage=legacy,
        )
        child.beat_ns, child.beats = monotonic_ns(), False  # it makes all its parts before it beats again
        if not child.order(boot, [*(sock.fileno() for sock in sockets), *descriptors]):
            child.kill()  # it would wait for ever
        for descriptor in descriptors:
            os.close(descriptor)
        if heritage is not None:
            heritage.state = None  # tens of megabytes
        for sock in groups.get(HANDOVER, []):
            sock.close()
        self._tasks.start(self._watch(number, child, ports), name=_name(number))

    async def _watch(self, number: int, child: Child, ports: Ports) -> None:
        """Waits for the end of a child, and starts it again unless the balancer ends."""
        status = await child.wait()
        never_ready = number not in self._ready
        self._ready.discard(number)
        if number == ENGINE and self._heir is None:
            self._heirs.engine_died()
        if self._stopping.is_set():
            if all(other.ended for other in self._children.values()):
                self._all_ended.set()
            return
        if self._may_not_start_again(number, status, never_ready=never_ready):
            self._fail(f"{_name(number)} could not be started: {_said(status)}")
            return
        # One that has served has not died of its start: requests wait for the next one.
        pause_s = self._pauses.pop(number, 0.0) if never_ready else 0.0
        if never_ready:
            self._pauses[number] = min(max(2 * pause_s, PAUSE_S), PAUSE_MAX_S)
        self._starts[_kind(number)] += 1
        log.error("%s has ended: %s; it is started again", _name(number), _said(status))
        if pause_s:
            await asyncio.sleep(pause_s)
        await self._again(number, ports)

    def _may_not_start_again(self, number: int, status: int, *, never_ready: bool) -> bool:
        """A child that has died ends the balancer: it cannot start at all, or another balancer goes on."""
        if self._accepts:
            return False
        only_one_can_take_over = self._succeeds and number == ENGINE
        killed = status == -signal.SIGKILL  # by the watchdog, or for memory: it might have started
        return only_one_can_take_over or (never_ready and not killed and not self._starts.total())

    async def _again(self, number: int, ports: Ports) -> None:
        """Starts a child in the place of one that has died; tries until one can be started."""
        child = self._taken_standby() if number == ENGINE else None
        while child is None and not self._stopping.is_set():
            child = await self._spawned(_name(number))
        if child is None:
            return
        if self._stopping.is_set():
            child.kill()  # nobody has ordered it to stop
            await child.wait()
            return
        self._lead(number, child, ports)
        for worker in [number] if number != ENGINE else [of for of in self._children if of != ENGINE]:
            self._links.connect(worker)

    async def _spawned(self, name: str) -> Child | None:
        """Starts a process; ``None`` after a pause: that is not possible at present."""
        try:
            return await spawn(self._reported)
        except OSError as error:
            log.warning("%s cannot be started: %s; tried again", name, error.strerror or error)
            await asyncio.sleep(PAUSE_MAX_S)
            return None

    def _taken_standby(self) -> Child | None:
        standby = self._standby
        if standby is None or standby.ended:
            return None
        self._standby = None
        if self._keeper is not None:
            self._keeper.cancel()
        return standby

    async def _keep_standby(self) -> None:
        """Has a process ready that becomes the engine process should that die."""
        pause_s = PAUSE_S
        while not self._stopping.is_set():
            self._standby = standby = await self._spawned("the next engine process")
            if standby is None:
                continue
            if self._stopping.is_set():
                standby.kill()
            status = await standby.wait()
            self._standby = None
            if not self._stopping.is_set():
                log.error("the next engine process has ended: %s; another one is started", _said(status))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    # ------------------------------------------------------------------------- reports

    def _reported(self, child: Child, report: Report) -> None:
        number = next((of for of, other in self._children.items() if other is child), None)
        if number is None or self._of_hand_over(report):
            return
        if isinstance(report, Ready):
            if number == ENGINE and self._accepts:
                self._own_files()
            self._ready.add(number)  # also if it has died since: it could start
            if not child.ended:
                self._now_ready(number)
        elif isinstance(report, Intends):
            self._intent = report.intent  # an operator's answer counts on it, and the next one must know it
        elif isinstance(report, Status):
            self._status = report.text
        elif isinstance(report, Broken) and not (child.ended or self._stopping.is_set()):
            self._links.broken(child, report)

    def _of_hand_over(self, report: Report) -> bool:
        """Takes a report of a hand-over, which counts though its sender is dead; ``False``: it is another."""
        if isinstance(report, HandsOver):
            self._heirs.begun(report.pid)
        elif isinstance(report, GaveUp):
            self._heirs.gave_up(report.pid)
        elif isinstance(report, Accepts):
            self._accepts = report.accepts
        elif isinstance(report, Succeeded):
            self._succeeded(report.pid)
        else:
            return False
        return True

    def _succeeded(self, pid: int) -> None:
        """Another process serves: files and reports to the service manager are its from now on."""
        self._heir = pid
        self._notifier.succeeded(pid)
        if self._ports is not None:
            self._ports.yield_up()
        if self._stopping.is_set():
            self._stop_children()  # they have been ordered to, but not that they are succeeded
        self._stopping.set()

    def _own_files(self) -> None:
        """The balancer before this one has ended: the files of Unix sockets are this one's to remove."""
        for sock in (each for group in self._handed.values() for each in group):
            if not sock.inherited and sock.fileno() >= 0:
                sock.own_file()

    def _now_ready(self, number: int) -> None:
        """A child serves: if all do, so does the balancer. A further engine process is made ready."""
        if self._stopping.is_set():
            return
        if number == ENGINE and (self._keeper is None or self._keeper.done()):
            self._keeper = self._tasks.start(self._keep_standby(), name="standby")
        if len(self._ready) == len(self._children):
            self._notifier.ready(os.getpid() if self._succeeds else None)

    # ------------------------------------------------------------------------ watchdog

    def _look(self) -> None:
        """Ends children that stand still: who takes their place serves."""
        self._looker = asyncio.get_running_loop().call_later(BEAT_S, self._look)
        watched = {child: number for number, child in self._children.items() if not child.ended}
        if self._standby is not None and not self._standby.ended:
            watched[self._standby] = ENGINE
        allowed = [(of, WORKER_SILENCE_S if number else SILENCE_S) for of, number in watched.items()]
        for child in self._watchdog.silent(allowed, monotonic_ns()):
            log.error("process %d, %s, stands still: it is ended", child.pid, _name(watched[child]))
            child.kill()

    def _alive(self) -> bool:
        """The engine process beats, or has beaten a moment ago. At the end it need not."""
        engine = self._children.get(ENGINE)
        if engine is not None and engine.beats:
            self._engine_beat_ns = max(self._engine_beat_ns, engine.beat_ns)
        return self._stopping.is_set() or monotonic_ns() - self._engine_beat_ns < SILENCE_S * 1e9

    # ----------------------------------------------------------------------------- end

    async def _stop(self, ports: Ports) -> None:
        """Has all children end in good order."""
        settings = self._settings
        within_s = settings.drain_delay_s + settings.drain_timeout_s
        if self._heir is None:
            self._notifier.stopping(within_s)
        if self._standby is not None:
            self._standby.kill()
        for group in ports.by_name().values():
            for sock in group:
                sock.close()  # children have it, and close it when they accept nothing more
        self._stop_children()
        if all(child.ended for child in self._children.values()):
            return
        ended = self._tasks.start(self._all_ended.wait(), name="end")
        _, late = await asyncio.wait([ended], timeout=within_s + KILL_S)
        if late:
            log.error("not all processes have ended in time")

    def _stop_children(self) -> None:
        for number, child in self._children.items():
            if not child.ended and (self._heir is None or number != ENGINE):  # that ends by itself, succeeded
                child.order(Stop(succeeded=self._heir is not None))

    def _fail(self, why: str) -> None:
        self._failure = self._failure or why
        self._stopping.set()

    def _part_failed(self, name: str, error: BaseException) -> None:
        self._fail(f"{name} failed: {error!r}")

    def request_stop(self) -> None:
        """Begins an orderly stop; a further call skips what it waits for."""
        if self._stopping.is_set():
            for child in self._children.values():
                if not child.ended:
                    child.order(Stop())
        self._stopping.set()

    def renew(self) -> None:
        """Has all children read their files again."""
        with self._notifier.reload():
            for child in self._children.values():
                if not child.ended:
                    child.order(Renew())

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self.renew)
        loop.add_signal_handler(signal.SIGUSR2, self._start_heir)

    def _start_heir(self) -> None:
        if self._stopping.is_set():
            log.warning("hand-over: this balancer ends: nothing is started")
        else:
            self._heirs.start(lambda: self._children.get(ENGINE))


def _legacy(heritage: Heritage | None) -> tuple[Legacy | None, list[int]]:
    """What the engine process takes over, and its descriptors; nothing where no balancer makes way."""
    if heritage is None or heritage.predecessor is None:
        return None, []
    state = os.memfd_create("state")
    with os.fdopen(state, "wb", closefd=False) as file:
        file.write(b"" if heritage.state is None else heritage.state.data)
    return Legacy(heritage.intent, heritage.predecessor.pid), [heritage.predecessor.detach(), state]


def _kind(number: int) -> str:
    return "engine" if number == ENGINE else "worker"


def _name(number: int) -> str:
    return "the engine process" if number == ENGINE else f"worker {number}"


def _said(status: int) -> str:
    if status == EXIT_VERSION:
        return f"exit status {status}: another version than {__version__} is installed; hand over to it"
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


async def serve(settings: Settings, manager: Mapping[str, str] | None = None) -> None:
    """Runs one balancer of several processes until a signal ends it.

    Args:
        settings: what to run.
        manager: variables that the service manager has set.

    Raises:
        ConfigError: a file that the settings name is no good, or what the service manager has passed.
        ListenError: an address cannot be bound.
        TaskFailedError: a process could not be started.
        HandoverError: a balancer runs, and does not hand over to this process.
    """
    variables = manager or {}
    heritage = await inherit(settings, variables.get(HANDOVER_VARIABLE))
    try:
        await Supervisor(settings, variables, heritage).run()
    except SkyLBError as error:
        if heritage.predecessor is not None:
            heritage.predecessor.fault(str(error))
        raise
