//! What is kept of a stream so that another replica can go on with it: the ids of its tokens.
//!
//! The engine is asked for ids (`return_token_ids`). A client that has not asked for them gets `null` in
//! their place. vLLM writes that unasked, so each byte is as without continuing.
//!
//! A replica that goes on is given the ids whose text the client has. The engine withholds the text of a token
//! that ends within a character. So the ids behind the last event with text are dropped, and generated
//! again. To a client that sees ids, such an event goes out with the next one that has text. Where the last event
//! with text has several tokens, its last ones may lie within a character. The replica that goes on is asked
//! for their text first ([`Kept::question`]).
//!
//! A stream whose engine sends no ids is kept as text ([`Words`]), and its ids are asked for when it breaks.
//!
//! The replica that goes on answers at `/v1/completions`. Its events get the shape, the id, the time and
//! the model of those before.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::anthropic::{Block, message_stop, only_begins};
use super::chunk::{Choice, Chunk, data_of, has_text, ids_of, named_data_of};
use super::ids::{Ids, Pool};
use super::words::{Question, Words};
use super::{events, verdict};
use crate::prompt::continuing::{Form, Reason};

/// Most bytes of events without text that are withheld from a client which sees ids.
const UNTEXTED_BYTES_MAX: usize = 16 * 1024;

/// What names a stream in each of its events, as JSON.
#[derive(Debug, Clone)]
struct Name {
    id: Box<str>,
    created: Box<str>,
    model: Box<str>,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Text may follow.
    Open,
    /// The event with its `finish_reason` is out.
    Finished,
    /// So is its usage.
    Counted,
    /// So is `[DONE]`.
    Done,
}

/// What is kept of one stream. See the module's text.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one stream"
)]
pub struct Kept {
    pub(super) form: Form,
    pub(super) shows_ids: bool,
    /// The client gets usage.
    shows_usage: bool,
    pub(super) ids: Option<Ids>,
    /// Its text, while its ids are not known.
    pub(super) words: Option<Words>,
    pub(super) block: Block,
    name: Option<Name>,
    /// Why the stream does not go on.
    pub(super) refusal: Option<Reason>,
    /// Tokens of the prompt; of the answer so far; of those, from replicas that were given up. They stay when the
    /// ids go.
    pub(super) prompt_len: usize,
    pub(super) answer_len: usize,
    pub(super) before_len: usize,
    /// Ids of the answer up to the last event with text.
    pub(super) texted_len: usize,
    /// How many that event had, if it had several: the last may end within a character.
    pub(super) unsure_len: usize,
    reasoning: bool,
    pub(super) stage: Stage,
    /// The events come from a replica that goes on.
    resumed: bool,
    /// Events for a client that sees ids, whose text has not come; or the end of a block of text.
    pub(super) untexted: Vec<u8>,
    /// The stream says that it failed, with this status, and may go on: that is not passed on.
    failed: Option<u16>,
}

impl Kept {
    /// Of a stream that begins.
    #[must_use]
    pub fn new(form: Form, (shows_ids, shows_usage): (bool, bool), pool: &Arc<Pool>) -> Self {
        Self {
            form,
            shows_ids,
            shows_usage,
            ids: Some(Ids::new(pool)),
            words: None,
            block: Block::default(),
            name: None,
            refusal: None,
            prompt_len: 0,
            answer_len: 0,
            before_len: 0,
            texted_len: 0,
            unsure_len: 0,
            reasoning: false,
            stage: Stage::Open,
            resumed: false,
            untexted: Vec::new(),
            failed: None,
        }
    }

    /// Of a stream of `/v1/messages` that begins. `question`: what stands for the prompt.
    #[must_use]
    pub fn by_text(question: &Arc<Question>, pool: &Arc<Pool>) -> Self {
        let mut kept = Self::new(Form::Messages, (false, true), pool);
        kept.words = Some(Words::new(question));
        kept
    }

    /// Most bytes of an event that has the ids of a prompt.
    pub(super) fn event_bytes_max(&self) -> usize {
        self.ids.as_ref().map_or(0, Ids::json_bytes_max)
    }

    /// Whether these events only begin the stream: how the answer begins is open.
    pub(super) fn only_begins(&self, payload: &[u8]) -> bool {
        let mut rest = payload;
        while !rest.is_empty() && !self.resumed {
            let (block, behind) = rest.split_at(events::block_len(rest));
            rest = behind;
            if events::is_event(block) && !self.begins(block) {
                return false;
            }
        }
        !self.resumed
    }

    fn begins(&self, block: &[u8]) -> bool {
        match self.form {
            Form::Messages => named_data_of(block).is_some_and(only_begins),
            Form::Text => false,
            Form::Chat => data_of(block).is_some_and(|data| {
                let chunk = serde_json::from_slice::<Chunk<'_>>(data);
                chunk.is_ok_and(|chunk| {
                    chunk.usage.is_none() && chunk.choices.iter().all(Choice::begins)
                })
            }),
        }
    }

    /// Why the stream cannot go on from where it is, if it cannot.
    #[must_use]
    pub fn refusal(&self) -> Option<Reason> {
        let reasoning = self.reasoning && self.stage == Stage::Open;
        let known = match &self.words {
            Some(words) => words.prompt_len.is_some(),
            None => self.ids.as_ref().is_some_and(|ids| !ids.prompt.is_empty()),
        };
        let named = self.form == Form::Messages || self.name.is_some();
        self.refusal
            .or(reasoning.then_some(Reason::Reasoning))
            .or((!known || !named).then_some(Reason::NoIds))
    }

    /// Ids of the prompt, and those of the answer whose text the client has.
    #[must_use]
    pub fn ids(&self) -> (&[u32], &[u32]) {
        let ids = self.ids.as_ref();
        ids.map_or((&[], &[]), |ids| {
            let len = self.texted_len.min(ids.answer.len());
            (&ids.prompt, &ids.answer[..len])
        })
    }

    /// The status by which the stream has failed, if it says so.
    pub(super) fn failed(&self) -> Option<u16> {
        self.failed
    }

    /// The replica is given up: what the client does not have of its answer is dropped.
    pub(super) fn cut(&mut self) {
        let len = self.texted_len;
        if let Some(ids) = &mut self.ids {
            ids.truncate(len);
        }
        if self.words.is_none() {
            self.answer_len = len;
        }
        self.before_len = self.answer_len;
        self.untexted = Vec::new();
        self.failed = None;
        self.resumed = true;
    }

    /// It does not go on.
    pub(super) fn refuse(&mut self, reason: Reason) {
        self.refusal.get_or_insert(reason);
        self.ids = None;
        self.words = None;
    }

    /// Whole events as the client is to get them. What the stream says behind its failure is left out.
    pub(super) fn pass(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len());
        let mut rest = payload;
        while !rest.is_empty() && self.failed.is_none() {
            let (block, behind) = rest.split_at(events::block_len(rest));
            rest = behind;
            if events::is_event(block) {
                self.pass_event(block, &mut out);
            } else {
                out.extend_from_slice(block);
            }
        }
        out
    }

    fn pass_event(&mut self, block: &[u8], out: &mut Vec<u8>) {
        if let Some(status) = verdict::error(block) {
            if self.refusal().is_none() && status >= 500 {
                self.failed = Some(status);
            } else if self.form == Form::Messages && self.resumed {
                let event = self.message_error(data_of(block).unwrap_or_default(), status);
                self.put(&event, out);
            } else {
                self.put(block, out);
            }
            return;
        }
        if self.form == Form::Messages && !self.resumed {
            return self.pass_message(block, out);
        }
        let Some(data) = data_of(block) else {
            return self.pass_unread(block, out);
        };
        if data == b"[DONE]" {
            let end = self.rest();
            self.stage = Stage::Done;
            return match (self.form, end) {
                (Form::Messages, end) => self.put(&end.unwrap_or_default(), out),
                _ => self.put(block, out),
            };
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            return self.pass_unread(block, out);
        };
        if let (true, Some(usage)) = (chunk.choices.is_empty(), &chunk.usage) {
            if !self.resumed {
                self.stage = self.stage.max(Stage::Counted);
                return self.put(block, out);
            }
            if self.refusal.is_some() {
                let told = usage.completion_tokens.unwrap_or(0);
                self.answer_len = self.answer_len.max(self.before_len + told);
            }
            let event = self.counted();
            return self.put(&event, out);
        }
        let waits = self.note(&chunk);
        let event = if self.resumed {
            self.reshaped(&chunk)
        } else {
            self.stripped(block, data, &chunk)
        };
        if !waits || !self.shows_ids {
            self.put(&event, out);
        } else if self.untexted.len() < UNTEXTED_BYTES_MAX {
            self.untexted.extend_from_slice(&event);
        } else {
            self.refuse(Reason::Boundary); // the client gets ids that may be generated again
            self.put(&event, out);
        }
    }

    /// Passes on what is no event of this stream; a client of `/v1/messages` could not read it.
    fn pass_unread(&mut self, block: &[u8], out: &mut Vec<u8>) {
        self.refuse(Reason::NoIds);
        if self.form != Form::Messages {
            self.put(block, out);
        }
    }

    /// Passes an event on, behind those that have waited for it.
    pub(super) fn put(&mut self, event: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.untexted);
        out.extend_from_slice(event);
    }

    /// Keeps what an event says; whether it has ids without text.
    fn note(&mut self, chunk: &Chunk<'_>) -> bool {
        if self.name.is_none()
            && let (Some(id), Some(created), Some(model)) = (chunk.id, chunk.created, chunk.model)
        {
            self.name = Some(Name {
                id: id.get().into(),
                created: created.get().into(),
                model: model.get().into(),
            });
        }
        let first = chunk.choices.first();
        let prompt = chunk
            .prompt_token_ids
            .or(first.and_then(|choice| choice.prompt_token_ids));
        let noted = self
            .note_prompt(prompt)
            .and_then(|()| match &chunk.choices[..] {
                [] => Ok(false),
                [choice] if choice.index == 0 => self.note_choice(choice),
                _ => Err(Reason::Choices),
            });
        noted.unwrap_or_else(|reason| {
            self.refuse(reason);
            false
        })
    }

    fn note_prompt(&mut self, raw: Option<&RawValue>) -> Result<(), Reason> {
        // A replica that goes on is given a longer prompt, which tells nothing new.
        let (Some(raw), Some(ids), false) = (raw, &mut self.ids, self.resumed) else {
            return Ok(());
        };
        if !ids.prompt.is_empty() {
            return Ok(()); // told again
        }
        let told = ids_of(raw)?;
        self.prompt_len = told.len();
        ids.add(true, told)
    }

    fn note_choice(&mut self, choice: &Choice<'_>) -> Result<bool, Reason> {
        if choice.logprobs.is_some() {
            return Err(Reason::Logprobs);
        }
        let text = has_text(choice.text());
        if let Some(delta) = &choice.delta {
            if delta.calls() {
                return Err(Reason::Tools);
            }
            self.reasoning = (self.reasoning || delta.reasons()) && !text;
        }
        let told = choice.token_ids.map(ids_of).transpose()?;
        if text && told.is_none() {
            return Err(Reason::NoIds);
        }
        let told_len = told.as_ref().map_or(0, Vec::len);
        self.answer_len += told_len;
        if let (Some(told), Some(ids)) = (told, &mut self.ids) {
            ids.add(false, told)?;
        }
        if choice.finish_reason.is_some() {
            self.stage = self.stage.max(Stage::Finished);
        }
        if text || self.stage > Stage::Open {
            self.texted_len = self.ids.as_ref().map_or(0, |ids| ids.answer.len());
            self.unsure_len = if told_len > 1 { told_len } else { 0 };
        }
        Ok(told_len > 0 && !text && self.stage == Stage::Open)
    }

    /// The event with `null` in place of ids, unless the client asked for them.
    fn stripped(&self, block: &[u8], data: &[u8], chunk: &Chunk<'_>) -> Vec<u8> {
        if self.shows_ids {
            return block.to_vec();
        }
        let of_choices = chunk.choices.iter();
        let of_choices = of_choices.flat_map(|choice| [choice.prompt_token_ids, choice.token_ids]);
        let raws = of_choices.chain([chunk.prompt_token_ids]).flatten();
        let start = block.as_ptr().addr();
        let mut places: Vec<(usize, usize)> = raws
            .map(|raw| (raw.get().as_ptr().addr() - start, raw.get().len()))
            .collect();
        debug_assert!(data.as_ptr().addr() >= start);
        places.sort_unstable();
        let mut out = Vec::with_capacity(block.len());
        let mut at = 0;
        for (place, len) in places {
            out.extend_from_slice(&block[at..place]);
            out.extend_from_slice(b"null");
            at = place + len;
        }
        out.extend_from_slice(&block[at..]);
        out
    }

    /// What each event of the stream begins with.
    fn head(&self) -> String {
        let object = match self.form {
            Form::Chat => "chat.completion.chunk",
            Form::Text | Form::Messages => "text_completion",
        };
        self.name.as_ref().map_or_else(String::new, |name| {
            let Name { id, created, model } = name;
            format!("data: {{\"id\":{id},\"object\":\"{object}\",\"created\":{created},\"model\":{model},")
        })
    }

    /// An event of `/v1/completions` in the shape of the stream.
    fn reshaped(&mut self, chunk: &Chunk<'_>) -> Vec<u8> {
        let raw = |value: Option<&RawValue>| value.map_or("null", RawValue::get).to_owned();
        let Some(choice) = chunk.choices.first() else {
            return Vec::new();
        };
        let text = choice.text().map_or("\"\"", RawValue::get);
        let text = match self.form {
            Form::Messages => return self.message_event(choice),
            Form::Chat => format!("\"delta\":{{\"content\":{text}}}"),
            Form::Text => format!("\"text\":{text}"),
        };
        let finish = raw(choice.finish_reason);
        let stop = if choice.finish_reason.is_some() || self.form == Form::Text {
            format!(",\"stop_reason\":{}", raw(choice.stop_reason))
        } else {
            String::new()
        };
        let ids = raw(choice.token_ids.filter(|_| self.shows_ids));
        let head = self.head();
        format!(
            "{head}\"choices\":[{{\"index\":0,{text},\"logprobs\":null,\"finish_reason\":{finish}{stop},\
             \"token_ids\":{ids}}}]}}\n\n"
        )
        .into_bytes()
    }

    /// The usage of the whole: the prompt of the first replica, the answers of all.
    fn usage_event(&self) -> Vec<u8> {
        let (prompt, answer) = (self.prompt_len, self.answer_len);
        let total = prompt + answer;
        let head = self.head();
        format!(
            "{head}\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},\
             \"completion_tokens\":{answer}}}}}\n\n"
        )
        .into_bytes()
    }

    /// What says how many tokens the stream has, in its shape; it is out then.
    fn counted(&mut self) -> Vec<u8> {
        if self.stage >= Stage::Counted {
            return Vec::new();
        }
        self.stage = Stage::Counted;
        match self.form {
            Form::Messages => self.message_end(self.answer_len),
            Form::Chat | Form::Text => self.usage_event(),
        }
    }

    /// What is missing of a stream that has said its last token: usage where the client gets it, and its last
    /// event. `None`: tokens may be missing.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        if self.stage == Stage::Open {
            return None;
        }
        let mut rest = Vec::new();
        if self.stage < Stage::Counted && self.shows_usage && self.prompt_len > 0 {
            rest = self.counted();
        }
        if self.stage < Stage::Done {
            rest.extend_from_slice(&match self.form {
                Form::Messages => message_stop(),
                Form::Chat | Form::Text => b"data: [DONE]\n\n".to_vec(),
            });
        }
        self.stage = Stage::Done;
        Some(rest)
    }
}
