"""When each request goes out: users who wait for answers (closed loop), or a timetable (open loop)."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from skylb.clock import monotonic_ns, process_ns
from skylb.tasks import TaskGroup
from skylb.tools.load.report import SCHEMA, Generator, Report, quantiles, section
from skylb.tools.load.send import Sender
from skylb.tools.load.settings import LoadSettings
from skylb.tools.load.stats import Histogram, Tally
from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import Session, User, Workload, group_users
from skylb.types import Replica

HOUSEKEEPING_S = 0.25
LAG_INTERVAL_S = 0.02
LATE_S = 0.010
SATURATED_CPU = 0.9
AFTER_FAILURE_S = 0.5
"""What a user waits after a failed request before going on: a dead target is not hammered."""


class Load:
    """One load, from the first request to the report.

    Args:
        settings: what to do.
        workload: what there is to send.
        sender: sends it.
        model: asked for; goes into the report.
    """

    def __init__(self, settings: LoadSettings, workload: Workload, sender: Sender, *, model: str) -> None:
        self._settings = settings
        self._workload = workload
        self._sender = sender
        self._model = model
        self._stopping = asyncio.Event()
        self._cut = asyncio.Event()
        self._gates: dict[str, list[asyncio.Event]] = {}
        self._ended_by = "exhausted"
        self._lag = Histogram()
        self._send_lag = Histogram()
        self._start_ns = self._stop_ns = self._end_ns = 0
        self._cpu_ns = 0
        self._tasks = TaskGroup()

    def total(self) -> Tally:
        """All figures so far."""
        return self._sender.total()

    @property
    def elapsed_s(self) -> float:
        """Since the first request was due."""
        return (monotonic_ns() - self._start_ns) / 1e9

    @property
    def requests(self) -> int:
        """Requests there are to send."""
        return len(self._workload.turns)

    def interrupt(self) -> None:
        """Stops now: requests in flight are cut off, the report covers what there is."""
        self._stop("interrupted")
        self._cut.set()

    def seat(self, region: str, count: int) -> None:
        """Closed loop: from now on only so many of a region's users begin requests; the others pause."""
        for number, gate in enumerate(self._gates.get(region, ())):
            if number < count or self._stopping.is_set():
                gate.set()
            else:
                gate.clear()

    def seats(self, region: str) -> int:
        """Users of a region who may begin requests."""
        return sum(gate.is_set() for gate in self._gates.get(region, ()))

    def retarget(self, region: str, replica: Replica) -> None:
        """Sends a region's further requests there, as a changed DNS record would."""
        self._sender.retarget(region, replica)

    def tally(self, region: str) -> Tally:
        """One region's figures so far."""
        return self._sender.tally(region)

    async def run(self, watch: Callable[["Load"], None] | None = None) -> Report:
        """Sends everything, or until the time is over or `interrupt` is called.

        Args:
            watch: called four times a second.
        """
        settings, sender = self._settings, self._sender
        self._start_ns = monotonic_ns()
        self._cpu_ns = process_ns()
        sender.measure_from_ns = self._start_ns + int(settings.warmup_s * 1e9)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(settings.duration_s, self._stop, "duration") if settings.duration_s else None
        self._tasks.start(self._housekeeping(watch), name="load housekeeping")
        self._tasks.start(self._measure_lag(), name="load lag")
        try:
            drive = self._closed() if settings.mode == "closed" else self._open()
            driver = self._tasks.start(drive, name="load driver")
            await self._until_done(driver)
        finally:
            if timer is not None:
                timer.cancel()
            self._stopped()
            self._cpu_ns = process_ns() - self._cpu_ns
            self._end_ns = monotonic_ns()
            await self._tasks.stop()
            await sender.close()
        return self.report()

    async def _until_done(self, driver: "asyncio.Task[None]") -> None:
        """Until all is sent and answered; after a stop, until the time for draining is over."""
        stopped = self._tasks.start(self._stopping.wait(), name="load stop")
        cut = self._tasks.start(self._cut.wait(), name="load cut")
        await asyncio.wait({driver, stopped, cut}, return_when=asyncio.FIRST_COMPLETED)
        if not driver.done() and not self._cut.is_set():
            await asyncio.wait(
                {driver, cut}, timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED
            )
        if driver.done():
            driver.result()

    def _stop(self, reason: str) -> None:
        if not self._stopping.is_set():
            self._ended_by = reason
        self._stopped()
        self._stopping.set()
        for gates in self._gates.values():
            for gate in gates:
                gate.set()

    def _stopped(self) -> None:
        """The measured time is over."""
        if not self._stop_ns:
            self._stop_ns = self._sender.measure_until_ns = monotonic_ns()

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not beyond a stop."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()

    # ------------------------------------------------------------------------------ closed loop

    async def _closed(self) -> None:
        settings = self._settings
        seats = []
        for region, users in group_users(self._workload.turns).items():
            waiting = deque(users)
            step_s = settings.ramp_s / settings.concurrency
            count = min(settings.concurrency, len(users))
            gates = self._gates[region] = [asyncio.Event() for _ in range(count)]
            for number, gate in enumerate(gates):
                gate.set()
                seats.append(self._seat(waiting, number * step_s, gate))
        await asyncio.gather(*seats)

    async def _seat(self, waiting: deque[User], delay_s: float, gate: asyncio.Event) -> None:
        """One user after another, each with one conversation after another, while the gate is open."""
        await self._pause(delay_s)
        while waiting and not self._stopping.is_set():
            for session in waiting.popleft().sessions:
                await self._session(session, gate)

    async def _session(self, session: Session, gate: asyncio.Event) -> None:
        await asyncio.gather(*(self._follow(session, turn, gate) for turn in session.roots))

    async def _follow(self, session: Session, turn: Turn, gate: asyncio.Event) -> None:
        """A request and all that follow it; several that follow the same one go out together."""
        following = [turn]
        while len(following) == 1 and not self._stopping.is_set():
            (turn,) = following
            await self._pause(turn.think_s * self._settings.time_scale)
            await gate.wait()
            if self._stopping.is_set():
                return
            if not await self._sender.send(turn):
                await self._pause(AFTER_FAILURE_S)
            following = session.followers.get(turn.id, [])
        if not self._stopping.is_set():
            await asyncio.gather(*(self._follow(session, turn, gate) for turn in following))

    # -------------------------------------------------------------------------------- open loop

    async def _open(self) -> None:
        settings, sender = self._settings, self._sender
        scale = settings.time_scale / settings.rate_scale
        turns = sorted(self._workload.turns, key=lambda turn: (turn.t_s, turn.id))
        first_s = turns[0].t_s
        for turn in turns:
            due_ns = self._start_ns + int((turn.t_s - first_s) * scale * 1e9)
            await self._pause((due_ns - monotonic_ns()) / 1e9)
            if self._stopping.is_set():
                break
            self._send_lag.add((monotonic_ns() - due_ns) / 1e9)
            if sender.in_flight >= settings.in_flight_max:
                sender.refuse(turn)
            else:
                sender.send(turn)
        await sender.idle()

    # ----------------------------------------------------------------------------- on the side

    async def _housekeeping(self, watch: Callable[["Load"], None] | None) -> None:
        while True:
            self._sender.sweep()
            if watch is not None:
                watch(self)
            await asyncio.sleep(HOUSEKEEPING_S)

    async def _measure_lag(self) -> None:
        while True:
            due_ns = monotonic_ns() + int(LAG_INTERVAL_S * 1e9)
            await asyncio.sleep(LAG_INTERVAL_S)
            self._lag.add((monotonic_ns() - due_ns) / 1e9)

    def report(self) -> Report:
        """All figures, once the load has ended."""
        workload, total = self._workload, self.total()
        wall_s = (self._end_ns - self._start_ns) / 1e9
        measured_s = max(0.0, (self._stop_ns - self._sender.measure_from_ns) / 1e9)
        cpu_share = self._cpu_ns / 1e9 / wall_s if wall_s > 0 else 0.0
        lag = quantiles(self._lag)
        return Report(
            schema=SCHEMA,
            settings=self._settings.model_dump(mode="json"),
            model=self._model,
            workload_requests=self.requests,
            workload_sent=total.begun / self.requests,
            lines_bad=workload.lines_bad,
            first_fault=workload.first_fault,
            wall_s=wall_s,
            measured_s=measured_s,
            ended_by=self._ended_by,
            total=section(total, measured_s),
            regions={
                name: section(tally, measured_s) for name, tally in sorted(self._sender.tallies.items())
            },
            generator=Generator(
                cpu_share=cpu_share,
                loop_lag_s=lag,
                send_lag_s=quantiles(self._send_lag),
                late=(lag.p99 or 0.0) > LATE_S,
                saturated=cpu_share > SATURATED_CPU,
            ),
        )
