//! What was learned of how many requests a replica runs at once.

use serde::{Deserialize, Serialize};

use super::Replica;
use super::knee::Knee;
use crate::time::Instant;

/// What a balancer learns of a replica by pushing to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct Habits {
    tokens_mean: Option<u32>,
    knee: Knee,
}

impl Replica {
    /// When the last page was asked for, and the tokens that it said were looked up since the engine's start.
    pub(in crate::engine) fn queries(&self) -> Option<(Instant, u64)> {
        let last = self.last.as_ref()?;
        Some((last.sent_ns, last.snapshot.cache_queries?))
    }

    pub(in crate::engine) fn habits(&self) -> Habits {
        Habits {
            tokens_mean: self.tokens_mean,
            knee: self.knee.clone(),
        }
    }

    /// Takes over what was learned elsewhere, by a clock behind which ours is by so many nanoseconds.
    pub(in crate::engine) fn set_habits(&mut self, habits: Habits, ahead_ns: i64) {
        self.tokens_mean = habits.tokens_mean.or(self.tokens_mean);
        self.knee = habits.knee.shifted(ahead_ns);
    }
}
