//! What a record tells of a request's head, body and answer: the few facts that its readers need.

use serde::{Deserialize, Serialize};

use crate::http::request::Head;
use crate::http::route::Route;
use crate::prompt::Digest;
use crate::relay::Relay;

/// Of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked<'a> {
    /// What is asked for.
    pub route: Option<Route>,
    /// The method.
    pub method: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// Of a valid `traceparent`.
    pub trace_id: Option<&'a str>,
    /// The value of `tracestate`, where there is a trace.
    pub trace_state: Option<&'a [u8]>,
}

impl<'a> From<&'a Head> for Asked<'a> {
    fn from(head: &'a Head) -> Self {
        let trace_id = head.trace_id().map(ascii);
        Self {
            route: head.route(),
            method: ascii(head.method()),
            path: ascii(head.path()),
            trace_id,
            trace_state: trace_id.and_then(|_| head.header(b"tracestate")),
        }
    }
}

/// Of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said<'a> {
    /// The model or adapter.
    pub model: &'a str,
    /// A stream is wanted.
    pub stream: bool,
    /// Answer tokens at most.
    pub max_tokens: Option<u32>,
    /// Tokens that one event may have.
    pub event_tokens: u32,
    /// Bytes of the prompt.
    pub prompt_bytes: usize,
    /// There is more in it than text.
    pub has_media: bool,
    /// The answer continues the prompt.
    pub continues: bool,
}

impl<'a> From<&'a Digest> for Said<'a> {
    fn from(digest: &'a Digest) -> Self {
        Self {
            model: &digest.model,
            stream: digest.stream,
            max_tokens: digest.max_tokens,
            event_tokens: digest.event_tokens,
            prompt_bytes: digest.prompt_bytes,
            has_media: digest.has_media,
            continues: digest.answer.is_some(),
        }
    }
}

/// Of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The status that came.
    pub status: u16,
    /// The status that it is treated as.
    pub verdict: u16,
    /// It is a stream of events.
    pub streaming: bool,
    /// Events of it.
    pub events: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Tokens of the prompt, as the replica told them; likewise below.
    pub prompt_tokens: Option<i64>,
    /// Of those, found cached.
    pub cached_tokens: Option<i64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<i64>,
    /// Mean time between two of them, else between two events.
    pub mean_gap_ns: Option<u64>,
    /// Longest time between two events.
    pub worst_gap_ns: Option<u64>,
}

impl From<&Relay> for Answered {
    fn from(relay: &Relay) -> Self {
        let completion_tokens = relay.completion_tokens();
        let tokens = completion_tokens.and_then(|tokens| u64::try_from(tokens).ok());
        Self {
            status: relay.status(),
            verdict: relay.verdict(),
            streaming: relay.streaming(),
            events: relay.events(),
            bytes_out: relay.bytes_out(),
            prompt_tokens: relay.prompt_tokens(),
            cached_tokens: relay.cached_tokens(),
            completion_tokens,
            mean_gap_ns: relay.gaps().mean_ns(tokens),
            worst_gap_ns: relay.gaps().worst_ns(),
        }
    }
}

/// Text that the parser let through, as ASCII or not at all.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
