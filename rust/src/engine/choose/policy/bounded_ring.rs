//! Consistent hashing with bounded loads.

use super::least_load::least_load;
use super::ring::walk;
use super::{Basis, Choice, Context, View};
use crate::engine::ring::load_bound;

/// The first candidate on the ring whose load is below `ring_load_factor` times the mean that the
/// candidates will have with this request; without a key, the least loaded.
///
/// Source: V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA
/// 2018. Factor 1.25 as in `KubeAI`.
pub(super) fn bounded_ring(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let total: u64 = view
        .candidates
        .iter()
        .map(|candidate| u64::from(candidate.in_flight))
        .sum();
    let bound = load_bound(
        total,
        view.candidates.len(),
        context.config.ring_load_factor,
    );
    let below = |position: usize| u64::from(view.candidates[position].in_flight) < bound;
    match view.key.and_then(|key| walk(view, key, below)) {
        Some(position) => Choice {
            position,
            basis: Basis::Key,
        },
        None => least_load(view, context),
    }
}
