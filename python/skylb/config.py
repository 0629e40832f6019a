"""Every setting, written once: default, bounds, description.

Flags, environment names, the TOML file, ``skylb config show`` and the tables in the documentation
derive from these models (`skylb.settings` does it). The environment is read in this module alone.
"""

import os
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from skylb.addresses import ListenAddress, ReplicaUrl
from skylb.discoverysettings import DiscoverySettings, DnsFamily
from skylb.meshsettings import MeshSettings
from skylb.namesettings import DnsSettings
from skylb.timesettings import TimeoutSettings
from skylb.values import (
    FILE,
    LISTEN,
    URL,
    Bytes,
    Count,
    Expected,
    File,
    Group,
    Listen,
    Network,
    Seconds,
    Url,
)

__all__ = [
    "FILE",
    "LISTEN",
    "Bytes",
    "Count",
    "DiscoverySettings",
    "DnsFamily",
    "EngineSettings",
    "Expected",
    "File",
    "Group",
    "Listen",
    "Policy",
    "Seconds",
    "Settings",
    "TimeoutSettings",
    "environment",
]

ENVIRONMENT_PREFIX = "SKYLB_"

_KUBERNETES_LINK = re.compile(
    r"SKYLB(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_[A-Z_]+)?)"
)


def environment() -> dict[str, str]:
    """The variables of this process that are ours.

    Kubernetes sets variables such as ``SKYLB_PORT`` and ``SKYLB_SERVICE_HOST`` in every container
    beside a Service of the name "skylb"; they are no settings and left out.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(ENVIRONMENT_PREFIX) and not _KUBERNETES_LINK.fullmatch(name)
    }


Policy = Literal[
    "prefix",
    "predictive",
    "ring",
    "round_robin",
    "least_load",
    "two_choices",
    "bounded_ring",
    "cache_aware",
    "smg",
    "llm_d",
    "dynamo",
    "preble",
    "gorgo",
]
LogLevel = Literal["debug", "info", "warning", "error"]


class EngineSettings(Group):
    """Constants of the decision engine; handed to Rust as JSON, all fields required there."""

    policy: Annotated[Policy, Field(description="how a replica is chosen")] = "predictive"
    push: Annotated[
        Literal["blind", "outstanding", "pending"],
        Field(description="when a request may be pushed: at once, below outstanding_max, or selectively"),
    ] = "pending"
    outstanding_max: Annotated[
        Count, Field(ge=1, description="requests in flight per replica under push=outstanding")
    ] = 32
    allowance: Annotated[
        Literal["one", "knee"],
        Field(description="pending requests allowed per replica: always one (the paper), or learned"),
    ] = "knee"
    blind_outstanding_max: Annotated[
        Count, Field(ge=1, description="requests in flight on a replica whose metrics cannot be read")
    ] = 16
    in_flight_max: Annotated[Count, Field(ge=1, description="hard cap of requests in flight per replica")] = (
        1024
    )
    hold_timeout_s: Annotated[Seconds, Field(gt=0, description="longest wait in the hold")] = 30.0
    hold_len_max: Annotated[Count, Field(ge=0, description="requests held at most")] = 10_000
    hold_bytes_max: Annotated[Bytes, Field(ge=1, description="bodies of held requests at most")] = 1 << 30
    hold_tenant_len_max: Annotated[
        Count | None,
        Field(
            ge=1, description="requests of one tenant, else credential, held at most, else a quarter of all"
        ),
    ] = None
    hold_tenant_bytes_max: Annotated[
        Bytes | None,
        Expected("bytes: an integer, or one followed by KiB, MiB or GiB"),
        Field(ge=1, description="bodies of one tenant's held requests at most, else a quarter of all"),
    ] = None
    hold_window: Annotated[
        Count,
        Field(
            ge=1,
            le=256,
            description="held requests compared when a replica has room; 1: first come, first served",
        ),
    ] = 1
    hold_work_weight: Annotated[
        float,
        Field(
            ge=0,
            le=1e6,
            description="predictive: how much later a held request counts for the time its prompt takes",
        ),
    ] = 40.0
    hold_passes_max: Annotated[
        Count, Field(ge=1, description="how often a held request is passed over at most")
    ] = 1000
    hold_age_max_s: Annotated[
        Seconds, Field(gt=0, description="age from which on a held request gets the next room it can use")
    ] = 60.0
    class_rule: Annotated[
        Literal["weighted", "strict"],
        Field(description="classes share by weight, or the most urgent is served first"),
    ] = "weighted"
    class_weight_high: Annotated[Count, Field(ge=1, description="share of urgent requests, in tokens")] = 8
    class_weight_normal: Annotated[
        Count, Field(ge=1, description="share of requests that say nothing, in tokens")
    ] = 4
    class_weight_low: Annotated[
        Count, Field(ge=1, description="share of requests that can wait, in tokens")
    ] = 1
    class_age_s: Annotated[
        Seconds, Field(ge=0, description="wait after which a request counts one class higher; 0: never")
    ] = 5.0
    class_from_body: Annotated[
        bool,
        Field(
            description="any body's priority or service_tier may raise its class; trusted_proxies' always do"
        ),
    ] = False
    match_threshold: Annotated[
        float,
        Field(ge=0, le=1, description="share of a prompt that must match before the owner is preferred"),
    ] = 0.5
    block_bytes: Annotated[Count, Field(ge=16, le=4096, description="prompt bytes per hashed block")] = 64
    prompt_blocks_max: Annotated[Count, Field(ge=1, description="blocks hashed per prompt at most")] = 32_768
    tree_bytes_max: Annotated[Bytes, Field(ge=1 << 20, description="memory of the prefix tree")] = 256 << 20
    replica_kv_tokens: Annotated[
        Count, Field(ge=1, description="KV capacity assumed until a replica tells its own")
    ] = 1_000_000
    bytes_per_token: Annotated[float, Field(gt=0, description="ratio assumed until learned from usage")] = 4.0
    output_tokens: Annotated[Count, Field(ge=1, description="answer length assumed until learned")] = 256
    probe_interval_s: Annotated[
        Seconds, Field(gt=0, description="time between probes while the gate decides")
    ] = 0.1
    probe_idle_interval_s: Annotated[
        Seconds, Field(gt=0, description="time between probes while it does not")
    ] = 1.0
    probe_stale_s: Annotated[
        Seconds, Field(gt=0, description="age at which a snapshot no longer counts: the replica is blind")
    ] = 3.0
    wedged_s: Annotated[
        Seconds,
        Field(gt=0, description="a replica with requests is out after so long without a sign of life"),
    ] = 10.0
    attempts_max: Annotated[Count, Field(ge=1, le=5, description="replicas tried per request")] = 2
    retry_ratio: Annotated[float, Field(ge=0, le=1, description="retries allowed as a share of requests")] = (
        0.2
    )
    retry_per_s: Annotated[float, Field(ge=0, description="retries always allowed per second")] = 10.0
    eject_failures: Annotated[Count, Field(ge=1, description="consecutive failures that eject a replica")] = 5
    eject_s: Annotated[Seconds, Field(gt=0, description="first ejection; doubles while it keeps failing")] = (
        1.0
    )
    eject_max_s: Annotated[Seconds, Field(gt=0, description="longest ejection")] = 30.0
    eject_ratio_max: Annotated[
        float, Field(ge=0, le=1, description="share of a pool that may be ejected")
    ] = 0.5
    ramp_s: Annotated[Seconds, Field(ge=0, description="linear ramp of a replica that came back")] = 10.0
    retry_after_s: Annotated[Count, Field(ge=1, description="Retry-After of refusals")] = 1
    ring_vnodes: Annotated[Count, Field(ge=1, le=4096, description="virtual nodes per replica")] = 256
    ring_load_factor: Annotated[
        float, Field(gt=1, description="bounded_ring: load over the mean at which the walk goes on")
    ] = 1.25
    cache_aware_threshold: Annotated[
        float, Field(ge=0, le=1, description="cache_aware: match share that binds")
    ] = 0.3
    cache_aware_abs: Annotated[Count, Field(ge=0, description="cache_aware: load difference that spills")] = (
        64
    )
    cache_aware_rel: Annotated[float, Field(ge=1, description="cache_aware: load ratio that spills")] = 1.5
    response_ids_max: Annotated[Count, Field(ge=1, description="ids of /v1/responses remembered")] = 65_536
    sessions_max: Annotated[
        Count,
        Field(ge=1, description="session keys whose last replica and answer length are remembered"),
    ] = 65_536
    affinity_wait_s: Annotated[
        Seconds,
        Field(ge=0, description="longest wait for a full replica while another has room"),
    ] = 0.5
    prefill_tokens_per_s: Annotated[
        float,
        Field(ge=1, le=1e9, description="speed of an engine on prompts assumed until learned"),
    ] = 10_000.0
    ttft_base_s: Annotated[
        Seconds,
        Field(ge=0, description="time to first token of a cached prompt assumed until learned"),
    ] = 0.02
    decode_tokens_per_s: Annotated[
        float, Field(ge=1e-3, le=1e9, description="speed of one answer assumed until learned")
    ] = 30.0
    explore_ratio: Annotated[
        float, Field(ge=0, le=1, description="predictive: share of choices drawn to learn speeds")
    ] = 0.01
    session_gain_s: Annotated[
        Seconds, Field(ge=0, description="predictive: a session moves for a gain of more than this")
    ] = 0.02
    session_gain_ratio: Annotated[
        float, Field(ge=0, le=1, description="predictive: and of more than this share")
    ] = 0.15
    imposed_weight: Annotated[
        float,
        Field(ge=0, le=1e6, description="predictive: weight of delaying others and of evicting their cache"),
    ] = 0.05
    queue_weight: Annotated[
        float,
        Field(ge=0, le=1e6, description="predictive: weight of prompts ahead, beyond the wait they are"),
    ] = 3.0
    peer_hold_max: Annotated[
        Count,
        Field(
            ge=0, le=1_000_000, description="requests held for a model at which a peer gets no more of them"
        ),
    ] = 10
    dynamo_prefill_weight: Annotated[
        float, Field(ge=0, le=1e6, description="dynamo: weight of prompt tokens against active ones")
    ] = 1.0
    llm_d_prefix_weight: Annotated[
        float, Field(ge=0, le=1e6, description="llm_d: weight of the prefix scorer")
    ] = 3.0
    llm_d_queue_weight: Annotated[
        float, Field(ge=0, le=1e6, description="llm_d: weight of the queue scorer")
    ] = 2.0
    llm_d_kv_weight: Annotated[float, Field(ge=0, le=1e6, description="llm_d: weight of the KV scorer")] = 2.0
    smg_waiting_max: Annotated[
        Count, Field(ge=1, description="smg: waiting requests at which a replica is overloaded")
    ] = 8
    smg_kv_ratio_max: Annotated[
        float, Field(ge=0, le=1, description="smg: share of the KV cache at which it is")
    ] = 0.8
    preble_window_s: Annotated[Seconds, Field(gt=0, description="preble: time over which load is summed")] = (
        180.0
    )
    preble_balance_ratio: Annotated[
        float, Field(ge=1, description="preble: load over the least at which affinity yields")
    ] = 2.0
    gorgo_token_s: Annotated[Seconds, Field(ge=0, description="gorgo: time per prompt token")] = 0.000_094


class Settings(Group):
    """Everything ``skylb serve`` can be told."""

    listen: Annotated[
        tuple[Listen, ...], LISTEN, Field(min_length=1, max_length=64, description="where clients connect")
    ] = (ListenAddress("127.0.0.1", 8080),)
    admin: Annotated[
        Listen, LISTEN, Field(description="health, metrics, state and verbs; keep it off the public network")
    ] = ListenAddress("127.0.0.1", 8081)
    admin_token_file: Annotated[
        File | None,
        FILE,
        Field(description="bearer token for verbs and /state; without it they answer on loopback only"),
    ] = None
    replica: Annotated[
        tuple[Url, ...],
        URL,
        Field(max_length=4096, description="a replica; names are resolved again and again"),
    ] = ()
    replicas_file: Annotated[
        File | None, FILE, Field(description="replicas, one URL a line; read again when it changes")
    ] = None
    replicas_dns: Annotated[
        tuple[Url, ...],
        URL,
        Field(max_length=64, description="a URL whose name stands for one replica per address"),
    ] = ()
    replica_key_file: Annotated[
        File | None, FILE, Field(description="key sent to replicas instead of the client's Authorization")
    ] = None
    replica_ca: Annotated[
        File | None,
        FILE,
        Field(description="certificates that https replicas are verified with, else the system's"),
    ] = None
    tls_cert: Annotated[
        File | None, FILE, Field(description="certificate chain of the client listeners (PEM)")
    ] = None
    tls_key: Annotated[File | None, FILE, Field(description="its private key (PEM)")] = None
    tls_client_ca: Annotated[
        File | None, FILE, Field(description="clients must show a certificate signed by one of these (PEM)")
    ] = None
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Expected("an IP address or network (10.0.0.0/8)"),
        Field(max_length=1024, description="clients whose X-Forwarded-For and -Proto are believed"),
    ] = ()
    cors_origin: Annotated[
        str | None,
        Expected("* or scheme://host[:port]"),
        Field(
            pattern=r"^(\*|https?://[A-Za-z0-9.:\[\]-]+)$", description="origin that may call from a browser"
        ),
    ] = None
    key_header: Annotated[
        str | None,
        Expected("the name of a header"),
        Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="header whose value is the ring's key"),
    ] = None
    inject_usage: Annotated[
        bool,
        Field(description="ask for a stream's usage where the client does not, and take it out again"),
    ] = False
    class_header: Annotated[
        str | None,
        Expected("the name of a header"),
        Field(
            pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
            description="header of trusted_proxies that names a class: high, normal, low, or a priority",
        ),
    ] = None
    body_bytes_max: Annotated[Bytes, Field(ge=1, description="one request body")] = 64 << 20
    buffer_bytes_max: Annotated[Bytes, Field(ge=1, description="all request bodies in memory together")] = (
        1 << 30
    )
    connections_max: Annotated[
        Count, Field(ge=1, description="client connections at once; fewer where descriptors are short")
    ] = 16_384
    upstream_idle_max: Annotated[Count, Field(ge=0, description="idle connections kept per replica")] = 256
    drain_delay_s: Annotated[
        Seconds,
        Field(
            ge=0,
            description="time after SIGTERM for which /ready says 503 and new connections are still taken; "
            "a second signal ends it",
        ),
    ] = 0.0
    drain_timeout_s: Annotated[
        Seconds, Field(ge=0, description="time for requests under way after SIGTERM; a second signal ends it")
    ] = 30.0
    seed: Annotated[
        int | None,
        Expected("an integer from 0 to 18446744073709551615"),
        Field(ge=0, lt=1 << 64, description="seed of the engine's random choices, else drawn at start"),
    ] = None
    log_level: Annotated[LogLevel, Field(description="least severe message that is logged")] = "info"
    log_format: Annotated[
        Literal["text", "json"], Field(description="form of messages and of the access log")
    ] = "text"
    access_log: Annotated[
        str,
        Expected("stderr, off, or the path of a file"),
        Field(min_length=1, description="where the line per request goes: stderr, off, or a file"),
    ] = "stderr"
    mesh: MeshSettings = MeshSettings()
    dns: DnsSettings = DnsSettings()
    timeout: TimeoutSettings = TimeoutSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    engine: EngineSettings = EngineSettings()

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        yield from self._listener_conflicts()
        yield from self._fleet_conflicts()
        yield from self.mesh.conflicts()
        yield from self.dns.conflicts()
        for low, high in ORDERED:
            low_value, high_value = _by_name(self, low), _by_name(self, high)
            if low_value is not None and high_value is not None and low_value > high_value:
                yield (
                    {low, high},
                    f"{low} is {low_value} and {high} is {high_value}: expected {low} <= {high}",
                )

    def _listener_conflicts(self) -> Iterator[tuple[set[str], str]]:
        for index, address in enumerate(self.listen):
            if any(address.collides(other) for other in self.listen[:index]):
                yield (
                    {"listen"},
                    f"listen: {address} is given twice, or within another: expected distinct addresses",
                )
        taken = [("listen", address) for address in self.listen]
        for name, own in (
            ("admin", self.admin),
            ("peer_listen", self.mesh.peer_listen),
            ("sync_listen", self.mesh.sync_listen),
        ):
            if own is not None:
                for other, address in taken:
                    if address.collides(own):
                        yield {other, name}, f"{name}: {own} is also in {other}: expected another address"
                taken.append((name, own))
        if (self.tls_cert is None) != (self.tls_key is None):
            one, other = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            yield {"tls_cert", "tls_key"}, f"{one} is given without {other}: expected both or neither"
        if self.tls_client_ca is not None and self.tls_cert is None:
            yield {"tls_client_ca", "tls_cert"}, "tls_client_ca is given without tls_cert: expected both"

    def _fleet_conflicts(self) -> Iterator[tuple[set[str], str]]:
        sources = {"replica", "replicas_file", "replicas_dns"}
        if not self.replica and self.replicas_file is None and not self.replicas_dns:
            yield sources, "no replicas: expected --replica URL, --replicas-file FILE or --replicas-dns URL"
        for index, url in enumerate(self.replica):
            if url in self.replica[:index]:
                yield {"replica"}, f"replica: {url} is given twice: expected distinct replicas"
            if any(_is_at(url, address) for address in (*self.listen, self.admin)):
                yield (
                    {"replica", "listen", "admin"},
                    f"replica: {url} is SkyLB itself: expected a replica's address",
                )


def _is_at(url: ReplicaUrl, address: ListenAddress) -> bool:
    if url.scheme == "unix" or address.unix:
        return url.scheme == "unix" and address.unix and url.host == address.host
    here = url.host == address.host or (address.is_wildcard and url.host in {"127.0.0.1", "::1", "localhost"})
    return here and url.port == address.port


def _by_name(settings: Settings, name: str) -> float | None:
    group, _, field = name.rpartition(".")
    value: float | None = getattr(getattr(settings, group) if group else settings, field)
    return value


ORDERED = (
    ("body_bytes_max", "buffer_bytes_max"),
    ("engine.probe_interval_s", "engine.probe_idle_interval_s"),
    ("engine.probe_idle_interval_s", "engine.probe_stale_s"),
    ("engine.eject_s", "engine.eject_max_s"),
    ("engine.hold_tenant_bytes_max", "engine.hold_bytes_max"),
)
"""Pairs of options of which the first may not exceed the second."""

TOP_LEVEL = frozenset(
    {("engine", "policy"), ("engine", "hold_timeout_s"), ("engine", "hold_len_max")}
    | {("mesh", name) for name in MeshSettings.model_fields}
)
"""Settings of a group that are written without the group's name, because everybody needs them."""
