//! Binding of `remote`: a worker's side. It has no engine: it reads bodies, reports, and takes decisions.

mod continuing;
mod receive;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::effects::effect_of;
use super::http::{Relay, refused};
use super::record::Recorder;
use super::report::report;
use super::request::{Request, Said, ask_of};
use super::scan::{Body, Scanner};
use super::text::constant;
use super::words::{OUTCOMES, failure_of};
use crate::engine::effect::{Effect, Reject};
use crate::engine::router::Ask;
use crate::http::errors;
use crate::id::RequestId;
use crate::prompt::blocks::Tail;
use crate::prompt::continuing::{Continuing, Scope};
use crate::prompt::isolation::ISOLATION_KEY_BYTES;
use crate::prompt::{self, AnswerStart, Digest, DigestConfig, Scratch};
use crate::record::prompt::Prompt;
use crate::record::{Life, Target};
use crate::relay::Pool;
use crate::remote::frame::{self, Bytes, Hashes, Inbox};
use crate::remote::kept::{Journey, Submitted};
use crate::remote::submitted::{Body as Crossing, Head, Submit};
use crate::remote::up::{Told, Up};

/// Where a request is, as its worker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// The engine process has it, and has not said where it goes; or it waits there.
    Waits,
    /// At a replica.
    AtReplica,
    /// At a peer.
    AtPeer,
    /// The engine process does not know it: the one that did has died, and it is at a peer, or its replica is gone.
    Unknown,
}

/// A request that has not ended.
struct Live {
    request: Py<Request>,
    submitted: Submitted,
    stand: Stand,
    /// The engine process is still to get it.
    to_come: bool,
    journey: Journey,
}

/// The engine, as a worker reaches it: by bytes.
#[pyclass(module = "skylb._core")]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct RemoteEngine {
    config: DigestConfig,
    believes_all: bool,
    scratch: Scratch,
    records: bool,
    /// See `Engine.only_model`; empty: none is known.
    only_model: Option<String>,
    /// Where ids are kept if streams go on elsewhere, and of which models they may.
    kept: Option<(Arc<Pool>, Arc<Scope>)>,
    continuing: bool,
    /// Tenants whose streams do not go on.
    excluded: HashSet<String>,
    live: HashMap<u64, Live>,
    /// Those that the engine process is still to get.
    to_come: VecDeque<u64>,
    inbox: Inbox,
    outbox: Vec<u8>,
    /// An engine process takes reports.
    there: bool,
}

#[pymethods]
impl RemoteEngine {
    #[new]
    fn new(
        secret: &[u8],
        block_bytes: usize,
        prompt_blocks_max: usize,
        believes_all: bool,
    ) -> Self {
        Self {
            config: DigestConfig::new(secret, block_bytes, prompt_blocks_max),
            believes_all,
            scratch: Scratch::default(),
            records: false,
            only_model: Some(String::new()),
            kept: None,
            continuing: false,
            excluded: HashSet::new(),
            live: HashMap::new(),
            to_come: VecDeque::new(),
            inbox: Inbox::default(),
            outbox: Vec::new(),
            there: false,
        }
    }

    #[pyo3(signature = (key, /))]
    fn isolate(&mut self, key: [u8; ISOLATION_KEY_BYTES]) {
        self.config.isolate(&key);
    }

    #[pyo3(signature = (on, /))]
    fn record_prompts(&mut self, on: bool) {
        self.records = on;
    }

    fn scanner(&self) -> Scanner {
        Scanner {
            config: self.config.clone(),
            believes_all: self.believes_all,
            scope: self.kept.as_ref().map(|(_, scope)| Arc::clone(scope)),
        }
    }

    #[getter]
    fn only_model(&self) -> Option<&str> {
        self.only_model.as_deref()
    }

    #[setter]
    fn set_only_model(&mut self, name: Option<String>) {
        self.only_model = name;
    }

    // ------------------------------------------------------------------------- reports

    #[pyo3(signature = (number, request, body, /))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "pyo3 hands over what it converted"
    )]
    fn submit<'py>(
        &mut self,
        py: Python<'py>,
        number: u64,
        request: Bound<'py, Request>,
        body: Body<'py>,
    ) -> PyResult<()> {
        let kept = request.clone().unbind();
        let mut request = request.borrow_mut();
        let head = &request.head.get().inner;
        let ask = ask_of(head, &request.life, (None, request.front()), body.len())?;
        let mut digest = self.read(py, &ask, &body)?;
        let tenant = ask.tenant.name();
        if tenant.is_some_and(|name| self.excluded.contains(name)) {
            digest.continuing = Continuing::Off;
        }
        let blocks = Hashes::bytes_of(&digest.blocks);
        let submit = Submit {
            number,
            request_id: &request.life.request_id,
            start_ns: request.life.start_ns,
            waited_ns: 0,
            head: Head::of(&ask),
            body: Crossing::of(&digest, &blocks),
            course: None,
        };
        let mut written = Vec::with_capacity(256 + blocks.len());
        if !frame::put(&mut written, &Up::Submit(submit)) {
            return Err(PyValueError::new_err(
                "body: its prompt has too many blocks",
            ));
        }
        self.put_bytes(&written);
        let prompt = self.records.then(|| Prompt {
            blocks: digest.blocks.clone(),
            answer: Vec::new(),
            key: ask.session_key(&self.config).or(digest.key),
        });
        let answer = AnswerStart::behind(&digest, &self.config);
        let ids = self.kept.as_ref().filter(|_| digest.plan().is_some());
        let believed = ask.trusted || self.believes_all;
        let prompt_blocks = digest.blocks.len();
        digest.tail = Tail::default();
        digest.blocks = Vec::new();
        let said = Said {
            digest,
            prompt_blocks,
            answer,
            believed,
            highest: None,
        };
        request.prompt = prompt.map(Arc::new);
        request.id = RequestId(number);
        request.placed(said, body.asks_usage());
        request.keep_in(ids.map(|(pool, _)| pool));
        drop(request);
        let live = Live {
            request: kept,
            submitted: Submitted::new(written.split_off(frame::LENGTH_BYTES)),
            stand: Stand::Waits,
            to_come: false,
            journey: Journey::default(),
        };
        self.live.insert(number, live);
        Ok(())
    }

    #[pyo3(signature = (request, relay, now_ns, /))]
    fn first_byte(&mut self, request: &mut Request, relay: &Relay, now_ns: u64) {
        request.life.first_byte(now_ns);
        request.question = None;
        let number = request.id.0;
        let Some(live) = self.live.get_mut(&number) else {
            return;
        };
        live.journey.first_byte();
        live.submitted.started();
        if live.is_reported() {
            let response_id = relay.inner.response_id();
            self.put(&Up::FirstByte {
                number,
                response_id,
                at_ns: now_ns,
            });
        }
    }

    #[pyo3(signature = (request, failure, sent, now_ns, status=0, /))]
    fn retry(
        &mut self,
        request: &mut Request,
        failure: usize,
        sent: bool,
        now_ns: u64,
        status: u16,
    ) -> PyResult<()> {
        let failure = failure_of(failure, status)?;
        request.life.attempt_failed(failure.word(), status, now_ns);
        let number = request.id.0;
        let Some(live) = self.live.get_mut(&number) else {
            return Ok(());
        };
        live.journey.failed(failure, sent, now_ns);
        let report = Up::Retry {
            number,
            failure,
            sent,
            at_ns: now_ns,
        };
        self.ask(&request.life, &report, number);
        Ok(())
    }

    #[pyo3(signature = (request, outcome, relay, now_ns, /))]
    fn complete(
        &mut self,
        request: &mut Request,
        outcome: usize,
        mut relay: Option<PyRefMut<'_, Relay>>,
        now_ns: u64,
    ) -> PyResult<()> {
        let outcome = constant(&OUTCOMES, "outcome", outcome)?;
        let answer = relay
            .as_mut()
            .map_or_else(Vec::new, |relay| relay.inner.take_answer());
        let number = request.id.0;
        let live = self.live.remove(&number);
        if live.is_some_and(|live| live.is_reported()) {
            let hashes = Hashes::bytes_of(&answer);
            let told = relay
                .as_deref()
                .map(|relay| Told::of(&report(Some(relay), &[]), &hashes, relay.inner.verdict()));
            self.put(&Up::Complete {
                number,
                outcome,
                told,
                at_ns: now_ns,
            });
        }
        request.answered(answer);
        Ok(())
    }

    #[pyo3(signature = (replicas, /))]
    fn heard(&mut self, replicas: Vec<u32>) {
        self.put(&Up::Heard(replicas));
    }

    #[pyo3(signature = (note, /))]
    fn tell(&mut self, note: &[u8]) {
        self.put(&Up::Note(Bytes(note)));
    }

    #[pyo3(signature = (recorder, /))]
    fn take_mail<'py>(&mut self, py: Python<'py>, recorder: &mut Recorder) -> Bound<'py, PyBytes> {
        recorder.0.take_records(|records| {
            if !records.is_empty() {
                self.put(&Up::Records(Bytes(records)));
            }
        });
        let bytes = PyBytes::new(py, &self.outbox);
        self.outbox.clear();
        bytes
    }

    #[getter]
    fn mail_len(&self) -> usize {
        self.outbox.len()
    }

    // --------------------------------------------------------- the engine process goes and comes

    fn lost(&mut self) {
        self.there = false;
        self.inbox = Inbox::default();
        self.outbox.clear();
        self.to_come.clear();
    }

    fn joined(&mut self) {
        self.there = true;
        let mut numbers = Vec::with_capacity(self.live.len());
        for (number, live) in &mut self.live {
            live.to_come = matches!(live.stand, Stand::Waits | Stand::AtReplica);
            if live.to_come {
                numbers.push(*number);
            } else {
                live.stand = Stand::Unknown;
            }
        }
        numbers.sort_unstable(); // in the order in which they came
        self.to_come = numbers.into();
    }

    #[pyo3(signature = (bytes_max, now_ns, /))]
    fn submit_again(&mut self, py: Python<'_>, bytes_max: usize, now_ns: u64) -> bool {
        while self.outbox.len() < bytes_max {
            let Some(number) = self.to_come.pop_front() else {
                return false;
            };
            let Some(live) = self.live.get_mut(&number) else {
                continue;
            };
            live.to_come = false;
            let request = live.request.borrow(py);
            live.put_again(&mut self.outbox, &request.life, now_ns);
        }
        !self.to_come.is_empty()
    }

    #[getter]
    fn requests_len(&self) -> usize {
        self.live.len()
    }

    #[pyo3(signature = (retry_after_s, number=None, /))]
    fn give_up<'py>(
        &mut self,
        py: Python<'py>,
        retry_after_s: u32,
        number: Option<u64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let waits = |(at, live): &(&u64, &Live)| {
            live.stand == Stand::Waits && number.is_none_or(|number| number == **at)
        };
        let mut numbers: Vec<u64> = self.live.iter().filter(waits).map(|(at, _)| *at).collect();
        numbers.sort_unstable();
        let effects = PyList::empty(py);
        for number in numbers {
            self.live.remove(&number);
            let code = "engine_away";
            let reject = Reject {
                request: RequestId(number),
                status: errors::status_of(code),
                code,
                message: "this balancer is recovering from a failure".into(),
                retry_after_s: Some(retry_after_s),
            };
            effects.append(effect_of(py, Effect::Reject(reject))?)?;
        }
        Ok(effects)
    }
}

impl Live {
    /// The engine process knows it, and gets reports of it.
    fn is_reported(&self) -> bool {
        self.stand != Stand::Unknown && !self.to_come
    }

    /// Submits it again, as far as it has come; `life`: its course.
    fn put_again(&self, out: &mut Vec<u8>, life: &Life, now_ns: u64) {
        let waits_ns = life.held_since_ns.map_or(0, |at| now_ns.saturating_sub(at));
        let waited_ns = self.journey.waited_ns(life.held_ns + waits_ns);
        let there = self.stand == Stand::AtReplica || self.journey.is_undecided();
        let replica = match &life.target {
            Some(Target::Replica(name)) if there => Some(&**name),
            _ => None,
        };
        let course = self.journey.course(replica);
        self.submitted.put_again(out, waited_ns, course);
    }
}

impl RemoteEngine {
    fn put(&mut self, up: &Up<'_>) {
        if self.there {
            frame::put(&mut self.outbox, up);
        }
    }

    /// Has the engine process decide about a request whose attempt has failed. One that it does not know is submitted
    /// again.
    fn ask(&mut self, course: &Life, report: &Up<'_>, number: u64) {
        let live = self.live.get_mut(&number);
        let Some(live) = live.filter(|live| self.there && !live.to_come) else {
            return self.wait(number); // the next engine process gets it, or this one does when its turn comes
        };
        match std::mem::replace(&mut live.stand, Stand::Waits) {
            Stand::Unknown => live.put_again(&mut self.outbox, course, 0),
            _ => self.put(report),
        }
    }

    fn wait(&mut self, number: u64) {
        if let Some(live) = self.live.get_mut(&number) {
            live.stand = Stand::Waits;
        }
    }

    fn put_bytes(&mut self, frame: &[u8]) {
        if self.there {
            self.outbox.extend_from_slice(frame);
        }
    }

    fn read(&mut self, py: Python<'_>, ask: &Ask<'_>, body: &Body<'_>) -> PyResult<Digest> {
        match body {
            Body::Scanned(scanned) => scanned.get().take(),
            Body::Bytes(bytes) => {
                let envelope = ask.envelope(self.only_model.as_deref());
                let (config, scratch) = (&self.config, &mut self.scratch);
                let digest = prompt::digest(&envelope, bytes.as_bytes(), config, scratch);
                digest.map_err(|error| refused(py, &error, None))
            }
        }
    }
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<RemoteEngine>()?;
    m.add_class::<receive::Placed>()
}
