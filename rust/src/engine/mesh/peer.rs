//! A remote balancer: what it reported, how far it is, and whether it may be chosen.
//!
//! What a peer says is a hint with an age. The age counts from the arrival of a summary, by our
//! clock alone. Where the summary does not prove to be fresh, it counts from when we sent the last
//! one that the peer had received. So what a stalled link delivers late is old.

mod closed;
pub mod credit;
pub mod summary;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use self::credit::Credit;
use self::summary::{MODELS_MAX, PeerError, Summary};
use crate::engine::rate::Rate;
use crate::id::PeerId;
use crate::time::{Instant, Span};

/// Peers of one balancer, at most.
pub const PEERS_MAX: usize = 64;
/// A summary is believed for this long at most, whatever it says.
pub const VALID_FOR_NS_MAX: Span = Span::from_ns(800_000_000);
/// Nothing older than this is believed.
pub const AGE_NS_MAX: Span = Span::from_ns(3_000_000_000);
/// A summary whose sender had received nothing of ours for longer than this is not fresh.
pub const PROOF_NS_MAX: Span = Span::from_ns(2_000_000_000);
/// Models known of one peer, at most; of more nothing is sent.
const LANES_MAX: usize = 2 * MODELS_MAX;
/// Round trips of which the median is taken.
const ROUND_TRIPS: usize = 9;
/// Our summaries of which the sending time is remembered.
const SENT_MAX: usize = 32;
/// After a failed forward nothing is sent for so long; doubles while they keep failing.
const SHUT_NS: Span = Span::from_ns(250_000_000);
const SHUT_NS_MAX: Span = Span::from_ns(4_000_000_000);

/// What the control plane knows of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It answers.
    Alive,
    /// Not to be reached from here; it may live.
    Unreachable,
    /// It is gone.
    Dead,
}

impl Presence {
    /// The word for metrics, state and log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Unreachable => "unreachable",
            Self::Dead => "dead",
        }
    }
}

/// The summary received last, without its models.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// When it was sent at the latest; the present while it is fresh.
    pub at_ns: Instant,
    /// How long it may be believed.
    pub valid_for_ns: Span,
    /// The peer wants nothing.
    pub draining: bool,
    /// Requests in its hold.
    pub hold_len: u32,
    /// How long the oldest of them had waited.
    pub hold_age_ns: Span,
    /// It had received a summary of ours since our start: its limits mean us.
    pub knows_us: bool,
}

/// One model between us and a peer.
#[derive(Debug, Default)]
pub struct Lane {
    /// Replicas ready there.
    pub ready: u32,
    /// What we may have sent in all.
    pub limit: u64,
    /// What we have sent.
    pub sent: u64,
    /// Of that, answered or failed.
    pub settled: u64,
    /// Held there for it.
    pub hold_len: u32,
    /// Until a request arriving there would be computed.
    pub start_in_ns: Span,
    /// Time to the first token of a cached prompt there.
    pub base_ns: u32,
    /// Time per prompt token there.
    pub token_ns: u32,
    /// What we have granted.
    pub credit: Credit,
    /// Forwards from there lately.
    pub arrivals: Rate,
}

impl Lane {
    /// How much the peer lately sent and now holds for this model, as a weight.
    #[must_use]
    pub fn demand(&self, now: Instant) -> u64 {
        self.arrivals.per_s_milli(now) / 100 + 10 * u64::from(self.hold_len)
    }
}

/// Forwards to and from a peer, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Sent.
    pub forwarded: u64,
    /// Received.
    pub arrived: u64,
    /// Sent and answered.
    pub ok: u64,
    /// Sent and refused.
    pub refused: u64,
    /// Sent and failed.
    pub failed: u64,
    /// Sent, and the client left.
    pub client_left: u64,
    /// Sent because of a prefix that it had reported.
    pub digest_hits: u64,
    /// Tokens of such prefixes, where the answer said what was cached, ...
    pub digest_tokens: u64,
    /// ... and of them, cached there.
    pub digest_tokens_found: u64,
}

/// A remote balancer.
#[derive(Debug)]
pub struct Peer {
    /// Its number here.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its region's bit in masks of residency.
    pub region_bit: u64,
    /// More than its own word says that it is in its region.
    pub sure: bool,
    /// Taken out of the configuration; kept until its forwards have ended.
    pub removed: bool,
    /// What the control plane knows.
    pub presence: Presence,
    /// The operator wants nothing sent there.
    pub isolated: bool,
    /// What it sent last.
    pub received: Option<Received>,
    /// By model.
    pub lanes: HashMap<String, Lane, FixedState>,
    /// Forwards that have not ended.
    pub in_flight: u32,
    /// Totals.
    pub counts: Counts,
    round_trips: SmallVec<[Span; ROUND_TRIPS]>,
    rtt_ns: Option<Span>,
    jitter_ns: Span,
    /// Start and number of the last summary received.
    last: (u64, u64),
    /// Its start, as it has proven.
    start: Option<u64>,
    /// Failed forwards in a row, and until when nothing is sent for them.
    failures: u32,
    shut_until_ns: Instant,
    /// Numbers and times of our last summaries.
    sent: SmallVec<[(u64, Instant); SENT_MAX]>,
    sent_sequence: u64,
}

impl Peer {
    /// A peer of which nothing is known but its name.
    #[must_use]
    pub fn new(id: PeerId, name: String, region: String, region_bit: u64) -> Self {
        Self {
            id,
            name,
            region,
            region_bit,
            sure: true,
            removed: false,
            presence: Presence::Unreachable,
            isolated: false,
            received: None,
            lanes: HashMap::with_hasher(FixedState::default()),
            in_flight: 0,
            counts: Counts::default(),
            round_trips: SmallVec::new(),
            rtt_ns: None,
            jitter_ns: Span::ZERO,
            last: (0, 0),
            start: None,
            failures: 0,
            shut_until_ns: Instant::ZERO,
            sent: SmallVec::new(),
            sent_sequence: 0,
        }
    }

    // ------------------------------------------------------------------ distance

    /// One measured round trip.
    pub fn observe_rtt(&mut self, rtt_ns: Span) {
        if let Some(before) = self.round_trips.last() {
            // RFC 3550, 6.4.1: a mean of differences that follows by a sixteenth.
            let difference_ns = before.abs_diff(rtt_ns);
            self.jitter_ns = self.jitter_ns - self.jitter_ns / 16 + difference_ns / 16;
        }
        if self.round_trips.len() == ROUND_TRIPS {
            self.round_trips.remove(0);
        }
        self.round_trips.push(rtt_ns);
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        self.rtt_ns = sorted.get(sorted.len() / 2).copied();
    }

    /// The median of the last round trips.
    #[must_use]
    pub fn rtt_ns(&self) -> Option<Span> {
        self.rtt_ns
    }

    /// Mean difference of neighbouring round trips.
    #[must_use]
    pub fn jitter_ns(&self) -> Span {
        self.jitter_ns
    }

    // ---------------------------------------------------------------- what it sent

    /// It has proven when it started: of an earlier run no number counts any more, so that none of
    /// them can be so large that nothing comes after it. True where that changed.
    pub fn started(&mut self, incarnation: u64) -> bool {
        let anew = self.start != Some(incarnation);
        self.start = Some(incarnation);
        if self.last.0 != incarnation {
            self.last = (0, 0);
        }
        anew
    }

    /// Takes a summary over. `us` is our own start.
    ///
    /// Of a run that has not received anything of ours yet, only what it has sent us counts, as long as what
    /// an earlier run has granted does: a process that was succeeded has not gone away.
    ///
    /// # Errors
    ///
    /// It is of another run, or not newer than what was received before: nothing happened.
    pub fn merge(&mut self, summary: Summary, us: u64, now: Instant) -> Result<(), PeerError> {
        let number = (summary.incarnation, summary.sequence);
        if self.start.is_some_and(|start| start != summary.incarnation) {
            return Err(PeerError::Start);
        }
        if number <= self.last {
            return Err(PeerError::Old);
        }
        let anew = summary.incarnation != self.last.0;
        self.last = number;
        let knows_us = summary.received_incarnation == us && summary.received_sequence > 0;
        let sequence = if knows_us {
            summary.received_sequence
        } else {
            0
        };
        let keeps = !knows_us && !summary.draining && self.available(now);
        if !keeps {
            self.received = Some(Received {
                at_ns: self.sent_by(sequence, now),
                valid_for_ns: Span::from_ms(summary.valid_for_ms.into()).min(VALID_FOR_NS_MAX),
                draining: summary.draining,
                hold_len: summary.hold_len,
                hold_age_ns: Span::from_ms(summary.hold_age_ms.into()),
                knows_us,
            });
        }
        if anew {
            self.succeeded();
        }
        for lane in self.lanes.values_mut() {
            if !keeps {
                (lane.ready, lane.limit, lane.hold_len) = (0, 0, 0);
            }
            if anew {
                // It counts from zero again. What we have sent goes on: it takes that count over.
                lane.credit.restart(0);
            }
        }
        for entry in summary.models {
            let Some(lane) = self.lane_mut(&entry.model) else {
                continue;
            };
            if anew {
                lane.credit.restart(entry.sent);
            } else {
                let credit = &mut lane.credit;
                credit.acknowledge(sequence, entry.sent, entry.settled, now);
            }
            if keeps {
                continue;
            }
            lane.ready = entry.ready;
            lane.limit = entry.limit;
            lane.hold_len = entry.hold_len;
            lane.start_in_ns = Span::from_ns(u64::from(entry.start_in_us) * 1_000);
            lane.base_ns = entry.base_us.saturating_mul(1_000);
            lane.token_ns = entry.token_ns;
        }
        Ok(())
    }

    /// When a summary whose sender had received ours of this number must have been sent: now, unless
    /// that was long ago.
    fn sent_by(&self, sequence: u64, now: Instant) -> Instant {
        let sent = self.sent.iter().find(|(number, _)| *number == sequence);
        match (sent, self.sent.first()) {
            (Some((_, at_ns)), _) if now - *at_ns > PROOF_NS_MAX => *at_ns,
            // Older than what is remembered.
            (None, Some((first, at_ns))) if sequence > 0 && sequence < *first => *at_ns,
            _ => now,
        }
    }

    /// The age of what it sent.
    #[must_use]
    pub fn age_ns(&self, now: Instant) -> Option<Span> {
        Some(now - self.received?.at_ns)
    }

    /// The age up to which its summary counts: three times what it said itself, and two round
    /// trips, at most [`AGE_NS_MAX`].
    #[must_use]
    pub fn age_max_ns(&self) -> Span {
        let valid_for_ns = self
            .received
            .map_or(Span::ZERO, |received| received.valid_for_ns);
        let trips_ns = 2 * self.rtt_ns.unwrap_or_default().min(AGE_NS_MAX);
        (3 * valid_for_ns + trips_ns).min(AGE_NS_MAX)
    }

    /// It may be sent requests, as far as that does not depend on what for.
    #[must_use]
    pub fn available(&self, now: Instant) -> bool {
        let fresh = self
            .age_ns(now)
            .is_some_and(|age_ns| age_ns <= self.age_max_ns());
        let willing = self
            .received
            .is_some_and(|received| received.knows_us && !received.draining);
        let shut = now < self.shut_until_ns;
        self.listed() && fresh && willing && !shut
    }

    /// It is configured, lives, and is not isolated.
    #[must_use]
    pub fn listed(&self) -> bool {
        !self.removed && !self.isolated && self.presence == Presence::Alive
    }

    /// Requests for this model that may be sent there now; not more than `hold_max` may be held
    /// for it there.
    #[must_use]
    pub fn room(&self, model: &str, hold_max: u32, now: Instant) -> u64 {
        if !self.available(now) {
            return 0;
        }
        let lane = self
            .lanes
            .get(model)
            .filter(|lane| lane.hold_len <= hold_max);
        lane.map_or(0, |lane| lane.limit.saturating_sub(lane.sent))
    }

    /// It serves the model, as it said last and as long as that counts.
    #[must_use]
    pub fn serves(&self, model: &str, now: Instant) -> bool {
        let lane = self.lanes.get(model).filter(|lane| lane.ready > 0);
        self.available(now) && lane.is_some()
    }

    /// The models that it serves, as it said last and as long as that counts.
    pub fn models(&self, now: Instant) -> impl Iterator<Item = &str> {
        let told = self.available(now).then_some(&self.lanes);
        let lanes = told.into_iter().flatten();
        lanes
            .filter(|(_, lane)| lane.ready > 0)
            .map(|(model, _)| model.as_str())
    }

    /// It is gone: nothing of what it sent counts any more.
    pub fn forget(&mut self) {
        self.received = None;
    }

    /// Start and number of the last summary received; zeros before the first.
    #[must_use]
    pub fn last_received(&self) -> (u64, u64) {
        self.last
    }

    /// What we have to do with it for one model; `None` where too many models are known.
    pub fn lane_mut(&mut self, model: &str) -> Option<&mut Lane> {
        if !self.lanes.contains_key(model) {
            if self.lanes.len() >= LANES_MAX {
                return None;
            }
            self.lanes.insert(model.to_owned(), Lane::default());
        }
        self.lanes.get_mut(model)
    }

    // ------------------------------------------------------------------ forwards

    /// A request is forwarded; if it counts as `granted`, it uses up one of what was granted.
    pub fn forward(&mut self, model: &str, granted: bool) {
        self.in_flight += 1;
        self.counts.forwarded += 1;
        if let Some(lane) = self.lanes.get_mut(model).filter(|_| granted) {
            lane.sent += 1;
        }
    }

    /// A forward was answered, or failed.
    pub fn settle(&mut self, model: &str) {
        if let Some(lane) = self.lanes.get_mut(model) {
            lane.settled = lane.sent.min(lane.settled + 1);
        }
    }

    /// The peer refused a forward: if it was `granted`, there is no room until some is granted again.
    pub fn refused(&mut self, model: &str, granted: bool) {
        self.counts.refused += 1;
        if let Some(lane) = self.lanes.get_mut(model).filter(|_| granted) {
            lane.limit = 0;
        }
    }

    /// A forward failed on its way: nothing is sent for a while.
    pub fn failed(&mut self, now: Instant) {
        let shut_ns = SHUT_NS * (1_u64 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        self.shut_until_ns = now + shut_ns.min(SHUT_NS_MAX);
    }

    /// A forward was answered.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.shut_until_ns = Instant::ZERO;
    }

    /// When it may be sent requests again after failures, if that is to come.
    #[must_use]
    pub fn opens_ns(&self, now: Instant) -> Option<Instant> {
        Some(self.shut_until_ns).filter(|at_ns| *at_ns > now)
    }

    // ---------------------------------------------------------------- what we send

    /// The number of our next summary to it, remembered with its time.
    pub fn summary_sent(&mut self, now: Instant) -> u64 {
        self.sent_sequence += 1;
        if self.sent.len() == SENT_MAX {
            self.sent.remove(0);
        }
        self.sent.push((self.sent_sequence, now));
        self.sent_sequence
    }

    /// When it was sent something last.
    #[must_use]
    pub fn sent_ns(&self) -> Option<Instant> {
        self.sent.last().map(|(_, at_ns)| *at_ns)
    }
}

#[cfg(test)]
mod tests;
