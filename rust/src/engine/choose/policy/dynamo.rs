//! NVIDIA Dynamo's cost of a request in blocks.

use super::{Basis, Candidate, Choice, Context, View, smallest};

/// The candidate with the lowest `weight * prefill + decode`, both in KV tokens: the prompt tokens
/// still to be computed there with this request's uncached ones, and the tokens that its active
/// requests hold with this one's.
///
/// Source: NVIDIA Dynamo's documentation of its KV router (versions 0.8 to 1.2: cost function,
/// `--kv-overlap-score-weight` 1.0, `--router-temperature` 0.0, which takes the minimum; ties are
/// drawn). Theirs counts blocks and knows what is cached from KV events; tokens differ from blocks
/// by a constant factor only, and ours come from the tree. Theirs pushes blindly.
pub(super) fn dynamo(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let weight = context.config.dynamo_prefill_weight;
    let position = smallest(view, context, |candidate| cost(candidate, weight));
    Choice {
        position,
        basis: Basis::Time,
    }
}

/// Thousandths of a token.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "not negative, and `as` saturates"
)]
fn cost(candidate: &Candidate, weight: f64) -> u64 {
    let uncached = u64::from(candidate.uncached_tokens);
    let prefill = candidate.prefill_tokens.saturating_add(uncached) as f64;
    let decode = candidate.active_tokens.saturating_add(uncached) as f64;
    ((weight * prefill + decode) * 1e3) as u64
}
