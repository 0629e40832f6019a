//! What receipts keep of a search for a replica.

use super::policy::Candidate;
use super::{Seeker, Sight};
use crate::engine::receipts::Receipts;
use crate::engine::receipts::search::{Found, Noted};
use crate::id::ReplicaSlot;

/// Notes what a search found, and which replicas were no candidates.
pub(super) fn note_search(
    seeker: Seeker<'_>,
    found: Found,
    open: &[(ReplicaSlot, bool)],
    sight: &Sight<'_>,
    receipts: &mut Receipts,
) {
    let search = receipts.search();
    search.found = found;
    let weighed = !search.candidates.is_empty();
    let is_candidate =
        |slot: ReplicaSlot| weighed && open.binary_search_by_key(&slot, |(slot, _)| *slot).is_ok();
    if !weighed || open.len() < sight.fleet.servants_len(seeker.demand) {
        let (config, now) = (sight.config, sight.now);
        let demand = seeker.demand;
        (sight.fleet).closed_to(demand, is_candidate, config, now, |replica, why| {
            search.add_closed(replica, why);
        });
    }
    receipts.searched(seeker.age);
}

/// A candidate as receipts keep it.
pub(super) fn noted(candidate: &Candidate, sight: &Sight<'_>) -> Option<Noted> {
    let member = sight.fleet.member(candidate.slot)?;
    let closed = || {
        member
            .closed_by(sight.config, sight.now)
            .unwrap_or("spared")
    };
    Some(Noted {
        replica: member.id(),
        candidate: *candidate,
        closed: (!candidate.room).then(closed),
    })
}
