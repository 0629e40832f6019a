//! Token counts and response ids, read in passing from the bytes of a response.
//!
//! No tree is built. `usage` counts where engines put it: as a field of the answer itself. In a stream it may also
//! be one of the `response` or the `message` that an event carries. One that lies deeper is none: a schema that the answer
//! repeats, or the arguments of a tool call, may have such a key. Of several the last counts.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use memchr::{memchr, memchr3};

use super::events;

/// Longest `usage` object that is read, with its key, in bytes: so much is kept of one that is cut.
const USAGE_BYTES_MAX: usize = 4096;
/// How far into a response its id is looked for, in bytes.
const ID_WINDOW_BYTES: usize = 4096;
/// Larger counts are no counts.
const TOKENS_MAX: i64 = 1 << 40;

static USAGE_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
/// The keys of an event whose object carries a `usage`: of the Responses API, and of Anthropic's.
const CARRIERS: [&[u8]; 2] = [b"\"response\"", b"\"message\""];
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

/// The way through a JSON text, however it is cut.
#[derive(Debug, Clone, Default)]
struct Walk {
    /// Objects that are open.
    depth: u32,
    /// The second of them is a carrier.
    carried: bool,
    in_string: bool,
    /// What is read with what comes: a key, or a `usage` object, that may go on.
    cut: Vec<u8>,
}

/// What follows a key.
enum Object {
    /// Not an object.
    Nothing,
    /// The bytes end before that is known.
    Cut,
    /// An object; where that is asked for.
    At(usize),
}

/// Reads the bytes of one response in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sniffer {
    counts: Counts,
    walk: Walk,
    /// The last byte of a block of which the end has not come.
    open: Option<u8>,
    id_window: Vec<u8>,
    id: Option<String>,
    wants_id: bool,
}

impl Sniffer {
    /// A sniffer; `wants_id`: the response's id is looked for as well.
    pub(super) fn new(wants_id: bool) -> Self {
        Self {
            wants_id,
            ..Self::default()
        }
    }

    /// Reads whole events and comments, and parts of an event beyond the bound. An object that does not end
    /// within its event is none, however the events were cut on their way. Where the last event ends that told
    /// the tokens of the answer, if one did.
    pub(super) fn read_events(&mut self, payload: &[u8]) -> Option<usize> {
        let mut told = None;
        let whole = self.open.is_none() && events::ends_block(payload);
        if !whole || mentions_usage(payload) {
            let mut rest = match (self.open, payload) {
                (Some(b'\r'), [b'\n', rest @ ..]) => rest, // of the line end before
                _ => payload,
            };
            while !rest.is_empty() {
                let (block, behind) = rest.split_at(events::block_len(rest));
                let before = self.counts.completion.take();
                self.walk.read(block, true, &mut self.counts);
                rest = behind;
                self.open = None;
                if rest.is_empty() && !events::ends_block(block) {
                    self.open = block.last().copied();
                } else {
                    self.walk = Walk::default();
                }
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

    /// Reads a part of a JSON body; it may be cut anywhere, and what is read does not depend on it.
    pub(super) fn read_part(&mut self, payload: &[u8]) {
        self.search_id(payload);
        self.walk.read(payload, false, &mut self.counts);
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
        Object::Nothing => None,
        found => Some(found),
    });
    matches!(first, Some(Object::At(_)))
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

/// Where the object behind a key that ends at `at` begins; `Cut`: it may still come.
fn opening(text: &[u8], at: usize) -> Object {
    let colon = skip_space(text, at);
    let start = match text.get(colon) {
        None => return Object::Cut,
        Some(b':') => skip_space(text, colon + 1),
        Some(_) => return Object::Nothing,
    };
    match text.get(start) {
        None => Object::Cut,
        Some(b'{') => Object::At(start),
        Some(_) => Object::Nothing,
    }
}

/// Where the object ends that is behind a key that ends at `at`.
fn object(text: &[u8], at: usize) -> Object {
    let start = match opening(text, at) {
        Object::At(start) => start,
        none => return none,
    };
    let mut depth = 0_u32;
    let mut at = start;
    while let Some(b) = text.get(at) {
        match b {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Object::At(at + 1),
            b'}' => depth -= 1,
            b'"' => match string_end(text, at) {
                Some(end) => at = end - 1,
                None => return Object::Cut,
            },
            _ => {}
        }
        at += 1;
    }
    Object::Cut
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

impl Walk {
    fn read(&mut self, payload: &[u8], is_event: bool, counts: &mut Counts) {
        if self.cut.is_empty() {
            let read = self.advance(payload, is_event, counts);
            self.cut.extend_from_slice(&payload[read..]);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(payload);
            let read = self.advance(&joined, is_event, counts);
            self.cut.extend_from_slice(&joined[read..]);
        }
    }

    /// Reads on, and takes the counts of each `usage` on the way. Returns how much was read: what is left is
    /// needed with what comes.
    fn advance(&mut self, text: &[u8], is_event: bool, counts: &mut Counts) -> usize {
        let mut at = 0;
        loop {
            if self.in_string {
                let end = memchr(b'"', &text[at..]).map_or(text.len(), |found| at + found);
                let slashes = text[at..end].iter().rev();
                let escaped = slashes.take_while(|byte| **byte == b'\\').count() % 2 == 1;
                if end == text.len() {
                    return end - usize::from(escaped);
                }
                self.in_string = escaped;
                at = end + 1;
                continue;
            }
            let Some(found) = memchr3(b'"', b'{', b'}', &text[at..]) else {
                return text.len();
            };
            at += found;
            match text[at] {
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.carried &= self.depth > 1;
                }
                _ => match self.key(&text[at..], is_event, counts) {
                    Some(len) => {
                        at += len;
                        continue;
                    }
                    None => return at,
                },
            }
            at += 1;
        }
    }

    /// Reads a string at the beginning of `text`, or only its first quote; with what is behind it where that is
    /// a usage, or begins what carries one. Returns how much was read; `None`: that is decided by what comes.
    fn key(&mut self, text: &[u8], is_event: bool, counts: &mut Counts) -> Option<usize> {
        let window = &text[..text.len().min(USAGE_BYTES_MAX)];
        let cut = window.len() < USAGE_BYTES_MAX;
        let usage = USAGE_KEY.needle();
        if self.depth == 1 || (self.depth == 2 && self.carried) {
            if window.starts_with(usage) {
                match object(window, usage.len()) {
                    Object::At(end) => {
                        counts.read(&window[usage.len()..end]);
                        return Some(end);
                    }
                    Object::Cut if cut => return None,
                    Object::Cut | Object::Nothing => return Some(usage.len()),
                }
            }
            if usage.starts_with(window) {
                return None;
            }
        }
        if self.depth == 1 && is_event {
            for carrier in CARRIERS {
                if window.starts_with(carrier) {
                    return match opening(window, carrier.len()) {
                        Object::At(start) => {
                            (self.depth, self.carried) = (2, true);
                            Some(start + 1)
                        }
                        Object::Cut if cut => None,
                        Object::Cut | Object::Nothing => Some(carrier.len()),
                    };
                }
                if carrier.starts_with(window) {
                    return None;
                }
            }
        }
        self.in_string = true;
        Some(1)
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
