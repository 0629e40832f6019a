//! `SGLang` router's cache-aware rule.

use super::least_load::least_load;
use super::{Basis, Choice, Config, Context, View, smallest};

/// While the loads are out of balance the least loaded; else the owner of the longest match if that
/// is more than `cache_aware_threshold` of the prompt; else the replica with the smallest tree.
///
/// Source: `SGLang` router's `cache_aware` policy as documented for `sglang-router` and `smg`: out of
/// balance means `max - min > 64` and `max > 1.5 * min` requests in flight, match threshold 0.3
/// (0.5 in older versions). Theirs pushes blindly: compare with `push = "blind"`, where candidates
/// are all ready replicas as they are there.
pub(super) fn cache_aware(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let loads = view.candidates.iter().map(|candidate| candidate.in_flight);
    if apart(loads, context.config) {
        return least_load(view, context);
    }
    let matches = view.candidates.iter();
    let matches = matches.map(|candidate| candidate.match_blocks);
    if longest_above(matches, view, context.config).is_some() {
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

/// The loads are out of balance.
pub(super) fn apart(loads: impl Iterator<Item = u32>, config: &Config) -> bool {
    let (least, most) = loads.fold((u32::MAX, 0), |(least, most), load| {
        (least.min(load), most.max(load))
    });
    most.saturating_sub(least) > config.cache_aware_abs
        && f64::from(most) > config.cache_aware_rel * f64::from(least)
}

/// The longest match, if it is enough of the prompt.
pub(super) fn longest_above(
    matches: impl Iterator<Item = u32>,
    view: &View<'_>,
    config: &Config,
) -> Option<u32> {
    let longest = matches.max().unwrap_or(0);
    let threshold = config.cache_aware_threshold * f64::from(view.prompt_blocks);
    (longest > 0 && f64::from(longest) > threshold).then_some(longest)
}
