//! The work that a replica got lately.

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Span};

/// Work given to a replica in about the last so much time: that of the present window, and of the
/// one before the part that the present one does not cover yet.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct Lately {
    newer: Span,
    older: Span,
    since_ns: Instant,
}

impl Lately {
    /// The same by a clock that is ahead by so many nanoseconds.
    pub(in crate::engine) fn shifted(self, ahead_ns: i64) -> Self {
        Self {
            since_ns: self.since_ns.shifted(ahead_ns),
            ..self
        }
    }

    pub(in crate::engine) fn add(&mut self, work_ns: Span, window_ns: Span, now: Instant) {
        let age_ns = now - self.since_ns;
        if age_ns >= window_ns {
            let next = age_ns < window_ns * 2;
            self.older = if next { self.newer } else { Span::ZERO };
            self.newer = Span::ZERO;
            self.since_ns = now;
        }
        self.newer += work_ns;
    }

    #[expect(clippy::cast_precision_loss, reason = "positive, and `as` saturates")]
    pub(in crate::engine) fn sum_ns(&self, window_ns: Span, now: Instant) -> Span {
        let age = (now - self.since_ns).ns_f64() / window_ns.ns().max(1) as f64;
        let newer = self.newer.ns_f64() * (2.0 - age).clamp(0.0, 1.0);
        let older = self.older.ns_f64() * (1.0 - age).clamp(0.0, 1.0);
        Span::from_ns_f64(newer + older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_remembered_for_one_to_two_windows() {
        let mut lately = Lately::default();
        lately.add(
            Span::from_ns(100),
            Span::from_ns(10),
            Instant::from_ns(1_000),
        );
        assert_eq!(
            lately.sum_ns(Span::from_ns(10), Instant::from_ns(1_009)),
            Span::from_ns(100)
        );
        lately.add(
            Span::from_ns(50),
            Span::from_ns(10),
            Instant::from_ns(1_010),
        );
        assert_eq!(
            lately.sum_ns(Span::from_ns(10), Instant::from_ns(1_010)),
            Span::from_ns(150)
        );
        assert_eq!(
            lately.sum_ns(Span::from_ns(10), Instant::from_ns(1_015)),
            Span::from_ns(100),
            "half of the older window"
        );
        assert_eq!(
            lately.sum_ns(Span::from_ns(10), Instant::from_ns(1_030)),
            Span::ZERO
        );
        lately.add(
            Span::from_ns(u64::MAX),
            Span::from_ns(10),
            Instant::from_ns(2_000),
        );
        lately.add(
            Span::from_ns(u64::MAX),
            Span::from_ns(10),
            Instant::from_ns(2_001),
        );
        assert_eq!(
            lately.sum_ns(Span::from_ns(10), Instant::from_ns(2_001)),
            Span::from_ns(u64::MAX)
        );
        assert_eq!(
            lately.sum_ns(Span::ZERO, Instant::from_ns(2_001)),
            Span::from_ns(u64::MAX)
        );
    }
}
