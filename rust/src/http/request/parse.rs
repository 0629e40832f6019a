//! The parser: counts first, then the request line, the fields, and what they mean together.

use memchr::memchr;
use smallvec::SmallVec;

use super::super::error::RequestError;
use super::super::route::{BodyKind, Route, without_slash};
use super::field::{Field, Kind, Span, is_token};
use super::rules::{self, Facts};
use super::target::{self, RequestTarget};
use super::{
    EXPECT_CONTINUE, Extent, HEAD_BYTES_MAX, HEADERS_MAX, HTTP11, Head, KEEP_ALIVE, Measured,
    Problem, Refusal, TARGET_BYTES_MAX, measure,
};

/// The field in which a balancer signs what it forwards. It stands first, so that the bounds of the head
/// are known before it is complete.
const SIGNATURE: &[u8] = b"x-skylb-forward:";
/// What a balancer adds to a head that it forwards, the signature included.
const FORWARD_BYTES_MAX: usize = 2_048;
/// Fields among that.
const FORWARD_HEADERS_MAX: usize = 8;

/// Longest method that is looked at before a space is due.
const METHOD_BYTES_MAX: usize = 32;

/// Strict parser of HTTP/1.x request heads, one for the process.
#[derive(Debug, Clone, Default)]
pub struct HeadParser {
    /// Header whose value is the ring's key.
    key_header: Option<Box<[u8]>>,
    /// Header in which a trusted front names the request's class.
    class_header: Option<Box<[u8]>>,
    /// OPTIONS is answered instead of refused.
    cors: bool,
}

struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    http11: bool,
}

impl HeadParser {
    /// A parser; `key_header` names the header whose value is the ring's key, `cors` makes OPTIONS
    /// acceptable.
    #[must_use]
    pub fn new(key_header: Option<&str>, cors: bool) -> Self {
        Self {
            key_header: key_header.map(|k| k.as_bytes().into()),
            class_header: None,
            cors,
        }
    }

    /// The same parser that also finds the header in which a front names the request's class.
    #[must_use]
    pub fn with_class_header(mut self, class_header: Option<&str>) -> Self {
        self.class_header = class_header.map(|name| name.as_bytes().into());
        self
    }

    /// The head that `data` begins with, or `None` while it is incomplete.
    ///
    /// # Errors
    ///
    /// [`Refusal`] as soon as it is certain, which may be before the head is complete.
    pub fn parse(&self, data: &[u8]) -> Result<Option<Head>, Refusal> {
        // RFC 9112, 2.2: one empty line before the request line is tolerated.
        let skipped = match data {
            [] | [b'\r'] | [b'\r', b'\n'] => return Ok(None),
            [b'\r', b'\n', ..] => 2,
            _ => 0,
        };
        let data = &data[skipped..];
        let Some(extent) = extent_of(data)? else {
            return Ok(None);
        };
        let bytes = &data[..extent.len];
        let line = request_line(&bytes[..extent.line_len])?;
        let target = target::split(line.method, line.target)?;
        let mut head = Head {
            bytes: bytes.into(),
            fields: SmallVec::new(),
            consumed: skipped + extent.len,
            method: Span::locate(line.method, bytes),
            path: Span::locate(without_slash(target.path), bytes),
            query: Span::locate(target.query, bytes),
            content_length: 0,
            route: None,
            flags: if line.http11 { HTTP11 } else { 0 },
            request_id: None,
            trace_id: None,
            key: None,
            class: None,
        };
        let facts = self.read_fields(&mut head, bytes, &extent)?;
        apply(&mut head, &facts, &target)?;
        match self.authorise(&mut head, &facts) {
            Ok(()) => Ok(Some(head)),
            Err(error) => Err(refuse_whole(error, head)),
        }
    }

    /// Locates and classifies the fields; collects what they say.
    fn read_fields<'a>(
        &self,
        head: &mut Head,
        bytes: &'a [u8],
        extent: &Extent,
    ) -> Result<Facts<'a>, RequestError> {
        let mut headers: SmallVec<[httparse::Header<'_>; 24]> =
            SmallVec::from_elem(httparse::EMPTY_HEADER, extent.fields);
        let fields_start = extent.line_len + 2;
        let parsed = match httparse::parse_headers(&bytes[fields_start..], &mut headers) {
            Ok(httparse::Status::Complete((_, parsed))) => parsed,
            Ok(httparse::Status::Partial) | Err(_) => {
                return Err(bad(
                    "bad_header",
                    "A header line is malformed: NAME ':' VALUE, without control characters.",
                ));
            }
        };
        let mut facts = Facts::default();
        for header in parsed {
            let name = header.name.as_bytes();
            let value = super::trim(header.value);
            let field = Field {
                name: Span::locate(name, bytes),
                value: Span::locate(value, bytes),
                kind: Kind::of(name),
            };
            if field.kind != Kind::Plain {
                facts.read(field.kind, value)?;
            }
            if head.key.is_none() && is(self.key_header.as_deref(), name) {
                head.key = Some(field.value);
            }
            if head.class.is_none() && is(self.class_header.as_deref(), name) {
                head.class = Some(field.value);
            }
            head.fields.push(field);
        }
        facts.mark_named(bytes, &mut head.fields);
        Ok(facts)
    }

    /// What a well-formed head may ask for here.
    fn authorise(&self, head: &mut Head, facts: &Facts<'_>) -> Result<(), RequestError> {
        let body = if head.path() == b"*" {
            if !self.cors {
                return Err(
                    RequestError::new("method_not_allowed", "OPTIONS is not offered.")
                        .allowing("GET, HEAD, POST"),
                );
            }
            BodyKind::None
        } else {
            head.route = Route::of_path(head.path());
            let route = Route::of(head.method(), head.path()).map_err(|e| match head.route {
                Some(route) => route.wrong_method(self.cors),
                None => e,
            })?;
            if head.is_options() && !self.cors {
                return Err(route.wrong_method(false));
            }
            if head.is_options() {
                BodyKind::None
            } else {
                route.body()
            }
        };
        rules::check_content(facts, body, head.content_length)?;
        rules::check_connection(facts, head.http11())
    }
}

fn is(configured: Option<&[u8]>, name: &[u8]) -> bool {
    configured.is_some_and(|known| known.eq_ignore_ascii_case(name))
}

/// Applies what the fields say about framing, connection and identity.
fn apply(
    head: &mut Head,
    facts: &Facts<'_>,
    target: &RequestTarget<'_>,
) -> Result<(), RequestError> {
    rules::check_host(facts, head.http11(), target.authority)?;
    head.content_length = rules::body_length(facts, head.http11())?;
    if facts.keep_alive(head.http11()) {
        head.flags |= KEEP_ALIVE;
    }
    if facts.expects_continue() && head.http11() && head.content_length != 0 {
        head.flags |= EXPECT_CONTINUE;
    }
    // Both slices point into the caller's buffer, not into our copy: ranges are the same in both.
    head.request_id = head
        .only(Kind::RequestId)
        .filter(|s| rules::is_request_id(s.of(&head.bytes)));
    head.trace_id = head
        .only(Kind::Traceparent)
        .filter(|s| rules::is_traceparent(s.of(&head.bytes)))
        .map(|s| Span::new(s.start as usize + 3, s.start as usize + 35));
    Ok(())
}

impl Head {
    /// The value of a field that comes exactly once.
    fn only(&self, kind: Kind) -> Option<Span> {
        let mut found = self.fields.iter().filter(|f| f.kind == kind);
        let field = found.next()?;
        found.next().is_none().then_some(field.value)
    }
}

/// A refusal of a head whose framing is known: the connection goes on behind the body, unless the client
/// waits to hear whether it is wanted, and might or might not send it now.
fn refuse_whole(mut error: RequestError, head: Head) -> Refusal {
    error.close |= head.expect_continue() || !head.keep_alive();
    Refusal {
        error,
        head: Some(Box::new(head)),
    }
}

/// The extent of a complete head, counted before anything is parsed; `None`: incomplete, and nothing is
/// wrong yet.
fn extent_of(data: &[u8]) -> Result<Option<Extent>, RequestError> {
    let (more_bytes, more_headers) = if is_forward(data) {
        (FORWARD_BYTES_MAX, FORWARD_HEADERS_MAX)
    } else {
        (0, 0)
    };
    match measure(
        data,
        HEAD_BYTES_MAX + more_bytes,
        HEADERS_MAX + more_headers,
    ) {
        Ok(Measured::Complete(extent)) => Ok(Some(extent)),
        // Looked at before the head is complete: an HTTP/0.9 request never is.
        Ok(Measured::Partial(Some(line_len))) => request_line(&data[..line_len]).map(|_| None),
        Ok(Measured::Partial(None)) => check_begun_line(data).map(|()| None),
        Err(problem) => Err(refuse_extent(problem, data)),
    }
}

/// Whether the first field is the signature of a forward. A head that was just short enough for the
/// balancer that forwards it is longer by what that adds.
fn is_forward(data: &[u8]) -> bool {
    let fields = memchr(b'\n', data).map_or(&[][..], |end| &data[end + 1..]);
    fields
        .get(..SIGNATURE.len())
        .is_some_and(|name| name.eq_ignore_ascii_case(SIGNATURE))
}

fn refuse_extent(problem: Problem, data: &[u8]) -> RequestError {
    match problem {
        Problem::Line => bad("bad_line", "Lines end with CR LF."),
        Problem::Empty => bad(
            "bad_line",
            "An empty line stands in place of a request line.",
        ),
        Problem::Fold => bad(
            "bad_header",
            "A header line must not begin with white space.",
        ),
        Problem::Fields => RequestError::new(
            "too_many_headers",
            format!("A request may have {HEADERS_MAX} headers."),
        ),
        // The line at fault is named where it is the first.
        Problem::Bytes => check_begun_line(data).err().unwrap_or_else(|| {
            RequestError::new(
                "head_too_large",
                format!("A request head may have {HEAD_BYTES_MAX} bytes."),
            )
        }),
    }
}

/// The begun request line: refuses at once what can only become worse (a TLS hello, a long target).
fn check_begun_line(line: &[u8]) -> Result<(), RequestError> {
    let method_len = memchr(b' ', line);
    let method = &line[..method_len.unwrap_or(line.len())];
    if method.len() > METHOD_BYTES_MAX || !(is_token(method) || line == b"\r") {
        return Err(bad(
            "bad_request_line",
            "The request line must begin with a method.",
        ));
    }
    let target = method_len.map_or(&[][..], |at| &line[at + 1..]);
    if memchr(b' ', target).unwrap_or(target.len()) > TARGET_BYTES_MAX {
        return Err(target_too_long());
    }
    Ok(())
}

/// Method, target and version of a request line without its CR LF (RFC 9112, 3).
fn request_line(line: &[u8]) -> Result<RequestLine<'_>, RequestError> {
    let malformed = || {
        bad(
            "bad_request_line",
            "The request line must be METHOD TARGET HTTP/1.1.",
        )
    };
    let method_len = memchr(b' ', line).ok_or_else(malformed)?;
    let (method, rest) = (&line[..method_len], &line[method_len + 1..]);
    let target_len = memchr(b' ', rest).unwrap_or(rest.len());
    if target_len > TARGET_BYTES_MAX {
        return Err(target_too_long());
    }
    let version = rest.get(target_len + 1..).ok_or_else(malformed)?;
    let target = &rest[..target_len];
    if method.len() > METHOD_BYTES_MAX || !is_token(method) || target.is_empty() {
        return Err(malformed());
    }
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(RequestError::new(
                "unsupported_version",
                "HTTP/1.1 and HTTP/1.0 are spoken here.",
            ));
        }
        _ => return Err(malformed()),
    };
    Ok(RequestLine {
        method,
        target,
        http11,
    })
}

fn target_too_long() -> RequestError {
    RequestError::new(
        "target_too_long",
        format!("A request target may have {TARGET_BYTES_MAX} bytes."),
    )
}

fn bad(code: &'static str, message: &str) -> RequestError {
    RequestError::new(code, message)
}
