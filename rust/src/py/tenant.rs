//! The tenant of a request, which Python finds out and passes to the engine.

use pyo3::prelude::*;

use crate::tenant;

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

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Tenant>()
}
