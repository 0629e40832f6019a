//! Least load.

use super::{Basis, Choice, Context, View, smallest};

/// The candidate with the fewest requests in flight from here.
///
/// Source: the paper's baseline "LL" (section 5) and the exploration branch of its algorithm;
/// in flight as the load is what Envoy's and nginx's least-request policies count.
pub(super) fn least_load(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let position = smallest(view, context, |candidate| candidate.in_flight);
    Choice {
        position,
        basis: Basis::Load,
    }
}
