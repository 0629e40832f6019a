"""What operators see of a balancer, and what they ask of it."""

import logging
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from prometheus_client.core import Metric

from skylb import _core
from skylb._core import Recorder
from skylb.accesslog import Logs
from skylb.addresses import ListenAddress
from skylb.admin.members import peer_members, replica_members
from skylb.admin.pulse import Member, Pulse
from skylb.admin.rehearsal import Asked, rehearse
from skylb.clock import monotonic_ns
from skylb.control import Control
from skylb.control.naming import Naming, Wish
from skylb.data import continuing
from skylb.data.demand import Demand
from skylb.data.drain import Drain
from skylb.data.frontend import Counted, Frontend, families
from skylb.descriptors import DOINGS
from skylb.guard import Guard
from skylb.handover.succession import Succession
from skylb.mesh.mesh import Mesh
from skylb.metrics import Metrics
from skylb.recording import Recording
from skylb.router import Router
from skylb.startreport import curl_line, url_of
from skylb.tracing.exporter import SpanExporter
from skylb.types import Replica
from skylb.upstream import Pool

log = logging.getLogger("skylb.admin")


class Workers(Protocol):
    """Processes that hold the connections of clients."""

    def gauge(self, name: str) -> int:
        """The sum over those that live."""

    def counter(self, name: str) -> int:
        """The sum over all there were."""

    def by_model(self, name: str) -> Counter[str]:
        """The sum over those that live, by model."""

    def view(self) -> list[dict[str, Any]]:
        """Each of them."""

    def families(self) -> Iterator[Metric]:
        """For ``/metrics``."""


@dataclass(kw_only=True)
class Operations:
    """The parts of a balancer, as its admin listener and its DNS records show and change them."""

    router: Router
    pool: Pool
    frontend: Frontend
    frontends: list[Counted]
    workers: Workers | None = None
    """Processes that hold the connections of clients, where this one does not."""
    ending: Drain
    control: Control
    mesh: Mesh | None
    logs: Logs
    recorder: Recorder
    metrics_page: Metrics
    recording: Recording | None = None
    """Of what arrives."""
    guard: Guard | None = None
    """Checks clients' keys."""
    spans: SpanExporter | None = None
    """Posts spans to a collector."""
    warning: str | None = None
    """What an operator must know of this configuration."""
    naming: Naming | None = None
    succession: Succession | None = None
    """Keeps what is learned, and hands over."""
    ordered: Callable[[], None] = lambda: None
    """Called behind each order of an operator."""
    client_scheme: str = "http"
    addresses: dict[str, list[ListenAddress]] = field(default_factory=dict)
    """By what they are for: ``clients``, ``admin``, ``forwards``, ``sync``."""
    started_ns: int = field(default_factory=monotonic_ns)
    demand: Demand = field(init=False)

    def __post_init__(self) -> None:
        self.demand = Demand(self.frontends, self.router)

    def ready(self, *, here: bool = False) -> bool:
        """Whether a new request is wanted here, and would find a replica: ``here``, or also at a peer."""
        return (self.router.ready_here() if here else self.router.ready()) and not self.leaves()

    def serves(self) -> bool:
        """Whether a request that comes nevertheless would find a replica, here or at a peer."""
        return self.router.ready()

    def leaves(self) -> bool:
        """Whether this balancer is being stopped, or its region evacuated."""
        return self.ending.begun or (self.mesh is not None and self.mesh.peers.evacuating)

    def wish(self) -> Wish:
        """What DNS should say."""
        dead = self.mesh.inherited if self.mesh is not None else frozenset[str]()
        return Wish(leaving=self.leaves(), ready=self.ready(here=True), dead=dead)

    @property
    def buffer_bytes(self) -> int:
        """Bodies in memory."""
        elsewhere = self.workers.gauge("buffer_bytes") if self.workers is not None else 0
        return self.frontend.context.budget.bytes + elsewhere

    def families(self) -> Iterator[Metric]:
        """Metrics that the parts make when they are asked for."""
        if self.mesh is not None:
            yield from self.mesh.families()
        if self.naming is not None:
            yield from self.naming.families()
        yield from self.demand.families()
        if self.succession is not None:
            yield from self.succession.families()
        yield from self.control.families()
        if self.guard is not None:
            yield from self.guard.families()
        if self.recording is not None:
            yield from self.recording.families()
        if self.spans is not None:
            yield from self.spans.families()
        elsewhere = self.workers.gauge("kept_bytes") if self.workers is not None else 0
        yield from continuing.families(self.recorder, self.router.kept_bytes + elsewhere)
        yield from families(self.frontends, self._shortages())
        if self.workers is not None:
            yield from self.workers.families()

    def _shortages(self) -> Counter[str]:
        found = Counter(self.pool.shortage.total)
        if self.workers is not None:
            found.update({doing: self.workers.counter(f"shortage_{doing}") for doing in DOINGS})
        return found

    @property
    def log_dropped(self) -> int:
        """Log lines lost."""
        return self.logs.dropped + (self.workers.counter("log_dropped") if self.workers is not None else 0)

    def attach(self, workers: Workers, clients: Counted) -> None:
        """The connections of clients are at workers."""
        self.workers = workers
        self.frontends[0] = clients
        self.demand.elsewhere = workers.by_model

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics page and its content type."""
        return await self.metrics_page.render(accept)

    def facts(self) -> dict[str, Any]:
        """Facts about the process."""
        return {
            "version": _core.__version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "uptime_s": self.uptime_s(),
            "listen": [str(address) for address in self.addresses["clients"]],
            "policy": self.policy,
            "stopping": self.ending.begun,
            "connections": self.frontends[0].connections_len,
            "upstream_idle": self.pool.idle_len
            + (self.workers.gauge("upstream_idle") if self.workers is not None else 0),
            "requests": self.router.requests_len,
            "buffer_bytes": self.buffer_bytes,
            "log_dropped": self.log_dropped,
        }

    @property
    def policy(self) -> str:
        """The policy by which requests are placed now."""
        return self.router.policy

    @property
    def continuing(self) -> bool:
        """Streams go on at another replica where their requests allow it."""
        return self.router.continuing

    def set_continuing(self, on: bool) -> None:
        """Lets the streams of requests placed from now on go on elsewhere, or not, until the next start."""
        self.router.set_continuing(on)
        log.info("streams go on elsewhere: %s", "on" if on else "off")

    def set_policy(self, name: str) -> None:
        """Places requests by another policy from now on, until the next start."""
        before = self.policy
        self.router.set_policy(name)
        self.logs.set_policy(name)
        log.info("policy: %s, before: %s", name, before)

    def peers(self) -> dict[str, Any] | None:
        """This balancer and its peers; ``None`` without a mesh."""
        return self.mesh.view() if self.mesh is not None else None

    def isolate(self, name: str, isolated: bool) -> bool:
        """Operator intent for one peer; ``False`` for an unknown name."""
        return self.mesh is not None and self.mesh.peers.isolate(name, isolated=isolated)

    def evacuate(self, region: str, evacuating: bool, within_s: float | None) -> list[str]:
        """Operator intent for a region; the names of its balancers, none for an unknown region."""
        if self.mesh is None:
            return []
        return self.mesh.peers.evacuate(region, evacuating=evacuating, within_s=within_s)

    def staying(self) -> tuple[int, int, int]:
        """Requests at replicas here; of these, those that cannot leave, and those of peers."""
        return self.router.staying()

    def state(self) -> dict[str, Any]:
        """Process, replicas as control sees them, and the engine's own state."""
        return {
            "process": self.facts(),
            "workers": self.workers.view() if self.workers is not None else None,
            "replicas": self.control.states(),
            "discovery": self.control.discovery(),
            "mesh": self.peers(),
            "keys": self.guard.view() if self.guard is not None else None,
            "dns": self.naming.view() if self.naming is not None else None,
            "recording": self.recording.view() if self.recording is not None else None,
            "spans": self.spans.view() if self.spans is not None else None,
            "engine": orjson.Fragment(self.router.state()),
        }

    def uptime_s(self) -> float:
        """Since the start, seconds."""
        return round((monotonic_ns() - self.started_ns) / 1e9, 3)

    def pulse(self) -> Pulse:
        """What was counted so far, and how it is now."""
        recorder, context = self.recorder, self.frontend.context
        workers = self.workers
        refused = context.refused + (workers.counter("refused") if workers is not None else 0)

        def local(code: str) -> int:
            elsewhere = workers.counter(f"local_{code}") if workers is not None else 0
            return context.local_errors[code] + elsewhere

        return Pulse(
            uptime_s=self.uptime_s(),
            ended=recorder.histogram("request_seconds")[0][-1][1] + refused,
            errors={code: count - local(code) for code, count in recorder.errors()},
            held=self.router.hold_requests,
            in_flight=self.router.requests_len,
            ttft_p50_s=recorder.quantile("ttft_seconds", 0.5),
            ttft_p90_s=recorder.quantile("ttft_seconds", 0.9),
            gap_p50_s=recorder.quantile("inter_token_seconds", 0.5),
            gap_p90_s=recorder.quantile("inter_token_seconds", 0.9),
        )

    def members(self) -> dict[str, Member]:
        """The condition of each replica and peer."""
        found = replica_members(self.router.gauges(), self.control.states(), self.control.drained())
        if self.mesh is not None:
            found |= peer_members(self.router.peer_gauges(), self.mesh.unreached())
        return found

    def receipt(self, request_id: str) -> bytes | None:
        """Why a request went where it went, in JSON; ``None``: no receipt of it is kept."""
        return self.router.receipt(request_id)

    @property
    def body_bytes_max(self) -> int:
        """The largest body of a request."""
        return self.frontend.context.limits.body_bytes_max

    async def rehearse(self, asked: Asked, body: bytes) -> bytes:
        """What would be decided now about a request, in JSON. Nothing is changed."""
        return await rehearse(self.router, asked, body)

    def receipts(self, len_max: int) -> bytes | None:
        """The newest requests with receipts, in JSON; ``None``: receipts are off."""
        return self.router.receipts(len_max)

    def usage(self) -> bytes:
        """What tenants have used, in JSON."""
        return self.router.tenant_usage()

    def replicas(self) -> Sequence[Replica]:
        """The fleet."""
        return self.router.replicas()

    def set_draining(self, name: str, draining: bool) -> bool:
        """Operator intent for one replica; whether it drains now, for this or because its source says so."""
        self.control.set_draining(name, draining=draining)
        return self.control.drains(name)

    def leave(self, name: str, in_s: float, *, ends: bool) -> None:
        """A replica ends in so many seconds, or is to be empty: it gets nothing new, its requests leave."""
        self.control.leave(name, monotonic_ns() + round(in_s * 1e9), ends=ends)

    def set_log_level(self, level: str) -> None:
        """Least severe level that is logged."""
        self.logs.set_level(level)

    def started(self) -> dict[str, Any]:
        """What started, for programs that read the log."""
        return {
            "version": _core.__version__,
            "policy": self.policy,
            "addresses": {name: [*map(str, group)] for name, group in self.addresses.items()},
            "replicas": self.control.states(),
            "peers": self.mesh.faults() if self.mesh is not None else {},
        }

    def ended(self) -> dict[str, Any]:
        """What this balancer has done until its end."""
        labels, series = self.frontend.context.recorder.requests()
        at = labels.index("status")
        return {
            "uptime_s": round((monotonic_ns() - self.started_ns) / 1e9, 3),
            "requests": sum(count for _, count in series),
            "errors": sum(count for values, count in series if values[at].startswith("5")),
            "cut": self.recorder.cut,
        }

    def report(self) -> str:
        """What started: addresses, policy, each replica's state, and a line to try."""
        within = self.mesh.tls.scheme if self.mesh is not None else "http"
        schemes = {"clients": self.client_scheme, "admin": "http"}
        lines = [f"SkyLB {_core.__version__}, policy {self.policy}"]
        for name, group in self.addresses.items():
            lines += [f"  {name:<8} {url_of(schemes.get(name, within), address)}" for address in group]
        lines += [f"  replica  {name}  {state}" for name, state in self.control.states().items()]
        if self.mesh is not None:
            lines += [f"  peers    {name}  {fault}" for name, fault in self.mesh.faults().items()]
        models = self.router.models()
        model = models[0][0] if models else "MODEL"
        if self.guard is not None:
            lines.append(f"  keys     {self.guard.about()}")
        if self.warning is not None:
            lines += ["", f"WARNING: {self.warning}", ""]
        address = self.addresses["clients"][0]
        line = curl_line(schemes["clients"], address, model, keyed=self.guard is not None)
        lines.append(f"try: {line}")
        return "\n".join(lines)
