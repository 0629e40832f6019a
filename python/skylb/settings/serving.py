"""Settings of the engine that hold under every policy: pushing, the hold, prompts, probes and failures."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from skylb._core import policies
from skylb.settings.sections import COMMON
from skylb.settings.values import EXPERIMENTAL, Bytes, Count, Expected, Group, Otherwise, Seconds

if TYPE_CHECKING:
    Policy = str
else:
    Policy = Literal[tuple(name for name, *_ in policies())]
"""The word for a policy; the core's table has them all."""


class ServingSettings(Group):
    """Pushing, the hold, prompts, probes and failures. `EngineSettings` adds what policies go by."""

    policy: Annotated[
        Policy,
        COMMON,
        Field(description="Rule that chooses a replica for each request; docs/ALGORITHM.md describes them."),
    ] = "predictive"
    shadow_policy: Annotated[
        Policy | None,
        Field(
            description="Second policy, which is asked about each request and has no effect. Metrics count "
            "how often it chooses another replica, and how much sooner or later the first token is predicted "
            "there. Set it to compare a policy on your own traffic."
        ),
    ] = None
    push: Annotated[
        Literal["blind", "outstanding", "pending"],
        EXPERIMENTAL,
        Field(
            description="When a request may go to a replica: at once (blind), below "
            "--engine-outstanding-max (outstanding), or while little is pending there (pending). Use the "
            "first two for comparison."
        ),
    ] = "pending"
    outstanding_max: Annotated[
        Count,
        EXPERIMENTAL,
        Field(
            ge=1,
            description="Maximum number of requests in flight at one replica, under "
            "--engine-push=outstanding.",
        ),
    ] = 32
    allowance: Annotated[
        Literal["one", "probed", "knee"],
        EXPERIMENTAL,
        Field(
            description="How many requests may be pending at one replica. one: always one, "
            "counting pushes since the probe. probed: any number while the last probe found nothing waiting, "
            "as in the paper. knee: as many as are missing to the number that it was seen to run at once."
        ),
    ] = "knee"
    ahead_steps: Annotated[
        Count,
        Field(
            ge=0,
            description="Steps that the prompts pending at a replica may take while no request waits for a "
            "slot there (allowance = knee). Larger values fill the steps of engines that compute short "
            "prompts. 0: the batch grows by a sixteenth of what it was seen to run.",
        ),
    ] = 8
    blind_outstanding_max: Annotated[
        Count,
        Field(
            ge=1,
            description="Maximum number of requests in flight at a replica whose metrics cannot be read. "
            "Set it to the batch size of engines without metrics.",
        ),
    ] = 16
    in_flight_max: Annotated[
        Count,
        Field(ge=1, description="Maximum number of requests in flight at one replica, under every policy."),
    ] = 1024
    hold_timeout_s: Annotated[
        Seconds,
        COMMON,
        Field(
            gt=0,
            description="Longest time that a request waits in the hold, SkyLB's own queue. Then it gets "
            "503 with Retry-After.",
        ),
    ] = 30.0
    hold_len_max: Annotated[
        Count,
        COMMON,
        Field(
            ge=0,
            description="Maximum number of requests in the hold, SkyLB's own queue. A further one gets 503 "
            "with Retry-After.",
        ),
    ] = 10_000
    hold_bytes_max: Annotated[
        Bytes,
        Field(
            ge=1,
            description="Memory for the bodies of held requests. A body that does not fit gets 503 with "
            "Retry-After.",
        ),
    ] = 1 << 30
    hold_tenant_len_max: Annotated[
        Count | None,
        Otherwise("a quarter of --hold-len-max"),
        Field(
            ge=1,
            description="Maximum number of held requests of one tenant, or of one credential without a "
            "tenant. A further one gets 429.",
        ),
    ] = None
    hold_tenant_bytes_max: Annotated[
        Bytes | None,
        Otherwise("a quarter of --engine-hold-bytes-max"),
        Expected("bytes: an integer, or one followed by KiB, MiB or GiB"),
        Field(
            ge=1,
            description="Memory for the held bodies of one tenant, or of one credential without a tenant. "
            "A further body gets 429.",
        ),
    ] = None
    hold_work_weight: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1e6,
            description="predictive: seconds that a held request moves back in the queue per second of "
            "its uncached prompt. Larger values favour short and cached prompts; 0 is first "
            "come, first served.",
        ),
    ] = 100.0
    hold_passes_max: Annotated[
        Count,
        Field(
            ge=1,
            description="How often younger requests may overtake a held one. Then it gets the next room "
            "that it can use. Smaller values favour long prompts.",
        ),
    ] = 1000
    hold_age_max_s: Annotated[
        Seconds | None,
        Otherwise("four fifths of --hold-timeout-s"),
        Field(
            gt=0,
            description="Age from which a held request gets the next room that it can use. Larger values "
            "favour short prompts; from --hold-timeout-s on, long ones are refused under overload.",
        ),
    ] = None
    shed_ratio_max: Annotated[
        float,
        EXPERIMENTAL,
        Field(
            ge=0,
            le=1,
            description="Largest share of new requests that SkyLB refuses at once while overload lasts, "
            "drawn whatever their length. 0 holds all, so that the longest prompts are refused.",
        ),
    ] = 0.9
    class_rule: Annotated[
        Literal["weighted", "strict"],
        Field(
            description="How classes share the replicas. weighted: in proportion to their weights. strict: "
            "the most urgent class first."
        ),
    ] = "weighted"
    class_weight_high: Annotated[
        Count,
        Field(
            ge=1,
            description="Weight of urgent requests. Waiting classes share the tokens in proportion to "
            "their weights.",
        ),
    ] = 8
    class_weight_normal: Annotated[
        Count,
        Field(
            ge=1,
            description="Weight of requests without a class. Waiting classes share the tokens in "
            "proportion to their weights.",
        ),
    ] = 4
    class_weight_low: Annotated[
        Count,
        Field(
            ge=1,
            description="Weight of requests that can wait. Waiting classes share the tokens in proportion "
            "to their weights.",
        ),
    ] = 1
    class_age_s: Annotated[
        Seconds,
        Field(
            ge=0, description="Wait after which a held request counts as one class higher. 0 never raises it."
        ),
    ] = 5.0
    tenant_rule: Annotated[
        Literal["fair", "none"],
        Field(
            description="How waiting tenants of one class share the replicas. fair: in proportion to their "
            "weights, in tokens. none: the oldest request of all goes first."
        ),
    ] = "fair"
    tenant_quantum_tokens: Annotated[
        Count,
        Field(
            ge=0,
            description="Tokens that one waiting tenant may be ahead of another while caches decide which of "
            "them is served. Larger values favour caches, smaller ones even shares.",
        ),
    ] = 4_000
    tenant_headroom_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of each replica's KV cache and batch that a tenant leaves free while it asks "
            "for more than twice as much as others. Larger values shorten the others' waits under a flood, "
            "at the cost of throughput. 0 leaves nothing free.",
        ),
    ] = 0.3
    class_from_body: Annotated[
        bool,
        Field(
            description="Let priority or service_tier in anybody's request body raise its class. Bodies "
            "from --trusted-proxies always can. Turn it on only if you trust all clients."
        ),
    ] = False
    match_threshold: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Policy prefix: share of a prompt that must be cached at a replica for the cache to "
            "decide. Smaller values favour caches over even load.",
        ),
    ] = 0.5
    block_bytes: Annotated[
        Count,
        EXPERIMENTAL,
        Field(
            ge=16,
            le=4096,
            description="Prompt bytes per hashed block. Smaller blocks match more exactly and cost memory "
            "and time.",
        ),
    ] = 64
    prompt_blocks_max: Annotated[
        Count,
        Field(
            ge=1,
            description="Maximum number of blocks that SkyLB hashes of one prompt. The rest of a longer "
            "prompt matches no cache.",
        ),
    ] = 32_768
    tree_bytes_max: Annotated[
        Bytes,
        Field(
            ge=1 << 20,
            description="Memory of the prefix tree. A larger tree remembers more of what replicas cache.",
        ),
    ] = 256 << 20
    replica_kv_tokens: Annotated[
        Count,
        Field(
            ge=1,
            description="KV cache of a replica in tokens, assumed until the replica reports its own. Set "
            "it for engines that report none.",
        ),
    ] = 1_000_000
    bytes_per_token: Annotated[
        float,
        EXPERIMENTAL,
        Field(gt=0, description="Prompt bytes per token, assumed until SkyLB learns them from usage."),
    ] = 4.0
    output_tokens: Annotated[
        Count, EXPERIMENTAL, Field(ge=1, description="Tokens of an answer, assumed until SkyLB learns them.")
    ] = 256
    probe_interval_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time between two probes of a replica while its load decides where requests go. "
            "A shorter one takes more of the engine's CPU time.",
        ),
    ] = 0.1
    probe_idle_interval_s: Annotated[
        Seconds,
        Field(gt=0, description="Time between two probes of a replica while nothing depends on its load."),
    ] = 1.0
    probe_stale_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Age from which a replica's measured load no longer counts. Then "
            "--engine-blind-outstanding-max limits the replica.",
        ),
    ] = 3.0
    wedged_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="If a replica has requests, its page stands still, and no token comes from it for "
            "this time, it gets no more requests. Raise it where one engine step takes longer.",
        ),
    ] = 3.0
    attempts_max: Annotated[
        Count,
        Field(ge=1, le=5, description="Maximum number of attempts per request, over all replicas and peers."),
    ] = 2
    retry_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Retries allowed as a share of requests, on top of --engine-retry-per-s. Larger "
            "values hide more failures and add more load to a failing fleet.",
        ),
    ] = 0.2
    retry_per_s: Annotated[float, Field(ge=0, description="Retries per second that are always allowed.")] = (
        10.0
    )
    eject_failures: Annotated[
        Count, Field(ge=1, description="Consecutive failures after which SkyLB ejects a replica.")
    ] = 5
    eject_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Length of a replica's first ejection. It doubles while the replica keeps failing.",
        ),
    ] = 1.0
    eject_max_s: Annotated[Seconds, Field(gt=0, description="Longest ejection of a replica.")] = 30.0
    eject_ratio_max: Annotated[
        float, Field(ge=0, le=1, description="Largest share of all replicas that SkyLB ejects at once.")
    ] = 0.5
    ramp_s: Annotated[
        Seconds,
        Field(
            ge=0,
            description="Time in which a replica that came back, or joined others, reaches its full "
            "share. Raise it where cold caches make replicas slow.",
        ),
    ] = 10.0
    unknown_models: Annotated[
        Literal["refuse", "pass"],
        Field(
            description="What happens to a request for a model in no replica's list: it gets 404 "
            "(refuse), or goes to a replica (pass)."
        ),
    ] = "refuse"
    model_gone_s: Annotated[
        Seconds,
        Field(ge=0, description="Time for which a model that left every list gets 503 instead of 404."),
    ] = 60.0
    retry_after_s: Annotated[
        Count, Field(ge=1, description="Value of the Retry-After header of refusals.")
    ] = 1
