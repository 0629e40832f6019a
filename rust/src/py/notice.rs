//! Binding of `engine`: replicas that are announced to end.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::engine::Engine;
use crate::id::ReplicaId;
use crate::time::Instant;

type Effects<'py> = PyResult<Bound<'py, PyTuple>>;

#[pymethods]
impl Engine {
    #[pyo3(signature = (replica, at_ns, now_ns, /))]
    fn set_notice<'py>(
        &mut self,
        py: Python<'py>,
        replica: u32,
        at_ns: Option<Instant>,
        now_ns: Instant,
    ) -> Effects<'py> {
        self.router
            .set_notice(ReplicaId(replica), at_ns, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }
}
