//! Figures that grow with the number of buckets, not of requests.

use std::collections::BTreeMap;

use super::live::Live;
use super::result::{Distribution, Prediction, Section};
use super::scenario::seconds;
use crate::id::Nanos;

/// Buckets grow by 1 % from a microsecond on, to more than 10,000 s; `skylb load` has the same.
const LOWEST_NS: f64 = 1e3;
const GROWTH: f64 = 1.01;
const BUCKETS: usize = 2_400;

/// Durations in buckets.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// Empty until something is added.
    buckets: Vec<u64>,
    scale: f64,
    count: u64,
    sum_ns: u128,
    min_ns: Nanos,
    max_ns: Nanos,
    /// The last duration and its bucket: the tokens of one step have waited equally long.
    last: (Nanos, usize),
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Vec::new(),
            scale: 1.0 / GROWTH.ln(),
            count: 0,
            sum_ns: 0,
            min_ns: Nanos::MAX,
            max_ns: 0,
            last: (0, 0),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, value_ns: Nanos) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        if self.last.0 != value_ns {
            self.last = (value_ns, self.bucket(value_ns));
        }
        self.buckets[self.last.1] += 1;
        self.count += 1;
        self.sum_ns += u128::from(value_ns);
        self.min_ns = self.min_ns.min(value_ns);
        self.max_ns = self.max_ns.max(value_ns);
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "positive, and bounded by the buckets"
    )]
    fn bucket(&self, value_ns: Nanos) -> usize {
        let value = value_ns as f64;
        if value <= LOWEST_NS {
            return 0;
        }
        (((value / LOWEST_NS).ln() * self.scale) as usize + 1).min(BUCKETS - 1)
    }

    /// Adds all of another's durations.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The smallest duration that a share `q` does not exceed, in seconds, to half a percent.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rank within the count; results are doubles"
    )]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let middle_s = LOWEST_NS * GROWTH.powf(bucket as f64 - 0.5) / 1e9;
                return Some(middle_s.clamp(seconds(self.min_ns), seconds(self.max_ns)));
            }
        }
        None
    }

    /// The form of the result.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "results are doubles")]
    pub fn distribution(&self) -> Distribution {
        let buckets = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        Distribution {
            count: self.count,
            mean: (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64 / 1e9),
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            max: (self.count > 0).then(|| seconds(self.max_ns)),
            histogram: buckets
                .map(|(bucket, count)| (LOWEST_NS * GROWTH.powf(bucket as f64) / 1e9, *count))
                .collect(),
        }
    }
}

/// What is counted per region.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Measured requests sent.
    pub requests: u64,
    /// Measured requests that ended well.
    pub completed: u64,
    /// Measured requests that failed, by kind.
    pub failed: BTreeMap<&'static str, u64>,
    /// Measured requests under way.
    pub unfinished: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Requests answered in the measured time.
    pub answered: u64,
    /// Their prompt tokens.
    pub input_tokens: u64,
    /// Their answer tokens.
    pub output_tokens: u64,
    /// Their cached prompt tokens.
    pub cached_tokens: u64,
    /// Sending to first byte.
    pub ttft: Histogram,
    /// Sending to end.
    pub e2e: Histogram,
    /// Token to token.
    pub inter_token: Histogram,
    /// Time held.
    pub hold: Histogram,
    /// Push to first byte, as predicted.
    pub predicted: Histogram,
    /// Push to first byte, where it was predicted.
    pub real: Histogram,
    /// Their differences, as parts of the real time; one is a second.
    pub error: Histogram,
}

impl Tally {
    /// A request ended, which the client knows at `at_ns`. `input`: tokens of its prompt; `inside`: that is in
    /// the measured time.
    pub fn count(
        &mut self,
        live: &Live,
        (input, inside): (u32, bool),
        ended: Result<(), &'static str>,
        at_ns: Nanos,
    ) {
        if ended.is_ok() && inside {
            self.answered += 1;
            self.input_tokens += u64::from(input);
            self.output_tokens += u64::from(live.output);
            self.cached_tokens += u64::from(live.cached);
        }
        if !live.measured {
            return;
        }
        let since = |at_ns: Nanos| at_ns.saturating_sub(live.sent_ns);
        self.retries += u64::from(live.tries.saturating_sub(1));
        match ended {
            Ok(()) => {
                self.completed += 1;
                self.ttft.add(since(live.first_byte_ns.unwrap_or(at_ns)));
                self.e2e.add(since(at_ns));
                self.hold.add(live.held_ns);
                if let Some(predicted_ns) = live.predicted_ns {
                    self.predicted(predicted_ns, live.started_ns);
                }
            }
            Err(kind) => *self.failed.entry(kind).or_default() += 1,
        }
    }

    /// The engine predicted a time from push to first byte.
    pub fn predicted(&mut self, predicted_ns: Nanos, real_ns: Nanos) {
        self.predicted.add(predicted_ns);
        self.real.add(real_ns);
        let off = u128::from(predicted_ns.abs_diff(real_ns)) * 1_000_000_000;
        let error = off / u128::from(real_ns.max(1));
        self.error.add(Nanos::try_from(error).unwrap_or(Nanos::MAX));
    }

    /// Adds another's figures.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.completed += other.completed;
        for (kind, count) in &other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        self.unfinished += other.unfinished;
        self.retries += other.retries;
        self.answered += other.answered;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cached_tokens += other.cached_tokens;
        self.ttft.merge(&other.ttft);
        self.e2e.merge(&other.e2e);
        self.inter_token.merge(&other.inter_token);
        self.hold.merge(&other.hold);
        self.predicted.merge(&other.predicted);
        self.real.merge(&other.real);
        self.error.merge(&other.error);
    }

    /// The form of the result, for figures of so many seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "results are doubles")]
    pub fn section(&self, measured_s: f64) -> Section {
        let per_s = |count: u64| {
            if measured_s > 0.0 {
                count as f64 / measured_s
            } else {
                0.0
            }
        };
        let failed: u64 = self.failed.values().sum();
        let known = self.completed + failed + self.unfinished;
        Section {
            requests: self.requests,
            completed: self.completed,
            failed: self
                .failed
                .iter()
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
            lost: self.requests.abs_diff(known),
            unfinished: self.unfinished,
            retries: self.retries,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cached_tokens: self.cached_tokens,
            hit_rate: (self.input_tokens > 0)
                .then(|| self.cached_tokens as f64 / self.input_tokens as f64),
            throughput_tokens_per_s: per_s(self.input_tokens + 2 * self.output_tokens),
            output_tokens_per_s: per_s(self.output_tokens),
            requests_per_s: per_s(self.answered),
            ttft_s: self.ttft.distribution(),
            e2e_s: self.e2e.distribution(),
            inter_token_s: self.inter_token.distribution(),
            hold_s: self.hold.distribution(),
            prediction: Prediction {
                predicted_s: self.predicted.distribution(),
                real_s: self.real.distribution(),
                error: self.error.distribution(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(mut values in prop::collection::vec(1_000u64..100_000_000_000, 1..200), q in 0.01f64..1.0) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.add(*value);
            }
            values.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a rank")]
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = seconds(values[rank - 1]);
            let found = histogram.quantile(q).unwrap();
            prop_assert!((found / exact - 1.0).abs() < 0.011, "{found} for {exact}");
        }

        #[test]
        fn merging_is_adding(one in prop::collection::vec(any::<u32>(), 0..50), other in prop::collection::vec(any::<u32>(), 0..50)) {
            let fill = |values: &[u32]| {
                let mut histogram = Histogram::default();
                for value in values {
                    histogram.add(u64::from(*value));
                }
                histogram
            };
            let mut merged = fill(&one);
            merged.merge(&fill(&other));
            let both: Vec<u32> = one.iter().chain(&other).copied().collect();
            prop_assert_eq!(merged.distribution(), fill(&both).distribution());
        }
    }
}
