//! `SGLang`: the names of its production-metrics page.

use super::dialect::Dialect;
use super::sample::Sample;
use super::totals::Totals;
use super::value::{COUNTER_MAX, GAUGE_MAX, Value};

/// `SGLang`.
pub static SGLANG: Dialect = Dialect {
    name: "sglang",
    prefix: "sglang:",
    names: &NAMES,
    take,
    finish,
};

const NAMES: [&str; 8] = [
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "sglang:num_grammar_queue_reqs",
    "sglang:token_usage",
    "sglang:max_total_num_tokens",
    "sglang:prompt_tokens_total",
    "sglang:cached_tokens_total",
    "sglang:num_retracted_requests_total",
];

/// Takes a line without its `sglang:`.
fn take(totals: &mut Totals, rest: &[u8]) {
    if !matches!(rest.first(), Some(b'n' | b't' | b'm' | b'p' | b'c')) {
        return;
    }
    let line = Sample::split(rest);
    if line.name == b"token_usage" {
        return totals.kv_usage.max_ratio(line.value());
    }
    if let Some((key, max)) = key_of(line.name) {
        totals.ranks.take(key, &line, max);
    }
}

/// Adds up what the ranks of `SGLang` have told.
fn finish(totals: &mut Totals) {
    let sum =
        |name: &[u8]| key_of(name).map_or(Value::Missing, |(key, max)| totals.ranks.sum(key, max));
    let summed = [
        sum(b"num_running_reqs"),
        sum(b"num_queue_reqs"),
        sum(b"num_grammar_queue_reqs"),
        sum(b"max_total_num_tokens"),
        sum(b"prompt_tokens_total"),
        sum(b"cached_tokens_total"),
        sum(b"num_retracted_requests_total"),
    ];
    [
        totals.running,
        totals.waiting,
        totals.deferred,
        totals.kv_tokens,
        totals.queries,
        totals.hits,
        totals.preemptions,
    ] = summed;
}

/// The key of a name whose series may repeat each other, and its largest value.
fn key_of(name: &[u8]) -> Option<(u8, f64)> {
    Some(match name {
        b"num_running_reqs" => (0, GAUGE_MAX),
        b"num_queue_reqs" => (1, GAUGE_MAX),
        b"num_grammar_queue_reqs" => (2, GAUGE_MAX),
        b"max_total_num_tokens" => (3, GAUGE_MAX),
        b"prompt_tokens_total" => (4, COUNTER_MAX),
        b"cached_tokens_total" => (5, COUNTER_MAX),
        b"num_retracted_requests_total" => (6, COUNTER_MAX),
        _ => return None,
    })
}
