"""The ``/metrics`` page, with the names, labels and form of vLLM 0.32.

The figures of load, KV and cache are the model's, as of the end of its last step. The histograms that
pad the page to a real one's size (50 kB) stay empty: their bytes matter, not their values.
"""

import re
from collections.abc import Callable, Mapping

from prometheus_client.utils import floatToGoString

from skylb.tools.mock.replica import MockReplica

_number: Callable[[float], str] = floatToGoString
_BUCKETS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)
_HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "iteration_tokens_total",
)
_LINE = re.compile(rb"(?:# (?:HELP|TYPE) )?([^ {\n]*)[^\n]*\n")
_PROCESS = b"""\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython",major="3",minor="11",patchlevel="0",version="3.11.0"} 1.0
"""


PAGES_MAX = 4
"""Pages kept, each for other names."""


class MetricsPage:
    """Writes one replica's page."""

    def __init__(self, replica: MockReplica, bytes_min: int) -> None:
        self._replica = replica
        self._name = replica.served.names[0].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._config = self._cache_config()
        self._padding = _padding(self._name, bytes_min - len(_PROCESS + self._live()))
        self._key = (-1, -1, -1)
        self._pages: dict[frozenset[str], bytes] = {}

    def render(self, names: frozenset[str]) -> bytes:
        """The page as it is now; made anew only after something happened.

        Args:
            names: metrics to tell, of those with values; empty: all.
        """
        model, totals = self._replica.model, self._replica.totals
        key = (model.steps, totals.rejected, sum(totals.ended.values()))
        if key != self._key:
            self._key = key
            self._pages.clear()
        page = self._pages.get(names)
        if page is None:
            live = _PROCESS + self._live()
            page = self._pages[names] = _narrowed(live, names) if names else live + self._padding
            while len(self._pages) > PAGES_MAX:
                del self._pages[next(iter(self._pages))]
        return page

    def _live(self) -> bytes:
        model, totals = self._replica.model, self._replica.totals
        lines: list[str] = []
        self._add(lines, "num_requests_running", "gauge", {"": model.running_gauge})
        self._add(lines, "num_requests_waiting", "gauge", {"": model.waiting_gauge})
        reasons = {'reason="capacity"': model.waiting_gauge, 'reason="deferred"': 0}
        self._add(lines, "num_requests_waiting_by_reason", "gauge", reasons)
        states = {
            'sleep_state="awake"': 1,
            'sleep_state="weights_offloaded"': 0,
            'sleep_state="discard_all"': 0,
        }
        self._add(lines, "engine_sleep_state", "gauge", states)
        self._add(lines, "kv_cache_usage_perc", "gauge", {"": model.kv_usage_gauge})
        self._add(lines, "prefix_cache_queries", "counter", {"": model.cache_queries})
        self._add(lines, "prefix_cache_hits", "counter", {"": model.cache_hits})
        self._add(lines, "num_preemptions", "counter", {"": model.preemptions})
        self._add(lines, "prompt_tokens", "counter", {"": totals.prompt_tokens})
        self._add(lines, "prompt_tokens_cached", "counter", {"": totals.cached_tokens})
        self._add(lines, "generation_tokens", "counter", {"": model.output_tokens})
        ended = {f'finished_reason="{reason}"': count for reason, count in totals.ended.items()}
        self._add(lines, "request_success", "counter", ended)
        rejections = {'reason="max_num_queued_reqs"': totals.rejected}
        self._add(lines, "admission_rejections", "counter", rejections)
        return "".join(lines).encode() + self._config

    def _add(self, lines: list[str], name: str, kind: str, values: Mapping[str, float]) -> None:
        full = f"vllm:{name}_total" if kind == "counter" else f"vllm:{name}"
        lines.append(f"# HELP {full} See the documentation of vLLM.\n# TYPE {full} {kind}\n")
        for label, value in values.items():
            labels = f'engine="0",model_name="{self._name}"' + (f",{label}" if label else "")
            lines.append(f"{full}{{{labels}}} {_number(value)}\n")

    def _cache_config(self) -> bytes:
        model = self._replica.model
        labels = (
            f'block_size="{model.block_size}",cache_dtype="auto",enable_prefix_caching="True",engine="0",'
            f'gpu_memory_utilization="0.9",kv_cache_size_tokens="{model.blocks * model.block_size}",'
            f'num_gpu_blocks="{model.blocks}",prefix_caching_hash_algo="sha256"'
        )
        return (
            "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n"
            f"# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{{labels}}} 1.0\n"
        ).encode()


def _narrowed(page: bytes, names: frozenset[str]) -> bytes:
    """The lines about these metrics, in the order of the page."""
    wanted = {name.encode() for name in names}
    return b"".join(found[0] for found in _LINE.finditer(page) if found[1] in wanted)


def _padding(name: str, size: int) -> bytes:
    """Whole families of histograms, ``size`` bytes of them or a little more."""
    lines: list[str] = []
    missing = size
    for histogram in _HISTOGRAMS:
        if missing <= 0:
            break
        labels = f'engine="0",model_name="{name}"'
        lines.append(_family(f"vllm:{histogram}") + _series(f"vllm:{histogram}", labels))
        missing -= len(lines[-1])
    handler = 0
    while missing > 0:
        # What the web framework's instrumentation adds, one series per handler.
        series = _series("http_request_duration_seconds", f'handler="/handler/{handler}",method="POST"')
        lines.append(series if handler else _family("http_request_duration_seconds") + series)
        missing -= len(lines[-1])
        handler += 1
    return "".join(lines).encode()


def _family(name: str) -> str:
    return f"# HELP {name} See the documentation of vLLM.\n# TYPE {name} histogram\n"


def _series(name: str, labels: str) -> str:
    bounds = [_number(bound) for bound in _BUCKETS] + ["+Inf"]
    buckets = "".join(f'{name}_bucket{{{labels},le="{bound}"}} 0.0\n' for bound in bounds)
    return f"{buckets}{name}_count{{{labels}}} 0.0\n{name}_sum{{{labels}}} 0.0\n"
