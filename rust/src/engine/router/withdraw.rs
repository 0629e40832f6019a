//! Requests at replicas that show no sign of life.
//!
//! SkyLB withdraws a request without a first byte from a replica that is down or wedged, if it may be sent
//! again. Another replica must be able to take it, and attempts and budget must allow it. Streams that have
//! begun stay where they are. They end with their connection, or when they have been silent for
//! `stream_idle_s`.

use super::Router;
use crate::engine::effect::Effect;
use crate::engine::fleet::member::Member;
use crate::engine::fleet::pulse::Vital;
use crate::engine::requests::request::{Phase, Request};
use crate::id::{ReplicaId, ReplicaSlot, RequestId};
use crate::time::Instant;

impl Router {
    /// Bytes of answers of these replicas have come since the last call.
    pub fn heard(&mut self, replicas: &[ReplicaId], now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        let mut revived = false;
        for replica in replicas {
            if let Some(slot) = self.fleet.slot(*replica) {
                revived |= self.fleet.note_sign(slot, now);
            }
        }
        if revived {
            self.dispatch_all(now, out);
        }
    }

    /// A probe has told something, or nothing, of a replica: puts it out if it is wedged or gone, and
    /// withdraws what waits there in vain. True when its health changed.
    pub(super) fn review(
        &mut self,
        slot: ReplicaSlot,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> bool {
        let vital = self.fleet.review(slot, &self.config, now);
        let stops = matches!(vital, Vital::Wedged | Vital::Stuck);
        self.counters.wedged += u64::from(stops);
        if vital != Vital::Lives {
            self.withdraw(slot, now, out);
        }
        stops || vital == Vital::Gone
    }

    /// Withdraws requests without a first byte from a replica that is down or wedged.
    fn withdraw(&mut self, slot: ReplicaSlot, now: Instant, out: &mut Vec<Effect>) {
        let Some(member) = self.fleet.member(slot) else {
            return;
        };
        if member.in_flight() == 0 || self.fleet.alive_lately(slot, now) {
            return;
        }
        let waits = |request: &Request| match &request.phase {
            Phase::InFlight(attempt) => {
                attempt.slot == slot && !attempt.started && !attempt.withdrawn && request.retry_safe
            }
            _ => false,
        };
        let waiting = self.requests.iter().filter(|(_, request)| waits(request));
        let mut waiting: Vec<(u64, RequestId)> =
            waiting.map(|(id, request)| (request.age, id)).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            if !self.may_leave(id, slot, now) {
                continue;
            }
            if !self.requests.budget_mut().take(&self.config, now) {
                return; // the next probe finds the rest
            }
            self.give_up(id, out);
        }
    }

    /// Asks the driver to give an attempt up; false where it has been asked before.
    pub(super) fn give_up(&mut self, id: RequestId, out: &mut Vec<Effect>) -> bool {
        let withdrawn = match self.requests.get_mut(id).map(|request| &mut request.phase) {
            Some(Phase::InFlight(attempt)) => &mut attempt.withdrawn,
            Some(Phase::Away(away)) => &mut away.withdrawn,
            _ => return false,
        };
        let first = !std::mem::replace(withdrawn, true);
        self.counters.withdrawn += u64::from(first);
        out.push(Effect::Withdraw(id));
        first
    }

    /// A request at a replica that does not answer has a place to go to. What came from a peer can
    /// be tried elsewhere by that.
    pub(super) fn may_leave(&mut self, id: RequestId, slot: ReplicaSlot, now: Instant) -> bool {
        let Some(request) = self.requests.get(id) else {
            return false;
        };
        let forwarded = request.deadline_ns.is_some();
        let left = request.attempts < request.attempts_max || request.started();
        let tried = self.fleet.member(slot).map(Member::id);
        forwarded || (left && self.elsewhere(id, tried, now))
    }

    /// A replica that a request has not been tried on is ready for it, or a peer serves its model.
    fn elsewhere(&mut self, id: RequestId, tried: Option<ReplicaId>, now: Instant) -> bool {
        let Some(mut request) = self.requests.remove(id) else {
            return false;
        };
        let added = tried.filter(|tried| !request.demand.tried.contains(tried));
        request.demand.tried.extend(added);
        let found = self.untried(&request, now);
        if added.is_some() {
            request.demand.tried.pop();
        }
        self.requests.insert(id, request);
        found
    }

    /// A replica that the request has not been tried on is ready for it, or a peer serves its model.
    pub(super) fn untried(&mut self, request: &Request, now: Instant) -> bool {
        self.fleet.any_untried(&request.demand, &self.config, now) || self.peers_serve(request, now)
    }
}
