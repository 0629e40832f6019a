//! Where a request stands in a distributed trace (W3C Trace Context), and the moments its spans are made of.
//!
//! A request has this only where spans are exported. It costs one allocation then, and nothing otherwise.

use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::target::Target;
use crate::http::request::{TraceHeader, TraceParent};
use crate::rng::Rng;

/// Attempts, and stays in the hold, whose spans are kept of one request.
pub const LEGS_MAX: usize = 16;

/// The bit of a traceparent's flags that says that the trace is recorded.
const SAMPLED: u8 = 1;
/// The ids are random: the second level of W3C Trace Context asks for this bit where they are.
const RANDOM: u8 = 2;

/// Bits of a trace id that sampling goes by: its last 56, which are random at least (W3C Trace Context, level 2).
const SAMPLE_BITS: u32 = 56;
/// Hex digits of those bits.
const SAMPLE_DIGITS: usize = SAMPLE_BITS as usize / 4;

/// Starts traces, and decides which are recorded. Its ids come from one seed: no call of the system per request.
#[derive(Debug)]
pub struct Tracer {
    seed: u64,
    count: AtomicU64,
    /// Traces are recorded whose last 56 bits are as large as this.
    threshold: u64,
}

impl Tracer {
    /// `ratio` of the traces that begin here are recorded, 0 to 1; `seed` is random for each process.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share between 0 and 1 of a power of two"
    )]
    pub fn new(seed: u64, ratio: f64) -> Self {
        let all = 1_u64 << SAMPLE_BITS;
        let threshold = ((1.0 - ratio.clamp(0.0, 1.0)) * all as f64).round() as u64;
        Self {
            seed,
            count: AtomicU64::new(0),
            threshold: threshold.min(all),
        }
    }

    /// The trace of a request: that of its client, where its head names one, else a new one.
    #[must_use]
    pub fn begin(&self, client: Option<TraceParent<'_>>) -> Trace {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut ids = Rng::new(
            self.seed
                .wrapping_add(count.wrapping_mul(0xd129_0bd3_5a1b_2f6d)),
        );
        let (id, flags) = if let Some(client) = client {
            // A trace has one answer, whoever asks: the client has decided.
            (*client.trace_id, client.flags & (SAMPLED | RANDOM))
        } else {
            let mut id = [0; 32];
            id[..16].copy_from_slice(&hex(nonzero(&mut ids)));
            id[16..].copy_from_slice(&hex(nonzero(&mut ids)));
            let sampled = self.takes(&id);
            (id, RANDOM | if sampled { SAMPLED } else { 0 })
        };
        let span = nonzero(&mut ids);
        Trace {
            id,
            parent: client.map(|client| *client.parent_id),
            flags,
            span,
            ids,
            legs: SmallVec::new(),
            stays: SmallVec::new(),
            left_out: 0,
        }
    }

    /// Whether a trace that begins here is recorded. It depends on its id alone.
    fn takes(&self, id: &[u8; 32]) -> bool {
        let digits = &id[32 - SAMPLE_DIGITS..];
        let value = digits
            .iter()
            .fold(0, |value, digit| value << 4 | u64::from(unhex(*digit)));
        value >= self.threshold
    }
}

/// One attempt of a request.
#[derive(Debug)]
pub struct Leg {
    /// Id of its span.
    pub(super) span: u64,
    /// The replica or peer.
    pub(super) target: Target,
    /// Where that is: `host:port`. Empty before the request was sent.
    pub(super) authority: Box<str>,
    /// Its number, from 1.
    pub(super) attempt: u32,
    /// Leading blocks of the prompt that the target was believed to cache.
    pub(super) match_blocks: u32,
    /// Predicted time to the first body byte.
    pub(super) predicted_ttft_ns: Option<u64>,
    /// It began at.
    pub(super) start_ns: u64,
    /// How it failed, if it has; the last leg ends with its request otherwise.
    pub(super) failed: Option<Failed>,
}

/// The end of an attempt that failed before its answer began.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// Word for what happened: as in the counter of attempts.
    pub(super) outcome: &'static str,
    /// Status of the answer; 0 without one.
    pub(super) status: u16,
    /// When.
    pub(super) end_ns: u64,
}

/// The trace of one request, its span in it, and the moments of the spans below that.
#[derive(Debug)]
pub struct Trace {
    /// Hex digits.
    id: [u8; 32],
    /// The client's span: hex digits. `None`: the trace begins here.
    parent: Option<[u8; 16]>,
    flags: u8,
    span: u64,
    ids: Rng,
    legs: SmallVec<[Leg; 1]>,
    /// Stays in the hold: from, to.
    stays: SmallVec<[(u64, u64); 1]>,
    left_out: u32,
}

impl Trace {
    /// The trace's id: 32 hex digits.
    #[must_use]
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// The client's span: 16 hex digits; `None`: the trace begins here.
    #[must_use]
    pub fn parent(&self) -> Option<&[u8; 16]> {
        self.parent.as_ref()
    }

    /// The trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags of its traceparent.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Id of the request's own span.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Ids for the spans that are made at the end.
    pub(super) fn ids(&self) -> Rng {
        self.ids.clone()
    }

    /// The attempts, in their order.
    #[must_use]
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// The stays in the hold that have ended: from, to.
    #[must_use]
    pub fn stays(&self) -> &[(u64, u64)] {
        &self.stays
    }

    /// Attempts and stays beyond [`LEGS_MAX`].
    #[must_use]
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// A stay in the hold has ended.
    pub(super) fn stayed(&mut self, from_ns: u64, to_ns: u64) {
        if self.stays.len() < LEGS_MAX {
            self.stays.push((from_ns, to_ns));
        } else {
            self.left_out += 1;
        }
    }

    /// An attempt begins.
    pub(super) fn begin(
        &mut self,
        target: Target,
        (attempt, match_blocks): (u32, u32),
        predicted_ttft_ns: Option<u64>,
        now_ns: u64,
    ) {
        if self.legs.len() == LEGS_MAX {
            self.left_out += 1;
            return;
        }
        self.legs.push(Leg {
            span: nonzero(&mut self.ids),
            target,
            authority: Box::default(),
            attempt,
            match_blocks,
            predicted_ttft_ns,
            start_ns: now_ns,
            failed: None,
        });
    }

    /// The attempt under way has failed.
    pub(super) fn fail(&mut self, outcome: &'static str, status: u16, now_ns: u64) {
        if let Some(leg) = self.open_leg() {
            leg.failed = Some(Failed {
                outcome,
                status,
                end_ns: now_ns,
            });
        }
    }

    fn open_leg(&mut self) -> Option<&mut Leg> {
        self.legs.last_mut().filter(|leg| leg.failed.is_none())
    }

    /// The attempt under way is sent to this address: the value of `traceparent` there.
    pub fn sent_to(&mut self, authority: &str) -> TraceHeader {
        let mut span = self.span;
        if let Some(leg) = self.open_leg() {
            leg.authority = authority.into();
            span = leg.span;
        }
        TraceHeader::new(&self.id, &hex(span), self.flags, self.parent.is_some())
    }
}

/// An id of a span, which may not be zero.
pub(super) fn nonzero(ids: &mut Rng) -> u64 {
    ids.next_u64().max(1)
}

/// Sixteen hex digits.
pub(super) fn hex(id: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 16];
    for (at, byte) in id.to_be_bytes().into_iter().enumerate() {
        out[2 * at] = DIGITS[usize::from(byte >> 4)];
        out[2 * at + 1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

/// The value of a hex digit in lower case.
pub(super) fn unhex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.wrapping_sub(b'a').wrapping_add(10) & 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENT: TraceParent<'static> = TraceParent {
        trace_id: b"4bf92f3577b34da6a3ce929d0e0e4736",
        parent_id: b"00f067aa0ba902b7",
        flags: 1,
    };

    fn sent(trace: &mut Trace) -> String {
        String::from_utf8(trace.sent_to("a:1").value.to_vec()).unwrap()
    }

    #[test]
    fn the_clients_trace_goes_on_with_our_span_as_parent() {
        let mut trace = Tracer::new(7, 0.0).begin(Some(CLIENT));
        trace.begin(Target::Replica("a".into()), (1, 0), None, 5);
        let leg = String::from_utf8(hex(trace.legs()[0].span).to_vec()).unwrap();
        let value = sent(&mut trace);
        assert_eq!(
            value,
            format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{leg}-01")
        );
        assert_ne!(leg, "00f067aa0ba902b7");
        assert!(trace.is_sampled());
        assert_eq!(trace.parent(), Some(b"00f067aa0ba902b7"));
    }

    #[test]
    fn the_client_decides_whether_its_trace_is_recorded() {
        let unsampled = TraceParent { flags: 0, ..CLIENT };
        let mut trace = Tracer::new(7, 1.0).begin(Some(unsampled));
        assert!(!trace.is_sampled());
        assert!(sent(&mut trace).ends_with("-00"));
    }

    #[test]
    fn flags_that_are_not_known_are_not_passed_on() {
        let flags = TraceParent {
            flags: 0xff,
            ..CLIENT
        };
        let mut trace = Tracer::new(7, 1.0).begin(Some(flags));
        assert!(sent(&mut trace).ends_with("-03"));
    }

    #[test]
    fn a_failed_attempt_keeps_its_end_and_the_next_one_has_another_span() {
        let mut trace = Tracer::new(7, 1.0).begin(None);
        trace.begin(Target::Replica("a".into()), (1, 0), None, 5);
        let first = sent(&mut trace);
        trace.fail("connect", 0, 9);
        trace.fail("reset", 0, 10);
        assert_eq!(trace.legs()[0].failed.unwrap().end_ns, 9);
        trace.begin(Target::Replica("b".into()), (2, 0), None, 9);
        assert_ne!(first, sent(&mut trace));
    }

    #[test]
    fn attempts_and_stays_beyond_the_bound_are_counted() {
        let mut trace = Tracer::new(7, 1.0).begin(None);
        for at in 0..20 {
            trace.begin(Target::Replica("a".into()), (1, 0), None, at);
            trace.stayed(at, at);
        }
        assert_eq!(
            (trace.legs().len(), trace.stays().len()),
            (LEGS_MAX, LEGS_MAX)
        );
        assert_eq!(trace.left_out(), 8);
    }

    proptest! {
        #[test]
        fn about_the_given_share_of_traces_is_recorded(seed: u64, percent in 0..=100_u32) {
            let tracer = Tracer::new(seed, f64::from(percent) / 100.0);
            let sampled = (0..2_000).filter(|_| tracer.begin(None).is_sampled()).count();
            let expected = 20 * percent as usize;
            prop_assert!(sampled.abs_diff(expected) < 120, "{} of {}", sampled, expected);
            prop_assert!(percent % 100 != 0 || sampled == expected);
        }

        #[test]
        fn what_one_balancer_records_another_with_a_larger_share_records_too(seed: u64, few in 0..50_u32, more in 50..=100_u32) {
            let few = Tracer::new(seed, f64::from(few) / 100.0);
            let more = Tracer::new(seed ^ 1, f64::from(more) / 100.0);
            for _ in 0..50 {
                let trace = few.begin(None);
                prop_assert!(!trace.is_sampled() || more.takes(&trace.id));
            }
        }

        #[test]
        fn ids_differ(seed: u64) {
            let tracer = Tracer::new(seed, 1.0);
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..200 {
                let mut trace = tracer.begin(None);
                trace.begin(Target::Replica("a".into()), (1, 0), None, 0);
                let spans = [trace.span, trace.legs()[0].span, nonzero(&mut trace.ids())];
                let ids = spans.map(|span| span.to_string());
                prop_assert!(ids.into_iter().all(|id| seen.insert(id)));
                prop_assert!(seen.insert(trace.id().to_owned()));
            }
        }
    }
}
