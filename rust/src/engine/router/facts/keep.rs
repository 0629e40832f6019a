//! What goes from one process of a balancer to the next.

use super::super::Router;
use crate::engine::effect::Effect;
use crate::engine::keep::flight::Flight;
use crate::time::Instant;

impl Router {
    /// What is in flight at replicas, for a successor.
    pub fn flight(&mut self, now: Instant) -> Flight {
        let now = self.advance(now);
        let (_, local) = self.local(now);
        Flight::of(&local)
    }

    /// A predecessor has told all that it still has at replicas.
    pub fn merge_predecessor(&mut self, flight: &Flight, now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        flight.count(&mut self.fleet, &self.config, now);
        self.dispatch_all(now, out);
    }
}
