//! What a request that ended teaches: bytes per token, answer length, and how good the prediction of
//! cached tokens was.

use super::Router;
use super::request::{Attempt, Request, Usage};

impl Router {
    /// Learns from what the engine reported: bytes per token, answer length, and how good the
    /// prediction of cached tokens was.
    pub(super) fn learn(&mut self, request: &Request, attempt: &Attempt, usage: Usage) {
        let model = request
            .model
            .and_then(|id| self.fleet.models.get_mut(id.0 as usize));
        if let (Some(model), Some(tokens)) = (model, usage.prompt_tokens) {
            model.ratio.learn(request.prompt_bytes, tokens);
        }
        let Some(member) = self.fleet.member_mut(attempt.slot) else {
            return;
        };
        if let Some(tokens) = usage.completion_tokens {
            member.replica.learn_output(tokens);
        }
        member.prompt_tokens_total += u64::from(usage.prompt_tokens.unwrap_or(0));
        if let Some(cached) = usage.cached_tokens {
            member.cached_tokens_total += u64::from(cached);
            self.counters.cached_tokens_predicted += u64::from(attempt.cached_tokens);
            self.counters.cached_tokens_confirmed += u64::from(cached);
            self.counters.cached_tokens_error += u64::from(attempt.cached_tokens.abs_diff(cached));
        }
    }
}
