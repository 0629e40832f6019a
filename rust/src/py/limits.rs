//! Binding of `engine`: the calls about tenants and their limits.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::engine::Engine;
use super::tenant::Tenant;
use crate::id::PeerId;
use crate::prompt::class::Class;
use crate::time::Instant;

type Effects<'py> = PyResult<Bound<'py, PyTuple>>;

#[pymethods]
impl Engine {
    #[pyo3(signature = (terms, now_ns, /))]
    fn set_tenants<'py>(&mut self, py: Python<'py>, terms: &[u8], now_ns: Instant) -> Effects<'py> {
        let set = self.router.set_tenants(terms, now_ns);
        set.map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.effects(py, now_ns)
    }

    fn tenant_usage<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let usage = self.router.tenant_usage();
        let usage = usage.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &usage))
    }

    #[pyo3(signature = (tenant, now_ns, /))]
    fn over_limit<'py>(
        &mut self,
        py: Python<'py>,
        tenant: &Tenant,
        now_ns: Instant,
    ) -> Option<(String, u32, Option<Bound<'py, PyBytes>>)> {
        let tenant = tenant.0.borrowed();
        let (message, after_s) = self.router.over_limit(tenant, now_ns)?;
        let standing = self.router.standing(tenant);
        let lines = standing.map(|standing| PyBytes::new(py, &standing.lines()));
        Some((message, after_s, lines))
    }

    #[pyo3(signature = (tenant, /))]
    fn highest_class(&self, tenant: &Tenant) -> Option<&'static str> {
        let highest = self.router.highest_class(tenant.0.borrowed());
        highest.map(Class::name)
    }

    #[pyo3(signature = (tenant, /))]
    fn continues(&self, tenant: &Tenant) -> bool {
        self.continuing && self.router.continues(tenant.0.borrowed())
    }

    #[pyo3(signature = (peer, message, now_ns, /))]
    fn merge_tenants<'py>(
        &mut self,
        py: Python<'py>,
        peer: u32,
        message: &[u8],
        now_ns: Instant,
    ) -> Effects<'py> {
        let merged = self.router.merge_tenants(PeerId(peer), message, now_ns);
        merged.map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.effects(py, now_ns)
    }
}
