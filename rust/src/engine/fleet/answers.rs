//! Whether engines find answers again that are sent back as part of the next prompt.

use serde::{Deserialize, Serialize};

/// Each answer moves what is believed of a model's answers by this part.
const ANSWER_STEP: f32 = 1.0 / 8.0;

/// The part of a model's answers that the engine finds again when they are sent back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::engine) struct AnswersFound(f32);

impl Default for AnswersFound {
    fn default() -> Self {
        Self(1.0)
    }
}

impl AnswersFound {
    pub(super) fn learn(&mut self, found: bool) {
        self.0 += (f32::from(u8::from(found)) - self.0) * ANSWER_STEP;
    }

    pub(super) fn is_sound(self) -> bool {
        (0.0..=1.0).contains(&self.0)
    }

    pub(super) fn is_usual(self) -> bool {
        self.0 > 0.5
    }
}
