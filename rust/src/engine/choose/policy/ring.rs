//! The paper's hash variant, SkyLB-CH.

use super::least_load::least_load;
use super::{Basis, Choice, Context, NOT_A_CANDIDATE, View};

/// The first candidate on the ring from the key's place on; without a key, the least loaded.
///
/// Source: the paper's hash variant (arXiv:2505.24095, section 3): ring hash of the user or session
/// with virtual nodes, walking on past owners that are not available.
pub(super) fn ring(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    match view.key.and_then(|key| walk(view, key, |_| true)) {
        Some(position) => Choice {
            position,
            basis: Basis::Key,
        },
        None => least_load(view, context),
    }
}

/// The first position on the ring, from the key's place on, that is a candidate and is accepted.
pub(super) fn walk(view: &View<'_>, key: u64, accept: impl Fn(usize) -> bool) -> Option<usize> {
    view.ring
        .walk(key)
        .filter_map(|replica| view.slots.get(&replica))
        .filter_map(|&slot| view.positions.get(slot.index()).copied())
        .filter(|&position| position != NOT_A_CANDIDATE)
        .map(|position| position as usize)
        .find(|&position| accept(position))
}
