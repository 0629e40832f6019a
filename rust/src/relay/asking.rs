//! What a replica that goes on is asked first: the text of the last ids, or the ids of all.

use super::kept::{Kept, Stage};
use crate::prompt::continuing::{Form, Reason};

/// Ids that are decoded along with those whose text is asked for: a character has four bytes at most.
const CONTEXT_LEN: usize = 8;

impl Kept {
    /// Tokens of the prompt, and of the answer as far as the client has it.
    #[must_use]
    pub fn given(&self) -> (usize, usize) {
        let answer = self.ids().1.len();
        (
            self.prompt_len,
            if answer == 0 { self.answer_len } else { answer },
        )
    }

    /// Its ids have to be asked for.
    #[must_use]
    pub fn lacks_ids(&self) -> bool {
        self.words.is_some()
    }

    /// What a replica that goes on is asked first, if anything: the path, and the body.
    #[must_use]
    pub fn asks(&self, model: &str) -> Option<(&'static str, Vec<u8>)> {
        if let Some(words) = &self.words {
            return Some(("/tokenize", words.asks(model)));
        }
        let body = serde_json::json!({"model": model, "tokens": self.question()?});
        Some(("/detokenize", body.to_string().into_bytes()))
    }

    /// The answer to that, with its status. False: it is none.
    pub fn replied(&mut self, status: u16, body: &[u8]) -> bool {
        if status != 200 {
            let by_text = self.words.is_some();
            self.refuse(if by_text {
                Reason::Prompt
            } else {
                Reason::Boundary
            });
            return true;
        }
        let Some(words) = &mut self.words else {
            let answer = serde_json::from_slice::<serde_json::Value>(body);
            let text = answer
                .as_ref()
                .ok()
                .and_then(|answer| answer["prompt"].as_str());
            let whole = text.map(|text| !text.ends_with('\u{fffd}'));
            if let Some(whole) = whole {
                self.answer(whole);
            }
            return whole.is_some();
        };
        match words.replied(body) {
            Ok(None) => true,
            Ok(Some(ids)) => {
                self.texted_len = ids.answer.len();
                self.answer_len = self.texted_len;
                self.before_len = self.texted_len;
                self.ids = Some(ids);
                self.words = None;
                true
            }
            Err(Some(reason)) => {
                self.refuse(reason);
                true
            }
            Err(None) => false,
        }
    }

    /// The answer has all tokens that it may have, and only the end is missing; whether it can be written.
    pub fn fill(&mut self) -> bool {
        let fills = self.form == Form::Messages && self.stage == Stage::Open;
        if fills {
            self.fill_message();
        }
        fills
    }

    /// Ids at the end of what the client has, where their text has to be asked for: if it ends within a character,
    /// the last one is dropped. Those before are there so that it is decoded as it was.
    #[must_use]
    pub fn question(&self) -> Option<Vec<u32>> {
        let asks = self.unsure_len > 1 && self.stage == Stage::Open;
        let (prompt, answer) = self.ids();
        let len = self.unsure_len + CONTEXT_LEN;
        asks.then(|| {
            let before = len.saturating_sub(answer.len()).min(prompt.len());
            let prompt = &prompt[prompt.len() - before..];
            let answer = &answer[answer.len().saturating_sub(len)..];
            [prompt, answer].concat()
        })
    }

    /// Whether the text of [`Self::question`] ends with a whole character.
    pub fn answer(&mut self, whole: bool) {
        if whole {
            self.unsure_len = 0;
            return;
        }
        if self.shows_ids {
            return self.refuse(Reason::Boundary); // the client has the id
        }
        // Its event has text, so one of its tokens ends with a whole character: at the latest the first.
        self.unsure_len = self.unsure_len.saturating_sub(1);
        if self.unsure_len == 1 {
            self.unsure_len = 0;
        }
        self.texted_len = self.texted_len.saturating_sub(1);
        let len = self.texted_len;
        (self.answer_len, self.before_len) = (len, len);
        if let Some(ids) = &mut self.ids {
            ids.truncate(len);
        }
    }
}
