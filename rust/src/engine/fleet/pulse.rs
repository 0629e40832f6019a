//! Signs of life, and what becomes of requests whose replica shows none.
//!
//! A replica lives while its pages move or bytes of its answers come. Such signs are a first byte,
//! the end of an answer, and what the driver has received of streams since its last sweep. A page
//! with the figures of the one before is none, nor is a probe without an answer. What has requests
//! of ours and shows no sign for `wedged_s` is wedged, with these exceptions:
//!
//! - a page that shows nothing running and nothing waiting: what was pushed there is not in the
//!   engine yet (a long prompt is being tokenized);
//! - an answer without figures (a page that is 404, or late while a list of models is not): its
//!   server lives, and nothing says that the engine stands still;
//! - an engine that sleeps;
//! - an engine whose steps take longer than that. One that was silent so long before and lived
//!   gets three times that time. So does a page without a token counter: it moves with requests,
//!   not with steps;
//! - a page that stands still while answers come: it says nothing, however long it stands;
//! - a fleet in which no other replica lives: then the reason is not this replica.
//!
//! A request without a first byte at a replica that is down or wedged is withdrawn, if it may be
//! sent again. Another replica must be able to take it, and attempts and budget must allow it.
//! Streams that have begun stay where they are: they end with their connection, or when they have
//! been silent for `stream_idle_s`.

use super::member::Offer;
use crate::engine::choose::policy::Slot;
use crate::engine::config::Config;
use crate::engine::effect::Effect;
use crate::engine::fleet::health::State;
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::requests::request::{Phase, Request};
use crate::engine::router::Router;
use crate::id::{Nanos, ReplicaId, RequestId};

/// Probes without news before the time since the last sign counts.
const PROBES: u32 = 3;
/// As many times the longest silence that ended well.
const PATIENCE: u64 = 3;
/// A silence that ended well is remembered up to this.
const SURVIVED_MAX_NS: Nanos = 600_000_000_000;
/// What was heard so lately lives, whatever its probes say: it may be ending what it has begun.
const HEARD_NS: Nanos = 2_000_000_000;

/// When one replica last showed a sign of life.
#[derive(Debug, Default)]
pub(in crate::engine) struct Pulse {
    /// The last sign, or since when it has something to do.
    life_ns: Nanos,
    /// The last byte of an answer.
    heard_ns: Option<Nanos>,
    /// When the first of equal pages was asked for.
    page_ns: Nanos,
    /// Probes since the last sign that told no news.
    still: u32,
    /// The longest silence, with something to do, that ended with a sign.
    survived_ns: Nanos,
    /// The last page shows something to do, and the figures of the one before.
    stands: bool,
    /// The page tells tokens, step by step.
    tells_tokens: bool,
    sleeping: bool,
    /// Since when connections have not come about.
    unconnected_ns: Option<Nanos>,
}

impl Pulse {
    /// A request was pushed; `first`: nothing else was in flight.
    pub(in crate::engine) fn pushed(&mut self, first: bool, now_ns: Nanos) {
        if first {
            self.life_ns = now_ns;
            self.still = 0;
        }
    }

    /// Bytes of an answer came.
    pub(in crate::engine) fn heard(&mut self, now_ns: Nanos) {
        if self.stands {
            self.survive(self.page_ns, now_ns);
        }
        self.survive(self.life_ns, now_ns);
        self.heard_ns = Some(now_ns);
        self.unconnected_ns = None;
        self.live(now_ns);
    }

    /// A page was read; `moved`: other than the one before. `busy`: with requests of ours in flight.
    pub(in crate::engine) fn page(
        &mut self,
        page: &Snapshot,
        (moved, busy): (bool, bool),
        sent_ns: Nanos,
        now_ns: Nanos,
    ) {
        self.tells_tokens = page.tokens.is_some();
        self.sleeping = page.sleeping;
        self.unconnected_ns = None;
        let has_figures = page.kv_usage.is_some() || page.tokens.is_some();
        self.stands = !moved && has_figures && !page.idle();
        if moved {
            if busy {
                self.survive(self.life_ns, now_ns);
            }
            self.page_ns = sent_ns;
            self.live(now_ns);
        } else if self.stands {
            self.still = self.still.saturating_add(1);
        } else {
            self.still = 0;
        }
    }

    /// Something was answered without figures: that says nothing of the engine.
    pub(in crate::engine) fn unreadable(&mut self) {
        self.unconnected_ns = None;
        if !self.stands {
            self.still = 0;
        }
    }

    /// Nobody listened for so long.
    pub(in crate::engine) fn stood_still(&mut self, gap_ns: Nanos) {
        self.life_ns = self.life_ns.saturating_add(gap_ns);
        self.still = 0;
        self.unconnected_ns = None;
    }

    /// The last page shows that the engine stands still.
    pub(in crate::engine) fn stands(&self) -> bool {
        self.stands
    }

    /// A probe was not answered; `connected`: something took the connection.
    pub(in crate::engine) fn unanswered(&mut self, connected: bool, now_ns: Nanos) {
        self.still = self.still.saturating_add(1);
        if connected {
            self.unconnected_ns = None;
        } else {
            self.unconnected_ns.get_or_insert(now_ns);
        }
    }

    /// Nothing was heard for so long that a replica with something to do is wedged.
    fn stopped(&self, config: &Config, now_ns: Nanos) -> bool {
        let by_requests = self.stands && !self.tells_tokens;
        let factor = if by_requests { PATIENCE } else { 1 };
        let survived_ns = self.survived_ns.saturating_mul(PATIENCE);
        let patience_ns = config.wedged_ns.saturating_mul(factor).max(survived_ns);
        let silent_ns = now_ns.saturating_sub(self.life_ns);
        !self.sleeping && self.still >= PROBES && silent_ns >= patience_ns
    }

    /// Connections have not come about, and nothing was heard, for so long that nobody is there.
    fn gone(&self, config: &Config, now_ns: Nanos) -> bool {
        let gone_ns = config.wedged_ns / 2;
        let silent = |since_ns: Nanos| now_ns.saturating_sub(since_ns) >= gone_ns;
        self.unconnected_ns.is_some_and(silent) && self.heard_ns.is_none_or(silent)
    }

    fn live(&mut self, now_ns: Nanos) {
        self.life_ns = now_ns;
        self.still = 0;
    }

    fn survive(&mut self, since_ns: Nanos, now_ns: Nanos) {
        let silence_ns = now_ns.saturating_sub(since_ns).min(SURVIVED_MAX_NS);
        self.survived_ns = self.survived_ns.max(silence_ns);
    }
}

impl Router {
    /// Bytes of answers of these replicas have come since the last call.
    pub fn heard(&mut self, replicas: &[ReplicaId], now_ns: Nanos, out: &mut Vec<Effect>) {
        let now_ns = self.advance(now_ns);
        let mut revived = false;
        for replica in replicas {
            if let Some(slot) = self.fleet.slot(*replica) {
                revived |= self.hear(slot, now_ns);
            }
        }
        if revived {
            self.dispatch_all(now_ns, out);
        }
    }

    /// Bytes of an answer of one replica came; true when its health changed.
    pub(in crate::engine) fn hear(&mut self, slot: Slot, now_ns: Nanos) -> bool {
        let Some(member) = self.fleet.member(slot) else {
            return false;
        };
        let changes =
            member.replica.health.silent() || member.replica.health.state() == State::Wedged;
        if let Some(pulse) = self.fleet.pulse_mut(slot) {
            pulse.heard(now_ns);
        }
        let Some(member) = self.fleet.member_mut_if(slot, changes) else {
            return false;
        };
        member.replica.health.heard();
        member.replica.health.revive(now_ns)
    }

    /// A probe has told something, or nothing, of a replica: puts it out if it is wedged or gone, and
    /// withdraws what waits there in vain.
    pub(in crate::engine) fn review(
        &mut self,
        slot: Slot,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(member) = self.fleet.member(slot).filter(|member| !member.removed) else {
            return false;
        };
        let state = member.replica.health.state();
        let in_service = matches!(state, State::Up | State::Probing);
        let gone = in_service && member.pulse.gone(&self.config, now_ns);
        let busy = member.replica.own_in_flight() > 0;
        let wedged = in_service && busy && member.pulse.stopped(&self.config, now_ns);
        let wedged = wedged && self.another_lives(slot, now_ns);
        if let Some(member) = self.fleet.member_mut_if(slot, gone || wedged) {
            if gone {
                member.replica.health.unreachable();
            } else {
                member.replica.health.wedge();
                self.counters.wedged += 1;
            }
        }
        if gone || wedged || matches!(state, State::Down | State::Wedged) {
            self.withdraw(slot, now_ns, out);
        }
        gone || wedged
    }

    /// Another replica is ready and has nothing to do, or has shown a sign of life lately.
    fn another_lives(&self, slot: Slot, now_ns: Nanos) -> bool {
        let lately_ns = self.config.wedged_ns / 2;
        let mut others = self.fleet.members().filter(|(other, _)| *other != slot);
        others.any(|(_, other)| {
            let idle = other.all_in_flight() == 0;
            let age_ns = now_ns.saturating_sub(other.pulse.life_ns);
            other.ready(&self.config, now_ns)
                && !other.replica.health.silent()
                && (idle || age_ns < lately_ns)
        })
    }

    /// Withdraws requests without a first byte from a replica that is down or wedged.
    fn withdraw(&mut self, slot: Slot, now_ns: Nanos, out: &mut Vec<Effect>) {
        let Some(member) = self.fleet.member(slot) else {
            return;
        };
        let heard_ns = member.pulse.heard_ns;
        let heard = heard_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < HEARD_NS);
        if member.in_flight() == 0 || heard {
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
            waiting.map(|(id, request)| (request.age, *id)).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            if !self.may_leave(id, slot, now_ns) {
                continue;
            }
            if !self.budget.take(&self.config, now_ns) {
                return; // the next probe finds the rest
            }
            if let Some(request) = self.requests.get_mut(&id)
                && let Phase::InFlight(attempt) = &mut request.phase
            {
                attempt.withdrawn = true;
                self.counters.withdrawn += 1;
                out.push(Effect::Withdraw(id));
            }
        }
    }

    /// A request at a replica that does not answer has a place to go to. What came from a peer can
    /// be tried elsewhere by that.
    fn may_leave(&mut self, id: RequestId, slot: Slot, now_ns: Nanos) -> bool {
        let Some(request) = self.requests.get(&id) else {
            return false;
        };
        let forwarded = request.deadline_ns.is_some();
        let left = request.attempts < request.attempts_max;
        let tried = self.fleet.member(slot).map(|member| member.id);
        forwarded || (left && self.elsewhere(id, tried, now_ns))
    }

    /// A replica that a request has not been tried on is ready for it, or a peer serves its model.
    fn elsewhere(&mut self, id: RequestId, tried: Option<ReplicaId>, now_ns: Nanos) -> bool {
        let Some(mut request) = self.requests.remove(&id) else {
            return false;
        };
        let added = tried.filter(|tried| !request.tried.contains(tried));
        request.tried.extend(added);
        let found = self.untried(&request, now_ns);
        if added.is_some() {
            request.tried.pop();
        }
        self.requests.insert(id, request);
        found
    }

    /// A replica that the request has not been tried on is ready for it, or a peer serves its model.
    pub(in crate::engine) fn untried(&mut self, request: &Request, now_ns: Nanos) -> bool {
        self.fleet.refresh(&self.config, now_ns);
        let mut open = Vec::new();
        self.collect_from(request, false, false, &mut open) != Offer::None
            || self.peers_serve(request, now_ns)
    }
}
