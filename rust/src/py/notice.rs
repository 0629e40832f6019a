//! Binding of `engine`: replicas and regions that are to be left.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::engine::Engine;
use crate::engine::router::Leave;
use crate::id::ReplicaId;
use crate::time::Instant;

type Effects<'py> = PyResult<Bound<'py, PyTuple>>;

#[pymethods]
impl Engine {
    #[pyo3(signature = (replica, at_ns, ends, now_ns, /))]
    fn set_notice<'py>(
        &mut self,
        py: Python<'py>,
        replica: u32,
        at_ns: Option<Instant>,
        ends: bool,
        now_ns: Instant,
    ) -> Effects<'py> {
        let kind = if ends { Leave::Ends } else { Leave::Empties };
        self.router
            .set_notice(ReplicaId(replica), at_ns.map(kind), now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (region, evacuating, leave_ns, now_ns, /))]
    fn evacuate<'py>(
        &mut self,
        py: Python<'py>,
        region: &str,
        evacuating: bool,
        leave_ns: Option<Instant>,
        now_ns: Instant,
    ) -> Effects<'py> {
        self.router
            .evacuate(region, (evacuating, leave_ns), now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = ())]
    fn staying(&self) -> (usize, usize, usize) {
        self.router.staying()
    }
}
