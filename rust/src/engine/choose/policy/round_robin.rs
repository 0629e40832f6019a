//! Round robin.

use super::{Basis, Choice, Context, View};

/// The next candidate after the one chosen last for the model, by slot.
///
/// Source: the paper's baseline "RR" (section 5). The turn is kept as a slot and not as a count, so
/// that candidates that come and go shift nobody's turn.
pub(super) fn round_robin(view: &View<'_>, context: &mut Context<'_>) -> Choice {
    let after = context.last.map_or(0, |slot| {
        view.candidates
            .partition_point(|candidate| candidate.slot <= slot)
    });
    let position = if after < view.candidates.len() {
        after
    } else {
        0
    };
    Choice {
        position,
        basis: Basis::Turn,
    }
}
