//! Hands complete parts of a response out to the client, in the client's framing.

use super::events::Events;
use super::{
    FEED_DONE, FEED_FIRST_BYTE, FEED_WRITE_BUFFER, Framing, Phase, Relay, WITHHELD_BYTES_MAX,
    events, usage, verdict,
};
use crate::http::request::put;
use crate::prompt::continuing::Reason;

/// The chunk that ends a body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Relay {
    /// Hands out what is complete of the withheld bytes, all of them at the end.
    pub(super) fn release(&mut self, ended: bool) -> u8 {
        if self.misfit {
            return if ended { self.end_misfit() } else { 0 };
        }
        let is_long = self.withheld.len() - self.complete_len > self.event_bytes_max();
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
        let comments = self.opened && self.events.count == 0 && !ended && !is_long;
        if len > 0 && !self.first_byte && !comments {
            self.judge(len);
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
        if self.kept.is_some() {
            self.out = std::mem::take(&mut out);
            if let Some(failed) = self.failed_within() {
                return failed | if self.out.is_empty() { 0 } else { flags };
            }
            out = std::mem::take(&mut self.out);
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

    /// Most bytes of one event that are withheld; more where it may have the ids of a long prompt.
    pub(super) fn event_bytes_max(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.event_bytes_max());
        WITHHELD_BYTES_MAX + kept
    }

    /// Moves the first `len` withheld bytes into `out`.
    pub(super) fn hand_out(&mut self, out: &mut Vec<u8>, len: usize) {
        let withheld = std::mem::take(&mut self.withheld);
        let (payload, rest) = withheld.split_at(len);
        let begins_within = self.mid_event.take();
        if self.is_sse && rest.is_empty() && !self.events.at_boundary() {
            self.mid_event = Some(self.events);
        }
        let passed = match &mut self.kept {
            Some(kept) if self.is_sse => {
                let whole = begins_within.is_none() && self.mid_event.is_none();
                whole.then(|| kept.pass(payload)).or_else(|| {
                    kept.refuse(Reason::Boundary);
                    None
                })
            }
            _ => None,
        };
        let payload = passed.as_deref().unwrap_or(payload);
        if self.options.drop_usage && self.is_sse && usage::mentions_usage(payload) {
            let kept = self.without_usage(payload, begins_within);
            self.bytes_out += kept.len() as u64;
            self.frame(out, &kept);
        } else {
            self.bytes_out += payload.len() as u64;
            self.frame(out, payload);
        }
        self.observe(payload);
        self.events_out = self.events_before + self.events.count - self.events_dropped;
        self.complete_len = 0;
        self.comments_len = 0;
        self.announced_len = 0;
        self.withheld.extend_from_slice(rest);
    }

    /// The events without the one that only carries usage. Comments stay, also those before it, and so
    /// do parts of an event: its end, if the payload `begins_within` one, and one that has no end here.
    fn without_usage(&mut self, payload: &[u8], begins_within: Option<Events>) -> Vec<u8> {
        let within_len = begins_within.map_or(0, |events| events.boundary_in(payload));
        let (within, mut rest) = payload.split_at(within_len);
        let mut kept = Vec::with_capacity(payload.len());
        kept.extend_from_slice(within);
        while !rest.is_empty() {
            let (block, behind) = rest.split_at(events::block_len(rest));
            if events::is_event(block) && usage::is_usage_event(block) {
                self.events_dropped += 1;
            } else {
                kept.extend_from_slice(block);
            }
            rest = behind;
        }
        kept
    }

    /// Sees every body byte once, in order, as it is handed out: for a stream of events whole events
    /// (but for parts of one beyond the bound), else any part. Usage and the response's id are read
    /// here, and the answer is put into blocks.
    pub(super) fn observe(&mut self, payload: &[u8]) {
        if self.is_sse {
            if let Some(end) = self.sniffer.read_events(payload) {
                let mut behind = Events::default();
                behind.scan(&payload[end..]);
                self.events_at_usage = self.events.count.saturating_sub(behind.count);
            }
            self.follow(payload);
            if let Some(answer) = &mut self.answer {
                answer.read_events(payload);
            }
        } else {
            self.sniffer.read_part(payload);
            if let Some(answer) = &mut self.answer {
                answer.read_part(payload);
            }
        }
    }

    /// Whether the stream begins with an error: as good as an answer with its status.
    fn judge(&mut self, len: usize) {
        if self.accepted() {
            let skips = self.options.responses_api;
            self.error_status = verdict::first_error(&self.withheld[..len], skips);
            self.error_first = self.error_status.is_some();
        }
    }

    /// What events behind the first say of the request.
    fn follow(&mut self, payload: &[u8]) {
        let responses = self.options.responses_api;
        self.said_all = verdict::ends_answer(payload, responses || self.options.anthropic);
        if responses {
            self.sequence_number = usage::last_sequence_number(payload).or(self.sequence_number);
        }
        if self.error_status.is_none() {
            self.error_status = verdict::later_error(payload);
        }
    }

    /// Appends `payload` in the client's framing.
    pub(super) fn frame(&self, out: &mut Vec<u8>, payload: &[u8]) {
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
    pub(super) fn end(&self, out: &mut Vec<u8>) {
        if self.client == Framing::Chunked {
            put(out, &[LAST_CHUNK]);
        }
    }
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
