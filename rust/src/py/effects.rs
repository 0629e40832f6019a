//! Binding of what the engine returns: effects and gauges.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::engine::effect::{self, Effect};
use crate::engine::router::Gauges;
use crate::id::{ReplicaId, RequestId};
use crate::time::{Instant, Span};

/// Send the request to this replica now.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Push(pub(super) effect::Push);

#[pymethods]
impl Push {
    #[getter]
    fn request_id(&self) -> u64 {
        self.0.request.0
    }

    #[getter]
    fn replica(&self) -> u32 {
        self.0.replica.0
    }

    #[getter]
    fn attempt(&self) -> u32 {
        self.0.attempt
    }

    #[getter]
    fn match_blocks(&self) -> u32 {
        self.0.match_blocks
    }

    #[getter]
    fn predicted_ttft_ns(&self) -> Option<Span> {
        self.0.predicted_ttft_ns
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Send the request to this peer now.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Forward(pub(super) effect::Forward);

#[pymethods]
impl Forward {
    #[getter]
    fn request_id(&self) -> u64 {
        self.0.request.0
    }

    #[getter]
    fn peer(&self) -> u32 {
        self.0.peer.0
    }

    #[getter]
    fn attempt(&self) -> u32 {
        self.0.attempt
    }

    #[getter]
    fn attempts_left(&self) -> u32 {
        self.0.attempts_left
    }

    #[getter]
    fn deadline_ns(&self) -> Instant {
        self.0.deadline_ns
    }

    #[getter]
    fn match_blocks(&self) -> u32 {
        self.0.match_blocks
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The request waits in the hold.
#[pyclass(frozen, module = "skylb._core")]
struct Hold(RequestId);

#[pymethods]
impl Hold {
    #[getter]
    fn request_id(&self) -> u64 {
        self.0.0
    }

    fn __repr__(&self) -> String {
        format!("Hold {{ request: {} }}", self.0.0)
    }
}

/// Answer the client.
#[pyclass(frozen, module = "skylb._core")]
struct Reject(effect::Reject);

#[pymethods]
impl Reject {
    #[getter]
    fn request_id(&self) -> u64 {
        self.0.request.0
    }

    #[getter]
    fn status(&self) -> u16 {
        self.0.status
    }

    #[getter]
    fn code(&self) -> &'static str {
        self.0.code
    }

    #[getter]
    fn message(&self) -> &str {
        &self.0.message
    }

    #[getter]
    fn retry_after_s(&self) -> Option<u32> {
        self.0.retry_after_s
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// The hold's deadline passed.
#[pyclass(frozen, module = "skylb._core")]
struct Expire(RequestId);

#[pymethods]
impl Expire {
    #[getter]
    fn request_id(&self) -> u64 {
        self.0.0
    }

    fn __repr__(&self) -> String {
        format!("Expire {{ request: {} }}", self.0.0)
    }
}

/// Give up the request's attempt.
#[pyclass(frozen, module = "skylb._core")]
struct Withdraw(RequestId);

#[pymethods]
impl Withdraw {
    #[getter]
    fn request_id(&self) -> u64 {
        self.0.0
    }

    fn __repr__(&self) -> String {
        format!("Withdraw {{ request: {} }}", self.0.0)
    }
}

/// Send the replica a probe now.
#[pyclass(frozen, module = "skylb._core")]
struct Probe(ReplicaId);

#[pymethods]
impl Probe {
    #[getter]
    fn replica(&self) -> u32 {
        self.0.0
    }

    fn __repr__(&self) -> String {
        format!("Probe {{ replica: {} }}", self.0.0)
    }
}

/// Send the peer a message now.
#[pyclass(frozen, module = "skylb._core")]
struct Tell(effect::Tell);

#[pymethods]
impl Tell {
    #[getter]
    fn peer(&self) -> u32 {
        self.0.peer.0
    }

    #[getter]
    fn kind(&self) -> usize {
        self.0.kind as usize
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.payload)
    }

    fn __repr__(&self) -> String {
        let (peer, kind) = (self.0.peer.0, self.0.kind);
        format!(
            "Tell {{ peer: {peer}, kind: {kind:?}, {} bytes }}",
            self.0.payload.len()
        )
    }
}

/// Mail waits for a worker.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Post(pub(super) u16);

#[pymethods]
impl Post {
    #[getter]
    fn worker(&self) -> u16 {
        self.0
    }

    fn __repr__(&self) -> String {
        format!("Post {{ worker: {} }}", self.0)
    }
}

/// A message of the code around the engine to a worker.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Note(pub(super) Py<PyBytes>);

#[pymethods]
impl Note {
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.0.bind(py).clone()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("Note {{ {} bytes }}", self.0.bind(py).as_bytes().len())
    }
}

/// One replica's figures for metrics and the live view.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct ReplicaGauges(pub(super) Gauges);

macro_rules! getters {
    ($($name:ident: $kind:ty,)*) => {
        #[pymethods]
        impl ReplicaGauges {
            #[getter]
            fn replica(&self) -> u32 {
                self.0.replica.0
            }

            #[getter]
            fn name(&self) -> &str {
                &self.0.name
            }

            $(#[getter]
            fn $name(&self) -> $kind {
                self.0.$name
            })*

            fn __repr__(&self) -> String {
                format!("{:?}", self.0)
            }
        }
    };
}

getters! {
    ready: bool,
    draining: bool,
    blind: bool,
    asleep: bool,
    health: &'static str,
    in_flight: u32,
    pending: u32,
    running: Option<u32>,
    waiting: Option<u32>,
    kv_used: Option<f64>,
    allowance: u32,
    tree_blocks: u32,
    pushed_total: u64,
    failed_total: u64,
    match_blocks_total: u64,
    prompt_blocks_total: u64,
    cached_tokens_total: u64,
    prompt_tokens_total: u64,
}

/// Turns a call's effects into Python's. The empty tuple is one object for the process, so a call
/// without effects allocates nothing.
pub(super) fn effects<'py>(
    py: Python<'py>,
    out: &mut Vec<Effect>,
    posts: impl IntoIterator<Item = Post>,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut posts = posts.into_iter().peekable();
    if out.is_empty() && posts.peek().is_none() {
        return Ok(PyTuple::empty(py));
    }
    let posts = posts.map(|post| Ok(Bound::new(py, post)?.into_any()));
    let effects = out.drain(..).map(|effect| effect_of(py, effect));
    let effects = effects.chain(posts).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, effects)
}

/// One effect as Python has it.
pub(super) fn effect_of(py: Python<'_>, effect: Effect) -> PyResult<Bound<'_, PyAny>> {
    Ok(match effect {
        Effect::Push(push) => Bound::new(py, Push(push))?.into_any(),
        Effect::Forward(forward) => Bound::new(py, Forward(forward))?.into_any(),
        Effect::Hold(request) => Bound::new(py, Hold(request))?.into_any(),
        Effect::Reject(reject) => Bound::new(py, Reject(reject))?.into_any(),
        Effect::Expire(request) => Bound::new(py, Expire(request))?.into_any(),
        Effect::Withdraw(request) => Bound::new(py, Withdraw(request))?.into_any(),
        Effect::Probe(replica) => Bound::new(py, Probe(replica))?.into_any(),
        Effect::Tell(tell) => Bound::new(py, Tell(tell))?.into_any(),
    })
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Push>()?;
    m.add_class::<Forward>()?;
    m.add_class::<Hold>()?;
    m.add_class::<Reject>()?;
    m.add_class::<Expire>()?;
    m.add_class::<Withdraw>()?;
    m.add_class::<Probe>()?;
    m.add_class::<Tell>()?;
    m.add_class::<Post>()?;
    m.add_class::<Note>()?;
    m.add_class::<ReplicaGauges>()
}
