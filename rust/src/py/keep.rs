//! Binding of `engine`: what goes from one process of a balancer to the next.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::engine::Engine;
use crate::engine::keep::flight::Flight;
use crate::engine::keep::state::{self, Head};
use crate::time::{Instant, Span};

/// Writes a state, part by part.
#[pyclass(module = "skylb._core")]
struct StateWriter(state::StateWriter);

#[pymethods]
impl StateWriter {
    #[new]
    #[pyo3(signature = (secret, isolation, unix_ns, bytes_max, since=None))]
    fn new(
        secret: Vec<u8>,
        isolation: Option<Vec<u8>>,
        unix_ns: u64,
        bytes_max: u64,
        since: Option<u64>,
    ) -> Self {
        let head = Head {
            software: env!("CARGO_PKG_VERSION").to_owned(),
            secret,
            isolation,
            unix_ns,
        };
        Self(state::StateWriter::new(head, bytes_max, since))
    }

    #[getter]
    fn clock(&self) -> u64 {
        self.0.clock()
    }
}

/// Secret, key of isolation, and when it was written.
type HeadFields<'py> = (Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>, u64);

#[pyfunction]
#[pyo3(signature = (state, /))]
fn read_state_head<'py>(py: Python<'py>, state: &[u8]) -> PyResult<HeadFields<'py>> {
    let head = state::head(state).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let isolation = head.isolation.map(|key| PyBytes::new(py, &key));
    Ok((PyBytes::new(py, &head.secret), isolation, head.unix_ns))
}

/// Adds this part's classes and functions to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<StateWriter>()?;
    m.add_function(wrap_pyfunction!(read_state_head, m)?)
}

#[pymethods]
impl Engine {
    #[pyo3(signature = (now_ns, /))]
    fn flight<'py>(&mut self, py: Python<'py>, now_ns: Instant) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.router.flight(now_ns).encode();
        let bytes = bytes.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[pyo3(signature = (writer, now_ns, /))]
    fn export_state<'py>(
        &mut self,
        py: Python<'py>,
        writer: &mut StateWriter,
        now_ns: Instant,
    ) -> Option<Bound<'py, PyBytes>> {
        let part = self.router.export(&mut writer.0, now_ns)?;
        Some(PyBytes::new(py, &part))
    }

    #[pyo3(signature = (state, age_ns, now_ns, /))]
    fn import_state<'py>(
        &mut self,
        py: Python<'py>,
        state: &[u8],
        age_ns: Span,
        now_ns: Instant,
    ) -> PyResult<Bound<'py, PyDict>> {
        let inherited = self.router.import(state, age_ns, now_ns);
        let inherited = inherited.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let found = PyDict::new(py);
        found.set_item("replicas_told", inherited.replicas_told)?;
        found.set_item("replicas", inherited.replicas)?;
        found.set_item("paths", inherited.paths)?;
        found.set_item("sessions", inherited.sessions)?;
        found.set_item("tenants", inherited.tenants)?;
        Ok(found)
    }

    #[pyo3(signature = (flight, now_ns, /))]
    fn merge_predecessor<'py>(
        &mut self,
        py: Python<'py>,
        flight: Option<&[u8]>,
        now_ns: Instant,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let flight = match flight {
            None => Flight::default(),
            Some(bytes) => Flight::decode(bytes)
                .ok_or_else(|| PyValueError::new_err("the predecessor's requests: malformed"))?,
        };
        self.router
            .merge_predecessor(&flight, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }
}
