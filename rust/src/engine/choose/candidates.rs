//! What a policy gets to see, and what becomes of its choice.

use std::mem;

use crate::engine::cache::paths::Path;
use crate::engine::choose::policy::{
    self, Basis, Candidate, Choice, Context, NOT_A_CANDIDATE, Slot, View,
};
use crate::engine::config::Policy;
use crate::engine::fleet::figures::Card;
use crate::engine::fleet::forecast::Expected;
use crate::engine::fleet::member::Offer;
use crate::engine::fleet::replica::Need;
use crate::engine::fleet::speed::Pace;
use crate::engine::requests::request::{Lane, Request};
use crate::engine::router::Router;
use crate::id::Nanos;

/// Loads whose pace is remembered while one choice is made.
const PACES: usize = 256;

/// Buffers used again from choice to choice.
#[derive(Debug, Default)]
pub(in crate::engine) struct Scratch {
    pub(in crate::engine) candidates: Vec<Candidate>,
    /// Those that the request may go to, and whether they have room.
    open: Vec<(Slot, bool)>,
    /// By slot: the position in `candidates`.
    positions: Vec<u32>,
    matches: Vec<(u32, u32)>,
    /// By slot: leading blocks that match; 0 for all but those in `matches`.
    match_blocks: Vec<u32>,
    paces: Paces,
}

impl Scratch {
    /// Leading blocks that match at a replica that was looked at last.
    pub(in crate::engine) fn match_blocks(&self, slot: Slot) -> u32 {
        let position = self.positions.get(slot as usize).copied();
        let position = position.unwrap_or(NOT_A_CANDIDATE) as usize;
        let candidate = self.candidates.get(position);
        candidate.map_or(0, |candidate| candidate.match_blocks)
    }
}

/// What is the same for all candidates of one choice.
struct Common<'a> {
    request: &'a Request,
    expected: Expected<'a>,
    /// What the request takes of a replica that caches nothing of it.
    need: Need,
    /// As many free blocks as that needs, or more.
    blocks_enough: u32,
    stay_ns: Nanos,
    /// Tokens up to where most of the matching candidates match.
    path: (u32, Option<Path>),
    /// Some request waits for a replica by choice.
    any_chosen: bool,
    now_ns: Nanos,
}

/// The fleet's pace by load: many replicas have the same.
#[derive(Debug, Default)]
struct Paces(Vec<Option<Pace>>);

impl Paces {
    fn clear(&mut self) {
        self.0.clear();
        self.0.resize(PACES, None);
    }

    #[inline]
    fn at(&mut self, load: u32, expected: &Expected<'_>) -> Pace {
        match self.0.get_mut(load as usize) {
            Some(pace) => *pace.get_or_insert_with(|| expected.fleet_pace(load)),
            None => expected.fleet_pace(load),
        }
    }
}

/// What became of the search for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Found {
    /// Push there; so many leading blocks match.
    Here { slot: Slot, match_blocks: u32 },
    /// Others have room, but the one that has not is worth waiting for.
    Awaits { slot: Slot },
    /// Replicas are ready for it, but none has room.
    NoRoom,
    /// No replica is ready for it.
    NoneReady,
}

impl Router {
    /// The replica for a request by the policy, over those that may take it now, and under
    /// `predictive`, if it `may_wait`, also over those without room. Replicas on which it failed
    /// are left out while another is ready.
    pub(in crate::engine) fn find(
        &mut self,
        request: &Request,
        may_wait: bool,
        now_ns: Nanos,
    ) -> Found {
        let mut scratch = mem::take(&mut self.scratch);
        let predictive = self.config.policy == Policy::Predictive;
        let full = predictive && may_wait && self.may_await(request, now_ns);
        let found = match self.look(request, full, now_ns, &mut scratch) {
            Offer::None => Found::NoneReady,
            Offer::Later => Found::NoRoom,
            Offer::Room => self.choose(request, &scratch),
        };
        self.scratch = scratch;
        found
    }

    /// Fills the candidates with all that the policy looks at; `full`: those without room too.
    /// Says the best that the ready replicas offer; without room for the request, the candidates
    /// are left as they were.
    pub(in crate::engine) fn look(
        &mut self,
        request: &Request,
        full: bool,
        now_ns: Nanos,
        scratch: &mut Scratch,
    ) -> Offer {
        self.fleet.refresh(&self.config, now_ns);
        let mut open = mem::take(&mut scratch.open);
        let offer = self.collect(request, full, &mut open);
        scratch.open = open;
        if offer == Offer::Room {
            self.note_matches(request, scratch);
            if self.config.policy.reads_figures() {
                self.fill_with_figures(request, now_ns, scratch);
            } else {
                self.fill(scratch);
            }
        }
        #[cfg(test)]
        self.check_look(request, full, now_ns, (offer, &scratch.candidates));
        offer
    }

    /// Fills `open`; the best that the ready replicas offer.
    fn collect(&self, request: &Request, full: bool, open: &mut Vec<(Slot, bool)>) -> Offer {
        let untried = self.collect_from(request, full, false, open);
        if untried == Offer::None && !request.tried.is_empty() {
            return self.collect_from(request, full, true, open);
        }
        untried
    }

    pub(in crate::engine) fn collect_from(
        &self,
        request: &Request,
        full: bool,
        tried: bool,
        open: &mut Vec<(Slot, bool)>,
    ) -> Offer {
        open.clear();
        let bound = request.bound.and_then(|id| self.fleet.slot(id));
        let excludes = !tried && !request.tried.is_empty();
        let mut best = Offer::None;
        let (mut heard_of, mut silent) = (false, false);
        for &slot in self.serving(request, bound.as_ref()) {
            let Some(door) = self.fleet.door(slot) else {
                continue;
            };
            if !request.may_use(door.region_bit) || (excludes && request.tried.contains(&door.id)) {
                continue;
            }
            let offer = door.offer(request.lane);
            if offer == Offer::Room || (full && offer == Offer::Later) {
                open.push((slot, offer == Offer::Room));
            }
            if offer == Offer::Room {
                heard_of |= !door.silent;
                silent |= door.silent;
            }
            best = best.max(offer);
        }
        if silent && heard_of {
            // Room at a replica of which nothing is heard is for those who find no other.
            let heard = |slot| self.fleet.door(slot).is_some_and(|door| !door.silent);
            open.retain(|&(slot, _)| heard(slot));
        }
        best
    }

    /// The replicas that could serve a request: all that serve its model, or the one that it is
    /// bound to.
    fn serving<'a>(&'a self, request: &Request, bound: Option<&'a Slot>) -> &'a [Slot] {
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        match (bound, request.bound, model) {
            (Some(slot), _, Some(model)) if !model.serving.contains(slot) => &[],
            (Some(slot), ..) => std::slice::from_ref(slot),
            (None, None, Some(model)) => &model.serving,
            _ => &[],
        }
    }

    /// How many replicas could serve a request.
    pub(in crate::engine) fn serving_len(&self, request: &Request) -> usize {
        let bound = request.bound.and_then(|id| self.fleet.slot(id));
        self.serving(request, bound.as_ref()).len()
    }

    /// Notes what the replicas are believed to cache of the prompt.
    fn note_matches(&mut self, request: &Request, scratch: &mut Scratch) {
        let slots_end = self.fleet.slots_end();
        scratch.positions.clear();
        scratch.positions.resize(slots_end, NOT_A_CANDIDATE);
        scratch.match_blocks.clear();
        scratch.match_blocks.resize(slots_end, 0);
        scratch.matches.clear();
        if !request.blocks.is_empty() {
            self.tree.matches(&request.blocks, &mut scratch.matches);
        }
        for &(owner, blocks) in &scratch.matches {
            if let Some(match_blocks) = scratch.match_blocks.get_mut(owner as usize) {
                *match_blocks = blocks;
            }
        }
    }

    /// Fills the candidates for a policy that predicts nothing.
    fn fill(&self, scratch: &mut Scratch) {
        let reads_trees = self.config.policy.reads_trees();
        scratch.candidates.clear();
        for (position, &(slot, room)) in (0..).zip(&scratch.open) {
            let trees = reads_trees.then(|| self.tree.owner_blocks(slot));
            scratch.positions[slot as usize] = position;
            scratch.candidates.push(Candidate {
                slot,
                room,
                in_flight: self.fleet.card(slot).map_or(0, |card| card.in_flight),
                match_blocks: scratch.match_blocks[slot as usize],
                tree_blocks: trees.unwrap_or(0),
                ..Candidate::default()
            });
        }
    }

    /// Fills the candidates with loads, and with what the request would cost each of them.
    fn fill_with_figures(&self, request: &Request, now_ns: Nanos, scratch: &mut Scratch) {
        let expected = self.expected(request);
        let need = expected.need_unmatched();
        let mut common = Common {
            request,
            need,
            blocks_enough: expected.blocks_enough(need.prefill),
            stay_ns: expected.fleet_stay_ns(),
            path: (0, None),
            any_chosen: self.hold.any_chosen(),
            expected,
            now_ns,
        };
        scratch.paces.clear();
        scratch.candidates.clear();
        for (position, &(slot, room)) in (0..).zip(&scratch.open) {
            let Some(card) = self.fleet.card(slot) else {
                continue;
            };
            let match_blocks = scratch.match_blocks[slot as usize];
            let found = (slot, room, match_blocks);
            let candidate = self.figures(card, found, &mut common, &mut scratch.paces);
            scratch.positions[slot as usize] = position;
            scratch.candidates.push(candidate);
        }
    }

    /// One candidate, given by its slot, whether it has room, and how many leading blocks match.
    #[inline]
    fn figures(
        &self,
        card: &Card,
        (slot, room, match_blocks): (Slot, bool, u32),
        common: &mut Common<'_>,
        paces: &mut Paces,
    ) -> Candidate {
        let now_ns = common.now_ns;
        let need = if match_blocks == 0 {
            common.need
        } else {
            if common.path.0 != match_blocks {
                common.path = (match_blocks, self.path(common.request, match_blocks));
            }
            common.expected.need(card, match_blocks, common.path.1).0
        };
        let load = card.backlog.load;
        let pace = card
            .pace
            .unwrap_or_else(|| paces.at(load, &common.expected));
        let behind = if common.any_chosen {
            self.hold.chosen_before(slot, common.request.ticket())
        } else {
            0
        };
        let stay_ns = card.stay_ns.unwrap_or(common.stay_ns);
        let start_in_ns = card
            .backlog
            .start_in_ns(need, behind, pace, stay_ns, now_ns);
        // Without room, the one that is pending there has to start before this one may be pushed.
        let bases = if room { 1 } else { 2 };
        let policy = self.config.policy;
        let trees = policy.reads_trees().then(|| self.tree.owner_blocks(slot));
        let tree_blocks = trees.unwrap_or(0);
        let free_blocks = card.capacity_blocks.saturating_sub(tree_blocks);
        let fits = free_blocks >= common.blocks_enough && need.prefill <= common.need.prefill;
        let evicts = || common.expected.evicts(card, tree_blocks, need.prefill);
        Candidate {
            slot,
            room,
            in_flight: card.in_flight,
            pending: card.pending,
            match_blocks,
            tree_blocks,
            start_in_ns: start_in_ns.saturating_add(pace.base_ns * bases),
            uncached_tokens: need.prefill,
            ns_per_token: pace.token_ns,
            running: load,
            prefill_tokens: card.backlog.prefill,
            active_tokens: card.active_tokens,
            kv_used_tokens: card.kv_used_tokens,
            kv_tokens: card.kv_tokens,
            evict_tokens: if fits { 0 } else { evicts() },
            recent_ns: if policy == Policy::Preble {
                self.recent_ns(slot, now_ns)
            } else {
                0
            },
        }
    }

    /// Work given to a replica lately.
    fn recent_ns(&self, slot: Slot, now_ns: Nanos) -> u64 {
        let member = self.fleet.member(slot);
        member.map_or(0, |member| {
            member.lately.sum_ns(self.config.preble_window_ns, now_ns)
        })
    }

    /// Lets the policy choose among the candidates, of which at least one has room.
    fn choose(&mut self, request: &Request, scratch: &Scratch) -> Found {
        let choice = self.choice(request, &scratch.candidates, &scratch.positions);
        let chosen = scratch.candidates[choice.position];
        if !chosen.room {
            return Found::Awaits { slot: chosen.slot };
        }
        self.counters.count_basis(choice.basis);
        Found::Here {
            slot: chosen.slot,
            match_blocks: chosen.match_blocks,
        }
    }

    fn choice(&mut self, request: &Request, candidates: &[Candidate], positions: &[u32]) -> Choice {
        let home = self.home(request);
        let fleet = &mut self.fleet;
        let view = View {
            candidates,
            positions,
            prompt_blocks: request.prompt_blocks,
            key: request.key,
            home,
            ring: &fleet.ring,
            slots: &fleet.slots,
        };
        let mut none = None;
        let model = request
            .model
            .and_then(|id| fleet.models.get_mut(id.0 as usize));
        let last = model.map_or(&mut none, |model| &mut model.last);
        let choice = if candidates.len() == 1 {
            Choice {
                position: 0,
                basis: Basis::Only,
            }
        } else {
            let context = &mut Context {
                config: &self.config,
                rng: &mut self.rng,
                last,
            };
            policy::choose(&view, context)
        };
        *last = Some(candidates[choice.position].slot);
        choice
    }

    /// The replica that the request's session was pushed to last.
    fn home(&mut self, request: &Request) -> Option<Slot> {
        if self.config.policy != Policy::Predictive {
            return None;
        }
        let replica = self.sessions.find(&request.key?.to_le_bytes())?;
        self.fleet.slot(replica)
    }

    /// Whether a request may wait for a replica without room while others have some.
    fn may_await(&self, request: &Request, now_ns: Nanos) -> bool {
        match request.ticket() {
            Some(ticket) => self.hold.may_choose(ticket, &self.config, now_ns),
            None => self.may_hold_by_choice(request),
        }
    }

    /// One that is not held waits by choice at its first attempt only.
    pub(in crate::engine) fn may_hold_by_choice(&self, request: &Request) -> bool {
        request.lane == Lane::Batch && request.attempts == 0 && self.config.affinity_wait_ns > 0
    }
}
