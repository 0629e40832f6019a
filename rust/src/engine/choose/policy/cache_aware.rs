//! `SGLang` router's cache-aware rule.

use super::least_load::least_load;
use super::{Basis, Candidate, Choice, Config, Context, View, smallest};
use crate::engine::config::CacheAwareFallback;

/// While the loads are out of balance the least loaded; else the owner of the longest match if that
/// is more than `cache_aware_threshold` of the prompt; else the least loaded, or the replica with the smallest
/// tree (`cache_aware_fallback`).
///
/// Source: `SGLang` router's `cache_aware` policy as documented for `sglang-router` and `smg`: out of
/// balance means `max - min > 64` and `max > 1.5 * min` requests in flight, match threshold 0.3
/// (0.5 in older versions). Since December 2025 (sgl-project/sglang#14650) the least load decides where
/// too little matches; before that the smallest tree did. Theirs pushes blindly: compare with `push = "blind"`, where candidates
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
    let measure = fallback(context.config);
    let position = smallest(view, context, measure);
    Choice {
        position,
        basis: Basis::Load,
    }
}

/// What decides where too little matches: the least of it.
pub(super) fn fallback(config: &Config) -> impl Fn(&Candidate) -> u32 + use<> {
    let rule = config.cache_aware_fallback;
    move |candidate| match rule {
        CacheAwareFallback::LeastLoad => candidate.in_flight,
        CacheAwareFallback::SmallestTree => candidate.tree_blocks,
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
