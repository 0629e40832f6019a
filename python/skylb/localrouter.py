"""The router over an engine in this process."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from skylb import _core
from skylb._core import (
    Engine,
    Expire,
    Forward,
    Hold,
    PeerGauges,
    Post,
    Probe,
    Push,
    Recorder,
    Reject,
    Relay,
    ReplicaGauges,
    Request,
    Scanned,
    Scanner,
    Snapshot,
    StateWriter,
    Tell,
    Tenant,
    Withdraw,
)
from skylb.clock import monotonic_ns
from skylb.mesh.signing import Claims, Identity
from skylb.router import Effect, Loads, Models, Router, Sink
from skylb.types import Peer, Replica

log = logging.getLogger("skylb.router")


class LocalRouter(Router):
    """Calls the engine in this process, delivers its effects, and keeps a timer for its next deadline.

    Args:
        engine: the decision engine.
        on_failure: called with a name and the error where a probe or message fails that the engine awaits.
    """

    def __init__(
        self, engine: Engine, on_failure: Callable[[str, BaseException], None] | None = None
    ) -> None:
        self._engine = engine
        self._on_failure = on_failure
        self._sinks: dict[int, Sink] = {}
        self._replicas: dict[int, Replica] = {}
        self._peers: dict[int, Peer] = {}
        self._peer_ids: dict[str, int] = {}
        self._last_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._refresh_models: Callable[[Callable[[], None]], None] | None = None
        self._probe: Callable[[int], None] | None = None
        self._tells: dict[int, Callable[[Tell], None]] = {}
        self._post: Callable[[int], None] | None = None
        self._fleet_changed: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------ data plane

    def submit(
        self, sink: Sink, request: Request, body: bytes | Scanned, claims: Claims | None = None
    ) -> None:
        request_id = self._last_id = self._last_id + 1
        was_idle = not self._sinks
        if claims is not None:
            deadline_ns = request.start_ns + claims.deadline_ms * 1_000_000
            origin = self._peer_ids.get(claims.origin)
            request.set_forwarded(claims.hop, claims.attempts_left, deadline_ns, origin)
        effects = self._engine.submit(request_id, request, body)
        self._sinks[request_id] = sink
        sink.submitted()
        self._deliver(effects)
        if was_idle:
            self._arm()  # with a request, probes and messages are due more often

    def first_byte(self, request: Request, relay: Relay, now_ns: int) -> None:
        effects = self._engine.first_byte(request, relay, now_ns)
        if effects:
            self._deliver(effects)

    def complete(self, request: Request, outcome: int, relay: Relay | None, now_ns: int) -> None:
        del self._sinks[request.id]
        effects = self._engine.complete(request, outcome, relay, now_ns)
        if effects:
            self._deliver(effects)
        if outcome != _core.OUTCOME_OK:
            self._arm()

    def retry(self, request: Request, failure: int, *, sent: bool, now_ns: int, status: int = 0) -> None:
        self._deliver(self._engine.retry(request, failure, sent, now_ns, status))
        self._arm()

    def resume(self, request: Request, relay: Relay, failure: int, *, now_ns: int, status: int = 0) -> None:
        self._deliver(self._engine.resume(request, relay, failure, now_ns, status))
        self._arm()

    def heard(self, replica_ids: list[int], now_ns: int) -> None:
        effects = self._engine.heard(replica_ids, now_ns)
        if effects:
            self._deliver_and_arm(effects)

    def only_model(self) -> str | None:
        return self._engine.only_model()

    def over_limit(self, tenant: Tenant, now_ns: int) -> tuple[str, int, bytes | None] | None:
        return self._engine.over_limit(tenant, now_ns)

    @property
    def continuing(self) -> bool:
        return self._engine.continuing

    def set_continuing(self, on: bool) -> None:
        self._engine.set_continuing(on)
        self._fleet_changed()

    def continues(self, tenant: Tenant) -> bool:
        return self._engine.continues(tenant)

    def highest_class(self, tenant: Tenant) -> str | None:
        return self._engine.highest_class(tenant)

    def guessed(self, request: Request) -> bool:
        return self._engine.guessed(request)

    def ready(self) -> bool:
        return self._engine.ready()

    def ready_here(self) -> bool:
        return self._engine.ready_here()

    def list_models(self, tenant: Tenant, then: Callable[[Models | None], None]) -> None:
        then(self._engine.models(tenant))

    def models(self, tenant: Tenant = Tenant.NOBODY) -> Models:
        return self._engine.models(tenant)

    def list_loads(self, then: Callable[[Loads | None], None]) -> None:
        then(self.loads())

    def loads(self) -> Loads:
        """Each replica's load."""
        return [(of.replica, of.ready, of.in_flight) for of in self._engine.gauges()]

    # --------------------------------------------------------------- control plane

    def set_replicas(self, replicas: Sequence[Replica]) -> None:
        self._replicas = {replica.id: replica for replica in replicas}
        self._fleet_changed()
        self._deliver_and_arm(self._engine.set_replicas([(r.id, r.name) for r in replicas], monotonic_ns()))

    def set_models(self, replica_id: int, models: list[tuple[str, int | None]], *, cut: bool = False) -> bool:
        changed, effects = self._engine.set_models(replica_id, models, cut, monotonic_ns())
        self._deliver_and_arm(effects)
        return changed

    def hide_models(self, replica_id: int) -> None:
        self._deliver_and_arm(self._engine.hide_models(replica_id, monotonic_ns()))

    def refresh_models_with(self, refresh: Callable[[Callable[[], None]], None]) -> None:
        self._refresh_models = refresh
        self._engine.set_looks(True)

    def set_draining(self, replica_id: int, draining: bool) -> None:
        self._deliver_and_arm(self._engine.set_draining(replica_id, draining, monotonic_ns()))

    @property
    def policy(self) -> str:
        return self._engine.policy

    @property
    def shadow_policy(self) -> str | None:
        return self._engine.shadow_policy

    def set_policy(self, name: str) -> None:
        self._deliver_and_arm(self._engine.set_policy(name, monotonic_ns()))

    # ----------------------------------------------------------------------- peers

    def set_self(self, identity: Identity, region: str) -> None:
        self._engine.set_self(identity.name, region, identity.incarnation)

    def set_peers(self, peers: list[tuple[int, str, str, bool]]) -> None:
        listed = {peer_id for peer_id, _, _, _ in peers}
        self._peers = {peer_id: peer for peer_id, peer in self._peers.items() if peer_id in listed}
        self._peer_ids = {name: peer_id for peer_id, name, _, _ in peers}
        self._fleet_changed()
        self._deliver_and_arm(self._engine.set_peers(peers, monotonic_ns()))

    def set_peer(self, peer: Peer) -> None:
        self._peers[peer.id] = peer
        self._fleet_changed()

    def peer_started(self, peer_id: int, incarnation: int) -> None:
        self._engine.peer_started(peer_id, incarnation, monotonic_ns())

    def peer_rtt(self, peer_id: int, rtt_ns: int) -> None:
        self._engine.peer_rtt(peer_id, rtt_ns, monotonic_ns())

    def peer_state(self, peer_id: int, state: int) -> None:
        self._deliver_and_arm(self._engine.peer_state(peer_id, state, monotonic_ns()))

    def set_isolated(self, peer_id: int, isolated: bool) -> None:
        self._deliver_and_arm(self._engine.set_isolated(peer_id, isolated, monotonic_ns()))

    def set_residency(self, rules: list[tuple[str | None, str | None, list[str]]]) -> None:
        self._engine.set_residency(rules)

    def set_tenants(self, terms: bytes) -> None:
        self._deliver_and_arm(self._engine.set_tenants(terms, monotonic_ns()))

    def tenant_usage(self) -> bytes:
        return self._engine.tenant_usage()

    def set_notice(self, replica_id: int, at_ns: int | None, *, ends: bool) -> None:
        self._deliver_and_arm(self._engine.set_notice(replica_id, at_ns, ends, monotonic_ns()))

    def evacuate(self, region: str, evacuating: bool, leave_ns: int | None) -> None:
        self._deliver_and_arm(self._engine.evacuate(region, evacuating, leave_ns, monotonic_ns()))

    def staying(self) -> tuple[int, int, int]:
        return self._engine.staying()

    def set_replica_region(self, replica_id: int, region: str | None) -> None:
        self._deliver_and_arm(self._engine.set_replica_region(replica_id, region, monotonic_ns()))

    def peer_connected(self, peer_id: int, kinds: list[int], tell: Callable[[Tell], None]) -> None:
        self._tells[peer_id] = tell
        self._deliver_and_arm(self._engine.peer_connected(peer_id, kinds, monotonic_ns()))

    def peer_takes(self, peer_id: int, kinds: list[int]) -> None:
        self._engine.peer_takes(peer_id, kinds)
        self._arm()

    def peer_disconnected(self, peer_id: int, tell: Callable[[Tell], None]) -> None:
        if self._tells.get(peer_id) == tell:
            del self._tells[peer_id]
            self._engine.peer_disconnected(peer_id)

    def written(self, peer_id: int, kind: int) -> None:
        self._engine.written(peer_id, kind)

    def merge_peer(self, peer_id: int, summary: bytes) -> None:
        self._deliver_and_arm(self._engine.merge_peer(peer_id, summary, monotonic_ns()))

    def set_peer_digest(self, key: bytes, *, bytes_max: int, interval_s: float, age_max_s: float) -> None:
        self._engine.set_peer_digest(key, bytes_max, round(interval_s * 1e9), round(age_max_s * 1e9))

    def merge_peer_digest(self, peer_id: int, digest: bytes) -> None:
        self._engine.merge_peer_digest(peer_id, digest, monotonic_ns())

    def set_region_cache(self, key: bytes) -> None:
        self._engine.set_region_cache(key)

    def merge_cached(self, peer_id: int, cached: bytes) -> None:
        self._engine.merge_cached(peer_id, cached, monotonic_ns())

    def merge_share(self, peer_id: int, share: bytes, ahead_ns: int) -> None:
        self._deliver_and_arm(self._engine.merge_share(peer_id, share, ahead_ns, monotonic_ns()))

    def export_state(self, writer: StateWriter) -> bytes | None:
        return self._engine.export_state(writer, monotonic_ns())

    def import_state(self, state: bytes, age_ns: int) -> dict[str, int]:
        return self._engine.import_state(state, age_ns, monotonic_ns())

    def in_flight(self) -> bytes:
        return self._engine.flight(monotonic_ns())

    def merge_predecessor(self, flight: bytes | None) -> None:
        self._deliver_and_arm(self._engine.merge_predecessor(flight, monotonic_ns()))

    def merge_tenants(self, peer_id: int, message: bytes) -> None:
        self._deliver_and_arm(self._engine.merge_tenants(peer_id, message, monotonic_ns()))

    def peers(self) -> list[Peer]:
        return list(self._peers.values())

    def silent_peers(self) -> list[int]:
        return [peer.peer for peer in self.peer_gauges() if peer.state != "alive"]

    def peer_gauges(self) -> list[PeerGauges]:
        return self._engine.peers(monotonic_ns())

    # ---------------------------------------------------------------------- probes

    def probe_with(self, probe: Callable[[int], None]) -> None:
        self._probe = probe

    def observe(self, replica_id: int, snapshot: Snapshot, sent_ns: int) -> None:
        self._deliver_and_arm(self._engine.observe(replica_id, snapshot, sent_ns, monotonic_ns()))

    def observe_failed(self, replica_id: int, unread: int) -> None:
        self._deliver_and_arm(self._engine.observe_failed(replica_id, unread, monotonic_ns()))

    def answered(self, replica_id: int) -> None:
        self._deliver_and_arm(self._engine.answered(replica_id, monotonic_ns()))

    def probed_state(self, replica_id: int) -> int:
        return self._engine.probed_state(replica_id)

    def replica(self, replica_id: int) -> Replica | None:
        return self._replicas.get(replica_id)

    def replicas(self) -> list[Replica]:
        return list(self._replicas.values())

    # --------------------------------------------------------------------- figures

    def scanner(self) -> Scanner:
        return self._engine.scanner()

    def gauges(self) -> list[ReplicaGauges]:
        return self._engine.gauges()

    def counters(self) -> dict[str, int]:
        return self._engine.counters()

    def prefix_errors(self) -> tuple[list[tuple[float, int]], float]:
        return self._engine.prefix_errors()

    def ttft_errors(self) -> tuple[list[tuple[float, int]], float]:
        return self._engine.ttft_errors()

    def state(self) -> bytes:
        return self._engine.state(monotonic_ns())

    def record_prompts(self, on: bool) -> None:
        self._engine.record_prompts(on)

    def wanted(self) -> list[tuple[str, float, int]]:
        return self._engine.wanted()

    def receipt(self, request_id: str) -> bytes | None:
        return self._engine.receipt(request_id, monotonic_ns())

    def rehearse(self, request: Request, body: bytes | Scanned) -> bytes:
        return self._engine.rehearse(request, body, monotonic_ns())

    def receipts(self, len_max: int) -> bytes | None:
        return self._engine.receipts(len_max, monotonic_ns())

    @property
    def hold_requests(self) -> int:
        return self._engine.hold_requests

    @property
    def hold_bytes(self) -> int:
        return self._engine.hold_bytes

    @property
    def kept_bytes(self) -> int:
        return self._engine.kept_bytes

    @property
    def tree_bytes(self) -> int:
        return self._engine.tree_bytes

    @property
    def requests_len(self) -> int:
        return self._engine.requests_len

    # --------------------------------------------------------------------- workers

    def workers_with(self, post: Callable[[int], None], fleet_changed: Callable[[], None]) -> None:
        """Sets what is called for workers.

        Args:
            post: with the number of a worker that has mail.
            fleet_changed: before an effect can name a new replica or peer, and where `continuing` changes.
        """
        self._post = post
        self._fleet_changed = fleet_changed

    def worker_joined(self, worker: int) -> None:
        """A worker reports from now on."""
        self._engine.worker_joined(worker)

    def worker_left(self, worker: int) -> int:
        """A worker is gone, and its requests with it; how many."""
        lost, effects = self._engine.worker_left(worker, monotonic_ns())
        self._deliver_and_arm(effects)
        return lost

    def serve(self, worker: int, data: bytes, recorder: Recorder) -> tuple[list[bytes], str | None]:
        """Carries out what a worker reports: its notes, and why what follows cannot be read, if so.

        Args:
            worker: its number.
            data: some of its bytes.
            recorder: counts the records among them.
        """
        effects, notes, fault = self._engine.serve(worker, data, recorder, monotonic_ns())
        self._deliver_and_arm(effects)
        self._begin_refresh()
        return notes, fault

    def tell_worker(self, worker: int, note: bytes) -> None:
        """Puts a note into a worker's mail."""
        self._engine.tell_worker(worker, note)
        self._deliver(self._engine.posts())

    def take_mail(self, worker: int) -> bytes:
        """A worker's mail, which is to be sent."""
        return self._engine.take_mail(worker)

    # -------------------------------------------------------------------- delivery

    def _deliver_and_arm(self, effects: Sequence[Effect | Post]) -> None:
        """Delivers the effects of a call, and sets the timer to the engine's next deadline."""
        if effects:
            self._deliver(effects)
        self._arm()

    def _deliver(self, effects: Sequence[Effect | Post]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Push:
                # `type() is` is the fast test; mypy narrows `isinstance` only. Here, and below.
                replica = self._replicas[effect.replica]  # type: ignore[union-attr]  # it is a Push
                self._sinks[effect.request_id].pushed(effect, replica)  # type: ignore[arg-type,union-attr]  # likewise
            elif kind is Forward:
                self._sinks[effect.request_id].forwarded(effect, self._peers[effect.peer])  # type: ignore[arg-type,union-attr]  # it is a Forward
            elif kind is Hold:
                self._sinks[effect.request_id].held()  # type: ignore[union-attr]  # it is a Hold
                self._begin_refresh()
                self._arm()
            elif kind is Withdraw:
                self._sinks[effect.request_id].withdrawn()  # type: ignore[union-attr]  # it is a Withdraw
            elif isinstance(effect, Post):
                if self._post is not None:
                    self._post(effect.worker)
            else:
                sink = self._sinks.pop(effect.request_id)
                if isinstance(effect, Reject):
                    sink.rejected(effect)
                elif isinstance(effect, Expire):
                    sink.expired()

    def _arm(self) -> None:
        deadline_ns = self._engine.next_deadline_ns()
        if deadline_ns is None:
            return
        if self._timer is not None:
            if self._timer_ns <= deadline_ns:
                return
            self._timer.cancel()
        self._timer_ns = deadline_ns
        # uvloop rounds to milliseconds: down, it would call before the deadline, and again at once.
        delay_ms = max(0, -(-(deadline_ns - monotonic_ns()) // 1_000_000))
        self._timer = asyncio.get_running_loop().call_later(delay_ms / 1e3, self._tick)

    def _begin_refresh(self) -> None:
        if self._refresh_models is not None and self._engine.look_due(monotonic_ns()):
            self._refresh_models(self._refreshed)

    def _refreshed(self) -> None:
        self._deliver_and_arm(self._engine.looked(monotonic_ns()))

    def _tick(self) -> None:
        self._timer = None
        try:
            for effect in self._engine.tick(monotonic_ns()):
                self._attempt(effect)
            self._begin_refresh()
        finally:
            self._arm()

    def _attempt(self, effect: Effect | Probe | Tell | Post) -> None:
        """Carries out one effect of a tick; if it fails, the others still are."""
        try:
            self._carry_out(effect)
        except Exception as error:  # whatever it is: the others are carried out, and it is told
            if self._on_failure is None:
                raise
            kind = type(effect).__name__
            log.exception("an effect failed: %s", kind)
            if isinstance(effect, Probe | Tell):
                self._on_failure(kind.lower(), error)

    def _carry_out(self, effect: Effect | Probe | Tell | Post) -> None:
        """Only a tick asks for probes and messages to peers."""
        if isinstance(effect, Probe):
            if self._probe is not None:
                self._probe(effect.replica)
        elif isinstance(effect, Tell):
            self._tells[effect.peer](effect)
        else:
            self._deliver((effect,))

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
