//! What the samples of a page add up to.

use super::ranks::Ranks;
use super::value::Value;

/// What the lines read so far add up to.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) running: Value,
    pub(super) waiting: Value,
    pub(super) capacity: Value,
    pub(super) deferred: Value,
    pub(super) kv_usage: Value,
    pub(super) kv_usage_old: Value,
    pub(super) kv_tokens: Value,
    pub(super) block_size: Option<u32>,
    pub(super) queries: Value,
    pub(super) queries_old: Value,
    pub(super) hits: Value,
    pub(super) hits_old: Value,
    pub(super) preemptions: Value,
    pub(super) tokens: Value,
    pub(super) ranks: Ranks,
    pub(super) sleeping: bool,
    pub(super) loras_at: f64,
    pub(super) loras: Vec<String>,
}
