//! Arrivals per second, counted over about the last second: of requests, for instance.

use crate::time::{Instant, Span};

/// Arrivals in about the last second: those of the present window, and of the one before the part
/// that the present one does not cover yet.
#[derive(Debug, Default, Clone, Copy)]
pub struct Rate {
    newer: u32,
    older: u32,
    since_ns: Instant,
}

impl Rate {
    const WINDOW_NS: Span = Span::from_ns(1_000_000_000);

    /// Counts one.
    pub fn count(&mut self, now: Instant) {
        let age_ns = now - self.since_ns;
        if age_ns >= Self::WINDOW_NS {
            let next = age_ns < 2 * Self::WINDOW_NS;
            self.older = if next { self.newer } else { 0 };
            self.newer = 0;
            self.since_ns = now;
        }
        self.newer = self.newer.saturating_add(1);
    }

    /// How many per second, in thousandths.
    #[must_use]
    pub fn per_s_milli(&self, now: Instant) -> u64 {
        let age_milli = (now - self.since_ns) / (Self::WINDOW_NS / 1_000);
        let newer = u64::from(self.newer) * 2_000_u64.saturating_sub(age_milli).min(1_000);
        let older = u64::from(self.older) * 1_000_u64.saturating_sub(age_milli);
        newer + older
    }
}
