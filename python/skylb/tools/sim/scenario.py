"""What is simulated: a scenario as plain structs.

The same fields make up a scenario file (TOML) and the JSON that the simulator reads
(``rust/src/sim/scenario.rs``). Beyond it, Python's form has the workload's kind
(`skylb.tools.sim.workload`), names of profiles, and engine settings that need not be complete.

The docstrings of these structs are the text of ``docs/SCENARIO.md``. Every field has a description there.

A field's default here and in Rust is the same; a test compares them.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from skylb.config import EngineSettings
from skylb.errors import ConfigError
from skylb.hints import suggestion
from skylb.options import Given, build, from_table
from skylb.tools.mock.profiles import PROFILES, Profile
from skylb.tools.sim.workload import Arena, File, Made, Workload

SECONDS_MAX = 31 * 86_400.0
"""Longest simulated time: a month."""

TENANTS_MAX = 200
"""Tenants with requests of their own at most: the ids of their texts must not meet."""

Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Number = Annotated[int, Meta(ge=0, lt=1 << 31)]
Ms = Annotated[float, Meta(ge=0, le=60_000)]
Factor = Annotated[float, Meta(gt=0, le=1e6)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part of a scenario: frozen, and without room for unknown names."""


class Replicas(Table, frozen=True):
    """Replicas of one kind. They are numbered from 0 over all regions, in the order of the file.

    Attributes:
        count: number of replicas.
        profile: kind of replica, as of ``skylb mock --profile``.
        override: values that replace the profile's, such as ``{ kv_tokens = 100000 }``.
    """

    count: Annotated[int, Meta(ge=1, le=100_000)] = 1
    profile: str = "l4-8b"
    override: dict[str, Any] = {}


class Region(Table, frozen=True):
    """One region.

    Attributes:
        name: name, as requests and other tables refer to it.
        balancers: number of balancers. Each fronts all replicas of the region; users are spread over them.
        replicas: groups of replicas.
    """

    name: Name = "local"
    balancers: Annotated[int, Meta(ge=1, le=1000)] = 1
    replicas: list[Replicas] = field(default_factory=list)


class Network(Table, frozen=True):
    """What lies between regions. A message takes half a round trip, plus what is drawn.

    Attributes:
        rtt_ms: round-trip times, a row and a column per region in their order. The diagonal is within a
            region. Empty: 0.5 ms, for a scenario of one region.
        jitter_ms: mean of an exponential delay that is added to each message.
        loss: probability that a message is lost. It arrives ``rto_ms`` later.
        rto_ms: retransmission timeout.
        window_bytes: bytes sent in the first round trip. Each further one doubles them, as TCP's slow
            start does. 0: no slow start.
        clock_spread_s: balancers' clocks begin at times drawn up to this one.
        connect_timeout_s: time after which a connection over a cut link fails.
        stall_timeout_s: time after which an answer that a cut link holds up is given up.
    """

    rtt_ms: list[list[Ms]] = field(default_factory=list)
    jitter_ms: Ms = 0.0
    loss: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    rto_ms: Ms = 200.0
    window_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 14_600
    clock_spread_s: Seconds = 0.0
    connect_timeout_s: Seconds = 1.5
    stall_timeout_s: Seconds = 60.0


class Leave(Table, frozen=True):
    """Clients that leave before they have their answer.

    Attributes:
        probability: share of requests whose client leaves.
        from_s: earliest time after sending.
        to_s: latest time. All times between the two are equally likely.
    """

    probability: Annotated[float, Meta(ge=0, le=1)]
    from_s: Seconds
    to_s: Seconds


class Clients(Table, frozen=True):
    """Who sends the requests, and when.

    Attributes:
        mode: what decides when a request is sent. ``closed``: users wait for answers and think.
            ``sessions``: sessions begin by the clock and go on after their answers. ``open``: every
            request is sent by the clock.
        users: closed loop: users at once, by region.
        ramp_s: closed loop: time over which the users start.
        repeat: closed loop: start over when the workload is used up, with other prompts.
        rate_scale: open loop and sessions: factor on the rate at which they begin.
        think_scale: closed loop and sessions: factor on pauses between requests of a session.
        failure_pause_s: closed loop and sessions: pause after a failed request.
        key: what the policy ``ring`` hashes.
        max_tokens: longest answer. Longer ones of the workload are cut, and requests carry it.
        leave: clients that leave early. Without it, none does.
        hop: each request goes to any balancer of its region. Without it, all of a user's go to one.
        tenants: number of tenants that users are spread over. 0: requests name none.
        requests_per_minute: requests per minute that each tenant may send, to all balancers together. Further
            ones are refused. 0: no limit.
        classes: classes that users are spread over in turn. Empty: requests name none.
    """

    mode: Literal["closed", "sessions", "open"] = "closed"
    users: dict[str, Annotated[int, Meta(ge=0, le=1_000_000)]] = {}
    ramp_s: Seconds = 0.0
    repeat: bool = True
    rate_scale: Factor = 1.0
    think_scale: Annotated[float, Meta(ge=0, le=1e6)] = 1.0
    failure_pause_s: Seconds = 0.5
    key: Literal["user", "session", "none"] = "user"
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    leave: Leave | None = None
    hop: bool = False
    tenants: Number = 0
    requests_per_minute: Number = 0
    classes: list[Literal["high", "normal", "low"]] = field(default_factory=list)


class Tenant(Table, frozen=True):
    """Tenants with requests of their own, in the modes ``sessions`` and ``open``. Each has texts of its own.

    A tenant's requests depend on the seed and on its place in the list. So the others stay the same when the
    last ones are taken away.

    Attributes:
        name: name of the tenant. Several are called ``name-1``, ``name-2`` and so on.
        count: number of such tenants.
        weight: share of the room while others wait.
        classes: classes that the tenant's users are spread over in turn. Empty: as ``clients.classes``.
        rate_per_s: sessions of each tenant that begin per second. Without it, as the workload says.
        from_s: when its first session may begin.
        until_s: when its last one may begin. Without it, ``duration_s``.
        workload: its requests. Without it, those of the scenario's workload.
    """

    name: Name
    count: Annotated[int, Meta(ge=1, le=TENANTS_MAX)] = 1
    weight: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    classes: list[Literal["high", "normal", "low"]] = field(default_factory=list)
    rate_per_s: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    from_s: Seconds = 0.0
    until_s: Seconds | None = None
    workload: Made | None = None

    def names(self) -> list[str]:
        """The name of each of them."""
        return [self.name] if self.count == 1 else [f"{self.name}-{n}" for n in range(1, self.count + 1)]


class _Fault(Table, frozen=True, kw_only=True, tag_field="kind"):
    """What goes wrong.

    Attributes:
        at_s: when it begins.
    """

    at_s: Seconds


class _LastingFault(_Fault, frozen=True, kw_only=True):
    """What goes wrong for a time.

    Attributes:
        until_s: when it ends. It stays so without it.
    """

    until_s: Seconds | None = None


class _ReplicaFault(_LastingFault, frozen=True, kw_only=True):
    """What goes wrong at a replica for a time.

    Attributes:
        replica: number of the replica.
    """

    replica: Number


class Crash(_ReplicaFault, frozen=True, kw_only=True, tag="crash"):
    """A replica's process ends. At ``until_s`` it comes back with an empty cache."""


class Freeze(_ReplicaFault, frozen=True, kw_only=True, tag="freeze"):
    """A replica's process stands still. It accepts connections and answers nothing."""


class Wedge(_ReplicaFault, frozen=True, kw_only=True, tag="wedge"):
    """A replica's engine stands still. Its server takes requests and answers probes."""


class Errors(_ReplicaFault, frozen=True, kw_only=True, tag="errors"):
    """A replica fails a share of the requests.

    Attributes:
        rate: share of the requests.
        how: the failure: a 500 (``status``), a closed connection (``reset``), or a 503 of a full replica
            (``full``).
    """

    rate: Annotated[float, Meta(ge=0, le=1)]
    how: Literal["status", "reset", "full"] = "status"


class Slow(_ReplicaFault, frozen=True, kw_only=True, tag="slow"):
    """A replica's steps take longer.

    Attributes:
        factor: how many times as long they take.
    """

    factor: Factor


class Lie(_ReplicaFault, frozen=True, kw_only=True, tag="lie"):
    """A replica's metrics are wrong.

    Attributes:
        how: the wrong values. ``negative``: below zero. ``nan``: no number. ``absurd``: beyond all limits.
            ``frozen``: those of the beginning. ``idle``: those of an idle replica. ``unreadable``: a page
            without metrics.
    """

    how: Literal["negative", "nan", "absurd", "frozen", "idle", "unreadable"]


class Forget(_Fault, frozen=True, kw_only=True, tag="forget"):
    """A replica loses its prefix cache.

    Attributes:
        replica: number of the replica.
    """

    replica: Number


class Drain(_ReplicaFault, frozen=True, kw_only=True, tag="drain"):
    """An operator drains a replica. It takes new requests again at ``until_s``."""


class Cut(_LastingFault, frozen=True, kw_only=True, tag="cut"):
    """Nothing passes between two regions, or within one if both are the same.

    Attributes:
        between: names of the two.
    """

    between: tuple[str, str]


class Drop(_LastingFault, frozen=True, kw_only=True, tag="drop", rename={"source": "from", "target": "to"}):
    """Nothing passes from one region to another. The other way is open.

    Attributes:
        source: region that messages come from.
        target: region that they do not reach.
    """

    source: str
    target: str


class Evacuate(_LastingFault, frozen=True, kw_only=True, tag="evacuate"):
    """An operator evacuates a region. Its balancers send away what they can, and take nothing.

    Attributes:
        region: name of the region.
    """

    region: str


class Kill(_LastingFault, frozen=True, kw_only=True, tag="kill"):
    """A balancer's process ends, and its clients' requests with it. A new one at ``until_s`` knows nothing.

    Attributes:
        balancer: number of the balancer, from 0 in the order of regions.
        silent: its machine fails too, so that no connection is closed.
    """

    balancer: Number
    silent: bool = False


class Part(_LastingFault, frozen=True, kw_only=True, tag="part"):
    """Nothing passes between two balancers of one region.

    Attributes:
        balancers: numbers of the two.
        one_way: only what the first sends to the second is lost.
    """

    balancers: tuple[Number, Number]
    one_way: bool = False


Fault = Crash | Freeze | Wedge | Errors | Slow | Lie | Forget | Drain | Cut | Drop | Evacuate | Kill | Part


class Residency(Table, frozen=True):
    """A rule of residency: regions in which requests of a tenant, of a model, or of both may be served.

    Attributes:
        regions: names of the regions.
        tenant: number of the tenant, in ``tenants`` or of ``clients.tenants``. Without it, the rule is for
            all tenants.
        model: name of the model. Without it, the rule is for all models.
    """

    regions: list[str]
    tenant: Number | None = None
    model: str | None = None


class PeerDigest(Table, frozen=True):
    """Messages of hot prefixes between balancers, as ``skylb serve``'s settings ``peer_digest_*``.

    Attributes:
        enabled: balancers send them.
        bytes_max: maximum size of one message.
        interval_s: time between two messages.
        age_max_s: age from which a message no longer counts.
    """

    enabled: bool = False
    bytes_max: Annotated[int, Meta(ge=128, le=32 << 10)] = 8 << 10
    interval_s: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    age_max_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0


class Scenario(Table, frozen=True):
    """Fields that stand before the first table.

    Attributes:
        seed: decides every draw, those of a made workload too.
        duration_s: virtual time after which clients send nothing more.
        warmup_s: requests sent before this time are not measured.
        drain_s: time after ``duration_s`` in which requests may end. Those that do not are unfinished.
        check: check the engine's invariants after every event (slow).
        records: list every measured request in the result.
        topology: which balancers there are, and what they share.
        balancer_region: region of the one balancer under ``global`` and ``oracle``. Without it, the first.
        learn_answers: answers enter the balancer's tree, as with ``skylb serve``.
        tell_cached: replicas report what they found in their caches. Without it, nothing corrects the tree.
        engine: settings of ``skylb serve``'s group ``engine``. Settings that are left out have its defaults.
        regions: regions with their replicas. Without any, there is one with four replicas.
        network: what lies between regions.
        clients: clients that send the requests, and when they do.
        faults: what goes wrong.
        residency: where requests may be served.
        peer_digest: messages of hot prefixes between balancers.
        region_cache: balancers of one region tell each other which prompts they push.
        forged_hops: share of forwards whose signed hop is forged on the way. No peer may serve them.
        tenants: tenants with requests of their own. Without any, the workload is of one stream.
        workload: the requests.
    """

    seed: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0
    duration_s: Annotated[float, Meta(gt=0, le=SECONDS_MAX)] = 300.0
    warmup_s: Seconds = 0.0
    drain_s: Seconds = 600.0
    check: bool = False
    records: bool = False
    topology: Literal["skylb", "local", "global", "oracle"] = "skylb"
    balancer_region: str | None = None
    learn_answers: bool = True
    tell_cached: bool = True
    engine: dict[str, Any] = {}
    regions: list[Region] = field(default_factory=lambda: [Region(replicas=[Replicas(count=4)])])
    network: Network = Network()
    clients: Clients = Clients()
    faults: list[Fault] = field(default_factory=list)
    residency: list[Residency] = field(default_factory=list)
    peer_digest: PeerDigest = PeerDigest()
    region_cache: bool = True
    forged_hops: Annotated[float, Meta(ge=0, le=1)] = 0.0
    tenants: list[Tenant] = field(default_factory=list)
    workload: Workload = Arena()

    def engine_settings(self) -> EngineSettings:
        """The engine's settings, complete.

        Raises:
            ConfigError: names every fault.
        """
        faults: list[str] = []
        settings = build(EngineSettings, from_table(EngineSettings, self.engine, "engine.", faults), faults)
        if faults or settings is None:
            raise ConfigError(faults)
        return settings

    def to_json(self) -> bytes:
        """What the simulator reads.

        Raises:
            ConfigError: engine settings or profiles are at fault; names every fault.
        """
        faults: list[str] = []
        tree: dict[str, Any] = msgspec.to_builtins(self)
        del tree["workload"]
        try:
            tree["engine"] = self.engine_settings().model_dump()
        except ConfigError as error:
            faults += error.faults
        for index, region in enumerate(self.regions):
            for number, group in enumerate(region.replicas):
                profile = _profile(group, f"regions.{index}.replicas.{number}", faults)
                tree["regions"][index]["replicas"][number] = {
                    "count": group.count,
                    "profile": msgspec.Raw(profile.model_json()) if profile is not None else None,
                }
        tree["tenants"] = self._tenants(faults)
        if faults:
            raise ConfigError(faults)
        return msgspec.json.encode(tree)

    def _tenants(self, faults: list[str]) -> list[dict[str, Any]]:
        """Each tenant, as the simulator reads it."""
        every = [
            {"name": name, "weight": of.weight, "classes": of.classes}
            for of in self.tenants
            for name in of.names()
        ]
        names = [of["name"] for of in every]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            faults.append(f"tenants: {', '.join(twice)}: the name is there twice")
        if len(every) > TENANTS_MAX:
            faults.append(f"tenants: {len(every)} in all: expected at most {TENANTS_MAX}")
        if every and self.clients.mode == "closed":
            faults.append("tenants: for the clients' modes sessions and open only")
        if every and self.clients.tenants:
            faults.append("tenants: clients.tenants spreads users over others: expected one of the two")
        for index, of in enumerate(self.tenants):
            if of.workload is None and isinstance(self.workload, File):
                faults.append(f"tenants.{index}.workload: missing field: the scenario's is a file")
            if of.until_s is not None and of.until_s <= of.from_s:
                faults.append(f"tenants.{index}.until_s: expected a time after from_s")
        return every


def _profile(group: Replicas, where: str, faults: list[str]) -> Profile | None:
    """The profile with what overrides it; ``None``, and faults, where there is none."""
    base = PROFILES.get(group.profile)  # type: ignore[call-overload]  # any text may have been written
    if base is None:
        hint = suggestion(group.profile, PROFILES)
        faults.append(
            f"{where}.profile: {group.profile!r}: unknown{hint}: expected one of {', '.join(PROFILES)}"
        )
        return None
    given = {name: Given(value, "file", name) for name, value in base.model_dump().items()}
    found: list[str] = []
    given |= from_table(Profile, group.override, f"{where}.override.", found)
    profile = build(Profile, given, found)
    if profile is not None and not found and (fault := profile.fault()) is not None:
        found.append(f"{where}: {fault}")
    faults += found
    return None if found else profile
