//! How full a replica is, for those who scale the fleet.

use super::Replica;
use crate::engine::config::Config;
use crate::time::Instant;

/// Requests that a replica is taken to run at once which has never been full.
const BATCH_ASSUMED: u32 = 256;

impl Replica {
    /// The size of a full batch, if the replica has ever been full.
    #[must_use]
    pub fn batch(&self) -> Option<u32> {
        self.knee.full().map(|batch| batch.max(1))
    }

    /// Tokens of the longest prompt of ours that is not computed yet.
    #[must_use]
    pub fn longest_prefill(&self) -> u32 {
        let prefill = self.in_flight.iter().map(|request| request.need.prefill);
        prefill.max().unwrap_or(0)
    }

    /// Since when the oldest of our requests without a first byte has been there.
    #[must_use]
    pub fn unanswered_since_ns(&self) -> Option<Instant> {
        let mut waiting = self.in_flight.iter();
        let oldest = waiting.find(|request| request.first_byte_ns.is_none());
        oldest.map(|request| request.pushed_ns)
    }

    /// Prompt tokens that a request takes to compute there: a running mean.
    #[must_use]
    pub fn prompt_mean(&self) -> Option<u32> {
        self.work.prompt_mean()
    }

    /// Its work, as a share of what it can do at once: 0 is idle, 1 is a full batch, and what waits is beyond.
    #[must_use]
    pub fn fill(&self, config: &Config, now: Instant) -> f64 {
        let batch = f64::from(self.batch().unwrap_or(BATCH_ASSUMED));
        if self.blind(config, now) {
            return f64::from(self.in_flight()) / batch;
        }
        let in_batch = f64::from(self.running) / batch;
        let kv_used = self.snapshot().and_then(|snapshot| snapshot.kv_usage);
        let used = match self.batch() {
            Some(_) => in_batch,
            // Its KV cache may bind it long before its batch does.
            None => in_batch.max(kv_used.unwrap_or(0.0)),
        };
        used.min(1.0) + f64::from(self.pending()) / batch
    }
}
