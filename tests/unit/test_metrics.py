"""The metrics page: complete, readable by both parsers, bounded."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.registry import Collector

from skylb._core import LOG_OFF, Engine, Recorder, Sender, scan_metrics
from skylb.config import EngineSettings
from skylb.metrics import EVENTS, SLICE_SAMPLES, Durations, LoopStall, Metrics, slices

NAMES = {
    "skylb_requests",
    "skylb_attempts",
    "skylb_ttft_seconds",
    "skylb_request_seconds",
    "skylb_hold_seconds",
    "skylb_ttft_hold_seconds",
    "skylb_inter_token_seconds",
    "skylb_inter_token_worst_seconds",
    "skylb_errors",
    "skylb_tokens",
    "skylb_answers",
    "skylb_answers_without_usage",
    "skylb_tenant_requests",
    "skylb_tenant_tokens",
    "skylb_tenant_ttft_seconds",
    "skylb_replicas_wanted",
    "skylb_replicas_ready",
    "skylb_replica_running",
    "skylb_replica_waiting",
    "skylb_replica_kv_used_ratio",
    "skylb_hold_requests",
    "skylb_buffer_bytes",
    "skylb_replica_ready",
    "skylb_replica_blind",
    "skylb_replica_asleep",
    "skylb_replica_in_flight",
    "skylb_replica_pending",
    "skylb_prefix_blocks",
    "skylb_prefix_error_tokens",
    "skylb_ttft_error_ratio",
    "skylb_tree_bytes",
    "skylb_probe_seconds",
    "skylb_loop_stall_seconds",
    "skylb_log_dropped",
    "skylb_build",
    "skylb_policy",
}
"""The issue's metrics, in the form that OpenMetrics gives them: without ``_total`` and ``_info``."""

ROOT = Path(__file__).parents[2]

CLIENT = Sender("127.0.0.1:1", "http", False, False)

PAGE = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 1\n"


def engine(*replicas: tuple[int, str]) -> Engine:
    made = Engine(EngineSettings().model_dump_json().encode(), b"k" * 16, 1)
    made.set_replicas(list(replicas), 1)
    for replica_id, _ in replicas:
        made.observe(replica_id, scan_metrics(PAGE, "vllm"), 1, 2)
    return made


def recorder() -> Recorder:
    return Recorder(LOG_OFF, 0, "prefix", 0)


def metrics(recorded: Recorder, decided: Engine, *, all_counters: bool = False) -> Metrics:
    return Metrics(
        recorder=recorded,
        engine=decided,
        buffer_bytes=lambda: 77,
        log_dropped=lambda: 5,
        all_counters=all_counters,
    )


def render(shown: Metrics, accept: str = "") -> tuple[bytes, str]:
    return asyncio.run(shown.render(accept))


def families(page: bytes) -> dict[str, Metric]:
    return {family.name: family for family in read_openmetrics(page.decode())}


def value(page: bytes, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in read_text(page.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, f"{name}{labels}: {found}"
    return found[0]


class TestPage:
    def test_every_metric_of_the_interface_is_there_from_the_start(self) -> None:
        page, content_type = render(
            metrics(recorder(), engine()), "application/openmetrics-text; version=1.0.0"
        )
        assert families(page).keys() >= NAMES
        assert content_type.startswith("application/openmetrics-text")

    def test_the_plain_text_form_says_the_same(self) -> None:
        shown = metrics(recorder(), engine((1, "http://a:1")))
        text, content_type = render(shown, "*/*")
        openmetrics, _ = render(shown, "application/openmetrics-text")
        assert content_type.startswith("text/plain")

        def ours(found: Iterator[Metric]) -> set[tuple[str, str, float]]:
            return {
                (sample.name, str(sorted(sample.labels.items())), sample.value)
                for family in found
                for sample in family.samples
                if sample.name.startswith("skylb_")
            }

        assert ours(read_text(text.decode())) == ours(read_openmetrics(openmetrics.decode())) != set()

    def test_an_odd_accept_header_gets_plain_text(self) -> None:
        shown = metrics(recorder(), engine())
        for accept in ("", "text/plain; version=nonsense", "\x00", "application/openmetrics"):
            assert render(shown, accept)[1].startswith("text/plain")

    def test_values_come_from_their_sources(self) -> None:
        recorded = recorder()
        recorded.refused(431, "head_too_large", CLIENT, "", None, 1)
        recorded.refused(431, "head_too_large", CLIENT, "", None, 1)
        recorded.attempt("full")
        shown = metrics(recorded, engine((1, "http://a:1"), (2, "unix:/b")))
        shown.probing.durations.observe(3_000_000)
        shown.probing.answered("unix:/b", duration_ns=2_000_000, own_ns=500_000_000, page_bytes=50_000)
        page, _ = render(shown)
        assert value(page, "skylb_requests_total", route="invalid", model="", status="431") == 2
        assert value(page, "skylb_attempts_total", outcome="full") == 1
        assert value(page, "skylb_attempts_total", outcome="ok") == 0
        assert value(page, "skylb_buffer_bytes") == 77
        assert value(page, "skylb_log_dropped_total") == 5
        assert value(page, "skylb_replica_ready", replica="http://a:1") == 1
        assert value(page, "skylb_replica_blind", replica="unix:/b") == 0
        assert value(page, "skylb_replica_in_flight", replica="unix:/b") == 0
        assert value(page, "skylb_prefix_blocks_total", result="match") == 0
        assert value(page, "skylb_probe_seconds_count") == 2
        assert value(page, "skylb_probe_seconds_bucket", le="0.0025") == 1
        assert value(page, "skylb_probe_seconds_bucket", le="0.005") == 2
        assert value(page, "skylb_probe_seconds_sum") == 0.005
        assert value(page, "skylb_probe_own_seconds_total") == 0.5
        assert value(page, "skylb_probe_bytes_total") == 50_000
        assert value(page, "skylb_replica_probes_total", replica="unix:/b") == 1
        assert value(page, "skylb_replica_probe_seconds_total", replica="unix:/b") == 0.002
        assert value(page, "skylb_policy_info", policy="predictive") == 1

    def test_a_replica_with_an_odd_name_does_not_break_the_page(self) -> None:
        name = 'unix:/a"b\\c\nd'
        page, _ = render(metrics(recorder(), engine((1, name))))
        assert value(page, "skylb_replica_ready", replica=name) == 1

    def test_a_name_that_two_replicas_bear_is_shown_once(self) -> None:
        page, _ = render(metrics(recorder(), engine((1, "http://a:1"), (2, "http://a:1"))))
        assert value(page, "skylb_replica_ready", replica="http://a:1") == 1

    def test_the_process_shows_its_own_use(self) -> None:
        page, _ = render(metrics(recorder(), engine()))
        assert value(page, "process_resident_memory_bytes") > 0


class TestCounters:
    def test_the_page_has_the_counters_that_operators_need_and_all_where_asked(self) -> None:
        decided = engine()
        known = decided.counters().keys()
        assert known >= EVENTS

        def shown(*, all_counters: bool) -> set[str]:
            page, _ = render(metrics(recorder(), decided, all_counters=all_counters))
            return set(re.findall(r'skylb_engine_events_total{event="(\w+)"}', page.decode()))

        assert shown(all_counters=False) == EVENTS
        assert shown(all_counters=True) == {name for name in known if not name.startswith("shadow_")} - {
            "match_blocks",
            "miss_blocks",
        }

    def test_each_of_them_is_documented(self) -> None:
        rows = (
            (ROOT / "docs/OPERATIONS.md")
            .read_text()
            .partition("| event of `skylb_engine_events_total`")[2]
            .partition("\n\n")[0]
        )
        named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE)))
        assert sorted(EVENTS) == sorted(named)


class TestReplicas:
    def test_what_a_replica_says_is_shown_and_what_it_does_not_say_is_not(self) -> None:
        page, _ = render(metrics(recorder(), engine((1, "http://a:1"))))
        assert value(page, "skylb_replica_running", replica="http://a:1") == 3
        assert value(page, "skylb_replica_waiting", replica="http://a:1") == 1
        assert b"skylb_replica_kv_used_ratio{" not in page

    def test_replicas_that_are_wanted_are_shown_by_model(self) -> None:
        decided = engine((1, "http://a:1"))
        decided.set_models(1, [("m", None)], False, 2)
        page, _ = render(metrics(recorder(), decided))
        assert value(page, "skylb_replicas_wanted", model="m") > 0
        assert value(page, "skylb_replicas_ready", model="m") == 1

    def test_a_model_of_which_no_replica_is_ready_has_a_figure(self) -> None:
        decided = engine((1, "http://a:1"))
        decided.set_models(1, [("m", None)], False, 2)
        decided.set_draining(1, True, 3)
        page, _ = render(metrics(recorder(), decided))
        assert value(page, "skylb_replicas_ready", model="m") == 0

    def test_a_replica_that_sleeps_says_so_and_is_not_ready(self) -> None:
        decided = engine((1, "http://a:1"))
        asleep = PAGE + b'vllm:engine_sleep_state{sleep_state="awake"} 0\n'
        for page_of, expected in ((asleep, 1), (PAGE, 0)):
            decided.observe(1, scan_metrics(page_of, "vllm"), 3, 4)
            page, _ = render(metrics(recorder(), decided))
            assert value(page, "skylb_replica_asleep", replica="http://a:1") == expected
            assert value(page, "skylb_replica_ready", replica="http://a:1") == 1 - expected


class TestSlices:
    def test_the_slices_of_a_family_are_its_part_of_the_page(self) -> None:
        for count in (0, 1, SLICE_SAMPLES, SLICE_SAMPLES + 1, 10 * SLICE_SAMPLES):
            family = CounterMetricFamily("skylb_x", "Text.", labels=("replica",))
            for number in range(count):
                family.add_metric((f'# "{number}"\n#',), number)
            registry = CollectorRegistry()
            registry.register(Given(family))
            plain = list(slices(family, is_openmetrics=False))
            assert b"".join(plain) == generate_latest(registry)
            whole = b"".join(slices(family, is_openmetrics=True)) + b"# EOF\n"
            assert whole == openmetrics_exposition.generate_latest(registry)
            assert len(plain) == max(1, -(-count // SLICE_SAMPLES))

    def test_others_have_their_turn_while_a_long_page_is_made(self) -> None:
        shown = metrics(recorder(), engine(*((number, f"http://a:{number}") for number in range(1, 302))))

        async def run() -> tuple[int, bytes]:
            turns = 0

            def turn() -> None:
                nonlocal turns
                turns += 1
                asyncio.get_running_loop().call_soon(turn)

            turn()
            page, _ = await shown.render()
            return turns, page

        turns, page = asyncio.run(run())
        assert turns > page.count(b"\n") / SLICE_SAMPLES


class Given(Collector):
    def __init__(self, family: Metric) -> None:
        self.family = family

    def collect(self) -> Iterator[Metric]:
        yield self.family


class TestDurations:
    @given(st.lists(st.one_of(st.integers(0, 10**10), st.sampled_from([10**6, 10**9]))))
    def test_each_bucket_counts_the_values_at_or_below_its_bound(self, values_ns: list[int]) -> None:
        durations = Durations((0.001, 0.5, 1.0))
        for value_ns in values_ns:
            durations.observe(value_ns)
        buckets, sum_s = durations.cumulative()
        expected = [sum(v <= bound * 1e9 for v in values_ns) for bound in (0.001, 0.5, 1.0)]
        assert [count for _, count in buckets] == [*expected, len(values_ns)]
        assert sum_s == sum(values_ns) / 1e9


class TestLoopStall:
    def test_lateness_is_what_passed_beyond_the_interval(self) -> None:
        durations = Durations((0.001, 0.1))
        stall = LoopStall(durations, 0.25)
        for now_ns in (5_000_000_000, 5_250_000_000, 5_550_000_000, 5_700_000_000):
            stall.beat(now_ns)
        buckets, sum_s = durations.cumulative()
        assert [count for _, count in buckets] == [2, 3, 3]
        assert sum_s == pytest.approx(0.05)
