//! What one step computes, and how long that takes.

use super::model::{ReplicaModel, Sequence};
use super::profile::StepWork;
use crate::id::Nanos;

impl ReplicaModel {
    /// Begins a step at `start`: running sequences first, then the queue, until the budget is used.
    pub(super) fn schedule(&mut self, start: Nanos) {
        let mut budget = self.profile.max_num_batched_tokens;
        let mut work = StepWork::default();
        let preempted = self.schedule_running(&mut budget, &mut work);
        // A sequence that was just thrown out would be taken in again and throw out another.
        if !preempted {
            self.schedule_waiting(&mut budget, &mut work);
        }
        self.left_waiting = self.waiting.len();
        self.counters.prefill_tokens += work.prefill_tokens;
        let step_ns = slowed(self.profile.step_ns(work), self.slowness);
        self.step_end = Some(start.saturating_add(step_ns));
    }

    /// Returns whether a sequence was preempted.
    fn schedule_running(&mut self, budget: &mut u32, work: &mut StepWork) -> bool {
        let mut preempted = false;
        let mut at = 0;
        while at < self.running.len() && *budget > 0 {
            let place = self.running[at];
            let sequence = &self.sequences[place as usize];
            let tokens = (sequence.tokens() - sequence.computed).min(*budget);
            if self.extend(place, tokens) {
                self.start(place, tokens, budget, work);
                at += 1;
            } else if let Some(newest) = self.running.pop() {
                self.preempt(newest);
                preempted = true;
            }
        }
        preempted
    }

    fn schedule_waiting(&mut self, budget: &mut u32, work: &mut StepWork) {
        while *budget > 0 && self.running.len() < self.profile.max_num_seqs as usize {
            let Some(&place) = self.waiting.front() else {
                break;
            };
            let Some(tokens) = self.admit(place, *budget) else {
                break;
            };
            self.waiting.pop_front();
            self.running.push(place);
            self.start(place, tokens, budget, work);
        }
    }

    /// Holds the cached prefix of the request at the queue's head and room for its first chunk;
    /// returns the chunk's tokens, or `None` where there is no room.
    fn admit(&mut self, place: u32, budget: u32) -> Option<u32> {
        let block_size = self.profile.block_size;
        let sequence = &self.sequences[place as usize];
        // The last token is never taken from the cache: its logits are what is wanted.
        let whole = ((sequence.tokens() - 1) / block_size) as usize;
        let hashes = &sequence.hashes[..whole.min(sequence.hashes.len())];
        let mut found = std::mem::take(&mut self.found);
        self.pool.lookup(hashes, &mut found);
        let hits = u32::try_from(found.len()).unwrap_or(u32::MAX);
        let tokens = (sequence.tokens() - hits * block_size).min(budget);
        let new_blocks = (hits * block_size + tokens).div_ceil(block_size) - hits;
        let fits = new_blocks + self.pool.count_free(&found) <= self.pool.free();
        if fits {
            self.pool.hold(&found);
            let sequence = &mut self.sequences[place as usize];
            sequence.blocks.extend_from_slice(&found);
            sequence.registered = hits;
            sequence.computed = hits * block_size;
            if sequence.cached_tokens.is_none() {
                sequence.cached_tokens = Some(sequence.computed);
                self.counters.cache_queries += u64::from(sequence.tokens());
                self.counters.cache_hits += u64::from(sequence.computed);
            }
        }
        self.found = found;
        (fits && self.extend(place, tokens)).then_some(tokens)
    }

    /// Gives a sequence the blocks for `tokens` more tokens; all or none.
    fn extend(&mut self, place: u32, tokens: u32) -> bool {
        let sequence = &mut self.sequences[place as usize];
        let needed = (sequence.computed + tokens).div_ceil(self.profile.block_size) as usize;
        let missing = needed.saturating_sub(sequence.blocks.len());
        if missing > self.pool.free() as usize {
            return false;
        }
        for _ in 0..missing {
            if let Some(block) = self.pool.take() {
                sequence.blocks.push(block);
            }
        }
        true
    }

    /// Puts `tokens` of a sequence into the step and its blocks that become full into the cache.
    fn start(&mut self, place: u32, tokens: u32, budget: &mut u32, work: &mut StepWork) {
        let sequence = &mut self.sequences[place as usize];
        *budget -= tokens;
        if sequence.generated > 0 && tokens == 1 {
            work.decodes += 1;
            work.context_tokens += u64::from(sequence.computed);
        } else {
            let (before, tokens) = (u64::from(sequence.computed), u64::from(tokens));
            work.prefill_tokens += tokens;
            work.attended += tokens * before + tokens * (tokens - 1) / 2;
        }
        sequence.step_tokens = tokens;
        let full = (sequence.computed + tokens) / self.profile.block_size;
        let Sequence {
            registered,
            blocks,
            hashes,
            ..
        } = sequence;
        let from = *registered as usize;
        let to = (full as usize).min(hashes.len());
        for at in from..to {
            self.pool.register(blocks[at], hashes[at]);
        }
        *registered = (*registered).max(full);
    }

    /// Throws a sequence out of the batch: it is computed anew, first of all that wait.
    fn preempt(&mut self, place: u32) {
        let sequence = &mut self.sequences[place as usize];
        self.pool.release(&sequence.blocks);
        sequence.blocks.clear();
        sequence.computed = 0;
        sequence.registered = 0;
        self.waiting.push_front(place);
        self.counters.preemptions += 1;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "positive, and `as` saturates; an unslowed step is taken as it is"
)]
fn slowed(step_ns: Nanos, slowness: f64) -> Nanos {
    if (slowness - 1.0).abs() < f64::EPSILON {
        return step_ns;
    }
    (step_ns as f64 * slowness) as Nanos
}
