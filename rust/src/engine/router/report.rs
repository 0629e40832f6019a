//! What operators and metrics see. Never a prompt, a key or a salt.

use serde::Serialize;

use super::Router;
use crate::engine::fleet::gate;
use crate::engine::fleet::member::Member;
use crate::engine::fleet::report::Gauges;
use crate::engine::hold;
use crate::engine::mesh::hot::HotState;
use crate::engine::mesh::listing::PeerGauges;
use crate::id::{Nanos, ReplicaId, Slot};
use crate::prompt::class::Class;

#[derive(Serialize)]
struct ReplicaState<'a> {
    #[serde(flatten)]
    gauges: Gauges,
    models: Vec<&'a str>,
    room: u32,
    closed_by: Option<&'static str>,
    knee: Option<u32>,
    capacity_blocks: u32,
    removed: bool,
    /// Other balancers of our region push there; what they have in flight; whether we probe it.
    shared: bool,
    theirs_in_flight: u32,
    probed_here: bool,
}

#[derive(Serialize)]
struct HoldLine<'a> {
    model: &'a str,
    bound_replica: Option<ReplicaId>,
    requests: usize,
    /// Of those, the ones that let room pass and wait for a replica.
    by_choice: usize,
}

#[derive(Serialize)]
struct HoldClass {
    class: &'static str,
    weight: u32,
    /// Tokens over weight that it has had beyond the class that has had least.
    ahead_tokens: u64,
}

#[derive(Serialize)]
struct State<'a> {
    now_ns: Nanos,
    policy: &'static str,
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

#[derive(Serialize)]
struct HoldState<'a> {
    requests: usize,
    len_max: usize,
    bytes: u64,
    bytes_max: u64,
    tenants: usize,
    classes: Vec<HoldClass>,
    lines: Vec<HoldLine<'a>>,
}

#[derive(Serialize)]
struct TreeState {
    bytes: usize,
    bytes_max: usize,
}

/// Lines of the hold that `state` shows at most.
const LINES_SHOWN_MAX: usize = 100;

impl Router {
    /// Requests waiting in the hold.
    #[must_use]
    pub fn hold_requests(&self) -> usize {
        self.hold.len()
    }

    /// Bytes of the bodies in the hold.
    #[must_use]
    pub fn hold_bytes(&self) -> u64 {
        self.hold.bytes()
    }

    /// Requests at replicas.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.in_flight()
    }

    /// Memory of the prefix tree.
    #[must_use]
    pub fn tree_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// One replica's figures, in the order of their ids.
    #[must_use]
    pub fn gauges(&self) -> Vec<Gauges> {
        let listed = self.fleet.members().filter(|(_, member)| !member.removed());
        let mut gauges: Vec<_> = listed
            .map(|(slot, member)| self.gauges_of(slot, member, self.clock.now_ns))
            .collect();
        gauges.sort_unstable_by_key(|gauges| gauges.replica);
        gauges
    }

    fn gauges_of(&self, slot: Slot, member: &Member, now_ns: Nanos) -> Gauges {
        member.gauges(self.cache.owner_blocks(slot), &self.config, now_ns)
    }

    /// Predicted minus confirmed cached tokens: upper bounds with cumulative counts, and the sum.
    #[must_use]
    pub fn prefix_errors(&self) -> (Vec<(f64, u64)>, i64) {
        self.cache.errors()
    }

    /// Monotonic counters by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut named = self.counters.named();
        let (compared, within) = self.fleet.accuracy().within_a_fifth();
        named.push(("models_ignored", self.fleet.models_ignored()));
        let left_out = self.mesh.hot_left_out();
        named.push(("peer_digest_left_out", left_out));
        named.push(("ttft_predicted", compared));
        named.push(("ttft_within_a_fifth", within));
        named
    }

    /// How far predicted times from push to first byte were off, as parts of the real ones, of
    /// streamed answers: `(bound, how many at or below)`, ending with infinity, and the sum.
    #[must_use]
    pub fn ttft_errors(&self) -> (Vec<(f64, u64)>, f64) {
        self.fleet.accuracy().cumulative()
    }

    /// Replicas, hold and tree as JSON for operators.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    pub fn state(&self, now_ns: Nanos) -> Result<Vec<u8>, serde_json::Error> {
        let replicas = self.fleet.members().map(|(slot, member)| {
            let served = member.models().iter();
            ReplicaState {
                gauges: self.gauges_of(slot, member, now_ns),
                models: served
                    .filter_map(|(id, _)| self.fleet.name_of(Some(*id)))
                    .collect(),
                room: gate::room(member.replica(), &self.config, now_ns),
                closed_by: member.closed_by(&self.config, now_ns),
                knee: member.replica().knee(),
                capacity_blocks: self.cache.capacity_blocks(slot),
                removed: member.removed(),
                shared: !self.mesh.sharing().alone(slot),
                theirs_in_flight: member.replica().theirs(),
                probed_here: self.mesh.sharing().probed_here(slot),
            }
        });
        let mut replicas: Vec<_> = replicas.collect();
        replicas.sort_unstable_by_key(|state| state.gauges.replica);
        let mut lines: Vec<_> = self.hold.heads().map(|(partition, _)| partition).collect();
        lines.sort_unstable_by_key(|partition| std::cmp::Reverse(self.hold.line_len(*partition)));
        lines.truncate(LINES_SHOWN_MAX);
        let lines = lines.into_iter().map(|partition| HoldLine {
            model: self
                .fleet
                .name_of(Some(partition.model))
                .unwrap_or_default(),
            bound_replica: partition.bound,
            requests: self.hold.line_len(partition),
            by_choice: self.hold.line_len(partition) - self.hold.open_len(partition),
        });
        serde_json::to_vec(&State {
            now_ns,
            policy: self.config.policy.name(),
            requests: self.requests.len(),
            in_flight: self.requests.in_flight(),
            replicas,
            hold: HoldState {
                requests: self.hold.len(),
                len_max: self.config.hold_len_max,
                bytes: self.hold.bytes(),
                bytes_max: self.config.hold_bytes_max,
                tenants: self.hold.tenants_len(),
                classes: self.hold_classes(),
                lines: lines.collect(),
            },
            tree: TreeState {
                bytes: self.cache.bytes(),
                bytes_max: self.config.tree_bytes_max,
            },
            response_ids: self.requests.responses_len(),
            region: self.mesh.region(),
            evacuating: self.mesh.evacuating(),
            forwards: self.mesh.in_flight(),
            peers: self.peer_gauges(now_ns),
            peer_digest: self.mesh.hot_state(),
        })
    }

    fn hold_classes(&self) -> Vec<HoldClass> {
        let classes = Class::ALL.into_iter().zip(self.hold.ahead());
        classes
            .map(|(class, ahead_tokens)| HoldClass {
                class: class.name(),
                weight: hold::weight(class, &self.config),
                ahead_tokens,
            })
            .collect()
    }
}
