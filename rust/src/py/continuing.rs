//! Binding of what lets a stream go on at another replica.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::engine::{Effects, Engine};
use super::http::Relay;
use super::report::given;
use super::request::Request;
use super::words::failure_of;
use crate::prompt::Digest;
use crate::prompt::class::Class;
use crate::prompt::continuing::{Continuing, Form, Reason, Scope};
use crate::record::life::reason_named;
use crate::relay::{Kept, Pool, Question};
use crate::time::Instant;

impl Request {
    /// Usage is taken out again: only SkyLB has asked for it.
    pub(super) fn drops_usage(&self) -> bool {
        let wanted = self.digest().is_some_and(|digest| digest.include_usage);
        let of_messages = self.digest().and_then(Digest::plan);
        let of_messages = of_messages.is_some_and(|plan| plan.form == Form::Messages);
        self.asks_usage || (self.continues && !wanted && !of_messages)
    }

    /// What a relay is to keep, so that its stream may go on elsewhere.
    pub(super) fn kept(&self) -> Option<Kept> {
        let (digest, pool) = (self.digest()?, self.pool.as_ref()?);
        let plan = digest.plan()?;
        let shows = (plan.shows_ids, digest.include_usage);
        Some(match plan.form {
            Form::Messages => Kept::by_text(self.question.as_ref()?, pool),
            Form::Chat | Form::Text => Kept::new(plan.form, shows, pool),
        })
    }

    /// The body was read: what lets its stream go on is kept in this pool. What stands for its prompt is charged
    /// there, or dropped.
    pub(super) fn keep_in(&mut self, pool: Option<&Arc<Pool>>) {
        self.pool = pool.map(Arc::clone);
        let Some(said) = &mut self.said else {
            return;
        };
        let question = match &mut said.digest.continuing {
            Continuing::Planned(plan) => plan.question.take(),
            _ => None,
        };
        if let (Some(question), Some(pool)) = (question, pool) {
            self.question = Question::new(question, pool);
            if self.question.is_none() {
                self.pool = None;
                said.digest.continuing = Continuing::Refused(Reason::BytesMax);
            }
        }
    }
}

#[pymethods]
impl Request {
    #[getter]
    fn refusal(&self) -> Option<&'static str> {
        match &self.digest()?.continuing {
            Continuing::Refused(reason) if self.forwarded.is_none() => Some(reason.word()),
            Continuing::Planned(plan) if plan.fills_context() && self.context_len.is_none() => {
                Some(Reason::Context.word())
            }
            _ => None,
        }
    }

    #[pyo3(signature = (relay, /))]
    fn continued<'py>(&mut self, py: Python<'py>, relay: &Relay) -> Option<Bound<'py, PyBytes>> {
        let said = self.said.as_ref()?;
        let (digest, kept) = (&said.digest, relay.inner.kept()?);
        let priority = said.believed && !Class::is_bound(said.highest);
        let plan = digest.plan()?;
        let body = plan.body(&digest.model, kept.ids(), priority, self.context_len);
        let (body, salt_edits) = body?;
        self.salt_edits = salt_edits;
        self.continues = true;
        Some(PyBytes::new(py, &body))
    }

    #[pyo3(signature = (reason, /))]
    fn not_continued(&mut self, reason: &str) -> PyResult<()> {
        let word = reason_named(reason);
        let word = word.ok_or_else(|| PyValueError::new_err("reason: there is no such one"))?;
        self.life.continued.refusal = Some(word);
        Ok(())
    }
}

#[pymethods]
impl Engine {
    #[pyo3(signature = (bytes_max, tokens_max, models, by_text, /))]
    fn keep_ids(
        &mut self,
        bytes_max: usize,
        tokens_max: usize,
        models: Vec<String>,
        by_text: bool,
    ) {
        let scope = Scope { models, by_text };
        self.kept = Some((Arc::new(Pool::new(bytes_max, tokens_max)), Arc::new(scope)));
    }

    #[getter]
    fn continuing(&self) -> bool {
        self.continuing
    }

    #[pyo3(signature = (on, /))]
    fn set_continuing(&mut self, on: bool) {
        let scope = self.kept.as_ref().filter(|_| on);
        let scope = scope.map(|(_, scope)| Arc::clone(scope));
        self.continuing = scope.is_some();
        self.router.digest_config_mut().continue_streams(scope);
    }

    #[getter]
    fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |(pool, _)| pool.bytes())
    }

    #[pyo3(signature = (request, relay, failure, now_ns, status=0, /))]
    fn resume<'py>(
        &mut self,
        py: Python<'py>,
        request: &mut Request,
        relay: &Relay,
        failure: usize,
        now_ns: Instant,
        status: u16,
    ) -> Effects<'py> {
        let failure = failure_of(failure, status)?;
        request.life.cut(failure.word(), status, now_ns.ns());
        self.router.note_failure(request.id, failure, now_ns);
        let given = given(relay);
        self.router
            .resume(request.id, failure, &given, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }
}
