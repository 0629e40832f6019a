//! The common case: what the replica sent is written as it came.

use super::handout::LAST_CHUNK;
use super::{FEED_DONE, FEED_WRITE_INPUT, Framing, Phase, Relay, usage};
use crate::http::request::chunked::hex_value;

impl Relay {
    /// The common case: `data` can be written as it is. `None`: it cannot, and nothing has changed.
    pub(super) fn pass(&mut self, data: &[u8]) -> Option<u8> {
        if self.kept.is_some()
            || !self.first_byte
            || !self.withheld.is_empty()
            || self.mid_event.is_some()
        {
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
        self.events_out = self.events_before + events.count - self.events_dropped;
        if !ends {
            return Some(FEED_WRITE_INPUT);
        }
        self.chunks.finish();
        self.phase = Phase::Done;
        Some(FEED_WRITE_INPUT | FEED_DONE)
    }
}

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
