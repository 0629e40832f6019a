//! What a choice looks at, computed from the replicas themselves, one by one, with nothing remembered:
//! held against what every choice of every test looked at.

use super::*;
use crate::engine::choose::policy::{Candidate, Slot};
use crate::engine::config::Policy;
use crate::engine::fleet::figures::Card;
use crate::engine::fleet::member::Offer;
use crate::engine::requests::request::Request;

impl Router {
    pub(in crate::engine) fn check_look(
        &mut self,
        request: &Request,
        full: bool,
        now_ns: Nanos,
        (offer, candidates): (Offer, &[Candidate]),
    ) {
        let offers = self.offers_to(request, now_ns);
        let best = offers.iter().map(|(_, offer)| *offer).max();
        assert_eq!(offer, best.unwrap_or(Offer::None));
        if offer != Offer::Room {
            return;
        }
        let mut matches = Vec::new();
        self.tree.matches(&request.blocks, &mut matches);
        let silent = |slot| self.fleet.member(slot).unwrap().replica.health.silent();
        let heard_of = offers
            .iter()
            .any(|(slot, offer)| *offer == Offer::Room && !silent(*slot));
        let crowded = offers
            .iter()
            .any(|(slot, offer)| *offer == Offer::Room && silent(*slot));
        let open = offers.iter().filter(|(slot, offer)| {
            (full || *offer == Offer::Room) && !(heard_of && crowded && silent(*slot))
        });
        let plain: Vec<_> = open
            .map(|&(slot, offer)| {
                let found = matches.iter().find(|(owner, _)| *owner == slot);
                let match_blocks = found.map_or(0, |(_, blocks)| *blocks);
                self.plain_candidate(request, slot, (offer, match_blocks), now_ns)
            })
            .collect();
        assert_eq!(candidates, plain);
    }

    fn plain_candidate(
        &self,
        request: &Request,
        slot: Slot,
        (offer, match_blocks): (Offer, u32),
        now_ns: Nanos,
    ) -> Candidate {
        let (member, policy) = (self.fleet.member(slot).unwrap(), self.config.policy);
        let plain = Candidate {
            slot,
            room: offer == Offer::Room,
            in_flight: member.all_in_flight(),
            match_blocks,
            tree_blocks: if policy.reads_trees() {
                self.tree.owner_blocks(slot)
            } else {
                0
            },
            ..Candidate::default()
        };
        if !policy.reads_figures() {
            return plain;
        }
        let (replica, card) = (&member.replica, Card::of(member, &self.config));
        let expected = self.expected(request);
        let (need, _) = expected.need(&card, match_blocks, self.path(request, match_blocks));
        let pace = expected.pace(&card);
        let behind = self.hold.chosen_before(slot, request.ticket());
        let stay_ns = expected.stay_ns(&card);
        let start_in_ns = replica
            .backlog()
            .start_in_ns(need, behind, pace, stay_ns, now_ns);
        let bases = if plain.room { 1 } else { 2 };
        let recent_ns = member.lately.sum_ns(self.config.preble_window_ns, now_ns);
        Candidate {
            start_in_ns: start_in_ns.saturating_add(pace.base_ns * bases),
            uncached_tokens: need.prefill,
            ns_per_token: pace.token_ns,
            pending: replica.pending(),
            running: replica.load(),
            prefill_tokens: replica.backlog().prefill,
            active_tokens: replica.active_tokens(),
            kv_tokens: replica.kv_tokens(&self.config).max(1),
            kv_used_tokens: replica.kv_used_tokens(&self.config),
            evict_tokens: expected.evicts(&card, plain.tree_blocks, need.prefill),
            recent_ns: if policy == Policy::Preble {
                recent_ns
            } else {
                0
            },
            ..plain
        }
    }
}
