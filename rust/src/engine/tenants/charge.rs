//! What a request is charged when it is admitted, and what it has used when it ends.

use crate::engine::ask::Report;
use crate::engine::effect::Outcome;

/// The tokens that a request should use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::engine) struct Predicted {
    pub(in crate::engine) prompt: u32,
    /// Of all its answers.
    pub(in crate::engine) answer: u32,
    /// Its tokens count. Those of what is answered without the model, or was answered before, do not.
    pub(in crate::engine) counted: bool,
}

impl Predicted {
    pub(super) fn tokens(self) -> u64 {
        u64::from(self.prompt) + u64::from(self.answer)
    }
}

/// How the answer to a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Delivery {
    /// It was asked for as a stream.
    pub(in crate::engine) stream: bool,
    /// Tokens that one event may have; at least 1.
    pub(in crate::engine) event_tokens: u32,
    /// Tokens that it may have, if the request says so.
    pub(in crate::engine) tokens_max: Option<u32>,
}

/// How far a request had come when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Progress {
    /// No attempt was under way.
    Waiting,
    /// One was, and no byte of the answer has come.
    Attempted,
    /// The first byte has come.
    Started,
}

/// What a request has been charged. It is settled once, by [`Tenants::settle`](super::Tenants::settle).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Charge {
    pub(super) account: u32,
    pub(super) row: u32,
    pub(super) predicted: Predicted,
    pub(super) delivery: Delivery,
}

impl Charge {
    /// What so many events count for, behind tokens that were told: no more than the answer may have, unless
    /// there are more events.
    fn events(self, events: u64, told: u32) -> u64 {
        let Delivery {
            event_tokens,
            tokens_max,
            ..
        } = self.delivery;
        let most = tokens_max.unwrap_or(self.predicted.answer);
        let tokens = events.saturating_mul(u64::from(event_tokens));
        events.max(tokens.min(u64::from(most.saturating_sub(told))))
    }
}

/// Tokens that a request has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::engine) struct Spent {
    pub(super) prompt: u64,
    pub(super) cached: u64,
    pub(super) completion: u64,
}

impl Spent {
    /// Nothing: the request was refused, or nothing of its answer came.
    pub(in crate::engine) const NOTHING: Self = Self {
        prompt: 0,
        cached: 0,
        completion: 0,
    };

    pub(super) fn tokens(self) -> u64 {
        self.prompt + self.completion
    }

    /// What a request has used that ended so.
    ///
    /// What `usage` says counts. What it leaves out is predicted for the prompt, and counted for the answer:
    /// each event of a stream is a token, or as many as the client asked for, and so is each behind the last
    /// `usage` of a stream that was cut. An answer that came whole and says nothing has used what was predicted.
    /// One that is an error, or did not begin, has used nothing. But where the client left while an engine
    /// computed, the prompt counts as predicted. So does the answer, unless it is a stream: its first byte comes
    /// when all of it is computed.
    pub(in crate::engine) fn of(
        charge: Charge,
        progress: Progress,
        outcome: Outcome,
        report: &Report<'_>,
    ) -> Self {
        let usage = report.usage;
        let predicted = charge.predicted;
        let told = usage.prompt_tokens.is_some() || usage.completion_tokens.is_some();
        let begun = match progress {
            Progress::Started => true,
            Progress::Attempted => report.sent && outcome.is_unwanted(),
            Progress::Waiting => false,
        };
        if !predicted.counted || (!told && (!begun || report.refused)) {
            return Self::NOTHING;
        }
        let whole = outcome == Outcome::Ok;
        let computed = whole || (outcome.is_unwanted() && !charge.delivery.stream);
        let prompt = usage.prompt_tokens.unwrap_or(predicted.prompt);
        let completion = match usage.completion_tokens {
            Some(tokens) if whole => u64::from(tokens),
            Some(tokens) => u64::from(tokens) + charge.events(report.events_since_usage, tokens),
            None if computed && !told && !report.streamed => u64::from(predicted.answer),
            None => charge.events(report.events, 0),
        };
        Self {
            prompt: u64::from(prompt),
            cached: u64::from(usage.cached_tokens.unwrap_or(0).min(prompt)),
            completion,
        }
    }
}
