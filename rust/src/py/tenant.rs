//! The tenant of a request, which Python finds out and passes to the engine.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::effects::effects;
use super::engine::Engine;
use crate::tenant;
use crate::time::Instant;

/// The tenant of a request: a name, nobody, or unknown.
#[pyclass(frozen, eq, hash, module = "skylb._core")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Tenant(pub(super) tenant::Tenant<Box<str>>);

#[pymethods]
impl Tenant {
    #[classattr]
    const NOBODY: Self = Self(tenant::Tenant::Nobody);
    #[classattr]
    const UNKNOWN: Self = Self(tenant::Tenant::Unknown);

    #[new]
    #[pyo3(signature = (name, /))]
    fn new(name: &str) -> Self {
        Self(tenant::Tenant::Named(name.into()))
    }

    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name()
    }

    fn __repr__(&self) -> String {
        match &self.0 {
            tenant::Tenant::Nobody => "Tenant.NOBODY".into(),
            tenant::Tenant::Named(name) => format!("Tenant({name:?})"),
            tenant::Tenant::Unknown => "Tenant.UNKNOWN".into(),
        }
    }
}

#[pymethods]
impl Engine {
    #[pyo3(signature = (terms, now_ns, /))]
    fn set_tenants<'py>(
        &mut self,
        py: Python<'py>,
        terms: &[u8],
        now_ns: Instant,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let set = self.router.set_tenants(terms, now_ns);
        set.map_err(|error| PyValueError::new_err(error.to_string()))?;
        effects(py, &mut self.out)
    }

    fn tenant_usage<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let usage = self.router.tenant_usage();
        let usage = usage.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &usage))
    }
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Tenant>()
}
