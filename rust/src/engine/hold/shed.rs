//! Refusing a share of what comes while overload lasts.
//!
//! Where more work comes than can be done, some requests have to be refused. If nothing chose them, they would
//! be those that the order of the hold serves last: the long prompts. Once all that is held is due, the hold is
//! first come, first served besides, and everything waits for as long as it may. So a share of the new requests
//! is refused on arrival, drawn whatever their length.
//!
//! A controller finds the share from the queue's *delay*: the time in which what is held would be served at the
//! present rate. The share grows while the delay is above its target and does not fall. It shrinks while the
//! delay is below, or falls. It stays zero until the delay has been above its target for as long as a request
//! may wait. So a burst that is over by then is served whole.
//!
//! Source: PIE (RFC 8033): the delay as queue length over departure rate, a proportional and an integral part, an
//! allowance for bursts. What is counted is bytes of bodies, which stand for the work.

use super::{Class, Config, Entrant};
use crate::rng::Rng;
use crate::time::{Instant, Span};

/// The delay that is aimed at, as a part of the longest wait.
const TARGET: f64 = 0.15;
/// Growth of the share per second, for a delay that is too long by the longest wait.
const INTEGRAL_PER_S: f64 = 0.05;
/// Growth of the share for a delay that has grown by the longest wait.
const PROPORTIONAL: f64 = 0.5;
/// Time between two looks.
const LOOK_NS: Span = Span::from_ns(500_000_000);
/// One look changes the delay by one in so many of the difference.
const SMOOTH: f64 = 4.0;
/// Time over which the rate is a mean.
const RATE_S: f64 = 10.0;

/// What decides the share of new requests of one queue that is refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shed {
    ratio: f64,
    /// Bytes served, each counted less the longer ago that is; over [`RATE_S`] they are a rate.
    served: f64,
    served_ns: Instant,
    /// At the last look.
    delay_s: f64,
    looked_ns: Instant,
    /// Since when the delay has been above its target.
    over_since_ns: Option<Instant>,
}

impl Shed {
    /// A request of the queue was served.
    pub(super) fn served(&mut self, bytes: u64, now: Instant) {
        self.decay(now);
        self.served += as_f64(bytes);
    }

    /// A request that was served came back: a peer refused it, or its replica failed.
    pub(super) fn returned(&mut self, bytes: u64) {
        self.served = (self.served - as_f64(bytes)).max(0.0);
    }

    fn decay(&mut self, now: Instant) {
        let elapsed_s = seconds(now - self.served_ns);
        self.served_ns = now;
        self.served *= (-elapsed_s / RATE_S).exp();
    }

    /// Refuses what may be refused.
    #[cfg(test)]
    pub(super) fn all() -> Self {
        Self {
            ratio: 1.0,
            looked_ns: Instant::MAX,
            ..Self::default()
        }
    }

    /// Brings the share up to date; so many bytes are held.
    pub(super) fn look(&mut self, held_bytes: u64, config: &Config, now: Instant) {
        let elapsed_ns = now - self.looked_ns;
        if elapsed_ns < LOOK_NS {
            return;
        }
        self.looked_ns = now;
        self.decay(now);
        let longest_s = seconds(config.hold_timeout_ns);
        let rate = (self.served / RATE_S).max(1.0);
        let before_s = self.delay_s;
        let delay_s = (as_f64(held_bytes) / rate).min(longest_s);
        let delay_s = before_s + (delay_s - before_s) / SMOOTH;
        self.delay_s = delay_s;
        let over_s = delay_s - TARGET * longest_s;
        if over_s <= 0.0 {
            self.over_since_ns = None;
        }
        let since_ns = self.over_since_ns.filter(|_| over_s > 0.0);
        let lasts = since_ns.is_some_and(|since_ns| now - since_ns >= config.hold_timeout_ns);
        if over_s > 0.0 {
            self.over_since_ns.get_or_insert(now);
        }
        let step_s = seconds(elapsed_ns).min(1.0);
        let growth = INTEGRAL_PER_S * step_s * over_s + PROPORTIONAL * (delay_s - before_s);
        let growing = growth > 0.0 && (!lasts || delay_s < before_s);
        if !growing {
            self.ratio = (self.ratio + growth / longest_s).clamp(0.0, config.shed_ratio_max);
        }
    }

    /// Whether this request is refused. The answer is the same however often one asks.
    pub(super) fn refuses(&self, of: &Entrant, config: &Config) -> bool {
        let ratio = match of.class {
            Class::High => 0.0,
            Class::Normal => self.ratio,
            Class::Low => (self.ratio * 2.0).min(config.shed_ratio_max),
        };
        ratio > 0.0 && draw(of.age) < ratio
    }
}

/// A number between 0 and 1 that looks drawn.
fn draw(age: u64) -> f64 {
    as_f64(Rng::new(age).next_u64() >> 11) / as_f64(1_u64 << 53)
}

fn seconds(span: Span) -> f64 {
    span.ns_f64() / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entrant, partition};
    use super::super::{Full, Hold};
    use super::*;

    const S: Span = Span::from_ns(1_000_000_000);

    fn config() -> Config {
        Config {
            shed_ratio_max: 0.9,
            ..Config::sample()
        }
    }

    /// So many seconds in which so many bytes come and ten are served per second: the bytes held at the end.
    fn pass(shed: &mut Shed, now: &mut Instant, seconds: u64, held: u64, come: u64) -> u64 {
        let mut held = held;
        for _ in 0..seconds {
            *now += S;
            shed.look(held, &config(), *now);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "small"
            )]
            let kept = (as_f64(come) * (1.0 - shed.ratio)).round() as u64;
            held = (held + kept).saturating_sub(10);
            shed.served(10, *now);
        }
        held
    }

    #[test]
    fn lasting_overload_sheds_about_what_is_too_much_and_ends_with_it() {
        let (mut shed, mut now) = (Shed::default(), Instant::from_ns(1_000_000_000));
        let held = pass(&mut shed, &mut now, 600, 0, 13);
        // 3 of 13 are too many.
        assert!((0.15..0.35).contains(&shed.ratio), "{shed:?}");
        assert!(held < 10 * 20, "{held} held, {shed:?}");
        let held = pass(&mut shed, &mut now, 60, held, 5);
        assert!(shed.ratio == 0.0, "{held} held, {shed:?}");
    }

    #[test]
    fn what_comes_back_was_not_served() {
        let (mut shed, now) = (Shed::default(), Instant::from_ns(1_000_000_000));
        shed.served(10, now);
        shed.served(10, now);
        shed.returned(10);
        assert!((shed.served - 10.0).abs() < 1e-9, "{shed:?}");
        shed.returned(30);
        assert!(shed.served == 0.0, "{shed:?}");
    }

    #[test]
    fn a_burst_is_served_whole() {
        let (mut shed, mut now) = (Shed::default(), Instant::from_ns(1_000_000_000));
        let held = pass(&mut shed, &mut now, 60, 0, 5);
        let held = pass(&mut shed, &mut now, 20, held, 20);
        assert!(shed.ratio == 0.0, "{shed:?}");
        let held = pass(&mut shed, &mut now, 60, held, 5);
        assert!(held < 10 && shed.ratio == 0.0, "{held} held, {shed:?}");
    }

    #[test]
    fn urgent_requests_are_held_and_those_that_can_wait_are_refused_first() {
        let shed = Shed {
            ratio: 0.3,
            ..Shed::default()
        };
        let refused = |class| {
            let of = |age| Entrant {
                class,
                age,
                ..entrant(age, Instant::ZERO)
            };
            (0..10_000)
                .filter(|age| shed.refuses(&of(*age), &config()))
                .count()
        };
        assert_eq!(refused(Class::High), 0);
        assert!((2_800..3_200).contains(&refused(Class::Normal)));
        assert!((5_800..6_200).contains(&refused(Class::Low)));
    }

    #[test]
    fn only_what_has_just_come_and_is_not_urgent_is_shed() {
        let (mut hold, config) = (
            Hold::new(),
            Config {
                shed_ratio_max: 1.0,
                ..config()
            },
        );
        let first = hold
            .enter(entrant(1, Instant::from_ns(1_000)), &config)
            .unwrap();
        hold.partitions.get_mut(&partition(0)).unwrap().shed = Shed::all();
        let of = entrant(2, Instant::from_ns(1_000));
        assert_eq!(hold.enter(of, &config), Err(Full::Shed));
        let again = Entrant { fresh: false, ..of };
        let again = hold.enter(again, &config).unwrap();
        let urgent = Entrant {
            class: Class::High,
            ..of
        };
        let urgent = hold.enter(urgent, &config).unwrap();
        for ticket in [first, again, urgent] {
            hold.leave(ticket);
        }
        hold.enter(of, &config)
            .expect("an empty queue has no overload");
    }
}
