//! What the cache leaves to another one, besides the tree's runs ([`super::radix::keep`]).

use super::radix::keep::{Ages, Runs, Slice};
use super::retention::Retention;
use super::{Cache, Path};
use crate::engine::fleet::keep::Places;
use crate::id::ReplicaSlot;

impl Cache {
    /// How much of its capacity each replica keeps, by its place.
    pub(in crate::engine) fn leave_retentions(&self, places: &Places) -> Vec<(u16, Retention)> {
        let retentions = self.retentions.iter().enumerate();
        let named = retentions.filter_map(|(slot, retention)| {
            let place = places.of_slot.get(&ReplicaSlot::new(slot))?;
            Some((*place, retention.clone()))
        });
        named.collect()
    }

    pub(in crate::engine) fn inherit_retentions(
        &mut self,
        retentions: Vec<(u16, Retention)>,
        places: &Places,
    ) {
        for (place, retention) in retentions {
            if let Some(slot) = places.slot(place).filter(|_| retention.is_sound()) {
                *self.retention_mut(slot) = retention;
            }
        }
    }

    /// Tokens up to places, those used longest ago first.
    pub(in crate::engine) fn leave_paths(&self) -> Vec<(u64, Path)> {
        self.paths.0.entries().collect()
    }

    pub(in crate::engine) fn inherit_paths(&mut self, paths: Vec<(u64, Path)>) {
        for (last, path) in paths {
            self.paths.0.put(last, path);
        }
    }

    // ------------------------------------------------------------------ the tree

    /// Operations of the tree so far.
    pub(in crate::engine) fn clock(&self) -> u64 {
        self.tree.clock()
    }

    /// The tree's nodes are below this.
    pub(in crate::engine) fn nodes_end(&self) -> u32 {
        self.tree.nodes_end()
    }

    /// Adds up what some of the tree takes; the node to go on with.
    pub(in crate::engine) fn weigh(&self, slice: Slice, ages: &mut Ages) -> u32 {
        self.tree.weigh(slice, ages)
    }

    /// Writes some of the tree; the node to go on with.
    pub(in crate::engine) fn write(&self, slice: Slice, places: &Places, out: &mut Vec<u8>) -> u32 {
        let place = |owner: u32| places.of_slot.get(&ReplicaSlot::from(owner)).copied();
        self.tree.write(slice, place, out)
    }

    /// Inserts what was read; how many paths.
    pub(in crate::engine) fn inherit_runs(&mut self, runs: &Runs, places: &Places) -> u64 {
        let owner = |place| places.slot(place).map(ReplicaSlot::number);
        runs.insert(&mut self.tree, owner)
    }
}
