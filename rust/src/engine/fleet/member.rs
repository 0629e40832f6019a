//! One replica, with what the fleet counts and remembers about it.

use super::lately::Lately;
use super::pulse::Pulse;
use crate::engine::config::{Config, UnknownModels};
use crate::engine::demand::Lane;
use crate::engine::fleet::gate::{self, Why};
use crate::engine::fleet::health::State;
use crate::engine::fleet::replica::{Need, Replica};
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::fleet::speed::Speed;
use crate::id::{ModelId, ReplicaId, RequestId};
use crate::time::{Instant, Span};

/// Tokens of a short prompt.
const SHORT_TOKENS: f64 = 128.0;
/// Prompt tokens that an engine computes in one step, usually; its page moves with each.
const STEP_TOKENS_MAX: f64 = 4096.0;

/// One replica with what the router counts about it.
#[derive(Debug)]
pub(in crate::engine) struct Member {
    pub(super) id: ReplicaId,
    pub(super) name: String,
    pub(super) replica: Replica,
    /// Its region's bit in masks of residency.
    pub(super) region_bit: u64,
    /// Its region, if it was adopted; else it is in this balancer's.
    pub(super) adopted: Option<String>,
    /// Taken out of the fleet; kept until its requests have ended.
    pub(super) removed: bool,
    /// What its list has; `None` until it told. Sorted.
    pub(super) models: Option<Vec<(ModelId, Option<u32>)>>,
    /// What it is sent besides.
    pub(super) takes: Takes,
    /// When it came to the fleet.
    pub(super) joined_ns: Instant,
    /// When its models first became known.
    pub(super) models_known_ns: Option<Instant>,
    /// Requests in flight that do not count as load.
    pub(super) light: u32,
    /// It said "full": no pushes until it is probed again, or until this moment.
    pub(super) full: Option<Full>,
    /// It has room that everybody who could use it has let pass.
    pub(super) declined: bool,
    pub(super) pushed_total: u64,
    pub(super) failed_total: u64,
    pub(super) match_blocks_total: u64,
    pub(super) prompt_blocks_total: u64,
    pub(super) cached_tokens_total: u64,
    pub(super) prompt_tokens_total: u64,
    /// How long it takes to first tokens, learned.
    pub(super) speed: Speed,
    /// How long requests run after their first byte: a running mean.
    pub(super) stay_ns: Option<Span>,
    /// Work given to it lately.
    pub(super) lately: Lately,
    /// Its signs of life.
    pub(super) pulse: Pulse,
    /// Until when it is being looked at for the first time, at the latest.
    pub(super) look_until_ns: Instant,
    /// Tokens that its engine had looked up when another process left what it knew of it: the first page that
    /// says fewer shows that its engine has started again since.
    pub(super) kept_queries: Option<u64>,
    /// When it is to be left.
    pub(super) notice: Option<Notice>,
}

/// A replica is to be left.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Notice {
    /// When it ends, or is to be empty.
    pub(in crate::engine) at_ns: Instant,
    /// When it is next looked at what is still there. First that is early enough to be computed elsewhere.
    pub(super) look_ns: Instant,
    /// It ends; else an operator wants it empty.
    pub(super) ends: bool,
}

/// What a replica is sent besides the models of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Takes {
    /// Nothing, or what is passed to all where no list has it.
    Listed,
    /// Models that no list has: its own was cut.
    Unlisted,
    /// Every model: it has not told what it serves.
    Any,
}

/// When a replica said that it is full, and until when that counts at most.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Full {
    pub(super) since_ns: Instant,
    pub(super) until_ns: Instant,
    /// It had nothing to do, as far as known.
    pub(super) idle: bool,
}

/// What a replica can do for a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Offer {
    /// It is not ready.
    None,
    /// It is ready, but has no room.
    Later,
    /// It has room.
    Room,
}

impl Member {
    pub(in crate::engine) fn new(
        id: ReplicaId,
        name: String,
        region_bit: u64,
        joined_ns: Instant,
    ) -> Self {
        Self {
            id,
            name,
            region_bit,
            adopted: None,
            replica: Replica::new(),
            removed: false,
            models: None,
            takes: Takes::Listed,
            joined_ns,
            models_known_ns: None,
            light: 0,
            full: None,
            declined: false,
            pushed_total: 0,
            failed_total: 0,
            match_blocks_total: 0,
            prompt_blocks_total: 0,
            cached_tokens_total: 0,
            prompt_tokens_total: 0,
            speed: Speed::default(),
            stay_ns: None,
            lately: Lately::default(),
            pulse: Pulse::default(),
            look_until_ns: Instant::ZERO,
            kept_queries: None,
            notice: None,
        }
    }

    pub(in crate::engine) fn id(&self) -> ReplicaId {
        self.id
    }

    pub(in crate::engine) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::engine) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Its region's bit in masks of residency.
    pub(in crate::engine) fn region_bit(&self) -> u64 {
        self.region_bit
    }

    /// It was taken out of the fleet, and its requests have not ended.
    pub(in crate::engine) fn removed(&self) -> bool {
        self.removed
    }

    /// It has room that all who could use it have let pass.
    pub(in crate::engine) fn declined(&self) -> bool {
        self.declined
    }

    /// It has told its models, or hides them.
    pub(in crate::engine) fn models_known(&self) -> bool {
        self.models.is_some()
    }

    /// What its list has, with each `max_model_len`; nothing until it told.
    pub(in crate::engine) fn models(&self) -> &[(ModelId, Option<u32>)] {
        self.models.as_deref().unwrap_or_default()
    }

    /// It has just joined: whether it answers, and what it serves, is being found out.
    pub(in crate::engine) fn looked_at(&self, now: Instant) -> bool {
        let open = match self.replica.health.state() {
            State::Unknown => true,
            State::Up => self.models.is_none(),
            State::Ejected | State::Probing | State::Wedged | State::Down => false,
        };
        open && !self.removed && now < self.look_until_ns
    }

    /// Its last page shows nothing to do, or, where that tells nothing, we have given it nothing.
    pub(in crate::engine) fn idle(&self, config: &Config, now: Instant) -> bool {
        if self.replica.blind(config, now) {
            return self.all_in_flight() == 0;
        }
        self.replica.snapshot().is_some_and(Snapshot::idle)
    }

    /// What the longest of our prompts that are not computed yet is expected to take, alone. Where only
    /// short ones have been computed, little is known of the time per token: that of a step may be more
    /// than the line says, but not more than all of the time of a short prompt, for each of its tokens.
    pub(in crate::engine) fn longest_prompt_ns(&self, config: &Config) -> Span {
        let tokens = f64::from(self.replica.longest_prefill());
        let Some(line) = self.speed.line(0) else {
            return Span::from_ns_f64(tokens * 1e9 / config.prefill_tokens_per_s);
        };
        let short_ns = line.at(SHORT_TOKENS) / SHORT_TOKENS;
        let step_ns = tokens.min(STEP_TOKENS_MAX) * short_ns;
        Span::from_ns_f64(step_ns.max(line.at(tokens)))
    }

    /// All our requests in flight.
    pub(in crate::engine) fn in_flight(&self) -> u32 {
        self.replica.own_in_flight().saturating_add(self.light)
    }

    /// Those, and the others' of the region.
    pub(in crate::engine) fn all_in_flight(&self) -> u32 {
        self.replica.in_flight().saturating_add(self.light)
    }

    pub(in crate::engine) fn offer(&self, lane: Lane, config: &Config, now: Instant) -> Offer {
        if self.removed {
            return Offer::None;
        }
        let admitted = gate::may_push(&self.replica, config, now);
        let ready = match lane {
            Lane::Batch | Lane::Light => !matches!(admitted, Err(Why::NotReady | Why::Sleeping)),
            Lane::Stored => matches!(self.replica.health.state(), State::Up | State::Probing),
        };
        let under_cap = self.all_in_flight() < config.in_flight_max;
        let room = lane != Lane::Batch || (admitted.is_ok() && self.full.is_none());
        match (ready, under_cap && room) {
            (false, _) => Offer::None,
            (true, false) => Offer::Later,
            (true, true) => Offer::Room,
        }
    }

    /// Counts a request in flight, before anything is sent.
    pub(in crate::engine) fn push(
        &mut self,
        id: RequestId,
        lane: Lane,
        need: Need,
        config: &Config,
        now: Instant,
    ) {
        self.pushed_total += 1;
        self.pulse.pushed(self.in_flight() == 0, now);
        match lane {
            Lane::Light | Lane::Stored => self.light += 1,
            Lane::Batch => {
                let counted = self.replica.push(id, need, config, now);
                debug_assert!(counted, "an offer of room is below the cap");
            }
        }
    }

    /// When time alone changes its health, or opens it.
    pub(in crate::engine) fn next_change_ns(&self, config: &Config) -> Option<Instant> {
        let full_ns = self.full.map(|full| full.until_ns);
        let health_ns = self.replica.health.next_change_ns(config);
        health_ns.into_iter().chain(full_ns).min()
    }

    /// Requests that it may be sent now, one after the other.
    pub(in crate::engine) fn free(&self, config: &Config, now: Instant) -> u32 {
        if self.full.is_some() {
            return 0;
        }
        let max = config.in_flight_max.saturating_sub(self.all_in_flight());
        gate::room(&self.replica, config, now).min(max)
    }

    /// It may be sent requests, as far as its health and its operator go.
    pub(in crate::engine) fn ready(&self, config: &Config, now: Instant) -> bool {
        self.offer(Lane::Light, config, now) != Offer::None
    }

    /// Some request would be sent to it: it is ready, and it has a model, or takes any.
    pub(in crate::engine) fn serves_some(&self, config: &Config, now: Instant) -> bool {
        let passed = config.unknown_models == UnknownModels::Pass;
        let serves = |listed: &Vec<_>| !listed.is_empty() || self.takes != Takes::Listed || passed;
        self.models.as_ref().is_some_and(serves) && self.ready(config, now)
    }

    /// It has served for a while, and takes all that it can.
    pub(in crate::engine) fn warm(&self, config: &Config, now: Instant) -> bool {
        let ramped = |at_ns: Instant| now - at_ns >= config.ramp_ns;
        self.serves_some(config, now)
            && self.models_known_ns.is_some_and(ramped)
            && self.replica.health.ramp(config, now).is_none()
    }

    /// What keeps a request of this lane from it, in one word.
    pub(in crate::engine) fn closed_to(
        &self,
        lane: Lane,
        config: &Config,
        now: Instant,
    ) -> &'static str {
        if self.removed {
            return "removed";
        }
        match self.closed_by(config, now).filter(|_| lane == Lane::Batch) {
            Some("not_ready") => self.unready(),
            Some(why) => why,
            None if lane != Lane::Batch && !self.ready(config, now) => self.unready(),
            None if lane != Lane::Batch => "in_flight_max",
            // Another with room has answered its last probe.
            None => "silent",
        }
    }

    /// Why it is not ready, in one word.
    fn unready(&self) -> &'static str {
        match self.replica.health.state() {
            State::Up if self.replica.health.draining() => "draining",
            State::Up => "not_ready",
            other => other.name(),
        }
    }

    /// What keeps it from taking one more request of the batch now.
    pub(in crate::engine) fn closed_by(
        &self,
        config: &Config,
        now: Instant,
    ) -> Option<&'static str> {
        if self.full.is_some() {
            return Some("full");
        }
        let shut = gate::may_push(&self.replica, config, now).err();
        // Requests outside the batch count too.
        if shut.is_none() && self.all_in_flight() >= config.in_flight_max {
            return Some("in_flight_max");
        }
        shut.map(|why| match why {
            Why::NotReady => "not_ready",
            Why::Sleeping => "sleeping",
            Why::Probing => "probing",
            Why::Cap => "in_flight_max",
            Why::Ramp => "ramp",
            Why::Blind => "blind_outstanding_max",
            Why::Outstanding => "outstanding_max",
            Why::Pending => "pending",
            Why::Shared => "shared",
        })
    }
}
