//! How good predictions of cached tokens were.

/// Upper bounds of the histogram of errors, in tokens.
pub(super) const ERROR_BOUNDS: [i32; 17] = [
    -4096, -1024, -256, -128, -64, -32, -16, -1, 0, 16, 32, 64, 128, 256, 1024, 4096, 16_384,
];

/// Predicted minus confirmed tokens, of requests where either is not zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Errors {
    counts: [u64; ERROR_BOUNDS.len() + 1],
    sum: i64,
}

impl Errors {
    pub(super) fn observe(&mut self, predicted: u32, confirmed: u32) {
        if predicted == 0 && confirmed == 0 {
            return;
        }
        let error = i64::from(predicted) - i64::from(confirmed);
        self.counts[ERROR_BOUNDS.partition_point(|bound| i64::from(*bound) < error)] += 1;
        self.sum += error;
    }

    /// Upper bounds with cumulative counts, the last without bound, and the sum.
    pub(super) fn cumulative(&self) -> (Vec<(f64, u64)>, i64) {
        let bounds = ERROR_BOUNDS.iter().map(|bound| f64::from(*bound));
        let mut total = 0;
        let buckets = bounds
            .chain(std::iter::once(f64::INFINITY))
            .zip(self.counts);
        let buckets = buckets.map(|(bound, count)| {
            total += count;
            (bound, total)
        });
        (buckets.collect(), self.sum)
    }
}
