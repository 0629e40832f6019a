//! JSON values as the prompt stream has them: without space, strings unescaped and marked.

use super::cursor::Cursor;
use super::json::Scan;
use super::tape::Tape;

/// Separators: bytes that occur in no UTF-8 text.
pub(super) mod tag {
    /// Starts a message: role, [`END`], content.
    pub const ROLE: u8 = 0xff;
    /// Ends a text whose length is not known otherwise.
    pub const END: u8 = 0xfe;
    /// A message's `name`, [`END`].
    pub const NAME: u8 = 0xfd;
    /// A tool call: name, [`END`], arguments, [`END`], id, [`END`].
    pub const CALL: u8 = 0xfc;
    /// The id of the call that a message answers, [`END`].
    pub const RESULT: u8 = 0xfb;
    /// An image or the like: eight bytes of its hash.
    pub const MEDIA: u8 = 0xfa;
    /// A tool's definition: name, [`END`], description, [`END`], parameters, [`END`].
    pub const TOOL: u8 = 0xf9;
    /// A part of a kind not known here, as canonical JSON.
    pub const OTHER: u8 = 0xf8;
    /// A text of a list of prompts, or of a prompt that is no conversation.
    pub const TEXT: u8 = 0xf7;
    /// Token ids, four bytes each.
    pub const TOKENS: u8 = 0xf6;
    /// A string within canonical JSON, [`END`].
    pub const STRING: u8 = 0xf5;
}

/// Appends a value without space, its strings unescaped and marked. Goes past it.
pub(super) fn canonical(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) {
    let mut level = 0_u32;
    loop {
        match cursor.peek() {
            b'"' => {
                out.push(tag::STRING);
                if let Some(text) = cursor.string() {
                    text.put_into(out);
                }
                out.push(tag::END);
            }
            b @ (b'{' | b'[' | b'}' | b']' | b',') => {
                match b {
                    b'{' | b'[' => level += 1,
                    b'}' | b']' => level -= 1,
                    _ => {}
                }
                out.push(b);
                cursor.at += 1;
            }
            b':' | b' ' | b'\n' | b'\t' | b'\r' => cursor.at += 1,
            _ => {
                let scalar = cursor.scalar();
                if scalar.is_empty() {
                    return;
                }
                out.extend_from_slice(scalar);
            }
        }
        if level == 0 {
            return;
        }
    }
}

/// Appends a text as the JSON object that it is, else as a string.
pub(super) fn canonical_text(text: &[u8], tape: &mut Tape, out: &mut Vec<u8>) {
    if let Some(at) = outer_object(text, tape) {
        canonical(&mut Cursor::new(text, tape, at, 0), out);
    } else {
        out.push(tag::STRING);
        out.extend_from_slice(text);
        out.push(tag::END);
    }
}

/// Where the object in `text` begins, if `text` is one JSON object.
fn outer_object(text: &[u8], tape: &mut Tape) -> Option<usize> {
    let mut scan = Scan::new(text, tape);
    scan.skip_space();
    let at = scan.at;
    if scan.peek() != Some(b'{') {
        return None;
    }
    scan.value(0).and_then(|()| scan.end()).ok()?;
    Some(at)
}
