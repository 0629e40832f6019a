//! How many tokens the prefixes have that prompts share.
//!
//! Bytes per token differ from text to text. So a ratio does not say exactly how much of a long prompt an
//! engine has cached. But the next turn of a conversation matches up to the end of the last turn, and
//! `usage` said how many tokens that was. Prompts also part behind a shared system text. There the engine's
//! `cached_tokens` of one prompt give the number for the next.
//!
//! A template may render an answer otherwise than the engine generated it: it leaves out thoughts, for
//! instance, or cuts the text into other tokens. Then the engine finds the conversation only up to the
//! answer. That is no eviction. Where it is usual for a model, SkyLB predicts it.

use serde::{Deserialize, Serialize};

use super::{Cache, Confirmed};
use crate::engine::ask::Report;
use crate::engine::config::Config;
use crate::engine::counters::Counters;
use crate::engine::demand::Demand;
use crate::engine::fleet::Fleet;
use crate::engine::generations::Generations;
use crate::prompt::ANSWER_BYTES_MAX;

/// Places remembered; 17 bytes each, and as much again for the free room of their tables.
const PATHS_MAX: usize = 1 << 17;

/// Tokens up to a place; those before the answer are no more than all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Path {
    /// All of them.
    tokens: u32,
    /// Those before the answer that ends there; all where none does.
    prompt_tokens: u32,
}

impl Path {
    /// What an engine finds in its cache that still has all of it; `answers_found`: it finds answers
    /// again that are sent back.
    pub(in crate::engine) fn findable_tokens(self, answers_found: bool) -> u32 {
        if answers_found {
            self.tokens
        } else {
            self.prompt_tokens
        }
    }
}

/// Tokens up to places, by the chained hash of the last block.
#[derive(Debug)]
pub(super) struct Paths(pub(super) Generations<u64, Path>);

impl Default for Paths {
    fn default() -> Self {
        Self(Generations::new(PATHS_MAX))
    }
}

impl Cache {
    /// Tokens up to the last of the first `blocks` blocks of a prompt, where they are known.
    #[inline]
    pub(in crate::engine) fn path(&self, demand: &Demand, blocks: u32) -> Option<Path> {
        let last = (blocks as usize).checked_sub(1)?;
        self.paths.0.get(*demand.blocks.get(last)?)
    }

    /// Remembers how long a prompt was, and how long with its answer.
    pub(in crate::engine) fn learn_paths(
        &mut self,
        demand: &Demand,
        report: &Report<'_>,
        fleet: &Fleet,
        config: &Config,
    ) {
        let (Some(ratio), Some(last), Some(prompt_tokens)) = (
            fleet.ratio(demand.model),
            demand.last_block,
            report.usage.prompt_tokens,
        ) else {
            return;
        };
        let block_bytes = u32::try_from(config.block_bytes).unwrap_or(u32::MAX);
        let whole_bytes = demand.prompt_blocks.saturating_mul(block_bytes);
        let rest_bytes = demand.prompt_bytes.saturating_sub(whole_bytes);
        if rest_bytes >= block_bytes {
            return; // too long a prompt: its end is not among its blocks
        }
        let tokens = prompt_tokens.saturating_sub(ratio.tokens(u64::from(rest_bytes)));
        let path = Path {
            tokens,
            prompt_tokens: tokens,
        };
        // An answer's last block ends somewhere before the answer does: half a block on average.
        let rest_tokens = ratio.tokens(u64::from(block_bytes / 2));
        self.paths.0.put(last, path);
        let is_whole = report.answer.len() < ANSWER_BYTES_MAX / config.block_bytes;
        if let (Some(last), Some(completion_tokens)) =
            (report.answer.last(), report.usage.completion_tokens)
            && is_whole
        {
            let tokens = prompt_tokens.saturating_add(completion_tokens);
            let tokens = tokens.saturating_sub(rest_tokens);
            let path = Path {
                tokens,
                prompt_tokens: prompt_tokens.min(tokens),
            };
            self.paths.0.put(*last, path);
        }
    }

    /// Learns from what an engine found where tokens are known: whether the answer at the end was
    /// among it. True where that is all that was missing.
    pub(super) fn lacks_answer(
        of: Confirmed<'_>,
        cached: u32,
        engine_block: u32,
        fleet: &mut Fleet,
        counters: &mut Counters,
    ) -> bool {
        let Some(path) = of.matched.path else {
            return false;
        };
        let slack = 2 * engine_block;
        let found = cached.saturating_add(slack) >= path.tokens;
        if cached.saturating_add(slack) < path.prompt_tokens {
            return false;
        }
        // A shorter answer is within the slack.
        if path.tokens - path.prompt_tokens > 2 * slack
            && fleet.learn_answer(of.demand.model, found)
        {
            counters.answers_not_found += u64::from(!found);
        }
        !found
    }

    /// The engine found what it was believed to have: so many tokens up to where the prompt parts
    /// from others.
    pub(super) fn learn_parting(&mut self, of: Confirmed<'_>, cached: u32) {
        let inner = of.matched.blocks < of.demand.prompt_blocks;
        let Some(last) = of.matched.end.filter(|_| inner) else {
            return;
        };
        let path = of.matched.path.unwrap_or(Path {
            tokens: cached,
            prompt_tokens: cached,
        });
        // What one engine has beyond the place, it may have from before we knew it.
        let path = Path {
            tokens: path.tokens.min(cached),
            prompt_tokens: path.prompt_tokens.min(cached),
        };
        self.paths.0.put(last, path);
    }
}
