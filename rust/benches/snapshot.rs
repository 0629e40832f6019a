//! Scanning one `/metrics` page of some 50 kB, as vLLM 0.32 writes it.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skylb_core::engine::fleet::snapshot::{VLLM, scan};

/// Gauges and counters first, then histograms: about 600 lines.
fn page() -> String {
    let mut page = String::new();
    let labels = r#"engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct""#;
    for name in [
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
    ] {
        let _ = write!(
            page,
            "# HELP vllm:{name} Help.\n# TYPE vllm:{name} gauge\nvllm:{name}{{{labels}}} 0.5\n"
        );
    }
    for reason in ["capacity", "deferred"] {
        let _ = writeln!(
            page,
            "vllm:num_requests_waiting_by_reason{{{labels},reason=\"{reason}\"}} 0.0"
        );
    }
    for name in [
        "prefix_cache_queries",
        "prefix_cache_hits",
        "num_preemptions",
    ] {
        let _ = write!(
            page,
            "# TYPE vllm:{name}_total counter\nvllm:{name}_total{{{labels}}} 123456.0\nvllm:{name}_created{{{labels}}} 1.79e+09\n"
        );
    }
    let _ = writeln!(
        page,
        "vllm:cache_config_info{{block_size=\"16\",cache_dtype=\"auto\",calculate_kv_scales=\"False\",cpu_offload_gb=\"0\",enable_prefix_caching=\"True\",engine=\"0\",gpu_memory_utilization=\"0.9\",is_attention_free=\"False\",num_gpu_blocks=\"27000\",sliding_window=\"None\"}} 1.0"
    );
    let mut family = 0;
    while page.len() < 50_000 {
        let name = [
            "time_to_first_token_seconds",
            "request_queue_time_seconds",
            "inter_token_latency_seconds",
            "e2e_request_latency_seconds",
            "iteration_tokens_total",
            "request_prompt_tokens",
        ][family % 6];
        let _ = write!(
            page,
            "# HELP vllm:{name} Histogram of something in seconds.\n# TYPE vllm:{name} histogram\n"
        );
        for bucket in 0..22 {
            let _ = writeln!(page, "vllm:{name}_bucket{{{labels},le=\"{bucket}.0\"}} 0.0");
        }
        let _ = writeln!(
            page,
            "vllm:{name}_count{{{labels}}} 0.0\nvllm:{name}_sum{{{labels}}} 0.0"
        );
        family += 1;
    }
    page
}

fn bench(c: &mut Criterion) {
    let page = page();
    assert!(scan(page.as_bytes(), &VLLM).readable());
    let mut group = c.benchmark_group("snapshot");
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("scan_50kB", |b| {
        b.iter(|| scan(black_box(page.as_bytes()), &VLLM));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
