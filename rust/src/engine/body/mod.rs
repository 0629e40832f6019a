//! Strict scan of an inference request's body, without building a tree.

use super::blocks::BlockKey;
use super::error::RequestError;
use super::route::Route;

/// Constants of [`digest`], one for the process.
#[derive(Debug, Clone)]
pub struct DigestConfig {
    pub(crate) key: BlockKey,
    pub(crate) block_bytes: usize,
    pub(crate) prompt_blocks_max: usize,
}

impl DigestConfig {
    /// `secret` (16 or more bytes) keys every hash, `block_bytes` is the size of a block of the
    /// rendered prompt, and at most `prompt_blocks_max` blocks of a prompt are hashed.
    #[must_use]
    pub fn new(secret: &[u8], block_bytes: usize, prompt_blocks_max: usize) -> Self {
        Self {
            key: BlockKey::new(secret),
            block_bytes,
            prompt_blocks_max,
        }
    }
}

/// Buffers that [`digest`] uses again from call to call; one per thread that digests.
#[derive(Debug, Default)]
pub struct Scratch {}

/// What a body said, as far as decisions, relay and log need it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest {
    /// The model or adapter asked for; empty only on routes without a body.
    pub model: String,
    /// The client wants a stream.
    pub stream: bool,
    /// The client wants `usage` in the stream (`stream_options.include_usage`; always so in the
    /// Anthropic and Responses shapes).
    pub include_usage: bool,
    /// Answer tokens at most, `n` answers together, where the client set a limit.
    pub max_tokens: Option<u32>,
    /// The ring's key: keyed hash of session, `prompt_cache_key`, `user` or `metadata.user_id`.
    pub key: Option<u64>,
    /// `priority`: lower runs earlier.
    pub priority: Option<i64>,
    /// False for `background` and `store: true`: such a request is never sent twice.
    pub retry_safe: bool,
    /// The answer this request builds on (`/v1/responses`).
    pub previous_response_id: Option<String>,
    /// Bytes of the canonical prompt stream, its separators included.
    pub prompt_bytes: usize,
    /// Chained, keyed hashes of the whole blocks of the prompt stream, for [`super::radix::Radix`].
    pub blocks: Vec<u64>,
    /// Position right after the body's opening `{`; 0 where the body is no JSON object.
    pub splice_at: usize,
}

/// Reads the body of one request.
///
/// # Errors
///
/// 415 for another content type than the route takes; 400 for malformed JSON, a wrong type, a
/// duplicate among the keys read, or a missing model.
pub fn digest(
    _route: Route,
    _content_type: Option<&[u8]>,
    _body: &[u8],
    _cfg: &DigestConfig,
    _scratch: &mut Scratch,
) -> Result<Digest, RequestError> {
    Ok(Digest::default())
}
