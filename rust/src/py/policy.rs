//! Binding of the engine's policy, which operators may change while it runs.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::engine::Engine;
use crate::engine::policy::Policy;
use crate::time::Instant;

fn named(name: &str) -> PyResult<Policy> {
    let found = Policy::ALL.iter().find(|policy| policy.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = Policy::ALL.iter().map(|policy| policy.name()).collect();
        let names = names.join(", ");
        PyValueError::new_err(format!("policy: {name:?} is none of {names}"))
    })
}

#[pymethods]
impl Engine {
    #[getter]
    fn policy(&self) -> &'static str {
        self.router.policies().0.name()
    }

    #[getter]
    fn shadow_policy(&self) -> Option<&'static str> {
        self.router.policies().1.map(Policy::name)
    }

    #[pyo3(signature = (policy, now_ns, /))]
    fn set_policy<'py>(
        &mut self,
        py: Python<'py>,
        policy: &str,
        now_ns: Instant,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let policy = named(policy)?;
        self.router.set_policy(policy, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }
}
