//! The router's invariants, for tests.

use super::Router;
use crate::engine::requests::request::Phase;
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
        let members = self.fleet.members();
        let counts = members.map(|(_, member)| member.replica().counted_for(peer));
        counts.sum()
    }

    /// Checks that all parts agree with each other.
    ///
    /// # Errors
    ///
    /// The name of the broken invariant, and what breaks it.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.cache.check_invariants()?;
        self.check_pins()?;
        self.mesh.check_hot()?;
        self.check_decisions()
    }

    fn check_pins(&self) -> Result<(), String> {
        let phases = self.requests.iter().map(|(_, request)| &request.phase);
        let mut matches = phases.filter_map(|phase| match phase {
            Phase::InFlight(attempt) => Some(&attempt.matched),
            _ => None,
        });
        matches.try_for_each(|matched| self.cache.check_match(matched))
    }

    /// All but the tree, whose check is the long one.
    pub(super) fn check_decisions(&self) -> Result<(), String> {
        self.hold
            .check_invariants(&self.config)
            .map_err(str::to_owned)?;
        self.check_members()?;
        self.requests
            .check(self.hold.len(), self.mesh.in_flight(), &self.config)?;
        self.check_models()?;
        let times = [self.clock.swept_ns, self.clock.now];
        self.requests
            .check_waiting(&self.hold, &self.fleet, times, &self.config)
    }

    fn check_members(&self) -> Result<(), String> {
        self.fleet.check_invariants(&self.config, self.clock.now)?;
        let mut in_flight = 0;
        for (slot, member) in self.fleet.members() {
            let counted = self.requests.at(slot);
            if counted != member.in_flight() as usize {
                return Err(format!(
                    "in_flight_is_counted: {counted} != {}",
                    member.in_flight()
                ));
            }
            if member.removed() && counted == 0 {
                return Err(format!("removed_replicas_are_forgotten: {:?}", member.id()));
            }
            if member.removed() && self.cache.owner_blocks(slot) > 0 {
                return Err(format!("removed_replicas_cache_nothing: {:?}", member.id()));
            }
            in_flight += counted;
        }
        if in_flight != self.requests.in_flight() {
            return Err(format!(
                "in_flight_total_agrees: {in_flight} != {}",
                self.requests.in_flight()
            ));
        }
        Ok(())
    }

    fn check_models(&self) -> Result<(), String> {
        self.fleet
            .check_models(|model| self.requests.of_model(model))
    }
}
