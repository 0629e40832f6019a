//! Prompt bytes to chained, keyed block hashes.

/// The secret that keys prefix hashes, expanded.
#[derive(Clone)]
pub struct BlockKey {}

impl BlockKey {
    /// Derives the key from `secret` (16 or more bytes).
    #[must_use]
    pub fn new(_secret: &[u8]) -> Self {
        Self {}
    }
}

impl std::fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockKey")
    }
}
