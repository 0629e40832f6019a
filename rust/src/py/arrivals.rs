//! Binding of `record::trace`: the lines of a recording.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::record::arrivals::Arrival;
use crate::record::trace::{Form, Writer};

/// Requests that ended, on their way from the recorder to a recording.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Arrivals(pub(super) Vec<Arrival>);

#[pymethods]
impl Arrivals {
    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// Makes the lines of one recording.
#[pyclass(module = "skylb._core")]
struct ArrivalWriter(Writer);

#[pymethods]
impl ArrivalWriter {
    #[new]
    #[pyo3(signature = (region, start_ns, block_tokens, known_max))]
    fn new(region: &str, start_ns: u64, block_tokens: u32, known_max: usize) -> PyResult<Self> {
        if block_tokens == 0 || known_max == 0 {
            return Err(PyValueError::new_err(
                "block_tokens, known_max: expected 1 or more",
            ));
        }
        Ok(Self(Writer::new(Form {
            region: region.into(),
            start_ns,
            block_tokens,
            known_max,
        })))
    }

    #[pyo3(signature = (arrivals, /))]
    fn lines<'py>(&mut self, py: Python<'py>, arrivals: &Arrivals) -> Bound<'py, PyBytes> {
        let (writer, arrivals) = (&mut self.0, &arrivals.0);
        let lines = py.detach(|| {
            let mut out = Vec::new();
            writer.write(arrivals, &mut out);
            out
        });
        PyBytes::new(py, &lines)
    }

    #[getter]
    fn forgotten(&self) -> u64 {
        self.0.forgotten()
    }
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Arrivals>()?;
    m.add_class::<ArrivalWriter>()
}
