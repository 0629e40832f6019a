//! What one probe of an engine said, read by a scanner.
//!
//! A page is some 50 kB of mostly histogram buckets; a handful of its lines matter. The scanner
//! skips the histograms, walks from newline to newline through the rest, drops a line by its first
//! bytes, and parses only those whose full name it knows. Several series of one name (data-parallel ranks) are summed; one series
//! with an absurd value makes the sum unknown, because half a sum would look like room. Of series
//! that repeat each other the largest counts ([`ranks`]).

mod line;
mod ranks;

#[cfg(test)]
mod tests;

use line::{Labels, Line};
use memchr::{memchr, memchr_iter, memrchr};
use ranks::Ranks;
use serde::{Deserialize, Serialize};

/// Gauges above this are unknown: no engine runs or queues so many requests.
const GAUGE_MAX: f64 = 1e9;
/// Counters (tokens since start) above this are unknown: floats are no longer exact there.
const COUNTER_MAX: f64 = 9_007_199_254_740_992.0;
/// Names of adapters kept from one page.
const LORAS_MAX: usize = 256;

/// Whose metric names a page uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// vLLM, old and new names.
    Vllm,
    /// `SGLang`.
    Sglang,
}

impl Dialect {
    /// The names of all metrics that [`scan`] reads, to ask an engine for no others.
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Vllm => &VLLM_NAMES,
            Self::Sglang => &SGLANG_NAMES,
        }
    }
}

const VLLM_NAMES: [&str; 15] = [
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

const SGLANG_NAMES: [&str; 8] = [
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "sglang:num_grammar_queue_reqs",
    "sglang:token_usage",
    "sglang:max_total_num_tokens",
    "sglang:prompt_tokens_total",
    "sglang:cached_tokens_total",
    "sglang:num_retracted_requests_total",
];

/// What one `/metrics` page said. `None` is unknown, never zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Requests in the batch, over all engines (data-parallel ranks) of the replica.
    pub running: Option<u32>,
    /// Requests that wait for room, without `deferred` where the engine tells them apart.
    pub waiting: Option<u32>,
    /// Requests that wait for something else than room.
    pub deferred: Option<u32>,
    /// Share of KV blocks in use, 0 to 1: that of the fullest engine, because a request fits into
    /// one engine's cache, not into the mean.
    pub kv_usage: Option<f64>,
    /// KV capacity in tokens, over all engines.
    pub kv_tokens: Option<u64>,
    /// Tokens per KV block.
    pub block_size: Option<u32>,
    /// Prefix-cache queries since the engine started, in tokens.
    pub cache_queries: Option<u64>,
    /// Prefix-cache hits since the engine started, in tokens.
    pub cache_hits: Option<u64>,
    /// Preemptions since the engine started.
    pub preemptions: Option<u64>,
    /// The engine sleeps: nothing may be sent.
    pub sleeping: bool,
    /// `LoRA` adapters in the running batch.
    pub loras_running: Vec<String>,
    /// Tokens of prompts and answers computed since the engine started, told step by step. Not
    /// passed on to other balancers.
    #[serde(skip)]
    pub tokens: Option<u64>,
}

impl Snapshot {
    /// Both counters the gate needs are known.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.running.is_some() && self.waiting.is_some()
    }

    /// It runs nothing, and nothing waits.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.running == Some(0) && self.waiting == Some(0)
    }

    /// Every figure is within the bounds of what a page can say.
    #[must_use]
    pub fn possible(&self) -> bool {
        let gauges = [self.running, self.waiting, self.deferred, self.block_size];
        let counters = [
            self.kv_tokens,
            self.cache_queries,
            self.cache_hits,
            self.preemptions,
        ];
        gauges
            .iter()
            .flatten()
            .all(|gauge| f64::from(*gauge) <= GAUGE_MAX)
            && counters.iter().flatten().all(|counter| *counter <= 1 << 53)
            && self
                .kv_usage
                .is_none_or(|usage| (0.0..=1.0).contains(&usage))
            && self.loras_running.len() <= LORAS_MAX
    }
}

/// Reads a Prometheus page, looking only for the names it needs.
///
/// Names: vLLM's metrics documentation (those before and after its pull request 29330) and
/// `SGLang`'s production-metrics page.
#[must_use]
pub fn scan(page: &[u8], dialect: Dialect) -> Snapshot {
    let prefix: &[u8] = match dialect {
        Dialect::Vllm => b"vllm:",
        Dialect::Sglang => b"sglang:",
    };
    let mut found = Found::default();
    let mut start = 0;
    while start < page.len() {
        let end = memchr(b'\n', &page[start..]).map_or(page.len(), |len| start + len);
        let line = &page[start..end];
        start = end + 1;
        if let Some(rest) = line.strip_prefix(prefix) {
            match dialect {
                Dialect::Vllm => found.take_vllm(rest),
                Dialect::Sglang => found.take_sglang(rest),
            }
        } else if let Some(name) = histogram(line) {
            start += family_len(page.get(start..).unwrap_or_default(), name);
        }
    }
    found.into_snapshot(dialect)
}

/// The name of the histogram that this line announces.
fn histogram(line: &[u8]) -> Option<&[u8]> {
    let name = line.strip_prefix(b"# TYPE ")?;
    name.strip_suffix(b" histogram")
        .filter(|name| !name.is_empty())
}

/// Bytes up to the comment behind a family, if its lines are all there is before that; else 0. Most of
/// a page is histograms, and none of what is needed: searching for the next comment takes a fifth of
/// the time of looking at each of their lines.
fn family_len(page: &[u8], name: &[u8]) -> usize {
    let comments = memchr_iter(b'#', page);
    let comment = comments
        .into_iter()
        .find(|at| *at == 0 || page[at - 1] == b'\n');
    let len = comment.unwrap_or(page.len());
    let lines = page[..len].trim_ascii_end();
    let last = memrchr(b'\n', lines).map_or(0, |at| at + 1);
    if lines[last..].starts_with(name) {
        len
    } else {
        0
    }
}

/// Sum or maximum over the series of one name.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Value {
    #[default]
    Missing,
    Known(f64),
    Absurd,
}

impl Value {
    fn join(&mut self, value: Option<f64>, max: f64, join: impl Fn(f64, f64) -> f64) {
        let value = value.filter(|v| (0.0..=max).contains(v));
        *self = match (*self, value) {
            (Self::Absurd, _) | (_, None) => Self::Absurd,
            (Self::Missing, Some(v)) => Self::Known(v),
            (Self::Known(old), Some(v)) => Self::Known(join(old, v)),
        };
    }

    fn add_gauge(&mut self, value: Option<f64>) {
        self.join(value, GAUGE_MAX, |a, b| a + b);
    }

    fn add_counter(&mut self, value: Option<f64>) {
        self.join(value, COUNTER_MAX, |a, b| a + b);
    }

    fn max_ratio(&mut self, value: Option<f64>) {
        self.join(value, 1.0, f64::max);
    }

    /// This name's value, or that of the name it had in older servers.
    fn or(self, older: Self) -> Self {
        if self == Self::Missing { older } else { self }
    }

    fn ratio(self) -> Option<f64> {
        if let Self::Known(v) = self {
            Some(v)
        } else {
            None
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and 2^53"
    )]
    fn counter(self) -> Option<u64> {
        self.ratio().filter(|v| *v <= COUNTER_MAX).map(|v| v as u64)
    }

    fn gauge(self) -> Option<u32> {
        self.ratio().filter(|v| *v <= GAUGE_MAX)?;
        self.counter().and_then(|v| u32::try_from(v).ok())
    }
}

/// What the lines read so far add up to.
#[derive(Debug, Default)]
struct Found {
    running: Value,
    waiting: Value,
    capacity: Value,
    deferred: Value,
    kv_usage: Value,
    kv_usage_old: Value,
    kv_tokens: Value,
    block_size: Option<u32>,
    queries: Value,
    queries_old: Value,
    hits: Value,
    hits_old: Value,
    preemptions: Value,
    tokens: Value,
    ranks: Ranks,
    sleeping: bool,
    loras_at: f64,
    loras: Vec<String>,
}

impl Found {
    /// Takes a line without its `vllm:`.
    fn take_vllm(&mut self, rest: &[u8]) {
        // Most lines are histogram buckets: gone by their first letter.
        if !matches!(
            rest.first(),
            Some(b'n' | b'k' | b'g' | b'p' | b'e' | b'l' | b'c')
        ) {
            return;
        }
        let line = Line::split(rest);
        match line.name {
            b"num_requests_running" => self.running.add_gauge(line.value()),
            b"num_requests_waiting" => self.waiting.add_gauge(line.value()),
            b"num_requests_waiting_by_reason" => match line.labels().get(b"reason").as_deref() {
                Some(b"capacity") => self.capacity.add_gauge(line.value()),
                Some(b"deferred") => self.deferred.add_gauge(line.value()),
                _ => {}
            },
            b"kv_cache_usage_perc" => self.kv_usage.max_ratio(line.value()),
            b"gpu_cache_usage_perc" => self.kv_usage_old.max_ratio(line.value()),
            b"prefix_cache_queries_total" => self.queries.add_counter(line.value()),
            b"gpu_prefix_cache_queries_total" => self.queries_old.add_counter(line.value()),
            b"prefix_cache_hits_total" => self.hits.add_counter(line.value()),
            b"gpu_prefix_cache_hits_total" => self.hits_old.add_counter(line.value()),
            b"num_preemptions_total" => self.preemptions.add_counter(line.value()),
            b"prompt_tokens_total" | b"generation_tokens_total" => {
                self.tokens.add_counter(line.value());
            }
            b"engine_sleep_state" => self.take_sleep_state(&line),
            b"lora_requests_info" => self.take_loras(&line),
            b"cache_config_info" => self.take_cache_config(line.labels()),
            _ => {}
        }
    }

    /// Takes a line without its `sglang:`.
    fn take_sglang(&mut self, rest: &[u8]) {
        if !matches!(rest.first(), Some(b'n' | b't' | b'm' | b'p' | b'c')) {
            return;
        }
        let line = Line::split(rest);
        if line.name == b"token_usage" {
            return self.kv_usage.max_ratio(line.value());
        }
        if let Some((key, max)) = sglang(line.name) {
            self.ranks.take(key, &line, max);
        }
    }

    /// Adds up what the ranks of `SGLang` have told.
    fn join_ranks(&mut self) {
        let sum = |name: &[u8]| {
            sglang(name).map_or(Value::Missing, |(key, max)| self.ranks.sum(key, max))
        };
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
            self.running,
            self.waiting,
            self.deferred,
            self.kv_tokens,
            self.queries,
            self.hits,
            self.preemptions,
        ] = summed;
    }

    /// One series per state, 1 for the present one.
    fn take_sleep_state(&mut self, line: &Line) {
        let awake = line
            .labels()
            .get(b"sleep_state")
            .is_some_and(|s| *s == *b"awake");
        let on = line.value().is_some_and(|v| v > 0.0);
        self.sleeping |= awake != on;
    }

    /// Every combination of adapters seen leaves a series; its value is the time it was last true.
    fn take_loras(&mut self, line: &Line) {
        let Some(at) = line.value().filter(|v| *v >= self.loras_at) else {
            return;
        };
        self.loras_at = at;
        self.loras.clear();
        let Some(names) = line.labels().get(b"running_lora_adapters") else {
            return;
        };
        let names = names
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|n| !n.is_empty());
        self.loras.extend(
            names
                .take(LORAS_MAX)
                .map(|n| String::from_utf8_lossy(n).into_owned()),
        );
    }

    /// One series per engine; the figures are in its labels.
    fn take_cache_config(&mut self, labels: Labels) {
        let (mut block, mut blocks, mut tokens) = (None, None, None);
        for (name, value) in labels {
            match name {
                b"block_size" => block = number(value),
                b"num_gpu_blocks" => blocks = number(value),
                b"kv_cache_size_tokens" => tokens = number(value),
                _ => {}
            }
        }
        self.block_size = self
            .block_size
            .or(block.filter(|b| *b > 0.0).and_then(whole));
        let product = block.zip(blocks).map(|(a, b)| a * b);
        self.kv_tokens
            .add_counter(tokens.or(product).filter(|t| *t > 0.0));
    }

    fn into_snapshot(mut self, dialect: Dialect) -> Snapshot {
        if dialect == Dialect::Sglang {
            self.join_ranks();
        }
        let deferred = self.deferred.gauge();
        let waiting = match dialect {
            Dialect::Vllm => self
                .waiting
                .gauge()
                .map(|w| w.saturating_sub(deferred.unwrap_or(0))),
            Dialect::Sglang => self.waiting.gauge(),
        };
        // A total that is there and absurd is not replaced by a part that is not.
        let missing = self.waiting == Value::Missing;
        Snapshot {
            running: self.running.gauge(),
            waiting: if missing {
                self.capacity.gauge()
            } else {
                waiting
            },
            deferred,
            kv_usage: self.kv_usage.or(self.kv_usage_old).ratio(),
            kv_tokens: self.kv_tokens.counter(),
            block_size: self.block_size,
            cache_queries: self.queries.or(self.queries_old).counter(),
            cache_hits: self.hits.or(self.hits_old).counter(),
            preemptions: self.preemptions.counter(),
            sleeping: self.sleeping,
            loras_running: self.loras,
            tokens: self.tokens.counter(),
        }
    }
}

/// The key of a name of `SGLang`'s whose series may repeat each other, and its largest value.
fn sglang(name: &[u8]) -> Option<(u8, f64)> {
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

/// A plain decimal number in a label.
fn number(text: &[u8]) -> Option<f64> {
    line::float(text).filter(|v| (0.0..=COUNTER_MAX).contains(v))
}

fn whole(value: f64) -> Option<u32> {
    Value::Known(value).gauge()
}
