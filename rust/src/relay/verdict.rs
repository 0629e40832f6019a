//! What an event says of the request: that it failed, or that the answer is complete.
//!
//! Engines send the head of a stream before they have begun with it. So an error that would have
//! been the answer's status comes as its first event. Seen in vLLM 0.32 and `SGLang`:
//!
//! ```text
//! data: {"error": {"message": "...", "type": "InternalServerError", "param": null, "code": 500}}
//! data: {"object": "error", "message": "...", "type": "...", "code": 500}
//! event: error
//! data: {"type": "error", "error": {"type": "internal_error", "message": "..."}}
//! event: response.failed
//! data: {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "..."}}}
//! ```

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::{self, Finder, FinderRev};
use serde_json::Value;

use super::events;

static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));
static NAME_FIELD: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(b"event:"));

/// Characters of an engine's message that are repeated at most.
const MESSAGE_CHARS_MAX: usize = 2000;

/// The fields of one event that matter here.
struct Event {
    name: Vec<u8>,
    data: Vec<u8>,
}

impl Event {
    /// Reads the lines of one event (WHATWG HTML, 9.2.6); a line end may be missing at the end.
    fn read(text: &[u8]) -> Self {
        let mut event = Self {
            name: Vec::new(),
            data: Vec::new(),
        };
        let mut has_data = false;
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            if let Some(name) = field(line, b"event") {
                event.name = name.to_vec();
            } else if let Some(data) = field(line, b"data") {
                if has_data {
                    event.data.push(b'\n');
                }
                has_data = true;
                event.data.extend_from_slice(data);
            }
        }
        event
    }
}

/// The value of a line's field, without the one space that may stand before it.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Status for which the first event in `payload` stands that is neither a comment nor, with
/// `skips_announcements`, an announcement: `None` unless it is an error.
pub(super) fn first_error(payload: &[u8], skips_announcements: bool) -> Option<u16> {
    let mut rest = payload;
    while !rest.is_empty() {
        let (event, behind) = rest.split_at(events::first_len(rest));
        if !skips_announcements || !events::only_announce(event) {
            return error(event);
        }
        rest = behind;
    }
    None
}

/// Status for which the first event in `payload` stands that begins as errors do: cheap, for every
/// event of a stream. However a stream is cut, the same events are found.
pub(super) fn later_error(payload: &[u8]) -> Option<u16> {
    let mut rest = behind_comments(payload);
    // Nearly always this is one event.
    if EMPTY_LINE.find(rest) == rest.len().checked_sub(2) && !may_begin_with_error(rest) {
        return None;
    }
    while !rest.is_empty() {
        let (event, behind) = rest.split_at(events::first_len(rest));
        if may_begin_with_error(event)
            && let Some(status) = error(event)
        {
            return Some(status);
        }
        rest = behind_comments(behind);
    }
    None
}

/// Without the empty lines and comments at its beginning.
fn behind_comments(payload: &[u8]) -> &[u8] {
    let mut rest = payload;
    loop {
        match rest {
            [b'\n' | b'\r', behind @ ..] => rest = behind,
            [b':', ..] => {
                let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                rest = &rest[end..];
            }
            _ => return rest,
        }
    }
}

/// Whether an event begins with what may be an error.
fn may_begin_with_error(event: &[u8]) -> bool {
    if let Some(data) = field(event, b"data") {
        return [
            &b"{\"error\""[..],
            b"{\"object\":\"error\"",
            b"{\"object\": \"error\"",
        ]
        .iter()
        .any(|begin| data.starts_with(begin));
    }
    field(event, b"event")
        .is_some_and(|name| name.starts_with(b"error") || name.starts_with(b"response.failed"))
}

/// Status for which an event stands that is an error; `None` of others.
pub(super) fn error(event: &[u8]) -> Option<u16> {
    // A first token costs a search, not a parser.
    memmem::find(event, b"error").or_else(|| memmem::find(event, b"failed"))?;
    let Event { name, data } = Event::read(event);
    let json = serde_json::from_slice::<Value>(&data).unwrap_or(Value::Null);
    let is = |key: &str, word: &str| json.get(key).and_then(Value::as_str) == Some(word);
    let failed = name == b"response.failed" || is("type", "response.failed");
    let told = match json.get("error") {
        _ if failed => json.get("response").and_then(|r| r.get("error")),
        Some(error) if !error.is_null() => Some(error),
        _ => None,
    };
    let is_error = failed
        || told.is_some()
        || name == b"error"
        || is("object", "error")
        || is("type", "error");
    is_error.then(|| status_of(told.unwrap_or(&json)))
}

/// The status that an error's object stands for: its code, else its type; 500 where neither says.
fn status_of(error: &Value) -> u16 {
    let code = error.get("code");
    let number = code
        .and_then(Value::as_u64)
        .or_else(|| code?.as_str()?.parse().ok())
        .and_then(|number| u16::try_from(number).ok())
        .filter(|status| (400..600).contains(status));
    let word = |key: &str| status_of_word(error.get(key)?.as_str()?);
    number
        .or_else(|| word("code"))
        .or_else(|| word("type"))
        .unwrap_or(500)
}

/// Words of `OpenAI`, Anthropic, vLLM and `SGLang`.
fn status_of_word(word: &str) -> Option<u16> {
    Some(match word {
        "invalid_request_error"
        | "BadRequestError"
        | "invalid_prompt"
        | "context_length_exceeded" => 400,
        "authentication_error" => 401,
        "permission_error" => 403,
        "not_found_error" | "NotFoundError" => 404,
        "request_too_large" => 413,
        "rate_limit_error" | "rate_limit_exceeded" | "RateLimitError" => 429,
        "overloaded_error" | "ServiceUnavailableError" => 503,
        "timeout_error" => 504,
        _ => return None,
    })
}

/// What an error's body says to people.
pub(super) fn message_of(body: &[u8]) -> Option<String> {
    let json = serde_json::from_slice::<Value>(body).ok()?;
    let error = json.get("error");
    let message = error
        .and_then(|error| error.get("message"))
        .or(error)
        .or_else(|| json.get("message"))
        .or_else(|| json.get("detail"))?
        .as_str()?;
    (!message.is_empty()).then(|| message.chars().take(MESSAGE_CHARS_MAX).collect())
}

/// Names of events behind which an API says nothing more.
const LAST_EVENTS: [&[u8]; 4] = [
    b"message_stop",
    b"response.completed",
    b"response.incomplete",
    b"response.failed",
];

/// Whether whole events end with one behind which their API says nothing more.
pub(super) fn ends_answer(payload: &[u8], named: bool) -> bool {
    let text = trim_line_ends(payload);
    if is_done_line(text) {
        return true;
    }
    // Only a line end begins a line: the text of a model has its own escaped.
    named
        && NAME_FIELD.rfind(text).is_some_and(|at| {
            let begins = at == 0 || matches!(text[at - 1], b'\n' | b'\r');
            begins && LAST_EVENTS.contains(&Event::read(&text[at..]).name.as_slice())
        })
}

/// Whether a stream whose connection closed here is complete, though the line ends of its last event
/// are missing. `tail`: what is behind the last whole event that went out.
pub(super) fn ends_answer_unended(tail: &[u8], named: bool) -> bool {
    let text = trim_line_ends(tail);
    if is_done_line(text) {
        return true;
    }
    named
        && ends_answer(text, true)
        && NAME_FIELD.rfind(text).is_some_and(|at| {
            serde_json::from_slice::<serde::de::IgnoredAny>(&Event::read(&text[at..]).data).is_ok()
        })
}

fn trim_line_ends(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    &text[..end]
}

/// The last line of `text` is `data: [DONE]`.
fn is_done_line(text: &[u8]) -> bool {
    let Some(before) = text.trim_ascii_end().strip_suffix(b"[DONE]") else {
        return false;
    };
    let Some(before) = before.trim_ascii_end().strip_suffix(b"data:") else {
        return false;
    };
    before
        .last()
        .is_none_or(|last| matches!(last, b'\n' | b'\r'))
}
