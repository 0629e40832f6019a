//! What is kept of a stream whose engine sends no ids: its text.
//!
//! When the stream breaks, a replica is asked for the ids of the prompt and of the text (`/tokenize`). The
//! prompt must have as many tokens as the stream said at its beginning. The text is tokenised anew, so its tokens may be
//! others than those that were generated.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::ids::{Ids, Pool};
use crate::prompt::continuing::Reason;

/// What stands for a prompt: members of a question for its ids. It is charged while it is kept.
pub struct Question {
    pool: Arc<Pool>,
    text: Box<[u8]>,
}

impl Question {
    /// `None`: there is no room for it.
    #[must_use]
    pub fn new(text: Box<[u8]>, pool: &Arc<Pool>) -> Option<Arc<Self>> {
        pool.take(text.len()).then(|| {
            let pool = Arc::clone(pool);
            Arc::new(Self { pool, text })
        })
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.pool.give(self.text.len());
    }
}

/// The text of an answer, and what stands for its prompt.
pub(super) struct Words {
    pool: Arc<Pool>,
    question: Arc<Question>,
    answer: String,
    /// Tokens of the prompt, as the stream said.
    pub(super) prompt_len: Option<usize>,
    /// Those that were asked for.
    prompt: Option<Vec<u32>>,
    charged: usize,
}

/// It holds texts: they are not printed.
impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words")
            .field("charged", &self.charged)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Tokens {
    count: usize,
    tokens: Vec<u32>,
}

impl Words {
    pub(super) fn new(question: &Arc<Question>) -> Self {
        Self {
            pool: Arc::clone(&question.pool),
            question: Arc::clone(question),
            answer: String::new(),
            prompt_len: None,
            prompt: None,
            charged: 0,
        }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Reason> {
        if !self.pool.take(bytes) {
            return Err(Reason::BytesMax);
        }
        self.charged += bytes;
        Ok(())
    }

    /// More text of the answer.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Reason> {
        self.charge(text.len())?;
        self.answer.push_str(text);
        Ok(())
    }

    /// The body that asks for ids: first those of the prompt, then those of the answer.
    pub(super) fn asks(&self, model: &str) -> Vec<u8> {
        let model = serde_json::Value::from(model);
        let mut body = format!("{{\"model\":{model},").into_bytes();
        if self.prompt.is_none() {
            body.extend_from_slice(&self.question.text);
            body.push(b'}');
        } else {
            let answer = serde_json::Value::from(self.answer.as_str());
            let rest = format!("\"prompt\":{answer},\"add_special_tokens\":false}}");
            body.extend_from_slice(rest.as_bytes());
        }
        body
    }

    /// An answer to that; the ids, once they are whole. `Err(None)`: it is no answer.
    pub(super) fn replied(&mut self, body: &[u8]) -> Result<Option<Ids>, Option<Reason>> {
        let Ok(Tokens { count, tokens }) = serde_json::from_slice(body) else {
            return Err(None);
        };
        let Some(prompt) = self.prompt.take() else {
            if tokens.is_empty() || Some(count) != self.prompt_len {
                return Err(Some(Reason::Prompt));
            }
            self.prompt = Some(tokens);
            return Ok(None);
        };
        let mut ids = Ids::new(&self.pool);
        ids.add(true, prompt)?;
        ids.add(false, tokens)?;
        Ok(Some(ids))
    }
}

impl Clone for Words {
    fn clone(&self) -> Self {
        self.pool.force(self.charged);
        Self {
            pool: Arc::clone(&self.pool),
            question: Arc::clone(&self.question),
            answer: self.answer.clone(),
            prompt_len: self.prompt_len,
            prompt: self.prompt.clone(),
            charged: self.charged,
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.pool.give(self.charged);
    }
}
