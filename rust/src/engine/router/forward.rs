//! Requests that go to a peer.

use super::Router;
use crate::engine::ask::Usage;
use crate::engine::choose::There;
use crate::engine::demand::ELSEWHERE;
use crate::engine::effect::{Effect, Forward, Outcome};
use crate::engine::fleet::failure::Failure;
use crate::engine::hold::{Head, Partition};
use crate::engine::mesh::Away;
use crate::engine::plant::Plant;
use crate::engine::requests::request::{Phase, Request};
use crate::id::RequestId;
use crate::time::Instant;

/// Times that one request may be refused by peers; then it stays.
const REFUSALS_MAX: u32 = 3;

impl Router {
    /// Whether a peer could serve the request, with room or without.
    pub(in crate::engine) fn peers_serve(&self, request: &Request, now: Instant) -> bool {
        let model = self.fleet.name_of(request.demand.model);
        !request.stays
            && model.is_some_and(|model| self.mesh.serves(model, request.demand.regions, now))
    }

    /// Counts the request as forwarded, notes its prompt, and asks for it to be sent.
    pub(super) fn forward(
        &mut self,
        id: RequestId,
        mut request: Request,
        there: There,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let left_ns = self.config.hold_timeout_ns - request.held_ns;
        let demand = &request.demand;
        let expected = self.fleet.expected(demand, &self.config);
        let tokens = expected.tokens(there.match_blocks);
        let digest_tokens = there.reported.then_some(tokens.cached);
        let (Some(model), Some(name)) = (demand.model, self.fleet.name_of(demand.model)) else {
            return;
        };
        let granted = demand.lane.takes_room();
        let flags = (granted, there.reported);
        let Some(peer) = self.mesh.begin(there.slot, name, &demand.blocks, flags) else {
            return;
        };
        if granted {
            self.charge(&mut request, tokens, now);
        }
        self.counters.forwarded += 1;
        self.counters.peer_digest_hits += u64::from(there.reported);
        request.attempts += 1;
        request.phase = Phase::Away(Away {
            slot: there.slot,
            since_ns: now,
            model,
            digest_tokens,
            started: false,
            granted,
            withdrawn: false,
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
            deadline_ns: now + left_ns,
            context_len: self.fleet.context_len(Some(model)),
        }));
    }

    /// The first byte of a forwarded request's answer arrived.
    pub(super) fn first_byte_away(&mut self, away: &Away) {
        let name = self.fleet.name_of(Some(away.model));
        self.mesh.first_byte(away, name);
    }

    /// A forwarded request ended.
    pub(super) fn complete_away(&mut self, away: &Away, outcome: Outcome, usage: Usage) {
        if let Some((told, found)) = self.mesh.confirm_reported(away, usage) {
            self.counters.peer_digest_tokens += u64::from(told);
            self.counters.peer_digest_tokens_found += u64::from(found);
        }
        let name = self.fleet.name_of(Some(away.model));
        self.mesh.complete(away, name, outcome);
    }

    /// A forward failed before its first byte: the request goes elsewhere, or is held, or refused.
    pub(super) fn retry_away(
        &mut self,
        id: RequestId,
        mut request: Request,
        away: &Away,
        failed: (Failure, bool),
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let (failure, sent) = failed;
        let started = away.started && !request.is_cut();
        let name = self.fleet.name_of(Some(away.model));
        self.mesh.end(away, name);
        if !away.started {
            // It may have been held there.
            request.held_ns += now - away.since_ns;
        }
        let refused = failure.refused();
        let blamed = self.mesh.blame(away, name, failure, now);
        self.counters.forwards_refused += u64::from(blamed);
        if self.config.planted(Plant::LostAway) {
            return self.forget(&request);
        }
        if refused {
            // Nothing was begun: it costs no attempt, and may be sent again whatever it is.
            request.attempts = request.attempts.saturating_sub(1);
            request.setbacks.by_peers += 1;
            // A stream that was cut waits for its time: to stay is to end it, where nobody here can go on.
            request.stays = request.setbacks.by_peers >= REFUSALS_MAX && !request.is_cut();
        } else if let Some(peer) = self.mesh.peer(away.slot).map(|peer| peer.id) {
            request.tried_peers.push(peer);
        }
        let refusal = self.failed(failure);
        let alike = request.fails_alike(ELSEWHERE, failure);
        let again = !alike
            && ((refused && !started) || self.may_retry(&mut request, failure, started, sent, now));
        if again {
            self.counters.retries += u64::from(!refused);
            self.settle(id, request, Some(refusal), now, out);
        } else {
            let turned = !alike
                && self
                    .fleet
                    .suspect(&request.setbacks.suspects, &self.config, now);
            self.refuse(id, &request, refusal, out);
            if turned {
                self.dispatch_all(now, out);
            }
        }
        self.mesh.drop_if_over(away.slot);
    }

    /// Forwards held requests while peers have room that they may use, the oldest first. Where tenants
    /// share the room, each forward passes the turn on.
    pub(super) fn dispatch_peers(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.hold.is_empty() || self.mesh.is_empty() {
            return;
        }
        let mut heads = Vec::new();
        let leaves = |partition: Partition| !partition.stays;
        loop {
            let one = self.hold.shares(&self.config);
            self.hold.turns(&self.config, now, leaves, &mut heads);
            let mut queues = heads.iter();
            if !queues.any(|head| self.forward_queue(head, one, now, out)) {
                return;
            }
        }
    }

    /// Forwards the oldest requests of one queue; those that must not go where there is room, and
    /// those that wait for a replica by choice, are passed over. `one`: it stops after the first, and
    /// answers whether there was one.
    fn forward_queue(
        &mut self,
        head: &Head,
        one: bool,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> bool {
        let fronts = self.hold.fronts(head.partition, head.class);
        for front in fronts.collect::<Vec<_>>() {
            let mut next = Some((front.ticket, front.request));
            while let Some((ticket, id)) = next {
                next = self.hold.after(ticket);
                if self.hold.choice(ticket).is_some() && !self.mesh.evacuating() {
                    continue;
                }
                let Some(request) = self.requests.remove(id) else {
                    return false;
                };
                if let Some(there) = self.find_peer(&request, now) {
                    let request = self.leave_hold(ticket, request, now);
                    self.forward(id, request, there, now, out);
                    if one {
                        return true;
                    }
                    continue;
                }
                let others_may = !request.tried_peers.is_empty() || request.rather_here;
                self.requests.insert(id, request);
                if !others_may {
                    return false;
                }
            }
        }
        false
    }
}
