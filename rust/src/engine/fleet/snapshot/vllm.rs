//! vLLM, and engines that took over its names: those before and after its pull request 29330, which
//! removed the `gpu_` ones.

use super::LORAS_MAX;
use super::dialect::Dialect;
use super::sample::{Labels, Sample};
use super::totals::Totals;
use super::value::{Value, number, whole};

/// vLLM, old and new names.
pub static VLLM: Dialect = Dialect {
    name: "vllm",
    prefix: "vllm:",
    names: &NAMES,
    take,
    finish,
};

const NAMES: [&str; 15] = [
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:prefix_cache_queries_total",
    "vllm:gpu_prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:engine_sleep_state",
    "vllm:lora_requests_info",
    "vllm:cache_config_info",
];

/// Takes a line without its `vllm:`.
fn take(totals: &mut Totals, rest: &[u8]) {
    // Most lines are histogram buckets: gone by their first letter.
    if !matches!(
        rest.first(),
        Some(b'n' | b'k' | b'g' | b'p' | b'e' | b'l' | b'c')
    ) {
        return;
    }
    let line = Sample::split(rest);
    match line.name {
        b"num_requests_running" => totals.running.add_gauge(line.value()),
        b"num_requests_waiting" => totals.waiting.add_gauge(line.value()),
        b"num_requests_waiting_by_reason" => match line.labels().get(b"reason").as_deref() {
            Some(b"capacity") => totals.capacity.add_gauge(line.value()),
            Some(b"deferred") => totals.deferred.add_gauge(line.value()),
            _ => {}
        },
        b"kv_cache_usage_perc" => totals.kv_usage.max_ratio(line.value()),
        b"gpu_cache_usage_perc" => totals.kv_usage_old.max_ratio(line.value()),
        b"prefix_cache_queries_total" => totals.queries.add_counter(line.value()),
        b"gpu_prefix_cache_queries_total" => totals.queries_old.add_counter(line.value()),
        b"prefix_cache_hits_total" => totals.hits.add_counter(line.value()),
        b"gpu_prefix_cache_hits_total" => totals.hits_old.add_counter(line.value()),
        b"num_preemptions_total" => totals.preemptions.add_counter(line.value()),
        b"prompt_tokens_total" | b"generation_tokens_total" => {
            totals.tokens.add_counter(line.value());
        }
        b"engine_sleep_state" => take_sleep_state(totals, &line),
        b"lora_requests_info" => take_loras(totals, &line),
        b"cache_config_info" => take_cache_config(totals, line.labels()),
        _ => {}
    }
}

/// One series per state, 1 for the present one.
fn take_sleep_state(totals: &mut Totals, line: &Sample) {
    let awake = line
        .labels()
        .get(b"sleep_state")
        .is_some_and(|s| *s == *b"awake");
    let on = line.value().is_some_and(|v| v > 0.0);
    totals.sleeping |= awake != on;
}

/// Every combination of adapters seen leaves a series; its value is the time it was last true.
fn take_loras(totals: &mut Totals, line: &Sample) {
    let Some(at) = line.value().filter(|v| *v >= totals.loras_at) else {
        return;
    };
    totals.loras_at = at;
    totals.loras.clear();
    let Some(names) = line.labels().get(b"running_lora_adapters") else {
        return;
    };
    let names = names
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|n| !n.is_empty());
    totals.loras.extend(
        names
            .take(LORAS_MAX)
            .map(|n| String::from_utf8_lossy(n).into_owned()),
    );
}

/// One series per engine; the figures are in its labels.
fn take_cache_config(totals: &mut Totals, labels: Labels) {
    let (mut block, mut blocks, mut tokens) = (None, None, None);
    for (name, value) in labels {
        match name {
            b"block_size" => block = number(value),
            b"num_gpu_blocks" => blocks = number(value),
            b"kv_cache_size_tokens" => tokens = number(value),
            _ => {}
        }
    }
    totals.block_size = totals
        .block_size
        .or(block.filter(|b| *b > 0.0).and_then(whole));
    let product = block.zip(blocks).map(|(a, b)| a * b);
    totals
        .kv_tokens
        .add_counter(tokens.or(product).filter(|t| *t > 0.0));
}

/// Requests that wait for something else than room are told apart. A total that is there and absurd
/// is not replaced by a part that is not.
fn finish(totals: &mut Totals) {
    totals.waiting = match totals.waiting {
        Value::Missing => totals.capacity,
        waiting => waiting.less(totals.deferred.gauge()),
    };
}
