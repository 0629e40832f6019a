//! The record of a request that ended, and its readers: counters, histograms, access log, spans.
//!
//! [`Ended`] has all that is known of a request. A reader takes from it what it needs. So a new
//! field of the log is one more line in `access.rs`, and a new label one more in `counts.rs`.
//!
//! Nothing here reads a clock or opens anything: times are arguments, and lines wait in a bounded
//! queue until the writer thread takes them.

mod access;
pub mod arrivals;
mod brief;
pub mod counts;
mod crossing;
mod distributions;
mod ended;
mod errors;
mod exemplars;
pub mod facts;
pub mod histogram;
mod labels;
pub mod legs;
pub mod life;
pub mod line;
pub mod prompt;
mod protobuf;
pub mod spans;
pub mod stamp;
mod streams;
mod target;
pub mod trace;
pub mod usage;
pub mod window;

use arrivals::{Arrival, Arrivals};
use counts::{Attempts, Requests};
use crossing::{Crossed, Crossing};
use distributions::Distributions;
use errors::Errors;
use labels::Labels;
use spans::Spans;
use stamp::Stamp;
use streams::Streams;
use usage::{ModelUsage, TenantUsage, Usage};

use crate::remote::frame::FrameError;

pub use distributions::{Cumulative, Distribution};
pub use ended::{Ended, ROUTE_INVALID};
pub use exemplars::{Exemplar, Traced};
pub use life::Life;
pub use line::Format;
pub use target::Target;

/// Capacity that the queue keeps between two visits of the writer; a burst's memory is given back.
const QUEUE_KEEP_BYTES: usize = 1 << 20;

/// Counts, distributions and the queue of log lines of one process.
#[derive(Debug)]
pub struct Recorder {
    format: Format,
    queue: Vec<u8>,
    queue_bytes_max: usize,
    dropped: u64,
    policy: Box<str>,
    stamp: Stamp,
    labels: Labels,
    requests: Requests,
    attempts: Attempts,
    errors: Errors,
    /// Answers to clients that were cut.
    cut: u64,
    streams: Streams,
    /// Lines for people name each request.
    names: bool,
    distributions: Distributions,
    usage: Usage,
    arrivals: Option<Arrivals>,
    spans: Option<Spans>,
    /// Records go to another process, which counts them.
    crossing: Option<Crossing>,
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
            labels: Labels::new(label_values_max),
            requests: Requests::default(),
            attempts: Attempts::default(),
            errors: Errors::default(),
            cut: 0,
            streams: Streams::default(),
            names: false,
            distributions: Distributions::new(),
            usage: Usage::default(),
            arrivals: None,
            spans: None,
            crossing: None,
        }
    }

    /// A request ended.
    pub fn complete(&mut self, ended: &Ended<'_>) {
        let exemplar = self.export(ended);
        if let Some(crossing) = &mut self.crossing {
            match &mut self.spans {
                Some(spans) => {
                    spans.take_raw(|bytes, len| crossing.add(ended, exemplar, (bytes, len)));
                }
                None => crossing.add(ended, exemplar, (&[], 0)),
            }
        } else {
            self.count(ended, exemplar);
        }
        self.log(ended);
    }

    fn count(&mut self, ended: &Ended<'_>, exemplar: Option<Traced>) {
        let key = self.labels.key(ended);
        self.requests.add(key, ended);
        self.errors.add(ended);
        self.streams.add(ended);
        if ended.measured() {
            self.cut += u64::from(ended.is_cut() && ended.origin.is_none());
            self.distributions.add(key, ended, exemplar);
            self.usage.add(key, ended);
        }
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.add(ended);
        }
    }

    /// From now on another process counts the records: they wait until they are sent to it.
    pub fn send_records(&mut self) {
        self.crossing = Some(Crossing::default());
    }

    /// Shows the records that wait to be sent to `consume`, and empties their queue.
    pub fn take_records<T>(&mut self, consume: impl FnOnce(&[u8]) -> T) -> T {
        match &mut self.crossing {
            Some(crossing) => crossing.take(consume),
            None => consume(&[]),
        }
    }

    /// Records that found no room in their queue.
    #[must_use]
    pub fn records_dropped(&self) -> u64 {
        self.crossing.as_ref().map_or(0, Crossing::dropped)
    }

    /// Counts the records that another process has sent.
    ///
    /// # Errors
    ///
    /// They cannot be read. Those before are counted.
    pub fn add_records(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        crossing::read(bytes, |record| match record {
            Crossed::Ended(request) => request.show(|ended, traced, (spans, len)| {
                self.count(ended, traced);
                if let Some(own) = &mut self.spans {
                    own.append(spans, len);
                }
            }),
            Crossed::Attempt(outcome) => self.attempts.add_number(outcome),
        })
    }

    /// Queues the spans of a request. Its trace, if a collector gets them.
    fn export(&mut self, ended: &Ended<'_>) -> Option<Traced> {
        let spans = self.spans.as_mut()?;
        spans.complete(ended, &self.policy)
    }

    /// From now on the spans of requests wait for an exporter.
    pub fn export_spans(&mut self, spans: Spans) {
        self.spans = Some(spans);
    }

    /// The queue of spans, where they are exported.
    pub fn spans(&mut self) -> Option<&mut Spans> {
        self.spans.as_mut()
    }

    /// Keeps what a recording needs of each request from now on, or no longer.
    pub fn record_arrivals(&mut self, on: bool) {
        self.arrivals = on.then(Arrivals::default);
    }

    /// What a recording needs of the requests that ended since the last call.
    pub fn take_arrivals(&mut self) -> Vec<Arrival> {
        self.arrivals.as_mut().map_or_else(Vec::new, Arrivals::take)
    }

    /// Requests that a recording lacks because its thread did not keep up.
    #[must_use]
    pub fn arrivals_dropped(&self) -> u64 {
        self.arrivals.as_ref().map_or(0, Arrivals::dropped)
    }

    /// One attempt at a replica ended; `false` for an outcome that is not in the list.
    pub fn attempt(&mut self, outcome: &str) -> bool {
        let Some(number) = counts::number_of(outcome) else {
            return false;
        };
        match &mut self.crossing {
            Some(crossing) => crossing.add_attempt(number),
            None => self.attempts.add_number(number),
        }
        true
    }

    /// Changes what later lines look like.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// Changes the policy that later lines name.
    pub fn set_policy(&mut self, policy: &str) {
        self.policy = policy.into();
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

    /// The values of [`counts::LABELS`], and the count, of every series.
    pub fn requests(&self) -> impl Iterator<Item = (counts::Values<'_>, u64)> {
        self.requests.iter(&self.labels)
    }

    /// `(outcome, count)` of every outcome.
    pub fn attempts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.attempts.iter()
    }

    /// Requests that ended with an error code, by code.
    pub fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.errors.iter()
    }

    /// Answers to clients that had begun, and were cut by a fault.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Times that a stream went on at another replica, by why it was given up.
    pub fn continued(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.streams.continued()
    }

    /// Streams that broke and did not go on elsewhere, by every reason.
    pub fn not_continued(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.streams.not_continued()
    }

    /// Lines for people name each request from now on, and not only those with an error.
    pub fn name_requests(&mut self) {
        self.names = true;
    }

    /// The figures of each model that was answered.
    pub fn models(&self) -> impl Iterator<Item = ModelUsage<'_>> {
        self.usage.models(&self.labels)
    }

    /// The figures of each tenant that has had requests.
    pub fn tenants(&self) -> impl Iterator<Item = TenantUsage<'_>> {
        self.usage.tenants(&self.labels)
    }

    /// Cumulative buckets and the sum, of all models and classes together.
    #[must_use]
    pub fn histogram(&self, which: Distribution) -> Cumulative {
        self.distributions.histogram(which)
    }

    /// The same of each model and class that has values.
    pub fn histograms(&self, which: Distribution) -> impl Iterator<Item = ([&str; 2], Cumulative)> {
        self.distributions.histograms(which, &self.labels)
    }

    /// The latest exported request of each bucket that has one, by model and class.
    pub fn exemplars(&self, which: Distribution) -> impl Iterator<Item = ([&str; 2], Exemplar)> {
        self.distributions.exemplars(which, &self.labels)
    }

    /// Of [`Distribution::Ttft`]: the part of the sum that was hold, in seconds, by model and class.
    pub fn ttft_held(&self) -> impl Iterator<Item = ([&str; 2], f64)> {
        self.distributions.ttft_held(&self.labels)
    }

    /// The `q`-quantile of the recent values, in seconds.
    #[must_use]
    pub fn quantile(&self, which: Distribution, q: f64) -> Option<f64> {
        self.distributions.quantile(which, q)
    }

    fn log(&mut self, ended: &Ended<'_>) {
        if self.format == Format::Off {
            return;
        }
        let before = self.queue.len();
        if before < self.queue_bytes_max {
            let ts = self.stamp.format(ended.end_ns);
            let queue = &mut self.queue;
            match self.format {
                Format::Off => {}
                Format::Text => brief::write(queue, ended, &ts, self.names),
                Format::Logfmt => access::write::<false>(queue, ended, &ts, &self.policy),
                Format::Json => access::write::<true>(queue, ended, &ts, &self.policy),
            }
            if self.queue.len() <= self.queue_bytes_max {
                return;
            }
            self.queue.truncate(before);
        }
        self.dropped += 1;
    }
}

#[cfg(test)]
mod tests;
