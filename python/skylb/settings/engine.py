"""Settings of the engine: what single policies go by, behind those of all."""

from typing import Annotated, Literal

from pydantic import Field

from skylb.settings.serving import ServingSettings
from skylb.settings.values import EXPERIMENTAL, Count, Seconds


class EngineSettings(ServingSettings):
    """Constants of the decision engine; handed to Rust as JSON, all fields required there."""

    ring_vnodes: Annotated[
        Count,
        EXPERIMENTAL,
        Field(
            ge=1,
            le=4096,
            description="ring, bounded_ring: points of a replica on the ring. More points spread keys "
            "more evenly.",
        ),
    ] = 256
    ring_load_factor: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            gt=1,
            description="bounded_ring: load relative to the mean from which a request goes on to the next "
            "replica.",
        ),
    ] = 1.25
    cache_aware_fallback: Annotated[
        Literal["least_load", "smallest_tree"],
        EXPERIMENTAL,
        Field(
            description="cache_aware, smg: what decides where too little of a prompt is cached: the fewest "
            "requests in flight (least_load), or the fewest blocks cached (smallest_tree)."
        ),
    ] = "least_load"
    cache_aware_threshold: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1,
            description="Policy cache_aware: share of a prompt that must be cached at a replica for the "
            "cache to decide.",
        ),
    ] = 0.3
    cache_aware_abs: Annotated[
        Count,
        EXPERIMENTAL,
        Field(
            ge=0,
            description="cache_aware: difference of loads, in requests, above which load decides. "
            "--engine-cache-aware-rel must be exceeded too.",
        ),
    ] = 64
    cache_aware_rel: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=1,
            description="cache_aware: ratio of loads above which load decides. --engine-cache-aware-abs must "
            "be exceeded too.",
        ),
    ] = 1.5
    response_ids_max: Annotated[
        Count,
        Field(
            ge=1,
            description="Maximum number of IDs of stored responses (/v1/responses) that SkyLB remembers.",
        ),
    ] = 65_536
    sessions_max: Annotated[
        Count,
        Field(
            ge=1,
            description="Maximum number of sessions whose last replica and answer length SkyLB remembers.",
        ),
    ] = 65_536
    affinity_wait_s: Annotated[
        Seconds,
        Field(
            ge=0,
            description="Longest wait for the full replica that the policy prefers, while another has room. "
            "Larger values favour caches over short waits. 0 shows policies only replicas with room. "
            "Policies other than predictive wait for 0.5 s at most.",
        ),
    ] = 3.0
    prefill_tokens_per_s: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=1,
            le=1e9,
            description="Prompt tokens per second of an engine, assumed until SkyLB learns them.",
        ),
    ] = 10_000.0
    ttft_base_s: Annotated[
        Seconds,
        EXPERIMENTAL,
        Field(ge=0, description="Time to the first token of a cached prompt, assumed until SkyLB learns it."),
    ] = 0.02
    decode_tokens_per_s: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=1e-3,
            le=1e9,
            description="Output tokens per second of one answer, assumed until SkyLB learns them.",
        ),
    ] = 30.0
    explore_ratio: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1,
            description="predictive: share of choices drawn at random among nearly equal replicas, to "
            "learn their speeds.",
        ),
    ] = 0.01
    session_gain_s: Annotated[
        Seconds,
        EXPERIMENTAL,
        Field(
            ge=0,
            description="predictive: gain in time to first token above which a session changes its "
            "replica. --engine-session-gain-ratio must be exceeded too.",
        ),
    ] = 0.02
    session_gain_ratio: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1,
            description="predictive: gain as a share of the time to first token above which a session "
            "changes its replica. --engine-session-gain-s must be exceeded too.",
        ),
    ] = 0.15
    leave_gain_s: Annotated[
        Seconds,
        EXPERIMENTAL,
        Field(
            ge=0,
            description="predictive: gain in time to first token above which a request leaves its region "
            "although replicas here can serve it. --engine-leave-gain-ratio must be exceeded too.",
        ),
    ] = 0.4
    leave_gain_ratio: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1,
            description="predictive: gain as a share of the time to first token above which a request "
            "leaves its region. --engine-leave-gain-s must be exceeded too.",
        ),
    ] = 0.5
    delay_weight: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1e6,
            description="predictive: how much it counts that a prompt delays the streams that run at its "
            "replica. Larger values keep prompts where they are cached.",
        ),
    ] = 0.05
    evict_weight: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1e6,
            description="predictive: how much it counts that a prompt evicts cached blocks, which then have "
            "to be computed again. Larger values keep prompts where they are cached.",
        ),
    ] = 1.0
    queue_weight: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1e6,
            description="predictive: how much it counts that a prompt delays those queued at its replica. "
            "Larger values spread bursts more evenly.",
        ),
    ] = 2.0
    peer_hold_max: Annotated[
        Count,
        Field(
            ge=0,
            le=1_000_000,
            description="If a peer holds this many requests for a model, it gets no more forwards for that "
            "model. Larger values send more to busy peers.",
        ),
    ] = 10
    dynamo_prefill_weight: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0, le=1e6, description="dynamo: weight of prompt tokens to compute, relative to active tokens."
        ),
    ] = 1.0
    llm_d_prefix_weight: Annotated[
        float,
        EXPERIMENTAL,
        Field(ge=0, le=1e6, description="llm_d: weight of the share of a prompt that is cached."),
    ] = 3.0
    llm_d_queue_weight: Annotated[
        float, EXPERIMENTAL, Field(ge=0, le=1e6, description="llm_d: weight of a short queue.")
    ] = 2.0
    llm_d_kv_weight: Annotated[
        float, EXPERIMENTAL, Field(ge=0, le=1e6, description="llm_d: weight of free KV cache.")
    ] = 2.0
    smg_waiting_max: Annotated[
        Count,
        EXPERIMENTAL,
        Field(ge=1, description="smg: waiting requests from which a replica counts as overloaded."),
    ] = 8
    smg_kv_ratio_max: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0, le=1, description="smg: share of used KV cache from which a replica counts as overloaded."
        ),
    ] = 0.8
    preble_window_s: Annotated[
        Seconds, EXPERIMENTAL, Field(gt=0, description="preble: time over which a replica's load is summed.")
    ] = 180.0
    preble_balance_ratio: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=1,
            description="preble: load relative to the least loaded replica from which the cache no longer "
            "decides.",
        ),
    ] = 2.0
    dualmap_blocks: Annotated[
        Count,
        EXPERIMENTAL,
        Field(ge=1, description="dualmap: leading blocks of a prompt that are hashed to two replicas."),
    ] = 16
    dualmap_slo_s: Annotated[
        Seconds,
        EXPERIMENTAL,
        Field(
            ge=0,
            description="dualmap: predicted time to the first token above which load decides instead of the "
            "cache.",
        ),
    ] = 2.0
    gorgo_token_s: Annotated[
        Seconds, EXPERIMENTAL, Field(ge=0, description="gorgo: time that a prompt token is assumed to take.")
    ] = 0.000_094
