//! Requests that go to a peer, and those that come from one.

use std::mem;

use super::Router;
use crate::engine::choose::candidates::Found;
use crate::engine::choose::peer::{self, Target};
use crate::engine::choose::policy::Slot;
use crate::engine::config::Policy;
use crate::engine::effect::{Effect, Forward, Outcome};
use crate::engine::fleet::forecast::Expected;
use crate::engine::fleet::health::Failure;
use crate::engine::hold::{Head, Partition};
use crate::engine::mesh::on_ring;
use crate::engine::plant::Plant;
use crate::engine::requests::request::{Away, ELSEWHERE, Lane, Phase, Request};
use crate::id::{Nanos, RequestId};

/// Times that one request may be refused by peers; then it stays.
const REFUSALS_MAX: u32 = 3;

/// Buffers used again from choice to choice.
#[derive(Debug, Default)]
pub(in crate::engine) struct Scratch {
    targets: Vec<Target>,
    matches: Vec<(u32, u32)>,
}

/// The peer for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct There {
    pub(in crate::engine) slot: Slot,
    pub(in crate::engine) match_blocks: u32,
    /// It is chosen for them, and has told of them itself.
    told: bool,
    /// Predicted time to the first byte, the way included.
    ttft_ns: Nanos,
}

impl Router {
    /// The peer that the request may be forwarded to now, if there is one.
    pub(in crate::engine) fn find_peer(
        &mut self,
        request: &Request,
        now_ns: Nanos,
    ) -> Option<There> {
        self.find_peer_by(request, true, now_ns)
    }

    /// As `find_peer`; `by_told`: what peers have told of their prefixes counts.
    fn find_peer_by(&mut self, request: &Request, by_told: bool, now_ns: Nanos) -> Option<There> {
        let stays = request.stays && !self.config.planted(Plant::CrossedTwice);
        if self.mesh.is_empty() || stays || self.had_better_stay(request, now_ns) {
            return None;
        }
        let mut scratch = mem::take(&mut self.peer_scratch);
        self.look_at_peers(request, now_ns, &mut scratch);
        let found = self.choose_peer(request, by_told, &mut scratch, now_ns);
        self.peer_scratch = scratch;
        found
    }

    /// What is kept of its answer is found again here, where a replica is ready for it.
    fn had_better_stay(&self, request: &Request, now_ns: Nanos) -> bool {
        request.rather_here && !self.mesh.evacuating && self.is_served_here(request, now_ns)
    }

    /// A replica here is ready for the request, with room or without.
    fn is_served_here(&self, request: &Request, now_ns: Nanos) -> bool {
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let mut serving = model.into_iter().flat_map(|model| &model.serving);
        serving.any(|slot| {
            let member = self.fleet.member(*slot);
            member.is_some_and(|member| {
                request.may_use(member.region_bit)
                    && !request.tried.contains(&member.id)
                    && member.ready(&self.config, now_ns)
            })
        })
    }

    /// Fills the targets with the peers that have room for the request.
    fn look_at_peers(&self, request: &Request, now_ns: Nanos, scratch: &mut Scratch) {
        scratch.targets.clear();
        let Some(model) = request.model.and_then(|id| self.model_name(id)) else {
            return;
        };
        let again = self.only_tried_peers_serve(request, model, now_ns);
        let anywhere = self.config.planted(Plant::ResidencyForgotten);
        let for_ever = self.config.planted(Plant::StaleBelieved);
        for (slot, peer) in self.mesh.peers() {
            let lane = peer.lanes.get(model).filter(|_| for_ever);
            let room = match lane {
                Some(lane) => lane.limit.saturating_sub(lane.sent),
                None if request.lane.takes_room() => {
                    peer.room(model, self.config.peer_hold_max, now_ns)
                }
                None => u64::from(peer.serves(model, now_ns)),
            };
            if (anywhere || request.may_use(peer.region_bit))
                && (again || !request.tried_peers.contains(&peer.id))
                && room > 0
            {
                scratch.targets.push(Target {
                    slot,
                    rtt_ns: peer.rtt_ns().unwrap_or(0),
                    in_flight: peer.in_flight,
                    ..Target::default()
                });
            }
        }
    }

    /// Peers that have failed it are all that could serve it: one is better tried again, with its
    /// other replicas, than the request held for nothing.
    fn only_tried_peers_serve(&self, request: &Request, model: &str, now_ns: Nanos) -> bool {
        if request.tried_peers.is_empty() {
            return false;
        }
        let own = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let mut own = own.into_iter().flat_map(|model| &model.serving);
        let here = own.any(|slot| {
            let member = self.fleet.member(*slot);
            member.is_some_and(|member| request.may_use(member.region_bit))
        });
        let untried = self.mesh.peers().any(|(_, peer)| {
            request.may_use(peer.region_bit)
                && !request.tried_peers.contains(&peer.id)
                && peer.serves(model, now_ns)
        });
        !here && !untried
    }

    fn choose_peer(
        &mut self,
        request: &Request,
        by_told: bool,
        scratch: &mut Scratch,
        now_ns: Nanos,
    ) -> Option<There> {
        let Scratch { targets, matches } = scratch;
        if targets.is_empty() {
            return None;
        }
        matches.clear();
        if !request.blocks.is_empty() {
            self.mesh.tree.matches(&request.blocks, matches);
        }
        for target in targets.iter_mut() {
            let found = matches.iter().find(|(owner, _)| *owner == target.slot);
            target.match_blocks = found.map_or(0, |(_, blocks)| *blocks);
        }
        if by_told {
            self.note_told(request, targets, now_ns);
        }
        let predictive = self.config.policy == Policy::Predictive;
        let expected = self.expected(request);
        for target in targets.iter_mut().filter(|_| predictive) {
            target.ttft_ns = self.ttft_there_ns(request, target, &expected);
        }
        let threshold = self.config.match_threshold * f64::from(request.prompt_blocks);
        let on_ring = self.first_on_ring(request, targets);
        let position = peer::choose(targets, self.config.policy, threshold, on_ring)?;
        let matched = f64::from(targets[position].match_blocks) > threshold;
        Some(There {
            slot: targets[position].slot,
            match_blocks: targets[position].match_blocks,
            told: targets[position].told && (predictive || matched),
            ttft_ns: targets[position].ttft_ns,
        })
    }

    /// Time until the first byte of the peer's answer is here: the way, the wait there, and what is
    /// not cached there, at the speed that the peer tells.
    fn ttft_there_ns(&self, request: &Request, target: &Target, expected: &Expected<'_>) -> Nanos {
        let name = request.model.and_then(|id| self.model_name(id));
        let peer = self.mesh.peer(target.slot);
        let lane = peer.zip(name).and_then(|(peer, name)| peer.lanes.get(name));
        let Some(lane) = lane else {
            return Nanos::MAX;
        };
        let tokens = u64::from(expected.uncached(target.match_blocks));
        let compute_ns = tokens.saturating_mul(u64::from(lane.token_ns));
        let ready_ns = lane.start_in_ns.saturating_add(u64::from(lane.base_ns));
        target
            .rtt_ns
            .saturating_add(ready_ns)
            .saturating_add(compute_ns)
    }

    /// Under `predictive`: the peer that answers sooner than the replica that was found, by more
    /// than what would make a session move.
    ///
    /// What peers have told of their prefixes does not count here: a prefix that is computed here
    /// once is cached here, while a session that leaves pays the way at every turn.
    pub(in crate::engine) fn faster_peer(
        &mut self,
        request: &Request,
        found: Found,
        now_ns: Nanos,
    ) -> Option<There> {
        let compared = request.lane == Lane::Batch && !request.stays;
        if self.config.policy != Policy::Predictive || self.mesh.is_empty() || !compared {
            return None;
        }
        let (Found::Here { slot, .. } | Found::Awaits { slot }) = found else {
            return None;
        };
        let match_blocks = self.scratch.match_blocks(slot);
        let path = self.path(request, match_blocks);
        let forecast = self.forecast(request, slot, match_blocks, path, now_ns);
        let there = self.find_peer_by(request, false, now_ns)?;
        let gain_ns = forecast.ttft_ns.saturating_sub(there.ttft_ns);
        #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 ns")]
        let share = gain_ns as f64 / forecast.ttft_ns.max(1) as f64;
        let config = &self.config;
        (gain_ns > config.session_gain_ns && share > config.session_gain_ratio).then_some(there)
    }

    /// The position of the first target from the key's place on the ring of peers.
    fn first_on_ring(&self, request: &Request, targets: &[Target]) -> Option<usize> {
        if !matches!(self.config.policy, Policy::Ring | Policy::BoundedRing) {
            return None;
        }
        self.mesh.ring.walk(request.key?).find_map(|member| {
            targets.iter().position(|target| {
                let peer = self.mesh.peer(target.slot);
                peer.is_some_and(|peer| on_ring(peer.id) == member)
            })
        })
    }

    /// Whether a peer could serve the request, with room or without.
    pub(in crate::engine) fn peers_serve(&self, request: &Request, now_ns: Nanos) -> bool {
        let model = request.model.and_then(|id| self.model_name(id));
        !request.stays
            && model.is_some_and(|model| self.mesh.serves(model, request.regions, now_ns))
    }

    /// Counts the request as forwarded, notes its prompt, and asks for it to be sent.
    pub(in crate::engine) fn forward(
        &mut self,
        id: RequestId,
        mut request: Request,
        there: There,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let left_ns = self.config.hold_timeout_ns.saturating_sub(request.held_ns);
        let Some(model) = request.model else {
            return;
        };
        let told_tokens = there.told.then(|| {
            let expected = self.expected(&request);
            expected.uncached(0) - expected.uncached(there.match_blocks)
        });
        let name = self
            .fleet
            .models
            .get(model.0 as usize)
            .map(|model| &model.name);
        let remote = self.mesh.remotes.get_mut(there.slot as usize);
        let (Some(name), Some(remote)) = (name, remote) else {
            return;
        };
        let granted = request.lane.takes_room();
        remote.peer.forward(name, granted);
        remote.peer.counts.told_hits += u64::from(there.told);
        let peer = remote.peer.id;
        if !request.blocks.is_empty()
            && let Some(pin) = self.mesh.tree.insert(there.slot, &request.blocks)
        {
            self.mesh.tree.unpin(pin);
        }
        self.mesh.in_flight += 1;
        self.counters.forwarded += 1;
        self.counters.peer_digest_hits += u64::from(there.told);
        request.attempts += 1;
        request.phase = Phase::Away(Away {
            slot: there.slot,
            since_ns: now_ns,
            model,
            told_tokens,
            started: false,
            granted,
        });
        let attempt = request.attempts;
        self.requests.insert(id, request);
        out.push(Effect::Forward(Forward {
            request: id,
            peer,
            attempt,
            // One failure there must leave us what is left.
            attempts_left: 1,
            match_blocks: there.match_blocks,
            deadline_ns: now_ns.saturating_add(left_ns),
        }));
    }

    /// The first byte of a forwarded request's answer arrived.
    pub(in crate::engine) fn first_byte_away(&mut self, away: &Away) {
        self.settle_away(away);
        if let Some(peer) = self.mesh.peer_mut(away.slot) {
            peer.succeeded();
        }
    }

    /// A forward is answered, or over without an answer.
    fn settle_away(&mut self, away: &Away) {
        let name = self.fleet.models.get(away.model.0 as usize);
        let remote = self.mesh.remotes.get_mut(away.slot as usize);
        if let (Some(model), Some(remote), true) = (name, remote, away.granted) {
            remote.peer.settle(&model.name);
        }
    }

    /// Takes a forward that is over off the peer's counts.
    fn end_away(&mut self, away: &Away) {
        if !away.started {
            self.settle_away(away);
        }
        self.mesh.in_flight -= 1;
        if let Some(peer) = self.mesh.peer_mut(away.slot) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
    }

    /// A forward failed before its first byte: the request goes elsewhere, or is held, or refused.
    pub(in crate::engine) fn retry_away(
        &mut self,
        id: RequestId,
        mut request: Request,
        away: &Away,
        failed: (Failure, bool),
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) {
        let (failure, sent) = failed;
        self.end_away(away);
        // It may have been held there.
        request.held_ns += now_ns.saturating_sub(away.since_ns);
        let refused = failure.refused();
        self.blame_peer(away, failure, now_ns);
        if self.config.planted(Plant::LostAway) {
            return self.forget(&request);
        }
        if refused {
            // Nothing was begun: it costs no attempt, and may be sent again whatever it is.
            request.attempts = request.attempts.saturating_sub(1);
            request.setbacks.by_peers += 1;
            request.stays = request.setbacks.by_peers >= REFUSALS_MAX;
        } else if let Some(peer) = self.mesh.peer(away.slot).map(|peer| peer.id) {
            request.tried_peers.push(peer);
        }
        let refusal = self.failed(failure);
        let alike = request.fails_alike(ELSEWHERE, failure);
        let again = !alike
            && ((refused && !away.started)
                || self.may_retry(&request, failure, away.started, sent, now_ns));
        if again {
            self.counters.retries += u64::from(!refused);
            self.settle(id, request, Some(refusal), now_ns, out);
        } else {
            let turned = !alike && self.suspect(&request, now_ns);
            self.refuse(id, &request, refusal, out);
            if turned {
                self.dispatch_all(now_ns, out);
            }
        }
        self.mesh.drop_if_over(away.slot);
    }

    fn blame_peer(&mut self, away: &Away, failure: Failure, now_ns: Nanos) {
        let model = self.fleet.models.get(away.model.0 as usize);
        let remote = self.mesh.remotes.get_mut(away.slot as usize);
        let (Some(model), Some(remote)) = (model, remote) else {
            return;
        };
        match failure {
            Failure::Refused | Failure::Full | Failure::Limited => {
                remote.peer.refused(&model.name, away.granted);
                self.counters.forwards_refused += 1;
            }
            Failure::Connect | Failure::Reset | Failure::Timeout | Failure::Withdrawn => {
                remote.peer.counts.failed += 1;
                remote.peer.failed(now_ns);
            }
            // The peer answered: what failed is one of its replicas.
            Failure::Status(_) | Failure::BadResponse | Failure::Absent => {
                remote.peer.counts.failed += 1;
            }
        }
    }

    /// A forwarded request ended.
    pub(in crate::engine) fn complete_away(&mut self, away: &Away, outcome: Outcome) {
        self.end_away(away);
        if let Some(peer) = self.mesh.peer_mut(away.slot) {
            match outcome {
                Outcome::Ok => {
                    peer.counts.ok += 1;
                    peer.succeeded();
                }
                Outcome::ClientLeft => peer.counts.client_left += 1,
                Outcome::ReplicaFailed => peer.counts.failed += 1,
            }
        }
        self.mesh.drop_if_over(away.slot);
    }

    /// Forwards held requests while peers have room that they may use, the oldest first.
    pub(in crate::engine) fn dispatch_peers(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        if self.hold.is_empty() || self.mesh.is_empty() {
            return;
        }
        let mut heads = mem::take(&mut self.heads);
        let leaves = |partition: Partition| !partition.stays;
        self.hold.turns(&self.config, now_ns, leaves, &mut heads);
        for head in &heads {
            self.forward_queue(head, now_ns, out);
        }
        self.heads = heads;
    }

    /// Forwards the oldest requests of one queue; those that must not go where there is room, and
    /// those that wait for a replica by choice, are passed over.
    fn forward_queue(&mut self, head: &Head, now_ns: Nanos, out: &mut Vec<Effect>) {
        let mut next = self.hold.queue(head.partition, head.class).next();
        while let Some((ticket, id)) = next {
            next = self.hold.after(ticket);
            if self.hold.choice(ticket).is_some() && !self.mesh.evacuating {
                continue;
            }
            let Some(request) = self.requests.remove(&id) else {
                return;
            };
            if let Some(there) = self.find_peer(&request, now_ns) {
                let request = self.leave_hold(ticket, request, now_ns);
                self.forward(id, request, there, now_ns, out);
                continue;
            }
            let others_may = !request.tried_peers.is_empty() || request.rather_here;
            self.requests.insert(id, request);
            if !others_may {
                return;
            }
        }
    }
}
