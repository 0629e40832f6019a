//! What a relay reports about its response.

use super::gaps::Gaps;
use super::head::Framing;
use super::{Phase, Relay};

impl Relay {
    /// The replica's status, 0 before the head.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The status by which the answer is judged: its own, or that of an error event in its stream.
    #[must_use]
    pub fn verdict(&self) -> u16 {
        self.error_status.unwrap_or(self.status)
    }

    /// The response is a stream of events that the relay can read.
    #[must_use]
    pub fn streaming(&self) -> bool {
        self.is_sse
    }

    /// After the end: the replica's connection may serve another request.
    #[must_use]
    pub fn reusable(&self) -> bool {
        self.phase == Phase::Done && self.upstream_keeps_alive && !self.was_cut
    }

    /// The client's connection closes behind the response, and its head says so. A response that was
    /// cut with an error event has an end like any other.
    #[must_use]
    pub fn close_client(&self) -> bool {
        !self.options.keep_alive || !self.options.http11 || self.client == Framing::Close
    }

    /// At least one byte came from the replica.
    #[must_use]
    pub fn started(&self) -> bool {
        self.started
    }

    /// What was expected where the response broke.
    #[must_use]
    pub fn error(&self) -> Option<&'static str> {
        self.error
    }

    /// `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// Why another balancer has not begun the request, if it says so: a token of RFC 9110.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused
            .as_deref()
            .and_then(|reason| std::str::from_utf8(reason).ok())
    }

    /// The id of a `/v1/responses` response, where it was asked for.
    #[must_use]
    pub fn response_id(&self) -> Option<&str> {
        self.sniffer.id()
    }

    /// Tokens of the prompt, cached ones included.
    #[must_use]
    pub fn prompt_tokens(&self) -> Option<i64> {
        self.sniffer.prompt_tokens()
    }

    /// Tokens of the prompt that the replica found in its cache.
    #[must_use]
    pub fn cached_tokens(&self) -> Option<i64> {
        self.sniffer.cached_tokens()
    }

    /// Tokens of the answer.
    #[must_use]
    pub fn completion_tokens(&self) -> Option<i64> {
        self.sniffer.completion_tokens()
    }

    /// Chained hashes of the answer's blocks, behind those of the prompt it was
    /// [attached](Self::attach) to: once, after the end.
    pub fn take_answer(&mut self) -> Vec<u64> {
        match self.answer.take() {
            Some(answer) if self.phase == Phase::Done && !self.was_cut => answer.finish(),
            _ => Vec::new(),
        }
    }

    /// Body bytes handed out for the client, without framing.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// The answer is an error from its beginning: its status, or its first event.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.status >= 400 || self.error_first
    }

    /// Events behind the last that told the tokens of the answer; all where none did. None where the answer has
    /// said all: what is behind its tokens then is its end, and a client may leave at that end.
    #[must_use]
    pub fn events_since_usage(&self) -> u64 {
        if self.said_all && self.events_at_usage > 0 {
            return 0;
        }
        self.events.count.saturating_sub(self.events_at_usage)
    }

    /// The time between the events of a stream.
    #[must_use]
    pub fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Events handed out.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events_out
    }
}
