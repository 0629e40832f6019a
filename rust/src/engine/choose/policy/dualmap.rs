//! `DualMap`: two replicas for each prefix.

use super::least_load::least_load;
use super::ring::walk;
use super::{Basis, Choice, Context, View};

/// Tells the second hash of a prefix from the first.
const SECOND: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of two candidates, to which the prompt's first `dualmap_blocks` blocks hash, the one where more of the
/// prompt is cached. If that one is predicted to take longer than `dualmap_slo_s` to the first token, the one
/// that is predicted to take less. Without a prompt, the least loaded.
///
/// Source: `DualMap` (arXiv:2602.06502): two independent hashes of the prefix, affinity first, load where the
/// time to the first token breaks its objective. Theirs also moves waiting requests away from hot replicas, and
/// pushes blindly; ours gives a pushed request up only when it fails.
pub(super) fn dualmap(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let hashed = view.blocks.len().min(context.config.dualmap_blocks as usize);
    let Some(prefix) = hashed.checked_sub(1).and_then(|last| view.blocks.get(last)) else {
        return least_load(view, context);
    };
    let Some(first) = walk(view, *prefix, |_| true) else {
        return least_load(view, context);
    };
    let second = walk(view, prefix.rotate_left(32) ^ SECOND, |position| position != first);
    let second = second.unwrap_or(first);
    let cached = |position: usize| view.candidates[position].match_blocks;
    let load = |position: usize| view.candidates[position].in_flight;
    let warmer = match cached(first).cmp(&cached(second)) {
        std::cmp::Ordering::Less => second,
        std::cmp::Ordering::Equal if load(second) < load(first) => second,
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => first,
    };
    let ttft_ns = |position: usize| view.candidates[position].ttft_ns();
    if ttft_ns(warmer) <= context.config.dualmap_slo_ns {
        return Choice {
            position: warmer,
            basis: Basis::Match,
        };
    }
    Choice {
        position: if ttft_ns(second) < ttft_ns(first) { second } else { first },
        basis: Basis::Time,
    }
}
