//! Boundaries of server-sent events.
//!
//! A line ends with CR LF, LF or CR, and an empty line ends an event (WHATWG HTML, 9.2.6). A block of
//! comments alone is no event: it ends on a boundary, but is not counted.

use memchr::{memchr2, memchr2_iter};

/// Follows the lines of a stream, however it is cut.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Events {
    state: State,
    /// The event at hand has a line that is no comment.
    has_field: bool,
    /// Events that ended.
    pub count: u64,
}

/// What the byte before the next one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// The end of an empty line, or the stream's beginning: a boundary.
    #[default]
    Boundary,
    /// The CR of an empty line: a boundary too; a LF may belong to it.
    BoundaryCr,
    /// The end of a line.
    LineEnd,
    /// The CR of a line; a LF may belong to it.
    LineEndCr,
    /// Part of a line.
    Line,
}

impl Events {
    /// Reads on; the offset behind the last boundary in `data`, if there is one.
    pub(super) fn scan(&mut self, data: &[u8]) -> Option<usize> {
        let mut boundary = None;
        let mut at = 0;
        for end in memchr2_iter(b'\n', b'\r', data) {
            if end > at {
                self.begin_line(data[at]);
            }
            self.end_line(data[end]);
            at = end + 1;
            if self.at_boundary() {
                boundary = Some(at);
            }
        }
        if let Some(first) = data.get(at) {
            self.begin_line(*first);
        }
        boundary
    }

    /// Nothing of an event is open.
    pub(super) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary | State::BoundaryCr)
    }

    /// Length of what still belongs to the event at hand, with the empty line that ends it.
    pub(super) fn boundary_in(self, data: &[u8]) -> usize {
        self.len_until(data, Self::at_boundary)
    }

    /// Length of the lines up to the first behind which it is `over`; else that of all.
    fn len_until(mut self, data: &[u8], over: impl Fn(&Self) -> bool) -> usize {
        let mut at = 0;
        for end in memchr2_iter(b'\n', b'\r', data) {
            if end > at {
                self.begin_line(data[at]);
            }
            self.end_line(data[end]);
            at = end + 1;
            if over(&self) {
                let has_lf = self.state == State::BoundaryCr && data.get(at) == Some(&b'\n');
                return at + usize::from(has_lf);
            }
        }
        data.len()
    }

    fn begin_line(&mut self, first: u8) {
        if self.state != State::Line {
            self.state = State::Line;
            self.has_field |= first != b':';
        }
    }

    fn end_line(&mut self, end: u8) {
        let is_lf = end == b'\n';
        self.state = match (self.state, is_lf) {
            (State::Line | State::LineEndCr, true) => State::LineEnd,
            (State::Line, false) => State::LineEndCr,
            (State::LineEnd | State::Boundary | State::BoundaryCr, true) => State::Boundary,
            (_, false) => State::BoundaryCr,
        };
        if self.has_field && self.at_boundary() {
            self.has_field = false;
            self.count += 1;
        }
    }
}

/// Events of the Responses interface that vLLM sends when it has accepted a request, before it is
/// scheduled.
const ANNOUNCEMENTS: [&[u8]; 3] = [
    b"response.created",
    b"response.queued",
    b"response.in_progress",
];

/// Whether whole events are all announcements, by the names in their `event` fields.
pub(super) fn only_announce(payload: &[u8]) -> bool {
    let mut rest = payload;
    while !rest.is_empty() {
        let (event, behind) = rest.split_at(first_len(rest));
        let announces = event
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .filter_map(|line| line.strip_prefix(b"event:"))
            .any(|name| ANNOUNCEMENTS.contains(&name.trim_ascii()));
        let is_comment = behind.is_empty() && !has_field(event);
        if !announces && !is_comment {
            return false;
        }
        rest = behind;
    }
    true
}

/// Whether a block is a whole event: it ends with an empty line, and is not only comments.
pub(super) fn is_event(block: &[u8]) -> bool {
    ends_block(block) && has_field(block)
}

/// Whether this ends with an empty line.
pub(super) fn ends_block(payload: &[u8]) -> bool {
    let line = [&b"\r\n"[..], b"\n", b"\r"]
        .iter()
        .find_map(|end| payload.strip_suffix(*end));
    line.is_some_and(|line| matches!(line.last(), None | Some(b'\n' | b'\r')))
}

/// Whether there is a line that is no comment.
fn has_field(event: &[u8]) -> bool {
    event
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .any(|line| line.first().is_some_and(|first| *first != b':'))
}

/// Length of the first block, an event or comments, with the empty line that ends it.
pub(super) fn block_len(payload: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'\n', b'\r', &payload[at..]) {
        let end = at + found;
        let has_lf = payload[end] == b'\r' && payload.get(end + 1) == Some(&b'\n');
        let behind = end + 1 + usize::from(has_lf);
        if found == 0 {
            return behind;
        }
        at = behind;
    }
    payload.len()
}

/// Length of the first event in whole events, its empty line included, and of comments before it.
pub(super) fn first_len(payload: &[u8]) -> usize {
    Events::default().len_until(payload, |events| events.count > 0)
}
