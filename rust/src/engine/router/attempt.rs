//! What happens to a request at a replica: first byte, failure, end.

use std::borrow::Cow;
use std::mem;

use super::Router;
use crate::engine::ask::Report;
use crate::engine::cache::{Cache, Confirmed};
use crate::engine::demand::ELSEWHERE;
use crate::engine::demand::Lane;
use crate::engine::effect::{Effect, Outcome};
use crate::engine::fleet::failure::Failure;
use crate::engine::fleet::member::Member;
use crate::engine::hold::{End, Payer};
use crate::engine::plant::Plant;
use crate::engine::requests::request::{Attempt, Phase, Request};
use crate::id::{ReplicaId, ReplicaSlot, RequestId};
use crate::time::Instant;

impl Router {
    /// The first body byte of the request's attempt arrived: from now on it is not tried elsewhere, unless its
    /// stream may [go on](Self::resume) there.
    ///
    /// `response_id` names a stored response, where the answer's beginning tells it.
    pub fn first_byte(
        &mut self,
        id: RequestId,
        response_id: Option<&str>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let Some(request) = self.requests.get_mut(id) else {
            self.counters.unknown_first_bytes += 1;
            return;
        };
        let measured = request.demand.measured() && request.given.is_none();
        if let Some(given) = &mut request.given {
            given.cut = false;
        }
        let attempt = match &mut request.phase {
            Phase::InFlight(attempt) => attempt,
            Phase::Away(away) => {
                if !mem::replace(&mut away.started, true) {
                    if !request.continues {
                        request.demand.blocks = Vec::new();
                    }
                    let away = *away;
                    let suspects = mem::take(&mut request.setbacks.suspects);
                    self.first_byte_away(&away);
                    if self.fleet.convict(&suspects, &self.config, now) {
                        self.dispatch_all(now, out);
                    }
                }
                return;
            }
            Phase::Between | Phase::Looking | Phase::Held { .. } => {
                self.counters.unknown_first_bytes += 1;
                return;
            }
        };
        if mem::replace(&mut attempt.started, true) {
            return;
        }
        if !attempt.adopted {
            attempt.first_byte_ns = Some(now);
        }
        if measured && !attempt.adopted {
            self.fleet.compare(&attempt.forecast, now);
        }
        if !request.continues {
            request.demand.blocks = Vec::new();
        }
        let (slot, payer) = (attempt.slot, request.payer);
        let lane = request.demand.lane;
        let suspects = mem::take(&mut request.setbacks.suspects);
        let revived = self.fleet.note_sign(slot, now);
        let replica = self.fleet.first_byte(slot, (id, lane), now);
        self.note_response(replica, response_id, payer);
        if lane == Lane::Batch {
            self.mesh.note_started(slot, id, now);
        }
        if self.fleet.convict(&suspects, &self.config, now) || revived {
            self.dispatch_all(now, out);
        } else {
            self.dispatch(slot, now, out);
        }
    }

    /// The request's attempt failed before its first body byte; `sent`: request bytes went out.
    ///
    /// Causes a push elsewhere, a place in the hold, or a refusal when attempts, budget or time are
    /// used up, or when the request has failed alike at another replica.
    pub fn retry(
        &mut self,
        id: RequestId,
        failure: Failure,
        sent: bool,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        if !self.is_under_way(id) {
            self.counters.unknown_retries += 1;
            return;
        }
        let Some(mut request) = self.requests.remove(id) else {
            return;
        };
        self.hold.settle(request.bill.take(), End::Failed);
        let attempt = match mem::replace(&mut request.phase, Phase::Between) {
            Phase::InFlight(attempt) => attempt,
            Phase::Away(away) => {
                self.retry_away(id, request, &away, (failure, sent), now, out);
                return;
            }
            Phase::Between | Phase::Looking | Phase::Held { .. } => return,
        };
        let (slot, started) = (attempt.slot, attempt.started && !request.is_cut());
        self.end_attempt(id, &request, attempt, &[]);
        let mut turned = self.blame(slot, failure, now);
        let failed = self.fleet.member(slot).map_or(ELSEWHERE, Member::id);
        request.demand.note_tried(failed);
        let alike = request.fails_alike(failed, failure);
        if failure == Failure::Reset && self.config.planted(Plant::LostOnCrash) {
            self.forget(&request);
            return;
        }
        let refusal = self.failed(failure);
        let again = !alike
            && match failure {
                refused if refused.refused() => {
                    !started && self.goes_on(&mut request, failure, now)
                }
                // Its part of the budget was taken when it was withdrawn.
                Failure::Withdrawn if !request.is_cut() => {
                    !started && request.attempts < request.attempts_max
                }
                _ => self.may_retry(&mut request, failure, started, sent, now),
            };
        if again {
            self.counters.retries += u64::from(!failure.refused());
            self.settle(id, request, Some(refusal), now, out);
        } else {
            turned |= !alike
                && self
                    .fleet
                    .suspect(&request.setbacks.suspects, &self.config, now);
            self.refuse(id, &request, refusal, out);
        }
        self.freed(slot, turned, now, out);
    }

    /// Whether a request goes on after a replica refused it. Nothing was begun, so it costs no
    /// attempt, and it may be sent again whatever it is: to each replica, as often as there are
    /// attempts. What the replica may take later waits for that.
    fn goes_on(&mut self, request: &mut Request, failure: Failure, now: Instant) -> bool {
        request.attempts = request.attempts.saturating_sub(1);
        request.setbacks.by_replicas = request.setbacks.by_replicas.saturating_add(1);
        let serving = u32::try_from(self.fleet.servants_len(&request.demand)).unwrap_or(u32::MAX);
        if request.setbacks.by_replicas >= self.config.attempts_max.saturating_mul(serving.max(1)) {
            return false;
        }
        let waits = failure == Failure::Full && request.demand.lane == Lane::Batch;
        waits || self.untried(request, now)
    }

    /// The request is at a replica whose list does not have its model, and another could be asked: a
    /// 404 from there is better not the last word.
    #[must_use]
    pub fn guessed(&self, id: RequestId) -> bool {
        let Some(request) = self.requests.get(id).filter(|r| r.demand.bound.is_none()) else {
            return false;
        };
        let (Phase::InFlight(attempt), Some(model)) = (&request.phase, request.demand.model) else {
            return false;
        };
        let asked = (attempt.slot, &request.demand);
        self.fleet
            .guessed(model, asked, &self.config, self.clock.now)
    }

    /// Attempts left, safe to send again, and within the budget of retries.
    ///
    /// An answer that comes whole takes as long as it takes: one that was waited for in vain is not
    /// computed a second time.
    pub(super) fn may_retry(
        &mut self,
        request: &mut Request,
        failure: Failure,
        started: bool,
        sent: bool,
        now: Instant,
    ) -> bool {
        if request.is_cut() {
            return request.may_continue();
        }
        request.take_back(failure, sent);
        let over = !request.has_tries() && !self.config.planted(Plant::AttemptsUnlimited);
        let again = request.retry_safe && (failure != Failure::Timeout || request.demand.stream);
        if started || over || (sent && !again) {
            return false;
        }
        let granted = self.requests.budget_mut().take(&self.config, now);
        self.counters.retry_denied += u64::from(!granted);
        granted
    }

    /// The request ended, in any phase. Unknown ids are counted and otherwise ignored.
    pub fn complete(
        &mut self,
        id: RequestId,
        outcome: Outcome,
        report: Report<'_>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let now = self.advance(now);
        let Some(mut request) = self.requests.remove(id) else {
            self.counters.unknown_completions += 1;
            return;
        };
        let report = match request.given {
            Some(given) if !report.sent => given.report(),
            _ => report,
        };
        let end = request.end(outcome, &report);
        self.hold.settle(request.bill.take(), end);
        self.requests
            .settle(&mut request, outcome, &report, &self.config, now);
        match mem::replace(&mut request.phase, Phase::Between) {
            Phase::Between => {}
            Phase::Looking => self.requests.looks_mut().forget(id),
            Phase::Held { ticket, .. } => {
                self.hold.leave(ticket);
                self.counters.left_held += 1;
            }
            Phase::Away(away) => {
                self.complete_away(&away, outcome, report.usage);
            }
            Phase::InFlight(attempt) => {
                let slot = attempt.slot;
                let mut answer = Cow::Borrowed(&[][..]);
                if outcome == Outcome::Ok && request.given.is_none() && !attempt.adopted {
                    answer = self.learn(&request, &attempt, &report, now);
                }
                // What stands for an answer that was not read is of use here alone.
                if let Cow::Borrowed(read) = answer {
                    let left_out = self.mesh.note_answer(slot, &request.demand, read);
                    self.counters.cached_left_out += left_out;
                }
                let replica = self.fleet.member(slot).map(Member::id);
                self.note_response(replica, report.response_id, request.payer);
                let turned = self.report_end(slot, outcome, attempt.started, now);
                let lost = self.config.planted(Plant::SlotLostOnCancel);
                if !lost || !outcome.is_unwanted() {
                    self.end_attempt(id, &request, attempt, &answer);
                }
                self.freed(slot, turned, now, out);
            }
        }
        self.forget(&request);
        self.counters.count_outcome(outcome);
    }

    /// Learns from a request that was answered in full; the blocks of its answer.
    fn learn<'a>(
        &mut self,
        request: &Request,
        attempt: &Attempt,
        report: &Report<'a>,
        now: Instant,
    ) -> Cow<'a, [u64]> {
        let (demand, slot, usage) = (&request.demand, attempt.slot, report.usage);
        let (fleet, config) = (&mut self.fleet, &self.config);
        fleet.note_usage(demand, slot, usage);
        let confirmed = Confirmed {
            demand,
            slot,
            matched: &attempt.matched,
            forecast: &attempt.forecast,
        };
        let counters = &mut self.counters;
        self.cache
            .confirm(confirmed, usage, fleet, counters, config);
        let observed = (&attempt.forecast, attempt.first_byte_ns);
        fleet.learn_speed(demand, slot, observed, usage, config, now);
        self.cache.learn_paths(demand, report, fleet, config);
        Cache::answer_blocks(demand, request.age, report, fleet, config)
    }

    /// An attempt at `slot` is over: starts what may start now. `turned`: the replica's health
    /// changed, so that requests which failed elsewhere may have to go back there.
    fn freed(&mut self, slot: ReplicaSlot, turned: bool, now: Instant, out: &mut Vec<Effect>) {
        if self.config.planted(Plant::RoomForgotten) {
            return self.fleet.drop_if_over(slot);
        }
        if turned {
            self.dispatch_all(now, out);
        } else {
            self.dispatch(slot, now, out);
        }
        self.fleet.drop_if_over(slot);
    }

    /// Takes the request off the replica's counts and lets the tree evict its path again, which now
    /// goes on with the answer: the next turn's prompt contains it.
    fn end_attempt(&mut self, id: RequestId, request: &Request, attempt: Attempt, answer: &[u64]) {
        self.requests.ended();
        let blocks = request.demand.prompt_blocks;
        self.cache.release(attempt.matched, blocks, answer);
        if request.demand.lane == Lane::Batch && !self.config.planted(Plant::EndsUntold) {
            self.mesh.note_ended(attempt.slot, id);
        }
        let request = (id, request.demand.lane);
        self.fleet.complete(attempt.slot, request, &self.config);
    }

    /// Tells a replica's health of a failure. "Full" is none: it closes the gate until the replica
    /// is probed again. One that may be the request's own is judged when that has been tried
    /// elsewhere. True when the replica's health changed.
    fn blame(&mut self, slot: ReplicaSlot, failure: Failure, now: Instant) -> bool {
        if self.fleet.member(slot).is_none() || failure == Failure::Absent {
            return false;
        }
        if failure.refused() && failure != Failure::Unauthorized {
            self.counters.full += 1;
            if failure == Failure::Full {
                self.fleet.note_full(slot, &self.config, now);
            }
            return false;
        }
        self.fleet.blame(slot, failure, &self.config, now)
    }

    /// Tells a replica's health how a request ended that is not tried again; true when it changed.
    fn report_end(
        &mut self,
        slot: ReplicaSlot,
        outcome: Outcome,
        started: bool,
        now: Instant,
    ) -> bool {
        if outcome == Outcome::ReplicaFailed {
            return self.blame(slot, Failure::Reset, now);
        }
        if outcome == Outcome::Ok && !started {
            self.fleet.succeeded(slot, now);
        }
        outcome == Outcome::Ok && self.fleet.note_sign(slot, now)
    }

    fn note_response(&mut self, replica: Option<ReplicaId>, id: Option<&str>, payer: Payer) {
        if let (Some(id), Some(replica)) = (id, replica) {
            let keeper = payer.keeper(self.reader.config.isolates());
            self.requests.note_response(keeper, id, replica);
        }
    }
}
