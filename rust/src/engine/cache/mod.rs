//! Which replica caches what.

pub mod learn;
pub mod paths;
pub mod radix;

/// Whole blocks of `block_bytes` prompt bytes in so many tokens.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "positive, and `as` saturates"
)]
pub(in crate::engine) fn blocks_of(tokens: u64, bytes_per_token: f64, block_bytes: usize) -> u32 {
    (tokens as f64 * bytes_per_token / block_bytes as f64) as u32
}
