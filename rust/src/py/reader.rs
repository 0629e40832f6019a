//! Binding of the reader of whole responses.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::text::{expected, latin1};
use crate::relay::ResponseReader as EngineReader;

/// Reads one response without relaying it.
#[pyclass(module = "skylb._core")]
pub struct ResponseReader {
    inner: EngineReader,
}

#[pymethods]
impl ResponseReader {
    #[new]
    #[pyo3(signature = (is_head=false))]
    fn new(is_head: bool) -> Self {
        Self {
            inner: EngineReader::new(is_head),
        }
    }

    #[pyo3(signature = (data, /))]
    fn feed<'py>(&mut self, data: &Bound<'py, PyBytes>) -> Bound<'py, PyBytes> {
        let body = self.inner.feed(data.as_bytes());
        if body.len() == data.as_bytes().len() {
            return data.clone(); // all of it is body
        }
        PyBytes::new(data.py(), &body)
    }

    fn eof(&mut self) {
        self.inner.eof();
    }

    #[getter]
    fn status(&self) -> u16 {
        self.inner.status()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.inner.header(name.as_bytes()).map(latin1)
    }

    #[getter]
    fn done(&self) -> bool {
        self.inner.done()
    }

    #[getter]
    fn reusable(&self) -> bool {
        self.inner.reusable()
    }

    #[getter]
    fn error(&self) -> Option<String> {
        self.inner.error().map(expected)
    }
}

/// Adds this part's class to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<ResponseReader>()
}
