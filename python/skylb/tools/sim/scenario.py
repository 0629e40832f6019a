"""What is simulated: a scenario as plain structs.

The same fields make up a scenario file (TOML) and the JSON that the simulator reads.
``rust/src/sim/scenario.rs`` documents them; this module does not repeat it. Beyond it, Python's form has
the workload's kind (`skylb.tools.sim.workload`), names of profiles, and engine settings that need not be
complete.

A field's default here and in Rust is the same; a test compares them.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from skylb.config import EngineSettings
from skylb.errors import ConfigError
from skylb.options import Given, build, from_table, suggestion
from skylb.tools.mock.profiles import PROFILES, Profile
from skylb.tools.sim.workload import Arena, Workload

SECONDS_MAX = 31 * 86_400.0
"""Longest simulated time: a month."""

Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Number = Annotated[int, Meta(ge=0, lt=1 << 31)]
Ms = Annotated[float, Meta(ge=0, le=60_000)]
Factor = Annotated[float, Meta(gt=0, le=1e6)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part of a scenario: frozen, and without room for unknown names."""


class Replicas(Table, frozen=True):
    """Replicas of one kind.

    Attributes:
        count: how many.
        profile: kind, as of ``skylb mock --profile``.
        override: values instead of the profile's, such as ``{"kv_tokens": 100000}``.
    """

    count: Annotated[int, Meta(ge=1, le=100_000)] = 1
    profile: str = "l4-8b"
    override: dict[str, Any] = {}


class Region(Table, frozen=True):
    """One region: its name as requests bear it, its balancers, its replicas."""

    name: Name = "local"
    balancers: Annotated[int, Meta(ge=1, le=1000)] = 1
    replicas: list[Replicas] = field(default_factory=list)


class Network(Table, frozen=True):
    """What lies between regions; ``rtt_ms`` has a row and a column per region, in their order."""

    rtt_ms: list[list[Ms]] = field(default_factory=list)
    jitter_ms: Ms = 0.0
    loss: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    rto_ms: Ms = 200.0
    window_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 14_600
    clock_spread_s: Seconds = 0.0
    connect_timeout_s: Seconds = 1.5
    stall_timeout_s: Seconds = 60.0


class Leave(Table, frozen=True):
    """A share of the clients leaves between ``from_s`` and ``to_s`` after sending."""

    probability: Annotated[float, Meta(ge=0, le=1)]
    from_s: Seconds
    to_s: Seconds


class Clients(Table, frozen=True):
    """Who sends the requests, and when.

    Attributes:
        mode: ``closed``: so many users, who wait for answers and think; ``sessions``: sessions begin
            by the clock and go on after their answers; ``open``: every request by the clock.
        users: closed loop: users at once, by region.
        repeat: closed loop: start over when the workload is used up, with other prompts.
        tenants: users are spread over so many tenants, for residency; 0: requests name none.
        classes: users are spread over these classes in turn; empty: requests name none.
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
    tenants: Number = 0
    classes: list[Literal["high", "normal", "low"]] = field(default_factory=list)


class _Fault(Table, frozen=True, kw_only=True, tag_field="kind"):
    at_s: Seconds


class _LastingFault(_Fault, frozen=True, kw_only=True):
    until_s: Seconds | None = None


class Crash(_LastingFault, frozen=True, kw_only=True, tag="crash"):
    """A replica's process ends and comes back with an empty cache."""

    replica: Number


class Freeze(_LastingFault, frozen=True, kw_only=True, tag="freeze"):
    """A replica's process stands still: it takes connections and says nothing."""

    replica: Number


class Errors(_LastingFault, frozen=True, kw_only=True, tag="errors"):
    """A replica fails a share of the requests: with a 500, a closed connection, or a 503 "full"."""

    replica: Number
    rate: Annotated[float, Meta(ge=0, le=1)]
    how: Literal["status", "reset", "full"] = "status"


class Slow(_LastingFault, frozen=True, kw_only=True, tag="slow"):
    """A replica's steps take ``factor`` times as long."""

    replica: Number
    factor: Factor


class Lie(_LastingFault, frozen=True, kw_only=True, tag="lie"):
    """A replica's metrics lie."""

    replica: Number
    how: Literal["negative", "nan", "absurd", "frozen", "idle", "unreadable"]


class Forget(_Fault, frozen=True, kw_only=True, tag="forget"):
    """A replica forgets its prefix cache."""

    replica: Number


class Drain(_LastingFault, frozen=True, kw_only=True, tag="drain"):
    """An operator drains a replica."""

    replica: Number


class Cut(_LastingFault, frozen=True, kw_only=True, tag="cut"):
    """Nothing passes between two regions."""

    between: tuple[str, str]


class Drop(_LastingFault, frozen=True, kw_only=True, tag="drop", rename={"source": "from", "target": "to"}):
    """Nothing passes from one region to another; the other way is open."""

    source: str
    target: str


class Evacuate(_LastingFault, frozen=True, kw_only=True, tag="evacuate"):
    """An operator evacuates a region: its balancers send away what they can, and take nothing."""

    region: str


class Kill(_LastingFault, frozen=True, kw_only=True, tag="kill"):
    """A balancer's process ends; a new one knows nothing. ``silent``: its machine ends too."""

    balancer: Number
    silent: bool = False


class Part(_LastingFault, frozen=True, kw_only=True, tag="part"):
    """Nothing passes between two balancers of one region; ``one_way``: only from the first to the second."""

    balancers: tuple[Number, Number]
    one_way: bool = False


Fault = Crash | Freeze | Errors | Slow | Lie | Forget | Drain | Cut | Drop | Evacuate | Kill | Part


class Residency(Table, frozen=True):
    """A rule of residency: ``regions`` allowed for a tenant's requests, for a model, or both.

    Attributes:
        tenant: users are spread over ``clients.tenants`` of them; ``None``: everybody's.
        model: ``None``: all.
    """

    regions: list[str]
    tenant: Number | None = None
    model: str | None = None


class PeerDigest(Table, frozen=True):
    """What balancers tell each other of hot prefixes: ``skylb serve``'s settings ``peer_digest_*``."""

    enabled: bool = False
    bytes_max: Annotated[int, Meta(ge=128, le=32 << 10)] = 8 << 10
    interval_s: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    age_max_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0


class Scenario(Table, frozen=True):
    """One scenario; see the module.

    Attributes:
        seed: decides every draw, those of a made-up workload too.
        duration_s: clients send nothing more after this virtual time.
        warmup_s: requests sent before are not measured.
        drain_s: time after ``duration_s`` in which requests may end.
        check: checks the engine's invariants after every event (slow).
        records: lists every measured request in the result.
        engine: settings of ``skylb serve``'s group ``engine``; the others have its defaults.
        forged_hops: share of forwards whose hop is forged on the way; no peer may serve them.
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
    forged_hops: Annotated[float, Meta(ge=0, le=1)] = 0.0
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
        if faults:
            raise ConfigError(faults)
        return msgspec.json.encode(tree)


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
