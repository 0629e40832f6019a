//! GORGO's additive cost.

use super::{Basis, Choice, Context, View, smallest};

/// The candidate with the lowest sum of network time, queueing, and computing the prompt's uncached
/// part, the latter two at `gorgo_token_s` per prompt token. Within a region the network is equal
/// for all and left out.
///
/// Source: GORGO (arXiv:2602.11688): 0.094 ms per token in its set-up; the queue is the prompt
/// tokens sent there and not answered yet. Theirs pushes blindly.
pub(super) fn gorgo(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let token_ns = context.config.gorgo_token_ns.ns();
    let position = smallest(view, context, |candidate| {
        let queued = candidate.prefill_tokens;
        let tokens = queued.saturating_add(u64::from(candidate.uncached_tokens));
        tokens.saturating_mul(token_ns)
    });
    Choice {
        position,
        basis: Basis::Time,
    }
}
