//! Binding of `engine`: what the relay tells of an answer.

use super::http::Relay;
use crate::engine::effect::Outcome;
use crate::engine::receipts::End;
use crate::engine::router::{Report, Usage};
use crate::relay::Kept;
use crate::time::Instant;

/// What a relay learned from its response.
pub(super) fn report<'a>(relay: Option<&'a Relay>, answer: &'a [u64]) -> Report<'a> {
    let tokens = |told: Option<i64>| told.and_then(|tokens| u32::try_from(tokens).ok());
    relay.map_or_else(Report::default, |relay| Report {
        usage: Usage {
            prompt_tokens: tokens(relay.inner.prompt_tokens()),
            cached_tokens: tokens(relay.inner.cached_tokens()),
            completion_tokens: tokens(relay.inner.completion_tokens()),
        },
        response_id: relay.inner.response_id(),
        answer,
        sent: true, // only then is there a relay
        streamed: relay.inner.streaming(),
        refused: relay.inner.is_error(),
        events: relay.inner.events(),
        events_since_usage: relay.inner.events_since_usage(),
    })
}

/// What a client has of a stream that is to go on elsewhere.
pub(super) fn given(relay: &Relay) -> Report<'_> {
    let (prompt, answer) = relay.inner.kept().map_or((0, 0), Kept::given);
    let tokens = |len: usize| u32::try_from(len).ok();
    Report {
        usage: Usage {
            prompt_tokens: tokens(prompt),
            cached_tokens: None,
            completion_tokens: tokens(answer),
        },
        ..report(Some(relay), &[])
    }
}

/// How a request ended, as its receipt has it.
pub(super) fn end_of(relay: Option<&Relay>, outcome: Outcome, usage: Usage, at_ns: Instant) -> End {
    End {
        at_ns,
        outcome,
        status: relay.map_or(0, |relay| relay.inner.verdict()),
        usage,
    }
}
