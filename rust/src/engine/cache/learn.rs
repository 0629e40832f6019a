//! What an ended request says about caches: how good the prediction of cached tokens was.
//!
//! An engine evicts in about the order of use. If blocks of a prompt are missing although they were
//! predicted, it has probably also evicted all that was used no later than they. So the tree drops those
//! blocks, and believes that the owner holds less ([`Retention`]). But a prompt that is rendered anew each
//! turn (a date, a call written differently) misses without any eviction. So a single miss is believed only
//! if the owner has been sent enough since to have evicted so much. Otherwise only the third miss in a row
//! is believed.
//!
//! [`Retention`]: super::retention::Retention

use std::borrow::Cow;

use super::{Cache, Match, blocks_of};
use crate::engine::ask::{Report, Usage};
use crate::engine::config::Config;
use crate::engine::counters::Counters;
use crate::engine::demand::Demand;
use crate::engine::fleet::Fleet;
use crate::engine::fleet::forecast::Forecast;
use crate::id::ReplicaSlot;
use crate::rng::Rng;

/// A miss is plausible where the owner has used this share of its capacity since.
const PLAUSIBLE: f64 = 0.25;
/// Misses in a row that are believed whatever was used since.
const MISSES_MAX: u32 = 3;
/// What an engine's block is taken for where it does not say.
const ENGINE_BLOCK_TOKENS: u32 = 16;
/// Blocks that stand for the part of an answer that was not read, at most.
const UNREAD_BLOCKS_MAX: usize = 4_096;

/// A request that was answered in full, and what was believed of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Confirmed<'a> {
    pub(in crate::engine) demand: &'a Demand,
    pub(in crate::engine) slot: ReplicaSlot,
    pub(in crate::engine) matched: &'a Match,
    pub(in crate::engine) forecast: &'a Forecast,
}

impl Cache {
    /// Learns from what the engine reported of a request.
    pub(in crate::engine) fn confirm(
        &mut self,
        of: Confirmed<'_>,
        usage: Usage,
        fleet: &mut Fleet,
        counters: &mut Counters,
        config: &Config,
    ) {
        let predicted = of.forecast.cached_tokens;
        let Some(cached) = usage.cached_tokens else {
            let retention = self.retention_mut(of.slot);
            retention.prompt_tokens += u64::from(of.forecast.prompt_tokens);
            retention.predicted_tokens += u64::from(predicted);
            return;
        };
        counters.cached_tokens_predicted += u64::from(predicted);
        counters.cached_tokens_confirmed += u64::from(cached);
        counters.cached_tokens_error += u64::from(predicted.abs_diff(cached));
        // Some engines say 0 where they were not started to tell.
        if !fleet.tells_cached(of.slot) {
            return;
        }
        self.errors.observe(predicted, cached);
        if let Some(prompt_tokens) = usage.prompt_tokens.filter(|tokens| *tokens > 0) {
            self.judge(of, (cached, prompt_tokens), fleet, counters, config);
        }
    }

    /// Compares what the engine found in its cache with what the tree said.
    fn judge(
        &mut self,
        of: Confirmed<'_>,
        (cached, prompt_tokens): (u32, u32),
        fleet: &mut Fleet,
        counters: &mut Counters,
        config: &Config,
    ) {
        let (demand, slot) = (of.demand, of.slot);
        let engine_block = fleet.engine_block(slot).unwrap_or(ENGINE_BLOCK_TOKENS);
        if Self::lacks_answer(of, cached, engine_block, fleet, counters) || demand.has_media {
            return;
        }
        // By this prompt's own bytes per token, which are known now.
        let bytes_per_token = f64::from(demand.prompt_bytes) / f64::from(prompt_tokens);
        let block_bytes = config.block_bytes;
        let found = blocks_of(u64::from(cached), bytes_per_token, block_bytes);
        let slack = 1 + blocks_of(u64::from(engine_block), bytes_per_token, block_bytes);
        let held = self.tree.owner_blocks(slot.number());
        let capacity_blocks = self.capacity_blocks(slot);
        if found + slack >= of.matched.blocks {
            let retention = self.retention_mut(slot);
            if of.matched.blocks > 0 {
                retention.confirm();
            }
            let is_full = held >= capacity_blocks / 16 * 15;
            if !fleet.tells_kv(slot) && is_full && found > of.matched.blocks + slack {
                retention.raise();
            }
            self.learn_parting(of, cached);
            return;
        }
        counters.cache_misses += 1;
        // Where the block was only being computed for another request, nothing was evicted.
        let Some((pin, gone)) = of.matched.pin.as_ref().and_then(|pin| {
            let gone = self.tree.unused_since(pin, found as usize)?;
            Some((pin, gone))
        }) else {
            return;
        };
        let kept = f64::from(held - gone) / f64::from(capacity_blocks.max(1));
        let retention = self.retention_mut(slot);
        retention.misses += 1;
        if kept < PLAUSIBLE && retention.misses < MISSES_MAX {
            return;
        }
        counters.cache_corrections += 1;
        counters.cache_corrected_blocks += u64::from(gone);
        retention.lower(kept);
        self.tree.drop_unused_since(pin, found as usize);
        self.fit(fleet, slot, false, config);
    }

    /// What the engine has cached behind a prompt: the answer as far as it was read, and where that is
    /// less than half of it (thoughts, several answers, the end of a long one), blocks that no prompt
    /// has, for they take room all the same. `number`: the request's own.
    pub(in crate::engine) fn answer_blocks<'a>(
        demand: &Demand,
        number: u64,
        report: &Report<'a>,
        fleet: &Fleet,
        config: &Config,
    ) -> Cow<'a, [u64]> {
        let read = report.answer;
        let bytes_per_token = fleet.bytes_per_token(demand.model);
        let (Some(bytes_per_token), Some(tokens)) =
            (bytes_per_token, report.usage.completion_tokens)
        else {
            return Cow::Borrowed(read);
        };
        let all = blocks_of(u64::from(tokens), bytes_per_token, config.block_bytes) as usize;
        if read.len() * 2 >= all {
            return Cow::Borrowed(read);
        }
        // Any numbers will do that are no hashes of blocks, and no other request's.
        let seed = demand.last_block.unwrap_or(0).wrapping_add(number);
        let mut numbers = Rng::new(seed);
        let unread = (all - read.len()).min(UNREAD_BLOCKS_MAX);
        let unread = std::iter::repeat_with(|| numbers.next_u64()).take(unread);
        Cow::Owned(read.iter().copied().chain(unread).collect())
    }

    /// Where answers tell no `cached_tokens`: compares what was predicted with the growth of the
    /// engine's counters, and believes in less where that is far off.
    ///
    /// `reported`: tokens looked up and tokens found, since the engine's start.
    pub(in crate::engine) fn reconcile(
        &mut self,
        slot: ReplicaSlot,
        reported: (u64, u64),
        counters: &mut Counters,
    ) {
        let retention = self.retention_mut(slot);
        if !retention.reconcile(reported) {
            retention.lower(0.9);
            counters.cache_corrections += 1;
        }
    }
}
