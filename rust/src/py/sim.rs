//! Binding of the simulator.

use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::sim;

/// A run of one scenario; the stub documents it.
#[pyclass(module = "skylb._core")]
struct Simulator {
    inner: sim::Simulator,
}

#[pymethods]
impl Simulator {
    #[new]
    #[pyo3(signature = (scenario_json, requests_json, /))]
    fn new(py: Python<'_>, scenario_json: &[u8], requests_json: &[u8]) -> PyResult<Self> {
        let built = py.detach(|| sim::Simulator::new(scenario_json, requests_json));
        built
            .map(|inner| Self { inner })
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[pyo3(signature = (until_s, /))]
    fn advance(&mut self, py: Python<'_>, until_s: f64) -> PyResult<f64> {
        let inner = &mut self.inner;
        py.detach(|| inner.advance(until_s))
            .map_err(|broken| PyAssertionError::new_err(broken.to_string()))
    }

    #[getter]
    fn done(&self) -> bool {
        self.inner.done()
    }

    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let json = self
            .inner
            .result()
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &json))
    }
}

/// Adds this part's class to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Simulator>()
}
