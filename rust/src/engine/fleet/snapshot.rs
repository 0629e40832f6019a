//! What one probe of an engine said, read by a scanner.
//!
//! A page is some 50 kB of mostly histogram buckets; a handful of its lines matter. The scanner
//! skips the histograms and walks from newline to newline through the rest. It drops a line by its
//! first bytes, and parses only those whose full name it knows. Several series of one name
//! (data-parallel ranks) are summed. One series with an absurd value makes the sum unknown,
//! because half a sum would look like room. Of series that repeat each other the largest counts
//! ([`ranks`]).

mod dialect;
mod ranks;
mod sample;
mod sglang;
mod totals;
mod value;
mod vllm;

#[cfg(test)]
mod tests;

pub use dialect::Dialect;
pub use sglang::SGLANG;
pub use vllm::VLLM;

use memchr::{memchr, memchr_iter, memrchr};
use serde::{Deserialize, Serialize};
use totals::Totals;
use value::GAUGE_MAX;

/// Engines whose pages are read, the most common first.
pub static DIALECTS: [&Dialect; 2] = [&VLLM, &SGLANG];

/// Names of adapters kept from one page.
const LORAS_MAX: usize = 256;

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

    /// It has computed something since it started: its caches may not be empty.
    #[must_use]
    pub fn served(&self) -> bool {
        let counted = [self.tokens, self.cache_queries, self.preemptions];
        counted.iter().flatten().any(|count| *count > 0)
    }

    /// The engine has done something since this page. Requests that have only come to wait are no deed
    /// of its own.
    #[must_use]
    pub fn moved_since(&self, last: &Self) -> bool {
        let ignoring =
            |now: Option<u32>, before: Option<u32>| if now >= before { before } else { now };
        let done = Self {
            waiting: ignoring(self.waiting, last.waiting),
            deferred: ignoring(self.deferred, last.deferred),
            ..self.clone()
        };
        done != *last
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
#[must_use]
pub fn scan(page: &[u8], dialect: &Dialect) -> Snapshot {
    let mut totals = Totals::default();
    let mut start = 0;
    while start < page.len() {
        let end = memchr(b'\n', &page[start..]).map_or(page.len(), |len| start + len);
        let line = &page[start..end];
        start = end + 1;
        if let Some(rest) = line.strip_prefix(dialect.prefix.as_bytes()) {
            (dialect.take)(&mut totals, rest);
        } else if let Some(name) = histogram(line) {
            start += family_len(page.get(start..).unwrap_or_default(), name);
        }
    }
    (dialect.finish)(&mut totals);
    snapshot(totals)
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

fn snapshot(totals: Totals) -> Snapshot {
    Snapshot {
        running: totals.running.gauge(),
        waiting: totals.waiting.gauge(),
        deferred: totals.deferred.gauge(),
        kv_usage: totals.kv_usage.or(totals.kv_usage_old).ratio(),
        kv_tokens: totals.kv_tokens.counter(),
        block_size: totals.block_size,
        cache_queries: totals.queries.or(totals.queries_old).counter(),
        cache_hits: totals.hits.or(totals.hits_old).counter(),
        preemptions: totals.preemptions.counter(),
        sleeping: totals.sleeping,
        loras_running: totals.loras,
        tokens: totals.tokens.counter(),
    }
}
