"""The composition root of ``skylb serve``: makes the parts, starts and stops them in order.

Start: sockets are bound before anything else, so that a client port in use ends the process at once. Then the
admin listener and control start, and control probes the replicas. Then peers and clients may connect.

Stop: no new connections, then the mesh closes, then requests under way end. Control and the admin listener
stop after that, because held requests still need both.
"""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from skylb import guard, intents, parts, startreport
from skylb.accesslog import json_line
from skylb.admin import Admin
from skylb.admin.operations import Operations
from skylb.clock import monotonic_ns
from skylb.config import HANDOVER_VARIABLE, Settings
from skylb.control import Control
from skylb.control.naming import Naming
from skylb.data.context import YIELD_IDLE_S, keep_heap
from skylb.data.drain import Drain
from skylb.data.frontend import Frontend
from skylb.descriptors import Allotment, open_len, raise_limit
from skylb.errors import ConfigError, SkyLBError, TaskFailedError
from skylb.handover.giver import Heir
from skylb.handover.protocol import Intent
from skylb.handover.succession import Succession
from skylb.handover.taker import Heritage, inherit
from skylb.inherited import passed
from skylb.isolation import DRAWN
from skylb.keyfiles import read_keys, read_secret, read_tenants, warn_exposed
from skylb.localrouter import LocalRouter
from skylb.mesh.mesh import Mesh
from skylb.mesh.signing import Identity, Keys
from skylb.metrics import LoopStall, Metrics
from skylb.notify import Notifier
from skylb.options import secrets
from skylb.ports import Ports
from skylb.tasks import TaskGroup
from skylb.tracing.collector import read_headers

__all__ = ["Service", "json_line", "serve"]

log = logging.getLogger("skylb.app")

FIRST_LOOK_S = 3.0
"""How long the start waits for the first probe of every replica, at most."""

BEAT_S = 0.1
"""How often the loop's lateness is measured."""

CONFIG_SIGNAL = "SIGHUP"


class Service:
    """One balancer: all parts of a process, wired.

    Args:
        settings: what to run.
        manager: variables that the service manager has set.
        heritage: what a predecessor has handed over.

    Raises:
        ConfigError: a file that the settings name is no good, or such a variable.
    """

    first_look_s = FIRST_LOOK_S

    def __init__(
        self,
        settings: Settings,
        manager: Mapping[str, str] | None = None,
        heritage: Heritage | None = None,
    ) -> None:
        parts.check_files(settings)
        self.settings = settings
        self.notifier = Notifier.of(manager or {}, os.getpid(), self.status)
        self._passed = passed(manager or {}, os.getpid())
        self.tls = parts.server_tls(settings)
        self.recorder = parts.recorder(settings)
        keys = read_keys(settings.mesh.peer_key_file)
        heritage = heritage or Heritage()
        self.isolation = parts.isolation(settings, keys, heritage.secrets)
        secrets = heritage.of_siblings or parts.secrets(settings, keys, self.isolation, heritage.secrets)
        self.router = LocalRouter(parts.engine(settings, secrets), self.part_failed)
        self.pool = parts.replica_pool(settings)
        self.shortage = self.pool.shortage
        self.shortage.give_back = self._give_back
        rules = guard.rules_for(settings.mesh.residency, self.router)
        self.guard = guard.make(settings, rules, self.part_failed)
        keyring = self.guard.keyring if self.guard is not None else None
        self.frontend = Frontend(parts.context(settings, self.router, self.pool, self.recorder, keyring))
        self.frontend.shortage = self.shortage
        self.frontends = [self.frontend]
        self.ending = Drain(
            [self.frontend], delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s
        )
        self.logs = parts.logs(settings, self.recorder)
        self.recording = parts.recording(settings, self.recorder, self.router)
        self.spans = parts.span_exporter(settings, self.recorder)
        self.metrics_page = Metrics(
            recorder=self.recorder,
            engine=self.router,
            buffer_bytes=lambda: self.operations.buffer_bytes,
            log_dropped=lambda: self.operations.log_dropped,
            all_counters=settings.engine_counters,
            more=lambda: self.operations.families(),  # noqa: PLW0108 - it is made after its metrics
        )
        self.control = Control(settings, self.router, self.pool, self.metrics_page, self.part_failed)
        self._failed: str | None = None
        self._ready = False
        self.mesh = self._make_mesh(keys)
        self.succession = Succession(settings, heritage, self.router, secrets, self)
        self.operations = Operations(
            router=self.router,
            pool=self.pool,
            frontend=self.frontend,
            frontends=[*self.frontends],
            ending=self.ending,
            control=self.control,
            mesh=self.mesh,
            guard=self.guard,
            spans=self.spans,
            warning=startreport.open_warning(settings),
            succession=self.succession,
            logs=self.logs,
            recorder=self.recorder,
            recording=self.recording,
            metrics_page=self.metrics_page,
            client_scheme="http" if self.tls is None else "https",
        )
        self.frontend.context.leaves = self.operations.leaves
        self.naming = self.operations.naming = Naming(settings, self.operations.wish, self.part_failed)
        self.admin = Admin(self.operations, settings.admin, None)
        self._stall = LoopStall(self.metrics_page.loop_stall, BEAT_S)
        self._heart: asyncio.TimerHandle | None = None
        self.ports: Ports | None = None
        self._read_keys()

    def _make_mesh(self, keys: Keys | None) -> Mesh | None:
        own = self.settings.mesh
        self.identity = identity = Identity(own.balancer, time.time_ns())
        self.router.set_self(identity, own.region)
        self.router.set_residency([(rule.tenant, rule.model, [*rule.regions]) for rule in own.residency])
        if keys is None or own.peer_listen is None:
            return None
        mesh = Mesh(self.settings, self.router, identity, self.control, keys, self.part_failed)
        peers = parts.peer_frontend(self.settings, mesh, self.frontend.context)
        self.frontends.append(peers)
        self.ending.frontends.append(peers)
        self.control.on_own = mesh.peers.set_replicas
        return mesh

    def _read_keys(self) -> None:
        settings = self.settings
        self.admin.token = read_secret(settings.admin_token_file, "admin_token_file")
        self.control.read_keys()
        self.frontend.context.tenants.set_keys(read_tenants(settings.mesh.tenant_key_file))
        if self.isolation is not None:
            self.isolation.look()
        if self.spans is not None:
            self.spans.collector.headers = tuple(read_headers(settings.otlp.headers_file))
        keys = read_keys(settings.mesh.peer_key_file)
        if self.mesh is not None and keys is not None:
            self.mesh.set_keys(keys)

    # ------------------------------------------------------------------ start and stop

    async def run(self) -> None:
        """Serves until a signal ends it.

        Raises:
            ListenError: an address cannot be bound.
            ConfigError: a socket was passed that no listener wants.
            TaskFailedError: a part of the control plane failed. Requests under way were finished; who
                started the process should start it again.
        """
        self.install_signals()
        await self.start()
        try:
            self._report()
            self.serving()
            await self.ending.wanted()
        finally:
            await self.stop()
        if self._failed is not None:
            raise TaskFailedError(self._failed)

    def _report(self) -> None:
        """For people on stdout; where logs are JSON, nothing but JSON is written anywhere."""
        if self.operations.warning is not None:
            log.warning("%s", self.operations.warning)
        report = self.operations.report()
        self._ready = True
        if self.settings.log_format == "json":
            lines = (line.strip() for line in report.splitlines()[:-1])
            extra = {"type": "start", "fields": self.operations.started()}
            log.info("ready: %s", "; ".join(filter(None, lines)), extra=extra)
        else:
            print(report, flush=True)

    def _report_end(self) -> None:
        """The last line of the log."""
        if self._ready:
            found = self.operations.ended()
            text = "stopped after %(uptime_s).0f s: %(requests)d requests, %(errors)d of them with status 5xx"
            text += ", %(cut)d answers cut" if found["cut"] else ""
            log.info(text, found, extra={"type": "stop", "fields": found})

    async def start(self) -> None:
        """Binds, looks at the replicas, lets clients in.

        Raises:
            ListenError: an address cannot be bound; nothing has started then.
            ConfigError: a socket was passed that no listener wants; likewise.
        """
        limit = raise_limit()
        self.logs.start()  # first: an address that is waited for is said
        try:
            if self.recording is not None:
                self.recording.open()
            self.ports = ports = await self.bind()
        except BaseException:  # cancelled too: what the logs hold is written
            if self.recording is not None:
                self.recording.discard()
            self.logs.stop()
            raise
        self.operations.addresses = ports.named()
        warn_exposed(secrets(self.settings))
        if self.isolation is not None and self.isolation.drawn:
            log.warning(DRAWN)
        if self.spans is not None:
            self.spans.start()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            undo.push(self.succession.failed)  # before the end, which closes the connection
            if self.succession.handed is None:
                await self.admin.start(ports.admin, self.shortage)
            if self.guard is not None:
                await self.guard.start()
            await self.control.start()
            await self.control.first_look(self.first_look_s)
            self._allot(*limit)
            await self._succeed()
            if self.succession.handed is not None:
                await self.admin.start(ports.admin, self.shortage)
            await self.succession.start(ports)
            if self.recording is not None:
                self.recording.start()
            await self._let_all_in(ports)
            self.naming.start()
            undo.pop_all()
        self._beat()
        keep_heap()
        gc.collect()
        gc.freeze()  # what lives from here to the end need not be looked at by every collection

    async def bind(self) -> Ports:
        """The sockets of this process.

        Raises:
            ListenError: an address cannot be bound.
            ConfigError: a socket was passed that no listener wants.
        """
        return await Ports.bind(self.settings, self._passed, self.succession.handed)

    async def let_in(self, ports: Ports) -> None:
        """Takes clients."""
        context = self.tls.context if self.tls is not None else None
        self.frontend.serve([(sock, context) for sock in ports.clients])

    def _allot(self, before: int, limit: int) -> None:
        """Divides the descriptors: ``limit`` there may be, ``before`` when the process began."""
        most = [frontend.connections_max for frontend in self.frontends]
        allotment = Allotment.of(limit, open_len(), most)
        allotment.tell(before, most)
        for frontend, connections_max in zip(self.frontends, allotment.connections, strict=True):
            frontend.connections_max = connections_max

    def _give_back(self) -> None:
        """Closes what can be done without: the process is short of something."""
        self.pool.give_back()
        self.frontend.give_back()

    async def _succeed(self) -> None:
        """Takes over what operators have asked for, and what was learned."""
        intents.carry_out(self.succession.heritage.intent, self.control, self.operations)
        if self.mesh is not None:
            await self.mesh.look()
        await self.ready()
        await self.succession.succeed()

    async def ready(self) -> None:
        """Waits until this process could serve, besides what it does itself."""

    async def _let_all_in(self, ports: Ports) -> None:
        """Takes peers, forwards and clients. A successor that can serve lets clients in first."""
        serves = self.succession.handed is not None and any(found.ready for found in self.router.gauges())
        self.succession.accept()
        if serves:
            await self.let_in(ports)
        await self.succession.retired()
        await self._join(ports)
        if not serves:
            await self.let_in(ports)

    async def _join(self, ports: Ports) -> None:
        """Tells the peers where forwards go, and takes them. Peers of a predecessor are met first."""
        if self.mesh is None:
            return
        succeeds = self.succession.handed is not None
        forwards = startreport.url_of(self.mesh.tls.scheme, self.operations.addresses["forwards"][0])
        await self.mesh.start(ports.sync, forwards, succeeds=succeeds)
        if succeeds:
            await self.mesh.met(self.succession.heritage.intent.reached)
        for frontend in self.frontends[1:]:
            frontend.serve([(sock, self.mesh.tls.server) for sock in ports.peers])

    def _beat(self) -> None:
        self._stall.beat(monotonic_ns())
        self._heart = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    async def stop(self) -> None:
        """Lets requests under way end, then takes everything down.

        Where another process takes over, it does so at once: what clients and peers see is its from then on.
        """
        heir = await self.succession.stop()
        if heir is None:
            self.notifier.stopping(self.settings.drain_delay_s + self.settings.drain_timeout_s)
            await self.naming.close()
            await self.ending.delay()
            await self.succession.keep()
            self.ending.stop_accepting()
        else:
            self.notifier.succeeded(heir.pid)
            await self._yield(heir)
        if self.mesh is not None and heir is None:
            await self.mesh.close()  # first: peers should send nothing more, and take over what we have
        successor = TaskGroup()
        if heir is None:
            successor.start(self._hand_over(), name="hand over")
        await self.ending.drain()
        if self._heart is not None:
            self._heart.cancel()
        for frontend in self.ending.frontends:
            await frontend.close()
        await self.succession.close()
        await self._close_parts()
        await successor.stop()
        await self.admin.close()
        if self.ports is not None:
            self.ports.release()
        if self.recording is not None:
            await asyncio.to_thread(self.recording.stop)
        if self.spans is not None:
            await asyncio.to_thread(self.spans.stop)
        self._report_end()
        await asyncio.to_thread(self.logs.stop)
        self.notifier.close()

    async def _close_parts(self) -> None:
        """What requests have needed until now."""
        if self.mesh is not None:
            await self.mesh.close()
        await self.control.close()
        if self.guard is not None:
            await self.guard.close()
        await self.pool.close()
        if self.frontend.context.crossing is not None:
            await self.frontend.context.crossing.pool.close()
        if self.recording is not None:
            self.recording.end()
        self.router.close()

    async def _yield(self, heir: Heir) -> None:
        """Lets the process that takes over accept in this one's place."""
        await self.naming.let_go()
        self.ending.stop_accepting(YIELD_IDLE_S)
        await self.admin.hand_over()
        if self.mesh is not None:
            await self.mesh.retire()  # it meets the peers as soon as it serves
        heir.retired()

    async def hold(self) -> None:
        """Accepts no connection until `go_on`."""
        for frontend in self.frontends:
            frontend.hold()

    def go_on(self) -> None:
        """Accepts connections again."""
        for frontend in self.frontends:
            frontend.go_on()

    def succeeded(self) -> None:
        """Another process takes this one's place: it ends at once."""
        self.ending.at_once()

    def intent(self) -> Intent:
        """What operators have asked for, which no setting says."""
        return intents.asked(self.settings, self.router, self.control, self.mesh)

    async def _hand_over(self) -> None:
        """Lets a successor have the admin address as soon as it is there, and not before."""
        if self.ports is not None and self._ready:
            await self.ports.succeeded()
            self.ports.unlink_admin()
            await self.admin.hand_over()
            log.info("a successor listens for clients: the admin address is free for it")

    def status(self) -> str:
        """One line for the service manager's status."""
        ready = sum(replica.ready for replica in self.router.gauges())
        state = "stopping" if self.ending.begun else "serving"
        return f"{state}: {ready} of {len(self.router.replicas())} replicas ready"

    def part_failed(self, name: str, error: BaseException) -> None:
        """Without its probes a balancer would route by old facts: better an orderly stop."""
        self._failed = f"{name} failed: {error!r}"
        self.ending.at_once()

    def request_stop(self) -> None:
        """Begins an orderly stop; a further call skips what it waits for."""
        self.ending.request()

    def serving(self) -> None:
        """Tells the service manager that clients are served."""
        self.notifier.ready(self.succession.main_pid)

    def install_signals(self) -> None:
        """Ends in good order at SIGTERM, and reads files again at SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self.renew)
        loop.add_signal_handler(signal.SIGUSR2, self.succession.start_heir)

    def renew(self) -> None:
        """Reads certificates, keys and the files of replicas and peers again, and reopens the access log.

        What cannot be read is logged, and what was read before stays in use.
        """
        with self.notifier.reload():
            self._renew()

    def _renew(self) -> None:
        try:
            self._read_keys()
            warn_exposed(secrets(self.settings))
            self.naming.renew()
            if self.tls is not None:
                self.tls.renew()
            if self.mesh is not None:
                self.mesh.renew()
        except ConfigError as error:
            for fault in error.faults:
                log.warning("%s: not renewed: %s", CONFIG_SIGNAL, fault)
        if self.guard is not None:
            self.guard.renew()
        self.control.renew()
        self.logs.reopen()
        log.info("%s: certificates, keys, replicas and peers read again", CONFIG_SIGNAL)


async def serve(settings: Settings, manager: Mapping[str, str] | None = None) -> None:
    """Runs one balancer until a signal ends it.

    Args:
        settings: what to run.
        manager: variables that the service manager has set.

    Raises:
        ConfigError: a file that the settings name is no good, or what the service manager has passed.
        ListenError: an address cannot be bound.
        HandoverError: a balancer runs, and does not hand over to this process.
    """
    variables = manager or {}
    heritage = await inherit(settings, variables.get(HANDOVER_VARIABLE))
    try:
        service = Service(settings, variables, heritage)
        await service.run()
    except SkyLBError as error:
        if heritage.predecessor is not None:
            heritage.predecessor.fault(str(error))
        raise
