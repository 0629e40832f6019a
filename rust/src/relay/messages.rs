//! Streams of `/v1/messages` that may go on elsewhere.
//!
//! vLLM 0.32 writes `message_start` with the tokens of the prompt, and then one block of text. Behind the last token it
//! writes `content_block_stop`, `message_delta` with the reason and the usage, and `message_stop`. The end of a
//! block is withheld until more comes: the block of a stream that breaks there goes on.

use super::anthropic::{Message, Told, named};
use super::chunk::{Choice, has_text, named_data_of};
use super::cut::{self, StreamError};
use super::kept::{Kept, Stage};
use super::verdict;
use crate::prompt::continuing::Reason;

impl Kept {
    /// Passes an event of the replica that began the stream on; it is kept.
    pub(super) fn pass_message(&mut self, block: &[u8], out: &mut Vec<u8>) {
        let told = named_data_of(block).map(serde_json::from_slice::<Told<'_>>);
        let Some(Ok(told)) = told else {
            self.refuse(Reason::NoIds);
            return self.put(block, out);
        };
        if told.r#type == "ping" {
            return out.extend_from_slice(block); // it may come before what has to wait
        }
        let waits = self.note_message(&told).unwrap_or_else(|reason| {
            self.refuse(reason);
            false
        });
        if waits {
            self.untexted.extend_from_slice(block);
        } else {
            self.put(block, out);
        }
    }

    /// Keeps what an event says; whether it waits for the next one.
    fn note_message(&mut self, told: &Told<'_>) -> Result<bool, Reason> {
        match told.r#type {
            "message_stop" => self.stage = Stage::Done,
            "message_delta" => self.stage = self.stage.max(Stage::Counted),
            _ if self.refusal.is_some() => {}
            "message_start" => self.note_start(told.message.as_ref())?,
            "content_block_start" => {
                let kind = told.content_block.as_ref().and_then(|block| block.r#type);
                self.note_block(kind, told.index)?;
            }
            "content_block_delta" => {
                let text = told
                    .delta
                    .as_ref()
                    .filter(|delta| delta.r#type == Some("text_delta"));
                let text = text.and_then(|delta| delta.text).ok_or(Reason::Field)?;
                let text: String = serde_json::from_str(text.get()).map_err(|_| Reason::Field)?;
                let words = self.words.as_mut().ok_or(Reason::NoIds)?;
                words.add(&text)?;
                self.answer_len += 1; // one token an event, until it is asked for
            }
            "content_block_stop" => return Ok(true),
            _ => return Err(Reason::Field),
        }
        Ok(false)
    }

    fn note_start(&mut self, message: Option<&Message<'_>>) -> Result<(), Reason> {
        let usage = message.and_then(|message| message.id.and(message.usage.as_ref()));
        let (Some(usage), Some(words)) = (usage, &mut self.words) else {
            return Err(Reason::NoIds);
        };
        let cached = usage.cached.unwrap_or(0) + usage.stored.unwrap_or(0);
        self.prompt_len = usage.computed + cached;
        words.prompt_len = Some(self.prompt_len);
        Ok(())
    }

    fn note_block(&mut self, kind: Option<&str>, index: Option<u32>) -> Result<(), Reason> {
        let reason = match kind {
            Some("text") if self.block.open.is_none() => {
                self.block.open = index;
                return Ok(());
            }
            Some("text") => Reason::Boundary, // a second one
            Some("thinking" | "redacted_thinking") => Reason::Reasoning,
            Some("tool_use") => Reason::Tools,
            _ => Reason::Field,
        };
        Err(reason)
    }

    /// An event of `/v1/completions` in the shape of the stream.
    pub(super) fn message_event(&mut self, choice: &Choice<'_>) -> Vec<u8> {
        let mut event = String::new();
        if let Some(text) = choice.text().filter(|text| has_text(Some(text))) {
            let index = self.block.open.unwrap_or(0);
            if self.block.open.is_none() {
                self.block.open = Some(index);
                event += &named(
                    "content_block_start",
                    &format!(
                        ",\"content_block\":{{\"type\":\"text\",\"text\":\"\"}},\"index\":{index}"
                    ),
                );
            }
            let text = text.get();
            event += &named(
                "content_block_delta",
                &format!(
                    ",\"delta\":{{\"type\":\"text_delta\",\"text\":{text}}},\"index\":{index}"
                ),
            );
        }
        if let Some(finish) = choice.finish_reason {
            self.block.finish = Some(finish.get().into());
        }
        event.into_bytes()
    }

    /// The end of the block, the reason and the usage.
    pub(super) fn message_end(&self, answer_len: usize) -> Vec<u8> {
        let mut end = String::new();
        if let Some(index) = self.block.open {
            end = named("content_block_stop", &format!(",\"index\":{index}"));
        }
        let reason = match self.block.finish.as_deref() {
            Some("\"length\"") => "\"max_tokens\"",
            Some("\"stop\"") => "\"end_turn\"",
            _ => "null",
        };
        let prompt_len = self.prompt_len;
        end += &named(
            "message_delta",
            &format!(
                ",\"delta\":{{\"stop_reason\":{reason},\"stop_sequence\":null}},\
                 \"usage\":{{\"input_tokens\":{prompt_len},\"output_tokens\":{answer_len}}}"
            ),
        );
        end.into_bytes()
    }

    /// An error of `/v1/completions` in the shape of the stream, which ends with it.
    pub(super) fn message_error(&mut self, data: &[u8], status: u16) -> Vec<u8> {
        self.stage = Stage::Done;
        let message = verdict::message_of(data);
        cut::anthropic_error(StreamError {
            message: message.as_deref().unwrap_or("the replica failed"),
            code: "upstream_error",
            status,
        })
    }

    /// The answer has all tokens that it may have.
    pub(super) fn fill_message(&mut self) {
        self.block.finish = Some("\"length\"".into());
        self.stage = Stage::Finished;
    }
}
