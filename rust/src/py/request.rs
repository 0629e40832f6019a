//! One request as Python holds it: its head, what its body says, and the times of its phases.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::effects::{Forward, Push};
use super::http::{Head, Relay};
use super::scan::{EditFields, fields};
use super::sender::{RequestIds, Sender};
use super::tenant::Tenant;
use crate::engine::router::{Ask, Forwarded};
use crate::engine::tenants::standing::Standing;
use crate::http::request::{Credentials, Head as EngineHead, Upstream};
use crate::http::route::Route;
use crate::id::{PeerId, RequestId};
use crate::prompt::class::Class;
use crate::prompt::{AnswerStart, Digest, Edit, Edits, edited, moved};
use crate::record::prompt::Prompt;
use crate::record::{Ended, Life, Target};
use crate::relay::{Options, Pool, Question, Relay as EngineRelay};
use crate::time::{Instant, Span};

/// What a body said, once its request is placed.
pub(super) struct Said {
    /// Without its blocks and the text behind them.
    pub(super) digest: Digest,
    pub(super) prompt_blocks: usize,
    /// Where the answer's blocks start.
    pub(super) answer: Option<AnswerStart>,
    /// The engine is sent the body's priority,
    pub(super) believed: bool,
    /// if it is not more urgent than this.
    pub(super) highest: Option<Class>,
}

/// One request, from its head to its end.
#[pyclass(module = "skylb._core")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one request"
)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) head: Py<Head>,
    pub(super) sender: Py<Sender>,
    pub(super) said: Option<Said>,
    pub(super) life: Life,
    /// What a recording needs of its prompt, while there is one.
    pub(super) prompt: Option<Arc<Prompt>>,
    pub(super) forwarded: Option<Forwarded>,
    /// How its tenant stands with its limits per minute, if it has any, as of its placing.
    pub(super) standing: Option<Standing>,
    /// The policy, where the client is told why its request went where it went.
    pub(super) receipt: Option<&'static str>,
    /// At a replica that may lack its model, while another could be tried: as of its push, in a worker.
    #[pyo3(get)]
    pub(super) guessed: bool,
    /// The body as it is sent asks for usage, and the client has not.
    pub(super) asks_usage: bool,
    /// The body has its changes.
    edited: bool,
    /// Where ids are kept, if its stream may go on elsewhere: the engine is asked for them.
    pub(super) pool: Option<Arc<Pool>>,
    /// What stands for its prompt until the answer begins, where ids have to be asked for.
    pub(super) question: Option<Arc<Question>>,
    /// A replica is asked to go on with its stream.
    pub(super) continues: bool,
    /// Tokens of its model's context, as of its last placing.
    pub(super) context_len: Option<u32>,
    /// What a replica is to get besides, as places in the body as it is sent.
    pub(super) salt_edits: Edits,
}

/// What the engine is asked for one request.
pub(super) fn ask_of<'a>(
    head: &'a EngineHead,
    life: &'a Life,
    (forwarded, front): (Option<Forwarded>, bool),
    body_bytes: usize,
) -> PyResult<Ask<'a>> {
    let route = head.route();
    let route = route.ok_or_else(|| PyValueError::new_err("head: it has no route"))?;
    Ok(Ask {
        route,
        path: head.path(),
        content_type: head.header(b"content-type"),
        key: head.key(),
        class: head.class().filter(|_| front),
        trusted: front,
        credential: head.credential(),
        body_bytes,
        tenant: life.tenant.borrowed(),
        forwarded,
    })
}

impl Request {
    /// It came from a front whose word counts.
    pub(super) fn front(&self) -> bool {
        self.sender.get().front
    }

    /// It came from a trusted proxy, and from no peer.
    pub(super) fn trusted(&self) -> bool {
        self.sender.get().trusted && self.forwarded.is_none()
    }

    /// The body was read and placed; `asks_usage`: it was edited before, to ask for usage.
    pub(super) fn placed(&mut self, said: Said, asks_usage: bool) {
        self.asks_usage = asks_usage;
        self.salt_edits.clone_from(&said.digest.salt_edits);
        self.said = Some(said);
    }

    /// The class of its sender has this bound.
    pub(super) fn bounded(&mut self, highest: Option<Class>) {
        if let Some(said) = &mut self.said {
            said.highest = highest;
        }
    }

    /// The record at its end.
    pub(super) fn ended<'a>(
        &'a self,
        relay: Option<&'a Relay>,
        status: u16,
        error_code: Option<&'a str>,
        end_ns: u64,
    ) -> Ended<'a> {
        let sender = self.sender.get();
        Ended {
            head: Some((&self.head.get().inner).into()),
            refused: false,
            digest: self.said.as_ref().map(|said| (&said.digest).into()),
            prompt_blocks: self
                .said
                .as_ref()
                .map_or(0, |said| said.prompt_blocks as u64),
            prompt: self.prompt.as_ref(),
            relay: relay.map(|relay| (&relay.inner).into()),
            life: &self.life,
            client: sender.address.as_deref(),
            origin: sender.origin.as_deref(),
            status,
            error_code,
            end_ns,
        }
    }

    /// The blocks of its answer, for the recording.
    pub(super) fn answered(&mut self, answer: Vec<u64>) {
        if let Some(prompt) = self.prompt.as_mut().and_then(Arc::get_mut) {
            prompt.answer = answer;
        }
    }

    pub(super) fn digest(&self) -> Option<&Digest> {
        self.said.as_ref().map(|said| &said.digest)
    }
}

#[pymethods]
impl Request {
    #[new]
    #[pyo3(signature = (head, sender, ids, start_ns, bytes_in, /))]
    fn new(
        head: Py<Head>,
        sender: Py<Sender>,
        ids: &RequestIds,
        start_ns: u64,
        bytes_in: u64,
    ) -> Self {
        let trace = ids.trace(&head.get().inner);
        let brought = head.get().inner.request_id();
        let brought = brought.and_then(|id| std::str::from_utf8(id).ok());
        let request_id = brought.map_or_else(|| ids.make(), Into::into);
        Self {
            id: RequestId(0),
            head,
            sender,
            said: None,
            life: Life {
                request_id: request_id.into_boxed_str(),
                start_ns,
                bytes_in,
                trace,
                ..Life::default()
            },
            prompt: None,
            forwarded: None,
            standing: None,
            receipt: None,
            guessed: false,
            asks_usage: false,
            edited: false,
            pool: None,
            question: None,
            continues: false,
            context_len: None,
            salt_edits: Edits::new(),
        }
    }

    #[getter]
    fn tenant(&self) -> Tenant {
        Tenant(self.life.tenant.clone())
    }

    #[setter]
    fn set_tenant(&mut self, tenant: &Tenant) {
        self.life.tenant.clone_from(&tenant.0);
    }

    #[pyo3(signature = (hop, attempts_left, deadline_ns, origin, /))]
    fn set_forwarded(
        &mut self,
        hop: u8,
        attempts_left: u32,
        deadline_ns: u64,
        origin: Option<u32>,
    ) {
        self.forwarded = Some(Forwarded {
            hop,
            attempts_left,
            deadline_ns: Some(Instant::from_ns(deadline_ns)),
            origin: origin.map(PeerId),
        });
    }

    #[pyo3(signature = (bytes_in, /))]
    fn set_bytes_in(&mut self, bytes_in: u64) {
        self.life.bytes_in = bytes_in;
    }

    // ------------------------------------------------------------------ what it asks for

    #[getter]
    fn id(&self) -> u64 {
        self.id.0
    }

    #[getter]
    fn start_ns(&self) -> u64 {
        self.life.start_ns
    }

    #[getter]
    fn request_id(&self) -> &str {
        &self.life.request_id
    }

    #[getter]
    fn attempts(&self) -> u32 {
        self.life.attempts
    }

    #[getter]
    fn model(&self) -> Option<&str> {
        self.digest().map(|digest| &*digest.model)
    }

    #[getter]
    fn rate_limit<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let standing = self.standing.as_ref()?;
        Some(PyBytes::new(py, &standing.lines()))
    }

    #[getter]
    fn stream(&self) -> bool {
        self.digest().is_some_and(|digest| digest.stream)
    }

    #[getter]
    fn retry_safe(&self) -> bool {
        self.digest().is_some_and(|digest| digest.retry_safe)
    }

    #[getter]
    fn prompt_blocks(&self) -> usize {
        self.said.as_ref().map_or(0, |said| said.prompt_blocks)
    }

    #[getter]
    fn prompt_bytes(&self) -> usize {
        self.digest().map_or(0, |digest| digest.prompt_bytes)
    }

    #[pyo3(signature = (body, ask_usage, /))]
    fn edited<'py>(&mut self, body: Bound<'py, PyBytes>, ask_usage: bool) -> Bound<'py, PyBytes> {
        let Some(said) = self.said.as_ref().filter(|_| !self.edited) else {
            return body; // it is submitted again to another engine process
        };
        self.edited = true;
        // What counts tokens needs to know them.
        let counts = self.standing.is_some_and(|standing| standing.has_tokens());
        let digest = &said.digest;
        let usage = digest.usage_changes(ask_usage, counts);
        let priority = digest.priority_changes(said.believed, said.highest);
        self.asks_usage |= !usage.is_empty();
        let plan = digest.plan().filter(|_| self.pool.is_some());
        let edits: Vec<&Edit> = priority
            .iter()
            .chain(&digest.model_edits)
            .chain(usage)
            .chain(plan.into_iter().flat_map(|plan| &plan.ids_edits))
            .collect();
        if edits.is_empty() {
            return body;
        }
        self.salt_edits = moved(&digest.salt_edits, &edits);
        PyBytes::new(body.py(), &edited(body.as_bytes(), edits))
    }

    fn salt_edits<'py>(&self, py: Python<'py>) -> Vec<EditFields<'py>> {
        self.salt_edits
            .iter()
            .map(|edit| fields(py, edit))
            .collect()
    }

    // --------------------------------------------------------------------- its course

    #[pyo3(signature = (push, replica, /))]
    fn pushed(&mut self, push: &Push, replica: &str) {
        self.life.attempts = self.life.attempts_before + push.0.attempt;
        self.life.match_blocks = push.0.match_blocks;
        self.life.predicted_ttft_ns = push.0.predicted_ttft_ns.map(Span::ns);
        self.life.target = Some(Target::Replica(replica.into()));
        self.context_len = push.0.context_len.or(self.context_len);
    }

    #[pyo3(signature = (forward, peer, /))]
    fn forwarded_to(&mut self, forward: &Forward, peer: &str) {
        self.life.attempts = self.life.attempts_before + forward.0.attempt;
        self.life.match_blocks = forward.0.match_blocks;
        self.life.predicted_ttft_ns = None;
        self.life.target = Some(Target::Peer(peer.into()));
        self.context_len = forward.0.context_len.or(self.context_len);
    }

    #[pyo3(signature = (now_ns, /))]
    fn attempt_begins(&mut self, now_ns: u64) {
        self.life.attempt_begins(now_ns);
    }

    #[pyo3(signature = (now_ns, /))]
    fn first_byte(&mut self, now_ns: u64) {
        self.life.first_byte_ns = now_ns;
    }

    fn not_attempted(&mut self) {
        self.life.attempts = self.life.attempts.saturating_sub(1);
    }

    #[pyo3(signature = (now_ns, /))]
    fn hold(&mut self, now_ns: u64) {
        self.life.hold(now_ns);
    }

    #[pyo3(signature = (now_ns, /))]
    fn leave_hold(&mut self, now_ns: u64) {
        self.life.leave_hold(now_ns);
    }

    // ---------------------------------------------------------------- to a replica and back

    #[pyo3(signature = (host, authorization, body_len, drop_credentials=false, path=None, /))]
    fn upstream<'py>(
        &mut self,
        py: Python<'py>,
        host: &str,
        authorization: Option<&str>,
        body_len: usize,
        drop_credentials: bool,
        path: Option<&str>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let trace = self.life.trace.as_mut().map(|trace| trace.sent_to(host));
        let (head, sender) = (&self.head.get().inner, self.sender.get());
        let has_body = body_len > 0 || head.method() == b"POST";
        let upstream = head.upstream(&Upstream {
            path: path.or(self.continues.then_some("/v1/completions")),
            host,
            request_id: &self.life.request_id,
            client: sender.address.as_deref(),
            scheme: &sender.scheme,
            trusted: sender.trusted,
            capped: self
                .said
                .as_ref()
                .is_some_and(|said| Class::is_bound(said.highest)),
            credentials: match authorization {
                Some(value) => Credentials::Replaced(value),
                None if drop_credentials => Credentials::Dropped,
                None => Credentials::Passed,
            },
            body_len: if has_body {
                i64::try_from(body_len).unwrap_or(i64::MAX)
            } else {
                -1
            },
            trace,
        });
        match upstream {
            Ok(bytes) => Ok(PyBytes::new(py, &bytes)),
            Err(name) => Err(PyValueError::new_err(format!(
                "{name} has control characters"
            ))),
        }
    }

    #[pyo3(signature = (keep_alive, learn=true, /))]
    fn relay(&self, keep_alive: bool, learn: bool) -> Relay {
        let head = &self.head.get().inner;
        let options = Options {
            http11: head.http11(),
            keep_alive,
            is_head: head.is_head(),
            anthropic: head.anthropic(),
            drop_usage: learn && self.drops_usage(),
            responses_api: head.route() == Some(Route::Responses),
        };
        let mut inner = EngineRelay::new(options, &self.life.request_id);
        if let Some(standing) = &self.standing {
            inner.set_rate_limit(&standing.lines());
        }
        if let Some(policy) = self.receipt {
            inner.set_receipt(self.life.receipt_line(policy).as_bytes());
        }
        if let Some(kept) = self.kept().filter(|_| learn) {
            inner.keep(kept);
        }
        let start = self.said.as_ref().filter(|_| learn);
        if let Some(start) = start.and_then(|said| said.answer.as_ref()) {
            inner.attach(start.clone());
        }
        Relay::new(inner)
    }
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Request>()
}
