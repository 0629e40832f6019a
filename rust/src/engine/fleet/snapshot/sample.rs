//! One sample line of the Prometheus text format: `name{label="value",...} number [time]`.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// A sample line, split where its name ends; what follows is parsed on demand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Sample<'a> {
    pub(super) fn split(text: &'a [u8]) -> Self {
        let end = memchr2(b'{', b' ', text).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        Self { name, rest }
    }

    /// The labels, escapes as they stand.
    pub(super) fn labels(&self) -> Labels<'a> {
        Labels {
            rest: self.rest.strip_prefix(b"{").unwrap_or_default(),
        }
    }

    /// The sample's value; `None` when it is no number.
    pub(super) fn value(&self) -> Option<f64> {
        let after = match self.rest.first() {
            Some(b'{') => {
                let mut labels = self.labels();
                labels.by_ref().for_each(drop);
                labels.rest.strip_prefix(b"}")?
            }
            _ => self.rest,
        };
        let after = after.trim_ascii();
        let end = memchr2(b' ', b'\t', after).unwrap_or(after.len());
        float(&after[..end])
    }
}

/// The labels of one line, in order. Stops before `}`, or for good at what is no label.
#[derive(Debug, Clone)]
pub(super) struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Labels<'a> {
    /// The first label of that name, unescaped.
    pub(super) fn get(mut self, name: &[u8]) -> Option<Cow<'a, [u8]>> {
        self.find(|(n, _)| *n == name)
            .map(|(_, value)| unescape(value))
    }
}

impl<'a> Iterator for Labels<'a> {
    /// Name and value, escapes as they stand.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_ascii_start();
        let rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        if rest.first() == Some(&b'}') {
            self.rest = rest;
            return None;
        }
        self.rest = b"";
        let equals = memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let quoted = rest[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
        let end = closing_quote(quoted)?;
        self.rest = &quoted[end + 1..];
        Some((name, &quoted[..end]))
    }
}

/// Where a label's value ends: the first quote that no backslash escapes.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Resolves `\\`, `\"` and `\n`; other escapes stay as they are.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let (byte, tail) = match (byte, tail) {
            (b'\\', [escaped @ (b'\\' | b'"'), tail @ ..]) => (*escaped, tail),
            (b'\\', [b'n', tail @ ..]) => (b'\n', tail),
            _ => (*byte, tail),
        };
        out.push(byte);
        rest = tail;
    }
    Cow::Owned(out)
}

/// A decimal number; `NaN` and infinities are numbers too.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
