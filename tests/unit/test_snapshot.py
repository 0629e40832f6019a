"""The scanner of metrics pages, through its binding."""

import pytest

from skylb._core import scan_metrics

VLLM = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1.2e+07
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 12.0
vllm:num_preemptions_total{engine="0",model_name="m"} 4.0
vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="sql,chat",waiting_lora_adapters=""} 1.7e+09
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1.0
"""


def test_a_vllm_page_is_read_whole() -> None:
    snapshot = scan_metrics(VLLM, "vllm")
    assert (snapshot.running, snapshot.waiting, snapshot.deferred) == (8, 3, 2)
    assert (snapshot.kv_usage, snapshot.kv_tokens, snapshot.block_size) == (0.25, 16_000, 16)
    assert (snapshot.cache_queries, snapshot.cache_hits, snapshot.preemptions) == (12_000_000, 12, 4)
    assert not snapshot.sleeping
    assert snapshot.loras_running == ["sql", "chat"]


def test_what_a_page_lacks_is_none() -> None:
    snapshot = scan_metrics(VLLM, "sglang")
    assert snapshot.running is None
    assert snapshot.waiting is None
    assert snapshot.kv_usage is None
    assert snapshot.loras_running == []


def test_an_unknown_dialect_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="dialect"):
        scan_metrics(b"", "abacus")
