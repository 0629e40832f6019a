//! Binding of the replica model.

use pyo3::exceptions::{PyAssertionError, PyValueError};
use pyo3::prelude::*;

use crate::id::RequestId;
use crate::sim::replica::{self, Admission, Arrival, Profile, Progress, TOKEN_BYTES, chain_hashes};

const ADMIT_OK: u8 = 0;
const ADMIT_FULL: u8 = 1;
const ADMIT_TOO_LONG: u8 = 2;

/// A continuous-batching replica; the stub documents it.
#[pyclass(module = "skylb._core")]
struct ReplicaModel {
    inner: replica::ReplicaModel,
    progress: Vec<Progress>,
}

#[pymethods]
impl ReplicaModel {
    #[new]
    fn new(profile_json: &[u8]) -> PyResult<Self> {
        let profile: Profile = serde_json::from_slice(profile_json)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let inner = replica::ReplicaModel::new(profile)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self {
            inner,
            progress: Vec::new(),
        })
    }

    #[pyo3(signature = (request_id, salt, prompt, answer, now_ns, /))]
    fn submit(
        &mut self,
        request_id: u64,
        salt: &[u8],
        prompt: &[u8],
        answer: &[u8],
        now_ns: u64,
    ) -> PyResult<u8> {
        let block_bytes = self.inner.profile().block_size as usize * TOKEN_BYTES;
        let arrival = Arrival {
            id: RequestId(request_id),
            prompt_tokens: prompt.len().div_ceil(TOKEN_BYTES) as u64,
            output_tokens: answer.len().div_ceil(TOKEN_BYTES) as u64,
            hashes: chain_hashes(salt, &[prompt, answer], block_bytes),
        };
        match self.inner.submit(arrival, now_ns) {
            Admission::Accepted => Ok(ADMIT_OK),
            Admission::Full => Ok(ADMIT_FULL),
            Admission::TooLong => Ok(ADMIT_TOO_LONG),
            Admission::Duplicate => Err(PyValueError::new_err(format!(
                "request {request_id} has not ended yet"
            ))),
        }
    }

    #[pyo3(signature = (request_id, /))]
    fn abort(&mut self, request_id: u64) -> bool {
        self.inner.abort(RequestId(request_id))
    }

    #[pyo3(signature = (paused_ns, /))]
    fn pause(&mut self, paused_ns: u64) {
        self.inner.pause(paused_ns);
    }

    #[pyo3(signature = (now_ns, /))]
    fn advance(&mut self, now_ns: u64) -> Vec<(u64, u32, u32, bool)> {
        self.progress.clear();
        self.inner.advance(now_ns, &mut self.progress);
        self.progress
            .iter()
            .map(|one| (one.id.0, one.generated, one.cached_tokens, one.finished))
            .collect()
    }

    fn next_ns(&self) -> Option<u64> {
        self.inner.next_ns()
    }

    fn reset_prefix_cache(&mut self) {
        self.inner.reset_prefix_cache();
    }

    fn check_invariants(&self) -> PyResult<()> {
        self.inner
            .check_invariants()
            .map_err(PyAssertionError::new_err)
    }

    #[getter]
    fn running(&self) -> usize {
        self.inner.running()
    }

    #[getter]
    fn waiting(&self) -> usize {
        self.inner.waiting()
    }

    #[getter]
    fn running_gauge(&self) -> usize {
        self.inner.gauges().running
    }

    #[getter]
    fn waiting_gauge(&self) -> usize {
        self.inner.gauges().waiting
    }

    #[getter]
    fn kv_usage_gauge(&self) -> f64 {
        f64::from(self.inner.gauges().blocks_used) / f64::from(self.inner.blocks().1)
    }

    #[getter]
    fn kv_usage(&self) -> f64 {
        let (used, total) = self.inner.blocks();
        f64::from(used) / f64::from(total)
    }

    #[getter]
    fn blocks(&self) -> u32 {
        self.inner.blocks().1
    }

    #[getter]
    fn block_size(&self) -> u32 {
        self.inner.profile().block_size
    }

    #[getter]
    fn max_model_len(&self) -> u32 {
        self.inner.profile().max_model_len
    }

    #[getter]
    fn cache_queries(&self) -> u64 {
        self.inner.counters().cache_queries
    }

    #[getter]
    fn cache_hits(&self) -> u64 {
        self.inner.counters().cache_hits
    }

    #[getter]
    fn preemptions(&self) -> u64 {
        self.inner.counters().preemptions
    }

    #[getter]
    fn steps(&self) -> u64 {
        self.inner.counters().steps
    }

    #[getter]
    fn prefill_tokens(&self) -> u64 {
        self.inner.counters().prefill_tokens
    }

    #[getter]
    fn output_tokens(&self) -> u64 {
        self.inner.counters().output_tokens
    }
}

/// Adds this part's classes and functions to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("ADMIT_OK", ADMIT_OK)?;
    m.add("ADMIT_FULL", ADMIT_FULL)?;
    m.add("ADMIT_TOO_LONG", ADMIT_TOO_LONG)?;
    m.add_class::<ReplicaModel>()
}
