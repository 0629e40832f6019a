"""Every setting, written once: default, bounds, description.

Flags, environment names, the TOML file, ``skylb config show`` and the table in the README derive
from these models. The environment is read here and nowhere else.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Policy = Literal[
    "prefix", "ring", "round_robin", "least_load", "two_choices", "bounded_ring", "cache_aware"
]


class EngineSettings(BaseModel):
    """Constants of the decision engine; handed to Rust as JSON, all fields required there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Annotated[Policy, Field(description="how a replica is chosen")] = "prefix"
    push: Annotated[
        Literal["blind", "outstanding", "pending"],
        Field(description="when a request may be pushed: at once, below outstanding_max, or selectively"),
    ] = "pending"
    outstanding_max: Annotated[int, Field(ge=1, description="requests in flight per replica under push=outstanding")] = 32
    allowance: Annotated[
        Literal["one", "knee"],
        Field(description="pending requests allowed per replica: always one (the paper), or learned"),
    ] = "knee"
    blind_outstanding_max: Annotated[int, Field(ge=1, description="requests in flight on a replica whose metrics cannot be read")] = 16
    in_flight_max: Annotated[int, Field(ge=1, description="hard cap of requests in flight per replica")] = 1024
    hold_timeout_s: Annotated[float, Field(gt=0, description="longest wait in the hold")] = 30.0
    hold_len_max: Annotated[int, Field(ge=0, description="requests held at most")] = 10_000
    hold_window: Annotated[int, Field(ge=1, description="oldest held requests that are matched with room; 1 is strict FCFS")] = 1
    match_threshold: Annotated[float, Field(ge=0, le=1, description="share of a prompt that must match before the owner is preferred")] = 0.5
    block_bytes: Annotated[int, Field(ge=16, le=4096, description="prompt bytes per hashed block")] = 64
    prompt_blocks_max: Annotated[int, Field(ge=1, description="blocks hashed per prompt at most")] = 32_768
    tree_bytes_max: Annotated[int, Field(ge=1 << 20, description="memory of the prefix tree")] = 256 << 20
    replica_kv_tokens: Annotated[int, Field(ge=1, description="KV capacity assumed until a replica tells its own")] = 1_000_000
    bytes_per_token: Annotated[float, Field(gt=0, description="ratio assumed until learned from usage")] = 4.0
    output_tokens: Annotated[int, Field(ge=1, description="answer length assumed until learned")] = 256
    probe_interval_s: Annotated[float, Field(gt=0, description="time between probes while the gate decides")] = 0.1
    probe_idle_interval_s: Annotated[float, Field(gt=0, description="time between probes while it does not")] = 1.0
    probe_stale_s: Annotated[float, Field(gt=0, description="age at which a snapshot no longer counts: the replica is blind")] = 3.0
    attempts_max: Annotated[int, Field(ge=1, le=5, description="replicas tried per request")] = 2
    retry_ratio: Annotated[float, Field(ge=0, le=1, description="retries allowed as a share of requests")] = 0.2
    retry_per_s: Annotated[float, Field(ge=0, description="retries always allowed per second")] = 10.0
    eject_failures: Annotated[int, Field(ge=1, description="consecutive failures that eject a replica")] = 5
    eject_s: Annotated[float, Field(gt=0, description="first ejection; doubles while it keeps failing")] = 1.0
    eject_max_s: Annotated[float, Field(gt=0, description="longest ejection")] = 30.0
    eject_ratio_max: Annotated[float, Field(ge=0, le=1, description="share of a pool that may be ejected")] = 0.5
    ramp_s: Annotated[float, Field(ge=0, description="linear ramp of a replica that came back")] = 10.0
    retry_after_s: Annotated[int, Field(ge=1, description="Retry-After of refusals")] = 1
    ring_vnodes: Annotated[int, Field(ge=1, le=4096, description="virtual nodes per replica")] = 256
    ring_load_factor: Annotated[float, Field(gt=1, description="bounded_ring: load over the mean at which the walk goes on")] = 1.25
    cache_aware_threshold: Annotated[float, Field(ge=0, le=1, description="cache_aware: match share that binds")] = 0.3
    cache_aware_abs: Annotated[int, Field(ge=0, description="cache_aware: load difference that spills")] = 64
    cache_aware_rel: Annotated[float, Field(ge=1, description="cache_aware: load ratio that spills")] = 1.5
    response_ids_max: Annotated[int, Field(ge=1, description="ids of /v1/responses remembered")] = 65_536
