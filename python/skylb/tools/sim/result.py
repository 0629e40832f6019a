"""What came out of a run, as plain structs; ``rust/src/sim/result.rs`` documents every field.

Durations are in seconds, quantiles to half a percent; ``None`` where there was nothing to measure.
Fields that this version does not know are ignored.
"""

import msgspec


class Distribution(msgspec.Struct, frozen=True):
    """Durations; ``histogram`` has ``(upper bound, count)`` of every bucket that has any, ascending."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None
    histogram: list[tuple[float, int]] = []


class Fairness(msgspec.Struct, frozen=True):
    """What tenants of a class were served against each other while both waited: tokens over weight."""

    gap_tokens: float
    request_tokens: float
    error_tokens: float
    bound_tokens: float


class Prediction(msgspec.Struct, frozen=True):
    """Times from push to first byte, predicted and real; ``error`` is a share of the real time."""

    predicted_s: Distribution = Distribution()
    real_s: Distribution = Distribution()
    error: Distribution = Distribution()


class Section(msgspec.Struct, frozen=True):
    """Figures of the requests of one region, or of all."""

    requests: int
    completed: int
    failed: dict[str, int]
    lost: int
    unfinished: int
    retries: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    hit_rate: float | None
    throughput_tokens_per_s: float
    output_tokens_per_s: float
    requests_per_s: float
    ttft_s: Distribution
    e2e_s: Distribution
    inter_token_s: Distribution
    hold_s: Distribution
    prediction: Prediction = Prediction()

    @property
    def failures(self) -> int:
        """Failed requests of all kinds."""
        return sum(self.failed.values())


class Spread(msgspec.Struct, frozen=True):
    """Outstanding requests of the most loaded replica over those of the least loaded."""

    mean: float | None = None
    p90: float | None = None
    max: float | None = None
    of_means: float | None = None


class Series(msgspec.Struct, frozen=True):
    """One value per second of virtual time in each column."""

    in_flight: list[int]
    held: list[int]
    running: list[int]
    waiting: list[int]
    input_tokens: list[int]
    output_tokens: list[int]
    cached_tokens: list[int]
    failed: list[int]


class Replica(msgspec.Struct, frozen=True):
    """One replica's totals since the start."""

    region: str
    requests: int
    cache_queries: int
    cache_hits: int
    prefill_tokens: int
    output_tokens: int
    preemptions: int
    steps: int
    outstanding_mean: float
    waiting_mean: float


class Balancer(msgspec.Struct, frozen=True):
    """One balancer: the engine's counters, probes sent, most requests held at once."""

    region: str
    counters: dict[str, int]
    probes: int
    hold_peak: int


class Forwards(msgspec.Struct, frozen=True):
    """What went between balancers since the start; ``over_room``: held or refused on arrival."""

    sent: int
    arrived: int
    refused: int
    over_room: int
    forged: int
    summaries: int
    summary_bytes: int
    summary_bytes_per_s_max: float
    flips: int
    flips_per_10s_max: float
    digests: int = 0
    digest_bytes: int = 0
    digest_bytes_per_s_max: float = 0.0


class Shares(msgspec.Struct, frozen=True):
    """What balancers of one region told each other of its replicas: messages, their bytes, and the rate.

    ``cached_bytes`` are those of messages about prompts.
    """

    messages: int
    bytes: int
    bytes_per_s_max: float
    cached_bytes: int


class Records(msgspec.Struct, frozen=True):
    """Requests one by one, a column a field; with ``records`` in the scenario only."""

    id: list[int]
    sent_s: list[float]
    hold_s: list[float]
    ttft_s: list[float | None]
    e2e_s: list[float]
    replica: list[int | None]
    cached_tokens: list[int]
    attempts: list[int]
    outcome: list[str]
    predicted_s: list[float | None] = []


class Result(msgspec.Struct, frozen=True):
    """A run's result, whole (``done``) or as far as it came."""

    schema: int
    seed: int
    topology: str
    policy: str
    now_s: float
    done: bool
    measured_s: float
    events: int
    total: Section
    regions: dict[str, Section]
    load_spread: Spread
    series: Series
    replicas: list[Replica]
    balancers: list[Balancer]
    records: Records | None = None
    region_load_spread: dict[str, Spread] = {}
    region_series: dict[str, Series] = {}
    forwards: Forwards | None = None
    shares: Shares | None = None
    tenants: dict[str, Section] = {}
    classes: dict[str, Section] = {}
    fairness: Fairness | None = None

    def parts(self) -> list[tuple[str, dict[str, Section]]]:
        """What requests are told apart by, where they are: region, tenant, class."""
        regions = self.regions if len(self.regions) > 1 else {}
        parts = [("region", regions), ("tenant", self.tenants), ("class", self.classes)]
        return [(title, sections) for title, sections in parts if sections]


def decode(data: bytes) -> Result:
    """A result from the simulator's JSON."""
    return msgspec.json.decode(data, type=Result)
