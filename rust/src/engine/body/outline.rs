//! The body's top level: which keys are there, and where their values are.

use super::cursor::{Cursor, RawStr};
use super::fault::Fault;
use super::json::{Malformed, Scan, Tape, narrow};
use crate::engine::error::RequestError;

macro_rules! fields {
    ($($variant:ident = $name:literal $key:literal,)*) => {
        /// A top-level key that some route reads.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($variant,)* }

        const NAMES: &[&str] = &[$($name,)*];

        fn field(key: &[u8]) -> Option<Field> {
            match key {
                $($key => Some(Field::$variant),)*
                _ => None,
            }
        }
    };
}

fields! {
    Model = "model" b"model",
    Messages = "messages" b"messages",
    Stream = "stream" b"stream",
    MaxTokens = "max_tokens" b"max_tokens",
    Prompt = "prompt" b"prompt",
    Tools = "tools" b"tools",
    StreamOptions = "stream_options" b"stream_options",
    MaxCompletionTokens = "max_completion_tokens" b"max_completion_tokens",
    MaxOutputTokens = "max_output_tokens" b"max_output_tokens",
    N = "n" b"n",
    Session = "session" b"session",
    SessionId = "session_id" b"session_id",
    PromptCacheKey = "prompt_cache_key" b"prompt_cache_key",
    User = "user" b"user",
    Metadata = "metadata" b"metadata",
    Priority = "priority" b"priority",
    ServiceTier = "service_tier" b"service_tier",
    CacheSalt = "cache_salt" b"cache_salt",
    Background = "background" b"background",
    Store = "store" b"store",
    Echo = "echo" b"echo",
    ContinueFinalMessage = "continue_final_message" b"continue_final_message",
    PreviousResponseId = "previous_response_id" b"previous_response_id",
    ChatTemplate = "chat_template" b"chat_template",
    ChatTemplateKwargs = "chat_template_kwargs" b"chat_template_kwargs",
    ReasoningEffort = "reasoning_effort" b"reasoning_effort",
    Reasoning = "reasoning" b"reasoning",
    Documents = "documents" b"documents",
    Functions = "functions" b"functions",
    System = "system" b"system",
    Instructions = "instructions" b"instructions",
    Input = "input" b"input",
    Query = "query" b"query",
    Queries = "queries" b"queries",
    Text1 = "text_1" b"text_1",
    Text2 = "text_2" b"text_2",
    Tokens = "tokens" b"tokens",
    TokenIds = "token_ids" b"token_ids",
    SamplingParams = "sampling_params" b"sampling_params",
}

const FIELDS: usize = NAMES.len();

impl Field {
    pub(super) fn name(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// Where a value is; `at` is 0 for none (no value stands at the body's first byte).
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    at: u32,
    next: u32,
}

/// What stands at the top level of a valid body.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    bytes: &'a [u8],
    tape: &'a Tape,
    slots: [Slot; FIELDS],
    /// Right after the opening brace.
    pub(super) splice_at: usize,
}

impl<'a> Outline<'a> {
    /// The first pass over the whole body.
    pub(super) fn read(bytes: &'a [u8], tape: &'a mut Tape) -> Result<Self, RequestError> {
        let mut slots = [Slot::default(); FIELDS];
        let mut scan = Scan::new(bytes, tape);
        scan.skip_space();
        if scan.peek() != Some(b'{') {
            // Another kind of value is valid JSON, but no request.
            scan.value(0).and_then(|()| scan.end()).map_err(malformed)?;
            return Err(RequestError::new(
                400,
                "invalid_type",
                "the body must be a JSON object",
            ));
        }
        scan.at += 1;
        let splice_at = scan.at;
        members(&mut scan, &mut slots)?;
        scan.end().map_err(malformed)?;
        Ok(Self {
            bytes,
            tape,
            slots,
            splice_at,
        })
    }

    /// A cursor at the value; `None` where it is absent or null.
    pub(super) fn get(&self, field: Field) -> Option<Cursor<'a>> {
        let slot = self.slots.get(field as usize).filter(|slot| slot.at > 0)?;
        let cursor = Cursor::new(self.bytes, self.tape, slot.at as usize, slot.next as usize);
        (cursor.peek() != b'n').then_some(cursor)
    }

    /// Whether the key is there, be it null.
    pub(super) fn has(&self, field: Field) -> bool {
        self.slots
            .get(field as usize)
            .is_some_and(|slot| slot.at > 0)
    }

    pub(super) fn string(&self, field: Field) -> Result<Option<RawStr<'a>>, Fault> {
        let Some(mut cursor) = self.get(field) else {
            return Ok(None);
        };
        let text = cursor.string();
        text.map(Some)
            .ok_or_else(|| Fault::of_type(field.name(), "a string"))
    }

    pub(super) fn boolean(&self, field: Field) -> Result<bool, Fault> {
        self.get(field)
            .map_or(Ok(false), |cursor| boolean(cursor, field.name()))
    }

    pub(super) fn integer(&self, field: Field) -> Result<Option<i64>, Fault> {
        self.get(field)
            .map(|cursor| integer(cursor, field.name()))
            .transpose()
    }

    pub(super) fn count(&self, field: Field) -> Result<Option<u32>, Fault> {
        self.get(field)
            .map(|cursor| count(cursor, field.name()))
            .transpose()
    }
}

fn members(scan: &mut Scan<'_>, slots: &mut [Slot; FIELDS]) -> Result<(), RequestError> {
    scan.skip_space();
    if scan.peek() == Some(b'}') {
        scan.at += 1;
        return Ok(());
    }
    let mut buffer = Vec::new();
    loop {
        let (bytes, escaped) = scan.key().map_err(malformed)?;
        if let Some(field) = field(RawStr { bytes, escaped }.text(&mut buffer)) {
            let slot = &mut slots[field as usize];
            if slot.at > 0 {
                return Err(RequestError::duplicate_key(field.name()));
            }
            *slot = Slot {
                at: narrow(scan.at),
                next: narrow(scan.tape.strings.len()),
            };
        }
        scan.value(1).map_err(malformed)?;
        scan.skip_space();
        match scan.peek() {
            Some(b',') => {
                scan.at += 1;
                scan.skip_space();
            }
            Some(b'}') => {
                scan.at += 1;
                return Ok(());
            }
            _ => return scan.fault("',' or '}'").map_err(malformed),
        }
    }
}

pub(super) fn malformed(fault: Malformed) -> RequestError {
    let Malformed { at, what } = fault;
    RequestError::new(
        400,
        "invalid_json",
        format!("invalid JSON at byte {at}: expected {what}"),
    )
}

/// The members of an object that are in `names` (null is absent); goes past the object.
pub(super) fn pick<'a, const N: usize>(
    cursor: &mut Cursor<'a>,
    names: &[&'static str; N],
) -> Result<[Option<Cursor<'a>>; N], Fault> {
    let mut found = [None; N];
    let mut seen = [false; N];
    if !cursor.enter(b'{') {
        return Err(Fault::of_type("", "an object"));
    }
    let mut buffer = Vec::new();
    while let Some(key) = cursor.member() {
        let key = key.text(&mut buffer);
        if let Some(index) = names.iter().position(|name| name.as_bytes() == key) {
            if seen[index] {
                return Err(Fault::duplicate(names[index]));
            }
            seen[index] = true;
            found[index] = (cursor.peek() != b'n').then_some(*cursor);
        }
        cursor.skip();
    }
    Ok(found)
}

/// `true` or `false`.
pub(super) fn boolean(cursor: Cursor<'_>, path: &str) -> Result<bool, Fault> {
    match cursor.peek() {
        b't' => Ok(true),
        b'f' => Ok(false),
        _ => Err(Fault::of_type(path, "a boolean")),
    }
}

/// A whole number, also one written like `20.0`.
pub(super) fn integer(mut cursor: Cursor<'_>, path: &str) -> Result<i64, Fault> {
    /// Above, a float may have been rounded.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let fault = || Fault::of_type(path, "an integer");
    if !matches!(cursor.peek(), b'-' | b'0'..=b'9') {
        return Err(fault());
    }
    let text = str::from_utf8(cursor.scalar()).map_err(|_| fault())?;
    if let Ok(value) = text.parse::<i64>() {
        return Ok(value);
    }
    let value = text.parse::<f64>().map_err(|_| fault())?;
    if value.fract() != 0.0 || value.abs() > EXACT_MAX {
        return Err(fault());
    }
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    Ok(value as i64)
}

/// A whole number from 0 on; more than `u32` holds counts as its largest.
pub(super) fn count(cursor: Cursor<'_>, path: &str) -> Result<u32, Fault> {
    let value = integer(cursor, path)?;
    if value < 0 {
        return Err(Fault::of_type(path, "an integer from 0 on"));
    }
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}
