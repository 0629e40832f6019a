//! Binding of `engine`: the router's state machine.

use std::sync::Arc;

use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::effects::{Post, ReplicaGauges, effects};
use super::http::{Relay, refused};
use super::report::{end_of, report};
use super::request::{Request, Said, ask_of};
use super::scan::{Body, Scanner};
use super::snapshot::Snapshot;
use super::tenant::Tenant;
use super::text::constant;
use super::words::{OUTCOMES, PROBES, failure_of};
use crate::engine::config::Config;
use crate::engine::effect::Effect;
use crate::engine::router::{ModelList, Router, SECRET_BYTES_MIN};
use crate::id::{ReplicaId, RequestId};
use crate::prompt::blocks::Tail;
use crate::prompt::continuing::{Continuing, Scope};
use crate::prompt::isolation::ISOLATION_KEY_BYTES;
use crate::record::prompt::Prompt;
use crate::relay::Pool;
use crate::remote::mail::Mail;
use crate::time::Instant;

pub(super) type Effects<'py> = PyResult<Bound<'py, PyTuple>>;

impl Engine {
    /// The effects of the call that ends; receipts note them.
    pub(super) fn effects<'py>(&mut self, py: Python<'py>, now_ns: Instant) -> Effects<'py> {
        self.router.note_effects(&self.out, now_ns);
        if self.mail.is_idle() {
            return effects(py, &mut self.out, []);
        }
        self.mail
            .take_effects(&mut self.out, |id| self.router.guessed(id));
        effects(py, &mut self.out, self.mail.untold().map(Post))
    }
}

/// The router's state machine.
#[pyclass(module = "skylb._core")]
pub(super) struct Engine {
    pub(super) router: Router,
    /// Effects of the call under way; empty between calls.
    pub(super) out: Vec<Effect>,
    /// Requests keep what a recording needs of their prompts.
    records: bool,
    /// Where ids are kept if streams go on elsewhere, and of which requests they may.
    pub(super) kept: Option<(Arc<Pool>, Arc<Scope>)>,
    pub(super) continuing: bool,
    /// Of workers, where there are any.
    pub(super) mail: Mail,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(config_json: &[u8], secret: &[u8], seed: u64) -> PyResult<Self> {
        let config = Config::from_json(config_json)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        if secret.len() < SECRET_BYTES_MIN {
            let text = format!(
                "secret: {} bytes, expected {SECRET_BYTES_MIN} or more",
                secret.len()
            );
            return Err(PyValueError::new_err(text));
        }
        Ok(Self {
            router: Router::new(config, secret, seed),
            out: Vec::new(),
            records: false,
            kept: None,
            continuing: false,
            mail: Mail::default(),
        })
    }

    #[pyo3(signature = (key, /))]
    fn isolate(&mut self, key: [u8; ISOLATION_KEY_BYTES]) {
        self.router.digest_config_mut().isolate(&key);
    }

    #[pyo3(signature = (on, /))]
    fn record_prompts(&mut self, on: bool) {
        self.records = on;
    }

    #[pyo3(signature = (request_id, request, body, /))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "pyo3 hands over what it converted"
    )]
    fn submit<'py>(
        &mut self,
        py: Python<'py>,
        request_id: u64,
        request: &mut Request,
        body: Body<'py>,
    ) -> Effects<'py> {
        let head = &request.head.get().inner;
        let from = (request.forwarded, request.front());
        let ask = ask_of(head, &request.life, from, body.len())?;
        let mut digest = match &body {
            Body::Scanned(scanned) => scanned.get().take()?,
            Body::Bytes(bytes) => {
                let digest = self.router.digest(&ask, bytes.as_bytes());
                digest.map_err(|error| refused(py, &error, None))?
            }
        };
        if !self.router.continues(ask.tenant) {
            digest.continuing = Continuing::Off;
        }
        let id = RequestId(request_id);
        let now_ns = Instant::from_ns(request.life.start_ns);
        let prompt_blocks = digest.blocks.len();
        if self.records {
            request.prompt = Some(Arc::new(Prompt {
                blocks: digest.blocks.clone(),
                answer: Vec::new(),
                key: ask.session_key(self.router.digest_config()).or(digest.key),
            }));
        }
        let name = &request.life.request_id;
        self.router.begin_receipt(id, name, &ask, &digest, now_ns);
        self.router
            .place(id, &ask, &mut digest, now_ns, &mut self.out)
            .map_err(|known| PyValueError::new_err(known.to_string()))?;
        let policy = self.router.receipt_policy();
        request.receipt = policy.filter(|_| request.trusted());
        request.standing = match ask.forwarded {
            Some(_) => None,
            None => self.router.standing(ask.tenant),
        };
        let answer = self.router.answer_start(&digest);
        let believed = self.router.believes(&ask);
        let highest = self.router.highest_class(ask.tenant);
        let class = self.router.class_of(&ask, digest.class);
        digest.tail = Tail::default();
        request.life.class = class;
        let continues = request.forwarded.is_none() && digest.plan().is_some();
        request.id = id;
        request.placed(
            Said {
                digest,
                prompt_blocks,
                answer,
                believed,
                highest,
            },
            body.asks_usage(),
        );
        let kept = self.kept.as_ref().filter(|_| continues);
        request.keep_in(kept.map(|(pool, _)| pool));
        self.effects(py, now_ns)
    }

    fn only_model(&self) -> Option<&str> {
        self.router.only_model()
    }

    fn scanner(&self) -> Scanner {
        Scanner {
            config: self.router.digest_config().clone(),
            believes_all: self.router.believes_all(),
            scope: self.kept.as_ref().map(|(_, scope)| Arc::clone(scope)),
        }
    }

    #[pyo3(signature = (request, relay, now_ns, /))]
    fn first_byte<'py>(
        &mut self,
        py: Python<'py>,
        request: &mut Request,
        relay: &Relay,
        now_ns: Instant,
    ) -> Effects<'py> {
        request.life.first_byte(now_ns.ns());
        request.question = None;
        let response_id = relay.inner.response_id();
        self.router.note_first_byte(request.id, now_ns);
        self.router
            .first_byte(request.id, response_id, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (request, failure, sent, now_ns, status=0, /))]
    fn retry<'py>(
        &mut self,
        py: Python<'py>,
        request: &mut Request,
        failure: usize,
        sent: bool,
        now_ns: Instant,
        status: u16,
    ) -> Effects<'py> {
        let failure = failure_of(failure, status)?;
        (request.life).attempt_failed(failure.word(), status, now_ns.ns());
        self.router.note_failure(request.id, failure, now_ns);
        self.router
            .retry(request.id, failure, sent, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (request, outcome, relay, now_ns, /))]
    fn complete<'py>(
        &mut self,
        py: Python<'py>,
        request: &mut Request,
        outcome: usize,
        mut relay: Option<PyRefMut<'py, Relay>>,
        now_ns: Instant,
    ) -> Effects<'py> {
        let outcome = constant(&OUTCOMES, "outcome", outcome)?;
        let answer = relay
            .as_mut()
            .map_or_else(Vec::new, |relay| relay.inner.take_answer());
        let report = report(relay.as_deref(), &answer);
        let end = end_of(relay.as_deref(), outcome, report.usage, now_ns);
        self.router.note_end(request.id, end);
        self.router
            .complete(request.id, outcome, report, now_ns, &mut self.out);
        request.answered(answer);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (replicas, now_ns, /))]
    fn set_replicas<'py>(
        &mut self,
        py: Python<'py>,
        replicas: Vec<(u32, String)>,
        now_ns: Instant,
    ) -> Effects<'py> {
        let replicas: Vec<_> = replicas
            .into_iter()
            .map(|(id, name)| (ReplicaId(id), name))
            .collect();
        self.router.set_replicas(&replicas, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (replica, models, cut, now_ns, /))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "pyo3 hands over what it converted"
    )]
    fn set_models<'py>(
        &mut self,
        py: Python<'py>,
        replica: u32,
        models: Vec<(String, Option<u32>)>,
        cut: bool,
        now_ns: Instant,
    ) -> PyResult<(bool, Bound<'py, PyTuple>)> {
        let listing = if cut {
            ModelList::Cut(&models)
        } else {
            ModelList::Whole(&models)
        };
        let changed = self
            .router
            .set_listing(ReplicaId(replica), listing, now_ns, &mut self.out);
        Ok((changed, self.effects(py, now_ns)?))
    }

    #[pyo3(signature = (replica, now_ns, /))]
    fn hide_models<'py>(&mut self, py: Python<'py>, replica: u32, now_ns: Instant) -> Effects<'py> {
        self.router
            .set_listing(ReplicaId(replica), ModelList::Hidden, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (looks, /))]
    fn set_looks(&mut self, looks: bool) {
        self.router.set_looks(looks);
    }

    #[pyo3(signature = (now_ns, /))]
    fn look_due(&mut self, now_ns: Instant) -> bool {
        self.router.look_due(now_ns)
    }

    #[pyo3(signature = (now_ns, /))]
    fn looked<'py>(&mut self, py: Python<'py>, now_ns: Instant) -> Effects<'py> {
        self.router.looked(now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (request, /))]
    fn guessed(&self, request: &Request) -> bool {
        self.router.guessed(request.id)
    }

    #[pyo3(signature = (replica, draining, now_ns, /))]
    fn set_draining<'py>(
        &mut self,
        py: Python<'py>,
        replica: u32,
        draining: bool,
        now_ns: Instant,
    ) -> Effects<'py> {
        self.router
            .set_draining(ReplicaId(replica), draining, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (replica, snapshot, sent_ns, now_ns, /))]
    fn observe<'py>(
        &mut self,
        py: Python<'py>,
        replica: u32,
        snapshot: &Snapshot,
        sent_ns: Instant,
        now_ns: Instant,
    ) -> Effects<'py> {
        let snapshot = snapshot.0.clone();
        self.router
            .observe(ReplicaId(replica), snapshot, sent_ns, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (replica, unread, now_ns, /))]
    fn observe_failed<'py>(
        &mut self,
        py: Python<'py>,
        replica: u32,
        unread: usize,
        now_ns: Instant,
    ) -> Effects<'py> {
        let unread = constant(&PROBES, "unread", unread)?;
        self.router
            .observe_failed(ReplicaId(replica), unread, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (replica, now_ns, /))]
    fn answered<'py>(&mut self, py: Python<'py>, replica: u32, now_ns: Instant) -> Effects<'py> {
        self.router
            .answered(ReplicaId(replica), now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (replica, /))]
    fn probed_state(&self, replica: u32) -> usize {
        self.router.probed_state(ReplicaId(replica)) as usize
    }

    #[pyo3(signature = (replicas, now_ns, /))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "pyo3 hands over what it converted"
    )]
    fn heard<'py>(&mut self, py: Python<'py>, replicas: Vec<u32>, now_ns: Instant) -> Effects<'py> {
        let replicas: Vec<_> = replicas.iter().copied().map(ReplicaId).collect();
        self.router.heard(&replicas, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (now_ns, /))]
    fn tick<'py>(&mut self, py: Python<'py>, now_ns: Instant) -> Effects<'py> {
        self.router.tick(now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    fn next_deadline_ns(&mut self) -> Option<Instant> {
        self.router.next_deadline_ns()
    }

    #[pyo3(signature = (tenant, /))]
    fn models(&self, tenant: &Tenant) -> Vec<(&str, Option<u32>)> {
        self.router.models(tenant.0.borrowed())
    }

    fn ready(&self) -> bool {
        self.router.ready()
    }

    fn ready_here(&self) -> bool {
        self.router.ready_here()
    }

    fn gauges(&self) -> Vec<ReplicaGauges> {
        self.router
            .gauges()
            .into_iter()
            .map(ReplicaGauges)
            .collect()
    }

    fn wanted(&self) -> Vec<(&str, f64, usize)> {
        self.router.wanted().into_iter().map(Into::into).collect()
    }

    #[getter]
    fn hold_requests(&self) -> usize {
        self.router.hold_requests()
    }

    #[getter]
    fn hold_bytes(&self) -> u64 {
        self.router.hold_bytes()
    }

    #[getter]
    fn in_flight(&self) -> usize {
        self.router.in_flight()
    }

    #[getter]
    fn tree_bytes(&self) -> usize {
        self.router.tree_bytes()
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "token counts are far below 2^52"
    )]
    fn prefix_errors(&self) -> (Vec<(f64, u64)>, f64) {
        let (buckets, sum) = self.router.prefix_errors();
        (buckets, sum as f64)
    }

    fn ttft_errors(&self) -> (Vec<(f64, u64)>, f64) {
        self.router.ttft_errors()
    }

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = PyDict::new(py);
        for (name, value) in self.router.counters() {
            counters.set_item(name, value)?;
        }
        Ok(counters)
    }

    fn state<'py>(&self, py: Python<'py>, now_ns: Instant) -> PyResult<Bound<'py, PyBytes>> {
        let json = self.router.state(now_ns);
        let json = json.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &json))
    }

    fn check_invariants(&self) -> PyResult<()> {
        self.router
            .check_invariants()
            .map_err(PyAssertionError::new_err)
    }
}

/// Adds this part's classes and constants to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Engine>()
}
