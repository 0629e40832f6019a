//! The scorers of llm-d's endpoint picker.

use super::{Basis, Candidate, Choice, Context, View, smallest};

/// Scores are compared in steps of a millionth.
const STEPS: f64 = 1e6;

/// The candidate with the highest weighted sum of three scores between 0 and 1: the matching share
/// of the prompt; how short its queue is between the shortest and the longest of all; and the
/// share of its KV cache that is free.
///
/// Source: llm-d's and the Gateway API inference extension's documentation of `prefix-cache-scorer`
/// (weight 3), `queue-scorer` (2) and `kv-cache-utilization-scorer` (2) with `max-score-picker`,
/// which draws between equals. Theirs pushes blindly.
pub(super) fn llm_d(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let queues = view.candidates.iter().map(|candidate| candidate.pending);
    let (shortest, longest) = queues.fold((u32::MAX, 0), |(least, most), queue| {
        (least.min(queue), most.max(queue))
    });
    let config = context.config;
    let score = |candidate: &Candidate| {
        let prefix = share(candidate.match_blocks, view.prompt_blocks);
        let queue = if longest == shortest {
            1.0
        } else {
            share(longest - candidate.pending, longest - shortest)
        };
        config.llm_d_prefix_weight * prefix
            + config.llm_d_queue_weight * queue
            + config.llm_d_kv_weight * free(candidate)
    };
    let best = config.llm_d_prefix_weight + config.llm_d_queue_weight + config.llm_d_kv_weight;
    let position = smallest(view, context, |candidate| steps(best - score(candidate)));
    Choice {
        position,
        basis: Basis::Time,
    }
}

/// `part` of `whole`, 0 of nothing.
fn share(part: u32, whole: u32) -> f64 {
    f64::from(part.min(whole)) / f64::from(whole.max(1))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "token counts are far below 2^53"
)]
fn free(candidate: &Candidate) -> f64 {
    let used = candidate.kv_used_tokens as f64 / candidate.kv_tokens.max(1) as f64;
    (1.0 - used).clamp(0.0, 1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative but for rounding, and `as` saturates"
)]
fn steps(short_of_best: f64) -> u64 {
    (short_of_best * STEPS).round() as u64
}
