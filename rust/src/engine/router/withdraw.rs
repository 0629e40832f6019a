//! Requests at replicas that show no sign of life.
//!
//! SkyLB withdraws a request without a first byte from a replica that is down or wedged, if it may be sent
//! again. Another replica must be able to take it, and attempts and budget must allow it. It withdraws streams that
//! have begun too, where they can go on elsewhere; they take nothing from the budget. Other streams stay where
//! they are. They end with their connection, or when they have been silent for `stream_idle_s`.

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

    /// Withdraws requests from a replica that is down or wedged: those without a first byte, and streams that can
    /// go on elsewhere.
    fn withdraw(&mut self, slot: ReplicaSlot, now: Instant, out: &mut Vec<Effect>) {
        let Some(member) = self.fleet.member(slot) else {
            return;
        };
        if member.in_flight() == 0 || self.fleet.alive_lately(slot, now) {
            return;
        }
        let mut spent = false;
        for (id, begun) in self.leaving(slot) {
            if (spent && !begun) || !self.may_leave(id, slot, now) {
                continue; // the next probe finds the rest
            }
            spent |= !begun && !self.requests.budget_mut().take(&self.config, now);
            if begun || !spent {
                self.give_up(id, out);
            }
        }
    }

    /// What may leave a replica, the eldest first: what has not begun and may be sent again, once, and streams that
    /// can go on elsewhere, as often as it takes until their drivers can; whether they have begun.
    fn leaving(&self, slot: ReplicaSlot) -> Vec<(RequestId, bool)> {
        let begun = |request: &Request| match &request.phase {
            Phase::InFlight(attempt) if attempt.slot == slot => {
                let may = if attempt.started {
                    request.continues
                } else {
                    request.retry_safe && !attempt.withdrawn
                };
                may.then_some(attempt.started)
            }
            _ => None,
        };
        let leaving = self.requests.iter();
        let leaving = leaving.filter_map(|(id, request)| Some((request.age, id, begun(request)?)));
        let mut leaving: Vec<(u64, RequestId, bool)> = leaving.collect();
        leaving.sort_unstable();
        let eldest_first = leaving.into_iter();
        eldest_first.map(|(_, id, begun)| (id, begun)).collect()
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

    /// A request has a place to go to from a replica that does not answer. A peer's can be tried elsewhere.
    pub(super) fn may_leave(&mut self, id: RequestId, slot: ReplicaSlot, now: Instant) -> bool {
        let Some(request) = self.requests.get(id) else {
            return false;
        };
        let tried = self.fleet.member(slot).map(Member::id);
        request.deadline_ns.is_some() || (request.has_tries() && self.elsewhere(id, tried, now))
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
