//! Audio uploads: `multipart/form-data`, read for `model` and `stream` only (RFC 7578, RFC 2046
//! section 5.1).

use memchr::memmem;

use super::Digest;
use crate::engine::error::RequestError;

/// Parts of one body.
const PARTS_MAX: usize = 64;
/// Bytes of one part's header fields.
const PART_HEAD_BYTES_MAX: usize = 8_192;
/// Bytes of a field that is read.
const FIELD_BYTES_MAX: usize = 1_024;
/// RFC 2046 section 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;

/// Reads an upload. Its prompt is sound, of which no engine caches a prefix: no blocks.
pub(super) fn read(content_type: Option<&[u8]>, body: &[u8]) -> Result<Digest, RequestError> {
    let boundary = boundary(content_type.unwrap_or_default())?;
    if body.is_empty() {
        return Err(RequestError::new(
            400,
            "empty_body",
            "the request has no body",
        ));
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
            return fields.digest();
        }
        let Some(part) = skip_padding(rest) else {
            return Err(malformed("a boundary is not followed by a line break"));
        };
        let Some(end) = finder.find(part) else {
            return Err(malformed("the closing boundary is missing"));
        };
        fields.take(&part[..end])?;
        rest = &part[end + delimiter.len()..];
    }
    Err(malformed("there are too many parts"))
}

fn malformed(what: &str) -> RequestError {
    RequestError::new(
        400,
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
        return Err(RequestError::new(415, "unsupported_media_type", message));
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
    fn take(&mut self, part: &[u8]) -> Result<(), RequestError> {
        let (head, content) = if let Some(content) = part.strip_prefix(b"\r\n") {
            (&b""[..], content)
        } else {
            let window = part.get(..PART_HEAD_BYTES_MAX).unwrap_or(part);
            let Some(end) = memmem::find(window, b"\r\n\r\n") else {
                return Err(malformed("a part has no end of its header fields"));
            };
            (&part[..end], &part[end + 4..])
        };
        match field_name(head) {
            Some(b"model") => {
                if self.model.is_some() {
                    return Err(RequestError::duplicate_key("model"));
                }
                self.model = Some(text(content, "model")?.to_owned());
            }
            Some(b"stream") => {
                if self.stream.is_some() {
                    return Err(RequestError::duplicate_key("stream"));
                }
                self.stream = Some(switch(text(content, "stream")?)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn digest(self) -> Result<Digest, RequestError> {
        let Some(model) = self.model.filter(|model| !model.is_empty()) else {
            return Err(
                RequestError::new(400, "missing_model", "'model' is required").param("model"),
            );
        };
        Ok(Digest {
            model,
            stream: self.stream.unwrap_or(false),
            ..Digest::default()
        })
    }
}

/// The `name` of a part's `Content-Disposition: form-data`.
fn field_name(head: &[u8]) -> Option<&[u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..colon], line.get(colon + 1..)?);
        if !name
            .trim_ascii()
            .eq_ignore_ascii_case(b"content-disposition")
        {
            return None;
        }
        parameters(value).find_map(|parameter| parameter_value(parameter, b"name"))
    })
}

fn text<'a>(content: &'a [u8], field: &str) -> Result<&'a str, RequestError> {
    match str::from_utf8(content) {
        Ok(text) if text.len() <= FIELD_BYTES_MAX => Ok(text),
        _ => Err(RequestError::invalid_type(field, "a short text in UTF-8")),
    }
}

/// The words that a form's boolean may be, as engines read them.
fn switch(word: &str) -> Result<bool, RequestError> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" | "t" | "y" => Ok(true),
        "false" | "0" | "off" | "no" | "f" | "n" | "" => Ok(false),
        _ => Err(RequestError::invalid_type("stream", "a boolean")),
    }
}
