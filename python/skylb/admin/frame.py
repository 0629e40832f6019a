"""What a balancer's own live page shows at one moment.

The names are the page's vocabulary as well: ``page.js`` reads these fields and no others.
"""

import msgspec

from skylb import _core
from skylb.admin.pulse import Event, Pulse, Pulses
from skylb.admin.state import PeerState, ReplicaState, State
from skylb.admin.trouble import SIDES, Trouble, headline, peer_key, replica_key, troubles

EVENTS_SHOWN = 30
ERRORS_SHOWN = 12
MODELS_SHOWN = 8

ABOUT = {code: about for code, _, _, _, about in _core.errors()}
"""What each error means, a sentence."""


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """The figures at the top, and those of the charts.

    Attributes:
        t_s: uptime.
        per_s: requests that ended per second.
        ttft_p50_s: time to first token, median; ``None`` where no request ended lately.
        ttft_p90_s: the same, ninth decile.
        gap_p50_s: time between two tokens, median.
        gap_p90_s: the same, ninth decile.
        held: requests in the hold.
        in_flight: requests under way.
        failed: requests that ended with an error in the recent time, whoever's fault it was.
    """

    t_s: float
    per_s: float
    ttft_p50_s: float | None = None
    ttft_p90_s: float | None = None
    gap_p50_s: float | None = None
    gap_p90_s: float | None = None
    held: int = 0
    in_flight: int = 0
    failed: int = 0


class ErrorFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that ended with one error in the recent time.

    Attributes:
        code: of the error.
        count: requests.
        side: whose side it is on: ``client``, ``replica``...
        about: what it means.
    """

    code: str
    count: int
    side: str = ""
    about: str = ""


class ReplicaFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A replica.

    Attributes:
        name: as operators call it, and as the verbs take it.
        label: the same, short.
        word: its condition in one word.
        reason: why; empty where there is nothing to say.
        for_s: how long it has been so.
        running: sequences it runs, as its metrics say; ``None`` where they cannot be read.
        waiting: sequences that wait at it.
        in_flight: requests of this balancer at it.
        pending: requests of this balancer that wait at it, as estimated.
        allowance: pending requests it may have.
        kv_used: share of its KV cache in use.
        cached: share of recent prompt tokens that it had in its cache.
        models: that it serves; the first few.
        models_more: how many more.
        draining: an operator drains it.
    """

    name: str
    label: str
    word: str
    reason: str = ""
    for_s: float | None = None
    running: int | None = None
    waiting: int | None = None
    in_flight: int = 0
    pending: int = 0
    allowance: int = 0
    kv_used: float | None = None
    cached: float | None = None
    models: list[str] = []
    models_more: int = 0
    draining: bool = False


class PeerFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A peer.

    Attributes:
        name: its name.
        region: its region.
        word: its condition in one word.
        reason: why.
        rtt_s: round trip.
        held: requests in its hold, as it says.
        room: how many more requests may be forwarded to it now.
        in_flight: forwards to it under way.
        per_s: forwards to it per second.
    """

    name: str
    region: str
    word: str
    reason: str = ""
    rtt_s: float | None = None
    held: int = 0
    room: int = 0
    in_flight: int = 0
    per_s: float = 0.0


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        balancer: its name.
        region: its region, empty without a mesh.
        policy: its policy.
        version: of SkyLB.
        level: how bad the worst trouble is: ``good``, ``warn`` or ``bad``.
        headline: the worst trouble, or that all is well.
        troubles: what else is wrong, worst first.
        vitals: figures.
        recent_s: the time over which errors are counted.
        errors: by code, the most frequent first.
        replicas: all.
        peers: all; empty without a mesh.
        events: the newest first.
    """

    balancer: str
    region: str = ""
    policy: str = ""
    version: str = ""
    level: str
    headline: str
    troubles: list[Trouble] = []
    vitals: Vitals
    recent_s: float = 0.0
    errors: list[ErrorFrame] = []
    replicas: list[ReplicaFrame] = []
    peers: list[PeerFrame] = []
    events: list[Event] = []


def vitals(pulses: Pulses) -> Vitals:
    """The figures of the newest sample; latencies only where a request ended in the recent time."""
    last: Pulse = pulses.last
    _, ended, errors = pulses.window()
    shown = (
        last
        if ended
        else msgspec.structs.replace(last, ttft_p50_s=None, ttft_p90_s=None, gap_p50_s=None, gap_p90_s=None)
    )
    return Vitals(
        t_s=round(last.uptime_s, 1),
        per_s=round(pulses.rate_per_s(), 2),
        ttft_p50_s=shown.ttft_p50_s,
        ttft_p90_s=shown.ttft_p90_s,
        gap_p50_s=shown.gap_p50_s,
        gap_p90_s=shown.gap_p90_s,
        held=last.held,
        in_flight=last.in_flight,
        failed=sum(errors.values()),
    )


def frame(state: State, pulses: Pulses, *, serves: bool) -> Frame:
    """The page now.

    Args:
        state: of the balancer.
        pulses: its recent past; at least one sample.
        serves: whether a request would find a replica, here or at a peer.
    """
    found = troubles(state, pulses, serves=serves)
    worst = found[0].level if found else "good"
    is_well = worst in {"good", "note"}
    seconds, _, errors = pulses.window()
    mesh = state.mesh
    return Frame(
        balancer=mesh.name if mesh is not None else "",
        region=mesh.region if mesh is not None else "",
        policy=state.process.policy,
        version=state.process.version,
        level="good" if is_well else worst,
        headline=headline(state, found),
        troubles=found if is_well else found[1:],
        vitals=vitals(pulses),
        recent_s=round(seconds),
        errors=[
            ErrorFrame(code=code, count=count, side=SIDES.get(code, ""), about=ABOUT.get(code, ""))
            for code, count in list(errors.items())[:ERRORS_SHOWN]
        ],
        replicas=[_replica(replica, state, pulses) for replica in state.replicas if not replica.removed],
        peers=[_peer(peer, pulses) for peer in state.peers],
        events=list(pulses.events)[: -EVENTS_SHOWN - 1 : -1],
    )


def _replica(replica: ReplicaState, state: State, pulses: Pulses) -> ReplicaFrame:
    key = replica_key(replica.name)
    member, since_s = pulses.condition(key), pulses.since_s(key)
    return ReplicaFrame(
        name=replica.name,
        label=replica.name.removeprefix("http://"),
        word=member.word,
        reason=", ".join(text for text in (member.reason, replica.countdown) if text),
        for_s=None if since_s is None else round(state.process.uptime_s - since_s),
        running=replica.running,
        waiting=replica.waiting,
        in_flight=replica.in_flight,
        pending=replica.pending,
        allowance=replica.allowance,
        kv_used=replica.kv_used,
        cached=pulses.hit_rate(key),
        models=replica.models[:MODELS_SHOWN],
        models_more=max(0, len(replica.models) - MODELS_SHOWN),
        draining=replica.draining,
    )


def _peer(peer: PeerState, pulses: Pulses) -> PeerFrame:
    key = peer_key(peer.name)
    member = pulses.condition(key)
    return PeerFrame(
        name=peer.name,
        region=peer.region,
        word=member.word,
        reason=member.reason,
        rtt_s=None if peer.rtt_ns is None else peer.rtt_ns / 1e9,
        held=peer.hold_requests,
        room=peer.room,
        in_flight=peer.in_flight,
        per_s=round(pulses.forwards_per_s(key), 2),
    )
