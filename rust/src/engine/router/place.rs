//! Placing requests: which replica now, or the hold, or a refusal.

use std::mem;

use smallvec::SmallVec;

use super::Router;
use super::fleet::Offer;
use super::request::{Attempt, Lane, Phase, Refusal, Request};
use crate::engine::config::Policy;
use crate::engine::effect::{Effect, Push};
use crate::engine::hold::{Partition, Ticket};
use crate::engine::id::{Nanos, RequestId};
use crate::engine::select::{self, Basis, Candidate, Choice, Context, NOT_A_CANDIDATE, Slot, View};

/// Buffers used again from choice to choice.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    candidates: Vec<Candidate>,
    positions: Vec<u32>,
    matches: Vec<(u32, u32)>,
}

/// What became of the search for a replica.
enum Found {
    /// Push there; so many leading blocks match.
    Here { slot: Slot, match_blocks: u32 },
    /// Replicas are ready for it, but none has room.
    NoRoom,
    /// No replica is ready for it.
    NoneReady,
}

impl Router {
    /// Pushes the request if it may be pushed now, else holds it, else refuses it: with `failed`
    /// where that is given (a retry), or with what stood in the way.
    pub(super) fn settle(
        &mut self,
        id: RequestId,
        mut request: Request,
        failed: Option<Refusal>,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        if let Some(partition) = request.partition().filter(|_| request.lane == Lane::Batch) {
            // Those that are older go first, if room has come with time alone.
            while self.serve_one(partition, request.age, now_ns, out) {}
        }
        match self.find(&request, now_ns) {
            Found::Here { slot, match_blocks } => {
                self.push(id, request, slot, match_blocks, now_ns, out);
            }
            Found::NoneReady => {
                let refusal = failed.unwrap_or_else(|| self.none_ready());
                self.refuse(id, &request, refusal, out);
            }
            Found::NoRoom => {
                if let Some(ticket) = self.enter_hold(id, &request, now_ns) {
                    request.phase = Phase::Held {
                        ticket,
                        since_ns: now_ns,
                    };
                    self.requests.insert(id, request);
                    out.push(Effect::Hold(id));
                } else {
                    let refusal = failed.unwrap_or_else(|| self.no_room(request.lane));
                    self.refuse(id, &request, refusal, out);
                }
            }
        }
    }

    /// A place in the hold, unless the request may not wait, has waited its time, or the hold is
    /// full.
    fn enter_hold(&mut self, id: RequestId, request: &Request, now_ns: Nanos) -> Option<Ticket> {
        if request.lane != Lane::Batch {
            return None;
        }
        let left_ns = self.config.hold_timeout_ns.saturating_sub(request.held_ns);
        let partition = request.partition().filter(|_| left_ns > 0)?;
        let deadline_ns = now_ns.saturating_add(left_ns);
        let ticket = self.hold.enter(partition, id, request.age, deadline_ns);
        self.counters.hold_entered += u64::from(ticket.is_some());
        self.counters.hold_full += u64::from(ticket.is_none());
        ticket
    }

    /// Starts held requests while `slot` has room that one of them may use.
    pub(super) fn dispatch(&mut self, slot: Slot, now_ns: Nanos, out: &mut Vec<Effect>) {
        self.expire_due(now_ns, out);
        let mut stuck: SmallVec<[Partition; 4]> = SmallVec::new();
        while !self.hold.is_empty() {
            let Some(member) = self.fleet.member(slot) else {
                return;
            };
            if member.offer(Lane::Batch, &self.config, now_ns) != Offer::Room {
                return;
            }
            let serves = |partition: &Partition| {
                let models = member.models.as_deref().unwrap_or_default();
                partition.bound.is_none_or(|bound| bound == member.id)
                    && models
                        .binary_search_by_key(&partition.model, |(model, _)| *model)
                        .is_ok()
            };
            let lines = self.hold.heads().filter(|(partition, _)| serves(partition));
            let open = lines.filter(|(partition, _)| !stuck.contains(partition));
            let Some((partition, _)) = open.min_by_key(|(_, age)| *age) else {
                return;
            };
            if !self.serve_one(partition, u64::MAX, now_ns, out) {
                stuck.push(partition);
            }
        }
    }

    /// [`Self::dispatch`] for every replica: what may have given room is not known.
    pub(super) fn dispatch_all(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        self.swept_ns = now_ns;
        self.expire_due(now_ns, out);
        if !self.hold.is_empty() {
            for slot in self.fleet.all_slots() {
                self.dispatch(slot, now_ns, out);
            }
        }
    }

    /// Pushes the oldest request of a line that can use the room there is, if it is older than
    /// `age`. Only a request that must go elsewhere than where it failed is passed over.
    fn serve_one(
        &mut self,
        partition: Partition,
        age: u64,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> bool {
        let mut next = self.hold.oldest(partition);
        while let Some((ticket, id)) = next {
            let older = |request: &Request| request.age < age;
            if !self.requests.get(&id).is_some_and(older) {
                return false;
            }
            let Some(request) = self.requests.remove(&id) else {
                return false;
            };
            if let Found::Here { slot, match_blocks } = self.find(&request, now_ns) {
                let request = self.leave_hold(ticket, request, now_ns);
                self.push(id, request, slot, match_blocks, now_ns, out);
                return true;
            }
            let passed_over = !request.tried.is_empty();
            self.requests.insert(id, request);
            next = if passed_over {
                self.hold.after(ticket)
            } else {
                None
            };
        }
        false
    }

    /// Takes a held request out of the hold, and counts its time there.
    pub(super) fn leave_hold(
        &mut self,
        ticket: Ticket,
        mut request: Request,
        now_ns: Nanos,
    ) -> Request {
        self.hold.leave(ticket);
        if let Phase::Held { since_ns, .. } = request.phase {
            request.held_ns += now_ns.saturating_sub(since_ns);
        }
        request.phase = Phase::Between;
        request
    }

    /// Counts the request in flight, records its prompt in the tree, and asks for the push.
    fn push(
        &mut self,
        id: RequestId,
        mut request: Request,
        slot: Slot,
        match_blocks: u32,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let (tokens, prompt_tokens, cached_tokens) = self.predict(&request, slot, match_blocks);
        let Some(member) = self.fleet.member_mut(slot) else {
            return;
        };
        member.push(id, request.lane, tokens, &self.config, now_ns);
        member.match_blocks_total += u64::from(match_blocks);
        member.prompt_blocks_total += u64::from(request.prompt_blocks);
        let replica = member.id;
        let pin = if request.blocks.is_empty() {
            None
        } else {
            self.tree.insert(slot, &request.blocks)
        };
        self.counters.pushed += 1;
        self.counters.match_blocks += u64::from(match_blocks);
        self.counters.miss_blocks += u64::from(request.prompt_blocks.saturating_sub(match_blocks));
        self.in_flight += 1;
        request.attempts += 1;
        request.phase = Phase::InFlight(Attempt {
            slot,
            pin,
            started: false,
            match_blocks,
            prompt_tokens,
            cached_tokens,
        });
        let attempt = request.attempts;
        self.requests.insert(id, request);
        out.push(Effect::Push(Push {
            request: id,
            replica,
            attempt,
            match_blocks,
        }));
    }

    /// Predicted KV room of the request on a replica, its prompt, and how much of that is cached
    /// there, all in tokens. Matches are rounded down to the engine's own block.
    fn predict(&self, request: &Request, slot: Slot, match_blocks: u32) -> (u32, u32, u32) {
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let (Some(model), Some(member)) = (model, self.fleet.member(slot)) else {
            return (0, 0, 0);
        };
        let prompt = model.ratio.tokens(u64::from(request.prompt_bytes));
        let block = member
            .replica
            .snapshot()
            .and_then(|s| s.block_size)
            .unwrap_or(1)
            .max(1);
        let matched = u64::from(match_blocks) * self.config.block_bytes as u64;
        let cached = model.ratio.tokens(matched).min(prompt) / block * block;
        let output = member.replica.predicted_output(&self.config);
        let output = request.max_tokens.map_or(output, |limit| limit.min(output));
        ((prompt - cached).saturating_add(output), prompt, cached)
    }

    /// The replica for a request by the policy, over those that may take it now. Replicas on which
    /// it failed are left out while another is ready.
    fn find(&mut self, request: &Request, now_ns: Nanos) -> Found {
        let mut scratch = mem::take(&mut self.scratch);
        let found = match self.collect(request, now_ns, &mut scratch.candidates) {
            Offer::None => Found::NoneReady,
            Offer::Later => Found::NoRoom,
            Offer::Room => self.choose(request, &mut scratch),
        };
        self.scratch = scratch;
        found
    }

    /// The best that the ready replicas offer to a request now.
    pub(super) fn offer_to(&self, request: &Request, now_ns: Nanos) -> Offer {
        self.collect(request, now_ns, &mut Vec::new())
    }

    /// Fills the candidates; the best that the ready replicas offer.
    fn collect(&self, request: &Request, now_ns: Nanos, out: &mut Vec<Candidate>) -> Offer {
        out.clear();
        let untried = self.collect_from(request, now_ns, false, out);
        if untried == Offer::None && !request.tried.is_empty() {
            return self.collect_from(request, now_ns, true, out);
        }
        untried
    }

    fn collect_from(
        &self,
        request: &Request,
        now_ns: Nanos,
        tried: bool,
        out: &mut Vec<Candidate>,
    ) -> Offer {
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let bound = request.bound.map(|id| self.fleet.slot(id));
        let one = bound.flatten();
        let serving = match (&one, bound, model) {
            (Some(slot), _, Some(model)) if !model.serving.contains(slot) => &[],
            (Some(slot), ..) => std::slice::from_ref(slot),
            (None, None, Some(model)) => model.serving.as_slice(),
            _ => &[],
        };
        let mut best = Offer::None;
        for &slot in serving {
            let Some(member) = self.fleet.member(slot) else {
                continue;
            };
            if !tried && request.tried.contains(&member.id) {
                continue;
            }
            let offer = member.offer(request.lane, &self.config, now_ns);
            if offer == Offer::Room {
                let in_flight = member.in_flight();
                out.push(Candidate {
                    slot,
                    in_flight,
                    match_blocks: 0,
                    tree_blocks: 0,
                });
            }
            best = best.max(offer);
        }
        best
    }

    /// Lets the policy choose among the candidates.
    fn choose(&mut self, request: &Request, scratch: &mut Scratch) -> Found {
        let Scratch {
            candidates,
            positions,
            matches,
        } = scratch;
        positions.clear();
        positions.resize(self.fleet.members.capacity(), NOT_A_CANDIDATE);
        for (position, candidate) in (0..).zip(candidates.iter()) {
            positions[candidate.slot as usize] = position;
        }
        matches.clear();
        if !request.blocks.is_empty() {
            self.tree.matches(&request.blocks, matches);
        }
        for (owner, match_blocks) in matches.iter() {
            let position = positions
                .get(*owner as usize)
                .copied()
                .unwrap_or(NOT_A_CANDIDATE);
            if let Some(candidate) = candidates.get_mut(position as usize) {
                candidate.match_blocks = *match_blocks;
            }
        }
        if self.config.policy == Policy::CacheAware {
            for candidate in candidates.iter_mut() {
                candidate.tree_blocks = u64::from(self.tree.owner_blocks(candidate.slot));
            }
        }
        let choice = self.choice(request, candidates, positions);
        let Candidate {
            slot, match_blocks, ..
        } = candidates[choice.position];
        self.counters.count_basis(choice.basis);
        Found::Here { slot, match_blocks }
    }

    fn choice(&mut self, request: &Request, candidates: &[Candidate], positions: &[u32]) -> Choice {
        let fleet = &mut self.fleet;
        let view = View {
            candidates,
            positions,
            prompt_blocks: request.prompt_blocks,
            key: request.key,
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
            select::choose(&view, context)
        };
        *last = Some(candidates[choice.position].slot);
        choice
    }
}
