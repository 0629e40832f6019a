//! The request target (RFC 9112, 3.2) and authorities (RFC 3986, 3.2).

use std::net::Ipv6Addr;

use super::super::error::RequestError;

/// A target taken apart; the parts are slices of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestTarget<'a> {
    /// Without query; `*` for asterisk-form.
    pub path: &'a [u8],
    /// With its `?`, or empty.
    pub query: &'a [u8],
    /// Of absolute-form.
    pub authority: Option<&'a [u8]>,
}

/// Takes a target apart.
///
/// # Errors
///
/// 400 for any form but origin-form, absolute-form and `OPTIONS *`, for characters RFC 3986 does not
/// allow, and for fragments; 405 for a well-formed CONNECT.
pub(super) fn split<'a>(
    method: &[u8],
    target: &'a [u8],
) -> Result<RequestTarget<'a>, RequestError> {
    if method == b"CONNECT" {
        return Err(connect(target));
    }
    if target == b"*" {
        if method != b"OPTIONS" {
            return Err(bad("Only OPTIONS takes the target '*'."));
        }
        return Ok(RequestTarget {
            path: target,
            query: b"",
            authority: None,
        });
    }
    let (authority, rest) = if target.first() == Some(&b'/') {
        (None, target)
    } else {
        let (authority, rest) = absolute(target)?;
        (Some(authority), rest)
    };
    let query_start = memchr::memchr(b'?', rest).unwrap_or(rest.len());
    let (path, query) = rest.split_at(query_start);
    if !are_allowed(path, b"/:@") || !are_allowed(query, b"/:@?[]") {
        return Err(bad(
            "The target has a character that must be escaped, or a bad escape.",
        ));
    }
    Ok(RequestTarget {
        path,
        query,
        authority,
    })
}

fn connect(target: &[u8]) -> RequestError {
    if is_authority(target) && target.contains(&b':') {
        RequestError::new("method_not_allowed", "CONNECT is not offered.")
            .allowing("GET, HEAD, POST")
    } else {
        bad("CONNECT takes HOST:PORT as its target.")
    }
}

/// Authority and rest of `http://authority/path?query`.
fn absolute(target: &[u8]) -> Result<(&[u8], &[u8]), RequestError> {
    let scheme_len = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| target.len() >= s.len() && target[..s.len()].eq_ignore_ascii_case(s))
        .map(<[u8]>::len)
        .ok_or_else(|| bad("The target must begin with '/'."))?;
    let rest = &target[scheme_len..];
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    Ok(rest.split_at(end))
}

/// Unreserved characters, sub-delims, whole escapes, and `more`.
fn are_allowed(text: &[u8], more: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        let b = text[at];
        if b == b'%' {
            let digits = text.get(at + 1..at + 3);
            if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                return false;
            }
            at += 2;
        } else if !is_plain(b) && !more.contains(&b) {
            return false;
        }
        at += 1;
    }
    true
}

/// Unreserved characters and sub-delims (RFC 3986, 2.2 and 2.3).
fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b)
}

/// `host` or `host:port`. Stricter than RFC 3986: a name has letters, digits, `-`, `.` and `_` only,
/// and a port is not empty.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else {
                return false;
            };
            if !is_ipv6(&rest[..end]) {
                return false;
            }
            (&text[..1], &rest[end + 1..])
        }
        _ => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    let named = text.first() == Some(&b'[')
        || host
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    named && !host.is_empty() && (port.is_empty() || is_port(port))
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|t| t.parse::<Ipv6Addr>().is_ok())
}

/// `:` and 1 to 65535 in at most five digits.
fn is_port(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b":").unwrap_or_default();
    (1..=5).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && (1..=65_535).contains(
            &digits
                .iter()
                .fold(0_u32, |n, d| n * 10 + u32::from(d - b'0')),
        )
}

fn bad(message: &str) -> RequestError {
    RequestError::new("bad_target", message)
}
