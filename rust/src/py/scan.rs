//! Binding of `engine::body`, for bodies that are read beside the event loop.

use std::sync::Mutex;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::http::{Head, refused};
use crate::engine::body::{self, Digest, DigestConfig, Scratch, Splice};

/// What a body says, until the engine takes it.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Scanned {
    /// Bytes of the body.
    pub(super) body_bytes: usize,
    usage_splice: Option<Splice>,
    digest: Mutex<Option<Digest>>,
}

impl Scanned {
    /// The digest, once.
    pub(super) fn take(&self) -> PyResult<Digest> {
        let mut digest = self
            .digest
            .lock()
            .map_err(|_| PyValueError::new_err("scanned: a thread failed"))?;
        digest
            .take()
            .ok_or_else(|| PyValueError::new_err("scanned: it was submitted before"))
    }
}

#[pymethods]
impl Scanned {
    #[getter]
    fn usage_splice<'py>(&self, py: Python<'py>) -> Option<(usize, Bound<'py, PyBytes>)> {
        let Splice { at, text } = self.usage_splice?;
        Some((at, PyBytes::new(py, text)))
    }
}

/// Reads bodies as the engine does, from any thread.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Scanner(pub(super) DigestConfig);

#[pymethods]
impl Scanner {
    #[pyo3(signature = (head, body, /))]
    fn scan(
        &self,
        py: Python<'_>,
        head: &Bound<'_, Head>,
        body: &Bound<'_, PyBytes>,
    ) -> PyResult<Scanned> {
        let head = &head.get().inner;
        let route = head.route();
        let route = route.ok_or_else(|| PyValueError::new_err("head: it has no route"))?;
        let bytes = body.as_bytes();
        let digest = py.detach(|| {
            let content_type = head.header(b"content-type");
            body::digest(route, content_type, bytes, &self.0, &mut Scratch::default())
        });
        let digest = digest.map_err(|error| refused(py, &error, None))?;
        Ok(Scanned {
            body_bytes: bytes.len(),
            usage_splice: digest.usage_splice,
            digest: Mutex::new(Some(digest)),
        })
    }
}

/// A body as a request is submitted with it.
#[derive(FromPyObject)]
pub(super) enum Body<'py> {
    /// To be read.
    Bytes(Bound<'py, PyBytes>),
    /// Read before.
    Scanned(Bound<'py, Scanned>),
}

impl Body<'_> {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes().len(),
            Self::Scanned(scanned) => scanned.get().body_bytes,
        }
    }
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Scanned>()?;
    m.add_class::<Scanner>()
}
