//! A token bucket that may be in debt, exact to the nanosecond.
//!
//! A bucket has a limit per minute, of which this balancer has a share. It holds one minute's worth at most
//! ([`WINDOW`]), and is refilled continuously. What is taken may exceed what is there: then the bucket is in
//! debt, and gives nothing until the debt is paid. All amounts are whole numbers of a small unit, so that
//! nothing is lost to rounding, however often it is refilled.

use serde::{Deserialize, Serialize};

use crate::time::{Instant, Span};

/// The whole of a limit. Shares are parts of it.
pub(in crate::engine) const ONE: u32 = 1 << 20;
/// What limits are counted over, and what a bucket holds at most.
pub(in crate::engine) const WINDOW: Span = Span::from_secs(60);
/// The largest limit, so that no product overflows.
pub(in crate::engine) const LIMIT_MAX: u64 = 1_000_000_000_000;

/// Units of one: what a limit of one per minute gives in a minute, as a whole share.
const UNITS: i128 = WINDOW.ns() as i128 * ONE as i128;

/// The largest debt that is taken over: that of ten times the largest limit.
const DEBT: i128 = 10 * LIMIT_MAX as i128 * UNITS;

/// See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Bucket {
    limit: u64,
    share: u32,
    /// In units; negative while in debt, and never more than the capacity.
    level: i128,
    /// When it was last refilled.
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(limit: u64, share: u32, now: Instant) -> Self {
        let mut bucket = Self {
            limit: limit.min(LIMIT_MAX),
            share: share.min(ONE),
            level: 0,
            at: now,
        };
        bucket.level = bucket.capacity();
        bucket
    }

    /// The same by a clock that is ahead by so many nanoseconds, and within the bounds.
    pub(super) fn shifted(self, ahead_ns: i64, now: Instant) -> Self {
        let mut bucket = Self {
            limit: self.limit.min(LIMIT_MAX),
            share: self.share.min(ONE),
            level: self.level.clamp(-DEBT, DEBT),
            at: self.at.shifted(ahead_ns).min(now),
        };
        bucket.refill(now);
        bucket
    }

    /// Units per nanosecond.
    fn rate(&self) -> i128 {
        i128::from(self.limit) * i128::from(self.share)
    }

    fn capacity(&self) -> i128 {
        self.rate() * i128::from(WINDOW.ns())
    }

    /// Adds what time has brought. Time that goes back brings nothing.
    pub(super) fn refill(&mut self, now: Instant) {
        let gain = self.rate() * i128::from((now - self.at).ns());
        self.at = self.at.max(now);
        self.level = (self.level + gain).min(self.capacity());
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Another limit. A debt stays as it is. A larger limit adds what the bucket holds more; of a smaller one
    /// remains what fits.
    pub(super) fn set_limit(&mut self, limit: u64, now: Instant) {
        self.refill(now);
        let before = self.capacity();
        self.limit = limit.min(LIMIT_MAX);
        let more = (self.capacity() - before).max(0);
        if self.level >= 0 {
            self.level += more;
        }
        self.level = self.level.min(self.capacity());
    }

    /// Another share of the limit. It brings nothing at once: what another balancer had is not ours. What
    /// does not fit any more is gone.
    pub(super) fn set_share(&mut self, share: u32, now: Instant) {
        self.refill(now);
        self.share = share.min(ONE);
        self.level = self.level.min(self.capacity());
    }

    /// Whether so many may be taken, at the time of the last refill. More than the bucket holds may be
    /// taken from a full one.
    pub(super) fn has(&self, amount: u64) -> bool {
        self.level >= units(amount).min(self.capacity())
    }

    /// Takes them, whether they are there or not.
    pub(super) fn take(&mut self, amount: u64) {
        self.level -= units(amount);
    }

    /// Puts back what was taken and not used.
    pub(super) fn give(&mut self, amount: u64) {
        self.level = (self.level + units(amount)).min(self.capacity());
    }

    /// How long until so many may be taken, if nothing else is.
    pub(super) fn wait(&self, amount: u64) -> Span {
        self.until(units(amount).min(self.capacity()))
    }

    /// How long until it is full.
    pub(super) fn refilled_in(&self) -> Span {
        self.until(self.capacity())
    }

    fn until(&self, level: i128) -> Span {
        let missing = level - self.level;
        if missing <= 0 {
            return Span::ZERO;
        }
        // Without a share it is not known: one may come with the next message of a peer.
        let ns = match self.rate() {
            0 => return WINDOW,
            rate => (missing + rate - 1) / rate,
        };
        u64::try_from(ns).map_or(Span::MAX, Span::from_ns)
    }

    /// Whole ones that may be taken.
    pub(super) fn remaining(&self) -> u64 {
        u64::try_from(self.level.max(0) / UNITS).unwrap_or(u64::MAX)
    }
}

fn units(amount: u64) -> i128 {
    i128::from(amount) * UNITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Span = Span::from_secs(1);

    fn at(s: u64) -> Instant {
        Instant::ZERO + Span::from_secs(s)
    }

    #[test]
    fn a_minute_brings_the_limit_and_not_more() {
        let mut bucket = Bucket::new(600, ONE, at(0));
        bucket.take(600);
        assert!(!bucket.has(1));
        assert_eq!(bucket.wait(1), Span::from_ms(100));
        bucket.refill(at(30));
        assert_eq!(bucket.remaining(), 300);
        bucket.refill(at(600));
        assert_eq!(bucket.remaining(), 600);
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_taken_from_a_full_one_and_leaves_a_debt() {
        let mut bucket = Bucket::new(100, ONE, at(0));
        assert!(bucket.has(250));
        bucket.take(250);
        assert_eq!(bucket.remaining(), 0);
        assert_eq!(bucket.wait(250), Span::from_secs(150));
        bucket.refill(at(149));
        assert!(!bucket.has(250) && bucket.has(98));
        bucket.refill(at(150));
        assert!(bucket.has(250));
    }

    #[test]
    fn a_share_that_grows_brings_nothing_at_once_and_one_that_shrinks_keeps_no_more_than_it_holds()
    {
        let mut bucket = Bucket::new(100, ONE / 2, at(0));
        bucket.set_share(ONE, at(0));
        assert_eq!(bucket.remaining(), 50);
        bucket.refill(at(60));
        assert_eq!(bucket.remaining(), 100);
        bucket.set_share(ONE / 4, at(60));
        assert_eq!(bucket.remaining(), 25);
    }

    #[test]
    fn a_debt_stays_when_the_limit_changes() {
        let mut bucket = Bucket::new(100, ONE, at(0));
        bucket.take(160);
        bucket.set_limit(60, at(0));
        assert_eq!(bucket.wait(1), 61 * S);
        bucket.set_limit(600, at(0));
        assert_eq!(bucket.wait(1), Span::from_ms(6_100));
        bucket.refill(at(60));
        bucket.set_limit(100, at(60));
        assert_eq!(bucket.remaining(), 100);
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let mut bucket = Bucket::new(u64::MAX, ONE, at(0));
        bucket.take(u64::MAX);
        bucket.take(u64::MAX);
        bucket.refill(Instant::MAX);
        assert!(bucket.remaining() <= LIMIT_MAX);
        bucket.give(u64::MAX);
        let mut none = Bucket::new(5, 0, at(0));
        none.take(3);
        assert_eq!(none.wait(1), WINDOW);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Take(u64),
        Give(u64),
        Limit(u64),
        Share(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u64..20_000_000_000).prop_map(Step::Pass),
            4 => (0_u64..500).prop_map(Step::Take),
            1 => (0_u64..300).prop_map(Step::Give),
            1 => (1_u64..1_000).prop_map(Step::Limit),
            1 => (0_u32..=ONE).prop_map(Step::Share),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        /// The oracle keeps the level as a fraction of exact whole numbers: `amount` and `parts`, where one
        /// is 60e9 parts of a limit's nanosecond times the share.
        #[test]
        fn a_bucket_is_never_above_its_capacity_and_loses_and_makes_nothing(steps in steps()) {
            let (mut limit, mut share, mut now) = (300_u64, ONE, Instant::ZERO);
            let mut bucket = Bucket::new(limit, share, now);
            let full = |limit: u64, share: u32| i128::from(limit) * i128::from(share) * 60_000_000_000;
            let one = i128::from(ONE) * 60_000_000_000;
            let mut level = full(limit, share);
            for step in steps {
                match step {
                    Step::Pass(ns) => {
                        // In two parts, one of them a step back: the same as in one.
                        bucket.refill(now + Span::from_ns(ns / 3));
                        bucket.refill(now);
                        now += Span::from_ns(ns);
                        bucket.refill(now);
                        let gain = i128::from(limit) * i128::from(share) * i128::from(ns);
                        level = (level + gain).min(full(limit, share));
                    }
                    Step::Take(amount) => {
                        bucket.take(amount);
                        level -= i128::from(amount) * one;
                    }
                    Step::Give(amount) => {
                        bucket.give(amount);
                        level = (level + i128::from(amount) * one).min(full(limit, share));
                    }
                    Step::Limit(other) => {
                        bucket.set_limit(other, now);
                        let more = full(other, share) - full(limit, share);
                        if level >= 0 && more > 0 {
                            level += more;
                        }
                        limit = other;
                        level = level.min(full(limit, share));
                    }
                    Step::Share(other) => {
                        bucket.set_share(other, now);
                        share = other;
                        level = level.min(full(limit, share));
                    }
                }
                prop_assert_eq!(bucket.level, level);
                prop_assert!(level <= full(limit, share));
                // The wait is exact: one nanosecond earlier it may not be taken.
                let wait = bucket.wait(7);
                if wait > Span::ZERO && share > 0 {
                    let (mut before, mut then) = (bucket, bucket);
                    before.refill(now + (wait - Span::from_ns(1)));
                    then.refill(now + wait);
                    prop_assert!(!before.has(7) && then.has(7));
                }
            }
        }
    }
}
