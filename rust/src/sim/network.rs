//! How long a message takes over a link, and when the link is cut.

use super::fault::Fault;
use super::scenario::{Network as Settings, Scenario, nanos, nanos_of_ms};
use crate::id::Nanos;
use crate::rng::Rng;

/// Round trip within a region if the scenario does not say.
const LOCAL_RTT_MS: f64 = 0.5;
/// A message that is lost this often in a row comes through all the same.
const LOST_MAX: u32 = 16;

/// A link that is cut for a while.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// From, to.
    between: (u32, u32),
    /// The other way too.
    both: bool,
    from_ns: Nanos,
    until_ns: Nanos,
}

/// The network between regions.
#[derive(Debug)]
pub struct Network {
    /// By sender, then receiver.
    one_way_ns: Vec<Vec<Nanos>>,
    settings: Settings,
    rto_ns: Nanos,
    cuts: Vec<Cut>,
    rng: Rng,
}

/// Uniform in (0, 1].
pub(super) fn uniform(rng: &mut Rng) -> f64 {
    const STEPS: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let draw = ((rng.next_u64() >> 11) + 1) as f64;
    draw / STEPS
}

impl Network {
    /// The network of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario, rng: Rng) -> Self {
        let len = scenario.regions.len();
        let settings = scenario.network.clone();
        let one_way_ns = (0..len)
            .map(|from| {
                let rtt_ms = |to: usize| {
                    settings
                        .rtt_ms
                        .get(from)
                        .map_or(LOCAL_RTT_MS, |row| row[to])
                };
                (0..len).map(|to| nanos_of_ms(rtt_ms(to) / 2.0)).collect()
            })
            .collect();
        let cuts = scenario
            .faults
            .iter()
            .filter_map(|fault| cut(scenario, fault))
            .collect();
        Self {
            one_way_ns,
            rto_ns: nanos_of_ms(settings.rto_ms),
            settings,
            cuts,
            rng,
        }
    }

    /// When a message of so many bytes, sent at `now_ns`, is there whole, cuts left aside.
    pub fn deliver(&mut self, from: u32, to: u32, bytes: u64, now_ns: Nanos) -> Nanos {
        let one_way_ns = self.one_way_ns[from as usize][to as usize];
        let mut delay_ns =
            one_way_ns.saturating_add(self.rounds(bytes).saturating_mul(2 * one_way_ns));
        if self.settings.jitter_ms > 0.0 {
            delay_ns += nanos_of_ms(-uniform(&mut self.rng).ln() * self.settings.jitter_ms);
        }
        if self.settings.loss > 0.0 {
            let mut lost = 0;
            while lost < LOST_MAX && uniform(&mut self.rng) <= self.settings.loss {
                delay_ns += self.rto_ns;
                lost += 1;
            }
        }
        now_ns.saturating_add(delay_ns)
    }

    /// The round trip between two regions, without what is drawn.
    #[must_use]
    pub fn round_trip_ns(&self, one: u32, other: u32) -> Nanos {
        2 * self.one_way_ns[one as usize][other as usize]
    }

    /// Round trips in which slow start still withholds part of the message.
    fn rounds(&self, bytes: u64) -> u64 {
        if self.settings.window_bytes == 0 {
            return 0;
        }
        let (mut sent, mut window, mut rounds) = (0, self.settings.window_bytes, 0);
        while sent + window < bytes {
            sent += window;
            window *= 2;
            rounds += 1;
        }
        rounds
    }

    /// Until when the link is cut, if it is at `now_ns`.
    #[must_use]
    pub fn cut_until(&self, from: u32, to: u32, now_ns: Nanos) -> Option<Nanos> {
        let now = self.cuts.iter().filter(|cut| {
            let back = cut.both && cut.between == (to, from);
            (back || cut.between == (from, to)) && cut.from_ns <= now_ns
        });
        now.map(|cut| cut.until_ns)
            .filter(|until_ns| now_ns < *until_ns)
            .max()
    }
}

fn cut(scenario: &Scenario, fault: &Fault) -> Option<Cut> {
    let (one, other, both) = match fault {
        Fault::Cut { between, .. } => (&between.0, &between.1, true),
        Fault::Drop { from, to, .. } => (from, to, false),
        _ => return None,
    };
    let (at_s, until_s) = fault.times();
    let number = |name: &str| {
        scenario
            .region(name)
            .and_then(|index| u32::try_from(index).ok())
    };
    Some(Cut {
        between: (number(one)?, number(other)?),
        both,
        from_ns: nanos(at_s),
        until_ns: until_s.map_or(Nanos::MAX, nanos),
    })
}
