//! The answer as blocks: the part of the next turn's prompt that will contain it.
//!
//! An answer is read while it passes, as the events of a stream or as a JSON body. It is put into blocks
//! that continue the blocks of its prompt. They have the form in which the client will send the answer
//! back: role, text, tool calls. The calls come after the text, so they are kept until the answer ends. If
//! an answer cannot be read to its end, its beginning is kept, which is a prefix as well.
//!
//! Clients do not send reasoning back. What an engine has cached after reasoning does not follow the prompt
//! directly, so the next turn would not find it. So nothing is kept of an answer with reasoning.

mod events;

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::DigestConfig;
use super::canonical::{canonical_text, tag};
use super::cursor::Cursor;
use super::digest::{AnswerForm, Digest};
use super::fault::Fault;
use super::json::Scan;
use super::outline::pick;
use super::render::{Buffers, Prompt};
use super::tape::Tape;
use crate::prompt::blocks::{BlockKey, BlockStream, Tail};
use events::Pattern;

/// Bytes of an answer's canonical stream that are put into blocks.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a JSON body that are kept until it ends; of a longer one nothing is learned.
pub const ANSWER_BODY_BYTES_MAX: usize = 128 << 10;
/// Tool calls of one answer.
const CALLS_MAX: usize = 128;

/// Where the blocks of an answer start: the end of its prompt's. Its tail is prompt text: never to be
/// logged.
#[derive(Clone)]
pub struct AnswerStart {
    form: AnswerForm,
    key: Arc<BlockKey>,
    block_bytes: usize,
    chain: u64,
    tail: Tail,
}

impl AnswerStart {
    /// The end of a prompt; `None` where its answer cannot be told from its bytes (several answers,
    /// token ids, no text at all).
    #[must_use]
    pub fn behind(digest: &Digest, config: &DigestConfig) -> Option<Self> {
        Some(Self {
            form: digest.answer?,
            key: Arc::clone(&config.key),
            block_bytes: config.block_bytes,
            chain: digest.chain,
            tail: digest.tail.clone(),
        })
    }
}

/// A tool call on its way.
#[derive(Debug, Clone, Default)]
struct Call {
    index: i64,
    id: Vec<u8>,
    name: Vec<u8>,
    arguments: Vec<u8>,
}

/// An answer being read.
#[derive(Clone)]
pub struct Answer {
    start: AnswerStart,
    stream: BlockStream<Arc<BlockKey>>,
    /// The role is in the stream.
    begun: bool,
    /// A part of the content is in the stream (Anthropic's form).
    has_part: bool,
    /// Nothing more is read.
    stopped: bool,
    /// Bytes of a JSON body.
    body: Vec<u8>,
    calls: Vec<Call>,
    calls_bytes: usize,
    pattern: Pattern,
    buffers: Buffers,
    /// The blocks of an answer that came as a whole.
    whole: Option<Vec<u64>>,
}

impl Answer {
    /// An answer of which nothing has been read.
    #[must_use]
    pub fn new(start: AnswerStart) -> Self {
        let blocks_max = ANSWER_BYTES_MAX / start.block_bytes.max(1);
        let stream = BlockStream::behind(
            Arc::clone(&start.key),
            start.block_bytes,
            blocks_max,
            start.chain,
            &start.tail,
        );
        Self {
            start,
            stream,
            begun: false,
            has_part: false,
            stopped: false,
            body: Vec::new(),
            calls: Vec::new(),
            calls_bytes: 0,
            pattern: Pattern::default(),
            buffers: Buffers::default(),
            whole: None,
        }
    }

    /// Reads a part of a JSON body.
    pub fn read_part(&mut self, payload: &[u8]) {
        if self.stopped {
            return;
        }
        if self.body.len() + payload.len() > ANSWER_BODY_BYTES_MAX {
            return self.give_up();
        }
        self.body.extend_from_slice(payload);
    }

    /// The answer is complete: chained hashes of its blocks.
    #[must_use]
    pub fn finish(mut self) -> Vec<u64> {
        if !self.body.is_empty() {
            let body = mem::take(&mut self.body);
            self.read_body(&body);
        }
        if !self.stopped {
            self.put_calls();
        }
        match self.whole {
            Some(blocks) => blocks,
            None => self.stream.finish().hashes,
        }
    }

    /// Reads no further; what was read stays.
    fn stop(&mut self) {
        self.stopped = true;
        self.body = Vec::new();
    }

    /// Of this answer nothing is kept.
    fn give_up(&mut self) {
        self.stop();
        self.stream = BlockStream::behind(
            Arc::clone(&self.start.key),
            self.start.block_bytes,
            0,
            self.start.chain,
            &self.start.tail,
        );
    }

    /// Appends text to the answer's message.
    fn put_text(&mut self, text: &[u8]) {
        self.begin();
        self.stream.push(text);
        if self.stream.is_full() {
            self.stop();
        }
    }

    /// The start of the message, unless the answer goes on with the prompt's end.
    fn begin(&mut self) {
        if !mem::replace(&mut self.begun, true)
            && matches!(self.start.form, AnswerForm::Chat | AnswerForm::Messages)
        {
            self.stream.push(&[tag::ROLE]);
            self.stream.push(b"assistant");
            self.stream.push(&[tag::END]);
        }
    }

    /// The calls, in their order, as `put_message` puts those that a client sends back.
    fn put_calls(&mut self) {
        let mut calls = mem::take(&mut self.calls);
        calls.sort_by_key(|call| call.index);
        for call in &calls {
            self.begin();
            self.stream.push(&[tag::CALL]);
            self.stream.push(&call.name);
            self.stream.push(&[tag::END]);
            let Buffers { staged, tape, .. } = &mut self.buffers;
            staged.clear();
            canonical_text(&call.arguments, tape, staged);
            self.stream.push(staged);
            self.stream.push(&[tag::END]);
            self.stream.push(&call.id);
            self.stream.push(&[tag::END]);
        }
    }

    fn read_body(&mut self, body: &[u8]) {
        let mut tape = Tape::default();
        let mut scan = Scan::new(body, &mut tape);
        scan.skip_space();
        let at = scan.at;
        if scan.peek() != Some(b'{') || scan.value(0).and_then(|()| scan.end()).is_err() {
            return self.give_up();
        }
        if self.put_whole(Cursor::new(body, &tape, at, 0)).is_err() {
            self.give_up();
        }
    }

    /// Puts a whole answer, by the code that reads what a client sends back.
    fn put_whole(&mut self, mut root: Cursor<'_>) -> Result<(), Fault> {
        let form = self.start.form;
        if form == AnswerForm::Messages {
            let mut members = root;
            let [content] = pick(&mut members, &["content"])?;
            let content = content.ok_or_else(|| Fault::of_type("", "content"))?;
            if !has_kind(content, &[b"thinking", b"redacted_thinking"])? {
                self.put_as_prompt(|prompt| prompt.put_message(&mut root, true))?;
            }
            return Ok(());
        }
        if form == AnswerForm::Responses {
            let [output] = pick(&mut root, &["output"])?;
            let output = output.ok_or_else(|| Fault::of_type("", "output"))?;
            if !has_kind(output, &[b"reasoning"])? {
                self.put_as_prompt(|prompt| prompt.put_items(output))?;
            }
            return Ok(());
        }
        let [choices] = pick(&mut root, &["choices"])?;
        let mut choices = choices.ok_or_else(|| Fault::of_type("", "choices"))?;
        if !choices.enter(b'[') || !choices.item() {
            return Err(Fault::of_type("", "a list"));
        }
        let [message, text] = pick(&mut choices, &["message", "text"])?;
        if form == AnswerForm::Text {
            let text = text.and_then(|mut text| text.string());
            return self.put_as_prompt(|prompt| {
                text.map_or(Ok(()), |text| {
                    prompt.put_text(text);
                    Ok(())
                })
            });
        }
        let mut message = message.ok_or_else(|| Fault::of_type("", "a message"))?;
        let mut members = message;
        let [content, reasoning, reasoning_content] =
            pick(&mut members, &["content", "reasoning", "reasoning_content"])?;
        if reasoning.or(reasoning_content).is_some() {
            return Ok(());
        }
        let content = content.and_then(|mut content| content.string());
        self.put_as_prompt(|prompt| match (form, content) {
            (AnswerForm::ChatContinued, Some(content)) => {
                prompt.put_text(content);
                Ok(())
            }
            (AnswerForm::ChatContinued, None) => Ok(()),
            _ => prompt.put_message(&mut message, false),
        })
    }

    /// Puts what `put` does behind the prompt.
    fn put_as_prompt(
        &mut self,
        put: impl FnOnce(&mut Prompt<'_, '_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let AnswerStart {
            key,
            block_bytes,
            chain,
            tail,
            ..
        } = &self.start;
        let blocks_max = ANSWER_BYTES_MAX / (*block_bytes).max(1);
        let mut prompt = Prompt {
            key,
            stream: BlockStream::behind(key, *block_bytes, blocks_max, *chain, tail),
            buffers: &mut self.buffers,
            has_media: false,
        };
        put(&mut prompt)?;
        self.whole = Some(prompt.stream.finish().hashes);
        Ok(())
    }
}

// Neither shows text of prompt or answer.
impl fmt::Debug for AnswerStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStart")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("start", &self.start)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

/// Whether a list has an object of one of these types.
fn has_kind(mut list: Cursor<'_>, kinds: &[&[u8]]) -> Result<bool, Fault> {
    if !list.enter(b'[') {
        return Ok(false);
    }
    while list.item() {
        let [kind] = pick(&mut list, &["type"])?;
        let kind = kind.and_then(|mut kind| kind.string());
        let mut buffer = Vec::new();
        if kind.is_some_and(|kind| kinds.contains(&kind.text(&mut buffer))) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
