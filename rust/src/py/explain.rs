//! Binding of `engine`: the calls about receipts.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::engine::Engine;
use super::http::refused;
use super::request::{Request, ask_of};
use super::scan::Body;
use crate::time::Instant;

type Json = Result<Vec<u8>, serde_json::Error>;

fn bytes(py: Python<'_>, json: Json) -> PyResult<Bound<'_, PyBytes>> {
    let json = json.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &json))
}

#[pymethods]
impl Engine {
    #[pyo3(signature = (len_max, now_ns, /))]
    fn keep_receipts(&mut self, len_max: usize, now_ns: Instant) {
        self.router.keep_receipts(len_max, now_ns);
    }

    #[pyo3(signature = (request, body, now_ns, /))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "pyo3 hands over what it converted"
    )]
    fn rehearse<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request,
        body: Body<'py>,
        now_ns: Instant,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let from = (None, request.front());
        let ask = ask_of(&request.head.get().inner, &request.life, from, body.len())?;
        let digest = match &body {
            Body::Scanned(scanned) => scanned.get().take()?,
            Body::Bytes(bytes) => {
                let digest = self.router.digest(&ask, bytes.as_bytes());
                digest.map_err(|error| refused(py, &error, None))?
            }
        };
        let name = &request.life.request_id;
        bytes(py, self.router.rehearse(name, &ask, digest, now_ns))
    }

    #[pyo3(signature = (request_id, now_ns, /))]
    fn receipt<'py>(
        &self,
        py: Python<'py>,
        request_id: &str,
        now_ns: Instant,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let json = self.router.receipt(request_id, now_ns);
        json.map(|json| bytes(py, json)).transpose()
    }

    #[pyo3(signature = (len_max, now_ns, /))]
    fn receipts<'py>(
        &self,
        py: Python<'py>,
        len_max: usize,
        now_ns: Instant,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let json = self.router.receipt_list(len_max, now_ns);
        json.map(|json| bytes(py, json)).transpose()
    }
}
