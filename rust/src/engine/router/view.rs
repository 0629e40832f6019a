//! What a policy gets to see, and what becomes of its choice.

use std::mem;

use super::Router;
use super::fleet::Offer;
use super::forecast::Expected;
use super::paths::Path;
use super::request::{Lane, Request};
use crate::engine::config::Policy;
use crate::engine::id::Nanos;
use crate::engine::select::{self, Basis, Candidate, Choice, Context, NOT_A_CANDIDATE, Slot, View};

/// Buffers used again from choice to choice.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) candidates: Vec<Candidate>,
    positions: Vec<u32>,
    matches: Vec<(u32, u32)>,
}

impl Scratch {
    /// Leading blocks that match at a replica that was looked at last.
    pub(super) fn match_blocks(&self, slot: Slot) -> u32 {
        let mut candidates = self.candidates.iter();
        let found = candidates.find(|candidate| candidate.slot == slot);
        found.map_or(0, |candidate| candidate.match_blocks)
    }
}

/// What became of the search for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
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
    pub(super) fn find(&mut self, request: &Request, may_wait: bool, now_ns: Nanos) -> Found {
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

    /// The best that the ready replicas offer to a request now.
    pub(super) fn offer_to(&self, request: &Request, now_ns: Nanos) -> Offer {
        self.collect(request, false, now_ns, &mut Vec::new())
    }

    /// Fills the candidates with all that the policy looks at; `full`: those without room too.
    /// Says the best that the ready replicas offer: without room for the request, candidates are
    /// without figures.
    pub(super) fn look(
        &mut self,
        request: &Request,
        full: bool,
        now_ns: Nanos,
        scratch: &mut Scratch,
    ) -> Offer {
        let offer = self.collect(request, full, now_ns, &mut scratch.candidates);
        if offer == Offer::Room {
            self.note_matches(request, scratch);
            let policy = self.config.policy;
            if policy.reads_trees() {
                for candidate in &mut scratch.candidates {
                    candidate.tree_blocks = u64::from(self.tree.owner_blocks(candidate.slot));
                }
            }
            if policy.reads_figures() {
                self.note_figures(request, &mut scratch.candidates, now_ns);
            }
        }
        offer
    }

    /// Fills the candidates; the best that the ready replicas offer.
    fn collect(
        &self,
        request: &Request,
        full: bool,
        now_ns: Nanos,
        out: &mut Vec<Candidate>,
    ) -> Offer {
        out.clear();
        let untried = self.collect_from(request, full, false, now_ns, out);
        if untried == Offer::None && !request.tried.is_empty() {
            return self.collect_from(request, full, true, now_ns, out);
        }
        untried
    }

    fn collect_from(
        &self,
        request: &Request,
        full: bool,
        tried: bool,
        now_ns: Nanos,
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
            if !request.may_use(member.region_bit) || (!tried && request.tried.contains(&member.id))
            {
                continue;
            }
            let offer = member.offer(request.lane, &self.config, now_ns);
            if offer == Offer::Room || (full && offer == Offer::Later) {
                out.push(Candidate {
                    slot,
                    room: offer == Offer::Room,
                    in_flight: member.in_flight(),
                    ..Candidate::default()
                });
            }
            best = best.max(offer);
        }
        best
    }

    /// Notes what each candidate is believed to cache of the prompt.
    fn note_matches(&mut self, request: &Request, scratch: &mut Scratch) {
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
    }

    /// Notes loads, and what the request would cost each candidate.
    fn note_figures(&self, request: &Request, candidates: &mut [Candidate], now_ns: Nanos) {
        let expected = self.expected(request);
        // Most candidates match alike.
        let mut known = (0, None);
        for candidate in candidates {
            if candidate.match_blocks != known.0 {
                let match_blocks = candidate.match_blocks;
                known = (match_blocks, self.path(request, match_blocks));
            }
            self.note_figures_of(request, &expected, candidate, known.1, now_ns);
        }
    }

    fn note_figures_of(
        &self,
        request: &Request,
        expected: &Expected<'_>,
        candidate: &mut Candidate,
        path: Option<Path>,
        now_ns: Nanos,
    ) {
        let Some(member) = self.fleet.member(candidate.slot) else {
            return;
        };
        let replica = &member.replica;
        let (need, _) = expected.need(member, candidate.match_blocks, path);
        let line = expected.line(member);
        let behind = self.hold.chosen_before(candidate.slot, request.ticket());
        let start_in_ns = replica.start_in_ns(need, behind, line, expected.stay_ns(member), now_ns);
        // Without room, the one that is pending there has to start before this one may be pushed.
        let bases = if candidate.room { 1 } else { 2 };
        candidate.start_in_ns = start_in_ns.saturating_add(line.base_ns_whole() * bases);
        candidate.uncached_tokens = need.prefill;
        candidate.ns_per_token = line.token_ns_whole();
        candidate.pending = replica.pending();
        candidate.running = replica.load();
        candidate.prefill_tokens = replica.prefill_tokens();
        candidate.active_tokens = replica.active_tokens();
        candidate.kv_tokens = replica.kv_tokens(&self.config).max(1);
        candidate.kv_used_tokens = replica.kv_used_tokens(&self.config);
        candidate.evict_tokens = expected.evicts(member, candidate);
        candidate.recent_ns = member.lately.sum_ns(self.config.preble_window_ns, now_ns);
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
            select::choose(&view, context)
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
    pub(super) fn may_hold_by_choice(&self, request: &Request) -> bool {
        request.lane == Lane::Batch && request.attempts == 0 && self.config.affinity_wait_ns > 0
    }
}
