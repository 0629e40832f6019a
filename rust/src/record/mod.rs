//! Per-request counters, histograms and access-log lines: one call per request.
//!
//! Nothing here reads a clock or opens anything: times are arguments, and lines wait in a bounded
//! queue until the writer thread takes them.

pub mod counts;
pub mod histogram;
pub mod line;
pub mod stamp;
pub mod window;

use counts::{Attempts, Requests};
use histogram::{HOLD_BOUNDS_NS, Histogram, REQUEST_BOUNDS_NS, TTFT_BOUNDS_NS};
use line::{Line, key};
use stamp::Stamp;
use window::Window;

pub use line::Format;

/// Route of requests whose head was never valid.
pub const ROUTE_INVALID: &str = "invalid";

/// Capacity that the queue keeps between two visits of the writer; a burst's memory is given back.
const QUEUE_KEEP_BYTES: usize = 1 << 20;

/// One finished request, as metrics and log need it. Borrowed: nothing is kept but the counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event<'a> {
    /// Ours, or the client's where that was acceptable.
    pub request_id: &'a str,
    /// From a valid `traceparent`.
    pub trace_id: Option<&'a str>,
    /// Whose request it was, where tenants are told apart.
    pub tenant: Option<&'a str>,
    /// The client's address; `None` over a Unix socket.
    pub client: Option<&'a str>,
    /// Request method.
    pub method: &'a str,
    /// The route's template, one of a fixed set.
    pub route: &'static str,
    /// The path as the client wrote it, without its query, where it is worth a field.
    pub path: Option<&'a str>,
    /// The route is inference, not one that the balancer answers by itself.
    pub measured: bool,
    /// Model named in the body.
    pub model: Option<&'a str>,
    /// HTTP status; 499 for a client that left.
    pub status: u16,
    /// Stable word for what went wrong.
    pub error_code: Option<&'a str>,
    /// Name of the replica of the last attempt.
    pub replica: Option<&'a str>,
    /// Name of the peer that the request was forwarded to, or with a replica that it came from.
    pub peer: Option<&'a str>,
    /// Attempts made.
    pub attempts: u32,
    /// Blocks of the prompt.
    pub prompt_blocks: u64,
    /// Blocks of it that the replica was believed to cache.
    pub match_blocks: u64,
    /// Predicted time from the last push to the first body byte, of a streamed answer.
    pub predicted_ttft_ns: Option<u64>,
    /// Accepted at.
    pub start_ns: u64,
    /// Time spent in the hold; 0 when never held.
    pub held_ns: u64,
    /// First body byte at; 0 when there was none.
    pub first_byte_ns: u64,
    /// Ended at.
    pub end_ns: u64,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
}

impl Event<'_> {
    /// Time from accept to the first body byte.
    fn ttft_ns(&self) -> Option<u64> {
        (self.first_byte_ns != 0).then(|| self.first_byte_ns.saturating_sub(self.start_ns))
    }
}

/// The three distributions that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Accept to first body byte, of answers below 400.
    Ttft,
    /// Accept to completion.
    Request,
    /// Time in the hold, of requests that were held.
    Hold,
}

impl Distribution {
    /// By the name that Python uses.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "ttft_seconds" => Some(Self::Ttft),
            "request_seconds" => Some(Self::Request),
            "hold_seconds" => Some(Self::Hold),
            _ => None,
        }
    }
}

/// A histogram since the start, and the recent values for quantiles.
#[derive(Debug)]
struct Series {
    histogram: Histogram,
    window: Window,
}

impl Series {
    fn new(bounds_ns: &'static [u64]) -> Self {
        Self {
            histogram: Histogram::new(bounds_ns),
            window: Window::default(),
        }
    }

    fn observe(&mut self, value_ns: u64) {
        self.histogram.observe(value_ns);
        self.window.push(value_ns);
    }
}

/// Counts, distributions and the queue of log lines of one process.
#[derive(Debug)]
pub struct Recorder {
    format: Format,
    queue: Vec<u8>,
    queue_bytes_max: usize,
    dropped: u64,
    policy: Box<str>,
    stamp: Stamp,
    requests: Requests,
    attempts: Attempts,
    ttft: Series,
    request: Series,
    hold: Series,
}

impl Recorder {
    /// See `Recorder` in `_core.pyi`.
    #[must_use]
    pub fn new(
        format: Format,
        queue_bytes_max: usize,
        policy: &str,
        unix_offset_ns: i64,
        label_values_max: usize,
    ) -> Self {
        Self {
            format,
            queue: Vec::new(),
            queue_bytes_max,
            dropped: 0,
            policy: policy.into(),
            stamp: Stamp::new(unix_offset_ns),
            requests: Requests::new(label_values_max),
            attempts: Attempts::default(),
            ttft: Series::new(TTFT_BOUNDS_NS),
            request: Series::new(REQUEST_BOUNDS_NS),
            hold: Series::new(HOLD_BOUNDS_NS),
        }
    }

    /// One finished request.
    pub fn complete(&mut self, event: &Event<'_>) {
        // A model that no replica serves must not use up the bounded labels: clients choose it.
        self.requests
            .add(event.route, event.model, event.attempts > 0, event.status);
        if event.measured {
            self.request
                .observe(event.end_ns.saturating_sub(event.start_ns));
            if let Some(ttft_ns) = event.ttft_ns().filter(|_| event.status < 400) {
                self.ttft.observe(ttft_ns);
            }
            if event.held_ns > 0 {
                self.hold.observe(event.held_ns);
            }
        }
        self.log(event);
    }

    /// A request that was refused for its head, or while its body came: it has no route.
    pub fn refused(&mut self, event: &Event<'_>) {
        self.requests.add(ROUTE_INVALID, None, false, event.status);
        self.log(&Event {
            route: ROUTE_INVALID,
            start_ns: event.end_ns,
            ..*event
        });
    }

    /// One attempt at a replica ended; `false` for an outcome that is not in the list.
    pub fn attempt(&mut self, outcome: &str) -> bool {
        self.attempts.add(outcome)
    }

    /// Changes what later lines look like.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Shows the waiting lines to `consume` and empties the queue.
    pub fn take_log<T>(&mut self, consume: impl FnOnce(&[u8]) -> T) -> T {
        let taken = consume(&self.queue);
        self.queue.clear();
        self.queue.shrink_to(QUEUE_KEEP_BYTES);
        taken
    }

    /// Lines lost because the writer did not keep up.
    #[must_use]
    pub fn log_dropped(&self) -> u64 {
        self.dropped
    }

    /// `(route, model, status, count)` of every series.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, &str, u16, u64)> {
        self.requests.iter()
    }

    /// `(outcome, count)` of every outcome.
    pub fn attempts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.attempts.iter()
    }

    /// Cumulative buckets `(upper bound in seconds, count)` and the sum in seconds.
    #[must_use]
    pub fn histogram(&self, which: Distribution) -> (Vec<(f64, u64)>, f64) {
        self.series(which).histogram.cumulative()
    }

    /// The `q`-quantile of the recent values, in seconds.
    #[must_use]
    pub fn quantile(&self, which: Distribution, q: f64) -> Option<f64> {
        self.series(which).window.quantile_s(q)
    }

    fn series(&self, which: Distribution) -> &Series {
        match which {
            Distribution::Ttft => &self.ttft,
            Distribution::Request => &self.request,
            Distribution::Hold => &self.hold,
        }
    }

    fn log(&mut self, event: &Event<'_>) {
        if self.format == Format::Off {
            return;
        }
        let before = self.queue.len();
        if before < self.queue_bytes_max {
            if self.format == Format::Json {
                self.write_line::<true>(event);
            } else {
                self.write_line::<false>(event);
            }
            if self.queue.len() <= self.queue_bytes_max {
                return;
            }
            self.queue.truncate(before);
        }
        self.dropped += 1;
    }

    fn write_line<const JSON: bool>(&mut self, event: &Event<'_>) {
        let ts = self.stamp.format(event.end_ns);
        let mut line = Line::<JSON>::begin(&mut self.queue);
        line.plain(key!(first "ts"), &ts);
        line.text(
            key!("request_id"),
            Some(event.request_id).filter(|id| !id.is_empty()),
        );
        line.text(key!("trace_id"), event.trace_id);
        line.text(key!("tenant"), event.tenant);
        line.text(key!("client"), event.client);
        line.text(
            key!("method"),
            Some(event.method).filter(|method| !method.is_empty()),
        );
        line.plain(key!("route"), event.route.as_bytes());
        if event.path.is_some() {
            line.text(key!("path"), event.path);
        }
        line.text(key!("model"), event.model);
        line.int(key!("status"), u64::from(event.status));
        line.text(key!("error_code"), event.error_code);
        line.text(key!("replica"), event.replica);
        line.text(key!("peer"), event.peer);
        line.plain(key!("policy"), self.policy.as_bytes());
        line.int(key!("attempts"), u64::from(event.attempts));
        line.int(key!("prompt_blocks"), event.prompt_blocks);
        line.int(key!("match_blocks"), event.match_blocks);
        line.seconds(key!("held_s"), Some(event.held_ns));
        line.seconds(key!("predicted_ttft_s"), event.predicted_ttft_ns);
        line.seconds(key!("ttft_s"), event.ttft_ns());
        line.seconds(
            key!("total_s"),
            Some(event.end_ns.saturating_sub(event.start_ns)),
        );
        line.int(key!("bytes_in"), event.bytes_in);
        line.int(key!("bytes_out"), event.bytes_out);
        line.end();
    }
}

#[cfg(test)]
mod tests;
