//! The replica's state, and what a driver calls: submit, abort, advance.

use std::collections::VecDeque;
use std::mem;

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::pool::Pool;
use super::profile::{Profile, ProfileError};
use crate::id::{Nanos, RequestId};

/// Bytes of rendered prompt or answer that are one token in the synthetic text of `skylb mock`.
pub const TOKEN_BYTES: usize = 4;

/// One request as it arrives.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Whose progress is reported under this id.
    pub id: RequestId,
    /// Length of the prompt; 0 counts as 1.
    pub prompt_tokens: u64,
    /// Tokens it will generate; 0 counts as 1.
    pub output_tokens: u64,
    /// Chained hashes of the whole blocks of prompt and answer together, in order.
    pub hashes: Vec<u64>,
}

/// What became of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It waits or runs.
    Accepted,
    /// As many requests as `max_num_queued_reqs` have not ended yet.
    Full,
    /// Prompt and answer exceed `max_model_len`.
    TooLong,
    /// A request of that id has not ended yet.
    Duplicate,
}

/// One more token of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The request.
    pub id: RequestId,
    /// Tokens generated so far, this one included.
    pub generated: u32,
    /// Prompt tokens found in the prefix cache when it was first scheduled.
    pub cached_tokens: u32,
    /// That was the last token; the model has forgotten the request.
    pub finished: bool,
}

/// What the engine's metrics page says: taken at the end of each step, so that requests which
/// arrived during the step are not in it yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Sequences in the batch.
    pub running: usize,
    /// Requests that did not get into it.
    pub waiting: usize,
    /// KV blocks held.
    pub blocks_used: u32,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Prompt tokens looked up in the prefix cache.
    pub cache_queries: u64,
    /// Those found.
    pub cache_hits: u64,
    /// Sequences thrown out of the batch for want of KV blocks.
    pub preemptions: u64,
    /// Steps run.
    pub steps: u64,
    /// Prompt tokens computed (cached ones are not).
    pub prefill_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
}

/// One request inside the engine.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    pub(super) generated: u32,
    /// Tokens whose KV exists. Falls to 0 on preemption.
    pub(super) computed: u32,
    /// Tokens computed by the step under way.
    pub(super) step_tokens: u32,
    /// Hits when it was first scheduled; `None` before.
    pub(super) cached_tokens: Option<u32>,
    /// Leading blocks that are in the prefix cache.
    pub(super) registered: u32,
    pub(super) blocks: Vec<u32>,
    pub(super) hashes: Vec<u64>,
}

impl Sequence {
    /// Tokens known: the prompt and what was generated.
    pub(super) fn tokens(&self) -> u32 {
        self.prompt_tokens + self.generated
    }
}

/// The replica. See the [module](super) for its rules.
#[derive(Debug, Clone)]
pub struct ReplicaModel {
    pub(super) profile: Profile,
    pub(super) pool: Pool,
    pub(super) sequences: Vec<Sequence>,
    /// Places in `sequences` whose request has ended.
    vacant: Vec<u32>,
    places: HashMap<RequestId, u32, Xxh3DefaultBuilder>,
    /// In order of admission.
    pub(super) running: Vec<u32>,
    pub(super) waiting: VecDeque<u32>,
    /// Requests that the step under way left waiting.
    pub(super) left_waiting: usize,
    pub(super) step_end: Option<Nanos>,
    pub(super) counters: Counters,
    gauges: Gauges,
    latest: Nanos,
    /// A step takes this many times as long as the profile says.
    pub(super) slowness: f64,
    /// Kept between calls for their capacity.
    kept: Vec<u32>,
    pub(super) found: Vec<u32>,
}

impl ReplicaModel {
    /// An idle replica with an empty cache.
    ///
    /// # Errors
    /// The profile's sizes do not fit together.
    pub fn new(profile: Profile) -> Result<Self, ProfileError> {
        profile.validate()?;
        Ok(Self {
            pool: Pool::new(profile.blocks()),
            profile,
            sequences: Vec::new(),
            vacant: Vec::new(),
            places: HashMap::with_hasher(Xxh3DefaultBuilder),
            running: Vec::new(),
            waiting: VecDeque::new(),
            left_waiting: 0,
            step_end: None,
            counters: Counters::default(),
            gauges: Gauges::default(),
            latest: 0,
            slowness: 1.0,
            kept: Vec::new(),
            found: Vec::new(),
        })
    }

    /// Takes a request into the queue; an idle replica starts a step with it at once.
    ///
    /// Steps that ended by `now` should have been run (`advance`) before.
    pub fn submit(&mut self, arrival: Arrival, now: Nanos) -> Admission {
        let prompt_tokens = arrival.prompt_tokens.max(1);
        let output_tokens = arrival.output_tokens.max(1);
        let tokens = prompt_tokens.saturating_add(output_tokens);
        let (Ok(prompt_tokens), Ok(output_tokens)) =
            (u32::try_from(prompt_tokens), u32::try_from(output_tokens))
        else {
            return Admission::TooLong;
        };
        if tokens > u64::from(self.profile.max_model_len) {
            return Admission::TooLong;
        }
        if self.places.contains_key(&arrival.id) {
            return Admission::Duplicate;
        }
        if self
            .profile
            .max_num_queued_reqs
            .is_some_and(|max| self.places.len() >= max as usize)
        {
            return Admission::Full;
        }
        let place = self.place(Sequence {
            id: arrival.id,
            prompt_tokens,
            output_tokens,
            generated: 0,
            computed: 0,
            step_tokens: 0,
            cached_tokens: None,
            registered: 0,
            blocks: Vec::new(),
            hashes: arrival.hashes,
        });
        self.waiting.push_back(place);
        self.latest = self.latest.max(now);
        if self.step_end.is_none() {
            self.schedule(self.latest);
        }
        Admission::Accepted
    }

    fn place(&mut self, sequence: Sequence) -> u32 {
        let id = sequence.id;
        let place = if let Some(place) = self.vacant.pop() {
            self.sequences[place as usize] = sequence;
            place
        } else {
            self.sequences.push(sequence);
            u32::try_from(self.sequences.len() - 1).unwrap_or(u32::MAX)
        };
        self.places.insert(id, place);
        place
    }

    /// Ends a request in whatever state; its blocks stay hittable. The step under way still runs to
    /// its end. Returns whether the request was known.
    pub fn abort(&mut self, id: RequestId) -> bool {
        let Some(&place) = self.places.get(&id) else {
            return false;
        };
        if let Some(at) = self.running.iter().position(|&other| other == place) {
            self.running.remove(at);
        } else if let Some(at) = self.waiting.iter().position(|&other| other == place) {
            self.waiting.remove(at);
            self.left_waiting = self.left_waiting.min(self.waiting.len());
        }
        self.vacate(place);
        true
    }

    fn vacate(&mut self, place: u32) {
        let sequence = &mut self.sequences[place as usize];
        self.pool.release(&sequence.blocks);
        sequence.blocks = Vec::new();
        sequence.hashes = Vec::new();
        self.places.remove(&sequence.id);
        self.vacant.push(place);
    }

    /// Runs every step that ends by `now`; each token generated is appended to `progress`, in the
    /// order of steps, within a step in order of admission.
    pub fn advance(&mut self, now: Nanos, progress: &mut Vec<Progress>) {
        while let Some(end) = self.step_end
            && end <= now
        {
            self.finish_step(progress);
            self.latest = self.latest.max(end);
            if self.running.is_empty() && self.waiting.is_empty() {
                self.step_end = None;
            } else {
                self.schedule(end);
            }
        }
    }

    fn finish_step(&mut self, progress: &mut Vec<Progress>) {
        let mut kept = mem::take(&mut self.kept);
        let running = mem::take(&mut self.running);
        for &place in &running {
            let sequence = &mut self.sequences[place as usize];
            sequence.computed += mem::take(&mut sequence.step_tokens);
            if sequence.computed < sequence.tokens() {
                kept.push(place);
                continue;
            }
            sequence.generated += 1;
            self.counters.output_tokens += 1;
            let finished = sequence.generated == sequence.output_tokens;
            progress.push(Progress {
                id: sequence.id,
                generated: sequence.generated,
                cached_tokens: sequence.cached_tokens.unwrap_or(0),
                finished,
            });
            if finished {
                self.vacate(place);
            } else {
                kept.push(place);
            }
        }
        self.running = kept;
        self.kept = running;
        self.kept.clear();
        self.counters.steps += 1;
        self.gauges = Gauges {
            running: self.running.len(),
            waiting: self.left_waiting,
            blocks_used: self.pool.used(),
        };
    }

    /// When the step under way ends; `None` when idle.
    #[must_use]
    pub fn next_ns(&self) -> Option<Nanos> {
        self.step_end
    }

    /// Steps take `factor` times as long as the profile says, from the next one on.
    pub fn slow(&mut self, factor: f64) {
        self.slowness = factor;
    }

    /// The process has stood still for so long: the step under way ends later.
    pub fn pause(&mut self, paused_ns: Nanos) {
        self.step_end = self.step_end.map(|end| end.saturating_add(paused_ns));
    }

    /// Requests outside the batch that have not been in it yet.
    #[must_use]
    pub fn unscheduled(&self) -> usize {
        let fresh = |place: &&u32| self.sequences[**place as usize].cached_tokens.is_none();
        self.waiting.iter().filter(fresh).count()
    }

    /// This request is outside the batch and has not been in it yet.
    #[must_use]
    pub fn is_unscheduled(&self, id: RequestId) -> bool {
        let place = self.places.get(&id);
        place.is_some_and(|place| {
            let waits = self.sequences[*place as usize].cached_tokens.is_none();
            waits && self.waiting.contains(place)
        })
    }

    /// Becomes a new process: requests, cache and counters are gone, the slowness stays.
    pub fn restart(&mut self) {
        self.pool = Pool::new(self.profile.blocks());
        self.sequences.clear();
        self.vacant.clear();
        self.places.clear();
        self.running.clear();
        self.waiting.clear();
        self.left_waiting = 0;
        self.step_end = None;
        self.counters = Counters::default();
        self.gauges = Gauges::default();
    }

    /// Leading prompt tokens that a request with these hashes would find cached now.
    #[must_use]
    pub fn cached_tokens(&self, prompt_tokens: u32, hashes: &[u64]) -> u32 {
        let whole = prompt_tokens.saturating_sub(1) / self.profile.block_size;
        let hits = self
            .pool
            .cached(&hashes[..hashes.len().min(whole as usize)]);
        hits * self.profile.block_size
    }

    /// KV blocks that no sequence holds, those that cache something included.
    #[must_use]
    pub fn free_blocks(&self) -> u32 {
        self.pool.free()
    }

    /// Forgets all cached prefixes.
    pub fn reset_prefix_cache(&mut self) {
        self.pool.forget();
    }

    /// Sequences in the batch now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Requests outside the batch now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What the metrics page says.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.gauges
    }

    /// Totals since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The parameters.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// KV blocks of the replica: held and all.
    #[must_use]
    pub fn blocks(&self) -> (u32, u32) {
        (self.pool.used(), self.pool.total())
    }

    /// Checks that blocks are conserved and every request is in exactly one place.
    ///
    /// # Errors
    /// Names the broken invariant.
    pub fn check_invariants(&self) -> Result<(), String> {
        let alive = || {
            self.running
                .iter()
                .chain(&self.waiting)
                .map(|&place| &self.sequences[place as usize])
        };
        self.pool
            .check(alive().flat_map(|sequence| sequence.blocks.iter().copied()))?;
        if alive().count() != self.places.len()
            || self.places.len() + self.vacant.len() != self.sequences.len()
        {
            return Err("a request is lost or counted twice".into());
        }
        if self.step_end.is_none() && !self.places.is_empty() {
            return Err("requests wait, and no step is under way".into());
        }
        if self.running.len() > self.profile.max_num_seqs as usize {
            return Err("more sequences run than max_num_seqs".into());
        }
        for sequence in alive() {
            let held = sequence.blocks.len() as u64 * u64::from(self.profile.block_size);
            if u64::from(sequence.computed) + u64::from(sequence.step_tokens) > held {
                return Err(format!(
                    "request {:?} has KV outside its blocks",
                    sequence.id
                ));
            }
            if sequence
                .cached_tokens
                .is_some_and(|cached| cached >= sequence.tokens())
            {
                return Err(format!("request {:?} has nothing to compute", sequence.id));
            }
        }
        Ok(())
    }
}
