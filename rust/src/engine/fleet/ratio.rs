//! Prompt bytes per token, learned from what engines report in `usage`.

use serde::{Deserialize, Serialize};

/// Each answered request lets older ones count this much less.
const KEEP: f64 = 63.0 / 64.0;
/// How many tokens the assumed ratio weighs before anything is learned.
const PRIOR_TOKENS: f64 = 512.0;
/// A ratio outside of this is a misunderstanding (tokens of images, another model's usage).
const RATIO: std::ops::RangeInclusive<f64> = 0.25..=64.0;

/// A decayed sum of bytes over a decayed sum of tokens: long prompts weigh more, so that the chat
/// template's tokens, of which the prompt's bytes know nothing, matter little.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::engine) struct Ratio {
    bytes: f64,
    tokens: f64,
}

impl Ratio {
    pub(in crate::engine) fn new(bytes_per_token: f64) -> Self {
        Self {
            bytes: bytes_per_token * PRIOR_TOKENS,
            tokens: PRIOR_TOKENS,
        }
    }

    /// A prompt of `bytes` was `tokens` long.
    pub(in crate::engine) fn learn(&mut self, bytes: u32, tokens: u32) {
        let (bytes, tokens) = (f64::from(bytes), f64::from(tokens));
        if tokens > 0.0 && RATIO.contains(&(bytes / tokens)) {
            self.bytes = self.bytes * KEEP + bytes;
            self.tokens = self.tokens * KEEP + tokens;
        }
    }

    /// Whether it could have been learned.
    pub(in crate::engine) fn is_sound(&self) -> bool {
        self.tokens.is_finite() && self.tokens > 0.0 && RATIO.contains(&self.bytes_per_token())
    }

    /// Bytes per token.
    pub(in crate::engine) fn bytes_per_token(&self) -> f64 {
        self.bytes / self.tokens
    }

    /// The tokens of so many prompt bytes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and `as` saturates"
    )]
    pub(in crate::engine) fn tokens(&self, bytes: u64) -> u32 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "prompt bytes are far below 2^52"
        )]
        let bytes = bytes as f64;
        (bytes / self.bytes_per_token()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_starts_as_assumed_and_follows_what_engines_report() {
        let mut ratio = Ratio::new(4.0);
        assert_eq!(ratio.tokens(4_000), 1_000);
        for _ in 0..1_000 {
            ratio.learn(3_000, 1_000);
        }
        assert!((ratio.bytes_per_token() - 3.0).abs() < 0.01);
    }

    #[test]
    fn long_prompts_weigh_more_than_short_ones_with_their_template() {
        let mut ratio = Ratio::new(4.0);
        for _ in 0..1_000 {
            ratio.learn(40, 30);
            ratio.learn(40_000, 10_000);
        }
        assert!((ratio.bytes_per_token() - 4.0).abs() < 0.02);
    }

    #[test]
    fn absurd_reports_teach_nothing() {
        let mut ratio = Ratio::new(4.0);
        for (bytes, tokens) in [(0, 0), (0, 10), (10, 0), (1, 1_000_000), (1_000_000, 1)] {
            ratio.learn(bytes, tokens);
        }
        assert!((ratio.bytes_per_token() - 4.0).abs() < 1e-9);
    }
}
