//! The work that a replica got lately.

use crate::id::Nanos;

/// Work given to a replica in about the last so much time: that of the present window, and of the
/// one before the part that the present one does not cover yet.
#[derive(Debug, Default)]
pub(in crate::engine) struct Lately {
    /// In nanoseconds, as the next.
    newer: u64,
    older: u64,
    since_ns: Nanos,
}

impl Lately {
    pub(in crate::engine) fn add(&mut self, work_ns: u64, window_ns: Nanos, now_ns: Nanos) {
        let age_ns = now_ns.saturating_sub(self.since_ns);
        if age_ns >= window_ns {
            let next = age_ns < window_ns.saturating_mul(2);
            self.older = if next { self.newer } else { 0 };
            self.newer = 0;
            self.since_ns = now_ns;
        }
        self.newer = self.newer.saturating_add(work_ns);
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn sum_ns(&self, window_ns: Nanos, now_ns: Nanos) -> u64 {
        let age = now_ns.saturating_sub(self.since_ns) as f64 / window_ns.max(1) as f64;
        let newer = self.newer as f64 * (2.0 - age).clamp(0.0, 1.0);
        let older = self.older as f64 * (1.0 - age).clamp(0.0, 1.0);
        (newer + older) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_remembered_for_one_to_two_windows() {
        let mut lately = Lately::default();
        lately.add(100, 10, 1_000);
        assert_eq!(lately.sum_ns(10, 1_009), 100);
        lately.add(50, 10, 1_010);
        assert_eq!(lately.sum_ns(10, 1_010), 150);
        assert_eq!(lately.sum_ns(10, 1_015), 100, "half of the older window");
        assert_eq!(lately.sum_ns(10, 1_030), 0);
        lately.add(u64::MAX, 10, 2_000);
        lately.add(u64::MAX, 10, 2_001);
        assert_eq!(lately.sum_ns(10, 2_001), u64::MAX);
        assert_eq!(lately.sum_ns(0, 2_001), u64::MAX);
    }
}
