//! What kind of replica: sizes, limits and speeds.

use std::fmt;

use serde::Deserialize;

use crate::id::Nanos;

/// Most KV blocks a model may have; its memory is about 40 bytes per block used.
const BLOCKS_MAX: u64 = 1 << 26;
const PS_PER_NS: u64 = 1000;

/// Parameters of a replica; the profiles' values are written in Python's `skylb.mock.profiles`.
///
/// Sizes bear vLLM's names. Speeds are in picoseconds, so that a time scale does not round them
/// away; a step takes
/// `step_base + prefill tokens x prefill_token + attended x attention + decodes x decode_seq +
/// context tokens x context_token`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Tokens per KV block.
    pub block_size: u32,
    /// KV room in tokens; the blocks are as many whole ones as fit.
    pub kv_tokens: u64,
    /// Longest prompt and answer together, in tokens.
    pub max_model_len: u32,
    /// Most sequences running at once.
    pub max_num_seqs: u32,
    /// Tokens computed per step at most.
    pub max_num_batched_tokens: u32,
    /// Requests that may wait or run at once, as vLLM counts; `None` is no limit.
    pub max_num_queued_reqs: Option<u32>,
    /// What every step costs (reading the weights).
    pub step_base_ps: u64,
    /// Per prompt token computed.
    pub prefill_token_ps: u64,
    /// Per pair of a prompt token computed and a token before it that it attends to: what makes long
    /// prompts dearer by the token.
    #[serde(default)]
    pub attention_ps: u64,
    /// Per sequence that gets one more token.
    pub decode_seq_ps: u64,
    /// Per token of context that those sequences attend to (reading their KV).
    pub context_token_ps: u64,
}

/// Why a profile is none; the text names the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError(pub &'static str);

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ProfileError {}

/// What one step computes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StepWork {
    pub(super) prefill_tokens: u64,
    pub(super) attended: u64,
    pub(super) decodes: u64,
    pub(super) context_tokens: u64,
}

impl Profile {
    /// Checks that a replica with these sizes can run any request it accepts.
    ///
    /// # Errors
    /// Names the field that is at fault.
    pub fn validate(&self) -> Result<(), ProfileError> {
        if self.block_size == 0 {
            return Err(ProfileError("block_size must be at least 1"));
        }
        if self.max_num_seqs == 0 {
            return Err(ProfileError("max_num_seqs must be at least 1"));
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            return Err(ProfileError(
                "max_num_batched_tokens must be at least max_num_seqs",
            ));
        }
        if self.max_model_len < 2 {
            return Err(ProfileError("max_model_len must be at least 2"));
        }
        if self.kv_tokens / u64::from(self.block_size) > BLOCKS_MAX {
            return Err(ProfileError("kv_tokens must be at most 2**26 blocks"));
        }
        if u64::from(self.blocks()) * u64::from(self.block_size) < u64::from(self.max_model_len) {
            return Err(ProfileError("max_model_len must fit into kv_tokens"));
        }
        Ok(())
    }

    /// KV blocks of the replica.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        let blocks = self.kv_tokens / u64::from(self.block_size.max(1));
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }

    pub(super) fn step_ns(&self, work: StepWork) -> Nanos {
        let ps = self
            .step_base_ps
            .saturating_add(self.prefill_token_ps.saturating_mul(work.prefill_tokens))
            .saturating_add(self.attention_ps.saturating_mul(work.attended))
            .saturating_add(self.decode_seq_ps.saturating_mul(work.decodes))
            .saturating_add(self.context_token_ps.saturating_mul(work.context_tokens));
        ps / PS_PER_NS
    }
}
