//! Consistent hashing with bounded loads.

use super::least_load::least_load;
use super::ring::walk;
use super::{Basis, Choice, Context, View};

/// The first candidate on the ring whose load, with this request, stays within `ring_load_factor`
/// times the mean; without a key, the least loaded.
///
/// Source: V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA
/// 2018: capacity of each bin `ceil(c * (balls + 1) / bins)`. Factor 1.25 as in `KubeAI`.
pub(super) fn bounded_ring(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let in_flight: u64 = view.candidates.iter().map(|candidate| u64::from(candidate.in_flight)).sum();
    let load_max = capacity(context.config.ring_load_factor, in_flight, view.candidates.len());
    let fits = |position: usize| f64::from(view.candidates[position].in_flight) + 1.0 <= load_max;
    match view.key.and_then(|key| walk(view, key, fits)) {
        Some(position) => Choice { position, basis: Basis::Key },
        None => least_load(view, context),
    }
}

/// The most requests one bin may have once one more than `in_flight` are spread over `bins`.
#[expect(clippy::cast_precision_loss, reason = "counts of requests and replicas are far below 2^52")]
fn capacity(factor: f64, in_flight: u64, bins: usize) -> f64 {
    (factor * (in_flight + 1) as f64 / bins.max(1) as f64).ceil()
}
