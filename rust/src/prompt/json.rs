//! Strict JSON (RFC 8259) in one pass, without a tree.
//!
//! [`Scan`] checks the grammar. It puts long strings on a [`Tape`], unescaped where they hold escapes. So the
//! second pass need not search for their ends or unescape them again; it is a [`super::cursor::Cursor`] over what
//! is known to be valid. Work is linear in the input and bounded in depth and count, stack use is constant.
//!
//! It is stricter than the RFC asks. It refuses lone surrogates, which have no UTF-8, and numbers of more
//! than [`NUMBER_BYTES_MAX`] bytes. It refuses nesting over [`DEPTH_MAX`], more than [`KEYS_MAX`] object
//! members, and more than [`VALUES_MAX`] values.

use super::cursor::RawStr;
use super::escape::{ESCAPES, escape};
use super::fault::{Checked, Malformed};
use super::lanes::{RUN, find_special, special_in_run};
use super::tape::{LongString, Tape, narrow};
use crate::http::steer;

/// Levels of nesting, the outermost included.
pub(super) const DEPTH_MAX: u32 = 128;
/// Object members of one body.
pub(super) const KEYS_MAX: u32 = 1 << 20;
/// Values of one body: as many as 64 MiB hold, the largest body by default.
pub(super) const VALUES_MAX: u32 = 1 << 25;
/// Bytes of one number.
pub(super) const NUMBER_BYTES_MAX: usize = 512;
/// Strings from this length on are remembered.
const LONG_STRING_BYTES: usize = 32;

/// The first pass.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) tape: &'a mut Tape,
    keys: u32,
    values: u32,
    /// Keys of the objects that are scanned now may name what only trusted senders may use.
    pub(super) watched: bool,
    /// The first that did.
    pub(super) steering: Option<&'static str>,
}

impl<'a> Scan<'a> {
    /// A scan of `bytes` (valid UTF-8, shorter than 4 GiB) that leaves its strings on `tape`.
    pub(super) fn new(bytes: &'a [u8], tape: &'a mut Tape) -> Self {
        tape.clear();
        Self {
            bytes,
            at: 0,
            tape,
            keys: 0,
            values: 0,
            watched: false,
            steering: None,
        }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    pub(super) fn fault<T>(&self, what: &'static str) -> Checked<T> {
        Err(Malformed {
            at: self.at,
            what,
            is_bound: false,
        })
    }

    #[cold]
    fn bound<T>(&self, what: &'static str) -> Checked<T> {
        Err(Malformed {
            at: self.at,
            what,
            is_bound: true,
        })
    }

    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Checked {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.fault(what)
    }

    /// A member's key and its colon; leaves the scan at the value. Returns the key's bytes between
    /// its quotes and whether they hold escapes.
    pub(super) fn key(&mut self) -> Checked<(&'a [u8], bool)> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.fault("a key in double quotes");
        }
        self.keys += 1;
        if self.keys > KEYS_MAX {
            return self.bound("fewer object members");
        }
        let escaped = self.string()?;
        let key = self.bytes.get(start + 1..self.at - 1).unwrap_or_default();
        self.skip_space();
        self.expect(b':', "':'")?;
        self.skip_space();
        if self.watched {
            self.watch(RawStr {
                bytes: key,
                escaped,
            });
        }
        Ok((key, escaped))
    }

    /// Takes note of a key that steers an engine, unless its value is null.
    fn watch(&mut self, key: RawStr<'_>) {
        let found = steer::refused(key.text(&mut Vec::new()));
        if self.steering.is_none() && self.peek() != Some(b'n') {
            self.steering = found;
        }
    }

    /// Any value, from its first byte to after its last; `depth` levels are open around it.
    pub(super) fn value(&mut self, depth: u32) -> Checked {
        // One bit per open level: set for an object.
        let mut open: u128 = 0;
        let mut level = 0;
        loop {
            self.values += 1;
            if self.values > VALUES_MAX {
                return self.bound("fewer values");
            }
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + level >= DEPTH_MAX {
                        return self.bound("less nesting");
                    }
                    let is_object = bracket == b'{';
                    open = open << 1 | u128::from(is_object);
                    level += 1;
                    self.at += 1;
                    self.skip_space();
                    if self.peek() == Some(bracket + 2) {
                        self.at += 1;
                        open >>= 1;
                        level -= 1;
                    } else {
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return self.fault("a value"),
            }
            if self.close(&mut open, &mut level)? {
                return Ok(());
            }
        }
    }

    /// What follows a value: true where the outermost one has ended, false before another value.
    #[inline]
    fn close(&mut self, open: &mut u128, level: &mut u32) -> Checked<bool> {
        while *level > 0 {
            self.skip_space();
            let is_object = *open & 1 == 1;
            match (self.peek(), is_object) {
                (Some(b','), _) => {
                    self.at += 1;
                    self.skip_space();
                    if is_object {
                        self.key()?;
                    }
                    return Ok(false);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    *open >>= 1;
                    *level -= 1;
                }
                (_, true) => return self.fault("',' or '}'"),
                (_, false) => return self.fault("',' or ']'"),
            }
        }
        Ok(true)
    }

    /// A string, from its opening quote to after its closing one; true where it holds escapes.
    #[inline]
    fn string(&mut self) -> Checked<bool> {
        let start = self.at;
        self.at = find_special(self.bytes, start + 1);
        let text_start = self.tape.text_len();
        let escaped = self.peek() == Some(b'\\');
        if escaped {
            self.unescape(start + 1)?;
        }
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return self.fault("no control character in a string"),
            None => return self.fault("the end of a string"),
        }
        if self.at - start >= LONG_STRING_BYTES {
            let text_end = self.tape.text_len();
            self.tape.strings.push(LongString {
                start: narrow(start),
                end: narrow(self.at),
                text: escaped.then(|| (narrow(text_start), narrow(text_end))),
            });
        } else if escaped {
            self.tape.truncate_text(text_start);
        }
        self.at += 1;
        Ok(escaped)
    }

    /// From a string's first escape to its end, putting all of its text on the tape. Goes by fixed
    /// runs, so that the search in one does not wait for what the one before it held.
    fn unescape(&mut self, start: usize) -> Checked {
        let bytes = self.bytes;
        self.tape.put(bytes.get(start..self.at).unwrap_or_default());
        while let Some(run) = bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<{ 2 * RUN }>())
        {
            let base = self.at;
            let mut from = 0;
            let mut specials = run.first_chunk().map_or(0, special_in_run);
            while specials != 0 {
                let found = specials.trailing_zeros() as usize;
                self.put_part(base + from, found - from);
                self.at = base + found;
                if run[found] != b'\\' {
                    return Ok(());
                }
                match ESCAPES[usize::from(run[found + 1])] {
                    0 => self.put_escape()?,
                    byte => {
                        self.tape.put_byte(byte);
                        self.at += 2;
                    }
                }
                from = self.at - base;
                specials = if from < RUN {
                    specials & (u64::MAX << from)
                } else {
                    0
                };
            }
            if from < RUN {
                self.put_part(base + from, RUN - from);
                self.at = base + RUN;
            }
        }
        self.unescape_rest()
    }

    /// The same near the body's end, byte by byte.
    fn unescape_rest(&mut self) -> Checked {
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' => self.put_escape()?,
                b'"' | 0..0x20 => return Ok(()),
                _ => {
                    self.tape.put(&[byte]);
                    self.at += 1;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn put_part(&mut self, at: usize, length: usize) {
        if let Some(run) = self
            .bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<RUN>())
        {
            self.tape.put_run(run, length);
        }
    }

    fn put_escape(&mut self) -> Checked {
        let (length, character) = escape(self.bytes, self.at)?;
        self.at += length;
        self.tape.put(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn number(&mut self) -> Checked {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.fault("a digit"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.at - start > NUMBER_BYTES_MAX {
            return self.bound("a shorter number");
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Checked {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            return self.fault("a digit");
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static [u8]) -> Checked {
        if self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word))
        {
            self.at += word.len();
            return Ok(());
        }
        self.fault("a value")
    }

    /// Nothing but space may follow.
    pub(super) fn end(&mut self) -> Checked {
        self.skip_space();
        if self.at == self.bytes.len() {
            return Ok(());
        }
        self.fault("the end of the body")
    }
}
