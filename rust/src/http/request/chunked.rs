//! Chunked transfer coding (RFC 9112, 7.1), for requests and responses alike.
//!
//! Strict: lines end with CR LF, and a size has 1 to 16 hex digits. Extensions are checked against
//! the grammar, bounded and ignored. Trailers are checked, bounded and dropped.

use std::borrow::Cow;

use memchr::memchr;
use smallvec::SmallVec;

use super::super::error::RequestError;
use super::{is_field_value, is_token, trim};

/// Longest line with a chunk's size and extensions, CR LF included.
pub const SIZE_LINE_BYTES_MAX: usize = 256;
/// Most bytes of chunk extensions in one body: a body of tiny chunks must not hide an endless
/// stream of extensions (CVE-2023-39326 is of this kind).
pub const EXTENSION_BYTES_MAX: usize = 4096;
/// Most bytes of trailers.
pub const TRAILER_BYTES_MAX: usize = 8192;

/// Follows the framing of one chunked body, however it is cut.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    state: State,
    /// Bytes of the chunk at hand that are still due.
    remaining: u64,
    /// A line that is not complete yet.
    line: SmallVec<[u8; 32]>,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Size,
    Data,
    /// CR LF behind a chunk's data.
    DataEnd,
    Trailers,
    Done,
}

/// Framing is broken; what was expected instead.
pub type Fault = &'static str;

impl Chunks {
    /// Reads on: how many bytes of `input` were used, and the body bytes among them (they are the last
    /// ones used). Uses at least one byte of a non-empty input until [`Chunks::done`].
    ///
    /// # Errors
    ///
    /// What was expected where the framing broke; the body is lost then.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<(usize, &'a [u8]), Fault> {
        match self.state {
            State::Size => Ok((self.size(input)?, &[])),
            State::Data => {
                let len =
                    usize::try_from(self.remaining).map_or(input.len(), |r| r.min(input.len()));
                self.remaining -= len as u64;
                if self.remaining == 0 {
                    self.state = State::DataEnd;
                }
                Ok((len, &input[..len]))
            }
            State::DataEnd => Ok((self.data_end(input)?, &[])),
            State::Trailers => Ok((self.trailer(input)?, &[])),
            State::Done => Ok((0, &[])),
        }
    }

    /// The last chunk and the trailers are through.
    #[must_use]
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Between two chunks: the next byte begins a size line.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.state == State::Size && self.line.is_empty()
    }

    /// Bytes still due of the chunk at hand.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes note that the last chunk was read elsewhere (the relay's fast path).
    pub fn finish(&mut self) {
        self.state = State::Done;
    }

    fn size(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let Some(used) = self.take_line(input, SIZE_LINE_BYTES_MAX)? else {
            return Ok(input.len());
        };
        let (size, extension_len) = parse_size(&content(&self.line, &input[..used])?)?;
        self.line.clear();
        self.extension_bytes += extension_len;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err("fewer chunk extensions");
        }
        self.remaining = size;
        self.state = if size == 0 {
            State::Trailers
        } else {
            State::Data
        };
        Ok(used)
    }

    fn data_end(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let due = &b"\r\n"[self.line.len()..];
        let used = due.len().min(input.len());
        if input[..used] != due[..used] {
            return Err("CR LF behind a chunk's data");
        }
        if used == due.len() {
            self.line.clear();
            self.state = State::Size;
        } else {
            self.line.extend_from_slice(&input[..used]);
        }
        Ok(used)
    }

    fn trailer(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let room = TRAILER_BYTES_MAX - self.trailer_bytes;
        let Some(used) = self.take_line(input, room)? else {
            return Ok(input.len());
        };
        self.trailer_bytes += self.line.len() + used;
        let line = content(&self.line, &input[..used])?;
        if line.is_empty() {
            self.state = State::Done;
        } else {
            check_trailer(&line)?;
        }
        self.line.clear();
        Ok(used)
    }

    /// Length of the rest of the line at hand, its LF included; keeps the bytes where it is cut off.
    fn take_line(&mut self, input: &[u8], len_max: usize) -> Result<Option<usize>, Fault> {
        let lf = memchr(b'\n', input);
        let len = lf.map_or(input.len(), |at| at + 1);
        if self.line.len() + len > len_max {
            return Err("a shorter line");
        }
        if lf.is_none() {
            self.line.extend_from_slice(input);
        }
        Ok(lf.map(|at| at + 1))
    }
}

/// A line without its CR LF, from the part kept and the part at hand.
fn content<'a>(kept: &[u8], rest: &'a [u8]) -> Result<Cow<'a, [u8]>, Fault> {
    let line = if kept.is_empty() {
        Cow::Borrowed(rest)
    } else {
        Cow::Owned([kept, rest].concat())
    };
    let len = match line.strip_suffix(b"\r\n") {
        Some(content) if memchr(b'\r', content).is_none() => content.len(),
        _ => return Err("CR LF at the end of a line"),
    };
    Ok(match line {
        Cow::Borrowed(line) => Cow::Borrowed(&line[..len]),
        Cow::Owned(mut line) => {
            line.truncate(len);
            Cow::Owned(line)
        }
    })
}

/// Size, and length of the extensions, of a size line without its CR LF.
fn parse_size(line: &[u8]) -> Result<(u64, usize), Fault> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 16 {
        return Err("a chunk size of 1 to 16 hex digits");
    }
    let size = line[..digits]
        .iter()
        .fold(0_u64, |n, d| (n << 4) | hex_value(*d));
    if line.len() > digits {
        check_extensions(&line[digits..])?;
    }
    Ok((size, line.len() - digits))
}

/// The value of a hex digit.
pub(crate) fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a').wrapping_add(10),
    })
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112, 7.1.1).
fn check_extensions(mut rest: &[u8]) -> Result<(), Fault> {
    const FAULT: Fault = "well-formed chunk extensions";
    while !rest.is_empty() {
        rest = skip_space(rest).strip_prefix(b";").ok_or(FAULT)?;
        rest = skip_token(skip_space(rest)).ok_or(FAULT)?;
        if let Some(value) = skip_space(rest).strip_prefix(b"=") {
            let value = skip_space(value);
            rest = skip_token(value)
                .or_else(|| skip_quoted(value))
                .ok_or(FAULT)?;
        }
    }
    Ok(())
}

fn skip_space(text: &[u8]) -> &[u8] {
    let len = text
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    &text[len..]
}

fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let len = text
        .iter()
        .take_while(|b| is_token(std::slice::from_ref(b)))
        .count();
    (len > 0).then(|| &text[len..])
}

fn skip_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', b, behind @ ..] | [b, behind @ ..] if is_field_value(&[*b]) => rest = behind,
            _ => return None,
        }
    }
}

/// A trailer field is a header field: no folding, no space before the colon.
fn check_trailer(line: &[u8]) -> Result<(), Fault> {
    let colon = memchr(b':', line).ok_or("a trailer field")?;
    if is_token(&line[..colon]) && is_field_value(trim(&line[colon + 1..])) {
        Ok(())
    } else {
        Err("a trailer field")
    }
}

/// Decoder of a chunked request body.
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    chunks: Chunks,
    body_bytes: u64,
    body_bytes_max: u64,
    rest: Vec<u8>,
    failed: bool,
    /// The framing broke behind a 413.
    lost: bool,
}

impl BodyDecoder {
    /// A decoder that refuses bodies of more than `body_bytes_max` bytes.
    #[must_use]
    pub fn new(body_bytes_max: u64) -> Self {
        Self {
            chunks: Chunks::default(),
            body_bytes: 0,
            body_bytes_max,
            rest: Vec::new(),
            failed: false,
            lost: false,
        }
    }

    /// The body bytes in `data`; without a copy where they lie in one piece.
    ///
    /// # Errors
    ///
    /// 400 for bad framing, 413 as soon as a chunk is announced that leads over the limit.
    pub fn feed<'a>(&mut self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, RequestError> {
        if self.failed || self.chunks.done() {
            return Err(bad_chunk("nothing behind the body"));
        }
        let body = self.decode(data);
        self.failed = body.is_err();
        body
    }

    fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, RequestError> {
        let mut body = Cow::Borrowed(&[][..]);
        let mut at = 0;
        while at < data.len() && !self.chunks.done() {
            let (used, piece) = self.chunks.step(&data[at..]).map_err(bad_chunk)?;
            at += used;
            self.body_bytes += piece.len() as u64;
            if self.chunks.remaining() > self.body_bytes_max.saturating_sub(self.body_bytes) {
                self.lost = self.skip(&data[at..]).is_err();
                return Err(RequestError::new(
                    "body_too_large",
                    format!("A request body may have {} bytes.", self.body_bytes_max),
                )
                .closing());
            }
            if body.is_empty() {
                body = Cow::Borrowed(piece);
            } else if !piece.is_empty() {
                body.to_mut().extend_from_slice(piece);
            }
        }
        self.rest.extend_from_slice(&data[at..]);
        Ok(body)
    }

    /// Follows the framing of a body that nobody wants, of whatever size; also behind a 413.
    ///
    /// # Errors
    ///
    /// 400 for bad framing: where the body ends is not known any more.
    pub fn skip(&mut self, data: &[u8]) -> Result<(), RequestError> {
        if self.lost {
            return Err(bad_chunk("a chunk"));
        }
        let mut at = 0;
        while at < data.len() && !self.chunks.done() {
            match self.chunks.step(&data[at..]) {
                Ok((used, _)) => at += used,
                Err(fault) => {
                    self.lost = true;
                    return Err(bad_chunk(fault));
                }
            }
        }
        self.rest.extend_from_slice(&data[at..]);
        Ok(())
    }

    /// The body is complete.
    #[must_use]
    pub fn done(&self) -> bool {
        self.chunks.done()
    }

    /// Bytes behind the body's end, once [`BodyDecoder::done`].
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }
}

fn bad_chunk(expected: Fault) -> RequestError {
    RequestError::new(
        "bad_chunk",
        format!("The chunked body is malformed: {expected} expected."),
    )
    .closing()
}
