//! Binding of `prompt`, for bodies that are read beside the event loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::http::{Head, refused};
use super::tenant::Tenant;
use crate::engine::ask::owner_of;
use crate::prompt::class::Class;
use crate::prompt::continuing::{Continuing, Scope};
use crate::prompt::{self, Digest, DigestConfig, Edit, Edits, Envelope, Scratch, moved};

/// What a body says, until the engine takes it.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Scanned {
    /// Bytes of the body.
    pub(super) body_bytes: usize,
    usage_edits: Edits,
    /// The client says that it wants none.
    usage_declined: bool,
    /// What a replica is to get besides, as places in the body as it came.
    salt_edits: Edits,
    /// What is changed besides.
    edits: Vec<Edit>,
    /// The body as it is sent asks for usage, and the client has not.
    asks_usage: AtomicBool,
    digest: Mutex<Option<Digest>>,
}

impl Scanned {
    /// Whether the edits that were asked for ask for usage.
    pub(super) fn asks_usage(&self) -> bool {
        self.asks_usage.load(Ordering::Relaxed)
    }

    /// The digest, once.
    pub(super) fn take(&self) -> PyResult<Digest> {
        self.locked()?
            .take()
            .ok_or_else(|| PyValueError::new_err("scanned: it was submitted before"))
    }

    fn locked(&self) -> PyResult<MutexGuard<'_, Option<Digest>>> {
        let digest = self.digest.lock();
        digest.map_err(|_| PyValueError::new_err("scanned: a thread failed"))
    }
}

#[pymethods]
impl Scanned {
    #[pyo3(signature = (ask_usage, count_usage=false, /))]
    fn edits<'py>(
        &self,
        py: Python<'py>,
        ask_usage: bool,
        count_usage: bool,
    ) -> PyResult<Vec<EditFields<'py>>> {
        let asks = count_usage || (ask_usage && !self.usage_declined);
        let usage = self.usage_edits.iter().filter(|_| asks);
        let asks = asks && !self.usage_edits.is_empty();
        self.asks_usage.store(asks, Ordering::Relaxed);
        let mut edits: Vec<&Edit> = self.edits.iter().chain(usage).collect();
        edits.sort_by_key(|edit| edit.at);
        if let Some(digest) = &mut *self.locked()? {
            digest.salt_edits = moved(&self.salt_edits, &edits);
        }
        Ok(edits.into_iter().map(|edit| fields(py, edit)).collect())
    }
}

/// Place, bytes that go, bytes that come.
pub(super) type EditFields<'py> = (usize, usize, Bound<'py, PyBytes>);

/// An edit as Python has it.
pub(super) fn fields<'py>(py: Python<'py>, edit: &Edit) -> EditFields<'py> {
    (edit.at, edit.gone, PyBytes::new(py, &edit.text))
}

/// Reads bodies as the engine does, from any thread.
#[pyclass(frozen, module = "skylb._core")]
pub(super) struct Scanner {
    /// Of the engine.
    pub(super) config: DigestConfig,
    /// Bodies' own words for their urgency count, whoever sends them.
    pub(super) believes_all: bool,
    /// Of which requests streams may go on elsewhere, where that is configured.
    pub(super) scope: Option<Arc<Scope>>,
}

#[pymethods]
impl Scanner {
    #[pyo3(signature = (head, body, trusted=false, only_model=None, tenant=None, highest=None, continues=false, /))]
    #[expect(
        clippy::too_many_arguments,
        reason = "what a body is read with, by Python"
    )]
    fn scan(
        &self,
        py: Python<'_>,
        head: &Bound<'_, Head>,
        body: &Bound<'_, PyBytes>,
        trusted: bool,
        only_model: Option<&str>,
        tenant: Option<&Bound<'_, Tenant>>,
        highest: Option<&str>,
        continues: bool,
    ) -> PyResult<Scanned> {
        let head = &head.get().inner;
        let route = head.route();
        let route = route.ok_or_else(|| PyValueError::new_err("head: it has no route"))?;
        let bytes = body.as_bytes();
        let tenant = tenant.map_or_else(Default::default, |tenant| tenant.get().0.borrowed());
        let highest = match highest.map(|name| Class::by_name(name.as_bytes())) {
            Some(None) => {
                return Err(PyValueError::new_err(
                    "highest: expected high, normal or low",
                ));
            }
            named => named.flatten(),
        };
        let owner = owner_of(tenant, head.credential());
        let digest = py.detach(|| {
            let envelope = Envelope {
                owner,
                trusted,
                only_model,
                ..Envelope::new(route, head.header(b"content-type"))
            };
            let mut config = self.config.clone();
            config.continue_streams(self.scope.clone().filter(|_| continues));
            prompt::digest(&envelope, bytes, &config, &mut Scratch::default())
        });
        let mut digest = digest.map_err(|error| refused(py, &error, None))?;
        // The body is edited before it is submitted: the digest has no edits left.
        let priority = digest.priority_changes(trusted || self.believes_all, highest);
        let mut edits = priority.to_vec();
        digest.priority_edits = Edits::new();
        edits.extend(std::mem::take(&mut digest.model_edits));
        if let Continuing::Planned(plan) = &mut digest.continuing {
            edits.extend(std::mem::take(&mut plan.ids_edits));
        }
        Ok(Scanned {
            body_bytes: bytes.len(),
            usage_edits: std::mem::take(&mut digest.usage_edits),
            usage_declined: digest.usage_declined,
            salt_edits: digest.salt_edits.clone(),
            edits,
            asks_usage: AtomicBool::new(false),
            digest: Mutex::new(Some(digest)),
        })
    }
}

/// A body as a request is submitted with it.
#[derive(FromPyObject)]
pub(super) enum Body<'py> {
    /// To be read.
    Bytes(Bound<'py, PyBytes>),
    /// Read before.
    Scanned(Bound<'py, Scanned>),
}

impl Body<'_> {
    /// It was edited already, so as to ask for usage.
    pub(super) fn asks_usage(&self) -> bool {
        match self {
            Self::Bytes(_) => false,
            Self::Scanned(scanned) => scanned.get().asks_usage(),
        }
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes().len(),
            Self::Scanned(scanned) => scanned.get().body_bytes,
        }
    }
}

/// Adds this part's classes to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Scanned>()?;
    m.add_class::<Scanner>()
}
