//! How much of its nominal capacity a replica keeps for what it is sent.

use serde::{Deserialize, Serialize};

/// Tokens that an engine's counters must have grown by before they are compared.
const WINDOW_TOKENS: u64 = 16_384;

/// How much of its nominal capacity a replica is believed to keep for what we send it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct Retention {
    ratio: f64,
    /// Misses since the last confirmed prediction.
    pub(super) misses: u32,
    /// Of requests whose engine told no `cached_tokens`, since the last comparison.
    pub(super) prompt_tokens: u64,
    pub(super) predicted_tokens: u64,
    /// The engine's own counters at the last comparison: queries and hits.
    told: Option<(u64, u64)>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            ratio: 1.0,
            misses: 0,
            prompt_tokens: 0,
            predicted_tokens: 0,
            told: None,
        }
    }
}

impl Retention {
    const MIN: f64 = 1.0 / 64.0;
    /// Above one where the capacity is only assumed.
    const MAX: f64 = 16.0;

    /// Whether it could have been learned.
    pub(super) fn is_sound(&self) -> bool {
        (Self::MIN..=Self::MAX).contains(&self.ratio)
    }

    /// The believed capacity, of a nominal one in tokens.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(super) fn of(&self, tokens: u64) -> u64 {
        (tokens as f64 * self.ratio) as u64
    }

    /// What was predicted was there: back towards the nominal capacity, by and by.
    pub(super) fn confirm(&mut self) {
        self.misses = 0;
        if self.ratio < 1.0 {
            self.ratio += (1.0 - self.ratio) / 64.0;
        }
    }

    /// More was there than an owner at its capacity was believed to hold.
    pub(super) fn raise(&mut self) {
        self.ratio = (self.ratio * 1.05).min(Self::MAX);
    }

    /// No more than `kept` of the capacity was there; not all at once.
    pub(super) fn lower(&mut self, kept: f64) {
        self.misses = 0;
        self.ratio = (self.ratio * kept.clamp(0.75, 1.0)).max(Self::MIN);
    }

    /// Compares the engine's counters with what was predicted, once both tell of enough and of the
    /// same requests; false where hits are less than half of it.
    #[expect(
        clippy::cast_precision_loss,
        reason = "token counts are far below 2^52"
    )]
    pub(super) fn reconcile(&mut self, told: (u64, u64)) -> bool {
        let before = *self.told.get_or_insert(told);
        let queries = told.0.saturating_sub(before.0);
        let restarted = told.0 < before.0;
        if queries < WINDOW_TOKENS && !restarted {
            return true;
        }
        let hits = told.1.saturating_sub(before.1) as f64 / queries.max(1) as f64;
        let ours = self.prompt_tokens as f64 / queries.max(1) as f64;
        let predicted = self.predicted_tokens as f64 / self.prompt_tokens.max(1) as f64;
        (self.prompt_tokens, self.predicted_tokens) = (0, 0);
        self.told = Some(told);
        // Others' requests, or prompts we know too little of: nothing can be told.
        if !(0.75..=1.25).contains(&ours) || predicted < 0.1 {
            return true;
        }
        hits >= predicted / 2.0
    }
}
