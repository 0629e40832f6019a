//! Where a request is in a distributed trace: `traceparent` and `tracestate` (W3C Trace Context, level 2).

use super::Head;
use super::field::{Field, Span};

/// Bytes of a `traceparent`, version 00.
const TRACEPARENT_BYTES: usize = 55;
/// Of these, how many follow the trace's id.
const BEHIND_ID_BYTES: u32 = 20;

/// A `traceparent`: where the sender is in a trace. Ids are hex digits.
#[derive(Debug, Clone, Copy)]
pub struct TraceParent<'a> {
    /// Of the whole trace.
    pub trace_id: &'a [u8; 32],
    /// Of the sender's span.
    pub parent_id: &'a [u8; 16],
    /// Bit 0: the trace is recorded.
    pub flags: u8,
}

/// What a request that is sent on says of its trace.
#[derive(Debug, Clone, Copy)]
pub struct TraceHeader {
    /// The value of `traceparent`.
    pub value: [u8; TRACEPARENT_BYTES],
    /// The client has begun the trace: what else it says of it goes along.
    pub continues: bool,
}

impl TraceHeader {
    /// A span of a trace; ids are hex digits. `flags`: the lower four bits.
    #[must_use]
    pub fn new(trace_id: &[u8; 32], span_id: &[u8; 16], flags: u8, continues: bool) -> Self {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        value[3..35].copy_from_slice(trace_id);
        value[36..52].copy_from_slice(span_id);
        value[54] = b"0123456789abcdef"[usize::from(flags & 15)];
        Self { value, continues }
    }
}

impl Head {
    /// What a valid `traceparent` says, if there is one.
    #[must_use]
    pub fn trace_parent(&self) -> Option<TraceParent<'_>> {
        let id = self.trace_id?;
        let behind = Span {
            start: id.end,
            end: id.end + BEHIND_ID_BYTES,
        };
        let (parent_id, flags) = behind.of(&self.bytes).get(1..)?.split_first_chunk()?;
        let flags = str::from_utf8(flags.get(1..)?).ok()?;
        Some(TraceParent {
            trace_id: id.of(&self.bytes).try_into().ok()?,
            parent_id,
            flags: u8::from_str_radix(flags, 16).ok()?,
        })
    }

    /// Whether a field is the state of a trace.
    pub(super) fn is_tracestate(&self, field: &Field) -> bool {
        let name = field.name.of(&self.bytes);
        name.eq_ignore_ascii_case(b"tracestate")
    }
}
