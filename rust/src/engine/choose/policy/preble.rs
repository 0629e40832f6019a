//! Preble's choice between exploitation and exploration.

use std::cmp::Reverse;

use super::{Basis, Candidate, Choice, Context, View, smallest};
use crate::time::Span;

/// Where more of the prompt is cached than is not: the least loaded owner of the longest match,
/// unless its load is more than `preble_balance_ratio` times that of the least loaded. Otherwise
/// the candidate with the lowest sum of three times: the work it was given in the last
/// `preble_window_s`, computing anew what it must evict, and computing the prompt's uncached part.
///
/// Source: V. Srivatsa, Z. He, R. Abhyankar, D. Li, Y. Zhang, "Preble: Efficient Distributed Prompt
/// Scheduling for LLM Serving" (arXiv:2407.00023, ICLR 2025), algorithm E2: window of 3 minutes. The
/// ratio at which load is shifted is a parameter there; 2 is ours. Theirs profiles times in
/// advance; here they are learned. Theirs pushes blindly.
pub(super) fn preble(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    if let Some(position) = exploited(view, context) {
        return Choice {
            position,
            basis: Basis::Match,
        };
    }
    let position = smallest(view, context, |candidate| {
        let tokens = u64::from(candidate.evict_tokens) + u64::from(candidate.uncached_tokens);
        candidate.recent_ns + Span::from_ns(candidate.ns_per_token.into()) * tokens
    });
    Choice {
        position,
        basis: Basis::Time,
    }
}

/// The owner to exploit, if it caches more than half of the prompt and is not too loaded. The
/// least load is taken with the prompt computed there, so that it is never nothing.
fn exploited(view: &View<'_>, context: &mut Context<'_>) -> Option<usize> {
    let position = smallest(view, context, |candidate| {
        (Reverse(candidate.match_blocks), candidate.recent_ns)
    });
    let owner = view.candidates.get(position)?;
    let missing = view.prompt_blocks.saturating_sub(owner.match_blocks);
    let least_ns = view.candidates.iter().map(with_prompt_ns).min()?;
    let most_ns = least_ns.ns_f64() * context.config.preble_balance_ratio;
    (owner.match_blocks > missing && owner.recent_ns.ns_f64() <= most_ns).then_some(position)
}

fn with_prompt_ns(candidate: &Candidate) -> Span {
    let token_ns = Span::from_ns(candidate.ns_per_token.into());
    candidate.recent_ns + token_ns * u64::from(candidate.uncached_tokens)
}
