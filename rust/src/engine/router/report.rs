//! What operators and metrics see of the router: never a prompt, a key or a salt.

use super::Router;
use crate::engine::fleet::report::Gauges;
use crate::engine::fleet::wanted::Scale;
use crate::engine::hold::Bill;
use crate::engine::policy::Policy;
use crate::id::RequestId;
use crate::prompt::class::Class;
use crate::tenant::Tenant;

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

    /// What a request's tenant was charged for the attempt under way.
    #[must_use]
    pub fn bill_of(&self, id: RequestId) -> Option<Bill> {
        self.requests.get(id)?.bill
    }

    /// Some request of a tenant and class waits for what comes, and lets no room pass.
    #[must_use]
    pub fn waits_openly(&self, tenant: &str, class: Class) -> bool {
        self.hold.waits_openly(self.tenant(tenant), class)
    }

    /// The policy by which it chooses, and its shadow.
    #[must_use]
    pub fn policies(&self) -> (Policy, Option<Policy>) {
        (self.config.policy, self.config.shadow_policy)
    }

    /// Requests at replicas.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.in_flight()
    }

    /// Requests that have not ended.
    #[must_use]
    pub fn requests_len(&self) -> usize {
        self.requests.len()
    }

    /// Those of them that `are` so, the oldest first.
    #[must_use]
    pub fn requests_where(&self, are: impl Fn(RequestId) -> bool) -> Vec<RequestId> {
        let found = self.requests.iter().filter(|(id, _)| are(*id));
        let mut found: Vec<_> = found.map(|(id, request)| (request.age, id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Memory of the prefix tree.
    #[must_use]
    pub fn tree_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// The figures of each replica, in the order of their ids.
    #[must_use]
    pub fn gauges(&self) -> Vec<Gauges> {
        let blocks = |slot| self.cache.owner_blocks(slot);
        self.fleet.gauges(blocks, &self.config, self.clock.now)
    }

    /// Replicas that the work at hand would fill, and those that are ready, by model.
    #[must_use]
    pub fn wanted(&self) -> Vec<Scale<'_>> {
        self.fleet.wanted(&self.hold, &self.config, self.clock.now)
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
        named.extend(self.fleet.counters());
        named.push(("peer_digest_left_out", self.mesh.hot_left_out()));
        named
    }

    /// How far predicted times from push to first byte were off, as parts of the real ones, of
    /// streamed answers: `(bound, how many at or below)`, ending with infinity, and the sum.
    #[must_use]
    pub fn ttft_errors(&self) -> (Vec<(f64, u64)>, f64) {
        self.fleet.accuracy().cumulative()
    }

    // ------------------------------------------------------------------ what is served, as clients see it

    /// Requests can be served: a replica is ready here, or at a peer that takes them.
    #[must_use]
    pub fn ready(&self) -> bool {
        let mut peers = self.mesh.peers();
        self.ready_here() || peers.any(|(_, peer)| peer.models(self.clock.now).next().is_some())
    }

    /// At least one replica is ready, and has told its models or hides them.
    #[must_use]
    pub fn ready_here(&self) -> bool {
        let mut members = self.fleet.members();
        members.any(|(_, member)| member.serves_some(&self.config, self.clock.now))
    }

    /// Models and adapters of the ready replicas by name, with the smallest `max_model_len` told, and
    /// those of peers to which such requests may go; those that the tenant may use.
    #[must_use]
    pub fn models(&self, tenant: Tenant<&str>) -> Vec<(&str, Option<u32>)> {
        let mut models = self.fleet.ready_models(&self.config, self.clock.now);
        models.sort_unstable();
        self.mesh.add_models(tenant, &mut models, self.clock.now);
        let tenants = self.requests.tenants();
        models.retain(|(name, _)| tenants.allows(tenant, name, true));
        models
    }
}
