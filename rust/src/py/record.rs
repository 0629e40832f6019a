//! Binding of `record`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::effects::Digest;
use super::http::{Head, Relay};
use crate::record::{self, Distribution, Event, Format};

const LOG_OFF: u8 = 0;
const LOG_TEXT: u8 = 1;
const LOG_JSON: u8 = 2;

fn format(log_format: u8) -> PyResult<Format> {
    match log_format {
        LOG_OFF => Ok(Format::Off),
        LOG_TEXT => Ok(Format::Text),
        LOG_JSON => Ok(Format::Json),
        _ => Err(PyValueError::new_err(format!(
            "log_format: expected LOG_OFF, LOG_TEXT or LOG_JSON, got {log_format}"
        ))),
    }
}

fn distribution(name: &str) -> PyResult<Distribution> {
    Distribution::by_name(name).ok_or_else(|| {
        PyValueError::new_err(format!(
            "name: expected ttft_seconds, request_seconds or hold_seconds, got {name:?}"
        ))
    })
}

/// Text that the parser let through, as ASCII or not at all.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Counts, distributions and the queue of log lines.
#[pyclass(module = "skylb._core")]
struct Recorder(record::Recorder);

#[pymethods]
impl Recorder {
    #[new]
    #[pyo3(signature = (log_format, log_bytes_max, policy, unix_offset_ns, label_values_max = 64))]
    fn new(
        log_format: u8,
        log_bytes_max: usize,
        policy: &str,
        unix_offset_ns: i64,
        label_values_max: usize,
    ) -> PyResult<Self> {
        let format = format(log_format)?;
        Ok(Self(record::Recorder::new(
            format,
            log_bytes_max,
            policy,
            unix_offset_ns,
            label_values_max,
        )))
    }

    #[pyo3(signature = (head, digest, relay, request_id, tenant, client, status, error_code, replica,
        peer, attempts, match_blocks, predicted_ttft_ns, start_ns, held_ns, first_byte_ns, end_ns, bytes_in, /))]
    #[expect(
        clippy::too_many_arguments,
        reason = "positional, for speed: the Python interface"
    )]
    fn complete(
        &mut self,
        head: &Head,
        digest: Option<&Digest>,
        relay: Option<PyRef<'_, Relay>>,
        request_id: &str,
        tenant: Option<&str>,
        client: Option<&str>,
        status: u16,
        error_code: Option<&str>,
        replica: Option<&str>,
        peer: Option<&str>,
        attempts: u32,
        match_blocks: u64,
        predicted_ttft_ns: Option<u64>,
        start_ns: u64,
        held_ns: u64,
        first_byte_ns: u64,
        end_ns: u64,
        bytes_in: u64,
    ) {
        let route = head.inner.route();
        self.0.complete(&Event {
            request_id,
            trace_id: head.inner.trace_id().map(ascii),
            tenant,
            client,
            method: ascii(head.inner.method()),
            route: head.inner.route_name(),
            path: None,
            measured: route.is_some_and(|route| !route.is_local()),
            model: digest.map(|digest| &*digest.model),
            status,
            error_code,
            replica,
            peer,
            attempts,
            prompt_blocks: digest.map_or(0, |digest| digest.prompt_blocks as u64),
            match_blocks,
            predicted_ttft_ns,
            start_ns,
            held_ns,
            first_byte_ns,
            end_ns,
            bytes_in,
            bytes_out: relay.map_or(0, |relay| relay.inner.bytes_out()),
        });
    }

    #[pyo3(signature = (status, error_code, client, request_id, head, now_ns, /))]
    fn refused(
        &mut self,
        status: u16,
        error_code: &str,
        client: Option<&str>,
        request_id: &str,
        head: Option<&Head>,
        now_ns: u64,
    ) {
        let head = head.map(|head| &head.inner);
        self.0.refused(&Event {
            request_id,
            trace_id: head.and_then(|head| head.trace_id()).map(ascii),
            client,
            method: head.map_or("", |head| ascii(head.method())),
            path: head.map(|head| ascii(head.path())),
            status,
            error_code: Some(error_code),
            end_ns: now_ns,
            ..Event::default()
        });
    }

    #[pyo3(signature = (outcome, /))]
    fn attempt(&mut self, outcome: &str) -> PyResult<()> {
        if self.0.attempt(outcome) {
            return Ok(());
        }
        let known = record::counts::OUTCOMES.join(", ");
        Err(PyValueError::new_err(format!(
            "outcome: expected one of {known}, got {outcome:?}"
        )))
    }

    fn set_log_format(&mut self, log_format: u8) -> PyResult<()> {
        self.0.set_format(format(log_format)?);
        Ok(())
    }

    fn take_log<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.0.take_log(|lines| PyBytes::new(py, lines))
    }

    #[getter]
    fn log_dropped(&self) -> u64 {
        self.0.log_dropped()
    }

    fn requests(&self) -> Vec<(&'static str, &str, u16, u64)> {
        self.0.requests().collect()
    }

    fn attempts(&self) -> Vec<(&'static str, u64)> {
        self.0.attempts().collect()
    }

    fn histogram(&self, name: &str) -> PyResult<(Vec<(f64, u64)>, f64)> {
        Ok(self.0.histogram(distribution(name)?))
    }

    fn quantile(&self, name: &str, q: f64) -> PyResult<Option<f64>> {
        if !(0.0..=1.0).contains(&q) {
            return Err(PyValueError::new_err(format!(
                "q: expected 0 to 1, got {q}"
            )));
        }
        Ok(self.0.quantile(distribution(name)?, q))
    }
}

/// Adds this part's classes and functions to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("LOG_OFF", LOG_OFF)?;
    m.add("LOG_TEXT", LOG_TEXT)?;
    m.add("LOG_JSON", LOG_JSON)?;
    m.add_class::<Recorder>()
}
