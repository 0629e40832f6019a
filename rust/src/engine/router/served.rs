//! What is served, as clients see it: here, and at peers.

use super::Router;
use crate::engine::mesh::residency::Whose;

impl Router {
    /// Requests can be served: a replica is ready here, or at a peer that takes them.
    #[must_use]
    pub fn ready(&self) -> bool {
        let mut peers = self.mesh.peers();
        self.ready_here() || peers.any(|(_, peer)| peer.models(self.clock.now_ns).next().is_some())
    }

    /// At least one replica is ready, and has told its models or hides them.
    #[must_use]
    pub fn ready_here(&self) -> bool {
        let mut members = self.fleet.members();
        members.any(|(_, member)| member.serves_some(&self.config, self.clock.now_ns))
    }

    /// Models and adapters of the ready replicas by name, with the smallest `max_model_len` told, and
    /// those of peers to which such requests may go.
    #[must_use]
    pub fn models(&self, whose: Whose<'_>) -> Vec<(&str, Option<u32>)> {
        let mut models = self.fleet.ready_models(&self.config, self.clock.now_ns);
        models.sort_unstable();
        for (_, peer) in self.mesh.peers() {
            for name in peer.models(self.clock.now_ns) {
                let place = models.binary_search_by_key(&name, |(known, _)| known);
                let allowed = self.mesh.residency().allowed(whose, name) & peer.region_bit != 0;
                if let (Err(place), true) = (place, allowed) {
                    models.insert(place, (name, None));
                }
            }
        }
        models
    }
}
