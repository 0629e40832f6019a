"""Where the two planes meet: control writes facts, data asks for decisions.

Calls that change something yield effects. An effect that concerns a request goes to the sink that the data
plane registered with `submit`, also during that call. Probes go to the function that control registered,
messages for peers to those of the mesh. Neither plane holds a reference to the other, or to the engine.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from skylb._core import (
    Expire,
    Forward,
    Hold,
    PeerGauges,
    Push,
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
from skylb.mesh.signing import Claims, Identity
from skylb.types import Peer, Replica

Models = list[tuple[str, int | None]]
"""Models and adapters, with ``max_model_len`` where it is known."""

Loads = list[tuple[int, bool, int]]
"""Each replica: its id, whether it is ready, and our requests there."""

Effect = Push | Forward | Hold | Reject | Expire | Withdraw
"""An effect that concerns one request."""


class Sink(Protocol):
    """What a request receives."""

    def submitted(self) -> None:
        """The engine has placed the request; effects follow."""

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


class RequestRouter(Protocol):
    """What the data plane calls: requests in, effects out.

    It does not say where the engine is. `skylb.localrouter` implements it over the engine in this process,
    `skylb.workers.router` over the one of another process.
    """

    def submit(
        self, sink: Sink, request: Request, body: bytes | Scanned, claims: Claims | None = None
    ) -> None:
        """Reads the body, places the request, and calls the sink with the effects.

        Args:
            sink: receives the effects for this request.
            request: the engine notes in it what the body says.
            body: the whole body, framing removed; or the result of a scan, which can be used once.
            claims: what the signature of a peer's forward vouches for.

        Raises:
            RequestError: the body is refused; the sink receives nothing.
        """

    def first_byte(self, request: Request, relay: Relay, now_ns: int) -> None:
        """The first body byte of the current attempt arrived."""

    def complete(self, request: Request, outcome: int, relay: Relay | None, now_ns: int) -> None:
        """The request ended; its sink receives nothing more."""

    def retry(self, request: Request, failure: int, *, sent: bool, now_ns: int, status: int = 0) -> None:
        """The current attempt failed before its first body byte; the sink receives what follows."""

    def resume(self, request: Request, relay: Relay, failure: int, *, now_ns: int, status: int = 0) -> None:
        """The stream of the current attempt broke or is left, and can go on elsewhere.

        The sink receives what follows.

        Args:
            request: what it is about; it has its body for the replica that goes on.
            relay: of that attempt: what the client has.
            failure: why it is given up, ``FAILURE_*``.
            now_ns: the time.
            status: of the answer, if its status or an error in it is the failure.
        """

    def heard(self, replica_ids: list[int], now_ns: int) -> None:
        """These replicas have sent further parts of answers since the last call."""

    def only_model(self) -> str | None:
        """The model of a request that names none. Empty: none is known; ``None``: several are."""

    def over_limit(self, tenant: Tenant, now_ns: int) -> tuple[str, int, bytes | None] | None:
        """The refusal of a request whose body is not read yet, if its tenant is over a limit; it is counted.

        `Engine.over_limit` says what is returned.
        """

    @property
    def continuing(self) -> bool:
        """Streams go on at another replica where their requests allow it."""

    def continues(self, tenant: Tenant) -> bool:
        """Whether streams of a tenant go on elsewhere where their requests allow it."""

    def highest_class(self, tenant: Tenant) -> str | None:
        """The most urgent class that a tenant's requests may have; ``None``: any."""

    def guessed(self, request: Request) -> bool:
        """Whether the request is at a replica that may lack its model, while another could be tried."""

    def silent_peers(self) -> list[int]:
        """The peers from which nothing arrives at present."""

    def ready(self) -> bool:
        """Requests can be served: a replica is ready here, or at a peer that takes them."""

    def list_models(self, tenant: Tenant, then: Callable[[Models | None], None]) -> None:
        """Calls ``then`` with the models and adapters of the ready replicas, and those of peers.

        Of peers, those in regions where requests of this tenant may be served. It may be called before this
        returns, or later. ``None``: they are not known now.
        """

    def list_loads(self, then: Callable[[Loads | None], None]) -> None:
        """Calls ``then`` with each replica's load, as `list_models` does."""

    def scanner(self) -> Scanner:
        """Reads bodies as `submit` does, beside the event loop."""


class Router(RequestRouter, Protocol):
    """What control, the mesh and operators call besides: facts in, figures out."""

    def ready_here(self) -> bool:
        """At least one replica is ready here."""

    def set_continuing(self, on: bool) -> None:
        """Lets the streams of requests placed from now on go on elsewhere, or not."""

    def models(self, tenant: Tenant = Tenant.NOBODY) -> Models:
        """The models and adapters that `list_models` gives."""

    # --------------------------------------------------------------- control plane

    def set_replicas(self, replicas: Sequence[Replica]) -> None:
        """Sets the whole fleet. Ids are never reused for another address."""

    def set_models(self, replica_id: int, models: list[tuple[str, int | None]], *, cut: bool = False) -> bool:
        """Sets the models and adapters that one replica serves.

        Args:
            replica_id: the replica.
            models: their names, with ``max_model_len`` where it is known.
            cut: the list is incomplete, and the replica serves more.

        Returns:
            Whether something changed.
        """

    def hide_models(self, replica_id: int) -> None:
        """Notes that a replica lists no models. It then gets requests for any model."""

    def refresh_models_with(self, refresh: Callable[[Callable[[], None]], None]) -> None:
        """Sets the function to call when a request asks for a model in no list.

        It reads all lists again, and then calls its argument.
        """

    def set_draining(self, replica_id: int, draining: bool) -> None:
        """Begins or ends the draining of a replica, as operators ask: it gets no new requests meanwhile."""

    @property
    def policy(self) -> str:
        """The policy that chooses now."""

    @property
    def shadow_policy(self) -> str | None:
        """The policy that is asked about each choice, without effect."""

    def set_policy(self, name: str) -> None:
        """Chooses by another policy from now on. Held requests stay, and start by its rule.

        Raises:
            ValueError: no policy has this name.
        """

    # ----------------------------------------------------------------------- peers

    def set_self(self, identity: Identity, region: str) -> None:
        """Sets this balancer's name, start and region. Call it before `set_peers`."""

    def set_peers(self, peers: list[tuple[int, str, str, bool]]) -> None:
        """Sets all peers, as ``(id, name, region, sure)``. Ids are never reused for another name.

        ``sure``: the list of peers names the region, or it equals the peer's name.
        """

    def set_peer(self, peer: Peer) -> None:
        """Sets the address that forwards to a peer go to. Call it before `merge_peer`."""

    def peer_started(self, peer_id: int, incarnation: int) -> None:
        """A connection to a peer begins. The peer has proven its ``incarnation``, the time of its start."""

    def peer_rtt(self, peer_id: int, rtt_ns: int) -> None:
        """Reports one measured round trip to a peer."""

    def peer_state(self, peer_id: int, state: int) -> None:
        """Reports whether a peer lives: ``PEER_*``."""

    def set_isolated(self, peer_id: int, isolated: bool) -> None:
        """Isolates a peer, as operators ask: nothing is forwarded to it, and nothing granted to it."""

    def set_residency(self, rules: list[tuple[str | None, str | None, list[str]]]) -> None:
        """Sets where requests may be served: ``(tenant, model, regions)``, ``None`` for any.

        Raises:
            ValueError: more regions than there can be.
        """

    def set_tenants(self, terms: bytes) -> None:
        """Sets the terms of all tenants, in JSON; `Engine.set_tenants` has its form.

        Raises:
            ValueError: they are not understood.
        """

    def tenant_usage(self) -> bytes:
        """What tenants have used, in JSON; see `Engine.tenant_usage`."""

    def set_notice(self, replica_id: int, at_ns: int | None, *, ends: bool) -> None:
        """A replica is to be left at ``at_ns``; ``None``: it stays. See `Engine.set_notice`."""

    def evacuate(self, region: str, evacuating: bool, leave_ns: int | None) -> None:
        """Evacuates a region, or ends that; streams leave it at ``leave_ns``. See `Engine.evacuate`."""

    def staying(self) -> tuple[int, int, int]:
        """Requests at replicas here, those that cannot leave, those of peers; see `Engine.staying`."""

    def set_replica_region(self, replica_id: int, region: str | None) -> None:
        """Sets the region of an adopted replica; ``None``: this balancer's."""

    def peer_connected(self, peer_id: int, kinds: list[int], tell: Callable[[Tell], None]) -> None:
        """A connection to a peer begins. What either side reported before no longer counts.

        Args:
            peer_id: the peer.
            kinds: the kinds of messages that it takes (``MESSAGE_*``).
            tell: called with each message that is to be sent now. At most one of each kind is under way. It
                ends when `written` reports it.
        """

    def peer_takes(self, peer_id: int, kinds: list[int]) -> None:
        """The connection takes these kinds as well: the peer has shown that it knows them."""

    def peer_disconnected(self, peer_id: int, tell: Callable[[Tell], None]) -> None:
        """The connection with this ``tell`` has ended. If another has replaced it, nothing happens."""

    def written(self, peer_id: int, kind: int) -> None:
        """The last message of this kind has been written to the peer's connection."""

    def merge_peer(self, peer_id: int, summary: bytes) -> None:
        """Takes in the summary of a peer.

        Raises:
            ValueError: it cannot be understood, or is not newer than what is known.
        """

    def set_peer_digest(self, key: bytes, *, bytes_max: int, interval_s: float, age_max_s: float) -> None:
        """Turns the exchange of hot prefixes with peers on; see `Engine.set_peer_digest`."""

    def merge_peer_digest(self, peer_id: int, digest: bytes) -> None:
        """A peer reported which prefixes are hot there.

        Raises:
            ValueError: it cannot be understood or compared, or is not newer than what is known.
        """

    def export_state(self, writer: StateWriter) -> bytes | None:
        """The next part of what was learned; ``None`` behind the last one. It may be empty."""

    def import_state(self, state: bytes, age_ns: int) -> dict[str, int]:
        """Takes over what another process had learned so long ago, as far as it concerns this fleet.

        Returns:
            How much of it: ``replicas_told``, ``replicas``, ``paths``, ``sessions``, ``tenants``.

        Raises:
            ValueError: it cannot be understood; nothing happened.
        """

    def in_flight(self) -> bytes:
        """The requests at replicas that have not ended, for a successor."""

    def merge_predecessor(self, flight: bytes | None) -> None:
        """A predecessor said which requests it still has at replicas: all of them. ``None``: it has ended.

        Raises:
            ValueError: it cannot be understood.
        """

    def set_region_cache(self, key: bytes) -> None:
        """Balancers of our region tell each other which prompts they push; see `Engine.set_region_cache`."""

    def merge_cached(self, peer_id: int, cached: bytes) -> None:
        """A peer of our region told of prompts that it has pushed.

        Raises:
            ValueError: it cannot be understood or compared, or is not newer than what is known.
        """

    def merge_share(self, peer_id: int, share: bytes, ahead_ns: int) -> None:
        """What a peer of our region reported about shared replicas.

        Args:
            peer_id: the peer.
            share: its message.
            ahead_ns: how far our clock is ahead of the peer's.

        Raises:
            ValueError: it cannot be understood, or the peer is of another region.
        """

    def merge_tenants(self, peer_id: int, message: bytes) -> None:
        """What a peer reported of the tenants whose limits are shared.

        Raises:
            ValueError: it cannot be understood, or is not newer than what is known.
        """

    def peers(self) -> list[Peer]:
        """The peers whose forward address is known."""

    def peer_gauges(self) -> list[PeerGauges]:
        """The engine's figures of each peer."""

    # ---------------------------------------------------------------------- probes

    def probe_with(self, probe: Callable[[int], None]) -> None:
        """Calls ``probe`` with each replica that is to be probed now.

        At most one probe per replica is under way. It ends when `observe` or `observe_failed` reports it,
        even if it was given up.
        """

    def observe(self, replica_id: int, snapshot: Snapshot, sent_ns: int) -> None:
        """A probe sent at ``sent_ns`` was answered now."""

    def observe_failed(self, replica_id: int, unread: int) -> None:
        """A probe brought nothing, or was given up; ``unread``: ``PROBE_*``."""

    def answered(self, replica_id: int) -> None:
        """A replica has answered something other than a probe."""

    def probed_state(self, replica_id: int) -> int:
        """What is known of a replica by its probes: ``PROBED_*``."""

    def replica(self, replica_id: int) -> Replica | None:
        """A replica of the fleet as it stands."""

    def replicas(self) -> list[Replica]:
        """The fleet as it stands."""

    # --------------------------------------------------------------------- figures

    def gauges(self) -> list[ReplicaGauges]:
        """The engine's figures of each replica."""

    def counters(self) -> dict[str, int]:
        """Monotonic counters by name."""

    def prefix_errors(self) -> tuple[list[tuple[float, int]], float]:
        """Predicted minus confirmed cached tokens; see `Engine.prefix_errors`."""

    def ttft_errors(self) -> tuple[list[tuple[float, int]], float]:
        """How far predicted times to the first body byte were off; see `Engine.ttft_errors`."""

    def state(self) -> bytes:
        """JSON for operators."""

    def wanted(self) -> list[tuple[str, float, int]]:
        """Replicas that the work at hand would fill, and those that are ready, by model."""

    def receipt(self, request_id: str) -> bytes | None:
        """Why a request went where it went, as JSON; ``None``: no receipt of it is kept."""

    def rehearse(self, request: Request, body: bytes | Scanned) -> bytes:
        """What would be decided now about a request, as JSON. Nothing is changed.

        Raises:
            RequestError: the body is refused.
        """

    def receipts(self, len_max: int) -> bytes | None:
        """The newest requests with receipts, as JSON; ``None``: receipts are off."""

    @property
    def hold_requests(self) -> int:
        """Requests in the hold."""

    @property
    def hold_bytes(self) -> int:
        """Bytes of their bodies."""

    @property
    def kept_bytes(self) -> int:
        """Memory of the ids that streams need to go on elsewhere."""

    @property
    def tree_bytes(self) -> int:
        """Memory of the prefix tree."""

    @property
    def requests_len(self) -> int:
        """Requests that the engine knows and a sink waits for."""
