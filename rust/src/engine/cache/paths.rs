//! How many tokens there are up to places that prompts have in common.
//!
//! Bytes per token differ from text to text, so a ratio does not say to the block how much of a
//! long prompt an engine has cached. But the next turn of a conversation matches up to where the
//! last one ended, and `usage` said how many tokens that was. Where prompts part (behind a shared
//! system text), the engine's `cached_tokens` of one say it for the next.
//!
//! A template may render an answer otherwise than it was generated (thoughts are left out), or its
//! text may be cut into other tokens. Then the engine finds the conversation only up to the answer.
//! That is no eviction, and where it is usual for a model it is what is predicted.

use crate::engine::fleet::models::Model;
use crate::engine::generations::Generations;
use crate::engine::requests::request::{Attempt, Report, Request};
use crate::engine::router::Router;
use crate::prompt::ANSWER_BYTES_MAX;

/// Places remembered; 17 bytes each, and as much again for the free room of their tables.
const PATHS_MAX: usize = 1 << 17;
/// Each answer moves what is believed of a model's answers by this part.
const ANSWER_STEP: f32 = 1.0 / 8.0;

/// Tokens up to a place; those before the answer are no more than all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Path {
    /// All of them.
    pub(in crate::engine) tokens: u32,
    /// Those before the answer that ends there; all where none does.
    pub(in crate::engine) prompt_tokens: u32,
}

impl Path {
    /// What an engine finds in its cache that still has all of it.
    pub(in crate::engine) fn findable_tokens(self, model: &Model) -> u32 {
        if model.answers_found.is_usual() {
            self.tokens
        } else {
            self.prompt_tokens
        }
    }
}

/// Tokens up to places, by the chained hash of the last block.
#[derive(Debug)]
pub(in crate::engine) struct Paths(Generations<u64, Path>);

impl Default for Paths {
    fn default() -> Self {
        Self(Generations::new(PATHS_MAX))
    }
}

/// The part of a model's answers that the engine finds again when they are sent back.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Found(f32);

impl Default for Found {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Found {
    fn learn(&mut self, found: bool) {
        self.0 += (f32::from(u8::from(found)) - self.0) * ANSWER_STEP;
    }

    fn is_usual(self) -> bool {
        self.0 > 0.5
    }
}

impl Router {
    /// Tokens up to the last of the first `blocks` blocks of the request's prompt, where they are
    /// known.
    pub(in crate::engine) fn path(&self, request: &Request, blocks: u32) -> Option<Path> {
        let last = (blocks as usize).checked_sub(1)?;
        self.paths.0.get(*request.blocks.get(last)?)
    }

    /// Remembers how long the prompt was, and how long with its answer.
    pub(in crate::engine) fn learn_paths(&mut self, request: &Request, report: &Report<'_>) {
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let (Some(model), Some(last), Some(prompt_tokens)) =
            (model, request.last_block, report.usage.prompt_tokens)
        else {
            return;
        };
        let block_bytes = u32::try_from(self.config.block_bytes).unwrap_or(u32::MAX);
        let whole_bytes = request.prompt_blocks.saturating_mul(block_bytes);
        let rest_bytes = request.prompt_bytes.saturating_sub(whole_bytes);
        if rest_bytes >= block_bytes {
            return; // too long a prompt: its end is not among its blocks
        }
        let tokens = prompt_tokens.saturating_sub(model.ratio.tokens(u64::from(rest_bytes)));
        let path = Path {
            tokens,
            prompt_tokens: tokens,
        };
        // An answer's last block ends somewhere before the answer does: half a block on average.
        let rest_tokens = model.ratio.tokens(u64::from(block_bytes / 2));
        self.paths.0.put(last, path);
        let is_whole = report.answer.len() < ANSWER_BYTES_MAX / self.config.block_bytes;
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
    pub(in crate::engine) fn lacks_answer(
        &mut self,
        request: &Request,
        attempt: &Attempt,
        cached: u32,
        engine_block: u32,
    ) -> bool {
        let Some(path) = attempt.path else {
            return false;
        };
        let slack = 2 * engine_block;
        let found = cached.saturating_add(slack) >= path.tokens;
        if cached.saturating_add(slack) < path.prompt_tokens {
            return false;
        }
        let model = request
            .model
            .and_then(|id| self.fleet.models.get_mut(id.0 as usize));
        // A shorter answer is within the slack.
        if let Some(model) = model.filter(|_| path.tokens - path.prompt_tokens > 2 * slack) {
            model.answers_found.learn(found);
            self.counters.answers_not_found += u64::from(!found);
        }
        !found
    }

    /// The engine found what it was believed to have: so many tokens up to where the prompt parts
    /// from others.
    pub(in crate::engine) fn learn_parting(
        &mut self,
        request: &Request,
        attempt: &Attempt,
        cached: u32,
    ) {
        let inner = attempt.match_blocks < request.prompt_blocks;
        let Some(last) = attempt.match_end.filter(|_| inner) else {
            return;
        };
        let path = attempt.path.unwrap_or(Path {
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
