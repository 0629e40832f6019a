//! Answers that come as events.
//!
//! The events of one stream differ in little but their text. So the reader remembers the bytes before and
//! after the text of the last event that it read as JSON. If a further event begins and ends with the same
//! bytes, its text is what lies between. Any other event is read as JSON.

use std::mem;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::super::cursor::{Cursor, RawStr, unescape};
use super::super::fault::Fault;
use super::super::json::Scan;
use super::super::lanes::find_special;
use super::super::outline::{integer, pick};
use super::{ANSWER_BYTES_MAX, Answer, AnswerForm, CALLS_MAX, Call};

/// Types of the event that ends a stream of `/v1/responses`.
static COMPLETED: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new(b"\"response.completed\""));
static INCOMPLETE: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new(b"\"response.incomplete\""));

/// The bytes around an event's text, from `data:` to the end of its line; empty where there is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Pattern {
    before: Vec<u8>,
    behind: Vec<u8>,
}

impl Answer {
    /// Reads whole events.
    pub fn read_events(&mut self, payload: &[u8]) {
        if self.start.form == AnswerForm::Responses {
            return self.read_items(payload);
        }
        let mut rest = payload;
        while !rest.is_empty() && !self.stopped {
            if let Some(length) = self.read_alike(rest) {
                rest = rest.get(length..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let (line, behind) = rest.split_at(end);
            self.read_line(line);
            rest = behind.get(1..).unwrap_or_default();
        }
    }

    /// Reads an event like the one before it; its length up to its line's end.
    fn read_alike(&mut self, payload: &[u8]) -> Option<usize> {
        let Pattern { before, behind } = &self.pattern;
        if before.is_empty() || !payload.starts_with(before) {
            return None;
        }
        let start = before.len();
        let mut end = find_special(payload, start);
        let escaped = payload.get(end) == Some(&b'\\');
        while payload.get(end) == Some(&b'\\') {
            end = find_special(payload, end + 2);
        }
        let rest = payload.get(end..)?;
        if !rest.starts_with(behind) {
            return None;
        }
        let length = end + behind.len();
        if !matches!(payload.get(length), Some(b'\n' | b'\r')) {
            return None;
        }
        let text = payload.get(start..end)?;
        if escaped {
            let mut buffer = mem::take(&mut self.buffers.text);
            buffer.clear();
            unescape(text, &mut buffer);
            self.put_text(&buffer);
            self.buffers.text = buffer;
        } else {
            self.put_text(text);
        }
        Some(length)
    }

    /// Reads one line of an event; other fields than its data tell nothing.
    fn read_line(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:") else {
            return;
        };
        let data = data.trim_ascii_start();
        if data.first() != Some(&b'{') {
            return; // [DONE]
        }
        let offset = line.len() - data.len();
        let mut tape = mem::take(&mut self.buffers.tape);
        let mut scan = Scan::new(data, &mut tape);
        let is_valid = scan.value(0).and_then(|()| scan.end()).is_ok();
        let root = Cursor::new(data, &tape, 0, 0);
        let read = match self.start.form {
            _ if !is_valid => Err(Fault::of_type("", "JSON")),
            AnswerForm::Messages => self.read_block(root),
            _ => self.read_chunk(root),
        };
        self.buffers.tape = tape;
        match read {
            Ok(None) => {}
            Ok(Some(text)) => {
                let Pattern { before, behind } = &mut self.pattern;
                before.clear();
                before.extend_from_slice(&line[..offset + text.start]);
                behind.clear();
                behind.extend_from_slice(&line[offset + text.end..]);
            }
            Err(_) => self.stop(),
        }
    }

    /// OpenAI's chunks. Where the chunk has text alone: its place.
    fn read_chunk(&mut self, mut root: Cursor<'_>) -> Result<Option<Range<usize>>, Fault> {
        let [choices] = pick(&mut root, &["choices"])?;
        let Some(mut choices) = choices else {
            return Ok(None);
        };
        if !choices.enter(b'[') || !choices.item() {
            return Ok(None);
        }
        let [delta, text] = pick(&mut choices, &["delta", "text"])?;
        if self.start.form == AnswerForm::Text {
            return text.map_or(Ok(None), |text| self.read_text(text));
        }
        let Some(mut delta) = delta else {
            return Ok(None);
        };
        let [
            content,
            tool_calls,
            function_call,
            reasoning,
            reasoning_content,
        ] = pick(
            &mut delta,
            &[
                "content",
                "tool_calls",
                "function_call",
                "reasoning",
                "reasoning_content",
            ],
        )?;
        if reasoning.is_some_and(is_text) || reasoning_content.is_some_and(is_text) {
            self.give_up();
            return Ok(None);
        }
        let text = content.map_or(Ok(None), |content| self.read_text(content))?;
        if function_call.is_some() {
            return Err(Fault::of_type("function_call", "tool_calls"));
        }
        let Some(mut calls) = tool_calls else {
            return Ok(text);
        };
        if !calls.enter(b'[') {
            return Err(Fault::of_type("tool_calls", "a list"));
        }
        while calls.item() {
            let [index, id, function] = pick(&mut calls, &["index", "id", "function"])?;
            let index = index.map_or(Ok(0), |index| integer(index, "index"))?;
            self.add_to_call(index, id, |call| &mut call.id)?;
            if let Some(mut function) = function {
                let [name, arguments] = pick(&mut function, &["name", "arguments"])?;
                self.add_to_call(index, name, |call| &mut call.name)?;
                self.add_to_call(index, arguments, |call| &mut call.arguments)?;
            }
        }
        Ok(None)
    }

    /// Anthropic's events. Where the event has text alone: its place.
    fn read_block(&mut self, mut root: Cursor<'_>) -> Result<Option<Range<usize>>, Fault> {
        let [index, block, delta] = pick(&mut root, &["index", "content_block", "delta"])?;
        let index = index.map_or(Ok(0), |index| integer(index, "index"))?;
        let mut buffer = Vec::new();
        if let Some(mut block) = block {
            let [kind, text, id, name] = pick(&mut block, &["type", "text", "id", "name"])?;
            let kind = kind.and_then(|mut kind| kind.string());
            match kind.map(|kind| kind.text(&mut buffer)) {
                Some(b"text") => {
                    if mem::replace(&mut self.has_part, true) {
                        self.put_text(b"\n");
                    }
                    text.map_or(Ok(None), |text| self.read_text(text))?;
                }
                Some(b"tool_use") => {
                    self.add_to_call(index, id, |call| &mut call.id)?;
                    self.add_to_call(index, name, |call| &mut call.name)?;
                }
                Some(b"thinking" | b"redacted_thinking") => self.give_up(),
                _ => return Err(Fault::of_type("content_block", "a known type")),
            }
            return Ok(None);
        }
        let Some(mut delta) = delta else {
            return Ok(None);
        };
        let [text, partial_json] = pick(&mut delta, &["text", "partial_json"])?;
        self.add_to_call_if_any(index, partial_json)?;
        text.map_or(Ok(None), |text| self.read_text(text))
    }

    /// The events of `/v1/responses`: the last one has the whole answer.
    fn read_items(&mut self, payload: &[u8]) {
        let ends =
            |payload| COMPLETED.find(payload).is_some() || INCOMPLETE.find(payload).is_some();
        if self.stopped || !ends(payload) {
            return;
        }
        for line in payload.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let Some(data) = line.strip_prefix(b"data:") else {
                continue;
            };
            let data = data.trim_ascii_start();
            let mut tape = mem::take(&mut self.buffers.tape);
            let mut scan = Scan::new(data, &mut tape);
            let is_valid =
                data.first() == Some(&b'{') && scan.value(0).and_then(|()| scan.end()).is_ok();
            let read = if is_valid {
                self.read_last_item(Cursor::new(data, &tape, 0, 0))
            } else {
                Ok(())
            };
            self.buffers.tape = tape;
            if read.is_err() {
                return self.give_up();
            }
        }
    }

    fn read_last_item(&mut self, mut root: Cursor<'_>) -> Result<(), Fault> {
        let [kind, response] = pick(&mut root, &["type", "response"])?;
        let kind = kind.and_then(|mut kind| kind.string());
        let mut buffer = Vec::new();
        let kind = kind.map(|kind| kind.text(&mut buffer));
        let is_last = matches!(kind, Some(b"response.completed" | b"response.incomplete"));
        let Some(response) = response.filter(|_| is_last) else {
            return Ok(());
        };
        self.put_whole(response)?;
        self.stop();
        Ok(())
    }

    /// Puts a string into the answer; its place between its quotes.
    fn read_text(&mut self, mut cursor: Cursor<'_>) -> Result<Option<Range<usize>>, Fault> {
        let start = cursor.at + 1;
        let Some(text) = cursor.string() else {
            return Err(Fault::of_type("", "a string"));
        };
        let mut buffer = Vec::new();
        self.put_text(text.text(&mut buffer));
        Ok(Some(start..cursor.at - 1))
    }

    fn add_to_call_if_any(&mut self, index: i64, part: Option<Cursor<'_>>) -> Result<(), Fault> {
        if part.is_some() {
            self.add_to_call(index, part, |call| &mut call.arguments)?;
        }
        Ok(())
    }

    /// Appends to a field of a call, which may be a new one.
    fn add_to_call(
        &mut self,
        index: i64,
        part: Option<Cursor<'_>>,
        field: impl FnOnce(&mut Call) -> &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let part = part.and_then(|mut part| part.string());
        let mut buffer = Vec::new();
        let part = part.map_or(&b""[..], |part: RawStr<'_>| part.text(&mut buffer));
        let known = self.calls.iter().position(|call| call.index == index);
        self.calls_bytes += part.len();
        if self.calls_bytes > ANSWER_BYTES_MAX || self.calls.len() >= CALLS_MAX {
            return Err(Fault::of_type("", "fewer or shorter calls"));
        }
        let at = known.unwrap_or(self.calls.len());
        if known.is_none() {
            self.calls.push(Call {
                index,
                ..Call::default()
            });
        }
        if let Some(call) = self.calls.get_mut(at) {
            field(call).extend_from_slice(part);
        }
        Ok(())
    }
}

/// A string that is not empty.
fn is_text(mut cursor: Cursor<'_>) -> bool {
    cursor.string().is_none_or(|text| !text.bytes.is_empty())
}
