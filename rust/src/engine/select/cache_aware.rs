//! `SGLang` router's cache-aware rule.

use super::least_load::least_load;
use super::{Basis, Choice, Context, View, smallest};

/// While the loads are out of balance the least loaded; else the owner of the longest match if that
/// is more than `cache_aware_threshold` of the prompt; else the replica with the smallest tree.
///
/// Source: `SGLang` router's `cache_aware` policy as documented for `sglang-router` and `smg`: out of
/// balance means `max - min > 64` and `max > 1.5 * min` requests in flight, match threshold 0.3
/// (0.5 in older versions). Theirs pushes blindly: compare with `push = "blind"`, where candidates
/// are all ready replicas as they are there.
pub(super) fn cache_aware(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let loads = view.candidates.iter().map(|candidate| candidate.in_flight);
    let (least, most) = loads.fold((u32::MAX, 0), |(least, most), load| {
        (least.min(load), most.max(load))
    });
    let apart = most.saturating_sub(least) > context.config.cache_aware_abs;
    if apart && f64::from(most) > context.config.cache_aware_rel * f64::from(least) {
        return least_load(view, context);
    }
    let longest = view
        .candidates
        .iter()
        .map(|candidate| candidate.match_blocks)
        .max()
        .unwrap_or(0);
    let threshold = context.config.cache_aware_threshold * f64::from(view.prompt_blocks);
    if longest > 0 && f64::from(longest) > threshold {
        let position = smallest(view, context, |candidate| u32::MAX - candidate.match_blocks);
        return Choice {
            position,
            basis: Basis::Match,
        };
    }
    let position = smallest(view, context, |candidate| candidate.tree_blocks);
    Choice {
        position,
        basis: Basis::Load,
    }
}
