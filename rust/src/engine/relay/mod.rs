//! One response on its way: head, framing, event boundaries, usage.
//!
//! The head is withheld until the first body byte (for a stream of events the first complete event),
//! so that a retry stays possible. What is handed out ends on an event and on a chunk: an error event
//! can be placed behind it at any time ([`Relay::cut`]). An input that is made so already passes as it
//! is, without a copy; only what is cut otherwise is withheld, bounded, and framed anew.

mod answers;
mod cut;
mod events;
mod head;
mod reader;
mod usage;

#[cfg(test)]
mod tests;

use super::request::chunked::{Chunks, hex_value};
use super::request::{put, put_decimal};
use events::Events;
use head::{Framing, ResponseHead};
use usage::Sniffer;

pub use head::{Fault, RESPONSE_HEAD_BYTES_MAX, RESPONSE_HEADERS_MAX};
pub use reader::ResponseReader;

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
    /// Part of an event longer than [`WITHHELD_BYTES_MAX`] is out.
    mid_event: bool,
    out: Vec<u8>,
    sniffer: Sniffer,
    status: u16,
    retry_after_s: Option<u32>,
    started: bool,
    first_byte: bool,
    upstream_keeps_alive: bool,
    was_cut: bool,
    error: Option<Fault>,
    bytes_out: u64,
    events_out: u64,
    events_dropped: u64,
}

impl Relay {
    /// A relay for one attempt; `request_id` is returned to the client.
    #[must_use]
    pub fn new(options: Options, request_id: &str) -> Self {
        Self {
            options,
            request_id: request_id.into(),
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
            mid_event: false,
            out: Vec::new(),
            sniffer: Sniffer::new(options.responses_api),
            status: 0,
            retry_after_s: None,
            started: false,
            first_byte: false,
            upstream_keeps_alive: false,
            was_cut: false,
            error: None,
            bytes_out: 0,
            events_out: 0,
            events_dropped: 0,
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

    /// The replica closed its side.
    pub fn eof(&mut self) -> u8 {
        let whole = self.upstream == Framing::Close && (!self.is_sse || self.events.at_boundary());
        match self.phase {
            Phase::Body if whole => self.release(true),
            Phase::Head | Phase::Body => self.fail(WRONG_END),
            Phase::Done => {
                self.upstream_keeps_alive = false;
                0
            }
            Phase::Failed => FEED_FAILED,
        }
    }

    /// The bytes to write; empties the buffer.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Ends a response whose body has begun: for a stream of events one error event and the end of
    /// the framing, else nothing (the connection must be cut). Works once.
    pub fn cut(&mut self, message: &str, code: &str) -> Vec<u8> {
        let open = self.first_byte && !self.options.is_head && self.phase != Phase::Done;
        self.was_cut = true;
        self.phase = Phase::Done;
        self.withheld = Vec::new();
        if !open || !self.is_sse {
            return Vec::new();
        }
        let mut event = cut::error_event(self.options.anthropic, message, code);
        if self.mid_event {
            event.splice(..0, *b"\n\n");
        }
        let mut out = Vec::with_capacity(event.len() + 16);
        self.bytes_out += event.len() as u64;
        self.frame(&mut out, &event);
        self.end(&mut out);
        out
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
        self.is_sse = head.is_sse;
        self.upstream = head.framing;
        self.upstream_keeps_alive = head.keep_alive;
        self.client = match head.framing {
            Framing::None => Framing::None,
            // The length of a stream of events is not known: one may be taken out or put in.
            Framing::Length(length) if !head.is_sse => Framing::Length(length),
            _ if self.options.http11 => Framing::Chunked,
            _ => Framing::Close,
        };
        let mut out = head.rebuild(&self.request_id);
        match self.client {
            Framing::Length(length) => put_decimal(&mut out, b"Content-Length: ", length),
            Framing::Chunked => put(&mut out, &[b"Transfer-Encoding: chunked\r\n"]),
            Framing::None | Framing::Close => {}
        }
        if self.close_client() {
            put(&mut out, &[b"Connection: close\r\n"]);
        }
        put(&mut out, &[b"\r\n"]);
        self.client_head = out;
    }

    /// The common case: `data` can be written as it is. `None`: it cannot, and nothing has changed.
    fn pass(&mut self, data: &[u8]) -> Option<u8> {
        if !self.client_head.is_empty() || !self.withheld.is_empty() || self.mid_event {
            return None;
        }
        match (self.upstream, self.client) {
            (Framing::Length(left), Framing::Length(_)) => {
                let left = left.checked_sub(data.len() as u64)?;
                self.upstream = Framing::Length(left);
                self.bytes_out += data.len() as u64;
                self.observe(data);
                self.phase = if left == 0 { Phase::Done } else { Phase::Body };
                Some(if left == 0 {
                    FEED_WRITE_INPUT | FEED_DONE
                } else {
                    FEED_WRITE_INPUT
                })
            }
            (Framing::Chunked, Framing::Chunked) if self.chunks.at_boundary() => {
                self.pass_chunks(data)
            }
            (Framing::Close, Framing::Close) if !self.is_sse => {
                self.bytes_out += data.len() as u64;
                self.observe(data);
                Some(FEED_WRITE_INPUT)
            }
            _ => None,
        }
    }

    /// Whole chunks of whole events, perhaps with the last chunk behind them.
    fn pass_chunks(&mut self, data: &[u8]) -> Option<u8> {
        if self.options.drop_usage && usage::mentions_usage(data) {
            return None;
        }
        let mut events = self.events;
        let mut rest = data;
        while let Some((payload, behind)) = whole_chunk(rest) {
            if self.is_sse {
                events.scan(payload);
                if !events.at_boundary() {
                    return None;
                }
            }
            rest = behind;
        }
        let ends = rest == LAST_CHUNK;
        if !rest.is_empty() && !ends {
            return None;
        }
        self.events = events;
        let mut rest = data;
        while let Some((payload, behind)) = whole_chunk(rest) {
            self.bytes_out += payload.len() as u64;
            self.observe(payload);
            rest = behind;
        }
        self.events_out = events.count - self.events_dropped;
        if !ends {
            return Some(FEED_WRITE_INPUT);
        }
        self.chunks.finish();
        self.phase = Phase::Done;
        Some(FEED_WRITE_INPUT | FEED_DONE)
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

    fn withhold(&mut self, payload: &[u8]) {
        let start = self.withheld.len();
        self.withheld.extend_from_slice(payload);
        if !self.is_sse {
            self.complete_len = self.withheld.len();
        } else if let Some(boundary) = self.events.scan(payload) {
            // Before the first byte, comments alone are not worth giving up a retry for.
            if self.first_byte || self.events.count > 0 {
                self.complete_len = start + boundary;
            }
        }
    }

    /// Hands out what is complete of the withheld bytes, all of them at the end.
    fn release(&mut self, ended: bool) -> u8 {
        let is_long = self.withheld.len() - self.complete_len > WITHHELD_BYTES_MAX;
        let len = if ended || is_long {
            self.withheld.len()
        } else {
            self.complete_len
        };
        if len == 0 && !ended {
            return 0;
        }
        let mut flags = FEED_WRITE_BUFFER;
        let mut out = std::mem::take(&mut self.out);
        out.append(&mut self.client_head);
        if len > 0 && !self.first_byte {
            self.first_byte = true;
            flags |= FEED_FIRST_BYTE;
        }
        if self.options.is_head {
            self.upstream_keeps_alive &= ended;
            self.phase = Phase::Done;
            self.out = out;
            return flags | FEED_DONE;
        }
        if len > 0 {
            self.hand_out(&mut out, len);
        }
        if ended {
            self.end(&mut out);
            self.phase = Phase::Done;
            flags |= FEED_DONE;
        }
        if out.is_empty() {
            flags &= !FEED_WRITE_BUFFER;
        }
        self.out = out;
        flags
    }

    /// Moves the first `len` withheld bytes into `out`.
    fn hand_out(&mut self, out: &mut Vec<u8>, len: usize) {
        let withheld = std::mem::take(&mut self.withheld);
        let (payload, rest) = withheld.split_at(len);
        self.mid_event = self.is_sse && rest.is_empty() && !self.events.at_boundary();
        if self.options.drop_usage && self.is_sse && usage::mentions_usage(payload) {
            let kept = self.without_usage(payload);
            self.bytes_out += kept.len() as u64;
            self.frame(out, &kept);
        } else {
            self.bytes_out += payload.len() as u64;
            self.frame(out, payload);
        }
        self.observe(payload);
        self.events_out = self.events.count - self.events_dropped;
        self.complete_len = 0;
        self.withheld.extend_from_slice(rest);
    }

    /// The events without the one that only carries usage.
    fn without_usage(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(payload.len());
        let mut rest = payload;
        while !rest.is_empty() {
            let (event, behind) = rest.split_at(events::first_len(rest));
            if usage::is_usage_event(event) {
                self.events_dropped += 1;
            } else {
                kept.extend_from_slice(event);
            }
            rest = behind;
        }
        kept
    }

    /// Sees every body byte once, in order, as it is handed out: for a stream of events whole events
    /// (but for parts of one beyond the bound), else any part. Usage and the response's id are read
    /// here; the answer's text will be hashed here.
    fn observe(&mut self, payload: &[u8]) {
        if self.is_sse {
            self.sniffer.read_events(payload);
        } else {
            self.sniffer.read_part(payload);
        }
    }

    /// Appends `payload` in the client's framing.
    fn frame(&self, out: &mut Vec<u8>, payload: &[u8]) {
        if payload.is_empty() {
            return; // an empty chunk would end the body
        }
        if self.client == Framing::Chunked {
            put_hex_line(out, payload.len());
            put(out, &[payload, b"\r\n"]);
        } else {
            put(out, &[payload]);
        }
    }

    /// Appends the end of the client's framing.
    fn end(&self, out: &mut Vec<u8>) {
        if self.client == Framing::Chunked {
            put(out, &[LAST_CHUNK]);
        }
    }
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Payload of the chunk that `data` begins with, and what is behind it. `None`: the chunk is not
/// whole, is the last one, or has an extension.
fn whole_chunk(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut size = 0;
    let mut digits = 0;
    while data.get(digits)?.is_ascii_hexdigit() {
        size = (size << 4) | hex_value(data[digits]);
        digits += 1;
        if digits > 8 {
            return None;
        }
    }
    let start = digits + 2;
    let end = start + usize::try_from(size).ok()?;
    let is_whole = size > 0
        && data.get(digits..start) == Some(b"\r\n")
        && data.get(end..end + 2) == Some(b"\r\n");
    is_whole.then(|| (&data[start..end], &data[end + 2..]))
}

fn put_hex_line(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0_u8; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[number & 15];
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    put(out, &[&digits[at..], b"\r\n"]);
}
