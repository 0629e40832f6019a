"""The metrics page: made when it is asked for, from what the core has counted.

Names, units and labels are a contract with dashboards. Every label has a bounded number of values. The bound
comes from the configuration (replicas), the `Recorder` (models, routes), or the code (outcomes, events).
"""

import asyncio
import platform
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from skylb import _core, shadow
from skylb._core import TENANT_OUTCOMES, TOKEN_KINDS, Recorder, ReplicaGauges

Cumulative = tuple[list[tuple[float, int]], float]
"""Buckets ``(upper bound, count)`` ending with ``inf``, and the sum."""

PROBE_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""From a loopback answer (1 ms) over a busy API server (vLLM takes 2.9 ms of its loop) to the time-out."""

STALL_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Around the promise of 10 ms (docs/PROMISES.md, R13)."""

SLICE_SAMPLES = 100
"""Lines of the page that are made at one go: about 1 ms."""

BUILD = {"version": _core.__version__, "python": platform.python_version()}

_EOF = b"# EOF\n"

EVENTS = frozenset(
    {
        "affinity_waits",
        "answers_not_found",
        "cache_corrected_blocks",
        "cache_corrections",
        "cache_misses",
        "cached_bytes",
        "cached_heard",
        "cached_left_out",
        "cached_refused",
        "cached_told",
        "cached_unplaced",
        "evacuation_stayed",
        "expired",
        "full",
        "hold_full",
        "hold_shed",
        "hold_tenant_full",
        "left_held",
        "left_on_notice",
        "model_looks",
        "model_refused",
        "models_ignored",
        "pages_heard",
        "rate_limited",
        "residency_refused",
        "restarts",
        "resumed",
        "retries",
        "retry_denied",
        "shares_refused",
        "summaries_refused",
        "tenants_merged",
        "tenants_refused",
        "wedged",
        "withdrawn",
    }
)
"""Counters of the engine that operators need; docs/OPERATIONS.md describes each."""

_PREFIX_COUNTERS = {"match_blocks": "match", "miss_blocks": "miss"}

_OF_CLASS = ("model", "class")

_CUT = "Answers to clients that had begun and were cut by a fault. Their status is that of their begin."

_DISTRIBUTIONS = {
    "ttft_seconds": "Accept to first body byte, of answers below 400.",
    "request_seconds": "Accept to completion, of requests for inference.",
    "hold_seconds": "Time in the hold, of requests that were held.",
    "inter_token_seconds": "Mean time between two tokens of a stream.",
    "inter_token_worst_seconds": "Longest time between two events of a stream.",
}


class Durations:
    """A histogram of durations with fixed buckets.

    Args:
        bounds_s: upper bounds in seconds, inclusive and ascending.
    """

    __slots__ = ("_bounds_ns", "_bounds_s", "_counts", "_sum_ns")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = tuple(bounds_s)
        self._bounds_ns = [round(bound_s * 1e9) for bound_s in bounds_s]
        self._counts = [0] * (len(self._bounds_ns) + 1)
        self._sum_ns = 0

    def observe(self, duration_ns: int) -> None:
        """Counts one duration."""
        self._counts[bisect_left(self._bounds_ns, duration_ns)] += 1
        self._sum_ns += duration_ns

    def cumulative(self) -> Cumulative:
        """``(upper bound, count)`` ending with ``inf``, and the sum, in seconds."""
        total = 0
        buckets = []
        for bound_s, count in zip((*self._bounds_s, float("inf")), self._counts, strict=True):
            total += count
            buckets.append((bound_s, total))
        return buckets, self._sum_ns / 1e9


class Probing:
    """What probes cost: their durations, our loop's time and bytes, and each replica's time.

    The time a replica takes to answer includes the network's: it bounds from above what its server's
    loop spends on us.
    """

    __slots__ = ("bytes_total", "durations", "own_ns", "replicas")

    def __init__(self) -> None:
        self.durations = Durations(PROBE_BOUNDS_S)
        self.own_ns = 0
        self.bytes_total = 0
        self.replicas: dict[str, tuple[int, int]] = {}
        """By replica: probes it answered, and the nanoseconds from sending them to their answers."""

    def answered(self, replica: str, *, duration_ns: int, own_ns: int, page_bytes: int) -> None:
        """A replica answered a probe with so many bytes of body, which we took ``own_ns`` to read."""
        self.durations.observe(duration_ns)
        self.own_ns += own_ns
        count, sum_ns = self.replicas.get(replica, (0, 0))
        self.replicas[replica] = (count + 1, sum_ns + duration_ns)
        self.bytes_total += page_bytes

    def retain(self, names: Collection[str]) -> None:
        """Forgets replicas that are not among these."""
        for gone in self.replicas.keys() - names:
            del self.replicas[gone]

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield _histogram(
            "skylb_probe_seconds", "Probes of replicas, the failed ones too.", self.durations.cumulative()
        )
        yield CounterMetricFamily(
            "skylb_probe_own_seconds", "Our loop's time on reading metrics pages.", value=self.own_ns / 1e9
        )
        yield CounterMetricFamily(
            "skylb_probe_bytes", "Bytes of metrics pages that replicas sent.", value=self.bytes_total
        )
        probes = CounterMetricFamily(
            "skylb_replica_probes", "Probes that a replica answered.", labels=("replica",)
        )
        seconds = CounterMetricFamily(
            "skylb_replica_probe_seconds", "Time to its answers to probes.", labels=("replica",)
        )
        for name, (count, sum_ns) in self.replicas.items():
            probes.add_metric((name,), count)
            seconds.add_metric((name,), sum_ns / 1e9)
        yield probes
        yield seconds


class LoopStall:
    """Measures how late the event loop runs a callback that was due.

    Args:
        durations: where the lateness is counted.
        interval_s: time for which the callback is scheduled anew each time.
    """

    __slots__ = ("_due_ns", "_durations", "_interval_ns")

    def __init__(self, durations: Durations, interval_s: float) -> None:
        self._durations = durations
        self._interval_ns = round(interval_s * 1e9)
        self._due_ns: int | None = None

    def beat(self, now_ns: int) -> None:
        """The callback runs; it will be scheduled again at once."""
        if self._due_ns is not None:
            self._durations.observe(max(0, now_ns - self._due_ns))
        self._due_ns = now_ns + self._interval_ns


class Figures(Protocol):
    """What is shown of the engine."""

    @property
    def policy(self) -> str:
        """The policy that chooses now."""

    @property
    def shadow_policy(self) -> str | None:
        """The policy that is asked about each choice, without effect."""

    @property
    def hold_requests(self) -> int:
        """Requests in the hold."""

    @property
    def hold_bytes(self) -> int:
        """Bytes of their bodies."""

    @property
    def tree_bytes(self) -> int:
        """Memory of the prefix tree."""

    def gauges(self) -> list[ReplicaGauges]:
        """Figures of each replica."""

    def wanted(self) -> list[tuple[str, float, int]]:
        """Replicas that the work at hand would fill, and those that are ready, by model."""

    def counters(self) -> dict[str, int]:
        """Monotonic counters by name."""

    def prefix_errors(self) -> Cumulative:
        """Predicted minus reported cached tokens."""

    def ttft_errors(self) -> Cumulative:
        """How far predicted times to the first body byte were off, as parts of the real ones."""


class Metrics:
    """Everything that ``/metrics`` shows.

    Args:
        recorder: requests, attempts and their distributions.
        engine: replicas, hold and tree.
        buffer_bytes: request bodies in memory, in bytes.
        log_dropped: log lines lost.
        all_counters: show every counter of the engine, not only `EVENTS`.
        more: families of other parts, asked at each scrape.
    """

    def __init__(
        self,
        *,
        recorder: Recorder,
        engine: Figures,
        buffer_bytes: Callable[[], int],
        log_dropped: Callable[[], int],
        all_counters: bool = False,
        more: Callable[[], Iterable[Metric]] = tuple,
    ) -> None:
        self._recorder = recorder
        self._engine = engine
        self._buffer_bytes = buffer_bytes
        self._log_dropped = log_dropped
        self._all_counters = all_counters
        self._more = more
        self.probing = Probing()
        self.loop_stall = Durations(STALL_BOUNDS_S)
        self._process_files = ProcessCollector(registry=CollectorRegistry(auto_describe=False))

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics where ``accept`` names it, else Prometheus text.

        With many replicas a page takes long: it is made in slices, and the loop runs in between.
        """
        is_openmetrics = "application/openmetrics-text" in accept
        page: list[bytes] = []
        # With many connections, /proc/self/fd is long.
        for family in await asyncio.to_thread(lambda: list(self._process_files.collect())):
            page += slices(family, is_openmetrics=is_openmetrics)
        for family in self.collect():
            for text in slices(family, is_openmetrics=is_openmetrics):
                page.append(text)
                await asyncio.sleep(0)
        if is_openmetrics:
            return b"".join([*page, _EOF]), openmetrics.CONTENT_TYPE_LATEST
        return b"".join(page), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """All families but those of the process."""
        yield InfoMetricFamily("skylb_build", "What is running.", value=BUILD)
        yield InfoMetricFamily(
            "skylb_policy", "The policy that places requests now.", value={"policy": self._engine.policy}
        )
        yield from self._requests()
        yield from self._process()
        yield from self._decisions()
        yield from _replicas(self._engine.gauges())
        yield from self._more()

    def _requests(self) -> Iterator[Metric]:
        labels, series = self._recorder.requests()
        requests = CounterMetricFamily("skylb_requests", "Requests that ended.", labels=labels)
        for values, count in series:
            requests.add_metric(values, count)
        yield requests
        yield _counter("skylb_attempts", "Attempts at replicas.", "outcome", self._recorder.attempts())
        yield _counter("skylb_errors", "Requests that ended with an error.", "code", self._recorder.errors())
        yield CounterMetricFamily("skylb_answers_cut", _CUT, value=self._recorder.cut)
        for name, text in _DISTRIBUTIONS.items():
            yield self._distribution(name, text)
        held = CounterMetricFamily(
            "skylb_ttft_hold_seconds", "The part of skylb_ttft_seconds that was hold.", labels=_OF_CLASS
        )
        for values, held_s in self._recorder.ttft_held():
            held.add_metric(values, held_s)
        yield held
        yield from self._usage()

    def _distribution(self, name: str, text: str) -> Metric:
        """A histogram by model and class. Prometheus text leaves its exemplars out."""
        histogram = HistogramMetricFamily(f"skylb_{name}", text, labels=_OF_CLASS)
        exemplars: dict[tuple[str, str], dict[int, Exemplar]] = {}
        for values, bucket, trace_id, value_s, unix_s in self._recorder.exemplars(name):
            exemplars.setdefault(values, {})[bucket] = Exemplar({"trace_id": trace_id}, value_s, unix_s)
        for values, cumulative in self._recorder.histograms(name):
            buckets, sum_s = _labelled(cumulative)
            known = exemplars.get(values, {})
            shown = [(*of, known[number]) if number in known else of for number, of in enumerate(buckets)]
            histogram.add_metric(values, shown, sum_s)
        return histogram

    def _usage(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            "skylb_tokens", "Tokens that replicas reported.", labels=("model", "kind")
        )
        answers = CounterMetricFamily(
            "skylb_answers", "Answers of replicas that could report tokens.", labels=("model",)
        )
        untold = CounterMetricFamily(
            "skylb_answers_without_usage", "Those of them that reported none.", labels=("model",)
        )
        for model, counts, answers_len, untold_len in self._recorder.models():
            for kind, count in zip(TOKEN_KINDS, counts, strict=True):
                tokens.add_metric((model, kind), count)
            answers.add_metric((model,), answers_len)
            untold.add_metric((model,), untold_len)
        yield from (tokens, answers, untold)
        requests = CounterMetricFamily(
            "skylb_tenant_requests", "Requests for inference that ended.", labels=("tenant", "outcome")
        )
        tokens = CounterMetricFamily("skylb_tenant_tokens", "The same tokens.", labels=("tenant", "kind"))
        ttft = SummaryMetricFamily("skylb_tenant_ttft_seconds", "As skylb_ttft_seconds.", labels=("tenant",))
        for tenant, counts, outcomes, (sum_s, ttft_len) in self._recorder.tenants():
            for outcome, count in zip(TENANT_OUTCOMES, outcomes, strict=True):
                requests.add_metric((tenant, outcome), count)
            for kind, count in zip(TOKEN_KINDS, counts, strict=True):
                tokens.add_metric((tenant, kind), count)
            ttft.add_metric((tenant,), ttft_len, sum_s)
        yield from (requests, tokens, ttft)

    def _process(self) -> Iterator[Metric]:
        yield from self.probing.collect()
        yield _histogram(
            "skylb_loop_stall_seconds", "Lateness of a periodic callback.", self.loop_stall.cumulative()
        )
        yield GaugeMetricFamily(
            "skylb_buffer_bytes", "Request bodies kept in memory.", value=self._buffer_bytes()
        )
        yield CounterMetricFamily("skylb_log_dropped", "Log lines lost.", value=self._log_dropped())

    def _decisions(self) -> Iterator[Metric]:
        engine = self._engine
        yield GaugeMetricFamily("skylb_hold_requests", "Requests in the hold.", value=engine.hold_requests)
        yield GaugeMetricFamily("skylb_hold_bytes", "Bodies of held requests.", value=engine.hold_bytes)
        yield GaugeMetricFamily("skylb_tree_bytes", "Memory of the prefix tree.", value=engine.tree_bytes)
        wanted = GaugeMetricFamily(
            "skylb_replicas_wanted", "Replicas that the work at hand would fill.", labels=("model",)
        )
        ready = GaugeMetricFamily(
            "skylb_replicas_ready", "Replicas of the model that may be chosen.", labels=("model",)
        )
        for model, replicas, ready_len in engine.wanted():
            wanted.add_metric((model,), replicas)
            ready.add_metric((model,), ready_len)
        yield from (wanted, ready)
        counters = engine.counters()
        blocks = [(result, counters.pop(name, 0)) for name, result in _PREFIX_COUNTERS.items()]
        yield _counter("skylb_prefix_blocks", "Prompt blocks, by whether they matched.", "result", blocks)
        yield _histogram(
            "skylb_prefix_error_tokens",
            "Cached prompt tokens predicted minus reported, where either is not zero.",
            engine.prefix_errors(),
        )
        yield _histogram(
            "skylb_ttft_error_ratio",
            "How far the predicted time from push to first body byte was off, of streamed answers.",
            engine.ttft_errors(),
        )
        yield from shadow.families(engine.shadow_policy, counters)
        shown = ((name, count) for name, count in counters.items() if self._all_counters or name in EVENTS)
        yield _counter("skylb_engine_events", "What the engine did.", "event", sorted(shown))


class _Family(Collector):
    """One family, as an exposition wants it."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def slices(family: Metric, *, is_openmetrics: bool) -> Iterator[bytes]:
    """A family's part of the page, in pieces of `SLICE_SAMPLES` lines."""
    samples = family.samples
    for start in range(0, max(1, len(samples)), SLICE_SAMPLES):
        part = Metric(family.name, family.documentation, family.type, family.unit)
        part.samples = samples[start : start + SLICE_SAMPLES]
        if is_openmetrics:
            text: bytes = openmetrics.generate_latest(_Family(part))  # type: ignore[no-untyped-call]  # prometheus_client leaves it without annotations
            text = text.removesuffix(_EOF)
        else:
            text = generate_latest(_Family(part))
        if start:
            lines = text.splitlines(keepends=True)
            text = b"".join(line for line in lines if not line.startswith(b"#"))
        yield text


def _counter(name: str, text: str, label: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in values:
        family.add_metric((value,), count)
    return family


def _histogram(name: str, text: str, cumulative: Cumulative) -> Metric:
    buckets, sum_s = _labelled(cumulative)
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=sum_s)


def _labelled(cumulative: Cumulative) -> tuple[list[tuple[str, int]], float]:
    buckets, sum_s = cumulative
    return [
        ("+Inf" if bound_s == float("inf") else repr(bound_s), count) for bound_s, count in buckets
    ], sum_s


_REPLICA_GAUGES: tuple[tuple[str, str, Callable[[ReplicaGauges], float | None]], ...] = (
    ("ready", "May be chosen.", lambda r: r.ready),
    ("blind", "Its load cannot be read.", lambda r: r.blind),
    ("draining", "An operator takes it out.", lambda r: r.draining),
    ("asleep", "Its engine says that it sleeps.", lambda r: r.asleep),
    ("in_flight", "Our requests at it.", lambda r: r.in_flight),
    ("running", "Requests in its batch, of all clients.", lambda r: r.running),
    ("waiting", "Requests that it says wait, of all clients.", lambda r: r.waiting),
    ("kv_used_ratio", "Share of its KV cache in use.", lambda r: r.kv_used),
    ("pending", "Requests that wait at it, as estimated.", lambda r: r.pending),
    ("allowance", "Pending requests it may have.", lambda r: r.allowance),
    ("tree_blocks", "Blocks it is believed to cache.", lambda r: r.tree_blocks),
)

_REPLICA_COUNTERS: tuple[tuple[str, str, Callable[[ReplicaGauges], int]], ...] = (
    ("pushed", "Requests pushed to it.", lambda r: r.pushed_total),
    ("failed", "Attempts at it that failed.", lambda r: r.failed_total),
    ("prompt_tokens", "Prompt tokens it reported.", lambda r: r.prompt_tokens_total),
    ("cached_tokens", "Prompt tokens it reported as cached.", lambda r: r.cached_tokens_total),
)


def _replicas(gauges: Sequence[ReplicaGauges]) -> Iterator[Metric]:
    # A name can stand for two ids for a while: its address changed, and the old one still ends its
    # requests. The newer one is what the name means now.
    by_name = {replica.name: replica for replica in sorted(gauges, key=lambda replica: replica.replica)}
    replicas = list(by_name.values())
    for name, text, value in _REPLICA_GAUGES:
        gauge = GaugeMetricFamily(f"skylb_replica_{name}", text, labels=("replica",))
        for replica in replicas:
            if (figure := value(replica)) is not None:
                gauge.add_metric((replica.name,), figure)
        yield gauge
    for name, text, value in _REPLICA_COUNTERS:
        counter = CounterMetricFamily(f"skylb_replica_{name}", text, labels=("replica",))
        for replica in replicas:
            counter.add_metric((replica.name,), value(replica))
        yield counter
