//! Binding of `snapshot`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::engine::fleet::snapshot::{self, DIALECTS, Dialect};

/// See `_core.pyi`.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Snapshot(pub(super) snapshot::Snapshot);

#[pymethods]
impl Snapshot {
    #[getter]
    fn running(&self) -> Option<u32> {
        self.0.running
    }

    #[getter]
    fn waiting(&self) -> Option<u32> {
        self.0.waiting
    }

    #[getter]
    fn deferred(&self) -> Option<u32> {
        self.0.deferred
    }

    #[getter]
    fn kv_usage(&self) -> Option<f64> {
        self.0.kv_usage
    }

    #[getter]
    fn kv_tokens(&self) -> Option<u64> {
        self.0.kv_tokens
    }

    #[getter]
    fn block_size(&self) -> Option<u32> {
        self.0.block_size
    }

    #[getter]
    fn cache_queries(&self) -> Option<u64> {
        self.0.cache_queries
    }

    #[getter]
    fn cache_hits(&self) -> Option<u64> {
        self.0.cache_hits
    }

    #[getter]
    fn preemptions(&self) -> Option<u64> {
        self.0.preemptions
    }

    #[getter]
    fn sleeping(&self) -> bool {
        self.0.sleeping
    }

    #[getter]
    fn loras_running(&self) -> Vec<String> {
        self.0.loras_running.clone()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn dialect_of(name: &str) -> PyResult<&'static Dialect> {
    let known = DIALECTS.into_iter().find(|dialect| dialect.name == name);
    known.ok_or_else(|| PyValueError::new_err(format!("dialect: {name} is none of dialects()")))
}

/// See `_core.pyi`.
#[pyfunction]
fn scan_metrics(page: &[u8], dialect: &str) -> PyResult<Snapshot> {
    Ok(Snapshot(snapshot::scan(page, dialect_of(dialect)?)))
}

/// See `_core.pyi`.
#[pyfunction]
fn dialects() -> Vec<(&'static str, &'static [u8], Vec<&'static str>)> {
    DIALECTS
        .iter()
        .map(|dialect| {
            let prefix = dialect.prefix.as_bytes();
            (dialect.name, prefix, dialect.names.to_vec())
        })
        .collect()
}

/// Adds this part's classes and functions to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Snapshot>()?;
    m.add_function(wrap_pyfunction!(scan_metrics, m)?)?;
    m.add_function(wrap_pyfunction!(dialects, m)?)
}
