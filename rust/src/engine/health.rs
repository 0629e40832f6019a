//! Observed state and operator intent make a replica ready or not.
//!
//! ```text
//!            probe answered              run of failures
//! unknown ------------------> up -------------------------------> ejected
//!    |                        ^ ^                                  |   ^
//!    | unreachable            | | a request or a probe succeeds    |   | a request fails
//!    v       probe answered   | +------------------- probing <-----+   | (twice as long)
//!   down ---------------------+                         |   time is up |
//!    ^                                                  +--------------+
//!    +--- any state, when a probe or a connection finds nobody
//! ```
//!
//! What came back has a share of its room that grows linearly. A replica that was ejected and came
//! back on the word of a probe alone is on trial: the first failure of a request ejects it again.

#[cfg(test)]
mod tests;

use super::config::Config;
use super::id::Nanos;

/// Failures this far apart do not belong to one run.
const RUN_GAP_NS: Nanos = 10_000_000_000;
/// A run of failures that lasts so long ejects whatever its length (at least two).
const RUN_NS: Nanos = 1_000_000_000;
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
            Self::Down => "down",
        }
    }
}

/// How an attempt failed; the numbers are Python's `FAILURE_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection was lost.
    Reset,
    /// No answer in time.
    Timeout,
    /// The engine said it is full: no mark against it.
    Full,
    /// A 5xx other than "full".
    Status,
    /// A malformed response.
    BadResponse,
    /// A peer refused a forward: no mark against it.
    Refused,
}

/// A share in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
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
    /// Ejected or half-open.
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
            pool.out += usize::from(matches!(health.state, State::Ejected | State::Probing));
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
}

/// Health of one replica: an explicit machine over [`State`], and the operator's intent.
#[derive(Debug, Clone)]
pub struct Health {
    state: State,
    draining: bool,
    /// Consecutive failures, and when the first and the last of them came.
    run: u32,
    run_since_ns: Nanos,
    run_last_ns: Nanos,
    /// Ejections since it last stayed for `eject_max_s`.
    ejections: u32,
    /// When the last ejection ends or ended.
    until_ns: Nanos,
    /// When it last came back.
    back_ns: Nanos,
    /// Its share still grows.
    ramping: bool,
    /// Back on the word of a probe: the first failure of a request ejects it again.
    trial: bool,
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
            run_since_ns: 0,
            run_last_ns: 0,
            ejections: 0,
            until_ns: 0,
            back_ns: 0,
            ramping: false,
            trial: false,
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
    pub fn ramp(&self, config: &Config, now_ns: Nanos) -> Option<Share> {
        let linear = self.ramped(config, now_ns)?;
        Some(Share(linear.max(SHARE_MIN)))
    }

    /// When [`Self::ramp`] says something else.
    #[must_use]
    pub fn next_share_ns(&self, config: &Config, now_ns: Nanos) -> Option<Nanos> {
        let next = u128::from(self.ramped(config, now_ns)?) + 1;
        let age_ns = (next * u128::from(config.ramp_ns)).div_ceil(1000);
        let age_ns = u64::try_from(age_ns).unwrap_or(u64::MAX);
        Some(self.back_ns.saturating_add(age_ns))
    }

    /// How much of the ramp is over, in thousandths.
    fn ramped(&self, config: &Config, now_ns: Nanos) -> Option<u32> {
        let age_ns = now_ns.saturating_sub(self.back_ns);
        if !self.ramping || age_ns >= config.ramp_ns {
            return None;
        }
        let linear = u128::from(age_ns) * 1000 / u128::from(config.ramp_ns.max(1));
        Some(u32::try_from(linear).unwrap_or(1000))
    }

    /// A request had its first body byte, or ended well.
    pub fn succeeded(&mut self, now_ns: Nanos) {
        self.run = 0;
        self.trial = false;
        match self.state {
            State::Unknown => self.state = State::Up,
            State::Probing => self.come_back(now_ns),
            State::Up | State::Ejected | State::Down => {}
        }
    }

    /// A request failed. `pool` counts the replicas that share its load, this one included.
    /// Returns true when the state changed.
    ///
    /// The client's leaving is no failure of the replica: it is not reported here.
    pub fn failed(&mut self, failure: Failure, pool: Pool, config: &Config, now_ns: Nanos) -> bool {
        match (failure, self.state) {
            (Failure::Full | Failure::Refused, _) | (_, State::Ejected | State::Down) => false,
            (Failure::Connect, _) => {
                self.unreachable();
                true
            }
            (_, State::Probing) => {
                self.eject(config, now_ns);
                true
            }
            (_, State::Unknown | State::Up) => self.mark(pool, config, now_ns),
        }
    }

    /// An active probe was answered (readable or not).
    pub fn probe_succeeded(&mut self, now_ns: Nanos) {
        match self.state {
            State::Unknown => self.state = State::Up,
            State::Down if now_ns < self.until_ns => self.state = State::Ejected,
            State::Down | State::Probing => {
                self.trial = self.ejections > 0;
                self.come_back(now_ns);
            }
            State::Up | State::Ejected => {}
        }
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
    pub fn tick(&mut self, config: &Config, now_ns: Nanos) -> bool {
        self.ramping &= now_ns.saturating_sub(self.back_ns) < config.ramp_ns;
        let over = self.state == State::Ejected && now_ns >= self.until_ns;
        if over {
            self.state = State::Probing;
        }
        over
    }

    /// When [`Self::tick`] has work.
    #[must_use]
    pub fn next_change_ns(&self, config: &Config) -> Option<Nanos> {
        let ramp_end_ns = self.back_ns.saturating_add(config.ramp_ns);
        match self.state {
            State::Ejected => Some(self.until_ns),
            _ => self.ramping.then_some(ramp_end_ns),
        }
    }

    /// Counts one failure of an unbroken run; ejects when the run is long enough.
    fn mark(&mut self, pool: Pool, config: &Config, now_ns: Nanos) -> bool {
        if self.run == 0 || now_ns.saturating_sub(self.run_last_ns) > RUN_GAP_NS {
            self.run = 0;
            self.run_since_ns = now_ns;
        }
        self.run = self.run.saturating_add(1);
        self.run_last_ns = now_ns;
        let lasting = self.run > 1 && now_ns.saturating_sub(self.run_since_ns) >= RUN_NS;
        let enough = self.trial || lasting || self.run >= config.eject_failures;
        let out = enough && pool.may_eject(config);
        if out {
            self.eject(config, now_ns);
        }
        out
    }

    fn eject(&mut self, config: &Config, now_ns: Nanos) {
        let stayed_ns = now_ns.saturating_sub(self.back_ns);
        if self.state == State::Up && stayed_ns >= config.eject_max_ns {
            self.ejections = 0;
        }
        let doubled = 1_u64.checked_shl(self.ejections).unwrap_or(u64::MAX);
        let length_ns = config.eject_ns.saturating_mul(doubled);
        self.state = State::Ejected;
        self.until_ns = now_ns.saturating_add(length_ns.min(config.eject_max_ns));
        self.ejections = self.ejections.saturating_add(1);
        self.run = 0;
        self.ramping = false;
        self.trial = false;
    }

    fn come_back(&mut self, now_ns: Nanos) {
        self.state = State::Up;
        self.run = 0;
        self.back_ns = now_ns;
        self.ramping = true;
    }
}
