//! One response on its way to the client: head, framing, event boundaries, usage.
//!
//! A relay withholds the head until the first body byte, so that a retry stays possible. For a stream of
//! events that is the first complete event. The bytes that it returns for the client always end after a
//! whole event and a whole chunk. So an error event can follow them at any time ([`Relay::cut`]).
//!
//! An input that ends so already passes as it is, without a copy. Of any other input the incomplete part is
//! withheld, within a bound, and the rest is framed anew.

mod answers;
mod anthropic;
mod asking;
mod chunk;
mod continuing;
mod cut;
mod events;
mod gaps;
mod handout;
mod head;
mod ids;
mod kept;
mod messages;
mod opening;
mod pass;
mod reader;
mod usage;
mod verdict;
mod words;

#[cfg(test)]
mod tests;

use crate::http::request::chunked::Chunks;
use crate::http::request::{put, put_decimal};
use crate::prompt::{Answer, AnswerStart};
use events::Events;
pub use gaps::Gaps;
use head::{Framing, Ours, ResponseHead};
use usage::Sniffer;

pub use head::{Fault, RESPONSE_HEAD_BYTES_MAX, RESPONSE_HEADERS_MAX};
pub use ids::Pool;
pub use kept::Kept;
pub use reader::ResponseReader;
pub use words::Question;

/// Write the input itself.
pub const FEED_WRITE_INPUT: u8 = 1;
/// Write what [`Relay::take`] returns.
pub const FEED_WRITE_BUFFER: u8 = 2;
/// The first body bytes are writable.
pub const FEED_FIRST_BYTE: u8 = 4;
/// The response is complete.
pub const FEED_DONE: u8 = 8;
/// The response is malformed; write nothing of this input.
pub const FEED_FAILED: u8 = 16;

/// Most bytes of one event that are withheld; a longer one is handed out in parts.
pub const WITHHELD_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of events that announce a response; behind them it begins whatever they are.
const ANNOUNCED_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of an answer that is told of in an error event.
const MISFIT_BYTES_MAX: usize = 64 * 1024;
/// Most interim (1xx) responses before the final one.
const INTERIM_MAX: u32 = 8;
const WRONG_END: Fault = "more bytes before the end of the connection";

/// How a relay is to treat its response.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one request"
)]
pub struct Options {
    /// The client speaks HTTP/1.1; else the output is de-chunked and the connection closes.
    pub http11: bool,
    /// The client's connection may stay open afterwards.
    pub keep_alive: bool,
    /// A HEAD request, sent as GET: the head is relayed, the body dropped.
    pub is_head: bool,
    /// Errors in the stream take Anthropic's shape.
    pub anthropic: bool,
    /// Usage was asked for by us: its extra event is taken out again.
    pub drop_usage: bool,
    /// The response's id is wanted.
    pub responses_api: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Body,
    Done,
    Failed,
}

/// One response on its way from a replica to a client.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one response"
)]
pub struct Relay {
    options: Options,
    request_id: Box<str>,
    /// Header lines that stand in place of the replica's own about CORS, and about limits.
    cors: Option<Box<[u8]>>,
    rate_limit: Option<Box<[u8]>>,
    receipt: Option<Box<[u8]>>,
    phase: Phase,
    /// The replica's head while it is incomplete.
    head: Vec<u8>,
    interim: u32,
    /// The client's head until it is handed out.
    client_head: Vec<u8>,
    upstream: Framing,
    client: Framing,
    chunks: Chunks,
    is_sse: bool,
    events: Events,
    /// Body bytes that are not handed out.
    withheld: Vec<u8>,
    /// How many of them end on an event.
    complete_len: usize,
    /// How many of them are whole comments before the first event.
    comments_len: usize,
    /// How many of them are known to be announcements only.
    announced_len: usize,
    /// The client's head is out before the first event; see [`Relay::open`].
    opened: bool,
    /// The client was promised a stream, and this answer is none.
    misfit: bool,
    /// Part of an event longer than [`WITHHELD_BYTES_MAX`] is out.
    mid_event: Option<Events>,
    out: Vec<u8>,
    sniffer: Sniffer,
    /// What another replica needs to go on with the stream, where it may.
    kept: Option<Box<Kept>>,
    /// What the next turn's prompt will contain, where that is wanted.
    answer: Option<Box<Answer>>,
    status: u16,
    retry_after_s: Option<u32>,
    refused: Option<Box<[u8]>>,
    started: bool,
    first_byte: bool,
    upstream_keeps_alive: bool,
    was_cut: bool,
    error: Option<Fault>,
    /// Status for which an error event stands.
    error_status: Option<u16>,
    /// It stands first in its stream.
    error_first: bool,
    /// Events up to the last that told the tokens of the answer.
    events_at_usage: u64,
    /// The last whole event was one behind which the API says nothing more.
    said_all: bool,
    /// Of the last event, where the API counts them.
    sequence_number: Option<i64>,
    bytes_out: u64,
    events_out: u64,
    /// Of those, from replicas that were given up.
    events_before: u64,
    events_dropped: u64,
    gaps: Gaps,
}

impl Relay {
    /// Says who may read the answer in a browser: header lines that replace the replica's own, each with
    /// its CR LF.
    pub fn set_cors(&mut self, lines: &[u8]) {
        self.cors = Some(lines.into());
    }

    /// Says how the client stands with its limits: header lines that replace the replica's own, likewise.
    pub fn set_rate_limit(&mut self, lines: &[u8]) {
        self.rate_limit = Some(lines.into());
    }

    /// Says why the request went where it went: a header line, with its CR LF.
    pub fn set_receipt(&mut self, line: &[u8]) {
        self.receipt = Some(line.into());
    }

    /// A relay for one attempt; `request_id` is returned to the client.
    #[must_use]
    pub fn new(options: Options, request_id: &str) -> Self {
        Self {
            options,
            request_id: request_id.into(),
            cors: None,
            rate_limit: None,
            receipt: None,
            phase: Phase::Head,
            head: Vec::new(),
            interim: 0,
            client_head: Vec::new(),
            upstream: Framing::None,
            client: Framing::None,
            chunks: Chunks::default(),
            is_sse: false,
            events: Events::default(),
            withheld: Vec::new(),
            complete_len: 0,
            comments_len: 0,
            announced_len: 0,
            opened: false,
            misfit: false,
            mid_event: None,
            out: Vec::new(),
            sniffer: Sniffer::new(options.responses_api),
            kept: None,
            answer: None,
            status: 0,
            retry_after_s: None,
            refused: None,
            started: false,
            first_byte: false,
            upstream_keeps_alive: false,
            was_cut: false,
            error: None,
            error_status: None,
            error_first: false,
            events_at_usage: 0,
            said_all: false,
            sequence_number: None,
            bytes_out: 0,
            events_out: 0,
            events_before: 0,
            events_dropped: 0,
            gaps: Gaps::default(),
        }
    }

    /// Puts the answer into blocks that go on behind its prompt's, on its way.
    pub fn attach(&mut self, start: AnswerStart) {
        if !self.options.is_head {
            self.answer = Some(Box::new(Answer::new(start)));
        }
    }

    /// Takes what the replica sent; returns `FEED_*` flags.
    pub fn feed(&mut self, data: &[u8]) -> u8 {
        if data.is_empty() {
            return 0;
        }
        self.started = true;
        match self.phase {
            Phase::Body => match self.pass(data) {
                Some(flags) => flags,
                None => self.reframe(data),
            },
            Phase::Head => self.read_head(data),
            Phase::Done => {
                self.upstream_keeps_alive = false;
                0
            }
            Phase::Failed => FEED_FAILED,
        }
    }

    /// The input that was fed last came now. For a stream this measures the gaps between its events.
    #[inline]
    pub fn came(&mut self, now_ns: u64) {
        self.gaps.note(self.events_out, now_ns);
    }

    /// The client takes bytes again: for some time none were read.
    pub fn resumed(&mut self) {
        self.gaps.interrupt();
    }

    /// The replica closed its side.
    pub fn eof(&mut self) -> u8 {
        let at_end = !self.is_sse || self.events.at_boundary();
        let whole = (self.upstream == Framing::Close && at_end) || self.complete();
        self.upstream_keeps_alive = false;
        match self.phase {
            Phase::Body if whole => self.release(true),
            Phase::Head | Phase::Body => self.fail(WRONG_END),
            Phase::Done => 0,
            Phase::Failed => FEED_FAILED,
        }
    }

    /// The bytes to write; empties the buffer.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The API has said all that it says, whatever is missing of the framing or of the last line ends;
    /// these are put in.
    fn complete(&mut self) -> bool {
        if !self.is_sse || self.misfit {
            return false;
        }
        let named = self.options.anthropic || self.options.responses_api;
        if self.events.at_boundary() {
            return self.said_all && self.withheld.is_empty();
        }
        if self.mid_event.is_some() || !verdict::ends_answer_unended(&self.withheld, named) {
            return false;
        }
        let ends: &[u8] = match self.withheld.last() {
            Some(b'\n') => b"\n",
            _ => b"\n\n",
        };
        self.withhold(ends);
        true
    }

    fn fail(&mut self, fault: Fault) -> u8 {
        self.phase = Phase::Failed;
        self.upstream_keeps_alive = false;
        self.error = Some(fault);
        self.out = Vec::new();
        FEED_FAILED
    }

    fn read_head(&mut self, data: &[u8]) -> u8 {
        let mut joined = std::mem::take(&mut self.head);
        let mut rest = if joined.is_empty() {
            data
        } else {
            joined.extend_from_slice(data);
            &joined
        };
        loop {
            match head::parse(rest) {
                Err(fault) => return self.fail(fault),
                Ok(None) => {
                    self.head = rest.to_vec();
                    return 0;
                }
                Ok(Some(head)) if head.status < 200 => {
                    rest = &rest[head.len..];
                    self.interim += 1;
                    if self.interim > INTERIM_MAX {
                        return self.fail("fewer interim responses");
                    }
                    if rest.is_empty() {
                        return 0;
                    }
                }
                Ok(Some(head)) => {
                    self.begin(&head);
                    return self.reframe(&rest[head.len..]);
                }
            }
        }
    }

    /// Decides the client's framing and builds its head.
    fn begin(&mut self, head: &ResponseHead<'_>) {
        self.phase = Phase::Body;
        self.status = head.status;
        self.retry_after_s = head.retry_after_s;
        self.refused = head.refused.map(Into::into);
        self.is_sse = head.is_sse;
        self.answer = self.answer.take().filter(|_| head.status == 200);
        self.upstream = head.framing;
        self.upstream_keeps_alive = head.keep_alive;
        if self.opened {
            self.misfit = !self.accepted();
            return;
        }
        self.client = match head.framing {
            Framing::None => Framing::None,
            // The length of a stream of events is not known: one may be taken out or put in.
            Framing::Length(length) if !head.is_sse => Framing::Length(length),
            _ if self.options.http11 => Framing::Chunked,
            _ => Framing::Close,
        };
        let mut out = head.rebuild(&Ours {
            request_id: &self.request_id,
            cors: self.cors.as_deref(),
            rate_limit: self.rate_limit.as_deref(),
            receipt: self.receipt.as_deref(),
        });
        match self.client {
            Framing::Length(length) => put_decimal(&mut out, b"Content-Length: ", length),
            Framing::Chunked | Framing::None | Framing::Close => {}
        }
        self.finish_head(&mut out);
        self.client_head = out;
    }

    /// Appends the fields of framing and connection, and the empty line.
    fn finish_head(&self, out: &mut Vec<u8>) {
        if self.client == Framing::Chunked {
            put(out, &[b"Transfer-Encoding: chunked\r\n"]);
        }
        if self.close_client() {
            put(out, &[b"Connection: close\r\n"]);
        }
        put(out, &[b"\r\n"]);
    }

    /// Takes `data` apart, withholds its body bytes, and hands out what is complete.
    fn reframe(&mut self, data: &[u8]) -> u8 {
        match self.unframe(data) {
            Ok(ended) => self.release(ended),
            Err(fault) => self.fail(fault),
        }
    }

    /// Withholds the body bytes in `data`; whether the body has ended.
    fn unframe(&mut self, data: &[u8]) -> Result<bool, Fault> {
        let used = match self.upstream {
            Framing::None => 0,
            Framing::Length(left) => {
                let len = usize::try_from(left).map_or(data.len(), |l| l.min(data.len()));
                self.upstream = Framing::Length(left - len as u64);
                self.withhold(&data[..len]);
                len
            }
            Framing::Close => {
                self.withhold(data);
                data.len()
            }
            Framing::Chunked => {
                let mut at = 0;
                while at < data.len() && !self.chunks.done() {
                    let (used, piece) = self.chunks.step(&data[at..])?;
                    at += used;
                    self.withhold(piece);
                }
                at
            }
        };
        let ended = match self.upstream {
            Framing::None | Framing::Length(0) => true,
            Framing::Chunked => self.chunks.done(),
            _ => false,
        };
        // Bytes behind the end belong to no request of ours: they are dropped, and the connection with
        // them.
        self.upstream_keeps_alive &= !ended || used == data.len();
        Ok(ended)
    }

    /// Whether the withheld events up to `end` are worth giving up a retry for: comments alone are not,
    /// nor what announces a response of `/v1/responses` before the engine has begun with it. Nor is what only
    /// begins a stream that may go on elsewhere: its replica has not said how the answer begins.
    fn is_worth_starting(&mut self, end: usize) -> bool {
        if self.events.count == 0 {
            return false;
        }
        let fresh = &self.withheld[self.announced_len..end];
        let announces = match &self.kept {
            Some(kept) => end <= self.event_bytes_max() && kept.only_begins(fresh),
            None if self.options.responses_api => {
                end <= ANNOUNCED_BYTES_MAX && events::only_announce(fresh)
            }
            None => return true,
        };
        if announces {
            self.announced_len = end;
        }
        !announces
    }

    fn withhold(&mut self, payload: &[u8]) {
        let start = self.withheld.len();
        if self.misfit {
            let room = MISFIT_BYTES_MAX.saturating_sub(start);
            let kept = &payload[..payload.len().min(room)];
            return self.withheld.extend_from_slice(kept);
        }
        self.withheld.extend_from_slice(payload);
        if !self.is_sse {
            self.complete_len = self.withheld.len();
        } else if let Some(boundary) = self.events.scan(payload) {
            let end = start + boundary;
            if self.first_byte || self.is_worth_starting(end) {
                self.complete_len = end;
            } else if self.events.count == 0 {
                // Comments go out at once where the head is out.
                let len = if self.opened {
                    &mut self.complete_len
                } else {
                    &mut self.comments_len
                };
                *len = end;
            }
        }
    }
}
