//! Token counts and response ids, read in passing from the bytes of a response.
//!
//! No tree is built: `"usage"` is searched for as a key. Inside a JSON string its quotes would be
//! escaped (`\"usage\"`), so text that a model writes cannot pass for it. As a whole string value
//! it is not followed by a colon. The last object with numbers wins: engines put `usage` last, so
//! one that a model wrote into a tool call's arguments comes before it.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};

use super::events;

/// Longest `usage` object that is read, with its key, in bytes: so much is kept of one that is cut.
const USAGE_BYTES_MAX: usize = 4096;
/// How far into a response its id is looked for, in bytes.
const ID_WINDOW_BYTES: usize = 4096;
/// Larger counts are no counts.
const TOKENS_MAX: i64 = 1 << 40;

static USAGE_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static SEQUENCE_KEY: LazyLock<FinderRev<'static>> =
    LazyLock::new(|| FinderRev::new(b"\"sequence_number\""));
static ID_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"id\""));

/// The counts of `usage` objects, `None` while unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// OpenAI's `prompt_tokens`.
    prompt: Option<i64>,
    /// `input_tokens` of Anthropic and of the Responses API.
    input: Option<i64>,
    /// `completion_tokens` or `output_tokens`.
    completion: Option<i64>,
    /// `cached_tokens` in `prompt_tokens_details` or `input_tokens_details`.
    cached: Option<i64>,
    /// Anthropic's `cache_read_input_tokens`, not part of its `input_tokens`.
    cache_read: Option<i64>,
    /// Anthropic's `cache_creation_input_tokens`, likewise.
    cache_creation: Option<i64>,
}

/// Reads the bytes of one response in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sniffer {
    counts: Counts,
    /// A `usage` object, or the beginning of its key, that was cut off.
    cut: Vec<u8>,
    id_window: Vec<u8>,
    id: Option<String>,
    wants_id: bool,
}

/// What follows a `"usage"`.
enum UsageObject {
    /// Not an object.
    Nothing,
    /// The bytes end before the object does.
    Cut,
    /// Where the object ends.
    Object(usize),
}

/// What a search leaves.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// An object that begins at this offset is cut off at the end.
    Open(usize),
    /// There is none; what lies before this offset has been read.
    None(usize),
}

impl Sniffer {
    /// A sniffer; `wants_id`: the response's id is looked for as well.
    pub(super) fn new(wants_id: bool) -> Self {
        Self {
            wants_id,
            ..Self::default()
        }
    }

    /// Reads whole events and comments. An object that does not end within its block is none, however
    /// the blocks were cut on their way.
    /// Where the last event ends that told the tokens of the answer, if one did.
    pub(super) fn read_events(&mut self, payload: &[u8]) -> Option<usize> {
        let mut told = None;
        if mentions_usage(payload) {
            let mut rest = payload;
            while !rest.is_empty() {
                let (block, behind) = rest.split_at(events::block_len(rest));
                let before = self.counts.completion.take();
                let _open = self.search(block);
                rest = behind;
                if self.counts.completion.is_some() {
                    told = Some(payload.len() - rest.len());
                } else {
                    self.counts.completion = before;
                }
            }
        }
        self.search_id(payload);
        told
    }

    /// Reads a part of a JSON body; `usage` may be cut anywhere, and what is read does not depend on it.
    pub(super) fn read_part(&mut self, payload: &[u8]) {
        self.search_id(payload);
        if self.cut.is_empty() {
            let left = self.search(payload);
            self.keep(payload, left);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(payload);
            let left = self.search(&joined);
            self.keep(&joined, left);
        }
    }

    /// Keeps the object that is cut off, else what may be the beginning of its key.
    fn keep(&mut self, text: &[u8], left: Left) {
        let kept = match left {
            Left::Open(open) => &text[open..],
            Left::None(end) => {
                let tail = text.len().saturating_sub(USAGE_KEY.needle().len() - 1);
                let tail = &text[tail.max(end)..];
                memchr::memchr(b'"', tail).map_or(&[][..], |quote| &tail[quote..])
            }
        };
        self.cut.extend_from_slice(kept);
    }

    /// Reads every complete object of at most [`USAGE_BYTES_MAX`].
    fn search(&mut self, text: &[u8]) -> Left {
        let mut at = 0;
        while let Some(found) = USAGE_KEY.find(&text[at..]) {
            let key = at + found;
            let window = &text[key..text.len().min(key + USAGE_BYTES_MAX)];
            match object(window, USAGE_KEY.needle().len()) {
                UsageObject::Nothing => at = key + USAGE_KEY.needle().len(),
                UsageObject::Cut if window.len() < USAGE_BYTES_MAX => return Left::Open(key),
                UsageObject::Cut => at = key + USAGE_BYTES_MAX,
                UsageObject::Object(end) => {
                    self.counts.read(&window[USAGE_KEY.needle().len()..end]);
                    at = key + end;
                }
            }
        }
        Left::None(at)
    }

    fn search_id(&mut self, payload: &[u8]) {
        if !self.wants_id {
            return;
        }
        let room = ID_WINDOW_BYTES - self.id_window.len();
        self.id_window
            .extend_from_slice(&payload[..payload.len().min(room)]);
        self.id = find_id(&self.id_window);
        if self.id.is_some() || self.id_window.len() == ID_WINDOW_BYTES {
            self.wants_id = false;
            self.id_window = Vec::new();
        }
    }

    /// Tokens of the prompt, cached ones included.
    pub(super) fn prompt_tokens(&self) -> Option<i64> {
        let counts = &self.counts;
        let beside = counts.cache_read.unwrap_or(0) + counts.cache_creation.unwrap_or(0);
        counts.prompt.or(counts.input.map(|input| input + beside))
    }

    /// Tokens of the prompt that the engine found in its cache.
    pub(super) fn cached_tokens(&self) -> Option<i64> {
        self.counts.cached.or(self.counts.cache_read)
    }

    /// Tokens of the answer.
    pub(super) fn completion_tokens(&self) -> Option<i64> {
        self.counts.completion
    }

    /// The response's id.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// The last `sequence_number` of whole events.
pub(super) fn last_sequence_number(payload: &[u8]) -> Option<i64> {
    let at = SEQUENCE_KEY.rfind(payload)?;
    count(&payload[after_colon(payload, at + SEQUENCE_KEY.needle().len())?..])
}

/// Whether whole events may hold the usage event of [`is_usage_event`].
pub(super) fn mentions_usage(payload: &[u8]) -> bool {
    USAGE_KEY.find(payload).is_some()
}

/// The extra event of `stream_options.include_usage`: a `usage` object, and `choices` empty.
pub(super) fn is_usage_event(event: &[u8]) -> bool {
    // An object that does not end takes all that follows with it: looking further would be quadratic.
    let mut keys = USAGE_KEY.find_iter(event);
    let first = keys.find_map(|at| match object(event, at + USAGE_KEY.needle().len()) {
        UsageObject::Nothing => None,
        found => Some(found),
    });
    matches!(first, Some(UsageObject::Object(_)))
        && memchr::memmem::find_iter(event, b"\"choices\"").any(|at| {
            let value = after_colon(event, at + b"\"choices\"".len());
            value.is_some_and(|at| {
                event.get(at) == Some(&b'[') && event.get(skip_space(event, at + 1)) == Some(&b']')
            })
        })
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where the value of a key that ends at `at` begins.
fn after_colon(text: &[u8], at: usize) -> Option<usize> {
    let colon = skip_space(text, at);
    (text.get(colon) == Some(&b':')).then(|| skip_space(text, colon + 1))
}

/// The object behind a key that ends at `at`.
fn object(text: &[u8], at: usize) -> UsageObject {
    let colon = skip_space(text, at);
    let start = match text.get(colon) {
        None => return UsageObject::Cut,
        Some(b':') => skip_space(text, colon + 1),
        Some(_) => return UsageObject::Nothing,
    };
    match text.get(start) {
        None => return UsageObject::Cut,
        Some(b'{') => {}
        Some(_) => return UsageObject::Nothing,
    }
    let mut depth = 0_u32;
    let mut at = start;
    while let Some(b) = text.get(at) {
        match b {
            b'{' => depth += 1,
            b'}' if depth == 1 => return UsageObject::Object(at + 1),
            b'}' => depth -= 1,
            b'"' => match string_end(text, at) {
                Some(end) => at = end - 1,
                None => return UsageObject::Cut,
            },
            _ => {}
        }
        at += 1;
    }
    UsageObject::Cut
}

/// The offset behind the string that begins at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

impl Counts {
    /// Takes the counts of one complete object; what it does not name stays.
    fn read(&mut self, object: &[u8]) {
        let mut depth = 0_u32;
        let mut at = 0;
        while let Some(b) = object.get(at) {
            match b {
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                b'"' => {
                    let Some(end) = string_end(object, at) else {
                        return;
                    };
                    if let Some(value) = after_colon(object, end) {
                        self.take(&object[at + 1..end - 1], depth, &object[value..]);
                    }
                    at = end - 1;
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn take(&mut self, key: &[u8], depth: u32, value: &[u8]) {
        let slot = match (key, depth) {
            (b"prompt_tokens", 1) => &mut self.prompt,
            (b"input_tokens", 1) => &mut self.input,
            (b"completion_tokens" | b"output_tokens", 1) => &mut self.completion,
            (b"cached_tokens", 2) => &mut self.cached,
            (b"cache_read_input_tokens", 1) => &mut self.cache_read,
            (b"cache_creation_input_tokens", 1) => &mut self.cache_creation,
            _ => return,
        };
        if let Some(count) = count(value) {
            *slot = Some(count);
        }
    }
}

/// A plain non-negative integer.
fn count(text: &[u8]) -> Option<i64> {
    let len = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 || matches!(text.get(len), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let number = text[..len].iter().try_fold(0_i64, |n, d| {
        n.checked_mul(10)?.checked_add(i64::from(d - b'0'))
    })?;
    (number <= TOKENS_MAX).then_some(number)
}

/// The first `"id"` with a plain string: the response's own, which engines put first.
fn find_id(text: &[u8]) -> Option<String> {
    for at in ID_KEY.find_iter(text) {
        let Some(start) = after_colon(text, at + ID_KEY.needle().len()) else {
            continue;
        };
        if text.get(start) != Some(&b'"') {
            continue;
        }
        let end = string_end(text, start)?;
        let id = &text[start + 1..end - 1];
        if crate::http::route::is_response_id(id) {
            return String::from_utf8(id.to_vec()).ok();
        }
    }
    None
}
