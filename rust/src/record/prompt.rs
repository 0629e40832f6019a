//! What a recording needs of a prompt, which the engine forgets at the first byte.

use std::fmt;

/// Hashes of a prompt and of its answer, with what else a recording needs of the body.
#[derive(Default)]
pub struct Prompt {
    /// Chained hashes of the prompt's whole blocks.
    pub blocks: Vec<u64>,
    /// Those of the answer's blocks behind them; empty where there are none.
    pub answer: Vec<u64>,
    /// Keyed hash of the session or user that the request names.
    pub key: Option<u64>,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prompt(..)")
    }
}
