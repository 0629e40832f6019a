//! The head that goes to a replica.

use super::super::steer;
use super::field::{Field, Kind};
use super::{Head, TraceHeader, is_field_value};

/// What becomes of the client's credentials: `Authorization`, `X-Api-Key` and `Api-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// They pass.
    Passed,
    /// They are left out.
    Dropped,
    /// They are left out, and this is the value of `Authorization`.
    Replaced(&'a str),
}

impl<'a> Credentials<'a> {
    /// Our own value of `Authorization`, if there is one.
    fn ours(self) -> Option<&'a str> {
        match self {
            Self::Replaced(value) => Some(value),
            Self::Passed | Self::Dropped => None,
        }
    }
}

/// What we put into an outgoing head ourselves.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a> {
    /// Another path than the client's, without a query.
    pub path: Option<&'a str>,
    /// Value of `Host`.
    pub host: &'a str,
    /// Value of `X-Request-Id`.
    pub request_id: &'a str,
    /// The client's address, appended to `X-Forwarded-For`; `None`: it has none (a Unix socket).
    pub client: Option<&'a str>,
    /// `http` or `https`, for `X-Forwarded-Proto`.
    pub scheme: &'a str,
    /// Incoming `Forwarded`, `X-Forwarded-*` and headers that steer engines are believed: kept, and
    /// `X-Forwarded-For` appended to.
    pub trusted: bool,
    /// A trusted sender's header does not pass that names another priority than that of requests without one.
    pub capped: bool,
    /// What becomes of the client's.
    pub credentials: Credentials<'a>,
    /// Length of the body in bytes; negative sends no `Content-Length`.
    pub body_len: i64,
    /// Where the request is in a trace, in place of what the client says of that; `None`: that passes.
    pub trace: Option<TraceHeader>,
}

impl Upstream<'_> {
    /// The name of a value that would break the head's lines.
    fn fault(&self) -> Option<&'static str> {
        [
            ("host", self.host),
            ("request_id", self.request_id),
            ("client", self.client.unwrap_or_default()),
            ("scheme", self.scheme),
            ("authorization", self.credentials.ours().unwrap_or_default()),
        ]
        .into_iter()
        .find(|(_, value)| !is_field_value(value.as_bytes()))
        .map(|(name, _)| name)
    }
}

impl Head {
    /// The head to send to a replica, in one pass into one buffer.
    ///
    /// End-to-end fields pass in their order. Left out are `Host`, framing, hop-by-hop fields and all
    /// named in `Connection`, `Accept-Encoding`, `Expect`, every `X-SkyLB-*`, and from senders that are
    /// not trusted what steers an engine ([`super::super::steer`]). A HEAD request goes
    /// out as GET: vLLM answers HEAD with 405, and `Relay` drops the body.
    ///
    /// # Errors
    ///
    /// The name of a value in `to` that has control characters.
    pub fn upstream(&self, to: &Upstream<'_>) -> Result<Vec<u8>, &'static str> {
        if let Some(name) = to.fault() {
            return Err(name);
        }
        let ours_len = to.host.len()
            + to.request_id.len()
            + to.client.map_or(0, str::len)
            + to.credentials.ours().map_or(0, str::len);
        let mut out = Vec::with_capacity(self.bytes.len() + ours_len + 192);
        let method = if self.is_head() {
            &b"GET"[..]
        } else {
            self.method()
        };
        put(
            &mut out,
            &[
                method,
                b" ",
                to.path.map_or(self.path.of(&self.bytes), str::as_bytes),
                if to.path.is_some() {
                    b""
                } else {
                    self.query.of(&self.bytes)
                },
                b" HTTP/1.1\r\nHost: ",
                to.host.as_bytes(),
                b"\r\n",
            ],
        );
        // A trace that begins here has no state of another (W3C Trace Context, 3.3).
        let starts_trace = to.trace.is_some_and(|trace| !trace.continues);
        for field in &self.fields {
            let passes = match field.kind {
                Kind::Plain => !(starts_trace && self.is_tracestate(field)),
                Kind::ContentType | Kind::ContentEncoding => true,
                Kind::Traceparent => to.trace.is_none(),
                Kind::Authorization | Kind::ApiKey | Kind::BareApiKey => {
                    to.credentials == Credentials::Passed
                }
                Kind::Forwarded | Kind::ForwardedProto => to.trusted,
                Kind::Steering => to.trusted && !(to.capped && self.is_priority(field)),
                _ => false,
            };
            if passes {
                let (name, value) = (field.name.of(&self.bytes), field.value.of(&self.bytes));
                put(&mut out, &[name, b": ", value, b"\r\n"]);
            }
        }
        self.put_ours(&mut out, to);
        Ok(out)
    }

    /// Whether a header names another priority than that of requests without one, 0: engines differ in the sign
    /// that is urgent. What is no number here may be one there.
    fn is_priority(&self, field: &Field) -> bool {
        let value = str::from_utf8(field.value.of(&self.bytes)).ok();
        let number = value.and_then(|value| value.parse::<i64>().ok());
        steer::is_priority(field.name.of(&self.bytes)) && number != Some(0)
    }

    fn put_ours(&self, out: &mut Vec<u8>, to: &Upstream<'_>) {
        put(out, &[b"Accept-Encoding: identity\r\n"]);
        self.put_forwarded_for(out, to);
        // A list of protocols is understood by nobody: a trusted proxy's word stands alone.
        if !(to.trusted && self.fields.iter().any(|f| f.kind == Kind::ForwardedProto)) {
            put(
                out,
                &[b"X-Forwarded-Proto: ", to.scheme.as_bytes(), b"\r\n"],
            );
        }
        put(out, &[b"X-Request-Id: ", to.request_id.as_bytes(), b"\r\n"]);
        if let Some(trace) = &to.trace {
            put(out, &[b"traceparent: ", &trace.value, b"\r\n"]);
        }
        if let Some(value) = to.credentials.ours() {
            put(out, &[b"Authorization: ", value.as_bytes(), b"\r\n"]);
        }
        if let Ok(len) = u64::try_from(to.body_len) {
            put_decimal(out, b"Content-Length: ", len);
        }
        put(out, &[b"\r\n"]);
    }

    /// Whom a trusted proxy names, then the client; no line where there is nobody to name.
    fn put_forwarded_for(&self, out: &mut Vec<u8>, to: &Upstream<'_>) {
        let named = self.fields.iter();
        let named = named.filter(|field| to.trusted && field.kind == Kind::ForwardedFor);
        let named = named.map(|field| field.value.of(&self.bytes));
        let mut before: &[u8] = b"X-Forwarded-For: ";
        for address in named.chain(to.client.map(str::as_bytes)) {
            put(out, &[before, address]);
            before = b", ";
        }
        if before == b", " {
            put(out, &[b"\r\n"]);
        }
    }
}

pub(crate) fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// `name`, the number, and CR LF.
pub(crate) fn put_decimal(out: &mut Vec<u8>, name: &[u8], mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    put(out, &[name, &digits[at..], b"\r\n"]);
}
