//! What other balancers of the region have pushed, and where.
//!
//! It enters the same tree as our own pushes, and counts like them: it takes its owner's capacity, is used,
//! and is evicted. A report has a prompt from a place on up to which its sender believes it known here.
//! [`Reported`] finds that place in the tree.

use super::Cache;
use crate::engine::generations::Generations;
use crate::id::ReplicaSlot;

/// Blocks between two places of a path from which more may be told.
pub(in crate::engine) const STRIDE: usize = 16;
/// Places that are known at once, of all paths. Those who report divide them among themselves.
pub const PLACES_MAX: usize = 262_144;
/// Marks of one replica that are looked at for what it caches most likely.
const RECENT_MARKS: usize = 512;
/// Blocks of all paths that are put together for that: half a megabyte of hashes, so that the loop goes on soon.
const RECENT_BLOCKS_MAX: usize = 65_536;

/// A node of the tree at each place from which more may be told: at the place, or below it.
#[derive(Debug)]
pub(super) struct Reported(Generations<u64, u32>);

impl Default for Reported {
    fn default() -> Self {
        Self(Generations::new(PLACES_MAX))
    }
}

/// The places of blocks that are behind so many others of a path, from which more may be told: at every
/// [`STRIDE`] of the path, and at its end.
pub(in crate::engine) fn places(more: &[u64], depth: usize) -> impl Iterator<Item = u64> {
    let first = STRIDE - depth % STRIDE;
    let strides = (first..more.len()).step_by(STRIDE);
    let places = strides.map(|len| more[len - 1]);
    places.chain(more.last().copied())
}

impl Cache {
    /// A replica was sent the prompt that goes on with `more` behind the block of the chained hash
    /// `parent`, or begins with it. False where that block is not known here.
    pub(in crate::engine) fn hear(
        &mut self,
        slot: ReplicaSlot,
        parent: Option<u64>,
        more: &[u64],
    ) -> bool {
        let path = match parent {
            None => Some(more.to_vec()),
            Some(parent) => self.reported.0.find(parent).and_then(|hint| {
                let mut path = self.tree.path_to(hint, parent, more.len())?;
                path.extend_from_slice(more);
                Some(path)
            }),
        };
        let Some(path) = path else {
            return false;
        };
        if let Some(node) = self.tree.record(slot.number(), &path) {
            for place in places(more, path.len() - more.len()) {
                self.reported.0.put(place, node);
            }
            if let Some(parent) = parent {
                self.reported.0.put(parent, node);
            }
        }
        true
    }

    /// How many leading blocks of a prompt are in the tree, whoever caches them. Other balancers of the
    /// region have as much: what was evicted here was evicted there.
    pub(in crate::engine) fn depth(&mut self, blocks: &[u64]) -> usize {
        self.tree.depth(blocks)
    }

    /// Calls `visit` with the prompts that a replica was sent last, the youngest first, until it answers false.
    pub(in crate::engine) fn recent(&self, slot: ReplicaSlot, visit: impl FnMut(&[u64]) -> bool) {
        let bounds = (RECENT_MARKS, RECENT_BLOCKS_MAX);
        self.tree.recent(slot.number(), bounds, visit);
    }
}
