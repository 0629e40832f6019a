//! The replicas, their faults, and what their metrics say.

use super::fault::{Answer, Lie};
use super::replica::{Admission, Arrival, Profile, ProfileError, Progress, ReplicaModel};
use super::result::ReplicaReport;
use super::scenario::{Group, Scenario};
use super::workload::small;
use crate::engine::fleet::snapshot::Snapshot;
use crate::id::{Nanos, RequestId};

/// A process that stands still.
#[derive(Debug, Clone, Copy)]
struct Frozen {
    since_ns: Nanos,
    /// Its metrics are not answered either.
    mute: bool,
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    /// Number of its region.
    pub region: u32,
    profile: Profile,
    model: ReplicaModel,
    /// Its process, counted: steps of an earlier one mean nothing.
    pub epoch: u32,
    /// It answers.
    pub up: bool,
    /// The end of the step that is in the event queue.
    scheduled_ns: Option<Nanos>,
    /// The models that it serves, by their numbers in the workload.
    models: Vec<u32>,
    /// Its metrics tell of cache queries and hits.
    tells_cached: bool,
    lie: Option<Lie>,
    /// What it says again and again.
    said: Option<Snapshot>,
    /// How its process stands still, if it does.
    frozen: Option<Frozen>,
    /// Attempts that came since.
    backlog: Vec<(RequestId, u32)>,
    /// The share of requests that it fails, and how.
    pub errors: Option<(f64, Answer)>,
    /// An operator wants nothing new on it.
    pub draining: bool,
    /// Pushes on their way.
    pub coming: u32,
    /// Seconds that it has had nothing to do.
    pub idle_s: u32,
    /// What earlier processes and this one did.
    past: ReplicaReport,
    taken: u64,
    /// Samples of outstanding and waiting requests, summed.
    outstanding_sum: u64,
    waiting_sum: u64,
    samples: u64,
}

/// What a probe finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Probed {
    /// A page that says so.
    Page(Snapshot),
    /// A page that cannot be read.
    Unreadable,
    /// No connection came about in time.
    Unconnected,
    /// A connection, and no answer in time.
    Late,
    /// Nobody is there.
    Refused,
}

impl Replica {
    fn new(
        region: u32,
        group: &Group,
        names: &[String],
        tells: bool,
    ) -> Result<Self, ProfileError> {
        let profile = &group.profile;
        let models = (0..).zip(names);
        let served = models.filter(|(_, name)| group.models.contains(name));
        Ok(Self {
            region,
            profile: profile.clone(),
            model: ReplicaModel::new(profile.clone())?,
            epoch: 0,
            up: true,
            scheduled_ns: None,
            models: served.map(|(number, _)| number).collect(),
            tells_cached: tells,
            lie: None,
            said: None,
            frozen: None,
            backlog: Vec::new(),
            errors: None,
            draining: false,
            coming: 0,
            idle_s: 0,
            past: ReplicaReport::default(),
            taken: 0,
            outstanding_sum: 0,
            waiting_sum: 0,
            samples: 0,
        })
    }

    /// Takes a request in.
    pub fn submit(&mut self, arrival: Arrival, now_ns: Nanos) -> Admission {
        let admission = self.model.submit(arrival, now_ns);
        self.taken += u64::from(admission == Admission::Accepted);
        admission
    }

    /// Ends a request that nobody waits for.
    pub fn abort(&mut self, id: RequestId) {
        self.model.abort(id);
    }

    /// Runs the steps that end by `now_ns`.
    pub fn advance(&mut self, now_ns: Nanos, progress: &mut Vec<Progress>) {
        self.scheduled_ns = None;
        self.model.advance(now_ns, progress);
    }

    /// The end of the step under way, if the event queue does not know it yet.
    pub fn next_step(&mut self) -> Option<Nanos> {
        let new = self.scheduled_ns.is_none() && self.frozen.is_none();
        let next_ns = self.model.next_ns().filter(|_| new);
        self.scheduled_ns = self.scheduled_ns.or(next_ns);
        next_ns
    }

    /// The process ends: requests, cache and counters are gone.
    pub fn crash(&mut self) {
        self.up = false;
        self.epoch += 1;
        self.scheduled_ns = None;
        self.frozen = None;
        self.backlog.clear();
        let counters = self.model.counters();
        self.past.cache_queries += counters.cache_queries;
        self.past.cache_hits += counters.cache_hits;
        self.past.prefill_tokens += counters.prefill_tokens;
        self.past.output_tokens += counters.output_tokens;
        self.past.preemptions += counters.preemptions;
        self.past.steps += counters.steps;
        self.model.restart();
    }

    /// A new process answers.
    pub fn restart(&mut self) {
        self.up = true;
    }

    /// The process stands still; false when it does so already, or is not there. `mute`: its metrics too.
    pub fn freeze(&mut self, mute: bool, now_ns: Nanos) -> bool {
        if !self.up || self.frozen() {
            return false;
        }
        self.frozen = Some(Frozen {
            since_ns: now_ns,
            mute,
        });
        self.epoch += 1;
        self.scheduled_ns = None;
        true
    }

    /// The process goes on; the attempts that came in the meantime.
    pub fn thaw(&mut self, now_ns: Nanos) -> Vec<(RequestId, u32)> {
        if let Some(frozen) = self.frozen.take() {
            self.model.pause(now_ns.saturating_sub(frozen.since_ns));
            self.epoch += 1;
        }
        std::mem::take(&mut self.backlog)
    }

    /// The process stands still.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The process stands still, and its metrics are not answered.
    #[must_use]
    pub fn mute(&self) -> bool {
        self.frozen.is_some_and(|frozen| frozen.mute)
    }

    /// An attempt has come to a process that stands still.
    pub fn wait(&mut self, id: RequestId, attempt: u32) {
        self.backlog.push((id, attempt));
    }

    /// It serves this model.
    #[must_use]
    pub fn serves(&self, model: u32) -> bool {
        self.models.contains(&model)
    }

    /// Steps take `factor` times as long from the next one on.
    pub fn slow(&mut self, factor: f64) {
        self.model.slow(factor);
    }

    /// The prefix cache is empty.
    pub fn forget(&mut self) {
        self.model.reset_prefix_cache();
    }

    /// From now on the metrics lie, or no longer.
    pub fn lie(&mut self, how: Option<Lie>) {
        self.lie = how;
        self.said = None;
    }

    /// What a probe that arrives now is told.
    pub fn probed(&mut self) -> Probed {
        if !self.up {
            return Probed::Refused;
        }
        if self.mute() {
            return Probed::Late;
        }
        let truth = self.snapshot();
        // As the scanner reads them: what no engine can mean is unknown, never a number.
        let unknown = Snapshot {
            running: None,
            waiting: None,
            kv_usage: None,
            ..truth.clone()
        };
        Probed::Page(match self.lie {
            None => truth,
            Some(Lie::Negative | Lie::Nan | Lie::Absurd) => unknown,
            Some(Lie::Frozen) => self.said.get_or_insert(truth).clone(),
            Some(Lie::Idle) => Snapshot {
                running: Some(0),
                waiting: Some(0),
                kv_usage: Some(0.0),
                ..truth
            },
            Some(Lie::Unreadable) => return Probed::Unreadable,
        })
    }

    fn snapshot(&self) -> Snapshot {
        let gauges = self.model.gauges();
        let counters = self.model.counters();
        let (_, blocks) = self.model.blocks();
        Snapshot {
            running: Some(small(gauges.running)),
            waiting: Some(small(gauges.waiting + self.backlog.len())),
            kv_usage: Some(f64::from(gauges.blocks_used) / f64::from(blocks.max(1))),
            kv_tokens: Some(self.profile.kv_tokens),
            block_size: Some(self.profile.block_size),
            cache_queries: self.tells_cached.then_some(counters.cache_queries),
            cache_hits: self.tells_cached.then_some(counters.cache_hits),
            preemptions: Some(counters.preemptions),
            tokens: Some(counters.prefill_tokens + counters.output_tokens),
            ..Snapshot::default()
        }
    }

    /// Tokens per KV block.
    #[must_use]
    pub fn block_tokens(&self) -> u32 {
        self.profile.block_size
    }

    /// The model itself.
    #[must_use]
    pub fn model(&self) -> &ReplicaModel {
        &self.model
    }

    /// Running and waiting requests.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.model.running(), self.model.waiting())
    }

    /// Takes a sample of the load.
    pub fn sample(&mut self) {
        let (running, waiting) = self.load();
        self.outstanding_sum += (running + waiting) as u64;
        self.waiting_sum += waiting as u64;
        self.samples += 1;
    }

    /// Totals since the start.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "results are doubles")]
    pub fn report(&self, region: &str) -> ReplicaReport {
        let counters = self.model.counters();
        let samples = self.samples.max(1) as f64;
        ReplicaReport {
            region: region.to_owned(),
            requests: self.taken,
            cache_queries: self.past.cache_queries + counters.cache_queries,
            cache_hits: self.past.cache_hits + counters.cache_hits,
            prefill_tokens: self.past.prefill_tokens + counters.prefill_tokens,
            output_tokens: self.past.output_tokens + counters.output_tokens,
            preemptions: self.past.preemptions + counters.preemptions,
            steps: self.past.steps + counters.steps,
            outstanding_mean: self.outstanding_sum as f64 / samples,
            waiting_mean: self.waiting_sum as f64 / samples,
        }
    }
}

/// The replicas of a scenario, in the order of their numbers; `names` are the workload's models.
///
/// # Errors
///
/// A profile does not fit together.
pub fn build(scenario: &Scenario, names: &[String]) -> Result<Vec<Replica>, ProfileError> {
    let regions = (0u32..).zip(&scenario.regions);
    let groups =
        regions.flat_map(|(region, of)| of.replicas.iter().map(move |group| (region, group)));
    groups
        .flat_map(|(region, group)| {
            (0..group.count).map(move |_| Replica::new(region, group, names, scenario.tell_cached))
        })
        .collect()
}
