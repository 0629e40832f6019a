//! A second policy's verdict on each choice, without any effect.
//!
//! The shadow is a [`Chooser`] of its own, with the draws, the turns and the sessions of its policy. It is asked
//! where its policy would be asked, and sees the same fleet: as the deciding policy has made it. A policy that lets
//! no request wait for a full replica is asked when the request goes to one; another one also before. The verdict
//! counts when the request is pushed for the first time.

use serde::Serialize;

use super::candidates::Scratch;
use super::selection::{Here, Selection};
use super::verdict::Verdict;
use super::{Chooser, Room, Seeker, Sight};
use crate::engine::config::Config;
use crate::engine::counters::Counters;
use crate::id::{ReplicaId, ReplicaSlot};
use crate::time::Span;

const NS_PER_S: f64 = 1e9;

/// The second policy.
#[derive(Debug)]
pub(super) struct Shadow {
    /// The engine's settings, but for the policy.
    config: Config,
    chooser: Chooser,
}

impl Shadow {
    /// The shadow that the settings ask for. It draws as a chooser with this seed does.
    pub(super) fn of(config: &Config, hash_seed: u64, seed: u64) -> Option<Box<Self>> {
        let config = Config {
            policy: config.shadow_policy?,
            shadow_policy: None,
            ..config.clone()
        };
        let mut chooser = Chooser::new(&config, hash_seed, seed);
        chooser.of_shadow = true;
        Some(Box::new(Self { config, chooser }))
    }

    #[cfg(test)]
    pub(super) fn chooser_mut(&mut self) -> &mut Chooser {
        &mut self.chooser
    }

    /// Notes where a session went.
    pub(super) fn note_session(&mut self, key: u64, replica: ReplicaId) {
        if self.config.policy.traits().remembers_sessions {
            self.chooser.sessions.note(&key.to_le_bytes(), replica);
        }
    }

    /// What its policy does with a request for which `found` was found. `real`: the chooser that found it. The
    /// request may wait, as far as the deciding policy goes, and as far as this one does.
    pub(super) fn judge(
        &mut self,
        (seeker, (may_wait, own_may_wait)): (Seeker<'_>, (bool, bool)),
        found: Selection,
        real: &Scratch,
        sight: &mut Sight<'_>,
    ) -> Option<Verdict> {
        let here = match found {
            Selection::Here(here) => Some(here),
            Selection::Awaits { .. } => None,
            // The policy was not asked.
            Selection::NoRoom | Selection::NoneReady => return None,
        };
        let asked_again = may_wait && (seeker.ticket.is_some() || here.is_none());
        if asked_again && seeker.room == Room::Any && !self.config.waits() {
            return None;
        }
        let mut own = Sight {
            config: &self.config,
            fleet: sight.fleet,
            cache: sight.cache,
            hold: sight.hold,
            now: sight.now,
        };
        let (other, _) = (self.chooser).find_beside(seeker, own_may_wait, Some(real), &mut own);
        self.compare(seeker, here?, other, &own)
    }

    /// The verdict on the choice of one policy, given that of the other.
    fn compare(
        &self,
        seeker: Seeker<'_>,
        real: Here,
        other: Selection,
        sight: &Sight<'_>,
    ) -> Option<Verdict> {
        let (slot, waits) = match other {
            Selection::Here(here) => (here.slot, false),
            Selection::Awaits { slot } => (slot, true),
            Selection::NoRoom | Selection::NoneReady => return None,
        };
        let same = slot == real.slot;
        let (mut sooner_ns, mut later_ns) = (Span::ZERO, Span::ZERO);
        if !same && seeker.demand.measured() {
            let there_ns = self.ttft_ns(seeker, slot, sight);
            let here_ns = self.ttft_ns(seeker, real.slot, sight);
            (sooner_ns, later_ns) = (here_ns - there_ns, there_ns - here_ns);
        }
        Some(Verdict {
            replica: sight.fleet.member(slot)?.id(),
            waits,
            same,
            sooner_ns,
            later_ns,
        })
    }

    fn ttft_ns(&self, seeker: Seeker<'_>, slot: ReplicaSlot, sight: &Sight<'_>) -> Span {
        let blocks = self.chooser.match_blocks(slot);
        let tokens = super::matched_tokens(sight.cache, sight.fleet, seeker.demand, blocks);
        let matched = (blocks, tokens);
        let forecast =
            (sight.fleet).forecast(seeker.demand, slot, matched, sight.config, sight.now);
        forecast.ttft_ns
    }
}

/// The shadow for operators: what its policy would have done with requests when they were first pushed.
#[derive(Debug, Serialize)]
pub(in crate::engine) struct ShadowState {
    policy: &'static str,
    same: u64,
    other: u64,
    waits: u64,
    sooner_s: f64,
    later_s: f64,
}

impl Counters {
    /// `None` where there is no shadow.
    pub(in crate::engine) fn shadow_state(&self, config: &Config) -> Option<ShadowState> {
        let policy = config.shadow_policy?.name();
        let seconds = |ns| Span::from_ns(ns).ns_f64() / NS_PER_S;
        Some(ShadowState {
            policy,
            same: self.shadow_same,
            other: self.shadow_other,
            waits: self.shadow_waits,
            sooner_s: seconds(self.shadow_sooner_ns),
            later_s: seconds(self.shadow_later_ns),
        })
    }

    /// A request was pushed for the first time, on which a shadow had this verdict.
    pub(in crate::engine) fn count_shadow(&mut self, verdict: Option<Verdict>) {
        let Some(verdict) = verdict else {
            return;
        };
        *match (verdict.same, verdict.waits) {
            (true, _) => &mut self.shadow_same,
            (false, false) => &mut self.shadow_other,
            (false, true) => &mut self.shadow_waits,
        } += 1;
        self.shadow_sooner_ns += verdict.sooner_ns.ns();
        self.shadow_later_ns += verdict.later_ns.ns();
    }
}
