//! Request heads, parsed strictly, and the decoder of chunked bodies.
//!
//! `httparse` reads the header fields. Our own rules stand around it, and count lines and fields before
//! anything is parsed (docs/PROMISES.md, S1 to S9). An accepted head is kept as one copy of its bytes, with
//! ranges into it. The request that goes upstream is built anew from those ([`Head::upstream`]), never
//! copied through.
//!
//! Decisions where RFC 9110/9112 leave a choice:
//!
//! | input | answer |
//! |---|---|
//! | one empty line before the request line | tolerated (RFC 9112, 2.2); two are a 400 |
//! | HTTP/1.0 without `Host` | accepted; any other missing, repeated or malformed `Host` is a 400 |
//! | absolute-form | accepted where its authority equals `Host`, else 400 |
//! | repeated `Content-Length`, also with equal values | 400 |
//! | a body on GET, HEAD or OPTIONS | 400: it has no meaning (RFC 9110, 9.3.1) |
//! | no `Content-Type` on a JSON route | 415, as vLLM answers it |
//! | characters outside RFC 3986 in the target | 400, but `[` and `]` pass in a query |
//! | `Upgrade` | ignored; a list that has `websocket` is a 501 |

pub mod chunked;
mod credential;
mod extent;
mod field;
mod parse;
mod rules;
mod signed;
mod target;
mod traces;
mod upstream;

#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use super::error::RequestError;
use super::route::Route;
use field::{Field, Span};

pub(crate) use extent::{Extent, Measured, Problem, measure};
pub(crate) use field::{Kind, is_field_value, is_token, list, trim};
pub use parse::HeadParser;
pub use traces::{TraceHeader, TraceParent};
pub use upstream::{Credentials, Upstream};
pub(crate) use upstream::{put, put_decimal};

/// Longest head, from the request line to the final empty line.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of one head.
pub const HEADERS_MAX: usize = 100;
/// Longest request target.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// `content_length` of a chunked body.
pub const CHUNKED: i64 = -1;

const HTTP11: u8 = 1;
const KEEP_ALIVE: u8 = 1 << 1;
const EXPECT_CONTINUE: u8 = 1 << 2;

/// One parsed request head.
#[derive(Debug, Clone)]
pub struct Head {
    /// The head as it came, from the request line on.
    bytes: Box<[u8]>,
    fields: SmallVec<[Field; 16]>,
    consumed: usize,
    method: Span,
    path: Span,
    /// With its `?`, or empty; follows `path`, or a slash at its end that was left out.
    query: Span,
    content_length: i64,
    route: Option<Route>,
    flags: u8,
    request_id: Option<Span>,
    trace_id: Option<Span>,
    key: Option<Span>,
    class: Option<Span>,
}

/// Why a head was refused, and the head itself where it could be read whole.
///
/// With `head`, framing is known: method, request id and shape of the error can be told, and unless
/// `error.close` says otherwise the connection goes on behind `head.consumed()`.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The refusal.
    pub error: RequestError,
    /// The head, unless the bytes are no well-formed head.
    pub head: Option<Box<Head>>,
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self {
            error: error.closing(),
            head: None,
        }
    }
}

impl Head {
    /// Bytes of the head, a tolerated empty line before it included.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// The method as sent.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    /// The path without query, and without one slash at its end.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.path.of(&self.bytes)
    }

    /// The route; `None` for `OPTIONS *` and in the head of a 404.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        self.route
    }

    /// The route's template, or `other`.
    #[must_use]
    pub fn route_name(&self) -> &'static str {
        self.route.map_or("other", Route::name)
    }

    /// A HEAD request: answered like GET, without the body.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// An OPTIONS request.
    #[must_use]
    pub fn is_options(&self) -> bool {
        self.method() == b"OPTIONS"
    }

    /// The client speaks HTTP/1.1.
    #[must_use]
    pub fn http11(&self) -> bool {
        self.flags & HTTP11 != 0
    }

    /// The connection may stay open after the response (RFC 9112, 9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.flags & KEEP_ALIVE != 0
    }

    /// Declared length in bytes; 0 without a body, [`CHUNKED`] when chunked.
    #[must_use]
    pub fn content_length(&self) -> i64 {
        self.content_length
    }

    /// The client waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expect_continue(&self) -> bool {
        self.flags & EXPECT_CONTINUE != 0
    }

    /// The client's `X-Request-Id` where it is acceptable (`[A-Za-z0-9._-]{1,64}`).
    #[must_use]
    pub fn request_id(&self) -> Option<&[u8]> {
        self.request_id.map(|s| s.of(&self.bytes))
    }

    /// Trace id of a valid `traceparent`: 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> Option<&[u8]> {
        self.trace_id.map(|s| s.of(&self.bytes))
    }

    /// Value of the configured key header: the ring's key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|s| s.of(&self.bytes))
    }

    /// Value of the configured class header. Whoever asks knows whether its sender is trusted.
    #[must_use]
    pub fn class(&self) -> Option<&[u8]> {
        self.class.map(|s| s.of(&self.bytes))
    }

    /// Errors take Anthropic's shape. Told from the path, so that a 405 or 404 below
    /// `/v1/messages` is shaped so as well.
    #[must_use]
    pub fn anthropic(&self) -> bool {
        match self.path().strip_prefix(b"/v1/messages") {
            Some(rest) => rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// First value of a header, by name in any case.
    #[must_use]
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        let field = self
            .fields
            .iter()
            .find(|f| f.name.of(&self.bytes).eq_ignore_ascii_case(name))?;
        Some(field.value.of(&self.bytes))
    }
}
