//! Binding of `engine`: the calls about peers.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::engine::Engine;
use super::text::constant;
use crate::engine::effect::Message;
use crate::engine::mesh::hot::heat::Terms;
use crate::engine::mesh::key::KEY_BYTES;
use crate::engine::mesh::peer::Presence;
use crate::engine::mesh::residency::Rule;
use crate::engine::router::{self, Listing};
use crate::id::{PeerId, ReplicaId};
use crate::time::{Instant, Span};

const STATES: [(&str, Presence); 3] = [
    ("PEER_ALIVE", Presence::Alive),
    ("PEER_UNREACHABLE", Presence::Unreachable),
    ("PEER_DEAD", Presence::Dead),
];

const MESSAGES: [(&str, Message); 5] = [
    ("MESSAGE_SUMMARY", Message::Summary),
    ("MESSAGE_DIGEST", Message::Digest),
    ("MESSAGE_SHARE", Message::Share),
    ("MESSAGE_TENANTS", Message::Tenants),
    ("MESSAGE_CACHED", Message::Cached),
];

type Effects<'py> = PyResult<Bound<'py, PyTuple>>;
/// Id, name, region, and whether that is sure.
type PeerFields = (u32, String, String, bool);
/// Tenant, model, regions allowed.
type RuleFields = (Option<String>, Option<String>, Vec<String>);

fn value_error(error: &impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn messages(kinds: &[usize]) -> PyResult<Vec<Message>> {
    let kinds = kinds.iter();
    kinds
        .map(|kind| constant(&MESSAGES, "kind", *kind))
        .collect()
}

#[pymethods]
impl Engine {
    #[pyo3(signature = (name, region, incarnation, /))]
    fn set_self(&mut self, name: &str, region: &str, incarnation: u64) {
        self.router.set_self(name, region, incarnation);
    }

    #[pyo3(signature = (peers, now_ns, /))]
    fn set_peers<'py>(
        &mut self,
        py: Python<'py>,
        peers: Vec<PeerFields>,
        now_ns: Instant,
    ) -> Effects<'py> {
        let peers: Vec<_> = peers
            .into_iter()
            .map(|(id, name, region, sure)| Listing {
                sure,
                ..Listing::new(PeerId(id), name, region)
            })
            .collect();
        let set = self.router.set_peers(&peers, now_ns, &mut self.out);
        set.map_err(|error| value_error(&error))?;
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (peer, incarnation, now_ns, /))]
    fn peer_started(&mut self, peer: u32, incarnation: u64, now_ns: Instant) {
        self.router.peer_started(PeerId(peer), incarnation, now_ns);
    }

    #[pyo3(signature = (peer, rtt_ns, now_ns, /))]
    fn peer_rtt(&mut self, peer: u32, rtt_ns: Span, now_ns: Instant) {
        self.router.peer_rtt(PeerId(peer), rtt_ns, now_ns);
    }

    #[pyo3(signature = (peer, state, now_ns, /))]
    fn peer_state<'py>(
        &mut self,
        py: Python<'py>,
        peer: u32,
        state: usize,
        now_ns: Instant,
    ) -> Effects<'py> {
        let presence = constant(&STATES, "state", state)?;
        self.router
            .peer_state(PeerId(peer), presence, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (peer, isolated, now_ns, /))]
    fn set_isolated<'py>(
        &mut self,
        py: Python<'py>,
        peer: u32,
        isolated: bool,
        now_ns: Instant,
    ) -> Effects<'py> {
        self.router
            .set_isolated(PeerId(peer), isolated, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (rules, /))]
    fn set_residency(&mut self, rules: Vec<RuleFields>) -> PyResult<()> {
        let rules = rules.into_iter().map(|(tenant, model, regions)| Rule {
            tenant,
            model,
            regions,
        });
        let set = self.router.set_residency(rules.collect());
        set.map_err(|error| value_error(&error))
    }

    #[pyo3(signature = (replica, region, now_ns, /))]
    fn set_replica_region<'py>(
        &mut self,
        py: Python<'py>,
        replica: u32,
        region: Option<&str>,
        now_ns: Instant,
    ) -> Effects<'py> {
        let replica = ReplicaId(replica);
        self.router
            .set_replica_region(replica, region, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (peer, kinds, now_ns, /))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "pyo3 hands over what it converted"
    )]
    fn peer_connected<'py>(
        &mut self,
        py: Python<'py>,
        peer: u32,
        kinds: Vec<usize>,
        now_ns: Instant,
    ) -> Effects<'py> {
        let kinds = messages(&kinds)?;
        self.router
            .peer_connected(PeerId(peer), &kinds, now_ns, &mut self.out);
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (peer, kinds, /))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "pyo3 hands over what it converted"
    )]
    fn peer_takes(&mut self, peer: u32, kinds: Vec<usize>) -> PyResult<()> {
        self.router.peer_takes(PeerId(peer), &messages(&kinds)?);
        Ok(())
    }

    #[pyo3(signature = (peer, /))]
    fn peer_disconnected(&mut self, peer: u32) {
        self.router.peer_disconnected(PeerId(peer));
    }

    #[pyo3(signature = (peer, kind, /))]
    fn written(&mut self, peer: u32, kind: usize) -> PyResult<()> {
        let kind = constant(&MESSAGES, "kind", kind)?;
        self.router.written(PeerId(peer), kind);
        Ok(())
    }

    #[pyo3(signature = (peer, summary, now_ns, /))]
    fn merge_peer<'py>(
        &mut self,
        py: Python<'py>,
        peer: u32,
        summary: &[u8],
        now_ns: Instant,
    ) -> Effects<'py> {
        let merged = self
            .router
            .merge_peer(PeerId(peer), summary, now_ns, &mut self.out);
        merged.map_err(|error| value_error(&error))?;
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (key, bytes_max, interval_ns, age_max_ns, /))]
    fn set_peer_digest(
        &mut self,
        key: &[u8],
        bytes_max: usize,
        interval_ns: Span,
        age_max_ns: Span,
    ) -> PyResult<()> {
        let key: &[u8; KEY_BYTES] = key
            .try_into()
            .map_err(|_| PyValueError::new_err(format!("key: expected {KEY_BYTES} bytes")))?;
        let terms = Terms {
            bytes_max,
            interval_ns,
            age_max_ns,
        };
        self.router.set_peer_digest(key, terms);
        Ok(())
    }

    #[pyo3(signature = (peer, digest, now_ns, /))]
    fn merge_peer_digest(&mut self, peer: u32, digest: &[u8], now_ns: Instant) -> PyResult<()> {
        let merged = self.router.merge_peer_digest(PeerId(peer), digest, now_ns);
        merged.map_err(|error| value_error(&error))
    }

    #[pyo3(signature = (key, /))]
    fn set_region_cache(&mut self, key: &[u8]) -> PyResult<()> {
        let key: &[u8; KEY_BYTES] = key
            .try_into()
            .map_err(|_| PyValueError::new_err(format!("key: expected {KEY_BYTES} bytes")))?;
        self.router.set_region_cache(key);
        Ok(())
    }

    #[pyo3(signature = (peer, cached, now_ns, /))]
    fn merge_cached(&mut self, peer: u32, cached: &[u8], now_ns: Instant) -> PyResult<()> {
        let merged = self.router.merge_cached(PeerId(peer), cached, now_ns);
        merged.map_err(|error| value_error(&error))
    }

    #[pyo3(signature = (peer, share, ahead_ns, now_ns, /))]
    fn merge_share<'py>(
        &mut self,
        py: Python<'py>,
        peer: u32,
        share: &[u8],
        ahead_ns: i64,
        now_ns: Instant,
    ) -> Effects<'py> {
        let merged = self
            .router
            .merge_share(PeerId(peer), share, ahead_ns, now_ns, &mut self.out);
        merged.map_err(|error| value_error(&error))?;
        self.effects(py, now_ns)
    }

    #[pyo3(signature = (now_ns, /))]
    fn peers(&self, now_ns: Instant) -> Vec<PeerGauges> {
        let peers = self.router.peer_gauges(now_ns);
        peers.into_iter().map(PeerGauges).collect()
    }
}

/// One peer's figures for metrics and the live view.
#[pyclass(frozen, module = "skylb._core")]
struct PeerGauges(router::PeerGauges);

macro_rules! getters {
    ($($name:ident: $kind:ty,)*) => {
        #[pymethods]
        impl PeerGauges {
            #[getter]
            fn peer(&self) -> u32 {
                self.0.peer.0
            }

            #[getter]
            fn name(&self) -> &str {
                &self.0.name
            }

            #[getter]
            fn region(&self) -> &str {
                &self.0.region
            }

            $(#[getter]
            fn $name(&self) -> $kind {
                self.0.$name
            })*

            fn __repr__(&self) -> String {
                format!("{:?}", self.0)
            }
        }
    };
}

getters! {
    state: &'static str,
    available: bool,
    draining: bool,
    isolated: bool,
    rtt_ns: Option<Span>,
    jitter_ns: Span,
    age_ns: Option<Span>,
    room: u64,
    granted: u64,
    hold_requests: u32,
    in_flight: u32,
    forwarded_total: u64,
    arrived_total: u64,
    ok_total: u64,
    refused_total: u64,
    failed_total: u64,
    client_left_total: u64,
    tree_blocks: u32,
    digest_prefixes: u32,
    digest_age_ns: Option<Span>,
    digest_hits_total: u64,
    digest_tokens_total: u64,
    digest_tokens_found_total: u64,
}

/// Adds this part's classes and constants to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    for (number, (name, _)) in STATES.iter().enumerate() {
        m.add(*name, number)?;
    }
    for (number, (name, _)) in MESSAGES.iter().enumerate() {
        m.add(*name, number)?;
    }
    m.add_class::<PeerGauges>()
}
