//! Signs of life of replicas.
//!
//! A replica lives while its pages move or bytes of its answers come. Such signs are a first byte,
//! the end of an answer, and what the driver has received of streams since its last sweep. A page
//! with the figures of the one before is none. More waiting requests alone do not count: they came to
//! the engine, and nothing says that it computes. Nor is a probe without an answer. What has requests
//! of ours and shows no sign for `wedged_s` is wedged, with these exceptions:
//!
//! - an engine that has answered less than 8 requests since it started: its first steps may compile
//!   kernels, and its speed is not known. So a replica whose page is late, which says less than one
//!   that stands still. Both get 10 s at least;
//! - an engine with a long prompt: it gets three times what the prompt is expected to take;
//! - a page that shows nothing running and nothing waiting: what was pushed there is not in the
//!   engine yet (a long prompt is being tokenized). After 30 s the replica is *stuck*. It is ejected,
//!   because such a page would not show that it works again;
//! - an answer without figures: a page that is 404, or late while a list of models is not. Its
//!   server lives, and nothing says that the engine stands still;
//! - an engine that sleeps;
//! - an engine whose steps take longer than that. One that was silent so long before and lived
//!   gets three times that time. So does a page without a token counter: it moves with requests,
//!   not with steps;
//! - a page that stands still while answers come: it says nothing, however long it stands;
//! - a fleet in which no other replica lives: then the reason is not this replica.
//!
//! What becomes of the requests there: [`crate::engine::router`], `withdraw`.

use super::Fleet;
use super::health::State;
use super::snapshot::Snapshot;
use crate::engine::config::Config;
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// Probes without news before the time since the last sign counts.
const PROBES: u32 = 3;
/// As many times the longest silence that ended well.
const PATIENCE: u64 = 3;
/// A silence that ended well is remembered up to this.
const SURVIVED_MAX_NS: Span = Span::from_ns(600_000_000_000);
/// An engine that has answered so many requests is known.
const ANSWERS_MIN: u32 = 8;
/// Time at least, where a page does not stand still, or the engine is not known.
const UNSURE_NS: Span = Span::from_ns(10_000_000_000);
/// Time without a connection, at least, after which nobody is there.
const GONE_NS: Span = Span::from_ns(5_000_000_000);
/// What was heard so lately lives, whatever its probes say: it may be ending what it has begun.
const SIGN_NS: Span = Span::from_ns(2_000_000_000);

/// What a page says beside the one before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Motion {
    /// The engine has done something, or the page has no figures by which that could be known.
    #[default]
    Moves,
    /// The engine has something to do, and has done nothing.
    Stands,
    /// The engine has nothing to do.
    Rests,
}

/// When one replica last showed a sign of life.
#[derive(Debug, Default)]
pub(in crate::engine) struct Pulse {
    /// The last sign, or since when it has something to do.
    life_ns: Instant,
    /// The last byte of an answer.
    sign_ns: Option<Instant>,
    /// When the first of equal pages was asked for.
    page_ns: Instant,
    /// Probes since the last sign that told no news.
    still: u32,
    /// The longest silence, with something to do, that ended with a sign.
    survived_ns: Span,
    /// What the last page says beside the one before.
    motion: Motion,
    /// The page tells tokens, step by step.
    tells_tokens: bool,
    sleeping: bool,
    /// Answers that have begun since the engine started, as far as known.
    answers: u32,
    /// Since when connections have not come about.
    unconnected_ns: Option<Instant>,
}

impl Pulse {
    /// A request was pushed; `first`: nothing else was in flight.
    pub(in crate::engine) fn pushed(&mut self, first: bool, now: Instant) {
        if first {
            self.life_ns = now;
            self.still = 0;
        }
    }

    /// Bytes of an answer came.
    pub(in crate::engine) fn note_sign(&mut self, now: Instant) {
        if self.stands() {
            self.survive(self.page_ns, now);
        }
        self.survive(self.life_ns, now);
        self.sign_ns = Some(now);
        self.unconnected_ns = None;
        self.live(now);
    }

    /// An answer has begun.
    pub(in crate::engine) fn answered(&mut self) {
        self.answers = self.answers.saturating_add(1);
    }

    /// Another engine process is there, or will be.
    pub(in crate::engine) fn restarted(&mut self) {
        self.answers = 0;
    }

    /// A page was read; `moved`: the engine has done something since the one before. `busy`: with
    /// requests of ours in flight.
    pub(in crate::engine) fn page(
        &mut self,
        page: &Snapshot,
        (moved, busy): (bool, bool),
        sent_ns: Instant,
        now: Instant,
    ) {
        self.tells_tokens = page.tokens.is_some();
        self.sleeping = page.sleeping;
        self.unconnected_ns = None;
        let has_figures = page.kv_usage.is_some() || page.tokens.is_some();
        self.motion = match (moved || !has_figures, page.idle()) {
            (true, _) => Motion::Moves,
            (false, true) => Motion::Rests,
            (false, false) => Motion::Stands,
        };
        if moved {
            if busy {
                self.survive(self.life_ns, now);
            }
            self.page_ns = sent_ns;
            self.live(now);
        } else if self.motion != Motion::Moves {
            self.still = self.still.saturating_add(1);
        } else {
            self.still = 0;
        }
    }

    /// Something was answered without figures: that says nothing of the engine.
    pub(in crate::engine) fn unreadable(&mut self) {
        self.unconnected_ns = None;
        if !self.stands() {
            self.still = 0;
        }
    }

    /// Nobody listened for so long.
    pub(in crate::engine) fn stood_still(&mut self, gap_ns: Span) {
        self.life_ns += gap_ns;
        self.still = 0;
        self.unconnected_ns = None;
    }

    /// The last page shows that the engine stands still.
    pub(in crate::engine) fn stands(&self) -> bool {
        self.motion == Motion::Stands
    }

    /// A probe was not answered; `connected`: something took the connection.
    pub(in crate::engine) fn unanswered(&mut self, connected: bool, now: Instant) {
        self.still = self.still.saturating_add(1);
        if connected {
            self.unconnected_ns = None;
        } else {
            self.unconnected_ns.get_or_insert(now);
        }
    }

    /// Nothing was heard for so long that a replica with something to do is wedged. `prompt_ns`: what
    /// its longest prompt is expected to take.
    fn stopped(&self, prompt_ns: Span, config: &Config, now: Instant) -> bool {
        let patience_ns = self.patience_ns(prompt_ns, config);
        self.motion != Motion::Rests && self.is_silent(self.life_ns, patience_ns, now)
    }

    /// A request without a first byte has been at a replica since `since_ns` that shows nothing to do.
    fn stuck(&self, since_ns: Instant, prompt_ns: Span, config: &Config, now: Instant) -> bool {
        let least_ns = config.wedged_ns.max(UNSURE_NS) * PATIENCE;
        let patience_ns = least_ns.max(self.patience_ns(prompt_ns, config));
        self.motion == Motion::Rests && self.is_silent(since_ns.max(self.life_ns), patience_ns, now)
    }

    fn is_silent(&self, since_ns: Instant, patience_ns: Span, now: Instant) -> bool {
        !self.sleeping && self.still >= PROBES && now - since_ns >= patience_ns
    }

    /// How long it may be silent with something to do.
    fn patience_ns(&self, prompt_ns: Span, config: &Config) -> Span {
        let sure = self.stands() && self.answers >= ANSWERS_MIN;
        let least_ns = if sure { Span::ZERO } else { UNSURE_NS };
        let by_requests = self.stands() && !self.tells_tokens;
        let factor = if by_requests { PATIENCE } else { 1 };
        let slow_ns = self.survived_ns.max(prompt_ns) * PATIENCE;
        (config.wedged_ns.max(least_ns) * factor).max(slow_ns)
    }

    /// Connections have not come about, and nothing was heard, for so long that nobody is there.
    fn gone(&self, config: &Config, now: Instant) -> bool {
        let gone_ns = (config.wedged_ns / 2).max(GONE_NS);
        let silent = |since_ns: Instant| now - since_ns >= gone_ns;
        self.unconnected_ns.is_some_and(silent) && self.sign_ns.is_none_or(silent)
    }

    fn live(&mut self, now: Instant) {
        self.life_ns = now;
        self.still = 0;
    }

    fn survive(&mut self, since_ns: Instant, now: Instant) {
        let silence_ns = (now - since_ns).min(SURVIVED_MAX_NS);
        self.survived_ns = self.survived_ns.max(silence_ns);
    }
}

/// What a replica's signs of life come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Vital {
    /// It lives, as far as is known.
    Lives,
    /// It was out of service already.
    Out,
    /// It has just been put out: nobody is there.
    Gone,
    /// It has just been put out: it stands still.
    Wedged,
    /// It has just been ejected: nothing comes to its engine.
    Stuck,
}

impl Fleet {
    /// Bytes of an answer of one replica came; true when its health changed.
    pub(in crate::engine) fn note_sign(&mut self, slot: ReplicaSlot, now: Instant) -> bool {
        let Some(member) = self.member(slot) else {
            return false;
        };
        let changes =
            member.replica.health.silent() || member.replica.health.state() == State::Wedged;
        if let Some(member) = self.members.get_mut(slot.index()) {
            member.pulse.note_sign(now);
        }
        let Some(member) = self.member_mut_if(slot, changes) else {
            return false;
        };
        member.replica.health.note_sign();
        member.replica.health.revive(now)
    }

    /// A probe has told something, or nothing, of a replica: puts it out if it is wedged or gone.
    pub(in crate::engine) fn review(
        &mut self,
        slot: ReplicaSlot,
        config: &Config,
        now: Instant,
    ) -> Vital {
        let Some(member) = self.member(slot).filter(|member| !member.removed) else {
            return Vital::Lives;
        };
        let state = member.replica.health.state();
        let in_service = matches!(state, State::Up | State::Probing);
        let gone = in_service && member.pulse.gone(config, now);
        let busy = member.replica.own_in_flight() > 0;
        let prompt_ns = member.longest_prompt_ns(config);
        let wedged = in_service && busy && member.pulse.stopped(prompt_ns, config, now);
        let waits_since_ns = member.replica.unanswered_since_ns();
        let stuck = waits_since_ns
            .is_some_and(|since_ns| member.pulse.stuck(since_ns, prompt_ns, config, now));
        let stuck = in_service && stuck && self.pool().may_eject(config);
        let stops = (wedged || stuck) && self.another_lives(slot, config, now);
        if let Some(member) = self.member_mut_if(slot, gone || stops) {
            if gone {
                member.replica.health.unreachable();
                return Vital::Gone;
            }
            if stuck {
                member.replica.health.eject(config, now);
                return Vital::Stuck;
            }
            member.replica.health.wedge();
            return Vital::Wedged;
        }
        if matches!(state, State::Down | State::Wedged) {
            Vital::Out
        } else {
            Vital::Lives
        }
    }

    /// Another replica is ready and has nothing to do, or has shown a sign of life lately.
    fn another_lives(&self, slot: ReplicaSlot, config: &Config, now: Instant) -> bool {
        let lately_ns = config.wedged_ns / 2;
        let mut others = self.members().filter(|(other, _)| *other != slot);
        others.any(|(_, other)| {
            let idle = other.all_in_flight() == 0;
            let age_ns = now - other.pulse.life_ns;
            other.ready(config, now)
                && !other.replica.health.silent()
                && (idle || age_ns < lately_ns)
        })
    }

    /// Bytes of an answer came so lately that the replica lives, whatever its probes say: it may be
    /// ending what it has begun.
    pub(in crate::engine) fn alive_lately(&self, slot: ReplicaSlot, now: Instant) -> bool {
        let sign_ns = self.member(slot).and_then(|member| member.pulse.sign_ns);
        sign_ns.is_some_and(|at_ns| now - at_ns < SIGN_NS)
    }
}
