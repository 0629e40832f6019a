//! Binding of `remote`: what lets a worker's streams go on at another replica. The worker keeps their ids.

use std::sync::Arc;

use pyo3::prelude::*;

use super::RemoteEngine;
use crate::prompt::continuing::Scope;
use crate::py::http::Relay;
use crate::py::report::given;
use crate::py::request::Request;
use crate::py::words::failure_of;
use crate::relay::Pool;
use crate::remote::up::{Told, Up};

#[pymethods]
impl RemoteEngine {
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
        let models = self.kept.as_ref().filter(|_| on);
        let models = models.map(|(_, scope)| Arc::clone(scope));
        self.continuing = models.is_some();
        self.config.continue_streams(models);
    }

    #[pyo3(signature = (tenants, /))]
    fn exclude(&mut self, tenants: Vec<String>) {
        self.excluded = tenants.into_iter().collect();
    }

    #[getter]
    fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |(pool, _)| pool.bytes())
    }

    #[pyo3(signature = (request, relay, failure, now_ns, status=0, /))]
    fn resume(
        &mut self,
        request: &mut Request,
        relay: &Relay,
        failure: usize,
        now_ns: u64,
        status: u16,
    ) -> PyResult<()> {
        let failure = failure_of(failure, status)?;
        request.life.cut(failure.word(), status, now_ns);
        let number = request.id.0;
        let given = given(relay);
        if let Some(live) = self.live.get_mut(&number) {
            (live.journey).cut(failure, &given, request.life.held_ns, now_ns);
        }
        let report = Up::Resume {
            number,
            failure,
            given: Told::of(&given, &[], 0),
            at_ns: now_ns,
        };
        self.ask(&request.life, &report, number);
        Ok(())
    }
}
