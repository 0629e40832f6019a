//! Conversations: OpenAI's and Anthropic's messages, and the items of the Responses form.

use super::canonical::tag;
use super::cursor::{Cursor, RawStr};
use super::fault::Fault;
use super::outline::pick;
use super::render::{Prompt, text_at};

/// A system text that begins so is bookkeeping of one client, new with every request: engines take
/// it out before they render the prompt.
const BILLING_PREFIX: &[u8] = b"x-anthropic-billing-header";

/// What a block of an Anthropic message becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Part of the message's content.
    Content,
    /// A message of its own, before this one, with the role `tool`.
    ToolResult,
    /// A call, after the content.
    ToolUse,
}

/// A text that stands for itself, not taken from the body.
pub(super) const fn plain(text: &str) -> RawStr<'_> {
    RawStr {
        bytes: text.as_bytes(),
        escaped: false,
    }
}

impl Prompt<'_, '_> {
    /// The system text beside the messages: Anthropic's `system`, Responses' `instructions`.
    pub(super) fn put_system(&mut self, mut cursor: Cursor<'_>) -> Result<(), Fault> {
        self.put_role(plain("system"));
        if let Some(text) = cursor.string() {
            self.put_text(text);
            return Ok(());
        }
        if !cursor.enter(b'[') {
            return Err(Fault::of_type("", "a string or a list"));
        }
        let mut index = 0;
        while cursor.item() {
            let [text] = pick(&mut cursor, &["text"]).map_err(|fault| fault.at_index(index))?;
            if let Some(text) = text_at(text, "text").map_err(|fault| fault.at_index(index))?
                && !text.bytes.starts_with(BILLING_PREFIX)
            {
                self.put_text(text);
            }
            index += 1;
        }
        Ok(())
    }

    /// `messages`, in OpenAI's or Anthropic's form.
    pub(super) fn put_messages(
        &mut self,
        mut cursor: Cursor<'_>,
        anthropic: bool,
    ) -> Result<(), Fault> {
        if !cursor.enter(b'[') {
            return Err(Fault::of_type("", "a list"));
        }
        let mut index = 0;
        while cursor.item() {
            self.put_message(&mut cursor, anthropic)
                .map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    /// Several conversations, one after the other.
    pub(super) fn put_conversations(&mut self, mut cursor: Cursor<'_>) -> Result<(), Fault> {
        if !cursor.enter(b'[') {
            return Err(Fault::of_type("", "a list"));
        }
        let mut index = 0;
        while cursor.item() {
            let conversation = cursor;
            self.put_messages(conversation, false)
                .map_err(|fault| fault.at_index(index))?;
            cursor.skip();
            index += 1;
        }
        Ok(())
    }

    pub(super) fn put_message(
        &mut self,
        cursor: &mut Cursor<'_>,
        anthropic: bool,
    ) -> Result<(), Fault> {
        let [role, content, tool_calls, tool_call_id, name, function_call] = pick(
            cursor,
            &[
                "role",
                "content",
                "tool_calls",
                "tool_call_id",
                "name",
                "function_call",
            ],
        )?;
        let role = text_at(role, "role")?.unwrap_or(plain(""));
        if let Some(content) = content
            && anthropic
            && content.peek() == b'['
        {
            return self
                .put_anthropic_blocks(role, content)
                .map_err(|fault| fault.within("content"));
        }
        self.put_role(role);
        if let Some(name) = text_at(name, "name")? {
            self.stream.push(&[tag::NAME]);
            self.put_ended(Some(name));
        }
        if let Some(id) = text_at(tool_call_id, "tool_call_id")? {
            self.stream.push(&[tag::RESULT]);
            self.put_ended(Some(id));
        }
        if let Some(mut content) = content {
            self.put_content(&mut content)
                .map_err(|fault| fault.within("content"))?;
        }
        if let Some(mut call) = function_call {
            self.put_function_call(&mut call, None)
                .map_err(|fault| fault.within("function_call"))?;
        }
        if let Some(calls) = tool_calls {
            self.put_tool_calls(calls)
                .map_err(|fault| fault.within("tool_calls"))?;
        }
        Ok(())
    }

    /// A message's content: a text or a list of parts.
    fn put_content(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        if let Some(text) = cursor.string() {
            self.put_text(text);
            return Ok(());
        }
        if !cursor.enter(b'[') {
            return Err(Fault::of_type("", "a string or a list"));
        }
        let mut first = true;
        let mut index = 0;
        while cursor.item() {
            self.put_part(cursor, &mut first)
                .map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    /// Engines join the parts of a message by line breaks.
    fn put_joint(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            self.stream.push(b"\n");
        }
    }

    /// One part of a message's content. Goes past it.
    fn put_part(&mut self, cursor: &mut Cursor<'_>, first: &mut bool) -> Result<(), Fault> {
        if let Some(text) = cursor.string() {
            self.put_joint(first);
            self.put_text(text);
            return Ok(());
        }
        let mut whole = *cursor;
        let [
            kind,
            text,
            refusal,
            image_url,
            source,
            input_audio,
            audio_url,
            video_url,
        ] = pick(
            cursor,
            &[
                "type",
                "text",
                "refusal",
                "image_url",
                "source",
                "input_audio",
                "audio_url",
                "video_url",
            ],
        )?;
        let mut buffer = Vec::new();
        let kind = text_at(kind, "type")?.map_or(&b""[..], |kind| kind.text(&mut buffer));
        // Reasoning is not rendered again, nor is it in the answers that the tree learns.
        if matches!(
            kind,
            b"thinking" | b"redacted_thinking" | b"reasoning" | b"reasoning_text"
        ) {
            return Ok(());
        }
        self.put_joint(first);
        match kind {
            b"text" | b"input_text" | b"output_text" | b"" if text.is_some() => {
                self.put_text(text_at(text, "text")?.unwrap_or(plain("")));
            }
            b"refusal" if refusal.is_some() => {
                self.put_text(text_at(refusal, "refusal")?.unwrap_or(plain("")));
            }
            b"image_url" | b"input_image" | b"" if image_url.is_some() => {
                self.put_url(image_url, "image_url")?;
            }
            b"audio_url" | b"" if audio_url.is_some() => self.put_url(audio_url, "audio_url")?,
            b"video_url" | b"" if video_url.is_some() => self.put_url(video_url, "video_url")?,
            b"image" if source.is_some() => self.put_source(source)?,
            b"input_audio" if input_audio.is_some() => self.put_audio(input_audio)?,
            _ => {
                self.put_other(&mut whole);
            }
        }
        Ok(())
    }

    /// `{"url": ...}` or the URL itself.
    fn put_url(&mut self, cursor: Option<Cursor<'_>>, path: &'static str) -> Result<(), Fault> {
        let Some(mut cursor) = cursor else {
            return Ok(());
        };
        let mut url = cursor.string();
        if url.is_none() {
            let fault = |fault: Fault| fault.within(path);
            let [found] = pick(&mut cursor, &["url"]).map_err(fault)?;
            url = text_at(found, "url").map_err(fault)?;
        }
        self.put_media(None, url.unwrap_or(plain("")));
        Ok(())
    }

    /// Anthropic's `{"type": "base64", "media_type", "data"}` or `{"type": "url", "url"}`.
    fn put_source(&mut self, cursor: Option<Cursor<'_>>) -> Result<(), Fault> {
        let Some(mut cursor) = cursor else {
            return Ok(());
        };
        let fault = |fault: Fault| fault.within("source");
        let [media_type, data, url] =
            pick(&mut cursor, &["media_type", "data", "url"]).map_err(fault)?;
        let media_type = text_at(media_type, "media_type").map_err(fault)?;
        let data = text_at(data, "data").map_err(fault)?;
        let url = text_at(url, "url").map_err(fault)?;
        match data {
            Some(data) => self.put_media(Some(media_type.unwrap_or(plain(""))), data),
            None => self.put_media(None, url.unwrap_or(plain(""))),
        }
        Ok(())
    }

    /// `{"format", "data"}`.
    fn put_audio(&mut self, cursor: Option<Cursor<'_>>) -> Result<(), Fault> {
        let Some(mut cursor) = cursor else {
            return Ok(());
        };
        let fault = |fault: Fault| fault.within("input_audio");
        let [format, data] = pick(&mut cursor, &["format", "data"]).map_err(fault)?;
        let format = text_at(format, "format").map_err(fault)?;
        let data = text_at(data, "data").map_err(fault)?;
        self.put_media(Some(format.unwrap_or(plain(""))), data.unwrap_or(plain("")));
        Ok(())
    }

    fn put_tool_calls(&mut self, mut cursor: Cursor<'_>) -> Result<(), Fault> {
        if !cursor.enter(b'[') {
            return Err(Fault::of_type("", "a list"));
        }
        let mut index = 0;
        while cursor.item() {
            self.put_tool_call(&mut cursor)
                .map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    fn put_tool_call(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let [id, function] = pick(cursor, &["id", "function"])?;
        let id = text_at(id, "id")?;
        let Some(mut function) = function else {
            return Ok(());
        };
        self.put_function_call(&mut function, id)
            .map_err(|fault| fault.within("function"))
    }

    /// `{"name", "arguments"}`, arguments as JSON in a string or as an object.
    fn put_function_call(
        &mut self,
        cursor: &mut Cursor<'_>,
        id: Option<RawStr<'_>>,
    ) -> Result<(), Fault> {
        let [name, arguments] = pick(cursor, &["name", "arguments"])?;
        self.put_call(name, arguments, id)
    }

    fn put_call(
        &mut self,
        name: Option<Cursor<'_>>,
        arguments: Option<Cursor<'_>>,
        id: Option<RawStr<'_>>,
    ) -> Result<(), Fault> {
        self.stream.push(&[tag::CALL]);
        self.put_ended(text_at(name, "name")?);
        match arguments {
            Some(mut arguments) => match arguments.string() {
                Some(text) => self.put_json_text(text),
                None => self.put_json(&mut arguments),
            },
            None => self.stream.push(b"{}"),
        }
        self.stream.push(&[tag::END]);
        self.put_ended(id);
        Ok(())
    }

    /// The answer to a call, a message of its own.
    fn put_tool_result(
        &mut self,
        id: Option<RawStr<'_>>,
        content: Option<Cursor<'_>>,
    ) -> Result<(), Fault> {
        self.put_role(plain("tool"));
        if id.is_some() {
            self.stream.push(&[tag::RESULT]);
            self.put_ended(id);
        }
        content.map_or(Ok(()), |mut content| self.put_content(&mut content))
    }

    /// A message of Anthropic's blocks: results first, as messages of their own, then what is
    /// content, then the calls. That is how engines turn it into OpenAI's form.
    fn put_anthropic_blocks(&mut self, role: RawStr<'_>, content: Cursor<'_>) -> Result<(), Fault> {
        let (mut results, mut calls, mut others) = (false, false, false);
        each_block(content, |_, kind| {
            match kind {
                Kind::ToolResult => results = true,
                Kind::ToolUse => calls = true,
                Kind::Content => others = true,
            }
            Ok(())
        })?;
        if results {
            each_block(content, |mut block, kind| {
                if kind != Kind::ToolResult {
                    return Ok(());
                }
                let [id, content] = pick(&mut block, &["tool_use_id", "content"])?;
                self.put_tool_result(text_at(id, "tool_use_id")?, content)
                    .map_err(|fault| fault.within("content"))
            })?;
        }
        if others || calls || !results {
            self.put_role(role);
        }
        if others {
            let mut first = true;
            each_block(content, |mut block, kind| {
                if kind == Kind::Content {
                    self.put_part(&mut block, &mut first)?;
                }
                Ok(())
            })?;
        }
        if calls {
            each_block(content, |mut block, kind| {
                if kind != Kind::ToolUse {
                    return Ok(());
                }
                let [id, name, input] = pick(&mut block, &["id", "name", "input"])?;
                self.put_call(name, input, text_at(id, "id")?)
            })?;
        }
        Ok(())
    }

    /// `input` of `/v1/responses`: a text, or a list of items.
    pub(super) fn put_items(&mut self, mut cursor: Cursor<'_>) -> Result<(), Fault> {
        if let Some(text) = cursor.string() {
            self.put_role(plain("user"));
            self.put_text(text);
            return Ok(());
        }
        if !cursor.enter(b'[') {
            return Err(Fault::of_type("", "a string or a list"));
        }
        let mut in_assistant = false;
        let mut index = 0;
        while cursor.item() {
            self.put_item(&mut cursor, &mut in_assistant)
                .map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    /// One item. Calls belong to the assistant's message before them, where there is one.
    fn put_item(&mut self, cursor: &mut Cursor<'_>, in_assistant: &mut bool) -> Result<(), Fault> {
        let mut whole = *cursor;
        let [kind, role, content, call_id, name, arguments, output] = pick(
            cursor,
            &[
                "type",
                "role",
                "content",
                "call_id",
                "name",
                "arguments",
                "output",
            ],
        )?;
        let (mut buffer, mut role_buffer) = (Vec::new(), Vec::new());
        let kind = text_at(kind, "type")?.map_or(&b"message"[..], |kind| kind.text(&mut buffer));
        match kind {
            b"message" => {
                let role = text_at(role, "role")?.unwrap_or(plain(""));
                *in_assistant = role.text(&mut role_buffer) == b"assistant";
                self.put_role(role);
                content.map_or(Ok(()), |mut content| {
                    self.put_content(&mut content)
                        .map_err(|fault| fault.within("content"))
                })
            }
            b"function_call" => {
                if !std::mem::replace(in_assistant, true) {
                    self.put_role(plain("assistant"));
                }
                self.put_call(name, arguments, text_at(call_id, "call_id")?)
            }
            b"function_call_output" => {
                *in_assistant = false;
                self.put_tool_result(text_at(call_id, "call_id")?, output)
                    .map_err(|fault| fault.within("output"))
            }
            b"reasoning" => Ok(()),
            _ => {
                *in_assistant = false;
                self.stream.push(&[tag::ROLE]);
                self.put_other(&mut whole);
                Ok(())
            }
        }
    }
}

/// Visits the blocks of an Anthropic message's content.
fn each_block(
    mut cursor: Cursor<'_>,
    mut visit: impl FnMut(Cursor<'_>, Kind) -> Result<(), Fault>,
) -> Result<(), Fault> {
    cursor.enter(b'[');
    let mut index = 0;
    while cursor.item() {
        let block = cursor;
        let kind = block_kind(&mut cursor).map_err(|fault| fault.at_index(index))?;
        visit(block, kind).map_err(|fault| fault.at_index(index))?;
        index += 1;
    }
    Ok(())
}

fn block_kind(cursor: &mut Cursor<'_>) -> Result<Kind, Fault> {
    if cursor.string().is_some() {
        return Ok(Kind::Content);
    }
    let [kind] = pick(cursor, &["type"])?;
    let mut buffer = Vec::new();
    let kind = text_at(kind, "type")?.map_or(&b""[..], |kind| kind.text(&mut buffer));
    Ok(match kind {
        b"tool_result" => Kind::ToolResult,
        b"tool_use" => Kind::ToolUse,
        _ => Kind::Content,
    })
}
