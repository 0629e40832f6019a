//! Observed state and operator intent make a replica ready or not.
//!
//! ```text
//!            probe answered              run of failures
//! unknown ------------------> up -------------------------------> ejected
//!    |                        ^ ^ ^                                |   ^
//!    | unreachable            | | | a request or a probe succeeds  |   | a request fails
//!    v       probe answered   | | +----------------- probing <-----+   | (twice as long)
//!   down ---------------------+ |                       |   time is up |
//!    ^                          | a sign of life        +--------------+
//!    |                       wedged <--- up: requests, and no sign of life
//!    +--- any state, when a probe or a connection finds nobody
//! ```
//!
//! A probe that is not answered is no failure of the replica: its requests may be served all the
//! same. Such a replica is *silent* until something arrives from it. A silent replica is down when
//! its requests fail as well.
//!
//! What came back has a share of its room that grows linearly. A replica that was ejected and came
//! back by a probe alone is on trial: the first failure of a request ejects it again.

#[cfg(test)]
mod tests;

use super::failure::Failure;
use crate::engine::config::Config;
use crate::time::{Instant, Span};

/// Failures this far apart do not belong to one run.
const RUN_GAP_NS: Span = Span::from_ns(10_000_000_000);
/// A run of failures that lasts so long ejects whatever its length (at least two).
const RUN_NS: Span = Span::from_ns(1_000_000_000);
/// Least share of a replica that has just come back, in thousandths.
const SHARE_MIN: u32 = 100;

/// What has been observed of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing yet.
    Unknown,
    /// It answers.
    Up,
    /// Requests to it failed: nothing is sent until the ejection ends.
    Ejected,
    /// Half-open: one request tests it.
    Probing,
    /// It has requests, and has shown no sign of life for long.
    Wedged,
    /// Unreachable.
    Down,
}

impl State {
    /// The word for metrics, state and log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Probing => "probing",
            Self::Wedged => "wedged",
            Self::Down => "down",
        }
    }
}

/// A share in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thousandths(u32);

impl Thousandths {
    /// The share of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: u32) -> u32 {
        u32::try_from(u64::from(whole) * u64::from(self.0) / 1000).unwrap_or(whole)
    }
}

/// The health of the replicas that share the load, as far as ejecting one of them depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pool {
    /// All replicas.
    pub len: usize,
    /// Ejected, half-open, or wedged.
    pub out: usize,
    /// Ready for requests.
    pub ready: usize,
}

impl Pool {
    /// Counts a pool.
    pub fn count<'a>(all: impl Iterator<Item = &'a Health>) -> Self {
        let mut pool = Self::default();
        for health in all {
            pool.len += 1;
            let out = matches!(
                health.state,
                State::Ejected | State::Probing | State::Wedged
            );
            pool.out += usize::from(out);
            pool.ready += usize::from(health.ready() && health.state == State::Up);
        }
        pool
    }

    /// Whether one more ready replica may be ejected: at most `eject_ratio_max` of the pool is
    /// out, and another ready one must be left.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "pools are small")]
    pub fn may_eject(self, config: &Config) -> bool {
        self.ready > 1 && (self.out + 1) as f64 <= self.len as f64 * config.eject_ratio_max
    }

    /// Whether one more may be ejected on suspicion: for failures that may be the requests' own.
    #[must_use]
    pub fn may_suspect(self, config: &Config) -> bool {
        self.out == 0 && self.may_eject(config)
    }
}

/// Health of one replica: an explicit machine over [`State`], and the operator's intent.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "four facts, each by itself")]
pub struct Health {
    state: State,
    draining: bool,
    /// Consecutive failures, and when the first and the last of them came.
    run: u32,
    run_since_ns: Instant,
    run_last_ns: Instant,
    /// Ejections since it last stayed for `eject_max_s`.
    ejections: u32,
    /// When the last ejection ends or ended.
    until_ns: Instant,
    /// When it last came back.
    back_ns: Instant,
    /// Its share still grows.
    ramping: bool,
    /// Back on the word of a probe: the first failure of a request ejects it again.
    trial: bool,
    /// The last probe was not answered, and nothing has been heard of it since.
    silent: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// A replica nothing is known about, which the operator wants to serve.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Unknown,
            draining: false,
            run: 0,
            run_since_ns: Instant::ZERO,
            run_last_ns: Instant::ZERO,
            ejections: 0,
            until_ns: Instant::ZERO,
            back_ns: Instant::ZERO,
            ramping: false,
            trial: false,
            silent: false,
        }
    }

    /// The observed state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The operator wants no new requests on it.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Sets the operator's intent.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// New requests may go there: up, or half-open for one request.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.draining && matches!(self.state, State::Up | State::Probing)
    }

    /// The share it may have while it ramps up; `None` when it may have all.
    #[must_use]
    pub fn ramp(&self, config: &Config, now: Instant) -> Option<Thousandths> {
        let linear = self.ramped(config, now)?;
        Some(Thousandths(linear.max(SHARE_MIN)))
    }

    /// When [`Self::ramp`] says something else.
    #[must_use]
    pub fn next_share_ns(&self, config: &Config, now: Instant) -> Option<Instant> {
        let next = u128::from(self.ramped(config, now)?) + 1;
        let age_ns = (next * u128::from(config.ramp_ns.ns())).div_ceil(1000);
        let age_ns = u64::try_from(age_ns).unwrap_or(u64::MAX);
        Some(self.back_ns + Span::from_ns(age_ns))
    }

    /// How much of the ramp is over, in thousandths.
    fn ramped(&self, config: &Config, now: Instant) -> Option<u32> {
        let age_ns = now - self.back_ns;
        if !self.ramping || age_ns >= config.ramp_ns {
            return None;
        }
        let linear = u128::from(age_ns.ns()) * 1000 / u128::from(config.ramp_ns.ns().max(1));
        Some(u32::try_from(linear).unwrap_or(1000))
    }

    /// The last probe was not answered, and nothing has been heard of it since.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.silent
    }

    /// Bytes of an answer came.
    pub fn note_sign(&mut self) {
        self.silent = false;
    }

    /// A request had its first body byte, or ended well.
    pub fn succeeded(&mut self, now: Instant) {
        self.run = 0;
        self.trial = false;
        self.silent = false;
        match self.state {
            State::Unknown => self.state = State::Up,
            State::Probing => self.come_back(now),
            State::Up | State::Ejected | State::Wedged | State::Down => {}
        }
    }

    /// A request failed. `pool` counts the replicas that share its load, this one included.
    /// Returns true when the state changed.
    ///
    /// The client's leaving is no failure of the replica: it is not reported here.
    pub fn failed(&mut self, failure: Failure, pool: Pool, config: &Config, now: Instant) -> bool {
        match (failure, self.state) {
            (
                Failure::Full
                | Failure::Limited
                | Failure::Absent
                | Failure::Refused
                | Failure::Withdrawn,
                _,
            )
            | (_, State::Ejected | State::Wedged | State::Down) => false,
            (Failure::Connect, _) => {
                self.unreachable();
                true
            }
            (_, State::Probing) => {
                self.eject(config, now);
                true
            }
            (_, State::Unknown | State::Up) => {
                let may = pool.may_eject(config);
                let out = self.mark(may, config, now);
                // Neither probes nor requests find anybody.
                let lost = !out && self.silent && self.run > 1;
                if lost && !failure.answered() {
                    self.unreachable();
                    return true;
                }
                out
            }
        }
    }

    /// As [`Self::failed`], of a request that no other replica has served or refused: it may be at
    /// fault itself.
    pub fn suspected(&mut self, pool: Pool, config: &Config, now: Instant) -> bool {
        match self.state {
            State::Unknown | State::Up => self.mark(pool.may_suspect(config), config, now),
            State::Probing => {
                self.eject(config, now);
                true
            }
            State::Ejected | State::Wedged | State::Down => false,
        }
    }

    /// It joins a fleet that serves already: its share grows as if it had come back.
    pub fn join(&mut self, now: Instant) {
        if self.state == State::Up {
            self.come_back(now);
        }
    }

    /// An active probe was answered (readable or not).
    pub fn probe_succeeded(&mut self, now: Instant) {
        self.silent = false;
        self.be_reached(now, self.ejections > 0);
    }

    /// A probe was not answered in time. `connected`: something took the connection.
    pub fn probe_unanswered(&mut self, connected: bool, now: Instant) {
        self.silent = true;
        match (self.state, connected) {
            (State::Unknown, false) => self.unreachable(),
            // It may serve, whatever becomes of its metrics: the next request shows.
            (State::Unknown | State::Down, true) => self.be_reached(now, true),
            _ => {}
        }
    }

    /// Something is there; `trial`: the first failure of a request counts.
    fn be_reached(&mut self, now: Instant, trial: bool) {
        match self.state {
            State::Unknown => self.state = State::Up,
            State::Down if now < self.until_ns => self.state = State::Ejected,
            State::Down | State::Probing => {
                self.trial = trial;
                self.come_back(now);
            }
            State::Up | State::Ejected | State::Wedged => {}
        }
    }

    /// It has requests, and has shown no sign of life for long.
    pub fn wedge(&mut self) {
        self.state = State::Wedged;
        self.run = 0;
        self.ramping = false;
        self.trial = false;
    }

    /// A wedged replica shows a sign of life. Returns true when the state changed.
    pub fn revive(&mut self, now: Instant) -> bool {
        let wedged = self.state == State::Wedged;
        if wedged {
            self.trial = true;
            self.come_back(now);
        }
        wedged
    }

    /// Nobody was there: the replica is down at once.
    pub fn unreachable(&mut self) {
        self.state = State::Down;
        self.run = 0;
        self.ramping = false;
        self.trial = false;
    }

    /// Lets time pass: an ejection that is over becomes half-open, a ramp that is over ends.
    /// Returns true when the state changed.
    pub fn tick(&mut self, config: &Config, now: Instant) -> bool {
        self.ramping &= now - self.back_ns < config.ramp_ns;
        let over = self.state == State::Ejected && now >= self.until_ns;
        if over {
            self.state = State::Probing;
        }
        over
    }

    /// When [`Self::tick`] has work.
    #[must_use]
    pub fn next_change_ns(&self, config: &Config) -> Option<Instant> {
        let ramp_end_ns = self.back_ns + config.ramp_ns;
        match self.state {
            State::Ejected => Some(self.until_ns),
            _ => self.ramping.then_some(ramp_end_ns),
        }
    }

    /// Counts one failure of an unbroken run; ejects when the run is long enough.
    fn mark(&mut self, may_eject: bool, config: &Config, now: Instant) -> bool {
        if self.run == 0 || now - self.run_last_ns > RUN_GAP_NS {
            self.run = 0;
            self.run_since_ns = now;
        }
        self.run = self.run.saturating_add(1);
        self.run_last_ns = now;
        let lasting = self.run > 1 && now - self.run_since_ns >= RUN_NS;
        let enough = self.trial || lasting || self.run >= config.eject_failures;
        let out = enough && may_eject;
        if out {
            self.eject(config, now);
        }
        out
    }

    /// Nothing more is sent until the ejection ends, which takes twice as long as the last one.
    pub(in crate::engine) fn eject(&mut self, config: &Config, now: Instant) {
        let stayed_ns = now - self.back_ns;
        if self.state == State::Up && stayed_ns >= config.eject_max_ns {
            self.ejections = 0;
        }
        let doubled = 1_u64.checked_shl(self.ejections).unwrap_or(u64::MAX);
        let length_ns = config.eject_ns * doubled;
        self.state = State::Ejected;
        self.until_ns = now + length_ns.min(config.eject_max_ns);
        self.ejections = self.ejections.saturating_add(1);
        self.run = 0;
        self.ramping = false;
        self.trial = false;
    }

    fn come_back(&mut self, now: Instant) {
        self.state = State::Up;
        self.run = 0;
        self.back_ns = now;
        self.ramping = true;
    }
}
