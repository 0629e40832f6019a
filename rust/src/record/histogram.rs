//! Histograms with fixed buckets.

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// Buckets of vLLM's `vllm:time_to_first_token_seconds` (its `vllm/v1/metrics/loggers.py`), so that
/// the balancer's and the engine's distributions can be laid over each other.
pub const TTFT_BOUNDS_NS: &[u64] = &[
    MS,
    5 * MS,
    10 * MS,
    20 * MS,
    40 * MS,
    60 * MS,
    80 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    750 * MS,
    S,
    2_500 * MS,
    5 * S,
    7_500 * MS,
    10 * S,
    20 * S,
    40 * S,
    80 * S,
    160 * S,
    640 * S,
    2_560 * S,
];

/// Buckets of vLLM's `vllm:e2e_request_latency_seconds` (same source), and two below its first:
/// embeddings end in milliseconds.
pub const REQUEST_BOUNDS_NS: &[u64] = &[
    10 * MS,
    100 * MS,
    300 * MS,
    500 * MS,
    800 * MS,
    S,
    1_500 * MS,
    2 * S,
    2_500 * MS,
    5 * S,
    10 * S,
    15 * S,
    20 * S,
    30 * S,
    40 * S,
    50 * S,
    60 * S,
    120 * S,
    240 * S,
    480 * S,
    960 * S,
    1_920 * S,
    7_680 * S,
];

/// Ours: from one loop iteration to twice the default hold timeout of 30 s.
pub const HOLD_BOUNDS_NS: &[u64] = &[
    MS,
    2_500_000,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    20 * S,
    30 * S,
    60 * S,
];

/// Of mean gaps between tokens: from a small model's 2 ms to a batch that is far too large. Buckets of
/// vLLM's `vllm:inter_token_latency_seconds` lie among them.
pub const GAP_BOUNDS_NS: &[u64] = &[
    2_500_000,
    5 * MS,
    10 * MS,
    15 * MS,
    20 * MS,
    25 * MS,
    30 * MS,
    40 * MS,
    50 * MS,
    75 * MS,
    100 * MS,
    150 * MS,
    200 * MS,
    300 * MS,
    500 * MS,
    750 * MS,
    S,
    2_500 * MS,
    5 * S,
];

/// Of the longest gap of a stream: up to the silence after which a stream is ended by default.
pub const WORST_BOUNDS_NS: &[u64] = &[
    10 * MS,
    25 * MS,
    50 * MS,
    75 * MS,
    100 * MS,
    150 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
    60 * S,
    300 * S,
    600 * S,
];

/// Counts of values per bucket, and their sum.
#[derive(Debug)]
pub struct Histogram {
    bounds_ns: &'static [u64],
    counts: Box<[u64]>,
    /// 64 bits of nanoseconds would last 21 days at 10,000 requests under way.
    sum_ns: u128,
}

impl Histogram {
    /// Upper bounds, inclusive and ascending; one more bucket counts what is beyond the last.
    #[must_use]
    pub fn new(bounds_ns: &'static [u64]) -> Self {
        Self {
            bounds_ns,
            counts: vec![0; bounds_ns.len() + 1].into(),
            sum_ns: 0,
        }
    }

    /// Counts a value.
    pub fn observe(&mut self, value_ns: u64) {
        self.counts[self.bucket(value_ns)] += 1;
        self.sum_ns += u128::from(value_ns);
    }

    /// The number of the bucket that counts a value.
    #[must_use]
    pub fn bucket(&self, value_ns: u64) -> usize {
        self.bounds_ns
            .partition_point(|bound_ns| *bound_ns < value_ns)
    }

    /// Counts all values of another histogram with the same bounds.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_ns += other.sum_ns;
    }

    /// `(upper bound in seconds, values at or below it)`, ending with infinity; the sum in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub fn cumulative(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds_s = self.bounds_ns.iter().map(|bound_ns| *bound_ns as f64 / 1e9);
        let mut total = 0;
        let buckets = bounds_s
            .chain([f64::INFINITY])
            .zip(&self.counts)
            .map(|(bound_s, count)| {
                total += count;
                (bound_s, total)
            })
            .collect();
        (buckets, self.sum_ns as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_ascend() {
        for bounds in [
            TTFT_BOUNDS_NS,
            REQUEST_BOUNDS_NS,
            HOLD_BOUNDS_NS,
            GAP_BOUNDS_NS,
            WORST_BOUNDS_NS,
        ] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_bound_is_the_decimal_number_it_stands_for() {
        let (buckets, _) = Histogram::new(TTFT_BOUNDS_NS).cumulative();
        assert_eq!(buckets[0].0.to_string(), "0.001");
        assert_eq!(buckets[12].0.to_string(), "2.5");
        assert_eq!(buckets.last().unwrap().0.to_string(), "inf");
    }

    proptest! {
        #[test]
        fn each_bucket_counts_the_values_at_or_below_its_bound(
            values in prop::collection::vec(prop_oneof![0..10_000_000_000_000u64, prop::sample::select(HOLD_BOUNDS_NS)], 0..200)
        ) {
            let mut histogram = Histogram::new(HOLD_BOUNDS_NS);
            for value in &values {
                histogram.observe(*value);
            }
            let (buckets, _) = histogram.cumulative();
            for (bound_ns, (_, count)) in HOLD_BOUNDS_NS.iter().chain([&u64::MAX]).zip(&buckets) {
                let expected = values.iter().filter(|value| *value <= bound_ns).count();
                prop_assert_eq!(usize::try_from(*count).unwrap(), expected);
            }
            prop_assert_eq!(histogram.sum_ns, values.iter().map(|v| u128::from(*v)).sum::<u128>());
        }
    }
}
