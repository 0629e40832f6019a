//! smg's cache-aware rule with its overload cut-off.

use super::cache_aware::{apart, fallback, longest_above};
use super::{Basis, Candidate, Choice, Context, View, smallest_of};

/// As `cache_aware`, over the candidates that are not overloaded; those are left out when at least
/// `smg_waiting_max` requests wait there or `smg_kv_ratio_max` of their KV cache is in use. When
/// all are, all count.
///
/// Source: smg 1.13's documentation of `cache_aware` (the thresholds of `cache_aware`) and of its
/// overload guard (8 waiting, 0.8 of the KV cache). Theirs pushes blindly.
pub(super) fn smg(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let config = context.config;
    let spared = |candidate: &Candidate| {
        candidate.pending < config.smg_waiting_max && kv_ratio(candidate) < config.smg_kv_ratio_max
    };
    let none_spared = !view.candidates.iter().any(spared);
    let counts = |candidate: &Candidate| none_spared || spared(candidate);
    let loads = view.candidates.iter().filter(|c| counts(c));
    if apart(loads.map(|candidate| candidate.in_flight), config) {
        let position = smallest_of(view, context, counts, |candidate| candidate.in_flight);
        return Choice {
            position,
            basis: Basis::Load,
        };
    }
    let matches = view.candidates.iter().filter(|c| counts(c));
    let matches = matches.map(|candidate| candidate.match_blocks);
    if let Some(longest) = longest_above(matches, view, config) {
        let position = smallest_of(view, context, counts, |candidate| {
            longest - candidate.match_blocks.min(longest)
        });
        return Choice {
            position,
            basis: Basis::Match,
        };
    }
    let position = smallest_of(view, context, counts, fallback(config));
    Choice {
        position,
        basis: Basis::Load,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "token counts are far below 2^53"
)]
fn kv_ratio(candidate: &Candidate) -> f64 {
    candidate.kv_used_tokens as f64 / candidate.kv_tokens.max(1) as f64
}
