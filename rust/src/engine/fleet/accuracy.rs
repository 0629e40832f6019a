//! How well times to the first byte were predicted.

use crate::time::Span;

/// Upper bounds of the relative error, in thousandths of the real time; the promise is a median
/// of 200.
const BOUNDS_PERMILLE: [u64; 11] = [10, 25, 50, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000];

/// Relative errors: of each streamed request, how far the predicted time from push to first byte
/// was from the real one, as a part of the real one.
#[derive(Debug, Default)]
pub(in crate::engine) struct Accuracy {
    counts: [u64; BOUNDS_PERMILLE.len() + 1],
    sum_permille: u64,
}

impl Accuracy {
    pub(in crate::engine) fn count(&mut self, predicted_ns: Span, real_ns: Span) {
        let off_ns = predicted_ns.abs_diff(real_ns);
        let wide = u128::from(off_ns.ns()) * 1_000 / u128::from(real_ns.ns().max(1));
        // A real time of nanoseconds is a fault of some clock: it must not spoil the sum.
        let permille = u64::try_from(wide).unwrap_or(u64::MAX).min(1_000_000);
        let at = BOUNDS_PERMILLE.partition_point(|bound| *bound < permille);
        self.counts[at] += 1;
        self.sum_permille = self.sum_permille.saturating_add(permille);
    }

    /// Predictions compared, and those that were off by at most a fifth.
    pub(in crate::engine) fn within_a_fifth(&self) -> (u64, u64) {
        let near = BOUNDS_PERMILLE.partition_point(|bound| *bound <= 200);
        let within = self.counts[..near].iter().sum();
        (self.counts.iter().sum(), within)
    }

    /// `(relative error, predictions at or below it)`, ending with infinity; the sum of errors.
    #[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
    pub(in crate::engine) fn cumulative(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds = BOUNDS_PERMILLE.iter().map(|bound| *bound as f64 / 1e3);
        let mut total = 0;
        let buckets = bounds.chain([f64::INFINITY]).zip(self.counts);
        let buckets = buckets.map(|(bound, count)| {
            total += count;
            (bound, total)
        });
        (buckets.collect(), self.sum_permille as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_as_parts_of_the_real_time() {
        let mut accuracy = Accuracy::default();
        for predicted_ns in [1_000, 1_200, 800, 1_201, 4_000] {
            accuracy.count(Span::from_ns(predicted_ns), Span::from_ns(1_000));
        }
        assert_eq!(accuracy.within_a_fifth(), (5, 3));
        let (buckets, sum) = accuracy.cumulative();
        assert_eq!(buckets[0], (0.01, 1));
        assert_eq!(buckets.last().unwrap().1, 5);
        assert!((sum - 3.601).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn a_real_time_of_zero_divides_nothing() {
        let mut accuracy = Accuracy::default();
        accuracy.count(Span::from_ns(u64::MAX), Span::ZERO);
        assert_eq!(accuracy.within_a_fifth(), (1, 0));
        assert!(accuracy.cumulative().1.is_finite());
    }
}
