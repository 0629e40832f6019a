//! The router's invariants, for tests.

use super::Router;
use crate::id::PeerId;

impl Router {
    /// Requests at peers.
    #[must_use]
    pub fn forwards_in_flight(&self) -> usize {
        self.mesh.in_flight()
    }

    /// Requests at replicas that a peer of our region has told of.
    #[must_use]
    pub fn counted_for(&self, peer: PeerId) -> usize {
        self.fleet.counted_for(peer)
    }

    /// Checks that all parts agree with each other.
    ///
    /// # Errors
    ///
    /// The name of the broken invariant, and what breaks it.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.cache.check_invariants()?;
        self.requests.check_pins(&self.cache)?;
        self.mesh.check_hot()?;
        self.check_decisions()
    }

    /// All but the tree, whose check is the long one.
    pub(super) fn check_decisions(&self) -> Result<(), String> {
        self.hold
            .check_invariants(&self.config)
            .map_err(str::to_owned)?;
        let (requests, cache) = (&self.requests, &self.cache);
        self.fleet.check_invariants(&self.config, self.clock.now)?;
        self.fleet.check_members(
            requests.in_flight(),
            |slot| requests.at(slot),
            |slot| cache.owner_blocks(slot),
        )?;
        self.requests
            .check(self.hold.len(), self.mesh.in_flight(), &self.config)?;
        self.check_models()?;
        let times = [self.clock.swept_ns, self.clock.now];
        self.requests
            .check_waiting(&self.hold, &self.fleet, times, &self.config)
    }

    fn check_models(&self) -> Result<(), String> {
        self.fleet
            .check_models(|model| self.requests.of_model(model))
    }
}
