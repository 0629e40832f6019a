//! What a policy reckons for a candidate, part by part.

use serde::Serialize;

use crate::engine::choose::policy::{Candidate, imposed};
use crate::engine::config::Config;
use crate::engine::policy::Policy;
use crate::time::Span;

/// The figures that policies with predictions read of a candidate.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    start_in_ns: Span,
    uncached_tokens: u32,
    ns_per_token: u32,
    ttft_ns: Span,
    running: u32,
    pending: u32,
    prefill_tokens: u64,
    active_tokens: u64,
    kv_used_tokens: u64,
    kv_tokens: u64,
    evict_tokens: u32,
    recent_ns: Span,
}

impl Figures {
    pub(super) fn of(candidate: &Candidate) -> Self {
        Self {
            start_in_ns: candidate.start_in_ns,
            uncached_tokens: candidate.uncached_tokens,
            ns_per_token: candidate.ns_per_token,
            ttft_ns: candidate.ttft_ns(),
            running: candidate.running,
            pending: candidate.pending,
            prefill_tokens: candidate.prefill_tokens,
            active_tokens: candidate.active_tokens,
            kv_used_tokens: candidate.kv_used_tokens,
            kv_tokens: candidate.kv_tokens,
            evict_tokens: candidate.evict_tokens,
            recent_ns: candidate.recent_ns,
        }
    }
}

/// A candidate's cost under `predictive`: its own time to the first token, and what others lose. Each part of
/// that is rounded down by itself, their sum as a whole.
#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "the unit is part of a figure's name"
)]
pub(super) struct Score {
    running_ns: Span,
    queued_ns: Span,
    evicted_ns: Span,
    imposed_ns: Span,
    total_ns: Span,
}

impl Score {
    pub(super) fn of(candidate: &Candidate, config: &Config) -> Self {
        let [running, queued, evicted] = imposed(candidate, config);
        let imposed_ns = Span::from_ns_f64(running + queued + evicted);
        Self {
            running_ns: Span::from_ns_f64(running),
            queued_ns: Span::from_ns_f64(queued),
            evicted_ns: Span::from_ns_f64(evicted),
            imposed_ns,
            total_ns: candidate.ttft_ns() + imposed_ns,
        }
    }
}

/// The settings that the choice of a replica goes by.
#[derive(Debug, Serialize)]
pub(super) struct Weights {
    delay_weight: f64,
    queue_weight: f64,
    evict_weight: f64,
    session_gain_ns: Span,
    session_gain_ratio: f64,
    explore_ratio: f64,
    leave_gain_ns: Span,
    leave_gain_ratio: f64,
    affinity_wait_ns: Span,
    match_threshold: f64,
}

impl Weights {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            delay_weight: config.delay_weight,
            queue_weight: config.queue_weight,
            evict_weight: config.evict_weight,
            session_gain_ns: config.session_gain_ns,
            session_gain_ratio: config.session_gain_ratio,
            explore_ratio: config.explore_ratio,
            leave_gain_ns: config.leave_gain_ns,
            leave_gain_ratio: config.leave_gain_ratio,
            affinity_wait_ns: config.affinity_wait_ns,
            match_threshold: config.match_threshold,
        }
    }
}

/// The policy is the one whose cost is [`Score`].
pub(super) fn scores(policy: Option<Policy>) -> bool {
    policy == Some(Policy::Predictive)
}

/// The policy reads [`Figures`].
pub(super) fn reads_figures(policy: Option<Policy>) -> bool {
    policy.is_some_and(|policy| policy.traits().reads_figures)
}
