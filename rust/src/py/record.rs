//! Binding of `record`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::arrivals::Arrivals;
use super::http::{Head, Relay};
use super::request::Request;
use super::sender::Sender;
use super::tenant::Tenant;
use crate::record::{self, Distribution, Ended, Format, Life};

const LOG_OFF: u8 = 0;
const LOG_TEXT: u8 = 1;
const LOG_JSON: u8 = 2;
const LOG_LOGFMT: u8 = 3;

fn format(log_format: u8) -> PyResult<Format> {
    match log_format {
        LOG_OFF => Ok(Format::Off),
        LOG_TEXT => Ok(Format::Text),
        LOG_JSON => Ok(Format::Json),
        LOG_LOGFMT => Ok(Format::Logfmt),
        _ => Err(PyValueError::new_err(format!(
            "log_format: expected LOG_OFF, LOG_TEXT, LOG_JSON or LOG_LOGFMT, got {log_format}"
        ))),
    }
}

fn distribution(name: &str) -> PyResult<Distribution> {
    Distribution::by_name(name).ok_or_else(|| {
        let known = Distribution::ALL.map(Distribution::name).join(", ");
        PyValueError::new_err(format!("name: expected one of {known}, got {name:?}"))
    })
}

/// Tenant, tokens and requests by kind and outcome, and the sum and number of the times to first byte.
type TenantFigures<'a> = (&'a str, Vec<u64>, Vec<u64>, (f64, u64));

/// Model and class.
type Labels<'a> = (&'a str, &'a str);

/// Model and class, bucket, trace, value in seconds, end of the request as a Unix time.
type Exemplar<'a> = (Labels<'a>, usize, String, f64, f64);

/// Counts, distributions and the queue of log lines.
#[pyclass(module = "skylb._core")]
pub(super) struct Recorder(pub(super) record::Recorder);

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

    #[pyo3(signature = (request, relay, status, error_code, now_ns, /))]
    fn complete(
        &mut self,
        request: &Request,
        relay: Option<&Relay>,
        status: u16,
        error_code: Option<&str>,
        now_ns: u64,
    ) {
        let ended = request.ended(relay, status, error_code, now_ns);
        self.0.complete(&ended);
    }

    #[pyo3(signature = (status, error_code, sender, request_id, head, now_ns, tenant=None, /))]
    #[expect(clippy::too_many_arguments, reason = "a refusal's facts, by Python")]
    fn refused(
        &mut self,
        status: u16,
        error_code: &str,
        sender: &Sender,
        request_id: &str,
        head: Option<&Head>,
        now_ns: u64,
        tenant: Option<&Tenant>,
    ) {
        let life = Life {
            request_id: request_id.into(),
            start_ns: now_ns,
            tenant: tenant.map_or_else(Default::default, |tenant| tenant.0.clone()),
            ..Life::default()
        };
        self.0.complete(&Ended {
            head: head.map(|head| (&head.inner).into()),
            refused: true,
            digest: None,
            prompt_blocks: 0,
            prompt: None,
            relay: None,
            life: &life,
            client: sender.address.as_deref(),
            origin: sender.origin.as_deref(),
            status,
            error_code: Some(error_code),
            end_ns: now_ns,
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

    #[pyo3(signature = (policy, /))]
    fn set_policy(&mut self, policy: &str) {
        self.0.set_policy(policy);
    }

    fn take_log<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.0.take_log(|lines| PyBytes::new(py, lines))
    }

    #[pyo3(signature = (on, /))]
    fn record_arrivals(&mut self, on: bool) {
        self.0.record_arrivals(on);
    }

    fn take_arrivals(&mut self) -> Arrivals {
        Arrivals(self.0.take_arrivals())
    }

    #[getter]
    fn arrivals_dropped(&self) -> u64 {
        self.0.arrivals_dropped()
    }

    fn send_records(&mut self) {
        self.0.send_records();
    }

    #[getter]
    fn records_dropped(&self) -> u64 {
        self.0.records_dropped()
    }

    #[getter]
    fn log_dropped(&self) -> u64 {
        self.0.log_dropped()
    }

    #[expect(
        clippy::type_complexity,
        reason = "names, and rows of values and count"
    )]
    fn requests<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Vec<(Bound<'py, PyTuple>, u64)>)> {
        let rows = self.0.requests();
        let rows = rows.map(|(values, count)| Ok((PyTuple::new(py, values)?, count)));
        let names = PyTuple::new(py, record::counts::LABELS)?;
        Ok((names, rows.collect::<PyResult<_>>()?))
    }

    fn attempts(&self) -> Vec<(&'static str, u64)> {
        self.0.attempts().collect()
    }

    fn models(&self) -> Vec<(&str, Vec<u64>, u64, u64)> {
        let models = self.0.models();
        models
            .map(|of| (of.model, of.tokens.into(), of.answers, of.untold))
            .collect()
    }

    fn tenants(&self) -> Vec<TenantFigures<'_>> {
        let tenants = self.0.tenants();
        tenants
            .map(|of| (of.tenant, of.tokens.into(), of.outcomes.into(), of.ttft))
            .collect()
    }

    fn name_requests(&mut self) {
        self.0.name_requests();
    }

    #[getter]
    fn cut(&self) -> u64 {
        self.0.cut()
    }

    fn continued(&self) -> Vec<(&'static str, u64)> {
        self.0.continued().collect()
    }

    fn not_continued(&self) -> Vec<(&'static str, u64)> {
        self.0.not_continued().collect()
    }

    fn errors(&self) -> Vec<(&str, u64)> {
        self.0.errors().collect()
    }

    fn histogram(&self, name: &str) -> PyResult<record::Cumulative> {
        Ok(self.0.histogram(distribution(name)?))
    }

    fn histograms(&self, name: &str) -> PyResult<Vec<(Labels<'_>, record::Cumulative)>> {
        let series = self.0.histograms(distribution(name)?);
        Ok(series
            .map(|(values, found)| (values.into(), found))
            .collect())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus values and times are doubles"
    )]
    fn exemplars(&self, name: &str) -> PyResult<Vec<Exemplar<'_>>> {
        let exemplars = self.0.exemplars(distribution(name)?);
        Ok(exemplars
            .map(|(values, of)| {
                let trace_id = format!("{:032x}", of.traced.trace_id);
                let value_s = of.value_ns as f64 / 1e9;
                let unix_s = of.traced.unix_ns as f64 / 1e9;
                (values.into(), of.bucket, trace_id, value_s, unix_s)
            })
            .collect())
    }

    fn ttft_held(&self) -> Vec<(Labels<'_>, f64)> {
        let held = self.0.ttft_held();
        held.map(|(values, held_s)| (values.into(), held_s))
            .collect()
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
    m.add("LOG_LOGFMT", LOG_LOGFMT)?;
    m.add("LOG_JSON", LOG_JSON)?;
    m.add("TOKEN_KINDS", PyTuple::new(m.py(), record::usage::KINDS)?)?;
    m.add(
        "TENANT_OUTCOMES",
        PyTuple::new(m.py(), record::usage::OUTCOMES)?,
    )?;
    m.add_class::<Recorder>()
}
