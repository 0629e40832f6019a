//! The second pass: a walk over JSON that the first pass has found valid.
//!
//! A [`Cursor`] is a place, and is copied to come back to it. An object's members are found in any
//! order, then visited in the order that the prompt has them.

use super::escape::escape;
use super::lanes::find_special;
use super::tape::Tape;

/// Where bytes of a canonical stream go.
pub(super) trait Sink {
    /// Appends.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A string's text; where it is short and holds escapes, still as it stands in the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawStr<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) escaped: bool,
}

impl<'a> RawStr<'a> {
    /// The text, using `buffer` only where there are escapes left.
    pub(super) fn text<'b>(self, buffer: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        if !self.escaped {
            return self.bytes;
        }
        buffer.clear();
        unescape(self.bytes, buffer);
        buffer
    }

    /// The text as a `String`.
    pub(super) fn to_text(self) -> String {
        let text = self.text(&mut Vec::new()).to_vec();
        String::from_utf8(text).unwrap_or_default()
    }

    /// Puts the text into a sink.
    pub(super) fn put_into(self, sink: &mut impl Sink) {
        if self.escaped {
            let mut buffer = Vec::new();
            unescape(self.bytes, &mut buffer);
            sink.put(&buffer);
        } else {
            sink.put(self.bytes);
        }
    }
}

/// A place in valid JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    tape: &'a Tape,
    pub(super) at: usize,
    /// Into the tape's strings: the first at `at` or after it.
    pub(super) next: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at `at`, where `next` strings on the tape lie before.
    pub(super) fn new(bytes: &'a [u8], tape: &'a Tape, at: usize, next: usize) -> Self {
        Self {
            bytes,
            tape,
            at,
            next,
        }
    }

    /// The byte here; 0 at the end.
    #[inline]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn skip_space(&mut self) {
        while let b' ' | b'\n' | b'\t' | b'\r' = self.peek() {
            self.at += 1;
        }
    }

    /// The string here, where there is one; the cursor goes past it.
    #[inline]
    pub(super) fn string(&mut self) -> Option<RawStr<'a>> {
        if self.peek() != b'"' {
            return None;
        }
        let start = self.at;
        let taped = self.tape.strings.get(self.next);
        if let Some(long) = taped.filter(|long| long.start as usize == start) {
            self.next += 1;
            self.at = long.end as usize + 1;
            let bytes = match long.text {
                None => self
                    .bytes
                    .get(start + 1..long.end as usize)
                    .unwrap_or_default(),
                Some((from, to)) => self.tape.text(from, to),
            };
            return Some(RawStr {
                bytes,
                escaped: false,
            });
        }
        let (end, escaped) = short_string_end(self.bytes, start);
        self.at = end + 1;
        let bytes = self.bytes.get(start + 1..end).unwrap_or_default();
        Some(RawStr { bytes, escaped })
    }

    /// The number or literal here; the cursor goes past it.
    pub(super) fn scalar(&mut self) -> &'a [u8] {
        let start = self.at;
        while let b'a'..=b'z' | b'0'..=b'9' | b'-' | b'+' | b'.' | b'E' = self.peek() {
            self.at += 1;
        }
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Goes past the value here.
    #[inline]
    pub(super) fn skip(&mut self) {
        match self.peek() {
            b'"' => {
                self.string();
            }
            b'{' | b'[' => self.skip_container(),
            _ => {
                self.scalar();
            }
        }
    }

    fn skip_container(&mut self) {
        let mut level = 0_u32;
        while self.at < self.bytes.len() {
            match self.peek() {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => level += 1,
                b'}' | b']' => level -= 1,
                _ => {}
            }
            self.at += 1;
            if level == 0 {
                break;
            }
        }
    }

    /// Enters the container here, where it opens with `open`.
    pub(super) fn enter(&mut self, open: u8) -> bool {
        if self.peek() != open {
            return false;
        }
        self.at += 1;
        true
    }

    /// In an entered object: the next member's key, with the cursor at its value; `None` past the
    /// object's end. The caller goes past each value.
    pub(super) fn member(&mut self) -> Option<RawStr<'a>> {
        if !self.item() {
            return None;
        }
        let key = self.string()?;
        self.skip_space();
        self.at += 1;
        self.skip_space();
        Some(key)
    }

    /// In an entered array: whether there is another item, with the cursor at it; false past the
    /// array's end. The caller goes past each item.
    pub(super) fn item(&mut self) -> bool {
        self.skip_space();
        if self.peek() == b',' {
            self.at += 1;
            self.skip_space();
        }
        match self.peek() {
            b']' | b'}' | 0 => {
                self.at += 1;
                false
            }
            _ => true,
        }
    }
}

fn short_string_end(bytes: &[u8], start: usize) -> (usize, bool) {
    let mut at = start + 1;
    let mut escaped = false;
    loop {
        at = find_special(bytes, at);
        match bytes.get(at) {
            Some(b'\\') => {
                escaped = true;
                at += 2;
            }
            _ => return (at, escaped),
        }
    }
}

/// Appends the text of a short, valid string.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte == b'\\'
            && let Ok((length, character)) = escape(raw, at)
        {
            at += length;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            at += 1;
            out.push(byte);
        }
    }
}
