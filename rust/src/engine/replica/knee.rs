//! How many requests a replica runs at once before the next one waits, learned from snapshots.

use crate::engine::id::Nanos;

/// A full replica's figures are remembered for one to two of these.
const RECENT_NS: Nanos = 5_000_000_000;
/// Bound of the doubling allowance; `in_flight_max` binds earlier.
const WINDOW_MAX: u32 = 1 << 16;

/// The lowest figures of recent snapshots that found requests waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// Requests in flight that did not wait: those running and those on their way.
    pub(super) active: u32,
    /// Of those, the ones the gauge did not show running: on their way in or out. Near zero for
    /// answers of many steps; of the order of the batch for requests that last about one step,
    /// which gauges read between steps never show.
    pub(super) transit: u32,
}

impl Full {
    fn lower(self, other: Self) -> Self {
        Self {
            active: self.active.min(other.active),
            transit: self.transit.min(other.transit),
        }
    }
}

/// What one snapshot said, as far as the knee is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Running by the gauge.
    pub(super) running: u32,
    /// Waiting by the gauge.
    pub(super) waiting: u32,
    /// See [`Full`]; meaningful while `waiting > 0`.
    pub(super) full: Full,
    /// Own requests the gauges did not show yet.
    pub(super) unseen: u32,
    /// Pushes made since the probe was sent, still without a first byte.
    pub(super) fresh: u32,
    /// An own request had its first byte or ended since the snapshot before.
    pub(super) progress: bool,
    /// When the probe was sent.
    pub(super) sent_ns: Nanos,
    /// When it was answered.
    pub(super) now_ns: Nanos,
}

/// The knee, or, while it is unknown, a window that doubles.
#[derive(Debug, Clone)]
pub(super) struct Knee {
    older: Option<Full>,
    newer: Option<Full>,
    newer_since_ns: Nanos,
    window: u32,
    /// Pushes made on top of a pending one since the window was granted.
    spent: u32,
    /// When the allowance was last used up.
    used_ns: Option<Nanos>,
}

impl Knee {
    pub(super) fn new() -> Self {
        Self {
            older: None,
            newer: None,
            newer_since_ns: 0,
            window: 1,
            spent: 0,
            used_ns: None,
        }
    }

    /// The lowest figures of the last 5 to 10 s, if requests waited in that time.
    pub(super) fn full(&self) -> Option<Full> {
        match (self.older, self.newer) {
            (Some(a), Some(b)) => Some(a.lower(b)),
            (a, b) => a.or(b),
        }
    }

    /// Pending requests allowed by the window, `pending` being there already: a window is granted
    /// per snapshot, so first bytes do not refill more than its last place.
    pub(super) fn window(&self, pending: u32) -> u32 {
        let left = self.window.saturating_sub(1).saturating_sub(self.spent);
        pending.saturating_add(left).min(self.window).max(1)
    }

    /// A push was made with `pending` requests already pending; `used_up`: it took the last place.
    pub(super) fn pushed(&mut self, pending: u32, used_up: bool, now_ns: Nanos) {
        if pending > 0 {
            self.spent = self.spent.saturating_add(1);
        }
        if used_up {
            self.used_ns = Some(now_ns);
        }
    }

    /// Learns from a snapshot.
    pub(super) fn observe(&mut self, reading: &Reading) {
        if reading.now_ns.saturating_sub(self.newer_since_ns) >= RECENT_NS {
            self.older = self.newer.take();
            self.newer_since_ns = reading.now_ns;
        }
        if reading.waiting > 0 {
            self.newer = Some(self.newer.map_or(reading.full, |f| f.lower(reading.full)));
            self.restart_window();
            return;
        }
        if self.full().is_some_and(|f| reading.running > f.active) {
            // It ran more than the knee and nothing waited: the knee was wrong or has moved.
            self.older = None;
            self.newer = None;
            self.restart_window();
        }
        if self.full().is_none() {
            self.grow(reading);
        }
    }

    /// Doubles the window when a clean snapshot shows what the used-up one led to.
    fn grow(&mut self, reading: &Reading) {
        // Requests of one step end before a gauge shows them: an empty gauge, and requests that
        // came through since, are as clean as one that shows all of ours running.
        let shown = reading.unseen == 0 || (reading.running == 0 && reading.progress);
        if !shown {
            return;
        }
        self.spent = self.spent.min(reading.fresh);
        if self.used_ns.is_some_and(|at| at < reading.sent_ns) {
            self.window = self.window.saturating_mul(2).min(WINDOW_MAX);
            self.used_ns = None;
        }
    }

    fn restart_window(&mut self) {
        self.window = 1;
        self.spent = 0;
        self.used_ns = None;
    }
}
