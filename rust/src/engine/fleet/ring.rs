//! The ring of replicas, for the policies that walk it.

use super::{Fleet, Slots};
use crate::engine::ring::{Ring, WEIGHT_ONE};
use crate::id::ReplicaId;

impl Fleet {
    /// The ring of replicas, and their slots.
    pub(in crate::engine) fn ring(&self) -> (&Ring, &Slots) {
        (&self.ring, &self.slots)
    }

    /// Puts replicas on the ring, if a policy walks it.
    pub(in crate::engine) fn join_ring(&mut self, replicas: &[ReplicaId]) {
        if self.with_ring {
            let weights = replicas.iter().map(|id| (*id, WEIGHT_ONE));
            self.ring.add_all(weights);
        }
    }

    /// Keeps the replicas on a ring from now on, or no longer.
    pub(in crate::engine) fn keep_ring(&mut self, with_ring: bool) {
        if with_ring == self.with_ring {
            return;
        }
        self.with_ring = with_ring;
        self.ring.clear();
        let listed = self.members().filter(|(_, member)| !member.removed);
        let listed: Vec<_> = listed.map(|(_, member)| member.id).collect();
        self.join_ring(&listed);
    }
}
