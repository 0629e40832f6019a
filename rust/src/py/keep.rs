//! Binding of `engine`: what goes from one process of a balancer to the next.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::engine::Engine;
use crate::engine::keep::flight::Flight;
use crate::time::Instant;

#[pymethods]
impl Engine {
    #[pyo3(signature = (now_ns, /))]
    fn flight<'py>(&mut self, py: Python<'py>, now_ns: Instant) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.router.flight(now_ns).encode();
        let bytes = bytes.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &bytes))
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
