//! Replicas, hold, tree and peers at one moment: never a prompt, a key or a salt.

use serde::Serialize;

use crate::engine::cache::TreeState;
use crate::engine::choose::shadow::ShadowState;
use crate::engine::fleet::report::ReplicaState;
use crate::engine::hold::HoldState;
use crate::engine::mesh::hot::HotState;
use crate::engine::mesh::listing::PeerGauges;
use crate::engine::router::Router;
use crate::time::Instant;

#[derive(Serialize)]
struct State<'a> {
    #[serde(rename = "now_ns")]
    now: Instant,
    policy: &'static str,
    /// Absent where there is no shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<ShadowState>,
    requests: usize,
    in_flight: usize,
    replicas: Vec<ReplicaState<'a>>,
    hold: HoldState<'a>,
    tree: TreeState,
    response_ids: usize,
    region: &'a str,
    evacuating: bool,
    forwards: usize,
    peers: Vec<PeerGauges>,
    /// Absent where digests are off.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_digest: Option<HotState>,
}

impl Router {
    /// Replicas, hold and tree as JSON for operators.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    pub fn state(&self, now: Instant) -> Result<Vec<u8>, serde_json::Error> {
        let parts = self.parts();
        let (config, fleet, cache) = (parts.config, parts.fleet, parts.cache);
        let (mesh, sharing) = (parts.mesh, parts.mesh.sharing());
        let replicas = fleet.members().map(|(slot, member)| {
            let blocks = (cache.owner_blocks(slot), cache.capacity_blocks(slot));
            let shared = (!sharing.alone(slot), sharing.probed_here(slot));
            fleet.state_of(member, blocks, shared, (config, now))
        });
        let mut replicas: Vec<_> = replicas.collect();
        replicas.sort_unstable_by_key(|state| state.gauges.replica);
        let name_of = |model| fleet.name_of(Some(model));
        serde_json::to_vec(&State {
            now,
            policy: config.policy.name(),
            shadow: parts.counters.shadow_state(config),
            requests: parts.requests.len(),
            in_flight: parts.requests.in_flight(),
            replicas,
            hold: parts.hold.state(config, name_of),
            tree: cache.state(config),
            response_ids: parts.requests.responses_len(),
            region: mesh.region(),
            evacuating: mesh.evacuating(),
            forwards: mesh.in_flight(),
            peers: self.peer_gauges(now),
            peer_digest: mesh.hot_state(),
        })
    }
}
