//! Audio uploads: `multipart/form-data`, read for `model` and `stream` only (RFC 7578, RFC 2046
//! section 5.1).

use memchr::memmem;

use super::outline::switch as word;
use super::{Digest, Envelope};
use crate::http::error::RequestError;
use crate::http::steer;

/// Parts of one body.
const PARTS_MAX: usize = 64;
/// Bytes of one part's header fields.
const PART_HEAD_BYTES_MAX: usize = 8_192;
/// Bytes of a field that is read.
const FIELD_BYTES_MAX: usize = 1_024;
/// RFC 2046 section 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;

/// Reads an upload. Its prompt is sound, of which no engine caches a prefix: no blocks.
pub(super) fn read(envelope: &Envelope<'_>, body: &[u8]) -> Result<Digest, RequestError> {
    let boundary = boundary(envelope.content_type.unwrap_or_default())?;
    if body.is_empty() {
        return Err(RequestError::new("empty_body", "the request has no body"));
    }
    let mut delimiter = b"\r\n--".to_vec();
    delimiter.extend_from_slice(&boundary);
    // The first delimiter may stand at the very start, without its line break.
    let first = delimiter.get(2..).unwrap_or_default();
    let mut rest = match body.strip_prefix(first) {
        Some(rest) => rest,
        None => match memmem::find(body, &delimiter) {
            Some(at) => &body[at + delimiter.len()..],
            None => return Err(malformed("the boundary does not occur")),
        },
    };
    let finder = memmem::Finder::new(&delimiter);
    let mut fields = Fields::default();
    for _ in 0..PARTS_MAX {
        if rest.starts_with(b"--") {
            return fields.digest(envelope);
        }
        let Some(part) = skip_padding(rest) else {
            return Err(malformed("a boundary is not followed by a line break"));
        };
        let Some(end) = finder.find(part) else {
            return Err(malformed("the closing boundary is missing"));
        };
        fields.take(&part[..end], envelope.trusted)?;
        rest = &part[end + delimiter.len()..];
    }
    Err(malformed("there are too many parts"))
}

fn malformed(what: &str) -> RequestError {
    RequestError::new(
        "invalid_multipart",
        format!("invalid multipart body: {what}"),
    )
}

/// The `boundary` parameter of `multipart/form-data`.
fn boundary(content_type: &[u8]) -> Result<Vec<u8>, RequestError> {
    let mut parameters = parameters(content_type);
    if !parameters
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case(b"multipart/form-data"))
    {
        let message = "the content type must be multipart/form-data";
        return Err(RequestError::new("unsupported_media_type", message));
    }
    let value = parameters.find_map(|parameter| parameter_value(parameter, b"boundary"));
    match value {
        Some(value) if (1..=BOUNDARY_BYTES_MAX).contains(&value.len()) => Ok(value.to_vec()),
        _ => Err(malformed("the content type has no usable boundary")),
    }
}

/// A header's value, cut at the semicolons that are not within quotes.
fn parameters(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let is_cut = move |&byte: &u8| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' => return !quoted,
            _ => {}
        }
        false
    };
    value.split(is_cut).map(<[u8]>::trim_ascii)
}

/// The value of `name=value` or `name="value"`.
fn parameter_value<'a>(parameter: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = parameter.split_at_checked(name.len())?;
    if !found.eq_ignore_ascii_case(name) {
        return None;
    }
    let value = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
    Some(
        value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""))
            .unwrap_or(value),
    )
}

/// Past the blanks and the line break that end a delimiter.
fn skip_padding(rest: &[u8]) -> Option<&[u8]> {
    let padding = rest
        .iter()
        .take_while(|&&byte| byte == b' ' || byte == b'\t')
        .count();
    rest.get(padding..)?.strip_prefix(b"\r\n")
}

/// The fields found so far.
#[derive(Debug, Default)]
struct Fields {
    model: Option<String>,
    stream: Option<bool>,
}

impl Fields {
    /// One part: header fields, an empty line, content.
    fn take(&mut self, part: &[u8], trusted: bool) -> Result<(), RequestError> {
        let (head, content) = if let Some(content) = part.strip_prefix(b"\r\n") {
            (&b""[..], content)
        } else {
            let window = part.get(..PART_HEAD_BYTES_MAX).unwrap_or(part);
            let Some(end) = memmem::find(window, b"\r\n\r\n") else {
                return Err(malformed("a part has no end of its header fields"));
            };
            (&part[..end], &part[end + 4..])
        };
        let name = field_name(head)?.unwrap_or_default();
        if !trusted && let Some(steering) = steering(name) {
            return Err(RequestError::untrusted_field(steering));
        }
        match name {
            b"model" => keep(&mut self.model, text(content, "model")?.to_owned(), "model"),
            b"stream" => keep(
                &mut self.stream,
                switch(text(content, "stream")?)?,
                "stream",
            ),
            _ => Ok(()),
        }
    }

    /// An upload is not edited: an engine that serves one model takes a form that names none.
    fn digest(self, envelope: &Envelope<'_>) -> Result<Digest, RequestError> {
        let named = self.model.filter(|model| !model.is_empty());
        let only = envelope.only_model.map(str::to_owned);
        let model = named.or(only).ok_or_else(RequestError::missing_model)?;
        Ok(Digest {
            model,
            stream: self.stream.unwrap_or(false),
            ..Digest::default()
        })
    }
}

/// Keeps a field's value; one that is there again must say the same.
fn keep<T: PartialEq>(kept: &mut Option<T>, value: T, name: &str) -> Result<(), RequestError> {
    if kept.as_ref().is_some_and(|first| *first != value) {
        return Err(RequestError::duplicate_key(name));
    }
    *kept = Some(value);
    Ok(())
}

/// A name that steers an engine, also as part of a nested one (`vllm_xargs[rid]`).
fn steering(name: &[u8]) -> Option<&'static str> {
    let mut parts = name.split(|byte| b"[].".contains(byte));
    parts.find_map(steer::refused)
}

/// The `name` of a part's `Content-Disposition: form-data`. A part whose name readers may disagree
/// about (there twice, encoded, escaped or on a folded line) is refused.
fn field_name(head: &[u8]) -> Result<Option<&[u8]>, RequestError> {
    let mut found = None;
    for line in head.split(|&byte| byte == b'\n') {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(malformed("a part's header line is folded"));
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        if !name
            .trim_ascii()
            .eq_ignore_ascii_case(b"content-disposition")
        {
            continue;
        }
        for parameter in parameters(value) {
            let name = parameter_value(parameter, b"name");
            let encoded = parameter_value(parameter, b"name*").is_some();
            let escaped = name.is_some_and(|name| name.contains(&b'\\') || name.contains(&b'%'));
            if encoded || escaped || (name.is_some() && found.is_some()) {
                return Err(malformed("a part's name can be read in two ways"));
            }
            found = found.or(name);
        }
    }
    Ok(found)
}

fn text<'a>(content: &'a [u8], field: &str) -> Result<&'a str, RequestError> {
    match str::from_utf8(content) {
        Ok(text) if text.len() <= FIELD_BYTES_MAX => Ok(text),
        _ => Err(RequestError::invalid_type(field, "a short text in UTF-8")),
    }
}

/// A form's boolean, as engines read it.
fn switch(text: &str) -> Result<bool, RequestError> {
    if text.is_empty() {
        return Ok(false);
    }
    word(text).ok_or_else(|| RequestError::invalid_type("stream", "a boolean"))
}
