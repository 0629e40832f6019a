//! Who sent a request, and what it is called.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

use crate::http::request::Head;
use crate::record::legs::{Trace, Tracer};

/// Who sent a request.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Sender {
    /// The client's address; `None` over a Unix socket.
    pub(super) address: Option<Box<str>>,
    pub(super) scheme: Box<str>,
    pub(super) trusted: bool,
    /// The class that a head names counts, and a body may steer the engine.
    pub(super) front: bool,
    /// The peer that forwards.
    pub(super) origin: Option<Box<str>>,
}

#[pymethods]
impl Sender {
    #[new]
    #[pyo3(signature = (address, scheme, trusted, front, origin=None, /))]
    fn new(
        address: Option<&str>,
        scheme: &str,
        trusted: bool,
        front: bool,
        origin: Option<&str>,
    ) -> Self {
        Self {
            address: address.map(Into::into),
            scheme: scheme.into(),
            trusted,
            front,
            origin: origin.map(Into::into),
        }
    }

    #[getter]
    fn front(&self) -> bool {
        self.front
    }
}

/// Ids for requests that bring none: a prefix and a counter. Where spans are exported, also their traces.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct RequestIds {
    prefix: Box<str>,
    count: AtomicU64,
    tracer: Option<Tracer>,
}

#[pymethods]
impl RequestIds {
    #[new]
    #[pyo3(signature = (prefix, sample_ratio=None, seed=0, /))]
    fn new(prefix: &str, sample_ratio: Option<f64>, seed: u64) -> Self {
        Self {
            prefix: prefix.into(),
            count: AtomicU64::new(1),
            tracer: sample_ratio.map(|ratio| Tracer::new(seed, ratio)),
        }
    }

    #[getter]
    fn traces(&self) -> bool {
        self.tracer.is_some()
    }

    pub(super) fn make(&self) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.prefix)
    }
}

impl RequestIds {
    /// The trace of a request that replicas serve.
    pub(super) fn trace(&self, head: &Head) -> Option<Box<Trace>> {
        let tracer = self.tracer.as_ref()?;
        let served = head.route().is_some_and(|route| !route.is_local());
        served.then(|| Box::new(tracer.begin(head.trace_parent())))
    }
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Sender>()?;
    m.add_class::<RequestIds>()
}
