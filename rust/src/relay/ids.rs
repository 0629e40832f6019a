//! The ids of a stream's tokens, and what all streams together may keep of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::prompt::continuing::Reason;

/// Bytes of one id.
const ID_BYTES: usize = size_of::<u32>();
/// Most of one in JSON, with a comma and a space.
const ID_JSON_BYTES: usize = 12;

/// What all requests together may keep.
#[derive(Debug)]
pub struct Pool {
    bytes: AtomicUsize,
    bytes_max: usize,
    pub(super) tokens_max: usize,
}

impl Pool {
    /// At most `bytes_max` for all requests, and `tokens_max` ids for one.
    #[must_use]
    pub fn new(bytes_max: usize, tokens_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            tokens_max,
        }
    }

    /// Bytes kept at present.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether there is room for so much more; it is taken.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.bytes_max;
        if !fits {
            self.give(bytes);
        }
        fits
    }

    /// Of what is copied: it is there already.
    pub(super) fn force(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The ids of a prompt and of its answer so far.
pub(super) struct Ids {
    pool: Arc<Pool>,
    pub(super) prompt: Vec<u32>,
    pub(super) answer: Vec<u32>,
}

/// The ids are the texts: they are not printed.
impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids")
            .field("prompt", &self.prompt.len())
            .field("answer", &self.answer.len())
            .finish_non_exhaustive()
    }
}

impl Ids {
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            prompt: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// Most bytes of an event that has as many ids as are kept.
    pub(super) fn json_bytes_max(&self) -> usize {
        self.pool.tokens_max.saturating_mul(ID_JSON_BYTES)
    }

    fn charged(&self) -> usize {
        (self.prompt.len() + self.answer.len()) * ID_BYTES
    }

    /// Keeps more, if there is room.
    pub(super) fn add(&mut self, of_prompt: bool, ids: Vec<u32>) -> Result<(), Reason> {
        if self.prompt.len() + self.answer.len() + ids.len() > self.pool.tokens_max {
            return Err(Reason::TokensMax);
        }
        if !self.pool.take(ids.len() * ID_BYTES) {
            return Err(Reason::BytesMax);
        }
        if of_prompt {
            self.prompt = ids;
        } else {
            self.answer.extend_from_slice(&ids);
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, answer_len: usize) {
        let before = self.charged();
        self.answer.truncate(answer_len);
        self.pool.give(before - self.charged());
    }
}

impl Clone for Ids {
    fn clone(&self) -> Self {
        self.pool.force(self.charged());
        Self {
            pool: Arc::clone(&self.pool),
            prompt: self.prompt.clone(),
            answer: self.answer.clone(),
        }
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.pool.give(self.charged());
    }
}
