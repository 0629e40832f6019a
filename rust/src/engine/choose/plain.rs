//! What a choice reads, computed from the replicas themselves, one by one, with nothing
//! remembered. It is compared with what every choice of every test read.

use super::policy::Candidate;
use super::{Seeker, Sight, matched_tokens};
use crate::engine::fleet::figures::{Details, Figures};
use crate::engine::fleet::member::Offer;
use crate::id::ReplicaSlot;
use crate::time::Span;

pub(super) fn check(
    seeker: Seeker<'_>,
    full: bool,
    sight: &mut Sight<'_>,
    (offer, candidates): (Offer, &[Candidate]),
) {
    let offers = sight
        .fleet
        .offers_to(seeker.demand, sight.config, sight.now);
    let best = offers.iter().map(|(_, offer)| *offer).max();
    assert_eq!(offer, best.unwrap_or(Offer::None));
    if offer != Offer::Room {
        return;
    }
    let mut matches = Vec::new();
    sight.cache.matches(&seeker.demand.blocks, &mut matches);
    let silent = |slot| sight.fleet.member(slot).unwrap().replica().health.silent();
    let answering = offers
        .iter()
        .any(|(slot, offer)| *offer == Offer::Room && !silent(*slot));
    let crowded = offers
        .iter()
        .any(|(slot, offer)| *offer == Offer::Room && silent(*slot));
    let open = offers.iter().filter(|(slot, offer)| {
        (full || *offer == Offer::Room) && !(answering && crowded && silent(*slot))
    });
    let plain: Vec<_> = open
        .map(|&(slot, offer)| {
            let found = matches.iter().find(|(owner, _)| *owner == slot);
            let match_blocks = found.map_or(0, |(_, blocks)| *blocks);
            plain_candidate(seeker, slot, (offer, match_blocks), sight)
        })
        .collect();
    assert_eq!(candidates, plain);
}

fn plain_candidate(
    seeker: Seeker<'_>,
    slot: ReplicaSlot,
    (offer, match_blocks): (Offer, u32),
    sight: &Sight<'_>,
) -> Candidate {
    let (config, now) = (sight.config, sight.now);
    let (member, traits) = (sight.fleet.member(slot).unwrap(), config.policy.traits());
    let plain = Candidate {
        slot,
        room: offer == Offer::Room,
        in_flight: member.all_in_flight(),
        match_blocks,
        tree_blocks: if traits.reads_trees {
            sight.cache.owner_blocks(slot)
        } else {
            0
        },
        ..Candidate::default()
    };
    if !traits.reads_figures {
        return plain;
    }
    let (replica, figures) = (member.replica(), Figures::of(member));
    let expected = sight.fleet.expected(seeker.demand, config);
    let tokens = matched_tokens(sight.cache, sight.fleet, seeker.demand, match_blocks);
    let (need, _) = expected.need(&figures, match_blocks, tokens);
    let pace = expected.pace(&figures);
    let behind = sight.hold.chosen_before(slot, seeker.ticket);
    let details = Details::of(member, config);
    let stay_ns = || expected.stay_ns(details.stay_ns);
    let kv = if traits.reads_kv {
        details
    } else {
        Details::default()
    };
    let start_in_ns = replica
        .backlog()
        .start_in_ns(need, behind, pace, stay_ns, now);
    let bases = if plain.room { 1 } else { 2 };
    let capacity_blocks = sight.cache.capacity_blocks(slot);
    let free_blocks = capacity_blocks.saturating_sub(plain.tree_blocks);
    Candidate {
        start_in_ns: (start_in_ns + pace.base_ns * bases),
        uncached_tokens: need.prefill,
        ns_per_token: pace.token_ns,
        pending: replica.pending(),
        running: replica.load(),
        prefill_tokens: replica.backlog().prefill,
        active_tokens: kv.active_tokens,
        kv_tokens: kv.kv_tokens,
        kv_used_tokens: kv.kv_used_tokens,
        evict_tokens: expected.evicts(free_blocks, need.prefill),
        recent_ns: if traits.sums_recent_work {
            sight.fleet.recent_ns(slot, config, now)
        } else {
            Span::ZERO
        },
        ..plain
    }
}
