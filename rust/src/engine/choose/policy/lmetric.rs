//! `LMetric`: the product of two signals.

use super::{Basis, Candidate, Choice, Context, View, smallest};

/// The candidate with the lowest product of the prompt tokens to compute there, those queued there
/// included, and the batch size that the request would join.
///
/// Source: `LMetric` (arXiv:2603.15202): new prefill tokens times batch size; a product needs no
/// weight, because any would cancel out. Theirs pushes blindly, and knows what is cached from KV
/// events; ours comes from the tree. One token at least is counted, so that a cached prompt still
/// prefers the smaller batch.
pub(super) fn lmetric(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    Choice {
        position: smallest(view, context, score),
        basis: Basis::Time,
    }
}

fn score(candidate: &Candidate) -> u64 {
    let uncached = u64::from(candidate.uncached_tokens);
    let tokens = candidate.prefill_tokens.saturating_add(uncached).max(1);
    let before = u64::from(candidate.running) + u64::from(candidate.pending);
    tokens.saturating_mul(before + 1)
}
