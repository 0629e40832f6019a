//! How many requests a replica runs at once before the next one waits, learned from snapshots.

use crate::engine::id::Nanos;

/// A full replica's figures are remembered for one to two of these.
const RECENT_NS: Nanos = 5_000_000_000;
/// Bound of the doubling allowance; `in_flight_max` binds earlier.
const WINDOW_MAX: u32 = 1 << 16;
/// Fixed point of the mean in transit, its length in samples, and the bound of one sample.
const TRANSIT_UNIT: u32 = 256;
const MEAN_LEN: u32 = 8;
/// One in so many of the batch on its way is worth pushing ahead.
const TRANSIT_SHARE: u32 = 32;
const SAMPLE_MAX: u32 = 1 << 16;

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
    /// When the probe was sent.
    pub(super) sent_ns: Nanos,
    /// When it was answered.
    pub(super) now_ns: Nanos,
}

/// The knee, or, while it is unknown, a window that doubles.
#[derive(Debug, Clone)]
pub(super) struct Knee {
    /// Lowest [`Reading::active`] of the snapshots that found requests waiting, in the present
    /// span of [`RECENT_NS`] and in the one before.
    newer: Option<u32>,
    older: Option<u32>,
    newer_since_ns: Nanos,
    /// Running mean, in those snapshots and in those that found the allowance used up, of the
    /// active requests the gauge did not show running, in units of 1/[`TRANSIT_UNIT`]. Near zero
    /// for answers of many steps; as large as a batch for requests of one step, which a gauge
    /// written between steps never shows.
    transit: u32,
    window: u32,
    /// Pushes left of the burst under way.
    left: u32,
    /// When the allowance was first used up since the last snapshot that took note of it.
    used_ns: Option<Nanos>,
    /// Running at the last clean snapshot.
    running: u32,
}

impl Knee {
    pub(super) fn new() -> Self {
        Self {
            newer: None,
            older: None,
            newer_since_ns: 0,
            transit: 0,
            window: 1,
            left: 0,
            used_ns: None,
            running: 0,
        }
    }

    /// The lowest figure of the last 5 to 10 s, if requests waited in that time.
    pub(super) fn active(&self) -> Option<u32> {
        match (self.newer, self.older) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Pending requests allowed with `running` in the batch and `pending` there already.
    ///
    /// At the knee 1, and [`Self::ahead`] in front of it.
    pub(super) fn allowance(&self, running: u32, pending: u32) -> u32 {
        match self.active() {
            Some(knee) => self.beyond(knee, running),
            None => self.window(pending),
        }
    }

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
        if share >= knee {
            (self.transit + TRANSIT_UNIT / 4) / TRANSIT_UNIT
        } else {
            0
        }
    }

    /// Pending requests allowed by the window, `pending` being there already. A window is pushed in
    /// one burst, and the next burst waits until none of it is pending: a window that was too large
    /// is then seen by a probe before it is used again.
    fn window(&self, pending: u32) -> u32 {
        if pending == 0 {
            self.window
        } else {
            pending.saturating_add(self.left).min(self.window)
        }
    }

    /// A push was made with `running` in the batch and `pending` requests already pending.
    pub(super) fn pushed(&mut self, running: u32, pending: u32, now_ns: Nanos) {
        self.left = if pending == 0 {
            self.window - 1
        } else {
            self.left.saturating_sub(1)
        };
        let pending = pending.saturating_add(1);
        if pending >= self.allowance(running, pending) {
            self.used_ns.get_or_insert(now_ns);
        }
    }

    /// Learns from a snapshot.
    pub(super) fn observe(&mut self, reading: &Reading) {
        let used_up = self.used_ns.is_some_and(|at| at < reading.sent_ns);
        let known = self.active();
        if reading.now_ns.saturating_sub(self.newer_since_ns) >= RECENT_NS {
            self.older = self.newer.take();
            self.newer_since_ns = reading.now_ns;
        }
        if reading.waiting > 0 {
            let lowest = self.newer.unwrap_or(u32::MAX).min(reading.active);
            self.newer = Some(lowest);
            self.restart_window(1);
        } else if known.is_some_and(|knee| reading.running > knee) {
            // It ran more than the knee and nothing waited: the knee was wrong or has moved.
            self.newer = None;
            self.older = None;
        }
        match (known, self.active()) {
            // Forgotten: what it allowed is where the window goes on from.
            (Some(knee), None) => self.restart_window(self.beyond(knee, reading.running)),
            (None, None) => self.grow(reading.running, used_up),
            (_, Some(_)) if reading.waiting > 0 || used_up => self.learn_transit(reading.transit),
            (_, Some(_)) => {}
        }
        if used_up {
            self.used_ns = None;
        }
    }

    fn learn_transit(&mut self, transit: u32) {
        let sample = transit.min(SAMPLE_MAX) * TRANSIT_UNIT;
        self.transit = self.transit - self.transit / MEAN_LEN + sample / MEAN_LEN;
    }

    /// Doubles a window that was used up before the probe of this clean snapshot was sent, unless
    /// the batch grows by half from one snapshot to the next as it is: then a larger window would
    /// only overshoot.
    fn grow(&mut self, running: u32, used_up: bool) {
        let growing = running > self.running + self.running / 2;
        self.running = running;
        if used_up && !growing {
            self.window = self.window.saturating_mul(2).min(WINDOW_MAX);
        }
    }

    fn restart_window(&mut self, window: u32) {
        self.window = window;
        self.left = 0;
        self.used_ns = None;
        self.running = 0;
    }
}
