//! What a request that ended teaches: bytes per token, answer length, and how good the prediction of
//! cached tokens was.
//!
//! An engine evicts in about the order of use. Where it had less of a prompt in its cache than was
//! predicted, what its owner used no later than the missing blocks is probably gone as well. It is
//! dropped, and the owner is believed to hold less ([`Share`]). But a prompt that is rendered anew
//! each turn (a date, a call written differently) misses without any eviction. So one miss is
//! believed where the owner has been given enough since to have evicted so much, else only the
//! third in a row.

use std::borrow::Cow;

use super::blocks_of;
use crate::engine::choose::policy::Slot;
use crate::engine::requests::request::{Attempt, Report, Request, Usage};
use crate::engine::router::Router;
use crate::rng::Rng;

/// A miss is plausible where the owner has used this share of its capacity since.
const PLAUSIBLE: f64 = 0.25;
/// Misses in a row that are believed whatever was used since.
const MISSES_MAX: u32 = 3;
/// Tokens that an engine's counters must have grown by before they are compared.
const WINDOW_TOKENS: u64 = 16_384;
/// What an engine's block is taken for where it does not say.
const ENGINE_BLOCK_TOKENS: u32 = 16;
/// Blocks that stand for the part of an answer that was not read, at most.
const UNREAD_BLOCKS_MAX: usize = 4_096;
/// Upper bounds of the histogram of errors, in tokens.
pub(in crate::engine) const ERROR_BOUNDS: [i32; 17] = [
    -4096, -1024, -256, -128, -64, -32, -16, -1, 0, 16, 32, 64, 128, 256, 1024, 4096, 16_384,
];

/// Predicted minus confirmed tokens, of requests where either is not zero.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Errors {
    counts: [u64; ERROR_BOUNDS.len() + 1],
    sum: i64,
}

impl Errors {
    fn observe(&mut self, predicted: u32, confirmed: u32) {
        if predicted == 0 && confirmed == 0 {
            return;
        }
        let error = i64::from(predicted) - i64::from(confirmed);
        self.counts[ERROR_BOUNDS.partition_point(|bound| i64::from(*bound) < error)] += 1;
        self.sum += error;
    }

    /// Upper bounds with cumulative counts, the last without bound, and the sum.
    pub(in crate::engine) fn cumulative(&self) -> (Vec<(f64, u64)>, i64) {
        let bounds = ERROR_BOUNDS.iter().map(|bound| f64::from(*bound));
        let mut total = 0;
        let buckets = bounds
            .chain(std::iter::once(f64::INFINITY))
            .zip(self.counts);
        let buckets = buckets.map(|(bound, count)| {
            total += count;
            (bound, total)
        });
        (buckets.collect(), self.sum)
    }
}

/// How much of its nominal capacity a replica is believed to keep for what we send it.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Share {
    ratio: f64,
    /// Misses since the last confirmed prediction.
    misses: u32,
    /// Of requests whose engine told no `cached_tokens`, since the last comparison.
    prompt_tokens: u64,
    predicted_tokens: u64,
    /// The engine's own counters at the last comparison: queries and hits.
    told: Option<(u64, u64)>,
}

impl Share {
    const MIN: f64 = 1.0 / 64.0;
    /// Above one where the capacity is only assumed.
    const MAX: f64 = 16.0;

    pub(in crate::engine) fn new() -> Self {
        Self {
            ratio: 1.0,
            misses: 0,
            prompt_tokens: 0,
            predicted_tokens: 0,
            told: None,
        }
    }

    /// The believed capacity, of a nominal one in tokens.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn of(&self, tokens: u64) -> u64 {
        (tokens as f64 * self.ratio) as u64
    }

    /// What was predicted was there: back towards the nominal capacity, by and by.
    fn confirm(&mut self) {
        self.misses = 0;
        if self.ratio < 1.0 {
            self.ratio += (1.0 - self.ratio) / 64.0;
        }
    }

    /// More was there than an owner at its capacity was believed to hold.
    fn raise(&mut self) {
        self.ratio = (self.ratio * 1.05).min(Self::MAX);
    }

    /// No more than `kept` of the capacity was there; not all at once.
    fn lower(&mut self, kept: f64) {
        self.misses = 0;
        self.ratio = (self.ratio * kept.clamp(0.75, 1.0)).max(Self::MIN);
    }

    /// Compares the engine's counters with what was predicted, once both tell of enough and of the
    /// same requests; false where hits are less than half of it.
    #[expect(
        clippy::cast_precision_loss,
        reason = "token counts are far below 2^52"
    )]
    fn reconcile(&mut self, told: (u64, u64)) -> bool {
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

impl Router {
    /// Learns from what the engine reported.
    pub(in crate::engine) fn learn(&mut self, request: &Request, attempt: &Attempt, usage: Usage) {
        let model = request
            .model
            .and_then(|id| self.fleet.models.get_mut(id.0 as usize));
        let ratio_tokens = usage.prompt_tokens.filter(|_| !request.has_media);
        if let (Some(model), Some(tokens)) = (model, ratio_tokens) {
            model.ratio.learn(request.prompt_bytes, tokens);
        }
        let Some(member) = self.fleet.member_mut(attempt.slot) else {
            return;
        };
        member.prompt_tokens_total += u64::from(usage.prompt_tokens.unwrap_or(0));
        let Some(cached) = usage.cached_tokens else {
            member.share.prompt_tokens += u64::from(attempt.forecast.prompt_tokens);
            member.share.predicted_tokens += u64::from(attempt.forecast.cached_tokens);
            return;
        };
        member.cached_tokens_total += u64::from(cached);
        self.counters.cached_tokens_predicted += u64::from(attempt.forecast.cached_tokens);
        self.counters.cached_tokens_confirmed += u64::from(cached);
        self.counters.cached_tokens_error +=
            u64::from(attempt.forecast.cached_tokens.abs_diff(cached));
        // Some engines say 0 where they were not started to tell.
        if member.cached_tokens_total == 0 {
            return;
        }
        self.errors.observe(attempt.forecast.cached_tokens, cached);
        if let Some(prompt_tokens) = usage.prompt_tokens.filter(|tokens| *tokens > 0) {
            self.judge(request, attempt, cached, prompt_tokens);
        }
    }

    /// Compares what the engine found in its cache with what the tree said.
    fn judge(&mut self, request: &Request, attempt: &Attempt, cached: u32, prompt_tokens: u32) {
        let Some(member) = self.fleet.member(attempt.slot) else {
            return;
        };
        let snapshot = member.replica.snapshot();
        let engine_block = snapshot
            .and_then(|s| s.block_size)
            .unwrap_or(ENGINE_BLOCK_TOKENS);
        if self.lacks_answer(request, attempt, cached, engine_block) || request.has_media {
            return;
        }
        let Some(member) = self.fleet.member_mut(attempt.slot) else {
            return;
        };
        // By this prompt's own bytes per token, which are known now.
        let bytes_per_token = f64::from(request.prompt_bytes) / f64::from(prompt_tokens);
        let block_bytes = self.config.block_bytes;
        let found = blocks_of(u64::from(cached), bytes_per_token, block_bytes);
        let slack = 1 + blocks_of(u64::from(engine_block), bytes_per_token, block_bytes);
        let held = self.tree.owner_blocks(attempt.slot);
        if found + slack >= attempt.match_blocks {
            if attempt.match_blocks > 0 {
                member.share.confirm();
            }
            let told = member
                .replica
                .snapshot()
                .and_then(|s| s.kv_tokens)
                .is_some();
            let is_full = held >= member.capacity_blocks / 16 * 15;
            if !told && is_full && found > attempt.match_blocks + slack {
                member.share.raise();
            }
            self.learn_parting(request, attempt, cached);
            return;
        }
        self.counters.cache_misses += 1;
        // Where the block was only being computed for another request, nothing was evicted.
        let Some((pin, gone)) = attempt.pin.as_ref().and_then(|pin| {
            let gone = self.tree.unused_since(pin, found as usize)?;
            Some((pin, gone))
        }) else {
            return;
        };
        let kept = f64::from(held - gone) / f64::from(member.capacity_blocks.max(1));
        member.share.misses += 1;
        if kept < PLAUSIBLE && member.share.misses < MISSES_MAX {
            return;
        }
        self.counters.cache_corrections += 1;
        self.counters.cache_corrected_blocks += u64::from(gone);
        member.share.lower(kept);
        self.tree.drop_unused_since(pin, found as usize);
        self.set_capacity(attempt.slot, false);
    }

    /// What the engine has cached behind a prompt: the answer as far as it was read, and where that is
    /// less than half of it (thoughts, several answers, the end of a long one), blocks that no prompt
    /// has, for they take room all the same.
    pub(in crate::engine) fn answer_blocks<'a>(
        &self,
        request: &Request,
        report: &Report<'a>,
    ) -> Cow<'a, [u64]> {
        let read = report.answer;
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let (Some(model), Some(tokens)) = (model, report.usage.completion_tokens) else {
            return Cow::Borrowed(read);
        };
        let bytes_per_token = model.ratio.bytes_per_token();
        let all = blocks_of(u64::from(tokens), bytes_per_token, self.config.block_bytes) as usize;
        if read.len() * 2 >= all {
            return Cow::Borrowed(read);
        }
        // Any numbers will do that are no hashes of blocks, and no other request's.
        let seed = request.last_block.unwrap_or(0).wrapping_add(request.age);
        let mut numbers = Rng::new(seed);
        let unread = (all - read.len()).min(UNREAD_BLOCKS_MAX);
        let unread = std::iter::repeat_with(|| numbers.next_u64()).take(unread);
        Cow::Owned(read.iter().copied().chain(unread).collect())
    }

    /// Where answers tell no `cached_tokens`: compares what was predicted with the growth of the
    /// engine's counters, and believes in less where that is far off.
    ///
    /// `told`: tokens looked up and tokens found, since the engine's start.
    pub(in crate::engine) fn reconcile(&mut self, slot: Slot, told: Option<(u64, u64)>) {
        if let (Some(member), Some(told)) = (self.fleet.member_mut(slot), told)
            && !member.share.reconcile(told)
        {
            member.share.lower(0.9);
            self.counters.cache_corrections += 1;
        }
    }
}
