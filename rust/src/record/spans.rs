//! Spans of requests that ended, as OTLP's bytes in a bounded queue.
//!
//! A span is written once, in the form that a collector reads (`opentelemetry.proto.trace.v1.Span`). A thread of
//! Python's takes what waits and posts it. docs/TRACING.md says what a span has.

use super::ended::Ended;
use super::exemplars::Traced;
use super::legs::{Failed, Leg, Trace, nonzero, unhex};
use super::protobuf::{self, Field, Value, attribute, bytes, fixed32, fixed64, message, number};
use super::target::Target;

mod attributes;

use attributes::{int, known, put_address, put_error, put_gen_ai, put_http, seconds, text};

/// Capacity that the queue keeps between two visits of the exporter; a burst's memory is given back.
const QUEUE_KEEP_BYTES: usize = 1 << 20;
/// Longest part of a client's `tracestate` that a span keeps (W3C Trace Context, 3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;

/// Kinds of spans: `Span.SpanKind`.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// `SpanFlags`: it is known whether the parent is of another process, and it is.
const HAS_IS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

/// Field numbers of `Span`.
mod span {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const EVENTS: u32 = 11;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
}

/// Field numbers of the messages around spans.
mod envelope {
    pub(super) const RESOURCE_SPANS: u32 = 1;
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPE_SPANS: u32 = 2;
    pub(super) const SCOPE: u32 = 1;
    pub(super) const SPANS: u32 = 2;
}

/// What is exported of which requests.
#[derive(Debug)]
pub struct SpanConfig {
    /// Names and values that say whose spans they are.
    pub resource: Vec<(String, String)>,
    /// Version of this library.
    pub version: &'static str,
    /// Requests that took so long to their first byte are exported, sampled or not.
    pub slow_ns: u64,
    /// Bound on what waits for the exporter.
    pub queue_bytes_max: usize,
    /// Wall clock minus monotonic clock.
    pub unix_offset_ns: i64,
}

/// The queue of spans.
#[derive(Debug)]
pub struct Spans {
    config: SpanConfig,
    /// Whose spans they are, and what made them: the same in every message.
    resource: Vec<u8>,
    scope: Vec<u8>,
    queue: Vec<u8>,
    waiting: u64,
    dropped: u64,
}

impl Spans {
    /// An empty queue.
    #[must_use]
    pub fn new(config: SpanConfig) -> Self {
        let mut resource = Vec::new();
        message(&mut resource, envelope::RESOURCE, |out| {
            for (name, value) in &config.resource {
                attribute(out, 1, name, Value::Text(value));
            }
        });
        let mut scope = Vec::new();
        message(&mut scope, envelope::SCOPE, |out| {
            bytes(out, 1, b"skylb");
            bytes(out, 2, config.version.as_bytes());
        });
        Self {
            config,
            resource,
            scope,
            queue: Vec::new(),
            waiting: 0,
            dropped: 0,
        }
    }

    /// The wall clock was set.
    pub fn set_unix_offset_ns(&mut self, offset_ns: i64) {
        self.config.unix_offset_ns = offset_ns;
    }

    /// Spans lost because the exporter did not keep up, or a request had too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Shows what waits to `consume`, and empties the queue: the two parts of an `ExportTraceServiceRequest`, its
    /// beginning and its spans. Also how many spans that is. `None`: nothing waits.
    pub fn take<T>(&mut self, consume: impl FnOnce(&[u8], &[u8]) -> T) -> Option<(T, u64)> {
        if self.waiting == 0 {
            return None;
        }
        let in_scope = self.scope.len() + self.queue.len();
        let in_resource = self.resource.len() + protobuf::len(envelope::SCOPE_SPANS, in_scope);
        let mut head = Vec::with_capacity(64 + self.resource.len() + self.scope.len());
        protobuf::open(&mut head, envelope::RESOURCE_SPANS, in_resource);
        head.extend_from_slice(&self.resource);
        protobuf::open(&mut head, envelope::SCOPE_SPANS, in_scope);
        head.extend_from_slice(&self.scope);
        let taken = consume(&head, &self.queue);
        self.queue.clear();
        self.queue.shrink_to(QUEUE_KEEP_BYTES);
        Some((taken, std::mem::take(&mut self.waiting)))
    }

    /// Spans that wait, and their number; empties the queue. They are for [`Self::append`] of another process.
    pub fn take_raw<T>(&mut self, consume: impl FnOnce(&[u8], u64) -> T) -> T {
        let taken = consume(&self.queue, std::mem::take(&mut self.waiting));
        self.queue.clear();
        taken
    }

    /// Spans of another process wait here.
    pub fn append(&mut self, spans: &[u8], len: u64) {
        if self.queue.len() + spans.len() > self.config.queue_bytes_max {
            self.dropped += len;
            return;
        }
        self.queue.extend_from_slice(spans);
        self.waiting += len;
    }

    /// A request ended: its spans wait, if it is one whose spans are exported. Its trace, if they do.
    pub fn complete(&mut self, ended: &Ended<'_>, policy: &str) -> Option<Traced> {
        let trace = ended.life.trace.as_deref()?;
        let kept = self.kept(ended, trace)?;
        let parts = Parts::of(ended, trace);
        let before = self.queue.len();
        self.dropped += u64::from(trace.left_out());
        if before < self.config.queue_bytes_max {
            let mut writer = Writer {
                out: &mut self.queue,
                trace_id: raw_id(trace),
                flags: HAS_IS_REMOTE | u32::from(trace.flags()),
                unix_offset_ns: self.config.unix_offset_ns,
            };
            writer.all(ended, trace, &parts, (policy, kept));
            if self.queue.len() <= self.config.queue_bytes_max {
                self.waiting += parts.spans();
                return Some(Traced {
                    trace_id: u128::from_be_bytes(raw_id(trace)),
                    unix_ns: unix_ns(self.config.unix_offset_ns, ended.end_ns),
                });
            }
            self.queue.truncate(before);
        }
        self.dropped += parts.spans();
        None
    }

    /// Why a request's spans are exported, if they are.
    fn kept(&self, ended: &Ended<'_>, trace: &Trace) -> Option<&'static str> {
        let to_first_byte_ns = ended.ttft_ns().unwrap_or_else(|| ended.total_ns());
        if trace.is_sampled() {
            Some("sampled")
        } else if is_failed(ended) {
            Some("failed")
        } else if to_first_byte_ns >= self.config.slow_ns {
            Some("slow")
        } else {
            None
        }
    }
}

/// How many spans a collector has refused of those that it was sent: read in its `ExportTraceServiceResponse`.
#[must_use]
pub fn rejected(answer: &[u8]) -> u64 {
    let number = |field| match field {
        (1, Field::Number(count)) => Some(count),
        _ => None,
    };
    let partial = protobuf::fields(answer).find_map(|field| match field {
        (1, Field::Bytes(partial)) => Some(partial),
        _ => None,
    });
    let count = partial.and_then(|partial| protobuf::fields(partial).find_map(number));
    count
        .filter(|count| i64::try_from(*count).is_ok())
        .unwrap_or(0)
}

/// It ended with a fault of ours, of a replica or of a peer; a client that leaves is none.
fn is_failed(ended: &Ended<'_>) -> bool {
    let cut = ended.error_code.is_some() && ended.status < 400;
    ended.status >= 500 || cut
}

fn raw_id(trace: &Trace) -> [u8; 16] {
    let mut raw = [0; 16];
    let digits = trace.id().as_bytes().chunks_exact(2);
    for (byte, pair) in raw.iter_mut().zip(digits) {
        *byte = unhex(pair[0]) << 4 | unhex(pair[1]);
    }
    raw
}

/// What the spans of one request are made of.
struct Parts<'a> {
    /// Stays in the hold; the last may have ended with the request.
    stays: &'a [(u64, u64)],
    open_stay_ns: Option<u64>,
    legs: &'a [Leg],
    /// When the answer's stream began.
    stream_ns: Option<u64>,
}

impl<'a> Parts<'a> {
    fn of(ended: &Ended<'a>, trace: &'a Trace) -> Self {
        let streams = ended.relay.is_some_and(|relay| relay.streaming);
        let began = streams && ended.life.first_byte_ns != 0;
        Self {
            stays: trace.stays(),
            open_stay_ns: ended.life.held_since_ns,
            legs: trace.legs(),
            stream_ns: began.then_some(ended.life.first_byte_ns),
        }
    }

    /// How many spans they make, the request's own included.
    fn spans(&self) -> u64 {
        let others = self.stays.len() + self.legs.len();
        1 + others as u64
            + u64::from(self.open_stay_ns.is_some())
            + u64::from(self.stream_ns.is_some())
    }
}

/// Where a span is in its trace.
#[derive(Clone, Copy)]
struct Place {
    id: u64,
    parent: Option<u64>,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
}

/// Writes the spans of one trace.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    trace_id: [u8; 16],
    flags: u32,
    unix_offset_ns: i64,
}

impl Writer<'_> {
    fn all(&mut self, ended: &Ended<'_>, trace: &Trace, parts: &Parts<'_>, about: (&str, &str)) {
        let mut ids = trace.ids();
        let request = trace.span();
        self.request(ended, trace, about);
        let open_stay = parts.open_stay_ns.map(|from_ns| (from_ns, ended.end_ns));
        for (start_ns, end_ns) in parts.stays.iter().copied().chain(open_stay) {
            let place = Place {
                id: nonzero(&mut ids),
                parent: Some(request),
                kind: INTERNAL,
                start_ns,
                end_ns,
            };
            self.span("hold", place, |_, _| ());
        }
        for leg in parts.legs {
            self.leg(ended, leg, request);
        }
        if let Some(start_ns) = parts.stream_ns {
            let last = parts.legs.last().filter(|leg| leg.failed.is_none());
            let place = Place {
                id: nonzero(&mut ids),
                parent: Some(last.map_or(request, |leg| leg.span)),
                kind: INTERNAL,
                start_ns,
                end_ns: ended.end_ns,
            };
            self.span("stream", place, |out, _| {
                int(out, "skylb.events", ended.relay.map(|relay| relay.events));
                int(out, "skylb.bytes_out", Some(ended.bytes_out()));
            });
        }
    }

    fn request(&mut self, ended: &Ended<'_>, trace: &Trace, (policy, kept): (&str, &str)) {
        let life = ended.life;
        let parent = trace.parent().map(|digits| {
            let digits = digits.iter();
            digits.fold(0, |id, digit| id << 4 | u64::from(unhex(*digit)))
        });
        let place = Place {
            id: trace.span(),
            parent,
            kind: SERVER,
            start_ns: life.start_ns,
            end_ns: ended.end_ns,
        };
        self.span("request", place, |out, _| {
            let state = ended.head.filter(|_| parent.is_some());
            let state = state.and_then(|head| head.trace_state);
            if let Some(state) =
                state.filter(|state| state.len() <= TRACESTATE_BYTES_MAX && state.is_ascii())
            {
                bytes(out, span::TRACE_STATE, state);
            }
            put_http(out, ended);
            put_gen_ai(out, ended);
            text(out, "skylb.request_id", Some(&life.request_id));
            text(out, "skylb.sampled_for", Some(kept));
            text(out, "skylb.policy", Some(policy));
            text(out, "skylb.tenant", life.tenant.name());
            text(out, "skylb.replica", ended.replica());
            text(out, "skylb.peer", ended.peer());
            int(out, "skylb.attempts", Some(u64::from(life.attempts)));
            int(out, "skylb.prompt_blocks", Some(ended.prompt_blocks));
            int(
                out,
                "skylb.match_blocks",
                Some(u64::from(life.match_blocks)),
            );
            seconds(out, "skylb.held_s", Some(life.held_ns));
            seconds(out, "skylb.predicted_ttft_s", life.predicted_ttft_ns);
            seconds(out, "skylb.ttft_s", ended.ttft_ns());
            text(out, "skylb.error_code", ended.error_code);
            if is_failed(ended) {
                put_error(out, ended.error_code, ended.status);
            }
        });
    }

    fn leg(&mut self, ended: &Ended<'_>, leg: &Leg, request: u64) {
        let end = leg.failed.unwrap_or_else(|| end_of(ended));
        let place = Place {
            id: leg.span,
            parent: Some(request),
            kind: CLIENT,
            start_ns: leg.start_ns,
            end_ns: end.end_ns,
        };
        let (name, key, target) = match &leg.target {
            Target::Replica(name) => ("attempt", "skylb.replica", name),
            Target::Peer(name) => ("forward", "skylb.peer", name),
        };
        self.span(name, place, |out, offset_ns| {
            text(out, key, Some(target));
            put_address(out, &leg.authority);
            text(out, "http.request.method", Some(ended.method()));
            int(out, "http.response.status_code", known(end.status));
            text(out, "gen_ai.request.model", ended.model());
            int(out, "skylb.attempt", Some(u64::from(leg.attempt)));
            int(out, "skylb.match_blocks", Some(u64::from(leg.match_blocks)));
            seconds(out, "skylb.predicted_ttft_s", leg.predicted_ttft_ns);
            text(out, "skylb.outcome", Some(end.outcome));
            let first_byte_ns = ended.life.first_byte_ns;
            if leg.failed.is_none() && first_byte_ns != 0 {
                message(out, span::EVENTS, |out| {
                    fixed64(out, 1, unix_ns(offset_ns, first_byte_ns));
                    bytes(out, 2, b"first token");
                });
            }
            if leg.failed.is_some() || is_failed(ended) {
                put_error(out, Some(end.outcome), end.status);
            }
        });
    }

    /// One span; `more` writes its attributes, events and status.
    fn span(&mut self, name: &str, place: Place, more: impl FnOnce(&mut Vec<u8>, i64)) {
        let (trace_id, flags, offset_ns) = (self.trace_id, self.flags, self.unix_offset_ns);
        message(self.out, envelope::SPANS, |out| {
            bytes(out, span::TRACE_ID, &trace_id);
            bytes(out, span::SPAN_ID, &place.id.to_be_bytes());
            if let Some(parent) = place.parent {
                bytes(out, span::PARENT_SPAN_ID, &parent.to_be_bytes());
            }
            bytes(out, span::NAME, name.as_bytes());
            number(out, span::KIND, place.kind);
            fixed64(out, span::START, unix_ns(offset_ns, place.start_ns));
            fixed64(
                out,
                span::END,
                unix_ns(offset_ns, place.end_ns.max(place.start_ns)),
            );
            let remote = place.kind == SERVER && place.parent.is_some();
            fixed32(out, span::FLAGS, flags | if remote { IS_REMOTE } else { 0 });
            more(out, offset_ns);
        });
    }
}

/// The end of the attempt that the request ended with.
fn end_of(ended: &Ended<'_>) -> Failed {
    let outcome = match ended.error_code {
        None => "ok",
        Some("client_left") => "client_left",
        Some(_) => "failed",
    };
    Failed {
        outcome,
        status: ended.relay.map_or(0, |relay| relay.status),
        end_ns: ended.end_ns,
    }
}

fn unix_ns(offset_ns: i64, monotonic_ns: u64) -> u64 {
    monotonic_ns.saturating_add_signed(offset_ns)
}

#[cfg(test)]
mod tests;
