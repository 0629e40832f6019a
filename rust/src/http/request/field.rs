//! Header fields: what a name means to us, and the character classes of RFC 9110, 5.

use smallvec::SmallVec;

use super::super::steer::{self, FOLDED_NAME_BYTES_MAX, Fate, fold};

/// A range of a head's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The range `start..end`; both lie within a head.
    pub(super) fn new(start: usize, end: usize) -> Self {
        let narrow = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            start: narrow(start),
            end: narrow(end),
        }
    }

    /// Where `part`, a slice of `whole`, lies in it.
    pub(super) fn locate(part: &[u8], whole: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        Self::new(start, start + part.len())
    }

    /// The bytes.
    pub(super) fn of(self, whole: &[u8]) -> &[u8] {
        whole
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// One header field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub name: Span,
    pub value: Span,
    pub kind: Kind,
}

/// What a field is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// End-to-end: passed on.
    Plain,
    /// Hop-by-hop, ours, or named in `Connection`: never passed on.
    Hop,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    ContentType,
    ContentEncoding,
    /// `Authorization`.
    Authorization,
    /// `X-Api-Key`.
    ApiKey,
    /// `Api-Key`, as Azure has it.
    BareApiKey,
    /// `Forwarded`, `X-Real-Ip` and `X-Forwarded-*` but the next two.
    Forwarded,
    ForwardedFor,
    ForwardedProto,
    RequestId,
    Traceparent,
    /// Steers an engine: passed on from trusted senders only.
    Steering,
}

impl Kind {
    /// It is for proxies to add or change, and nothing is decided by it.
    pub(crate) fn varies(self) -> bool {
        !matches!(
            self,
            Self::Plain
                | Self::ContentType
                | Self::ContentEncoding
                | Self::Authorization
                | Self::ApiKey
                | Self::BareApiKey
                | Self::Steering
        )
    }

    /// The meaning of a header name, in any case.
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::Hop,
            4 if is(b"host") => Self::Host,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"upgrade") => Self::Upgrade,
            7 if is(b"trailer") => Self::Hop,
            7 if is(b"api-key") => Self::BareApiKey,
            9 if is(b"x-api-key") => Self::ApiKey,
            9 if is(b"forwarded") || is(b"x-real-ip") => Self::Forwarded,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::Hop,
            11 if is(b"traceparent") => Self::Traceparent,
            12 if is(b"content-type") => Self::ContentType,
            12 if is(b"x-request-id") => Self::RequestId,
            13 if is(b"authorization") => Self::Authorization,
            14 if is(b"content-length") => Self::ContentLength,
            14 if is(b"http2-settings") => Self::Hop,
            15 if is(b"accept-encoding") => Self::Hop,
            15 if is(b"x-forwarded-for") => Self::ForwardedFor,
            16 if is(b"content-encoding") => Self::ContentEncoding,
            16 if is(b"proxy-connection") => Self::Hop,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            17 if is(b"x-forwarded-proto") => Self::ForwardedProto,
            18 if is(b"proxy-authenticate") => Self::Hop,
            19 if is(b"proxy-authorization") => Self::Hop,
            _ => Self::of_prefix(name),
        }
    }

    /// Names that are not known byte for byte: whole families, and any name with `_` for `-`, which
    /// some servers do not tell apart.
    fn of_prefix(name: &[u8]) -> Self {
        if has_prefix(name, b"x-skylb") {
            return Self::Hop;
        }
        if has_prefix(name, b"x-forwarded-") {
            return Self::Forwarded;
        }
        match steer::header(name) {
            Fate::Passed => Self::of_folded(name),
            Fate::Dropped => Self::Hop,
            _ => Self::Steering,
        }
    }

    /// A name that is one of ours but for its underscores means nothing to us, and what it means to
    /// others is not to be found out.
    fn of_folded(name: &[u8]) -> Self {
        if memchr::memchr(b'_', name).is_none() || name.len() > FOLDED_NAME_BYTES_MAX {
            return Self::Plain;
        }
        let folded: SmallVec<[u8; FOLDED_NAME_BYTES_MAX]> = name.iter().map(|b| fold(*b)).collect();
        match Self::of(&folded) {
            Self::Plain => Self::Plain,
            Self::Forwarded => Self::Forwarded,
            _ => Self::Hop,
        }
    }
}

/// Compares case-insensitively, and `_` like `-`.
fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    name.len() >= prefix.len() && name.iter().zip(prefix).all(|(a, b)| fold(*a) == *b)
}

/// A token (RFC 9110, 5.6.2): one or more `tchar`.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| is_tchar(*b))
}

fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A field value (RFC 9110, 5.5): visible characters, obs-text, space and tab.
pub(crate) fn is_field_value(text: &[u8]) -> bool {
    text.iter()
        .all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f))
}

/// Without optional white space at both ends.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of a comma list, empty ones left out (RFC 9110, 5.6.1.2). Quoted strings are not
/// understood: the lists we read are made of tokens.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value
        .split(|b| *b == b',')
        .map(trim)
        .filter(|e| !e.is_empty())
}
