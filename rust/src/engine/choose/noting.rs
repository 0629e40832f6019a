//! What receipts keep of a search for a replica.

use super::policy::Candidate;
use super::{Room, Seeker, Sight};
use crate::engine::receipts::Receipts;
use crate::engine::receipts::search::{Found, Noted};
use crate::id::ReplicaSlot;

/// Notes what a search found, and which replicas were no candidates.
pub(super) fn note_search(
    seeker: Seeker<'_>,
    found: Found,
    (open, is_candidate): (&[(ReplicaSlot, bool)], impl Fn(ReplicaSlot) -> bool),
    sight: &Sight<'_>,
    receipts: &mut Receipts,
) {
    let search = receipts.search();
    search.found = found;
    let weighed = !search.candidates.is_empty();
    let spared = seeker.room == Room::Spared;
    if !weighed || spared || open.len() < sight.fleet.servants_len(seeker.demand) {
        let (config, now) = (sight.config, sight.now);
        let is_candidate = |slot| weighed && is_candidate(slot);
        let is_open = |slot: ReplicaSlot| open.binary_search_by_key(&slot, |(of, _)| *of).is_ok();
        let is_spared = |slot| spared && is_open(slot);
        let demand = seeker.demand;
        (sight.fleet).closed_to(demand, is_candidate, config, now, |(slot, replica), why| {
            let why = if is_spared(slot) { "spared" } else { why };
            search.add_closed(replica, why);
        });
    }
    receipts.searched(seeker.age);
}

/// A candidate as receipts keep it.
pub(super) fn noted(candidate: &Candidate, sight: &Sight<'_>) -> Option<Noted> {
    let member = sight.fleet.member(candidate.slot)?;
    let closed = || {
        let why = member.closed_by(sight.config, sight.now);
        why.unwrap_or("in_flight_max")
    };
    Some(Noted {
        replica: member.id(),
        candidate: *candidate,
        closed: (!candidate.room).then(closed),
    })
}
