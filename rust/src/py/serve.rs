//! Binding of `engine`: the calls of a process whose requests are at workers.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::effects::{Post, effects};
use super::engine::Engine;
use super::record::Recorder;
use crate::engine::effect::Outcome;
use crate::engine::policy::Policy;
use crate::engine::receipts::End;
use crate::engine::router::{Adopted, Report, Usage};
use crate::id::{ReplicaId, RequestId};
use crate::remote::down::Down;
use crate::remote::frame::{FrameError, read};
use crate::remote::mail::frames;
use crate::remote::submitted::Submit;
use crate::remote::up::{Told, Up};
use crate::remote::{id_of, worker_of};
use crate::time::{Instant, Span};

type Effects<'py> = PyResult<Bound<'py, PyTuple>>;

/// What a worker has said wrong.
struct Fault(String);

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        Self(error.to_string())
    }
}

#[pymethods]
impl Engine {
    #[pyo3(signature = (worker, /))]
    fn worker_joined(&mut self, worker: u16) -> PyResult<()> {
        if self.mail.join(worker) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "worker: expected 1 to 64, got {worker}"
        )))
    }

    #[pyo3(signature = (worker, now_ns, /))]
    fn worker_left<'py>(
        &mut self,
        py: Python<'py>,
        worker: u16,
        now_ns: Instant,
    ) -> PyResult<(usize, Bound<'py, PyTuple>)> {
        self.mail.leave(worker);
        let lost = self.router.requests_where(|id| worker_of(id) == worker);
        for id in &lost {
            let end = End {
                at_ns: now_ns,
                outcome: Outcome::GivenUp,
                status: 0,
                usage: Usage::default(),
            };
            self.router.note_end(*id, end);
            self.router.complete(
                *id,
                Outcome::GivenUp,
                Report::default(),
                now_ns,
                &mut self.out,
            );
        }
        Ok((lost.len(), self.effects(py, now_ns)?))
    }

    #[pyo3(signature = (worker, data, recorder, now_ns, /))]
    fn serve<'py>(
        &mut self,
        py: Python<'py>,
        worker: u16,
        data: &[u8],
        recorder: &mut Recorder,
        now_ns: Instant,
    ) -> PyResult<(Bound<'py, PyTuple>, Vec<Bound<'py, PyBytes>>)> {
        let mut begun = self.mail.begun(worker);
        let data = if begun.is_empty() {
            data
        } else {
            begun.extend_from_slice(data);
            &begun[..]
        };
        let mut local = Vec::new();
        let mut notes = Vec::new();
        let rest = frames(data, |frame| {
            match read(frame)? {
                Up::Note(note) => notes.push(PyBytes::new(py, note)),
                Up::Records(records) => recorder.0.add_records(records)?,
                up => self.report(worker, &up, now_ns).map_err(Fault)?,
            }
            self.router.note_effects(&self.out, now_ns);
            let Self {
                mail, out, router, ..
            } = &mut *self;
            mail.take_effects(out, |id| router.guessed(id));
            local.append(out);
            Ok::<(), Fault>(())
        });
        let rest = rest.map_err(|fault| PyValueError::new_err(fault.0))?;
        if !rest.is_empty() {
            self.mail.keep(worker, rest);
        }
        let effects = effects(py, &mut local, self.mail.untold().map(Post))?;
        Ok((effects, notes))
    }

    #[pyo3(signature = (worker, note, /))]
    fn tell_worker(&mut self, worker: u16, note: &[u8]) -> bool {
        self.mail.put(worker, &Down::Note(note))
    }

    fn posts<'py>(&mut self, py: Python<'py>) -> Effects<'py> {
        effects(py, &mut Vec::new(), self.mail.untold().map(Post))
    }

    #[pyo3(signature = (worker, /))]
    fn take_mail<'py>(&mut self, py: Python<'py>, worker: u16) -> Bound<'py, PyBytes> {
        self.mail.take(worker, |bytes| PyBytes::new(py, bytes))
    }

    #[getter]
    fn requests_len(&self) -> usize {
        self.router.requests_len()
    }
}

impl Engine {
    /// Carries out what a worker reports.
    fn report(&mut self, worker: u16, up: &Up<'_>, now_ns: Instant) -> Result<(), String> {
        match up {
            Up::Submit(submit) => self.submitted(id_of(worker, submit.number), worker, submit)?,
            Up::FirstByte {
                number,
                response_id,
                at_ns,
            } => {
                let (id, at_ns) = (id_of(worker, *number), Instant::from_ns(*at_ns));
                self.router.note_first_byte(id, at_ns);
                self.router
                    .first_byte(id, *response_id, at_ns, &mut self.out);
            }
            Up::Retry {
                number,
                failure,
                sent,
                at_ns,
            } => {
                let (id, at_ns) = (id_of(worker, *number), Instant::from_ns(*at_ns));
                self.router.note_failure(id, *failure, at_ns);
                self.router.retry(id, *failure, *sent, at_ns, &mut self.out);
            }
            Up::Complete {
                number,
                outcome,
                told,
                at_ns,
            } => {
                let (id, at_ns) = (id_of(worker, *number), Instant::from_ns(*at_ns));
                self.completed(id, *outcome, told.as_ref(), at_ns);
            }
            Up::Heard(replicas) => {
                let replicas: Vec<_> = replicas.iter().copied().map(ReplicaId).collect();
                self.router.heard(&replicas, now_ns, &mut self.out);
            }
            Up::Records(_) | Up::Note(_) => {}
        }
        Ok(())
    }

    fn submitted(&mut self, id: RequestId, worker: u16, submit: &Submit<'_>) -> Result<(), String> {
        let (ask, mut digest) = (submit.head.ask(), submit.body.digest());
        let now_ns = Instant::from_ns(submit.start_ns);
        if let Some(at) = &submit.at {
            let at = Adopted {
                replica: at.replica,
                attempt: at.attempt,
                started: at.started,
            };
            self.router.adopt(id, (&ask, &mut digest), at, now_ns);
            return Ok(()); // where its replica is gone it ends where it is, and no call knows it
        }
        let said = digest.class;
        self.router
            .begin_receipt(id, submit.request_id, &ask, &digest, now_ns);
        let waited = Span::from_ns(submit.waited_ns);
        self.router
            .place_again(id, (&ask, &mut digest), waited, now_ns, &mut self.out)
            .map_err(|known| known.to_string())?;
        let policy = self.router.receipt_policy();
        let policy = policy.and_then(|name| Policy::ALL.iter().position(|of| of.name() == name));
        let placed = Down::Placed {
            number: submit.number,
            class: self.router.class_of(&ask, said),
            highest: self.router.highest_class(ask.tenant),
            standing: self.router.standing(ask.tenant),
            policy: policy.and_then(|number| u8::try_from(number).ok()),
        };
        self.mail.put(worker, &placed);
        Ok(())
    }

    fn completed(
        &mut self,
        id: RequestId,
        outcome: Outcome,
        told: Option<&Told<'_>>,
        at_ns: Instant,
    ) {
        let answer = told.map_or_else(Vec::new, |told| told.answer.get());
        let report = told.map_or_else(Report::default, |told| told.report(&answer));
        let end = End {
            at_ns,
            outcome,
            status: told.map_or(0, |told| told.status),
            usage: report.usage,
        };
        self.router.note_end(id, end);
        self.router
            .complete(id, outcome, report, at_ns, &mut self.out);
    }
}
