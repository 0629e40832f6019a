//! What a client reads when its tenant's terms refuse a request.

use super::standing::retry_after_s;
use crate::engine::refusal::Refusal;
use crate::time::Span;

/// The limit that a request would pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Requests {
        limit: u64,
        wait: Span,
    },
    Tokens {
        limit: u64,
        wait: Span,
    },
    /// When a request ends is not known.
    Concurrent {
        most: u32,
    },
}

impl Limit {
    /// `assumed_s`: when to come back where it is not known.
    pub(super) fn refusal(self, assumed_s: u32) -> Refusal {
        let (text, after_s) = match self {
            Self::Requests { limit, wait } => {
                (format!("{limit} requests per minute"), retry_after_s(wait))
            }
            Self::Tokens { limit, wait } => {
                (format!("{limit} tokens per minute"), retry_after_s(wait))
            }
            Self::Concurrent { most } => (format!("{most} concurrent requests"), assumed_s.max(1)),
        };
        let message = format!("Rate limit reached: {text}. Please try again in {after_s} s.");
        Refusal::new("rate_limit_exceeded", message).retry_after(after_s)
    }
}

/// A model that the tenant may not use. Whether it exists is not told.
pub(super) fn model_not_allowed() -> Refusal {
    Refusal::new(
        "model_not_allowed",
        "This API key may not use the requested model.",
    )
}
