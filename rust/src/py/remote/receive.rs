//! Binding of `remote`: what the engine process has decided about a worker's requests.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::{Live, RemoteEngine, Stand};
use crate::engine::effect::{Effect, Forward, Push, Reject};
use crate::engine::policy::Policy;
use crate::http::errors;
use crate::id::{PeerId, ReplicaId, RequestId};
use crate::py::effects::{Note, effect_of};
use crate::remote::down::Down;
use crate::remote::frame::{self, FrameError};
use crate::time::{Instant, Span};

#[pymethods]
impl RemoteEngine {
    #[pyo3(signature = (data, /))]
    fn receive<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Received<'py>> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let effects = PyList::empty(py);
        let read_all = inbox.feed(data, |bytes| {
            if let Some(effect) = self.receive_one(py, frame::read(bytes)?)? {
                effects.append(effect)?;
            }
            Ok::<(), Fault>(())
        });
        self.inbox = inbox;
        match read_all {
            Ok(()) => Ok((effects, None)),
            Err(Fault::Frame(fault)) => Ok((effects, Some(fault))),
            Err(Fault::Python(error)) => Err(error),
        }
    }
}

/// The decisions that were read, and why what follows cannot be.
type Received<'py> = (Bound<'py, PyList>, Option<String>);

/// Why a decision is not taken.
enum Fault {
    /// The engine process has said what cannot be read.
    Frame(String),
    /// Python failed.
    Python(PyErr),
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        Self::Frame(error.to_string())
    }
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl RemoteEngine {
    /// One decision as Python has it; `None`: its request has ended meanwhile.
    fn receive_one<'py>(
        &mut self,
        py: Python<'py>,
        down: Down<'_>,
    ) -> Result<Option<Bound<'py, PyAny>>, Fault> {
        let number = match down {
            Down::Note(bytes) => {
                let note = Note(PyBytes::new(py, bytes.0).unbind());
                return Ok(Some(Bound::new(py, note)?.into_any()));
            }
            Down::Placed { number, .. }
            | Down::Push { number, .. }
            | Down::Forward { number, .. }
            | Down::Reject { number, .. }
            | Down::Hold(number)
            | Down::Expire(number)
            | Down::Unknown(number)
            | Down::Withdraw(number) => number,
        };
        let Some(live) = self.live.get_mut(&number) else {
            return Ok(None);
        };
        if let Down::Placed {
            class,
            highest,
            standing,
            policy,
            ..
        } = down
        {
            let mut request = live.request.borrow_mut(py);
            request.life.class = class;
            request.standing = standing;
            let policy = policy.and_then(Policy::by_number).map(Policy::name);
            request.receipt = policy.filter(|_| request.trusted());
            request.bounded(highest);
            return Ok(Some(Bound::new(py, Placed(number))?.into_any()));
        }
        if matches!(down, Down::Unknown(_)) {
            self.unknown(py, number);
            return Ok(None);
        }
        let effect = live.decided(py, RequestId(number), down)?;
        if matches!(effect, Some(Effect::Reject(_) | Effect::Expire(_))) {
            self.live.remove(&number);
        }
        let effect = effect.map(|effect| effect_of(py, effect)).transpose()?;
        Ok(effect)
    }

    /// The engine process does not know this request. If it is to decide about it, it gets it again.
    fn unknown(&mut self, py: Python<'_>, number: u64) {
        let Some(live) = self.live.get_mut(&number) else {
            return;
        };
        if live.journey.asks_again() {
            let request = live.request.borrow(py);
            live.put_again(&mut self.outbox, &request.life, 0);
        } else if !live.journey.is_undecided() {
            live.stand = Stand::Unknown;
        }
    }
}

impl Live {
    /// What is decided about this request.
    fn decided(
        &mut self,
        py: Python<'_>,
        request: RequestId,
        down: Down<'_>,
    ) -> Result<Option<Effect>, Fault> {
        Ok(Some(match down {
            Down::Push {
                replica,
                attempt,
                match_blocks,
                predicted_ttft_ns,
                context_len,
                guessed,
                ..
            } => {
                self.stand = Stand::AtReplica;
                self.journey.sent(attempt);
                self.request.borrow_mut(py).guessed = guessed;
                Effect::Push(Push {
                    request,
                    replica: ReplicaId(replica),
                    attempt,
                    match_blocks,
                    predicted_ttft_ns: predicted_ttft_ns.map(Span::from_ns),
                    context_len,
                    shadow: None,
                })
            }
            Down::Forward {
                peer,
                attempt,
                attempts_left,
                match_blocks,
                deadline_ns,
                context_len,
                ..
            } => {
                self.stand = Stand::AtPeer;
                self.journey.sent(attempt);
                Effect::Forward(Forward {
                    request,
                    peer: PeerId(peer),
                    attempt,
                    attempts_left,
                    match_blocks,
                    deadline_ns: Instant::from_ns(deadline_ns),
                    context_len,
                })
            }
            Down::Hold(_) => {
                self.stand = Stand::Waits;
                self.journey.held();
                Effect::Hold(request)
            }
            Down::Withdraw(_) => Effect::Withdraw(request),
            Down::Expire(_) => Effect::Expire(request),
            Down::Reject {
                code,
                message,
                retry_after_s,
                ..
            } => {
                let code = errors::known(code);
                let code = code.ok_or_else(|| Fault::Frame("reject: an unknown code".into()))?;
                rejected(request, code, (message, retry_after_s))
            }
            Down::Placed { .. } | Down::Unknown(_) | Down::Note(_) => return Ok(None),
        }))
    }
}

fn rejected(
    request: RequestId,
    code: &'static str,
    (message, retry_after_s): (&str, Option<u32>),
) -> Effect {
    Effect::Reject(Reject {
        request,
        status: errors::status_of(code),
        code,
        message: message.into(),
        retry_after_s,
    })
}

/// The engine process has placed the request; what becomes of it follows.
#[pyclass(frozen, module = "skylb._core")]
pub(in crate::py) struct Placed(u64);

#[pymethods]
impl Placed {
    #[getter]
    fn request_id(&self) -> u64 {
        self.0
    }

    fn __repr__(&self) -> String {
        format!("Placed {{ request: {} }}", self.0)
    }
}
