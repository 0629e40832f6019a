//! What goes from one process of a balancer to the next.

use super::super::Router;
use crate::engine::effect::Effect;
use crate::engine::keep::file::StateError;
use crate::engine::keep::flight::Flight;
use crate::engine::keep::state::{Heirs, Inherited, State, StateWriter};
use crate::time::{Instant, Span};

impl Router {
    /// What is in flight at replicas, for a successor.
    pub fn flight(&mut self, now: Instant) -> Flight {
        let now = self.advance(now);
        let (_, local) = self.local(now);
        Flight::of(&local)
    }

    /// The next part of a state that is being written; `None` behind its last one.
    pub fn export(&mut self, writer: &mut StateWriter, now: Instant) -> Option<Vec<u8>> {
        self.advance(now);
        writer.next(&self.parts())
    }

    /// Takes over what another process has learned, which was begun so long ago.
    ///
    /// # Errors
    ///
    /// It cannot be read: nothing happened.
    pub fn import(
        &mut self,
        state: &[u8],
        age: Span,
        now: Instant,
    ) -> Result<Inherited, StateError> {
        let now = self.advance(now);
        let state = State::read(state, &self.config)?;
        let heirs = Heirs {
            config: &self.config,
            fleet: &mut self.fleet,
            cache: &mut self.cache,
            chooser: &mut self.chooser,
            requests: &mut self.requests,
        };
        Ok(state.give(heirs, age, now))
    }

    /// A predecessor has told all that it still has at replicas.
    pub fn merge_predecessor(&mut self, flight: &Flight, now: Instant, out: &mut Vec<Effect>) {
        let now = self.advance(now);
        flight.count(&mut self.fleet, &self.config, now);
        self.dispatch_all(now, out);
    }
}
