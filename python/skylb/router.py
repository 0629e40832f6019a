"""Where the two planes meet: control writes facts, data asks for decisions.

Every engine call yields effects addressed by request id; they are delivered to the sink that the
data plane registered, also when they come at once. Neither plane holds a reference to the other.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from skylb import _core
from skylb._core import (
    Engine,
    Expire,
    Forward,
    Hold,
    PeerGauges,
    Push,
    Reject,
    Relay,
    Request,
    Scanned,
    Snapshot,
    Withdraw,
)
from skylb.clock import monotonic_ns
from skylb.mesh.signing import Claims, Identity
from skylb.types import NOBODY, Peer, Replica, Whose

Effect = Push | Forward | Hold | Reject | Expire | Withdraw
"""What the engine wants done for one request."""


class Sink(Protocol):
    """What a request must be able to hear."""

    def submitted(self) -> None:
        """The engine knows the request; effects follow."""

    def pushed(self, push: Push, replica: Replica, /) -> None:
        """Send the request to this replica now."""

    def forwarded(self, forward: Forward, peer: Peer, /) -> None:
        """Send the request to this peer now."""

    def held(self) -> None:
        """The request waits in the hold."""

    def rejected(self, reject: Reject, /) -> None:
        """Answer the client; the engine has forgotten the request."""

    def expired(self) -> None:
        """The hold's deadline passed; the engine has forgotten the request."""

    def withdrawn(self) -> None:
        """Give up the attempt, and report it as failed: its replica is down or wedged."""


class Router:
    """Requests in, effects out; one engine, one timer.

    Args:
        engine: the decision engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sinks: dict[int, Sink] = {}
        self._replicas: dict[int, Replica] = {}
        self._peers: dict[int, Peer] = {}
        self._peer_ids: dict[str, int] = {}
        self._last_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._look: Callable[[Callable[[], None]], None] | None = None

    # ------------------------------------------------------------------ data plane

    def submit(
        self, sink: Sink, request: Request, body: bytes | Scanned, claims: Claims | None = None
    ) -> None:
        """Reads the body, places the request, and tells the sink.

        Args:
            sink: hears what becomes of it.
            request: learns what its body says.
            body: whole, framing removed; or what was found in it, once.
            claims: what the signature of a peer's forward vouches for.

        Raises:
            RequestError: the body is refused; the sink hears nothing.
        """
        request_id = self._last_id = self._last_id + 1
        if claims is not None:
            deadline_ns = request.start_ns + claims.deadline_ms * 1_000_000
            origin = self._peer_ids.get(claims.origin)
            request.set_forwarded(claims.hop, claims.attempts_left, deadline_ns, origin)
        effects = self._engine.submit(request_id, request, body)
        self._sinks[request_id] = sink
        sink.submitted()
        self._deliver(effects)

    def first_byte(self, request: Request, relay: Relay, now_ns: int) -> None:
        """The first body byte of the current attempt arrived."""
        effects = self._engine.first_byte(request, relay, now_ns)
        if effects:
            self._deliver(effects)

    def complete(self, request: Request, outcome: int, relay: Relay | None, now_ns: int) -> None:
        """The request ended; its sink hears nothing more."""
        del self._sinks[request.id]
        effects = self._engine.complete(request, outcome, relay, now_ns)
        if effects:
            self._deliver(effects)
        if outcome != _core.OUTCOME_OK:
            self._arm()

    def retry(self, request: Request, failure: int, *, sent: bool, now_ns: int, status: int = 0) -> None:
        """The current attempt failed before its first body byte; the sink hears what follows."""
        self._deliver(self._engine.retry(request, failure, sent, now_ns, status))
        self._arm()

    def heard(self, replica_ids: list[int], now_ns: int) -> None:
        """Answers of these replicas have gone on since the last call."""
        effects = self._engine.heard(replica_ids, now_ns)
        if effects:
            self._told(effects)

    def only_model(self) -> str | None:
        """The model meant where none is named; empty while none is known, ``None`` where there are more."""
        return self._engine.only_model()

    def guessed(self, request: Request) -> bool:
        """The request is at a replica that is not known to have its model, and another could be asked."""
        return self._engine.guessed(request)

    def ready(self) -> bool:
        """Requests can be served: a replica is ready here, or at a peer that takes them."""
        return self._engine.ready()

    def ready_here(self) -> bool:
        """At least one replica is ready here."""
        return self._engine.ready_here()

    def models(self, whose: Whose = NOBODY) -> list[tuple[str, int | None]]:
        """Models and adapters of the ready replicas, with ``max_model_len``, and those of peers.

        Of peers, those in regions where requests that are ``whose`` may be served.
        """
        return self._engine.models(whose.tenant, whose.known)

    # --------------------------------------------------------------- control plane

    def set_replicas(self, replicas: Sequence[Replica]) -> None:
        """The whole fleet. Ids are never reused for another address."""
        self._replicas = {replica.id: replica for replica in replicas}
        self._told(self._engine.set_replicas([(r.id, r.name) for r in replicas], monotonic_ns()))

    def set_models(self, replica_id: int, models: list[tuple[str, int | None]], *, cut: bool = False) -> None:
        """Models and adapters that one replica serves; ``cut``: it serves more."""
        set_models = self._engine.set_models_cut if cut else self._engine.set_models
        self._told(set_models(replica_id, models, monotonic_ns()))

    def hide_models(self, replica_id: int) -> None:
        """A replica does not tell its models: it gets requests for any model."""
        self._told(self._engine.hide_models(replica_id, monotonic_ns()))

    def look_with(self, look: Callable[[Callable[[], None]], None]) -> None:
        """Reads all lists of models again, and calls back, when a request asks for a model in none."""
        self._look = look
        self._engine.set_looks(True)

    def set_draining(self, replica_id: int, draining: bool) -> None:
        """Operator intent for one replica."""
        self._told(self._engine.set_draining(replica_id, draining, monotonic_ns()))

    # ----------------------------------------------------------------------- peers

    def set_self(self, identity: Identity, region: str) -> None:
        """Who this balancer is, before its peers are set."""
        self._engine.set_self(identity.name, region, identity.incarnation)

    def set_peers(self, peers: list[tuple[int, str, str, bool]]) -> None:
        """All peers as ``(id, name, region, sure)``. Ids are never reused for another name.

        A region is sure that is not the peer's word alone.
        """
        listed = {peer_id for peer_id, _, _, _ in peers}
        self._peers = {peer_id: peer for peer_id, peer in self._peers.items() if peer_id in listed}
        self._peer_ids = {name: peer_id for peer_id, name, _, _ in peers}
        self._told(self._engine.set_peers(peers, monotonic_ns()))

    def set_peer(self, peer: Peer) -> None:
        """Where a peer's forwards go, before anything it tells is merged."""
        self._peers[peer.id] = peer

    def peer_started(self, peer_id: int, incarnation: int) -> None:
        """A connection to a peer begins, which has proven when it started."""
        self._engine.peer_started(peer_id, incarnation, monotonic_ns())

    def peer_rtt(self, peer_id: int, rtt_ns: int) -> None:
        """One measured round trip."""
        self._engine.peer_rtt(peer_id, rtt_ns, monotonic_ns())

    def peer_state(self, peer_id: int, state: int) -> None:
        """``PEER_*``: whether a peer lives."""
        self._told(self._engine.peer_state(peer_id, state, monotonic_ns()))

    def set_isolated(self, peer_id: int, isolated: bool) -> None:
        """Operator intent: nothing is forwarded to a peer, and nothing granted to it."""
        self._told(self._engine.set_isolated(peer_id, isolated, monotonic_ns()))

    def set_residency(self, rules: list[tuple[str | None, str | None, list[str]]]) -> None:
        """Where requests may be served: ``(tenant, model, regions)``, ``None`` for any.

        Raises:
            ValueError: more regions than there can be.
        """
        self._told(self._engine.set_residency(rules, monotonic_ns()))

    def set_evacuating(self, evacuating: bool) -> None:
        """Operator intent: all work goes to peers while they have room."""
        self._told(self._engine.set_evacuating(evacuating, monotonic_ns()))

    def set_replica_region(self, replica_id: int, region: str | None) -> None:
        """The region of an adopted replica; ``None``: this balancer's."""
        self._told(self._engine.set_replica_region(replica_id, region, monotonic_ns()))

    def summary_due(self, peer_id: int) -> bool:
        """Whether a peer should be told something now."""
        return self._engine.summary_due(peer_id, monotonic_ns())

    def summary(self, peer_id: int) -> bytes:
        """What to tell it; it grants room, so it is to be sent."""
        return self._engine.summary(peer_id, monotonic_ns())

    def merge_peer(self, peer_id: int, summary: bytes) -> None:
        """What a peer told.

        Raises:
            ValueError: it cannot be understood, or is not newer than what is known.
        """
        self._told(self._engine.merge_peer(peer_id, summary, monotonic_ns()))

    def set_peer_digest(self, key: bytes, *, bytes_max: int, interval_s: float, age_max_s: float) -> None:
        """Tells peers of hot prefixes, and believes theirs; see `Engine.set_peer_digest`."""
        self._engine.set_peer_digest(key, bytes_max, round(interval_s * 1e9), round(age_max_s * 1e9))

    def peer_digest_due(self, peer_id: int) -> bool:
        """Whether a peer should be told of hot prefixes now."""
        return self._engine.peer_digest_due(peer_id, monotonic_ns())

    def peer_digest(self, peer_id: int) -> bytes:
        """What to tell it of them."""
        return self._engine.peer_digest(peer_id, monotonic_ns())

    def merge_peer_digest(self, peer_id: int, digest: bytes) -> None:
        """A peer told which prefixes are hot there.

        Raises:
            ValueError: it cannot be understood or compared, or is not newer than what is known.
        """
        self._engine.merge_peer_digest(peer_id, digest, monotonic_ns())

    def share_anew(self, peer_id: int) -> None:
        """A connection to a peer begins: what either told of shared replicas before counts no more."""
        self._told(self._engine.share_anew(peer_id, monotonic_ns()))

    def share(self, peer_id: int) -> bytes | None:
        """What to tell a peer of our region about shared replicas; it counts as told, so it is to be sent."""
        share, effects = self._engine.share(peer_id, monotonic_ns())
        if effects:
            self._told(effects)
        return share

    def merge_share(self, peer_id: int, share: bytes, ahead_ns: int) -> None:
        """What a peer of our region told about shared replicas.

        Args:
            peer_id: the peer.
            share: its message.
            ahead_ns: how far our clock is ahead of the peer's.

        Raises:
            ValueError: it cannot be understood, or the peer is of another region.
        """
        self._told(self._engine.merge_share(peer_id, share, ahead_ns, monotonic_ns()))

    def peers(self) -> list[Peer]:
        """The peers whose forward address is known."""
        return list(self._peers.values())

    def peer_gauges(self) -> list[PeerGauges]:
        """The engine's figures of each peer."""
        return self._engine.peers(monotonic_ns())

    # ---------------------------------------------------------------------- probes

    def probes_due(self) -> list[int]:
        """Replicas whose load should be probed now."""
        return self._engine.probes_due(monotonic_ns())

    def observe(self, replica_id: int, snapshot: Snapshot, sent_ns: int) -> None:
        """A probe sent at ``sent_ns`` was answered now."""
        effects = self._engine.observe(replica_id, snapshot, sent_ns, monotonic_ns())
        if effects:
            self._deliver(effects)
        self._arm()

    def observe_failed(self, replica_id: int, unread: int) -> None:
        """A probe told nothing; ``unread``: ``PROBE_*``."""
        self._told(self._engine.observe_failed(replica_id, unread, monotonic_ns()))

    def replica(self, replica_id: int) -> Replica | None:
        """A replica of the fleet as it stands."""
        return self._replicas.get(replica_id)

    def replicas(self) -> list[Replica]:
        """The fleet as it stands."""
        return list(self._replicas.values())

    @property
    def engine(self) -> Engine:
        """For read-only views: gauges, counters, state."""
        return self._engine

    @property
    def requests_len(self) -> int:
        """Requests that the engine knows and a sink waits for."""
        return len(self._sinks)

    # -------------------------------------------------------------------- delivery

    def _told(self, effects: Sequence[Effect]) -> None:
        if effects:
            self._deliver(effects)
        self._arm()

    def _deliver(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Push:
                # `type() is` is the fast test; mypy narrows isinstance only.
                replica = self._replicas[effect.replica]  # type: ignore[union-attr]
                self._sinks[effect.request_id].pushed(effect, replica)  # type: ignore[arg-type]
            elif kind is Forward:
                self._sinks[effect.request_id].forwarded(effect, self._peers[effect.peer])  # type: ignore[arg-type,union-attr]  # as above
            elif kind is Hold:
                self._sinks[effect.request_id].held()
                self._begin_look()
                self._arm()
            elif kind is Withdraw:
                self._sinks[effect.request_id].withdrawn()
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
        delay_s = max(0.0, (deadline_ns - monotonic_ns()) / 1e9)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _begin_look(self) -> None:
        if self._look is not None and self._engine.look_due(monotonic_ns()):
            self._look(self._looked)

    def _looked(self) -> None:
        self._told(self._engine.looked(monotonic_ns()))

    def _tick(self) -> None:
        self._timer = None
        effects = self._engine.tick(monotonic_ns())
        self._begin_look()
        self._told(effects)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
