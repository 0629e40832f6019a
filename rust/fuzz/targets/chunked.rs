//! Chunked request bodies: [`BodyDecoder`], against a decoder that reads whole inputs line by line.

use skylb_core::http::request::chunked::{
    BodyDecoder, EXTENSION_BYTES_MAX, SIZE_LINE_BYTES_MAX, TRAILER_BYTES_MAX,
};

use super::{behind, pieces, table};

/// What becomes of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Complete { body: Vec<u8>, rest: Vec<u8> },
    Incomplete { body: Vec<u8> },
    Refused(u16),
}

pub fn seeds() -> Vec<Vec<u8>> {
    let requests = table(include_str!("../../../tests/data/http_requests.json"));
    let bodies = requests.into_iter().filter_map(|raw| {
        let at = raw.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(raw[at + 4..].to_vec()).filter(|body| !body.is_empty())
    });
    behind(&[255, 7, 1], bodies.collect())
}

pub fn run(data: &[u8]) {
    let Some((&[limit, how @ ..], wire)) = data.split_first_chunk::<3>() else {
        return;
    };
    let limit = if limit == 255 {
        u64::MAX
    } else {
        u64::from(limit) * 4
    };
    let expected = oracle(wire, limit);
    let end = oracle(wire, u64::MAX);
    for how in [[0, 0], [1, 0], how] {
        assert_eq!(
            decode(wire, limit, how, &end),
            expected,
            "in pieces of {how:?}"
        );
    }
}

/// What the decoder makes of it; behind a 413 it has to find the end that `end` says.
fn decode(wire: &[u8], limit: u64, how: [u8; 2], end: &Outcome) -> Outcome {
    let mut decoder = BodyDecoder::new(limit);
    let mut body = Vec::new();
    let mut refused = None;
    let mut lost = false;
    let mut behind = Vec::new();
    for piece in pieces(wire, how) {
        if decoder.done() {
            behind.extend_from_slice(piece);
        } else if refused.is_some() {
            lost |= decoder.skip(piece).is_err();
        } else {
            match decoder.feed(piece) {
                Ok(part) => body.extend_from_slice(&part),
                Err(error) => refused = Some(error.status),
            }
        }
    }
    let rest = [decoder.rest(), &behind].concat();
    if refused == Some(413) {
        lost |= decoder.skip(b"").is_err();
        match end {
            Outcome::Complete { rest: expected, .. } => {
                assert!(decoder.done() && !lost);
                assert_eq!(rest, *expected);
            }
            Outcome::Incomplete { .. } => assert!(!decoder.done() && !lost),
            Outcome::Refused(_) => assert!(lost),
        }
    }
    match refused {
        Some(status) => Outcome::Refused(status),
        None if decoder.done() => Outcome::Complete { body, rest },
        None => Outcome::Incomplete { body },
    }
}

fn oracle(wire: &[u8], limit: u64) -> Outcome {
    let mut body = Vec::new();
    let mut extensions = 0;
    let mut at = 0;
    loop {
        let line = match line(&wire[at..], SIZE_LINE_BYTES_MAX) {
            Ok(Some(line)) => line,
            Ok(None) => return Outcome::Incomplete { body },
            Err(()) => return Outcome::Refused(400),
        };
        at += line.len() + 2;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        extensions += line.len() - digits;
        let text = std::str::from_utf8(&line[..digits]).expect("digits are ASCII");
        let size = u64::from_str_radix(text, 16).ok().filter(|_| digits <= 16);
        let Some(size) = size else {
            return Outcome::Refused(400);
        };
        if !are_extensions(&line[digits..]) || extensions > EXTENSION_BYTES_MAX {
            return Outcome::Refused(400);
        }
        if size > limit.saturating_sub(body.len() as u64) {
            return Outcome::Refused(413);
        }
        if size == 0 {
            return trailers(wire, at, body);
        }
        let rest = &wire[at..];
        let len = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        body.extend_from_slice(&rest[..len]);
        at += len;
        if len as u64 == size {
            let end = &wire[at..wire.len().min(at + 2)];
            if !b"\r\n".starts_with(end) {
                return Outcome::Refused(400);
            }
            at += end.len();
        }
        if at == wire.len() {
            return Outcome::Incomplete { body };
        }
    }
}

fn trailers(wire: &[u8], mut at: usize, body: Vec<u8>) -> Outcome {
    let begin = at;
    loop {
        match line(&wire[at..], TRAILER_BYTES_MAX - (at - begin)) {
            Ok(Some([])) => {
                let rest = wire[at + 2..].to_vec();
                return Outcome::Complete { body, rest };
            }
            Ok(Some(line)) if is_trailer(line) => at += line.len() + 2,
            Ok(None) => return Outcome::Incomplete { body },
            _ => return Outcome::Refused(400),
        }
    }
}

/// The line that `text` begins with, without its CR LF; `None` while it is incomplete.
fn line(text: &[u8], len_max: usize) -> Result<Option<&[u8]>, ()> {
    let end = text.iter().position(|byte| *byte == b'\n');
    let len = end.map_or(text.len(), |end| end + 1);
    if len > len_max {
        return Err(());
    }
    let Some(end) = end else {
        return Ok(None);
    };
    let line = text[..end].strip_suffix(b"\r").ok_or(())?;
    if line.contains(&b'\r') {
        Err(())
    } else {
        Ok(Some(line))
    }
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn is_trailer(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return false;
    };
    colon > 0
        && line[..colon].iter().all(|byte| is_tchar(*byte))
        && line[colon + 1..].iter().all(|byte| is_value(*byte))
}

/// RFC 9112, 7.1.1, by a machine of states over its bytes.
#[expect(clippy::match_same_arms, reason = "in the order of the states")]
fn are_extensions(text: &[u8]) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        /// Behind the size or a quoted value: `;` or space.
        Semicolon,
        /// Behind a `;`.
        BeforeName,
        Name,
        /// Space behind a name: `=` or `;`.
        BehindName,
        BeforeValue,
        Value,
        Quoted,
        Escaped,
    }
    let mut state = State::Semicolon;
    for &byte in text {
        let is_space = matches!(byte, b' ' | b'\t');
        state = match state {
            State::Semicolon if byte == b';' => State::BeforeName,
            State::Semicolon if is_space => State::Semicolon,
            State::BeforeName if is_space => State::BeforeName,
            State::BeforeName | State::Name if is_tchar(byte) => State::Name,
            State::Name | State::BehindName if byte == b'=' => State::BeforeValue,
            State::Name | State::BehindName if byte == b';' => State::BeforeName,
            State::Name | State::BehindName if is_space => State::BehindName,
            State::BeforeValue if is_space => State::BeforeValue,
            State::BeforeValue if byte == b'"' => State::Quoted,
            State::BeforeValue | State::Value if is_tchar(byte) => State::Value,
            State::Value if byte == b';' => State::BeforeName,
            State::Value if is_space => State::Semicolon,
            State::Quoted if byte == b'"' => State::Semicolon,
            State::Quoted if byte == b'\\' => State::Escaped,
            State::Quoted | State::Escaped if is_value(byte) => State::Quoted,
            _ => return false,
        };
    }
    // Space at the end belongs to an extension that never comes.
    let ends = matches!(state, State::Semicolon | State::Name | State::Value);
    ends && !text.last().is_some_and(|byte| matches!(byte, b' ' | b'\t'))
}
