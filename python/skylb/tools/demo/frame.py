"""What the demo's live page shows at one moment.

The names are the page's vocabulary as well: ``page.js`` reads these fields and no others.
"""

import msgspec

from skylb.tools.demo.compare import Measured


class ReplicaFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A replica.

    Attributes:
        name: short and unique.
        health: ``up``, ``blind``, ``ejected``, ``down``..., as its balancer says; ``killed`` by the demo.
        in_flight: requests it is working on, of all balancers that tell.
        pending: requests waiting at it, estimated.
        capacity: requests it runs at once; 0 where unknown.
        cached: share of recent prompt tokens that it found in its cache.
        draining: it gets no new requests.
        countdown: says how long it is until it is left; empty for one that stays.
        served_by: the balancer that serves it.
    """

    name: str
    health: str
    in_flight: int = 0
    pending: int = 0
    capacity: int = 0
    cached: float | None = None
    draining: bool = False
    countdown: str = ""
    served_by: str = ""


class RegionFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A region with its balancer.

    Attributes:
        name: the region's.
        longitude: where it is on the map, degrees east; ``None`` for no map.
        latitude: degrees north.
        balancer: ``up``, ``killed``, ``unreachable``...
        evacuating: its operator wants no work here.
        held: requests in its hold.
        users: users who are awake now; ``users_max`` of them at noon.
        sent_to: the region whose balancer its users are sent to.
        per_s: answers a second to its users.
        ttft_p50_s: recent time to first token of its users, seconds; ``None`` without any.
        ttft_p90_s: the same, ninth decile.
        answered: answers to its users so far.
        failed: requests of its users that failed so far.
        why: reasons of those failures, one line.
        replicas: its replicas.
    """

    name: str
    longitude: float | None = None
    latitude: float | None = None
    balancer: str = "up"
    evacuating: bool = False
    held: int = 0
    users: int | None = None
    users_max: int | None = None
    sent_to: str = ""
    per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p90_s: float | None = None
    answered: int | None = None
    failed: int | None = None
    why: str = ""
    replicas: list[ReplicaFrame] = []


class FlowFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that one region's balancer forwards to another's.

    Attributes:
        origin: region they come from.
        target: region they go to.
        per_s: forwards a second.
        in_flight: forwards under way.
        state: what the origin thinks of the target: ``alive``, ``unreachable``, ``dead``.
        room: how many more it may forward there now.
    """

    origin: str
    target: str
    per_s: float = 0.0
    in_flight: int = 0
    state: str = ""
    room: int = 0


class LinkFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The sea between two regions.

    Attributes:
        name: both ends.
        ends: both ends.
        rtt_s: round trip, seconds.
        fault: what is wrong with it, ``none`` if nothing is.
    """

    name: str
    ends: tuple[str, str]
    rtt_s: float | None = None
    fault: str = "none"


class SwitchFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A switch that sets all balancers.

    Attributes:
        what: ``policy``, ``share`` or ``continuing``.
        label: for people.
        value: how it stands.
        choices: values, and what each is called.
    """

    what: str
    label: str
    value: str
    choices: list[tuple[str, str]]


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        t_s: seconds since the start.
        title: what is being shown.
        about: paragraphs that explain it.
        sun_longitude: where it is noon, degrees east.
        actions: whether the page has buttons.
        regions: in the order in which they are drawn.
        links: between them.
        flows: over them, both ways.
        news: what was done last, newest first: time and sentence.
        ttft_p50_s: time to first token of all users over the last seconds; ``None`` without any.
        ttft_p90_s: the same, ninth decile.
        switches: that the page has.
        marks: switches that were turned: time, and to what.
        before: what was measured before the last one.
        since: what was measured since.
        given: what each setting gave so far.
    """

    t_s: float
    title: str
    about: tuple[str, ...] = ()
    sun_longitude: float | None = None
    actions: bool = False
    regions: list[RegionFrame] = []
    links: list[LinkFrame] = []
    flows: list[FlowFrame] = []
    news: list[tuple[float, str]] = []
    ttft_p50_s: float | None = None
    ttft_p90_s: float | None = None
    switches: list[SwitchFrame] = []
    marks: list[tuple[float, str]] = []
    before: Measured | None = None
    since: Measured | None = None
    given: list[Measured] = []
