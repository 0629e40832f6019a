"""The composition root of a worker: it takes clients, and relays what the engine process decides."""

import asyncio
import gc
import logging
import os
from collections import Counter

from skylb import guard, parts
from skylb._core import RemoteEngine
from skylb.clock import monotonic_ns, process_ns
from skylb.data.context import DRAIN_IDLE_S, YIELD_IDLE_S, keep_heap
from skylb.data.crossing import Crossing
from skylb.data.demand import counted
from skylb.data.drain import Drain
from skylb.data.frontend import Frontend
from skylb.descriptors import Allotment, open_len, raise_limit
from skylb.errors import ConfigError, TaskFailedError
from skylb.keyfiles import read_keys, read_tenants
from skylb.listeners import Listening
from skylb.mesh.signing import Identity, Verifier
from skylb.mesh.tls import MeshTls
from skylb.tasks import TaskGroup
from skylb.workers.child import Channel, listening
from skylb.workers.line import Line
from skylb.workers.orders import Boot, Broken, Ready, Stop
from skylb.workers.orders import Line as LineOrder
from skylb.workers.protocol import Figures, View
from skylb.workers.router import RemoteRouter, understood

log = logging.getLogger("skylb.workers")

FIGURES_S = 0.5
"""Between two reports of a worker's figures."""


class Worker:
    """One worker: all parts of its process, wired.

    Args:
        boot: what it is to be.
        sockets: for clients.
        channel: to the supervisor.

    Raises:
        ConfigError: a file that the settings name is no good.
    """

    def __init__(self, boot: Boot, sockets: list[Listening], channel: Channel) -> None:
        self.settings = settings = parts.share(boot.settings)
        self.number = boot.worker
        self._sockets = sockets
        self._channel = channel
        self.tls = parts.server_tls(settings)
        self.recorder = parts.recorder(settings)
        self.recorder.send_records()
        parts.span_exporter(settings, self.recorder)  # the engine process has another, and posts
        own = settings.engine
        self.engine = RemoteEngine(
            boot.secrets.blocks, own.block_bytes, own.prompt_blocks_max, own.class_from_body
        )
        keys = read_keys(settings.mesh.peer_key_file)
        self.isolation = parts.isolation(settings, keys)
        if boot.secrets.isolation is not None:
            self.engine.isolate(boot.secrets.isolation)
        self.engine.record_prompts(settings.record is not None)
        parts.keep_ids(self.engine, settings)
        self.router = RemoteRouter(
            self.engine, self.recorder, retry_after_s=own.retry_after_s, changed=self._changed
        )
        self.pool = parts.replica_pool(settings)
        self.shortage = self.pool.shortage
        self.shortage.give_back = self._give_back
        self.guard = guard.make(settings, lambda ring: self.router.set_terms(ring.terms), self._part_failed)
        keyring = self.guard.keyring if self.guard is not None else None
        self.frontend = Frontend(parts.context(settings, self.router, self.pool, self.recorder, keyring))
        self.frontend.shortage = self.shortage
        self.frontend.accepts_at_once = 1  # each connection goes to whoever is free first
        self.ending = Drain(
            [self.frontend], delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s
        )
        self.frontend.context.leaves = lambda: self.ending.begun or self.router.view.leaves
        self.logs = parts.logs(settings, self.recorder)
        self._mesh_tls = MeshTls(settings.mesh) if keys is not None else None
        self._identity: tuple[str, int] | None = None
        self._failed: str | None = None
        self._informed = asyncio.Event()
        """It can serve, or it ends."""
        self._loaded = False
        """It has all that it needs to serve."""
        self._holds = False
        """No connection is accepted for now."""
        self._idle_s = DRAIN_IDLE_S
        """How long idle connections stay at the end."""
        self._line: Line | None = None
        self._serial = 0
        """Of that line."""
        self._tasks = TaskGroup(self._part_failed)
        self._figures: asyncio.TimerHandle | None = None
        self._due_ns = 0
        """When the figures are due next."""
        self._lag_ns = 0
        """How late they were last: the loop had other things to do."""
        self._read_keys()

    # ------------------------------------------------------------------ start and stop

    async def run(self) -> None:
        """Serves until the supervisor ends it.

        Raises:
            TaskFailedError: a part of it failed.
        """
        limit = raise_limit()
        self.logs.start()
        self._channel.listen(self._request_stop, self.renew, self._line_came)
        if self.guard is not None:
            await self.guard.start()
        await self._informed.wait()
        if not self.ending.begun:
            self._allot(*limit)
            context = self.tls.context if self.tls is not None else None
            self.frontend.serve([(sock, context) for sock in self._sockets])
            if self._holds:
                self.frontend.hold()
            self._channel.report(Ready())  # first: a balancer that takes over counts on loaded workers
            self._loaded = True
            self._report()
        keep_heap()
        gc.collect()
        gc.freeze()
        try:
            await self.ending.wanted()
        finally:
            await self._stop()
        if self._failed is not None:
            raise TaskFailedError(self._failed)

    async def _stop(self) -> None:
        await self.ending.delay()
        self.ending.stop_accepting(self._idle_s)
        await self.ending.drain()
        await self.frontend.close()
        await self.pool.close()
        if self.frontend.context.crossing is not None:
            await self.frontend.context.crossing.pool.close()
        if self.guard is not None:
            await self.guard.close()
        if self._figures is not None:
            self._figures.cancel()
        self._tell_figures()
        self.router.close()
        if self._line is not None:
            await self._line.close()
        await asyncio.to_thread(self.logs.stop)

    def _allot(self, before: int, limit: int) -> None:
        most = [self.frontend.connections_max]
        allotment = Allotment.of(limit, open_len(), most)
        allotment.tell(before, most)
        (self.frontend.connections_max,) = allotment.connections

    def _give_back(self) -> None:
        self.pool.give_back()
        self.frontend.give_back()

    def _part_failed(self, name: str, error: BaseException) -> None:
        self._failed = f"{name} failed: {error!r}"
        self.ending.at_once()
        self._informed.set()

    def _request_stop(self, order: Stop) -> None:
        if order.succeeded:
            self.ending.at_once()
            self._idle_s = YIELD_IDLE_S
            for sock in self._sockets:
                sock.yield_up()
        else:
            self.ending.request()
        self._informed.set()  # it ends, even if no engine process has ever informed it

    # ---------------------------------------------------------------- the engine process

    def _line_came(self, order: LineOrder, descriptor: int) -> None:
        self._tasks.start(self._attach(order, descriptor), name="line")

    async def _attach(self, order: LineOrder, descriptor: int) -> None:
        """Speaks to an engine process: the first, one that has taken its place, or the same as before."""
        if self._line is not None:
            self._line.abort()
            self.router.detach()
        self._line = line = Line(self._received, self._line_ended, self.router.drained)
        self._serial = order.serial
        self.router.attach(line)
        self._tell_figures()
        await line.open(descriptor)

    def _received(self, line: Line, data: bytes) -> None:
        if line is self._line and not understood(self.router.receive, data):
            line.abort()
            self._line_ended(line, "its decisions cannot be carried out")

    def _line_ended(self, line: Line, why: str) -> None:
        """The line is of no use any more: the supervisor makes another one."""
        if line is self._line:
            self._line = None
            self.router.detach()
            self._channel.report(Broken(self.number, self._serial, why))

    def _changed(self, view: View) -> None:
        """The engine process has said something of itself."""
        self.recorder.set_policy(view.policy)
        self.logs.set_policy(view.policy)
        self._holds = view.holds
        if view.holds:
            self.frontend.hold()
        else:
            self.frontend.go_on()
        if self._mesh_tls is not None and view.identity != self._identity:
            self._cross(Identity(*view.identity), self._mesh_tls)
            self._identity = view.identity
        self._informed.set()

    def _cross(self, identity: Identity, tls: MeshTls) -> None:
        """Signs forwards as this run of the balancer from now on."""
        context = self.frontend.context
        keys = read_keys(self.settings.mesh.peer_key_file)
        if keys is None:
            return
        pool = parts.peer_pool(context.pool, tls) if context.crossing is None else context.crossing.pool
        verifier = Verifier(identity, keys, lambda _: None)  # forwards come to the engine process
        context.crossing = Crossing(identity, verifier, pool, Counter(), lambda *_: False)

    # ------------------------------------------------------------------------- figures

    def _report(self) -> None:
        now_ns = monotonic_ns()
        self._lag_ns = max(0, now_ns - self._due_ns) if self._due_ns else 0
        self._due_ns = now_ns + int(FIGURES_S * 1e9)
        self._tell_figures()
        self._figures = asyncio.get_running_loop().call_later(FIGURES_S, self._report)

    def _tell_figures(self) -> None:
        context, frontend = self.frontend.context, self.frontend
        gauges: dict[str, int] = {
            "pid": os.getpid(),
            "loaded": int(self._loaded),
            "connections": frontend.connections_len,
            "connections_max": frontend.connections_max,
            "upstream_idle": self.pool.idle_len,
            "requests": self.router.requests_len,
            "lag_us": self._lag_ns // 1000,
            "buffer_bytes": context.budget.bytes,
            "kept_bytes": self.engine.kept_bytes,
        }
        held, in_flight = counted([frontend])
        gauges |= {f"held {model}": count for model, count in held.items()}
        gauges |= {f"in_flight {model}": count for model, count in in_flight.items()}
        counters = {
            "cpu_ns": process_ns(),
            "connections_closed": frontend.closed_total,
            "connections_refused": frontend.refused_total,
            "refused": context.refused,
            "log_dropped": self.logs.dropped,
            "records_dropped": self.recorder.records_dropped,
            **{f"shortage_{doing}": count for doing, count in self.shortage.total.items()},
            **{f"local_{code}": count for code, count in context.local_errors.items()},
        }
        if self.guard is not None:
            refused = self.guard.keyring.refused
            counters |= {f"keys_refused_{reason}": count for reason, count in refused.items()}
        self.router.tell(Figures(gauges, counters))

    # --------------------------------------------------------------------------- files

    def _read_keys(self) -> None:
        mesh = self.settings.mesh
        self.frontend.context.tenants.set_keys(read_tenants(mesh.tenant_key_file))
        if self.isolation is not None:
            self.isolation.look()
        crossing, keys = self.frontend.context.crossing, read_keys(mesh.peer_key_file)
        if crossing is not None and keys is not None:
            crossing.set_keys(keys)

    def renew(self) -> None:
        """Reads certificates and keys again, and reopens the access log."""
        try:
            self._read_keys()
            if self.tls is not None:
                self.tls.renew()
            if self._mesh_tls is not None:
                self._mesh_tls.renew()
        except ConfigError as error:
            for fault in error.faults:
                log.warning("worker %d: not renewed: %s", self.number, fault)
        if self.guard is not None:
            self.guard.renew()
        self.logs.reopen()


async def run(channel: Channel, boot: Boot, descriptors: list[int]) -> None:
    """Runs one worker until the supervisor ends it.

    Raises:
        ConfigError: a file that the settings name is no good.
        TaskFailedError: a part of it failed.
    """
    await Worker(boot, listening(boot, descriptors)["clients"], channel).run()
