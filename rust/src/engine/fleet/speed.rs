//! How long an engine takes to its first token, learned.
//!
//! For requests that did not queue, the time from push to first byte is taken to be a line. It is
//! a base (round trip, the step under way, the batch's own work) plus so many nanoseconds per
//! token that is not cached. Both depend on how many requests are decoding, so each range of that
//! load has a line of its own. A line is a least-squares fit of relative errors (an error of 10 ms
//! matters at 20 ms, not at 2 s). Old samples decay, and outliers are pulled in to three mean
//! errors (Huber's rule). The fit is shrunk towards a prior: for a replica its fleet's line, for
//! the fleet the settings'. The shrinkage keeps every fit defined, also where all samples have one
//! length. Between ranges, lines are interpolated by the mean loads of their samples. So of two
//! replicas in one range the busier one is the slower one.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Ranges of the decode load: none, 1, 2-3, 4-7, ..., 256 and more.
pub const RANGES: usize = 10;
/// Each sample lets older ones count this much less: about the last hundred count.
const KEEP: f64 = 1.0 - 1.0 / 96.0;
/// The prompt length at which the slope of the prior counts as one sample.
const PRIOR_TOKENS: f64 = 128.0;
/// Samples further off than so many mean errors count as if they were this far off.
const OUTLIER: f64 = 3.0;
/// Weight of the newest error in the mean error; the first mean error, and the least.
const ERROR_NEW: f64 = 1.0 / 8.0;
const ERROR_FIRST: f64 = 0.5;
const ERROR_MIN: f64 = 0.01;
/// Times below this are taken for it: timers are no better.
const TIME_NS_MIN: f64 = 100_000.0;
/// A short prompt weighs at most so many times as much as one of the prior's length.
const WEIGHT_MAX: f64 = 100.0;
/// Weight of the newest sample in the mean load of a range's samples.
const LOAD_NEW: f64 = 1.0 / 32.0;
/// Beyond the loads learned, a line grows to so many times the last one at most.
const BEYOND_MAX: f64 = 2.0;
/// Nothing outside of this is learned or predicted: an hour, and a second per token.
const BASE_NS_MAX: f64 = 3.6e12;
const TOKEN_NS_MAX: f64 = 1e9;

/// Time to the first token of a request that need not queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StraightLine {
    /// Of a prompt that is cached whole.
    pub base_ns: f64,
    /// Per token that is not.
    pub token_ns: f64,
}

impl StraightLine {
    /// Time to the first token with so many tokens to compute.
    #[must_use]
    pub fn at(self, tokens: f64) -> f64 {
        self.base_ns + self.token_ns * tokens
    }

    /// This line at 0, another at 1, and between or beyond them as it goes on from there; beyond, no
    /// quicker than the other, and no slower than [`BEYOND_MAX`] times it.
    fn towards(self, other: Self, part: f64) -> Self {
        let between = |from: f64, to: f64| {
            let at = from + (to - from) * part;
            if part > 1.0 {
                at.clamp(to, to * BEYOND_MAX)
            } else {
                at
            }
        };
        Self {
            base_ns: between(self.base_ns, other.base_ns).min(BASE_NS_MAX),
            token_ns: between(self.token_ns, other.token_ns).min(TOKEN_NS_MAX),
        }
    }

    /// The line in whole numbers.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and BASE_NS_MAX or TOKEN_NS_MAX, and `as` saturates"
    )]
    pub fn pace(self) -> Pace {
        Pace {
            base_ns: Span::from_ns_f64(self.base_ns),
            token_ns: (self.token_ns as u32).max(1),
        }
    }
}

/// A line in whole numbers, as choices compute with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Of a prompt that is cached whole.
    pub base_ns: Span,
    /// Per token that is not; at least 1.
    pub token_ns: u32,
}

impl Pace {
    /// Tokens that take as long as the base.
    #[must_use]
    pub fn base_tokens(self) -> u32 {
        u32::try_from(self.base_ns.ns() / u64::from(self.token_ns)).unwrap_or(u32::MAX)
    }
}

/// What a fit is shrunk towards, and as how many samples that counts.
#[derive(Debug, Clone, Copy)]
pub struct Prior {
    /// The line.
    pub line: StraightLine,
    /// Above 0.
    pub samples: f64,
}

/// Decayed sums of a weighted least-squares fit.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Sums {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64, weight: f64) {
        let decayed = |sum: f64, new: f64| sum * KEEP + new * weight;
        self.weight = decayed(self.weight, 1.0);
        self.x = decayed(self.x, x);
        self.y = decayed(self.y, y);
        self.xx = decayed(self.xx, x * x);
        self.xy = decayed(self.xy, x * y);
    }

    /// The line that fits samples and prior best. The prior's terms keep the determinant above zero.
    fn fit(&self, prior: Prior) -> StraightLine {
        let slope_weight = prior.samples * PRIOR_TOKENS * PRIOR_TOKENS;
        let weight = self.weight + prior.samples;
        let prior_samples = prior.samples;
        let prior = prior.line;
        let y = self.y + prior_samples * prior.base_ns;
        let xx = self.xx + slope_weight;
        let xy = self.xy + slope_weight * prior.token_ns;
        let determinant = weight * xx - self.x * self.x;
        let token_ns = (weight * xy - self.x * y) / determinant;
        // A slope or base below zero is noise: the best line with the other parameter alone.
        let token_ns = token_ns.clamp(0.0, TOKEN_NS_MAX);
        let base_ns = (y - token_ns * self.x) / weight;
        if base_ns < 0.0 {
            return StraightLine {
                base_ns: 0.0,
                token_ns: (xy / xx).clamp(0.0, TOKEN_NS_MAX),
            };
        }
        StraightLine {
            base_ns: base_ns.min(BASE_NS_MAX),
            token_ns,
        }
    }
}

/// The fit of one range of load.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Fit {
    sums: Sums,
    line: StraightLine,
    /// Mean load of its samples.
    load: f64,
    /// Mean distance of samples from the line, as a part of what it said.
    error: f64,
}

impl Fit {
    fn new(prior: Prior, load: f64) -> Self {
        Self {
            sums: Sums::default(),
            line: prior.line,
            load,
            error: ERROR_FIRST,
        }
    }

    fn learn(&mut self, tokens: f64, load: f64, ttft_ns: f64, prior: Prior) {
        self.load += (load - self.load) * LOAD_NEW;
        let expected_ns = self.line.at(tokens).max(TIME_NS_MIN);
        let off = ttft_ns / expected_ns - 1.0;
        let most = OUTLIER * self.error;
        let typical = prior.line.at(PRIOR_TOKENS).max(TIME_NS_MIN) / expected_ns;
        let weight = (typical * typical).min(WEIGHT_MAX);
        let drawn_ns = expected_ns * (1.0 + off.clamp(-most, most));
        self.sums.add(tokens, drawn_ns, weight);
        // The error may double at once, so that a change of speed is followed in a few samples.
        let error = off.abs().min(most * OUTLIER);
        self.error = (self.error + (error - self.error) * ERROR_NEW).max(ERROR_MIN);
        self.line = self.sums.fit(prior);
    }
}

/// Lines by decode load.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Speed {
    fits: [Option<Fit>; RANGES],
    samples: u64,
}

impl Speed {
    fn range(load: u32) -> usize {
        let bits = u32::BITS - load.leading_zeros();
        (bits as usize).min(RANGES - 1)
    }

    /// The line at a decode load, between those of the nearest ranges that have learned one. Beyond
    /// them it goes on as between the last two, where it then was slower at more load.
    #[must_use]
    pub fn line(&self, load: u32) -> Option<StraightLine> {
        let load = f64::from(load);
        let mut fits = self.fits.iter().flatten();
        let mut low = fits.next()?;
        let Some(mut high) = fits.next() else {
            return Some(low.line);
        };
        for next in fits {
            if load <= high.load {
                break;
            }
            (low, high) = (high, next);
        }
        let part = ((load - low.load) / (high.load - low.load).max(1.0)).max(0.0);
        Some(low.line.towards(high.line, part))
    }

    /// The line at a decode load, if just its range has learned one.
    #[must_use]
    pub fn line_near(&self, load: u32) -> Option<StraightLine> {
        self.fits.get(Self::range(load))?.as_ref()?;
        self.line(load)
    }

    /// A request with so many tokens to compute, which did not queue, had its first byte after
    /// `ttft_ns`, at a decode load. Absurd samples teach nothing.
    pub fn learn(&mut self, load: u32, tokens: u32, ttft_ns: Span, prior: Prior) {
        let ttft_ns = ttft_ns.ns_f64();
        if ttft_ns > BASE_NS_MAX || ttft_ns == 0.0 {
            return;
        }
        if let Some(fit) = self.fits.get_mut(Self::range(load)) {
            self.samples += 1;
            let load = f64::from(load);
            fit.get_or_insert_with(|| Fit::new(prior, load)).learn(
                f64::from(tokens),
                load,
                ttft_ns,
                prior,
            );
        }
    }

    /// Mean load and line of each range that has learned one.
    pub fn learned(&self) -> impl Iterator<Item = (f64, StraightLine)> {
        self.fits.iter().flatten().map(|fit| (fit.load, fit.line))
    }

    /// Whether it is one that could have been learned: what was read from elsewhere may not be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fits.iter().flatten().all(|fit| {
            let Sums {
                weight,
                x,
                y,
                xx,
                xy,
            } = fit.sums;
            let sums = [weight, x, y, xx, xy, fit.load];
            let sums = sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0);
            let line = fit.line;
            let base = (0.0..=BASE_NS_MAX).contains(&line.base_ns);
            let token = (0.0..=TOKEN_NS_MAX).contains(&line.token_ns);
            sums && base && token && fit.error.is_finite() && fit.error >= ERROR_MIN
        })
    }

    /// Samples learned from.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    const PRIOR: StraightLine = StraightLine {
        base_ns: 20e6,
        token_ns: 100_000.0,
    };

    const LOAD: u32 = 5;

    fn weak(line: StraightLine) -> Prior {
        Prior { line, samples: 1.0 }
    }

    /// `samples` of a true line with noise and, one in ten, an outlier.
    fn taught(
        truth: StraightLine,
        prior: StraightLine,
        samples: usize,
        tokens_max: usize,
    ) -> Speed {
        let mut speed = Speed::default();
        let mut rng = Rng::new(5);
        for n in 0..samples {
            let tokens = u32::try_from(rng.below(tokens_max)).unwrap();
            let noise = 0.9 + 0.002 * f64::from(u32::try_from(rng.below(100)).unwrap());
            let outlier = if n % 10 == 9 { 8.0 } else { 1.0 };
            let ttft_ns = Span::from_ns_f64(truth.at(f64::from(tokens)) * noise * outlier);
            speed.learn(LOAD, tokens, ttft_ns, weak(prior));
        }
        speed
    }

    #[test]
    fn rates_wrong_by_four_either_way_are_learned_in_a_hundred_requests() {
        for factor in [0.25, 4.0] {
            let truth = StraightLine {
                base_ns: PRIOR.base_ns * factor,
                token_ns: PRIOR.token_ns * factor,
            };
            let line = taught(truth, PRIOR, 100, 2_000).line(LOAD).unwrap();
            for tokens in [200.0, 1_000.0, 4_000.0] {
                let error = (line.at(tokens) / truth.at(tokens) - 1.0).abs();
                assert!(error < 0.2, "{factor}: {line:?} at {tokens} is {error} off");
            }
        }
    }

    #[test]
    fn samples_of_one_length_are_predicted_though_they_fix_no_line() {
        let truth = 7_000_000;
        let mut speed = Speed::default();
        for _ in 0..100 {
            speed.learn(0, 50, Span::from_ns(truth), weak(PRIOR));
        }
        let line = speed.line(0).unwrap();
        assert!((line.at(50.0) / 7e6 - 1.0).abs() < 0.1, "{line:?}");
    }

    #[test]
    fn a_load_without_samples_has_the_line_of_the_only_one_with_some() {
        let mut speed = Speed::default();
        assert_eq!(speed.line(2), None);
        speed.learn(10, 100, Span::from_ns(50_000_000), weak(PRIOR));
        assert!(speed.line(0).is_some());
        assert_eq!(speed.line(0), speed.line_near(10));
        assert_eq!(speed.line(300), speed.line_near(10));
        assert_eq!(speed.line_near(5), None);
    }

    #[test]
    fn of_two_loads_in_one_range_the_greater_is_slower_where_greater_loads_were() {
        let truth = |load: u32| StraightLine {
            base_ns: 20e6 + 1e6 * f64::from(load),
            token_ns: 100_000.0,
        };
        let mut speed = Speed::default();
        for n in 0..600 {
            let load = 20 + n * 37 % 60;
            let ttft_ns = Span::from_ns_f64(truth(load).at(f64::from(n % 7) * 100.0));
            speed.learn(load, n % 7 * 100, ttft_ns, weak(PRIOR));
        }
        let mut before_ns = 0.0;
        for load in [24, 40, 55, 60, 70, 90] {
            let predicted_ns = speed.line(load).unwrap().at(50.0);
            let error = (predicted_ns / truth(load).at(50.0) - 1.0).abs();
            assert!(error < 0.2, "{load}: {predicted_ns}");
            assert!(predicted_ns > before_ns, "{load}");
            before_ns = predicted_ns;
        }
        assert!(speed.line(1_000_000).unwrap().base_ns <= BEYOND_MAX * truth(80).base_ns);
    }

    #[test]
    fn ranges_double() {
        let ranges: Vec<_> = [0, 1, 2, 3, 4, 7, 8, 63, 64, 255, 256, u32::MAX]
            .map(Speed::range)
            .to_vec();
        assert_eq!(ranges, [0, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 9]);
    }

    proptest! {
        #[test]
        fn whatever_is_learned_a_line_is_finite_and_not_negative(
            samples in prop::collection::vec((0..600_u32, any::<u32>(), any::<u64>()), 0..200),
            base_ns in 0.0..1e12, token_ns in 0.0..1e9,
        ) {
            let prior = StraightLine { base_ns, token_ns };
            let mut speed = Speed::default();
            for (load, tokens, ttft_ns) in samples {
                speed.learn(load, tokens, Span::from_ns(ttft_ns), weak(prior));
                for load in [0, 1, 3, 20, 200, 1_000, u32::MAX] {
                    if let Some(line) = speed.line(load) {
                        prop_assert!((0.0..=BASE_NS_MAX).contains(&line.base_ns), "{line:?}");
                        prop_assert!((0.0..=TOKEN_NS_MAX).contains(&line.token_ns), "{line:?}");
                    }
                }
            }
        }

        #[test]
        fn one_outlier_does_not_move_a_settled_line_by_a_fifth(
            tokens in 0..4_000_u32, ttft_ns in 1..3_000_000_000_000_u64,
        ) {
            let mut speed = taught(PRIOR, PRIOR, 300, 2_000);
            let before = speed.line(LOAD).unwrap();
            speed.learn(LOAD, tokens, Span::from_ns(ttft_ns), weak(PRIOR));
            let after = speed.line(LOAD).unwrap();
            let moved = (after.at(500.0) / before.at(500.0) - 1.0).abs();
            prop_assert!(moved < 0.2, "{before:?} {after:?}");
        }
    }
}
