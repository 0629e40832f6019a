//! Which prompts other balancers of our region have pushed.

use super::super::Router;
use crate::engine::mesh::key::KEY_BYTES;
use crate::engine::mesh::region::cached::message::CachedError;
use crate::id::PeerId;
use crate::time::Instant;

impl Router {
    /// Tells balancers of our region which prompts are pushed to the replicas that both list, and believes
    /// what they tell. `key`: bytes that all of them share; their hashes must be keyed alike as well.
    pub fn set_region_cache(&mut self, key: &[u8; KEY_BYTES]) {
        self.mesh.set_region_cache(key);
    }

    /// What a peer of our region told of prompts. Of one that is isolated nothing is taken, nor where this
    /// is off.
    ///
    /// # Errors
    ///
    /// It cannot be read, cannot be compared, or is not newer than what it told before: nothing happened.
    pub fn merge_cached(
        &mut self,
        peer: PeerId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), CachedError> {
        self.advance(now);
        let slot = self.known_peer(peer).ok_or(CachedError::Stranger)?;
        let taken = self.mesh.take_cached(slot, bytes, &self.config);
        let entries = taken.inspect_err(|_| self.counters.cached_refused += 1)?;
        for (replica, entry) in entries {
            if self.cache.hear(replica, entry.parent, &entry.hashes) {
                self.counters.cached_heard += 1;
            } else {
                self.counters.cached_unplaced += 1;
                self.mesh.ask_cached(slot);
            }
        }
        Ok(())
    }
}
