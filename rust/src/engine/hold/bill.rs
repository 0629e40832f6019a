//! What a request takes of replicas, and the tenant that is charged for it.

use super::Class;
use super::payers::Payer;
use crate::engine::ask::Usage;
use crate::id::ReplicaSlot;

/// Tenths of a token that one counts for: computed, found cached, generated.
pub(super) const UNCACHED: u64 = 10;
const CACHED: u64 = 1;
const GENERATED: u64 = 20;
/// What a request takes of a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt, to be computed.
    pub uncached: u32,
    /// Of the prompt, found cached.
    pub cached: u32,
    /// Of the answer.
    pub output: u32,
}

impl Tokens {
    /// What it counts for, in tenths of a token that is computed.
    #[must_use]
    pub fn cost(self) -> u64 {
        u64::from(self.uncached) * UNCACHED
            + u64::from(self.cached) * CACHED
            + u64::from(self.output) * GENERATED
    }

    /// What it was, as far as an engine reported it.
    pub(super) fn settled(self, usage: Usage) -> Self {
        let cached = usage.cached_tokens.unwrap_or(self.cached);
        let uncached = usage
            .prompt_tokens
            .map_or(self.uncached, |prompt| prompt.saturating_sub(cached));
        Self {
            uncached,
            cached,
            output: usage.completion_tokens.unwrap_or(self.output),
        }
    }

    /// The prompt alone.
    pub(super) fn prompt(self) -> Self {
        Self { output: 0, ..self }
    }
}

/// Whose request it is, where it competes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Purse {
    /// Models whose first replica this is are one pool; none where no replica here serves the model.
    pub pool: Option<ReplicaSlot>,
    /// Its class.
    pub class: Class,
    /// Whom it counts for.
    pub payer: Payer,
}

/// What a started request was charged.
#[derive(Debug, Clone, Copy)]
pub struct Bill {
    pub(super) account: usize,
    pub(super) tokens: Tokens,
    /// By which it was divided: a keys file may have another one since.
    pub(super) weight: u32,
}

impl Bill {
    /// In tenths of a token.
    #[must_use]
    pub fn cost(self) -> u64 {
        self.tokens.cost()
    }
}

/// How an attempt ended, as far as charges go.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// It failed: it is tried elsewhere, or was refused.
    Failed,
    /// Its client left before the first byte.
    Unanswered {
        /// The answer was being computed: its first byte comes at its end.
        answer: bool,
    },
    /// It was answered, in part at least.
    Answered(Usage),
}
