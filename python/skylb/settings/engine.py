"""Settings of the decision engine."""

from typing import Annotated, Literal

from pydantic import Field

from skylb.settings.values import Bytes, Count, Expected, Group, Seconds

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
    ramp_s: Annotated[
        Seconds, Field(ge=0, description="linear ramp of a replica that came back, or joins others")
    ] = 10.0
    unknown_models: Annotated[
        Literal["refuse", "pass"],
        Field(description="a model in no replica's list gets a 404, or goes to a replica as any other"),
    ] = "refuse"
    model_gone_s: Annotated[
        Seconds, Field(ge=0, description="time that a model which left every list gets a 503, not a 404")
    ] = 60.0
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
