//! The paper's tree variant.

use std::cmp::Reverse;

use super::least_load::least_load;
use super::{Basis, Choice, Context, View, smallest};

/// The candidate with the longest matching prefix if that is more than `match_threshold` of the
/// prompt, ties by fewest in flight; otherwise the least loaded.
///
/// Source: the paper's selection rule, tree variant (arXiv:2505.24095, section 3; threshold 0.5).
pub(super) fn prefix(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let longest = view
        .candidates
        .iter()
        .map(|candidate| candidate.match_blocks)
        .max()
        .unwrap_or(0);
    let threshold = context.config.match_threshold * f64::from(view.prompt_blocks);
    if longest == 0 || f64::from(longest) <= threshold {
        return least_load(view, context);
    }
    let position = smallest(view, context, |candidate| {
        (Reverse(candidate.match_blocks), candidate.in_flight)
    });
    Choice {
        position,
        basis: Basis::Match,
    }
}
