//! How many requests a replica runs at once before the next one waits, learned from snapshots.

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Span};

/// A knee is remembered for one to two of these after it was last seen.
const RECENT_NS: Span = Span::from_ns(5_000_000_000);
/// Bound of the doubling window; `in_flight_max` binds earlier.
const WINDOW_MAX: u32 = 1 << 16;
/// While the knee is unknown, a batch may grow at once by one in so many over what it has been
/// seen to run; below that many requests, by one.
const REACH: u32 = 16;
/// While little work is pending, it may be so many times as large.
const LIGHT: u32 = 2;
/// Clean snapshots in a row that found the allowance used up, after which the batch may grow though
/// none of them has shown it grown: requests that end in step with the probes hide it.
const STALLS: u32 = 4;
/// Fixed point of the mean in transit, its length in samples, and the bound of one sample.
const TRANSIT_UNIT: u32 = 256;
const MEAN_LEN: u32 = 8;
const SAMPLE_MAX: u32 = 1 << 16;
/// One in so many of the batch on its way is worth pushing ahead.
const TRANSIT_SHARE: u32 = 32;
/// In a smaller batch the one that waits stands in for whatever is on its way, unless that is all of it.
const SMALL_BATCH: u32 = 8;

/// What one snapshot said, as far as the knee is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Running by the gauge.
    pub(super) running: u32,
    /// Waiting by the gauge.
    pub(super) waiting: u32,
    /// In flight and not waiting: those running and those on their way, in or out.
    pub(super) active: u32,
    /// Those on their way.
    pub(super) transit: u32,
    /// When the oldest of ours was pushed that the gauges do not show.
    pub(super) unseen_ns: Option<Instant>,
    /// When the probe was sent.
    pub(super) sent_ns: Instant,
    /// When it was answered.
    pub(super) now: Instant,
}

/// The knee, or, while it is unknown, how far to go beyond what is known to be good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct Knee {
    /// Lowest [`Reading::active`] of the snapshots that found requests waiting, in the present
    /// span of [`RECENT_NS`] and in the one before.
    newer: Option<u32>,
    older: Option<u32>,
    newer_since_ns: Instant,
    /// Running mean, in those snapshots and in those that found the allowance used up, of the
    /// active requests the gauge did not show running, in units of 1/[`TRANSIT_UNIT`]. Near zero
    /// for answers of many steps; as large as a batch for requests of one step, which a gauge
    /// written between steps never shows.
    transit: u32,
    /// Most requests seen running while none waited.
    good: u32,
    /// The knee as it was last known, or a larger batch seen since. No decision rests on it.
    full: Option<u32>,
    /// Pending requests allowed to requests that the gauges hardly show.
    window: u32,
    /// When the allowance was first used up since the last snapshot that took note of it.
    used_ns: Option<Instant>,
    /// That snapshot showed fewer than half of the requests in flight.
    hidden: bool,
    /// Those in a row that showed no larger batch.
    stalls: u32,
}

impl Knee {
    pub(super) fn new() -> Self {
        Self {
            newer: None,
            older: None,
            newer_since_ns: Instant::ZERO,
            transit: 0,
            good: 0,
            full: None,
            window: 1,
            used_ns: None,
            hidden: false,
            stalls: 0,
        }
    }

    /// The same by a clock that is ahead by so many nanoseconds, and within the bounds.
    pub(super) fn shifted(self, ahead_ns: i64) -> Self {
        Self {
            newer_since_ns: self.newer_since_ns.shifted(ahead_ns),
            used_ns: None,
            window: self.window.clamp(1, WINDOW_MAX),
            transit: self.transit.min(SAMPLE_MAX * TRANSIT_UNIT),
            ..self
        }
    }

    /// The lowest figure of the last 5 to 10 s, if requests waited in that time.
    pub(super) fn active(&self) -> Option<u32> {
        match (self.newer, self.older) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The size of a full batch, if the replica has ever been full.
    pub(super) fn full(&self) -> Option<u32> {
        self.full
    }

    /// Pending requests allowed with `running` in the batch. `light`: the pending prompts and one more are little
    /// work.
    pub(super) fn allowance(&self, running: u32, light: bool) -> u32 {
        match self.active() {
            Some(knee) => self.beyond(knee, running),
            None => self.window.max(self.reach(running, light)),
        }
    }

    /// With the knee known: the distance to it, at least 1, and [`Self::ahead`].
    fn beyond(&self, knee: u32, running: u32) -> u32 {
        let room = knee.saturating_sub(running).max(1);
        room.saturating_add(self.ahead(knee))
    }

    /// Requests pushed ahead of the one that waits: as many as are on their way on average, where
    /// that is so large a part of the batch that slots would stand empty until the next request
    /// comes. It is so for short requests (with answers of 20 tokens 1 in 20 is always under way),
    /// and not for a chat's long answers.
    fn ahead(&self, knee: u32) -> u32 {
        let share = self.transit.saturating_mul(TRANSIT_SHARE) / TRANSIT_UNIT;
        let all = self.transit / TRANSIT_UNIT >= knee;
        if share >= knee && (knee >= SMALL_BATCH || all) {
            (self.transit + TRANSIT_UNIT / 4) / TRANSIT_UNIT
        } else {
            0
        }
    }

    /// With the knee unknown: up to what the batch has been seen to run, and a little beyond. While little work
    /// is pending, up to [`LIGHT`] times that: no request waits for a slot, and one alone would leave a step
    /// nearly empty. In a small batch a slot is too dear to be found out that way.
    fn reach(&self, running: u32, light: bool) -> u32 {
        let most = if light && self.good >= SMALL_BATCH {
            self.good.saturating_mul(LIGHT)
        } else {
            self.larger()
        };
        most.saturating_sub(running).max(1)
    }

    fn larger(&self) -> u32 {
        self.good.saturating_add((self.good / REACH).max(1))
    }

    /// A push was made; now `running` are in the batch and `pending` pending.
    pub(super) fn pushed(&mut self, running: u32, pending: u32, light: bool, now: Instant) {
        if pending >= self.allowance(running, light) {
            self.used_ns.get_or_insert(now);
        }
    }

    /// Learns from a snapshot.
    pub(super) fn observe(&mut self, reading: &Reading) {
        let known = self.active();
        if reading.now - self.newer_since_ns >= RECENT_NS {
            self.older = self.newer.take();
            self.newer_since_ns = reading.now;
        }
        if reading.waiting > 0 {
            let lowest = self.newer.unwrap_or(u32::MAX).min(reading.active);
            self.newer = Some(lowest);
            self.good = self.good.min(lowest);
            self.full = self.active();
            self.restart_window(1);
        } else if known.is_some_and(|knee| reading.running > knee) {
            // It ran more than the knee and nothing waited: the knee was wrong or has moved.
            self.newer = None;
            self.older = None;
        }
        match (known, self.active()) {
            (Some(knee), None) => self.forget(knee, reading.running),
            (None, None) => self.grow(reading),
            (_, Some(_)) if reading.waiting > 0 || self.used_before(reading.sent_ns) => {
                self.learn_transit(reading.transit);
                self.used_ns = None;
            }
            (_, Some(_)) => {}
        }
    }

    fn used_before(&self, at_ns: Instant) -> bool {
        self.used_ns.is_some_and(|used_ns| used_ns < at_ns)
    }

    fn learn_transit(&mut self, transit: u32) {
        let sample = transit.min(SAMPLE_MAX) * TRANSIT_UNIT;
        self.transit = self.transit - self.transit / MEAN_LEN + sample / MEAN_LEN;
    }

    /// What was allowed at the knee is where it goes on from.
    fn forget(&mut self, knee: u32, running: u32) {
        self.good = knee.max(running);
        self.full = Some(self.good);
        let ahead = self.ahead(knee) > 0;
        self.restart_window(if ahead { self.beyond(knee, running) } else { 1 });
    }

    /// Takes note of a clean snapshot while the knee is unknown. Where the gauges show little of
    /// what is in flight, they cannot show that a batch has grown: there the window doubles when it
    /// was used up before the probe was sent, by requests that were answered since. Those that the
    /// gauges do not show yet might wait.
    fn grow(&mut self, reading: &Reading) {
        let grown = reading.running > self.good;
        self.good = self.good.max(reading.running);
        self.full = self.full.map(|full| full.max(reading.running));
        let unseen_ns = reading.unseen_ns.unwrap_or(Instant::MAX);
        if !self.used_before(reading.sent_ns.min(unseen_ns)) {
            return;
        }
        self.stalls = if grown { 0 } else { self.stalls + 1 };
        if self.stalls >= STALLS {
            self.good = self.larger();
            self.stalls = 0;
        }
        let hidden = reading.running < reading.transit;
        let shown = reading.running > reading.transit;
        if hidden && self.hidden {
            self.window = self.window.saturating_mul(2).min(WINDOW_MAX);
        } else if shown {
            self.window = (self.window / 2).max(1);
        }
        self.hidden = hidden;
        self.used_ns = None;
    }

    fn restart_window(&mut self, window: u32) {
        self.window = window;
        self.used_ns = None;
        self.hidden = false;
        self.stalls = 0;
    }
}
