"""The composition root of ``skylb serve``: makes the parts, starts and stops them in order.

Start: sockets are bound before anything else, so that a port in use ends the process at once. Then
control looks at the replicas. Then clients may connect. Stop: no new clients, requests under way end,
and only then do control and the admin listener go, because held requests still need both.
"""

import asyncio
import gc
import logging
import os
import platform
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from itertools import chain
from typing import Any

import orjson

from skylb import _core
from skylb.accesslog import Logs, json_line
from skylb.addresses import ListenAddress
from skylb.admin import Admin
from skylb.clock import monotonic_ns, unix_offset_ns
from skylb.config import Settings
from skylb.control import Control
from skylb.control.naming import Naming, Wish, make
from skylb.data.context import Budget, Context, Limits, keep_heap
from skylb.data.cors import Cors
from skylb.data.crossing import Crossing
from skylb.data.drain import Drain
from skylb.data.frontend import Frontend, families
from skylb.data.peerside import PeerFrontend
from skylb.data.reading import Reading
from skylb.data.tenants import Tenants
from skylb.descriptors import Allotment, open_len, raise_limit
from skylb.errors import ConfigError, TaskFailedError
from skylb.keyfiles import read_keys, read_secret, read_tenants, warn_exposed
from skylb.listeners import ServerTls, check_authorities, client_tls
from skylb.localrouter import LocalRouter
from skylb.mesh.mesh import Mesh, check_mesh
from skylb.mesh.signing import Identity, Keys, block_secret
from skylb.metrics import LoopStall, Metrics
from skylb.options import secrets
from skylb.ports import Ports
from skylb.router import Router
from skylb.startreport import curl_line, url_of
from skylb.tasks import TaskGroup
from skylb.types import Replica
from skylb.upstream import Pool

__all__ = ["Service", "check_files", "json_line", "serve"]

log = logging.getLogger("skylb.app")

LOG_BYTES_MAX = 4 << 20
"""Access-log lines that wait for the writer: about 8,000, or one second at 8,000 requests/s."""

FIRST_LOOK_S = 3.0
"""How long the start waits for the first probe of every replica, at most."""

BEAT_S = 0.1
"""How often the loop's lateness is measured."""

CONFIG_SIGNAL = "SIGHUP"

PEER_CONNECTIONS_IDLE_MAX = 64
PEER_IDLE_S = 60.0
"""Below the 75 s after which a peer closes idle connections: a new one costs a forward two round trips."""

PEER_RECEIVE_BUFFER_BYTES = 256 << 10
"""More than for a replica: it bounds what one connection carries per round trip."""


def check_files(settings: Settings) -> None:
    """Reads every file that the settings name, and starts nothing.

    Raises:
        ConfigError: with the faults of all of them.
    """
    faults: list[str] = []
    readers: tuple[Callable[[], object], ...] = (
        lambda: _server_tls(settings),
        lambda: check_authorities(settings.replica_ca, "replica_ca"),
        lambda: read_secret(settings.admin_token_file, "admin_token_file"),
        lambda: read_secret(settings.replica_key_file, "replica_key_file"),
        lambda: read_secret(settings.probe_key_file, "probe_key_file"),
        lambda: read_keys(settings.mesh.peer_key_file),
        lambda: read_tenants(settings.mesh.tenant_key_file),
        lambda: check_mesh(settings),
        lambda: make(settings),
    )
    for read in readers:
        try:
            read()
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)


class Service:
    """One balancer: all parts of a process, wired.

    Args:
        settings: what to run.

    Raises:
        ConfigError: a file that the settings name is no good.
    """

    def __init__(self, settings: Settings) -> None:
        check_files(settings)
        self.settings = settings
        self._started_ns = monotonic_ns()
        self.tls = _server_tls(settings)
        self.recorder = _recorder(settings)
        keys = read_keys(settings.mesh.peer_key_file)
        self.router = LocalRouter(_engine(settings, keys))
        self.pool = Pool(
            idle_len_max=settings.upstream_idle_max,
            idle_s=settings.timeout.upstream_idle_s,
            connect_timeout_s=settings.timeout.connect_s,
            tls=client_tls(settings.replica_ca),
        )
        self.shortage = self.pool.shortage
        self.shortage.give_back = self._give_back
        self.frontend = Frontend(_context(settings, self.router, self.pool, self.recorder))
        self.frontend.shortage = self.shortage
        self.ending = Drain(
            [self.frontend], delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s
        )
        self.logs = _logs(settings, self.recorder)
        self.metrics_page = Metrics(
            recorder=self.recorder,
            engine=self.router,
            buffer_bytes=lambda: self.frontend.context.budget.bytes,
            log_dropped=lambda: self.logs.dropped,
            policy=settings.engine.policy,
            more=lambda: chain(
                self.mesh.families() if self.mesh else (),
                self.naming.families(),
                families(self.ending.frontends, self.shortage),
            ),
        )
        self.control = Control(settings, self.router, self.pool, self.metrics_page, self._part_failed)
        self._failed: str | None = None
        self.mesh = self._make_mesh(keys)
        self.naming = Naming(settings, self._wish, self._part_failed)
        self.admin = Admin(self, settings.admin, None)
        self._stall = LoopStall(self.metrics_page.loop_stall, BEAT_S)
        self._heart: asyncio.TimerHandle | None = None
        self.ports: Ports | None = None
        self.addresses: dict[str, list[ListenAddress]] = {}
        """By what they are for: ``clients``, ``admin``, ``forwards``, ``sync``."""
        self._read_keys()

    def _make_mesh(self, keys: Keys | None) -> Mesh | None:
        own = self.settings.mesh
        identity = Identity(own.balancer, time.time_ns())
        self.router.set_self(identity, own.region)
        self.router.set_residency([(rule.tenant, rule.model, [*rule.regions]) for rule in own.residency])
        if keys is None or own.peer_listen is None:
            return None
        mesh = Mesh(self.settings, self.router, identity, self.control, keys, self._part_failed)
        pool = self.pool.sibling(
            idle_len_max=PEER_CONNECTIONS_IDLE_MAX,
            receive_buffer_bytes=PEER_RECEIVE_BUFFER_BYTES,
            idle_s=PEER_IDLE_S,
            far=True,
            tls=mesh.tls.client,
        )
        context = self.frontend.context
        context.crossing = Crossing(identity, mesh.verifier, pool, mesh.forwards_refused, mesh.peers.shows)
        peers = PeerFrontend(context, context.crossing)
        peers.shortage = self.shortage
        peers.connections_max = own.peer_connections_max
        self.ending.frontends.append(peers)
        self.control.on_own = mesh.peers.set_replicas
        return mesh

    def _read_keys(self) -> None:
        settings = self.settings
        self.admin.token = read_secret(settings.admin_token_file, "admin_token_file")
        self.control.read_keys()
        self.frontend.context.tenants.set_keys(read_tenants(settings.mesh.tenant_key_file))
        keys = read_keys(settings.mesh.peer_key_file)
        if self.mesh is not None and keys is not None:
            self.mesh.set_keys(keys)

    # ------------------------------------------------------------------ start and stop

    async def run(self) -> None:
        """Serves until a signal ends it.

        Raises:
            ListenError: an address cannot be bound.
            TaskFailedError: a part of the control plane failed. Requests under way were finished; who
                started the process should start it again.
        """
        self._install_signals()
        await self.start()
        try:
            self._say_ready()
            await self.ending.wanted()
        finally:
            await self.stop()
        if self._failed is not None:
            raise TaskFailedError(self._failed)

    async def start(self) -> None:
        """Binds, looks at the replicas, lets clients in.

        Raises:
            ListenError: an address cannot be bound; nothing has started then.
        """
        limit = raise_limit()
        self.ports = ports = await Ports.bind(self.settings)
        self.addresses = ports.named()
        self.logs.start()
        warn_exposed(secrets(self.settings))
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            await self.admin.start(ports.admin, self.shortage)
            await self.control.start()
            await self.control.first_look(FIRST_LOOK_S)
            self._allot(*limit)
            await self._join(ports)
            context = self.tls.context if self.tls is not None else None
            self.frontend.serve([(sock, context) for sock in ports.clients])
            self.naming.start()
            undo.pop_all()
        self._beat()
        keep_heap()
        gc.collect()
        gc.freeze()  # what lives from here to the end need not be looked at by every collection

    def _allot(self, before: int, limit: int) -> None:
        """Divides the descriptors: ``limit`` there may be, ``before`` when the process began."""
        most = [frontend.connections_max for frontend in self.ending.frontends]
        allotment = Allotment.of(limit, open_len(), most)
        allotment.tell(before, most)
        for frontend, connections_max in zip(self.ending.frontends, allotment.connections, strict=True):
            frontend.connections_max = connections_max

    def _give_back(self) -> None:
        """Closes what can be done without: the process is short of something."""
        self.pool.give_back()
        self.frontend.give_back()

    async def _join(self, ports: Ports) -> None:
        """Takes forwards, and tells the peers where."""
        if self.mesh is not None:
            for frontend in self.ending.frontends[1:]:
                frontend.serve([(sock, self.mesh.tls.server) for sock in ports.peers])
            await self.mesh.start(ports.sync, url_of(self.mesh.tls.scheme, self.addresses["forwards"][0]))

    def _beat(self) -> None:
        self._stall.beat(monotonic_ns())
        self._heart = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    async def stop(self) -> None:
        """Lets requests under way end, then takes everything down."""
        await self.naming.close()
        await self.ending.delay()
        self.ending.stop_accepting()
        if self.mesh is not None:
            await self.mesh.close()  # first: peers should send nothing more, and take over what we have
        successor = TaskGroup()
        successor.start(self._hand_over(), name="hand over")
        await self.ending.drain()
        if self._heart is not None:
            self._heart.cancel()
        for frontend in self.ending.frontends:
            await frontend.close()
        await self.control.close()
        await self.pool.close()
        if self.frontend.context.crossing is not None:
            await self.frontend.context.crossing.pool.close()
        self.router.close()
        await successor.stop()
        await self.admin.close()
        if self.ports is not None:
            self.ports.release()
        await asyncio.to_thread(self.logs.stop)

    async def _hand_over(self) -> None:
        """Lets a successor have the admin address as soon as it is there, and not before."""
        if self.ports is not None:
            await self.ports.succeeded()
            self.ports.unlink_admin()
            await self.admin.hand_over()
            log.info("a successor listens for clients: the admin address is free for it")

    def _part_failed(self, name: str, error: BaseException) -> None:
        """Without its probes a balancer would route by old facts: better an orderly stop."""
        self._failed = f"{name} failed: {error!r}"
        self.ending.at_once()

    def request_stop(self) -> None:
        """Begins an orderly stop; a further call skips what it waits for."""
        self.ending.request()

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self.renew)

    def renew(self) -> None:
        """Reads certificates, keys and the files of replicas and peers again, and reopens the access log.

        What cannot be read is logged, and what was read before stays in use.
        """
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
        self.control.renew()
        self.logs.reopen()
        log.info("%s: certificates, keys, replicas and peers read again", CONFIG_SIGNAL)

    # --------------------------------------------------------------- for the admin listener

    def ready(self, *, here: bool = False) -> bool:
        """Whether a new request is wanted here, and would find a replica: ``here``, or also at a peer."""
        return (self.router.ready_here() if here else self.router.ready()) and not self._leaves()

    def _leaves(self) -> bool:
        return self.ending.begun or (self.mesh is not None and self.mesh.peers.evacuating)

    def _wish(self) -> Wish:
        """What DNS should say."""
        dead = self.mesh.inherited if self.mesh is not None else frozenset[str]()
        return Wish(leaving=self._leaves(), ready=self.ready(here=True), dead=dead)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics page and its content type."""
        return await self.metrics_page.render(accept)

    def facts(self) -> dict[str, Any]:
        """Facts about the process."""
        return {
            "version": _core.__version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "uptime_s": round((monotonic_ns() - self._started_ns) / 1e9, 3),
            "listen": [str(address) for address in self.addresses["clients"]],
            "policy": self.settings.engine.policy,
            "stopping": self.ending.begun,
            "connections": self.frontend.connections_len,
            "upstream_idle": self.pool.idle_len,
            "requests": self.router.requests_len,
            "buffer_bytes": self.frontend.context.budget.bytes,
            "log_dropped": self.logs.dropped,
        }

    def peers(self) -> dict[str, Any] | None:
        """This balancer and its peers; ``None`` without a mesh."""
        return self.mesh.view() if self.mesh is not None else None

    def isolate(self, name: str, isolated: bool) -> bool:
        """Operator intent for one peer; ``False`` for an unknown name."""
        return self.mesh is not None and self.mesh.peers.isolate(name, isolated=isolated)

    def evacuate(self, region: str, evacuating: bool) -> list[str]:
        """Operator intent for a region; the names of its balancers, none for an unknown region."""
        return self.mesh.peers.evacuate(region, evacuating=evacuating) if self.mesh is not None else []

    def state(self) -> dict[str, Any]:
        """Process, replicas as control sees them, and the engine's own state."""
        return {
            "process": self.facts(),
            "replicas": self.control.states(),
            "mesh": self.peers(),
            "dns": self.naming.view(),
            "engine": orjson.Fragment(self.router.state()),
        }

    def replicas(self) -> Sequence[Replica]:
        """The fleet."""
        return self.router.replicas()

    def set_draining(self, name: str, draining: bool) -> None:
        """Operator intent for one replica."""
        self.control.set_draining(name, draining=draining)

    def set_log_level(self, level: str) -> None:
        """Least severe level that is logged."""
        self.logs.set_level(level)

    # ----------------------------------------------------------------------------- report

    def _say_ready(self) -> None:
        """For people on stdout; where logs are JSON, nothing but JSON is written anywhere."""
        if self.settings.log_format == "json":
            log.info("ready: %s", "; ".join(line.strip() for line in self.report().splitlines()[:-1]))
        else:
            print(self.report(), flush=True)

    def report(self) -> str:
        """What started: addresses, policy, each replica's state, and a line to try."""
        within = self.mesh.tls.scheme if self.mesh is not None else "http"
        schemes = {"clients": "https" if self.tls is not None else "http", "admin": "http"}
        lines = [f"SkyLB {_core.__version__}, policy {self.settings.engine.policy}"]
        for name, group in self.addresses.items():
            lines += [f"  {name:<8} {url_of(schemes.get(name, within), address)}" for address in group]
        lines += [f"  replica  {name}  {state}" for name, state in self.control.states().items()]
        models = self.router.models()
        model = models[0][0] if models else "MODEL"
        lines.append(f"try: {curl_line(schemes['clients'], self.addresses['clients'][0], model)}")
        return "\n".join(lines)


# ---------------------------------------------------------------------------------- the parts


def _engine(settings: Settings, keys: Keys | None) -> _core.Engine:
    seed = settings.seed if settings.seed is not None else random.SystemRandom().getrandbits(64)
    try:
        secret = block_secret(keys if settings.mesh.peer_digest else None)
        return _core.Engine(settings.engine.model_dump_json().encode(), secret, seed)
    except ValueError as error:
        raise ConfigError([f"engine: {error}"]) from error


def _server_tls(settings: Settings) -> ServerTls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def _recorder(settings: Settings) -> _core.Recorder:
    formats = {"text": _core.LOG_TEXT, "json": _core.LOG_JSON}
    log_format = _core.LOG_OFF if settings.access_log == "off" else formats[settings.log_format]
    return _core.Recorder(log_format, LOG_BYTES_MAX, settings.engine.policy, unix_offset_ns())


def _logs(settings: Settings, recorder: _core.Recorder) -> Logs:
    try:
        return Logs(
            recorder, access_log=settings.access_log, log_format=settings.log_format, level=settings.log_level
        )
    except OSError as error:
        raise ConfigError(
            [f"access_log: {settings.access_log}: cannot be opened: {error.strerror}"]
        ) from error


def _context(settings: Settings, router: Router, pool: Pool, recorder: _core.Recorder) -> Context:
    return Context(
        router=router,
        pool=pool,
        recorder=recorder,
        parser=_core.HeadParser(settings.key_header, settings.cors_origin is not None, settings.class_header),
        budget=Budget(settings.buffer_bytes_max),
        limits=Limits(
            timeouts=settings.timeout,
            body_bytes_max=settings.body_bytes_max,
            connections_max=settings.connections_max,
            retry_after_s=settings.engine.retry_after_s,
        ),
        reading=Reading(router.scanner(), settings.inject_usage, settings.mesh.peer_listen is not None),
        trusted_proxies=settings.trusted_proxies,
        cors=Cors(settings.cors_origin),
        tenants=Tenants(settings.mesh.tenant_header.lower() if settings.mesh.tenant_header else None),
        inject_usage=settings.inject_usage,
    )


async def serve(settings: Settings) -> None:
    """Runs one balancer until a signal ends it.

    Raises:
        ConfigError: a file that the settings name is no good.
        ListenError: an address cannot be bound.
    """
    await Service(settings).run()
