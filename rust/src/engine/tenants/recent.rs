//! How much has been asked for lately.

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Span};

/// About as much of the past counts. Shorter, shares would follow each request; longer, they would come
/// late to where the requests are.
const LATELY: Span = Span::from_secs(8);

/// An amount over about the last [`LATELY`]: that of the present stretch, and of the one before the part that
/// the present one does not cover yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Recent {
    newer: u64,
    older: u64,
    since: Instant,
}

impl Recent {
    pub(super) fn add(&mut self, amount: u64, now: Instant) {
        let age = now - self.since;
        if age >= LATELY {
            self.older = if age < 2 * LATELY { self.newer } else { 0 };
            self.newer = 0;
            self.since = now;
        }
        self.newer = self.newer.saturating_add(amount);
    }

    /// The same by a clock that is ahead by so many nanoseconds.
    pub(super) fn shifted(self, ahead_ns: i64) -> Self {
        Self {
            since: self.since.shifted(ahead_ns),
            ..self
        }
    }

    /// How much per minute.
    pub(super) fn per_minute(&self, now: Instant) -> u64 {
        let age = (now - self.since).ns();
        let whole = LATELY.ns();
        // Of the present stretch all counts, then ever less; of the one before what is not covered.
        let newer = part(self.newer, (2 * whole).saturating_sub(age).min(whole));
        let older = part(self.older, whole.saturating_sub(age));
        let minutes = super::bucket::WINDOW.ns() * 10 / whole;
        newer.saturating_add(older).saturating_mul(minutes) / 10
    }
}

/// `amount` times a part of [`LATELY`].
fn part(amount: u64, ns: u64) -> u64 {
    let product = u128::from(amount) * u128::from(ns) / u128::from(LATELY.ns());
    u64::try_from(product).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_forgotten() {
        let mut recent = Recent::default();
        let mut now = Instant::ZERO + Span::from_secs(100);
        for _ in 0..300 {
            recent.add(10, now);
            now += Span::from_ms(100);
        }
        let found = recent.per_minute(now);
        assert!((5_400..=6_100).contains(&found), "{found}");
        assert_eq!(recent.per_minute(now + 2 * LATELY), 0);
    }
}
