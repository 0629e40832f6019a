//! Binding of `record`: the queue of spans.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::record::Recorder;
use crate::record::spans::{SpanConfig, Spans, rejected};

#[pymethods]
impl Recorder {
    #[pyo3(signature = (resource, slow_ns, queue_bytes_max, unix_offset_ns, /))]
    fn export_spans(
        &mut self,
        resource: Vec<(String, String)>,
        slow_ns: u64,
        queue_bytes_max: usize,
        unix_offset_ns: i64,
    ) {
        self.0.export_spans(Spans::new(SpanConfig {
            resource,
            version: env!("CARGO_PKG_VERSION"),
            slow_ns,
            queue_bytes_max,
            unix_offset_ns,
        }));
    }

    #[pyo3(signature = (unix_offset_ns, /))]
    fn take_spans<'py>(
        &mut self,
        py: Python<'py>,
        unix_offset_ns: i64,
    ) -> Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, u64)> {
        let spans = self.0.spans()?;
        spans.set_unix_offset_ns(unix_offset_ns);
        let parts = |head: &[u8], spans: &[u8]| (PyBytes::new(py, head), PyBytes::new(py, spans));
        let ((head, spans), count) = spans.take(parts)?;
        Some((head, spans, count))
    }

    #[getter]
    fn spans_dropped(&mut self) -> u64 {
        self.0.spans().map_or(0, |spans| spans.dropped())
    }
}

/// Spans that a collector has refused, as its answer says.
#[pyfunction]
#[pyo3(signature = (answer, /))]
fn spans_rejected(answer: &[u8]) -> u64 {
    rejected(answer)
}

/// Adds this part's functions to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(spans_rejected, m)?)
}
