//! Power of two choices.

use super::{Basis, Choice, Context, View};

/// The less loaded of two different candidates drawn at random; the first drawn when equal.
///
/// Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS
/// 12(10), 2001.
pub(super) fn two_choices(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let len = view.candidates.len();
    let first = context.rng.below(len.max(1));
    let mut position = first;
    if len > 1 {
        let other = context.rng.below(len - 1);
        let second = if other < first { other } else { other + 1 };
        if view.candidates[second].in_flight < view.candidates[first].in_flight {
            position = second;
        }
    }
    Choice {
        position,
        basis: Basis::Load,
    }
}
