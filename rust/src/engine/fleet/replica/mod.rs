//! One replica's load, as estimated between two probes (selective pushing).
//!
//! A snapshot is up to a probe interval old. Engines update their gauges once per step, and other balancers
//! may push as well. For one replica let R and W be running and waiting of the last snapshot. Let A be our
//! own requests that were in flight both when its probe was sent and when it was answered. Let S be those
//! of A that had their first body byte before it was sent, and N = A - S. Then
//!
//! - `unseen = N - min(N, R + W - S)`: ours, not yet in the engine's gauges;
//! - `foreign = R + W - A`: not ours;
//! - `pending = W + unseen + fresh`, where `fresh` are the pushes made since the probe was sent.
//!
//! A request that counts as `unseen` or `fresh` is a *debit*: it takes room that the gauges still show as
//! free. Between snapshots, events change the figures. A first body byte removes the debit of its request,
//! and raises R. It also removes the debits of older pushes: an engine serves first come, first served, so
//! it has scheduled them as well. The end of a request lowers R, so that room opens at once.
//!
//! W goes down between snapshots in one case only: a request that the snapshot showed as waiting gets its
//! first byte, or ends. It must be ours for certain. So none of those that waited may be another balancer's
//! or a preempted one.
//!
//! The rule alone would be wrong in three cases:
//!
//! - Foreign requests hide those of ours that the gauges do not show yet. So requests that the snapshot
//!   before proved to be foreign stay foreign (`foreign_floor`).
//! - Requests that wait for something else than room (`deferred`) are in the engine, though in neither
//!   gauge. They count as seen.
//! - A stream whose reader is slow may have ended in the engine long ago. It counts as running only while
//!   the gauges have room for it, or may be too old to show its end.

mod estimate;
mod fill;
mod frozen;
pub(in crate::engine) mod keep;
mod knee;
mod probing;
mod theirs;
mod work;

#[cfg(test)]
mod tests;

use std::mem;

use estimate::Gauges;
use frozen::Frozen;
use knee::Knee;
use probing::Probing;
use work::Work;

pub use theirs::{Own, Split, TURN_NS, theirs};
pub use work::{Backlog, Need};

use super::health::Health;
use super::snapshot::Snapshot;
use crate::engine::config::{AllowanceRule, Config};
use crate::id::RequestId;
use crate::time::Instant;

/// Weight of the newest sample in running means: 1/16.
const MEAN_SHIFT: u32 = 4;

/// Where an own request is believed to be, relative to the figures carried forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Pushed since the last probe was sent: a debit.
    Fresh,
    /// In flight at the last probe, but not in its gauges: a debit.
    Unseen,
    /// Counted nowhere: in the engine, but deferred, or waiting among others' requests, or ended
    /// there and not yet read to its end here.
    Apart,
    /// Counted in W.
    Waiting,
    /// Counted in R.
    Running,
    /// Given to an engine that has restarted since, or never shown: counted nowhere.
    Lost,
}

/// One request in flight.
#[derive(Debug, Clone)]
struct InFlight {
    id: RequestId,
    pushed_ns: Instant,
    first_byte_ns: Option<Instant>,
    /// Its prompt's part is nothing any more once that has been computed.
    need: Need,
    place: Place,
}

/// What became of a snapshot given to [`Replica::observe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// The estimate rests on it now.
    Used,
    /// A newer probe had been answered before: ignored.
    Overtaken,
    /// It lacks what the gate needs: ignored, and the replica is blind once the last one is stale.
    Unreadable,
}

/// The last readable snapshot and its times.
#[derive(Debug, Clone)]
struct Last {
    snapshot: Snapshot,
    sent_ns: Instant,
    /// What its age counts from.
    fresh_ns: Instant,
}

/// One replica as the engine sees it.
#[derive(Debug)]
pub struct Replica {
    /// Observed state and operator intent.
    pub health: Health,
    /// In push order; at most `in_flight_max`.
    in_flight: Vec<InFlight>,
    last: Option<Last>,
    running: u32,
    waiting: u32,
    unseen: u32,
    fresh: u32,
    foreign: u32,
    /// What the last snapshot proved to be foreign, whatever its timing.
    foreign_floor: u32,
    kv_free: Option<i64>,
    /// Most requests in flight at once since the last snapshot.
    in_flight_peak: u32,
    /// Own requests that ended since the last snapshot.
    ended: u32,
    knee: Knee,
    fcfs: bool,
    frozen: Frozen,
    work: Work,
    tokens_mean: Option<u32>,
    probing: Probing,
    /// Those in flight that other balancers of the region have pushed.
    theirs: u32,
    split: Split,
    /// Since when there has been room for somebody.
    open_since_ns: Option<Instant>,
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

impl Replica {
    /// A replica nothing is known about.
    #[must_use]
    pub fn new() -> Self {
        Self {
            health: Health::new(),
            in_flight: Vec::new(),
            last: None,
            running: 0,
            waiting: 0,
            unseen: 0,
            fresh: 0,
            foreign: 0,
            foreign_floor: 0,
            kv_free: None,
            in_flight_peak: 0,
            ended: 0,
            knee: Knee::new(),
            fcfs: true,
            frozen: Frozen::default(),
            work: Work::default(),
            tokens_mean: None,
            probing: Probing::default(),
            theirs: 0,
            split: Split::default(),
            open_since_ns: None,
        }
    }

    /// Whether the engine starts requests in the order they came (the default of vLLM and
    /// `SGLang`); if not, a first byte says nothing about older pushes.
    pub fn set_fcfs(&mut self, fcfs: bool) {
        self.fcfs = fcfs;
    }

    // ------------------------------------------------------------------ events of requests

    /// Counts a request in flight, from the decision on, before anything is sent.
    ///
    /// Returns false, changing nothing, when `in_flight_max` is reached. A request is pushed once:
    /// it is not looked for among those in flight.
    #[must_use]
    pub fn push(&mut self, id: RequestId, need: Need, config: &Config, now: Instant) -> bool {
        if self.in_flight() >= config.in_flight_max {
            return false;
        }
        self.tokens_mean = Some(mean(self.tokens_mean, need.kv));
        self.work.pushed(need, now);
        self.in_flight.push(InFlight {
            id,
            pushed_ns: now,
            first_byte_ns: None,
            need,
            place: Place::Fresh,
        });
        self.fresh += 1;
        self.in_flight_peak = self.in_flight_peak.max(self.in_flight());
        let light = self.work.within_steps(config.ahead_steps, config);
        self.knee.pushed(self.running, self.pending(), light, now);
        self.open_since_ns = None;
        true
    }

    /// The first body byte of a request's answer arrived. Unknown requests are ignored.
    pub fn first_byte(&mut self, id: RequestId, now: Instant) {
        // The youngest wait for their first byte, the oldest end first.
        let Some(index) = self.in_flight.iter().rposition(|r| r.id == id) else {
            return;
        };
        if self.in_flight[index].first_byte_ns.is_some() {
            return;
        }
        self.in_flight[index].first_byte_ns = Some(now);
        self.frozen.started(self.in_flight[index].pushed_ns, now);
        self.start(index);
        self.prompt_computed(index, now);
        if self.fcfs && self.unseen + self.fresh > 0 {
            for older in 0..index {
                if matches!(self.in_flight[older].place, Place::Fresh | Place::Unseen) {
                    self.start(older);
                }
            }
        }
    }

    /// A request is no longer in flight here, whatever ended it (answered, failed, its client
    /// left). Returns false when it was not.
    pub fn complete(&mut self, id: RequestId) -> bool {
        let Some(index) = self.in_flight.iter().position(|r| r.id == id) else {
            return false;
        };
        let ended = self.in_flight.remove(index);
        self.work.ended(ended.need);
        match ended.place {
            Place::Fresh => self.fresh -= 1,
            Place::Unseen => self.unseen -= 1,
            Place::Waiting => self.waiting = self.waiting.saturating_sub(1),
            Place::Running => self.leave_batch(ended.need.kv),
            Place::Apart | Place::Lost => {}
        }
        self.ended = self.ended.saturating_add(1);
        true
    }

    // ------------------------------------------------------------------ events of probes

    /// A probe sent at `sent_ns` was answered at `now`.
    pub fn observe(&mut self, snapshot: Snapshot, sent_ns: Instant, now: Instant) -> Observed {
        self.probing.answered(sent_ns);
        self.observe_copy(snapshot, sent_ns, now)
    }

    /// What another balancer's probe, sent at `sent_ns` of our time, said.
    pub fn observe_copy(&mut self, snapshot: Snapshot, sent_ns: Instant, now: Instant) -> Observed {
        let Some(gauges) = Gauges::of(&snapshot) else {
            return Observed::Unreadable;
        };
        self.probing.read();
        let last_ns = self.last.as_ref().map(|last| last.sent_ns);
        if sent_ns > now || Some(sent_ns) < last_ns {
            return Observed::Overtaken;
        }
        let before = self.last.as_ref().map(|last| &last.snapshot);
        self.frozen.observe(before, &snapshot, sent_ns);
        self.forget_lost(&snapshot, sent_ns);
        self.kv_free = kv_free(&snapshot);
        self.estimate(gauges, sent_ns, now);
        self.last = Some(Last {
            snapshot,
            sent_ns,
            fresh_ns: sent_ns,
        });
        self.in_flight_peak = self.in_flight();
        self.ended = 0;
        Observed::Used
    }

    // ------------------------------------------------------------------ what is believed now

    /// Requests in flight: our own, and those that other balancers of the region told of.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }

    /// Requests believed to wait for a place in the batch, ours and others'.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.waiting
            .saturating_add(self.unseen)
            .saturating_add(self.fresh)
    }

    /// Running, carried forward; `None` before the first snapshot.
    #[must_use]
    pub fn running(&self) -> Option<u32> {
        self.last.as_ref().map(|_| self.running)
    }

    /// Waiting, carried forward; `None` before the first snapshot.
    #[must_use]
    pub fn waiting(&self) -> Option<u32> {
        self.last.as_ref().map(|_| self.waiting)
    }

    /// Own requests that were in flight at the last probe and not in its gauges.
    #[must_use]
    pub fn unseen(&self) -> u32 {
        self.unseen
    }

    /// Own requests pushed since the last probe was sent, without a first byte.
    #[must_use]
    pub fn fresh(&self) -> u32 {
        self.fresh
    }

    /// Requests of others that the last snapshot showed, at least.
    #[must_use]
    pub fn foreign(&self) -> u32 {
        self.foreign
    }

    /// The last readable snapshot, however old.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.last.as_ref().map(|last| &last.snapshot)
    }

    /// No readable snapshot, only a stale one, or one that tells nothing any more: nothing is known,
    /// which is not the same as empty.
    #[must_use]
    pub fn blind(&self, config: &Config, now: Instant) -> bool {
        let stale = |last: &Last| now - last.fresh_ns >= config.probe_stale_ns;
        self.frozen.frozen() || self.last.as_ref().is_none_or(stale)
    }

    /// The next moment at which [`Self::blind`], the ramp's share or our part of the room changes
    /// with time alone.
    #[must_use]
    pub fn next_change_ns(&self, config: &Config, now: Instant) -> Instant {
        let last = self.last.as_ref().filter(|_| !self.frozen.frozen());
        let stale_ns = last.map(|last| last.fresh_ns + config.probe_stale_ns);
        let stale_ns = stale_ns.filter(|stale_ns| *stale_ns > now);
        let ramp_ns = self.health.next_share_ns(config, now);
        let turn_ns = self.next_turn_ns(now);
        let changes = [stale_ns, ramp_ns, turn_ns].into_iter().flatten();
        changes.min().unwrap_or(Instant::MAX)
    }

    /// The engine said that it sleeps.
    #[must_use]
    pub fn sleeping(&self) -> bool {
        self.snapshot().is_some_and(|s| s.sleeping)
    }

    /// KV capacity in tokens, assumed until the replica tells its own.
    #[must_use]
    pub fn kv_tokens(&self, config: &Config) -> u64 {
        self.snapshot()
            .and_then(|s| s.kv_tokens)
            .unwrap_or(config.replica_kv_tokens)
    }

    /// Requests that the last snapshot showed waiting.
    fn probed_waiting(&self) -> u32 {
        let waiting = self.snapshot().and_then(|snapshot| snapshot.waiting);
        waiting.unwrap_or(0)
    }

    /// Pending requests allowed; the gate opens while [`Self::pending`] is lower. At least 1, but under
    /// [`AllowanceRule::Probed`].
    #[must_use]
    pub fn allowance(&self, config: &Config) -> u32 {
        match config.allowance {
            AllowanceRule::One => 1,
            AllowanceRule::Probed if self.probed_waiting() > 0 => 0,
            AllowanceRule::Probed => u32::MAX,
            AllowanceRule::Knee => self
                .knee
                .allowance(
                    self.running,
                    self.work.within_steps(config.ahead_steps, config),
                )
                .min(self.kv_room())
                .max(1),
        }
    }

    /// Most requests this replica runs at once, as far as learned.
    #[must_use]
    pub fn knee(&self) -> Option<u32> {
        self.knee.active()
    }

    /// Names the broken invariant, for tests.
    ///
    /// # Errors
    ///
    /// A counter does not equal what it counts.
    pub fn check_invariants(&self) -> Result<(), String> {
        let count = |place| self.in_flight.iter().filter(|r| r.place == place).count();
        let fresh = count(Place::Fresh);
        let unseen = count(Place::Unseen);
        if fresh != self.fresh as usize {
            return Err(format!("fresh_is_counted: {} != {fresh}", self.fresh));
        }
        if unseen != self.unseen as usize {
            return Err(format!("unseen_is_counted: {} != {unseen}", self.unseen));
        }
        if count(Place::Waiting) > self.waiting as usize {
            return Err(format!("own_waiting_within_waiting: {}", self.waiting));
        }
        if count(Place::Running) > self.running as usize {
            return Err(format!("own_running_within_running: {}", self.running));
        }
        Ok(())
    }

    // ------------------------------------------------------------------ inside

    /// A request is known to run: its debit goes, and R includes it.
    fn start(&mut self, index: usize) {
        let request = &mut self.in_flight[index];
        match request.place {
            Place::Fresh => self.fresh -= 1,
            Place::Unseen => self.unseen -= 1,
            Place::Waiting => self.waiting = self.waiting.saturating_sub(1),
            Place::Apart | Place::Lost => {}
            Place::Running => return,
        }
        request.place = Place::Running;
        self.running = self.running.saturating_add(1);
        self.kv_free = self
            .kv_free
            .map(|free| free.saturating_sub(i64::from(request.need.kv)));
    }

    /// A request's prompt is known to have been computed, and, where the engine is FCFS, those of
    /// older ones.
    fn prompt_computed(&mut self, index: usize, now: Instant) {
        let computed = mem::take(&mut self.in_flight[index].need.prefill);
        self.work.computed(computed, now);
        if self.fcfs && self.work.prefill() > 0 {
            for older in &mut self.in_flight[..index] {
                let computed = mem::take(&mut older.need.prefill);
                self.work.computed(computed, now);
            }
        }
    }

    fn leave_batch(&mut self, tokens: u32) {
        self.running = self.running.saturating_sub(1);
        self.kv_free = self
            .kv_free
            .map(|free| free.saturating_add(i64::from(tokens)));
    }

    /// Requests of average size that the free KV room holds.
    fn kv_room(&self) -> u32 {
        match (self.kv_free, self.tokens_mean) {
            (Some(free), Some(tokens)) => {
                let room = free.max(0) / i64::from(tokens.max(1));
                u32::try_from(room).unwrap_or(u32::MAX)
            }
            _ => u32::MAX,
        }
    }
}

/// A running mean that starts at its first sample.
fn mean(old: Option<u32>, sample: u32) -> u32 {
    let Some(old) = old else { return sample };
    let (old, sample) = (i64::from(old), i64::from(sample));
    let step = (sample - old) >> MEAN_SHIFT;
    u32::try_from(old + step).unwrap_or(u32::MAX)
}

/// Free KV tokens, where the page tells both capacity and use.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "token counts are far below 2^53"
)]
fn kv_free(snapshot: &Snapshot) -> Option<i64> {
    let (tokens, usage) = (snapshot.kv_tokens?, snapshot.kv_usage?);
    Some((tokens as f64 * (1.0 - usage).clamp(0.0, 1.0)) as i64)
}
