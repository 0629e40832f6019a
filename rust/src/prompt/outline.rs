//! The body's top level: which keys are there, and where their values are.

use smallvec::SmallVec;

use super::canonical::canonical;
use super::cursor::{Cursor, RawStr};
use super::fault::{Fault, Malformed};
use super::json::Scan;
use super::tape::{Tape, narrow};
use crate::http::error::RequestError;
use crate::http::steer;

/// How often one key may be there, always with the same value.
const REPEATS_MAX: usize = 8;

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
    StreamInterval = "stream_interval" b"stream_interval",
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
    RequestId = "request_id" b"request_id",
    ReturnTokenIds = "return_token_ids" b"return_token_ids",
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
    Items = "items" b"items",
    Texts = "texts" b"texts",
    Inputs = "inputs" b"inputs",
    Data1 = "data_1" b"data_1",
    Data2 = "data_2" b"data_2",
    State = "state" b"state",
    Questions = "questions" b"questions",
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
    /// Further places of keys that are there more than once, all with one value.
    repeats: Repeats,
    /// Right after the opening brace.
    pub(super) splice_at: usize,
    /// There is no member.
    pub(super) is_empty: bool,
}

type Repeats = SmallVec<[(Field, Slot); 1]>;

impl<'a> Outline<'a> {
    /// The first pass over the whole body. Unless its sender is `trusted`, a body that steers an
    /// engine is refused.
    pub(super) fn read(
        bytes: &'a [u8],
        tape: &'a mut Tape,
        trusted: bool,
    ) -> Result<Self, RequestError> {
        let mut members = Members {
            slots: [Slot::default(); FIELDS],
            repeats: Repeats::new(),
            watched: !trusted,
            count: 0,
        };
        let mut scan = Scan::new(bytes, tape);
        scan.skip_space();
        if scan.peek() != Some(b'{') {
            // Another kind of value is valid JSON, but no request.
            scan.value(0).and_then(|()| scan.end()).map_err(malformed)?;
            return Err(RequestError::new(
                "invalid_type",
                "the body must be a JSON object",
            ));
        }
        scan.at += 1;
        let splice_at = scan.at;
        members.read(&mut scan)?;
        scan.end().map_err(malformed)?;
        if let Some(name) = scan.steering {
            return Err(RequestError::untrusted_field(name));
        }
        Ok(Self {
            bytes,
            tape,
            slots: members.slots,
            repeats: members.repeats,
            splice_at,
            is_empty: members.count == 0,
        })
    }

    /// Where the values of a key are, null included: start and length of each.
    pub(super) fn places(&self, field: Field) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.cursors(field).map(|mut cursor| {
            let at = cursor.at;
            cursor.skip();
            (at, cursor.at - at)
        })
    }

    /// A cursor at each value of a key.
    pub(super) fn cursors(&self, field: Field) -> impl Iterator<Item = Cursor<'a>> + '_ {
        let first = self.slots.get(field as usize).filter(|slot| slot.at > 0);
        let repeats = self.repeats.iter().filter(move |(key, _)| *key == field);
        first
            .into_iter()
            .chain(repeats.map(|(_, slot)| slot))
            .map(|slot| slot.cursor(self.bytes, self.tape))
    }

    /// A cursor at the value; `None` where it is absent or null.
    pub(super) fn get(&self, field: Field) -> Option<Cursor<'a>> {
        let slot = self.slots.get(field as usize).filter(|slot| slot.at > 0)?;
        let cursor = slot.cursor(self.bytes, self.tape);
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

    /// The text at a key; what is no text says nothing.
    pub(super) fn hint(&self, field: Field) -> Option<RawStr<'a>> {
        self.get(field).and_then(|mut cursor| cursor.string())
    }

    pub(super) fn integer(&self, field: Field) -> Result<Option<i64>, Fault> {
        self.get(field)
            .map(|cursor| integer(cursor, field.name()))
            .transpose()
    }

    pub(super) fn count(&self, field: Field) -> Result<Option<u32>, Fault> {
        let count = self.get(field).map(|cursor| count(cursor, field.name()));
        count.transpose().map(Option::flatten)
    }
}

impl Slot {
    fn cursor<'a>(self, bytes: &'a [u8], tape: &'a Tape) -> Cursor<'a> {
        Cursor::new(bytes, tape, self.at as usize, self.next as usize)
    }
}

/// The top level as it is read.
struct Members {
    slots: [Slot; FIELDS],
    repeats: Repeats,
    /// The sender is not trusted.
    watched: bool,
    count: usize,
}

impl Members {
    fn read(&mut self, scan: &mut Scan<'_>) -> Result<(), RequestError> {
        scan.skip_space();
        if scan.peek() == Some(b'}') {
            scan.at += 1;
            return Ok(());
        }
        loop {
            self.member(scan)?;
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

    fn member(&mut self, scan: &mut Scan<'_>) -> Result<(), RequestError> {
        let mut buffer = Vec::new();
        scan.watched = self.watched;
        let (bytes, escaped) = scan.key().map_err(malformed)?;
        let key = RawStr { bytes, escaped }.text(&mut buffer);
        scan.watched = self.watched && !steer::is_content(key);
        let slot = Slot {
            at: narrow(scan.at),
            next: narrow(scan.tape.strings.len()),
        };
        scan.value(1).map_err(malformed)?;
        self.count += 1;
        if let Some(field) = field(key) {
            self.take(field, slot, scan)?;
        }
        Ok(())
    }

    /// Keeps the place of a value. A key that is there again must say the same: engines differ in
    /// which of the two they take.
    fn take(&mut self, field: Field, slot: Slot, scan: &Scan<'_>) -> Result<(), RequestError> {
        let first = &mut self.slots[field as usize];
        if first.at == 0 {
            *first = slot;
            return Ok(());
        }
        let at = |slot: Slot| slot.cursor(scan.bytes, scan.tape);
        if self.repeats.len() >= REPEATS_MAX || !are_same(at(*first), at(slot)) {
            return Err(RequestError::duplicate_key(field.name()));
        }
        self.repeats.push((field, slot));
        Ok(())
    }
}

/// Whether two values say the same, however they are written; numbers are compared as texts.
fn are_same(mut one: Cursor<'_>, mut other: Cursor<'_>) -> bool {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    canonical(&mut one, &mut left);
    canonical(&mut other, &mut right);
    left == right
}

pub(super) fn malformed(fault: Malformed) -> RequestError {
    let Malformed { at, what, is_bound } = fault;
    if is_bound {
        return RequestError::new(
            "body_too_complex",
            format!("the body passes a bound at byte {at}: expected {what}"),
        );
    }
    RequestError::new(
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
    if !cursor.enter(b'{') {
        return Err(Fault::of_type("", "an object"));
    }
    let mut buffer = Vec::new();
    while let Some(key) = cursor.member() {
        let key = key.text(&mut buffer);
        if let Some(index) = names.iter().position(|name| name.as_bytes() == key) {
            if found[index].is_some_and(|first| !are_same(first, *cursor)) {
                return Err(Fault::duplicate(names[index]));
            }
            found[index] = Some(*cursor);
        }
        cursor.skip();
    }
    Ok(found.map(|cursor| cursor.filter(|at| at.peek() != b'n')))
}

/// `true` or `false`, or what engines take for one: 1 and 0, and a few words.
pub(super) fn boolean(mut cursor: Cursor<'_>, path: &str) -> Result<bool, Fault> {
    let fault = || Fault::of_type(path, "a boolean");
    let mut buffer = Vec::new();
    let word = match cursor.string() {
        Some(text) => text.text(&mut buffer),
        None => cursor.scalar(),
    };
    let word = str::from_utf8(word).map_err(|_| fault())?;
    switch(word).ok_or_else(fault)
}

/// The words that engines take for a boolean.
pub(super) fn switch(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" | "t" | "y" | "1.0" => Some(true),
        "false" | "0" | "off" | "no" | "f" | "n" | "0.0" => Some(false),
        _ => None,
    }
}

/// A whole number, also one written like `20.0` or within quotes: engines take those as well.
pub(super) fn integer(mut cursor: Cursor<'_>, path: &str) -> Result<i64, Fault> {
    /// Above, a float may have been rounded.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let fault = || Fault::of_type(path, "an integer");
    let mut buffer = Vec::new();
    let text = match cursor.string() {
        Some(text) => text.text(&mut buffer),
        None => cursor.scalar(),
    };
    let text = str::from_utf8(text).map_err(|_| fault())?.trim();
    match text {
        "true" => return Ok(1),
        "false" => return Ok(0),
        _ => {}
    }
    if let Ok(value) = text.parse::<i64>() {
        return Ok(value);
    }
    let is_number = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let value = text.parse::<f64>().map_err(|_| fault())?;
    if !is_number || !value.is_finite() || value.fract() != 0.0 {
        return Err(fault());
    }
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    let whole = value.clamp(-EXACT_MAX, EXACT_MAX) as i64;
    Ok(whole)
}

/// A whole number from 0 on, more than `u32` holds counts as its largest; one below is the engine's to
/// judge, and says nothing.
pub(super) fn count(cursor: Cursor<'_>, path: &str) -> Result<Option<u32>, Fault> {
    let value = integer(cursor, path)?;
    Ok((value >= 0).then(|| u32::try_from(value).unwrap_or(u32::MAX)))
}
