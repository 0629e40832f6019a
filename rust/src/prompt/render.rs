//! The canonical stream of a prompt: what the engine's cache follows, whatever form it came in.
//!
//! Tools, system text and messages are put in the order in which templates render them, strings
//! unescaped, with separators that no UTF-8 text contains. The stream of a conversation is a
//! prefix of the stream of its continuation. OpenAI's, Anthropic's and the Responses form of one
//! conversation give the same stream.

use super::canonical::{canonical, canonical_text, tag};
use super::cursor::{Cursor, RawStr, Sink};
use super::fault::Fault;
use super::outline::pick;
use super::tape::Tape;
use crate::prompt::blocks::{BlockKey, BlockStream};

/// Token ids are put into the stream this many bytes at a time.
const TOKENS_STAGED_BYTES: usize = 1 << 16;

impl Sink for BlockStream<&BlockKey> {
    fn put(&mut self, bytes: &[u8]) {
        self.push(bytes);
    }
}

/// Buffers of one digest, used again by the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    /// An unescaped text.
    pub(super) text: Vec<u8>,
    /// Canonical JSON, or token ids, on their way into the stream.
    pub(super) staged: Vec<u8>,
    /// Of JSON found within a string.
    pub(super) tape: Tape,
}

/// A prompt being put together.
#[derive(Debug)]
pub(super) struct Prompt<'k, 'b> {
    pub(super) key: &'k BlockKey,
    pub(super) stream: BlockStream<&'k BlockKey>,
    pub(super) buffers: &'b mut Buffers,
    /// There are images or the like in it.
    pub(super) has_media: bool,
}

impl Prompt<'_, '_> {
    pub(super) fn put_text(&mut self, text: RawStr<'_>) {
        text.put_into(&mut self.stream);
    }

    /// A text followed by its end.
    pub(super) fn put_ended(&mut self, text: Option<RawStr<'_>>) {
        if let Some(text) = text {
            self.put_text(text);
        }
        self.stream.push(&[tag::END]);
    }

    /// The start of a message.
    pub(super) fn put_role(&mut self, role: RawStr<'_>) {
        self.stream.push(&[tag::ROLE]);
        self.put_ended(Some(role));
    }

    /// Any JSON value, without space and with its strings unescaped. Goes past it.
    pub(super) fn put_json(&mut self, cursor: &mut Cursor<'_>) {
        if self.stream.is_full() {
            let start = cursor.at;
            cursor.skip();
            return self
                .stream
                .push(cursor.bytes.get(start..cursor.at).unwrap_or_default());
        }
        self.buffers.staged.clear();
        canonical(cursor, &mut self.buffers.staged);
        self.stream.push(&self.buffers.staged);
    }

    /// An object of a kind not known here. Where its client wants the prompt cached is no part of
    /// the prompt, and moves from turn to turn.
    pub(super) fn put_other(&mut self, cursor: &mut Cursor<'_>) {
        self.stream.push(&[tag::OTHER]);
        if !cursor.enter(b'{') {
            return self.put_json(cursor);
        }
        let mut buffer = Vec::new();
        while let Some(key) = cursor.member() {
            if key.text(&mut buffer) == b"cache_control" {
                cursor.skip();
                continue;
            }
            self.stream.push(&[tag::STRING]);
            self.put_ended(Some(key));
            self.put_json(cursor);
        }
        self.stream.push(&[tag::END]);
    }

    /// JSON within a string (a call's arguments), as if it stood there by itself; another text as
    /// a string.
    pub(super) fn put_json_text(&mut self, text: RawStr<'_>) {
        if self.stream.is_full() {
            return self.put_text(text);
        }
        let Buffers {
            text: buffer,
            staged,
            tape,
        } = &mut *self.buffers;
        staged.clear();
        canonical_text(text.text(buffer), tape, staged);
        self.stream.push(staged);
    }

    /// An image, sound or film: the hash of where it is, or of its bytes. `data:` URLs and bare
    /// base64 with a type beside it are the same thing.
    pub(super) fn put_media(&mut self, media_type: Option<RawStr<'_>>, data: RawStr<'_>) {
        let Buffers { text, staged, .. } = &mut *self.buffers;
        staged.clear();
        if let Some(media_type) = media_type {
            media_type.put_into(staged);
            staged.extend_from_slice(b";base64");
        }
        let data = data.text(text);
        let (kind, content) = match data.strip_prefix(b"data:") {
            Some(url) => {
                let comma = memchr::memchr(b',', url).unwrap_or(url.len());
                (&url[..comma], url.get(comma + 1..).unwrap_or_default())
            }
            None => (&staged[..], data),
        };
        let hash = self.key.chain(self.key.hash(kind), self.key.hash(content));
        self.has_media = true;
        self.stream.push(&[tag::MEDIA]);
        self.stream.push(&hash.to_le_bytes());
    }

    /// A list of token ids. Goes past it. What is no token id is the engine's to judge, and is put as
    /// it is.
    pub(super) fn put_tokens(&mut self, cursor: &mut Cursor<'_>) {
        let staged = &mut self.buffers.staged;
        staged.clear();
        staged.push(tag::TOKENS);
        cursor.enter(b'[');
        while cursor.item() {
            if staged.len() >= TOKENS_STAGED_BYTES {
                self.stream.push(staged);
                staged.clear();
            }
            let start = cursor.at;
            cursor.skip();
            let text = cursor.bytes.get(start..cursor.at).unwrap_or_default();
            if let Some(token) = token(text) {
                staged.extend_from_slice(&token.to_le_bytes());
            } else {
                staged.push(tag::OTHER);
                staged.extend_from_slice(text);
            }
        }
        self.stream.push(staged);
    }

    /// Tool definitions in OpenAI's chat form, the Responses form or Anthropic's.
    pub(super) fn put_tools(&mut self, mut cursor: Cursor<'_>) -> Result<(), Fault> {
        if !cursor.enter(b'[') {
            return Err(Fault::of_type("", "a list"));
        }
        let mut index = 0;
        while cursor.item() {
            self.put_tool(&mut cursor)
                .map_err(|fault| fault.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    fn put_tool(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let mut whole = *cursor;
        let [function, name, description, parameters, input_schema] = pick(
            cursor,
            &[
                "function",
                "name",
                "description",
                "parameters",
                "input_schema",
            ],
        )?;
        if let Some(mut function) = function {
            let [name, description, parameters] =
                pick(&mut function, &["name", "description", "parameters"])
                    .map_err(|fault| fault.within("function"))?;
            return self
                .put_function(name, description, parameters)
                .map_err(|fault| fault.within("function"));
        }
        if name.is_some()
            && (parameters.is_some() || input_schema.is_some() || description.is_some())
        {
            return self.put_function(name, description, parameters.or(input_schema));
        }
        // A tool of the engine's own (web search and the like).
        self.stream.push(&[tag::TOOL]);
        self.put_other(&mut whole);
        Ok(())
    }

    fn put_function(
        &mut self,
        name: Option<Cursor<'_>>,
        description: Option<Cursor<'_>>,
        parameters: Option<Cursor<'_>>,
    ) -> Result<(), Fault> {
        self.stream.push(&[tag::TOOL]);
        self.put_ended(text_at(name, "name")?);
        self.put_ended(text_at(description, "description")?);
        if let Some(mut parameters) = parameters {
            self.put_json(&mut parameters);
        }
        self.stream.push(&[tag::END]);
        Ok(())
    }
}

/// The string at an optional place.
pub(super) fn text_at<'a>(
    cursor: Option<Cursor<'a>>,
    path: &'static str,
) -> Result<Option<RawStr<'a>>, Fault> {
    let Some(mut cursor) = cursor else {
        return Ok(None);
    };
    let text = cursor.string();
    text.map(Some)
        .ok_or_else(|| Fault::of_type(path, "a string"))
}

/// A token id: digits only, so that `1` and `1.0` cannot mean different things to others.
fn token(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    let mut value = 0_u64;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(byte - b'0');
    }
    u32::try_from(value).ok()
}
