//! How many retries are allowed: a share of recent requests plus a few per second.
//!
//! Without a budget, retries multiply the load just when replicas fail (docs/PROMISES.md, R7). The
//! rule is that of Finagle's `RetryBudget` and tower's `retry::budget`. Over the last ten seconds,
//! retries are at most `retry_ratio` of the requests plus `retry_per_s` for each second.

use crate::engine::config::Config;
use crate::time::{Instant, Span};

const SLICES: usize = 10;
const SLICE_NS: Span = Span::from_ns(1_000_000_000);

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    requests: u32,
    retries: u32,
}

/// Counts over a sliding window of ten slices of one second.
#[derive(Debug, Default)]
pub(in crate::engine) struct Budget {
    slices: [Slice; SLICES],
    /// Number of the newest slice since the clock's zero.
    newest: u64,
}

impl Budget {
    /// A request was submitted.
    pub(in crate::engine) fn request(&mut self, now: Instant) {
        let slice = self.slice(now);
        slice.requests = slice.requests.saturating_add(1);
    }

    /// Takes one retry out of the budget; false when it is used up.
    pub(in crate::engine) fn take(&mut self, config: &Config, now: Instant) -> bool {
        self.slice(now);
        let requests: u64 = self
            .slices
            .iter()
            .map(|slice| u64::from(slice.requests))
            .sum();
        let retries: u64 = self
            .slices
            .iter()
            .map(|slice| u64::from(slice.retries))
            .sum();
        let allowed = allowance(config, requests);
        let granted = within(retries, allowed);
        if granted {
            let slice = self.slice(now);
            slice.retries = slice.retries.saturating_add(1);
        }
        granted
    }

    /// The slice of this moment, after those that have left the window were cleared.
    fn slice(&mut self, now: Instant) -> &mut Slice {
        let number = (now.ns() / SLICE_NS.ns()).max(self.newest);
        let passed = number - self.newest;
        for step in 1..=passed.min(SLICES as u64) {
            self.slices[index(self.newest + step)] = Slice::default();
        }
        self.newest = number;
        &mut self.slices[index(number)]
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number % SLICES as u64).unwrap_or(0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of ten seconds are far below 2^52"
)]
fn allowance(config: &Config, requests: u64) -> f64 {
    config.retry_ratio * requests as f64 + config.retry_per_s * SLICES as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of ten seconds are far below 2^52"
)]
fn within(retries: u64, allowed: f64) -> bool {
    (retries + 1) as f64 <= allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(retry_ratio: f64, retry_per_s: f64) -> Config {
        Config {
            retry_ratio,
            retry_per_s,
            ..Config::sample()
        }
    }

    fn granted(budget: &mut Budget, config: &Config, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.take(config, now)).count()
    }

    #[test]
    fn retries_are_a_share_of_requests_and_some_per_second() {
        let mut budget = Budget::default();
        let config = config(0.2, 1.0);
        assert_eq!(granted(&mut budget, &config, Instant::ZERO), 10);
        for _ in 0..100 {
            budget.request(Instant::ZERO + SLICE_NS);
        }
        assert_eq!(
            granted(&mut budget, &config, Instant::ZERO + 2 * SLICE_NS),
            20
        );
    }

    #[test]
    fn what_is_older_than_ten_seconds_counts_no_more() {
        let mut budget = Budget::default();
        let config = config(0.5, 0.0);
        for _ in 0..10 {
            budget.request(Instant::ZERO);
        }
        assert_eq!(
            granted(&mut budget, &config, Instant::ZERO + 9 * SLICE_NS),
            5
        );
        assert_eq!(
            granted(&mut budget, &config, Instant::ZERO + 10 * SLICE_NS),
            0
        );
        for _ in 0..2 {
            budget.request(Instant::ZERO + 1_000 * SLICE_NS);
        }
        assert_eq!(
            granted(&mut budget, &config, Instant::ZERO + 1_000 * SLICE_NS),
            1
        );
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_grants_no_more() {
        let mut budget = Budget::default();
        let config = config(0.0, 0.5);
        assert_eq!(
            granted(&mut budget, &config, Instant::ZERO + 50 * SLICE_NS),
            5
        );
        assert_eq!(
            granted(&mut budget, &config, Instant::ZERO + 40 * SLICE_NS),
            0
        );
    }
}
