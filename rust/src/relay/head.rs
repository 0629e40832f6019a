//! Response heads: read strictly, built anew for the client.

use smallvec::SmallVec;

use crate::http::request::{
    Kind, Measured, is_field_value, is_token, list, measure, put, put_decimal, trim,
};

/// Longest response head, interim responses before it included.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields of a response.
pub const RESPONSE_HEADERS_MAX: usize = 128;

/// Header of a peer's answer that names why it has not begun the request.
const REFUSED: &[u8] = b"x-skylb-refused";

/// Why a response cannot be relayed.
pub type Fault = &'static str;

/// How a body is delimited (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    Length(u64),
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What stands in a client's head in place of the replica's: `X-Request-Id`, and where there are lines of ours,
/// each with its CR LF, the fields of CORS and of limits (`x-ratelimit-*`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Ours<'a> {
    pub request_id: &'a str,
    pub cors: Option<&'a [u8]>,
    pub rate_limit: Option<&'a [u8]>,
    /// A line for trusted clients, with its CR LF.
    pub receipt: Option<&'a [u8]>,
}

/// Kind, name and value of a header field.
type Field<'a> = (Kind, &'a [u8], &'a [u8]);

/// What a response head says.
#[derive(Debug, Clone)]
pub(super) struct ResponseHead<'a> {
    /// Bytes of the head.
    pub len: usize,
    pub status: u16,
    reason: &'a [u8],
    fields: SmallVec<[Field<'a>; 16]>,
    pub framing: Framing,
    /// The connection persists.
    pub keep_alive: bool,
    /// `text/event-stream`, not compressed.
    pub is_sse: bool,
    pub retry_after_s: Option<u32>,
    /// Why another balancer has refused the request; says nothing where a replica says so.
    pub refused: Option<&'a [u8]>,
}

/// Reads the head that `data` begins with; `None` while it is incomplete.
pub(super) fn parse(data: &[u8]) -> Result<Option<ResponseHead<'_>>, Fault> {
    let begin = &b"HTTP/1."[..data.len().min(7)];
    if !data.starts_with(begin) {
        return Err("a status line that begins with HTTP/1.");
    }
    let extent = match measure(data, RESPONSE_HEAD_BYTES_MAX, RESPONSE_HEADERS_MAX) {
        Ok(Measured::Complete(extent)) => extent,
        Ok(Measured::Partial(_)) => return Ok(None),
        Err(_) => return Err("a head of bounded size whose lines end with CR LF"),
    };
    let (http11, status, reason) = status_line(&data[..extent.line_len])?;
    let mut headers: SmallVec<[httparse::Header<'_>; 24]> =
        SmallVec::from_elem(httparse::EMPTY_HEADER, extent.fields);
    let lines = &data[extent.line_len + 2..extent.len];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(lines, &mut headers)
    else {
        return Err("well-formed header fields");
    };
    let mut head = ResponseHead {
        len: extent.len,
        status,
        reason,
        fields: SmallVec::new(),
        framing: Framing::Close,
        keep_alive: http11,
        is_sse: false,
        retry_after_s: None,
        refused: None,
    };
    for header in parsed {
        let name = header.name.as_bytes();
        head.fields.push((Kind::of(name), name, trim(header.value)));
    }
    head.framing = head.delimit(http11)?;
    head.connect()?;
    head.describe();
    Ok(Some(head))
}

/// Version, status and reason of `HTTP/1.1 200 OK`; the reason may be missing with its space.
fn status_line(line: &[u8]) -> Result<(bool, u16, &[u8]), Fault> {
    const FAULT: Fault = "a status line";
    let http11 = match line.get(7) {
        Some(b'1') => true,
        Some(b'0') => false,
        _ => return Err(FAULT),
    };
    let (space, digits) = (line.get(8), line.get(9..12).unwrap_or_default());
    if space != Some(&b' ') || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(FAULT);
    }
    let status = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    let reason = match line.get(12..) {
        Some([]) => &[],
        Some([b' ', reason @ ..]) if is_field_value(reason) => reason,
        _ => return Err(FAULT),
    };
    if (100..600).contains(&status) {
        Ok((http11, status, reason))
    } else {
        Err("a status between 100 and 599")
    }
}

impl<'a> ResponseHead<'a> {
    /// First value of a header, by name in any case.
    pub(super) fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        let field = self
            .fields
            .iter()
            .find(|f| f.1.eq_ignore_ascii_case(name))?;
        Some(field.2)
    }

    fn values(&self, kind: Kind) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.fields.iter().filter(move |f| f.0 == kind).map(|f| f.2)
    }

    fn delimit(&self, http11: bool) -> Result<Framing, Fault> {
        let mut codings = self.values(Kind::TransferEncoding);
        let mut lengths = self.values(Kind::ContentLength);
        let (coding, length) = (codings.next(), lengths.next());
        if codings.next().is_some()
            || lengths.next().is_some()
            || (coding.is_some() && length.is_some())
        {
            return Err("one Content-Length or one Transfer-Encoding");
        }
        if self.status == 101 {
            return Err("no change of protocol");
        }
        if coding.is_some_and(|c| !http11 || !c.eq_ignore_ascii_case(b"chunked")) {
            return Err("no transfer coding but chunked, and that in HTTP/1.1");
        }
        let length = length.map(parse_length).transpose()?;
        Ok(match (self.status, coding, length) {
            (100..200 | 204 | 304, _, _) => Framing::None,
            (_, Some(_), _) => Framing::Chunked,
            (_, _, Some(length)) => Framing::Length(length),
            _ => Framing::Close,
        })
    }

    /// Reads `Connection`, and marks what it names as hop-by-hop.
    fn connect(&mut self) -> Result<(), Fault> {
        let options: SmallVec<[&[u8]; 4]> = self.values(Kind::Connection).flat_map(list).collect();
        for option in options {
            if !is_token(option) {
                return Err("names in Connection");
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.keep_alive = false;
            }
            for field in &mut self.fields {
                if field.1.eq_ignore_ascii_case(option) {
                    field.0 = Kind::Hop;
                }
            }
        }
        // A body where none is allowed: what follows cannot be told from the next response.
        let has_length = self.values(Kind::ContentLength).any(|v| v != b"0");
        let has_body = self.values(Kind::TransferEncoding).next().is_some() || has_length;
        if self.framing == Framing::Close || (self.status == 204 && has_body) {
            self.keep_alive = false;
        }
        Ok(())
    }

    fn describe(&mut self) {
        let content_type = self.values(Kind::ContentType).next().unwrap_or_default();
        let media_type = content_type
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default();
        let coded = self
            .values(Kind::ContentEncoding)
            .any(|v| !v.eq_ignore_ascii_case(b"identity"));
        self.is_sse = trim(media_type).eq_ignore_ascii_case(b"text/event-stream") && !coded;
        self.retry_after_s = self
            .header(b"retry-after")
            .and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
        self.refused = self.header(REFUSED).filter(|v| is_token(v));
    }

    /// The head for the client, up to where the framing's fields go: end-to-end fields in their order, but
    /// those that ours replace.
    pub(super) fn rebuild(&self, ours: &Ours<'_>) -> Vec<u8> {
        let (cors, limits) = (ours.cors, ours.rate_limit);
        let lines_len = |lines: Option<&[u8]>| lines.map_or(0, <[u8]>::len);
        let ours_len = ours.request_id.len() + lines_len(cors) + lines_len(limits);
        let ours_len = ours_len + lines_len(ours.receipt);
        let mut out = Vec::with_capacity(self.len + ours_len + 96);
        put_decimal(&mut out, b"HTTP/1.1 ", u64::from(self.status));
        out.truncate(out.len() - 2);
        put(&mut out, &[b" ", self.reason, b"\r\n"]);
        for (kind, name, value) in &self.fields {
            let passes = !matches!(
                kind,
                Kind::Hop
                    | Kind::Host
                    | Kind::ContentLength
                    | Kind::TransferEncoding
                    | Kind::Connection
                    | Kind::Upgrade
                    | Kind::Expect
                    | Kind::RequestId
            );
            let replaced = (cors.is_some() && is_cors(name, value))
                || (limits.is_some() && begins(name, b"x-ratelimit-"));
            if passes && !replaced {
                put(&mut out, &[name, b": ", value, b"\r\n"]);
            }
        }
        put(
            &mut out,
            &[
                b"X-Request-Id: ",
                ours.request_id.as_bytes(),
                b"\r\n",
                cors.unwrap_or_default(),
                limits.unwrap_or_default(),
                ours.receipt.unwrap_or_default(),
            ],
        );
        out
    }
}

/// A field of the CORS protocol (Fetch standard, 3.3.3), or the `Vary` that goes with it.
fn is_cors(name: &[u8], value: &[u8]) -> bool {
    begins(name, b"access-control-")
        || (name.eq_ignore_ascii_case(b"vary") && value.eq_ignore_ascii_case(b"origin"))
}

/// Whether a name begins with a prefix, in any case.
fn begins(name: &[u8], prefix: &[u8]) -> bool {
    let begin = name.get(..prefix.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

fn parse_length(digits: &[u8]) -> Result<u64, Fault> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("a number in Content-Length");
    }
    digits
        .iter()
        .try_fold(0_u64, |n, d| {
            n.checked_mul(10)?.checked_add(u64::from(d - b'0'))
        })
        .ok_or("a smaller Content-Length")
}
