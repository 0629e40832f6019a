//! What header fields mean together: framing, `Host`, connection, content.

use super::super::error::RequestError;
use super::super::route::BodyKind;
use super::field::{Field, Kind};
use super::target::is_authority;
use super::{CHUNKED, is_token, list};

/// Most options of all `Connection` fields together.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// What the fields of one head say. The slices point into the head.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// One bit per [`Kind`] that was seen.
    seen: u32,
    host: &'a [u8],
    content_length: &'a [u8],
    transfer_encoding: &'a [u8],
    content_type: &'a [u8],
    content_encoding: &'a [u8],
    expect: &'a [u8],
    connection: Connection,
    websocket: bool,
    /// The `Connection` values, for the names in them.
    connections: smallvec::SmallVec<[&'a [u8]; 2]>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Connection {
    close: bool,
    keep_alive: bool,
    options: usize,
    /// Options other than `close` and `keep-alive`: names of fields.
    named: bool,
}

impl<'a> Facts<'a> {
    /// Takes note of one field that means something to us.
    pub(super) fn read(&mut self, kind: Kind, value: &'a [u8]) -> Result<(), RequestError> {
        let repeated = self.has(kind);
        self.seen |= 1 << kind as u32;
        match kind {
            Kind::Host => self.host = value,
            Kind::ContentLength => self.content_length = value,
            Kind::TransferEncoding => self.transfer_encoding = value,
            Kind::ContentType => self.content_type = value,
            Kind::ContentEncoding => self.content_encoding = value,
            Kind::Expect => self.expect = value,
            Kind::Authorization | Kind::ApiKey | Kind::BareApiKey => {}
            Kind::Connection => {
                self.connections.push(value);
                return self.read_connection(value);
            }
            Kind::Upgrade => {
                self.websocket |= list(value).any(is_websocket);
                return Ok(());
            }
            _ => return Ok(()),
        }
        if repeated {
            return Err(repeated_field(kind));
        }
        Ok(())
    }

    fn read_connection(&mut self, value: &[u8]) -> Result<(), RequestError> {
        for option in list(value) {
            self.connection.options += 1;
            if self.connection.options > CONNECTION_OPTIONS_MAX || !is_token(option) {
                return Err(bad(
                    "bad_connection",
                    "The Connection header must be a short list of names.",
                ));
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.connection.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.connection.keep_alive = true;
            } else {
                self.connection.named = true;
            }
        }
        Ok(())
    }

    /// Marks every field named in `Connection` as hop-by-hop (RFC 9110, 7.6.1).
    pub(super) fn mark_named(&self, bytes: &[u8], fields: &mut [Field]) {
        if !self.connection.named {
            return;
        }
        for option in self.connections.iter().flat_map(|v| list(v)) {
            for field in fields.iter_mut() {
                if field.name.of(bytes).eq_ignore_ascii_case(option) {
                    field.kind = Kind::Hop;
                }
            }
        }
    }

    /// The connection persists (RFC 9112, 9.3).
    pub(super) fn keep_alive(&self, http11: bool) -> bool {
        !self.connection.close && (http11 || self.connection.keep_alive)
    }

    /// `Expect: 100-continue`.
    pub(super) fn expects_continue(&self) -> bool {
        self.expect.eq_ignore_ascii_case(b"100-continue")
    }

    fn has(&self, kind: Kind) -> bool {
        self.seen & (1 << kind as u32) != 0
    }
}

/// `websocket`, with or without a version (`websocket/13`).
fn is_websocket(protocol: &[u8]) -> bool {
    let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
    name.eq_ignore_ascii_case(b"websocket")
}

fn repeated_field(kind: Kind) -> RequestError {
    let (code, name) = match kind {
        Kind::Host => ("bad_host", "Host"),
        Kind::ContentLength => ("bad_content_length", "Content-Length"),
        Kind::TransferEncoding => ("bad_transfer_encoding", "Transfer-Encoding"),
        Kind::ContentType => ("bad_header", "Content-Type"),
        Kind::ContentEncoding => ("bad_header", "Content-Encoding"),
        Kind::Expect => ("bad_header", "Expect"),
        Kind::ApiKey => ("bad_header", "X-Api-Key"),
        Kind::BareApiKey => ("bad_header", "Api-Key"),
        _ => ("bad_header", "Authorization"),
    };
    bad(code, format!("The {name} header must come once only."))
}

/// One valid `Host` (RFC 9112, 3.2), which an absolute target must repeat.
pub(super) fn check_host(
    facts: &Facts<'_>,
    http11: bool,
    authority: Option<&[u8]>,
) -> Result<(), RequestError> {
    if !facts.has(Kind::Host) {
        return if http11 || authority.is_some() {
            Err(bad("bad_host", "HTTP/1.1 requires a Host header."))
        } else {
            Ok(())
        };
    }
    if !is_authority(facts.host) {
        return Err(bad(
            "bad_host",
            "The Host header must be HOST or HOST:PORT.",
        ));
    }
    match authority {
        Some(authority) if !authority.eq_ignore_ascii_case(facts.host) => Err(bad(
            "bad_host",
            "The target's authority differs from the Host header.",
        )),
        _ => Ok(()),
    }
}

/// The body's declared length, [`CHUNKED`] when chunked (RFC 9112, 6).
pub(super) fn body_length(facts: &Facts<'_>, http11: bool) -> Result<i64, RequestError> {
    if facts.has(Kind::TransferEncoding) {
        if facts.has(Kind::ContentLength) {
            return Err(bad(
                "bad_content_length",
                "Content-Length and Transfer-Encoding exclude each other.",
            ));
        }
        if !http11 {
            return Err(bad(
                "bad_transfer_encoding",
                "HTTP/1.0 has no Transfer-Encoding.",
            ));
        }
        return chunked(facts.transfer_encoding);
    }
    if !facts.has(Kind::ContentLength) {
        return Ok(0);
    }
    let digits = facts.content_length;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(bad(
            "bad_content_length",
            "Content-Length must be a number.",
        ));
    }
    digits
        .iter()
        .try_fold(0_i64, |n, d| {
            n.checked_mul(10)?.checked_add(i64::from(d - b'0'))
        })
        .ok_or_else(|| RequestError::new("body_too_large", "The declared body is too large."))
}

/// Exactly `chunked`, once. A coding we do not know is a 501 (RFC 9112, 6.1), anything else a 400.
fn chunked(value: &[u8]) -> Result<i64, RequestError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(CHUNKED);
    }
    let codings = list(value);
    let well_formed = codings.clone().all(is_token);
    let is_unknown = codings.clone().any(|c| !is_chunked(c));
    let chunked_count = codings.clone().filter(|c| is_chunked(c)).count();
    let last_is_chunked = codings.last().is_some_and(is_chunked);
    if well_formed && is_unknown && chunked_count == usize::from(last_is_chunked) {
        return Err(RequestError::new(
            "unsupported_transfer_encoding",
            "The only transfer coding is 'chunked'.",
        ));
    }
    Err(bad(
        "bad_transfer_encoding",
        "Transfer-Encoding must be 'chunked'.",
    ))
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"chunked")
}

/// Whether the body is one the route reads; `length` is 0 without one.
pub(super) fn check_content(
    facts: &Facts<'_>,
    body: BodyKind,
    length: i64,
) -> Result<(), RequestError> {
    if body == BodyKind::None {
        return if length == 0 {
            Ok(())
        } else {
            Err(bad("unexpected_body", "This method takes no body."))
        };
    }
    if facts.has(Kind::ContentEncoding) && !facts.content_encoding.eq_ignore_ascii_case(b"identity")
    {
        return Err(RequestError::new(
            "unsupported_content_encoding",
            "Request bodies must not be compressed.",
        ));
    }
    let (media_type, parameters) = media_type(facts.content_type);
    let wanted: &[u8] = match body {
        BodyKind::OptionalJson if length == 0 => return Ok(()),
        BodyKind::Multipart => b"multipart/form-data",
        _ => b"application/json",
    };
    if !media_type.eq_ignore_ascii_case(wanted)
        || (body == BodyKind::Multipart && parameters.is_empty())
    {
        return Err(RequestError::new(
            "unsupported_media_type",
            format!("Content-Type must be {}.", String::from_utf8_lossy(wanted)),
        )
        .param("content-type"));
    }
    Ok(())
}

/// A media type and its parameters, which are not looked at.
fn media_type(value: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b';', value) {
        Some(at) => (super::trim(&value[..at]), super::trim(&value[at + 1..])),
        None => (value, &[]),
    }
}

/// Expectations (RFC 9110, 10.1.1) and protocols that are not spoken. HTTP/1.0 has neither.
pub(super) fn check_connection(facts: &Facts<'_>, http11: bool) -> Result<(), RequestError> {
    if !http11 {
        return Ok(());
    }
    if facts.websocket {
        return Err(RequestError::new(
            "websocket_unsupported",
            "WebSocket is not spoken here.",
        ));
    }
    if facts.has(Kind::Expect) && !facts.expects_continue() {
        return Err(RequestError::new(
            "expectation_failed",
            "The only expectation met is '100-continue'.",
        ));
    }
    Ok(())
}

/// `[A-Za-z0-9._-]{1,64}`.
pub(super) fn is_request_id(id: &[u8]) -> bool {
    (1..=64).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// W3C Trace Context: `version-trace id-parent id-flags` in lower-case hex, none of the ids zero.
/// Versions above 00 may go on after another `-`.
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let ids = |part: &[u8]| hex(part) && part.iter().any(|b| *b != b'0');
    if value.len() < 55 || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
        return false;
    }
    let version = &value[..2];
    let tail_fits = match value.get(55) {
        None => true,
        Some(b'-') => version != b"00",
        Some(_) => false,
    };
    hex(version)
        && version != b"ff"
        && ids(&value[3..35])
        && ids(&value[36..52])
        && hex(&value[53..55])
        && tail_fits
}

fn bad(code: &'static str, message: impl Into<String>) -> RequestError {
    RequestError::new(code, message)
}
