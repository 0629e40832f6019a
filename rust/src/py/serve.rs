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
use crate::remote::frame::{Bytes, FrameError, read};
use crate::remote::submitted::{Course, Submit};
use crate::remote::up::{Told, Up};
use crate::remote::{id_of, number_of, worker_of};
use crate::time::{Instant, Span};

type Effects<'py> = PyResult<Bound<'py, PyTuple>>;

/// The effects of what was read, the notes among it, and why what follows cannot be read.
type Served<'py> = (
    Bound<'py, PyTuple>,
    Vec<Bound<'py, PyBytes>>,
    Option<String>,
);

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
    ) -> PyResult<Served<'py>> {
        let mut inbox = self.mail.take_inbox(worker);
        let mut local = Vec::new();
        let mut notes = Vec::new();
        let read_all = inbox.feed(data, |frame| {
            match read(frame)? {
                Up::Note(note) => notes.push(PyBytes::new(py, note.0)),
                Up::Records(records) => recorder.0.add_records(records.0)?,
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
        self.mail.put_inbox(worker, inbox);
        let effects = effects(py, &mut local, self.mail.untold().map(Post))?;
        Ok((effects, notes, read_all.err().map(|fault| fault.0)))
    }

    #[pyo3(signature = (worker, note, /))]
    fn tell_worker(&mut self, worker: u16, note: &[u8]) -> bool {
        self.mail.put(worker, &Down::Note(Bytes(note)))
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
                let known = self.router.is_under_way(id);
                self.router.note_failure(id, *failure, at_ns);
                self.router.retry(id, *failure, *sent, at_ns, &mut self.out);
                if !known {
                    self.unexpected(id, at_ns);
                }
            }
            Up::Resume {
                number,
                failure,
                given,
                at_ns,
            } => {
                let (id, at_ns) = (id_of(worker, *number), Instant::from_ns(*at_ns));
                let known = self.router.may_resume(id);
                self.router.note_failure(id, *failure, at_ns);
                let given = given.report(&[]);
                self.router
                    .resume(id, *failure, &given, at_ns, &mut self.out);
                if !known {
                    self.unexpected(id, at_ns);
                }
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
        let said = digest.class;
        self.router
            .begin_receipt(id, submit.request_id, &ask, &digest, now_ns);
        let waited = Span::from_ns(submit.waited_ns);
        if let Some(course) = &submit.course {
            let now_ns = Instant::from_ns(course.failed.map_or(submit.start_ns, |of| of.at_ns));
            let at = adopted(course, waited);
            let adopted = self
                .router
                .adopt(id, (&ask, &mut digest), at, now_ns, &mut self.out);
            if !adopted.map_err(|known| known.to_string())? {
                // Its replica is gone. It ends where it is, or is submitted again.
                self.mail.put(worker, &Down::Unknown(submit.number));
            }
            return Ok(());
        }
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

    /// A worker awaits a decision about a request that is not known, or not at a replica. It is to be submitted again,
    /// or it ends.
    fn unexpected(&mut self, id: RequestId, at_ns: Instant) {
        let (worker, number) = (worker_of(id), number_of(id));
        if !self.router.knows(id) {
            self.mail.put(worker, &Down::Unknown(number));
            return;
        }
        self.completed(id, Outcome::GivenUp, None, at_ns);
        let reject = Down::Reject {
            number,
            code: "engine_away",
            message: "this balancer is recovering from a failure",
            retry_after_s: None,
        };
        self.mail.put(worker, &reject);
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

fn adopted<'a>(course: &Course<'a>, waited: Span) -> Adopted<'a> {
    Adopted {
        replica: course.replica,
        attempts: course.attempts,
        started: course.started,
        waited,
        failed: course.failed.map(|failed| (failed.failure, failed.sent)),
        given: course.given,
    }
}
