//! Staying within the bounds: leaf first, least recently used first, pinned paths never.

use super::marks::Mark;
use super::slab::NONE;
use super::{Node, Radix, run_bytes};

/// A leaf is cut in two rather than dropped whole if more than this many blocks may stay.
const TRIM_BLOCKS: u32 = 64;

/// Nodes that one insertion adds at most: one by a split, one for what is new.
const NODES_PER_INSERT: usize = 2;

impl Radix {
    /// Evicts until an owner holds no more than it may, or only pinned paths are left.
    pub(super) fn shrink_owner(&mut self, owner: u32) {
        loop {
            let known = &self.owners[owner as usize];
            let over = known.blocks.saturating_sub(known.capacity);
            if over == 0 {
                return;
            }
            let oldest = self.oldest_unpinned(owner);
            if oldest == NONE {
                return;
            }
            let node = self.marks.get(oldest).node;
            let run = self.run_len(node);
            if run > over + TRIM_BLOCKS && self.can_split(node) {
                // The lower half keeps its number and the mark: that is what goes.
                self.split(node, (run - over) as usize);
            }
            self.unmark(oldest);
        }
    }

    /// Whether there is memory for one more node and its copies of the marks.
    fn can_split(&self, node: u32) -> bool {
        let marks = self.nodes.get(node).marks_len as usize;
        let growth = self.nodes.growth(1) + self.marks.growth(marks) + run_bytes(1);
        self.index.room() > 0 && growth == run_bytes(1) && self.bytes() + growth <= self.bytes_max
    }

    fn oldest_unpinned(&self, owner: u32) -> u32 {
        let mut mark = self.owners[owner as usize].oldest;
        while mark != NONE && self.marks.get(mark).pins > 0 {
            mark = self.marks.get(mark).newer;
        }
        mark
    }

    /// The mark used longest ago over all owners, pinned ones excepted.
    fn oldest_of_all(&self) -> u32 {
        let mut found = NONE;
        let mut age = 0;
        for owner in 0..u32::try_from(self.owners.len()).unwrap_or(u32::MAX) {
            let mark = self.oldest_unpinned(owner);
            if mark != NONE {
                let its = self.tick.wrapping_sub(self.marks.get(mark).tick);
                if found == NONE || its > age {
                    (found, age) = (mark, its);
                }
            }
        }
        found
    }

    /// Evicts until there are `bytes` to spare; whether that was possible.
    pub(super) fn evict_for(&mut self, bytes: usize) -> bool {
        while self.bytes() + bytes > self.bytes_max {
            let oldest = self.oldest_of_all();
            if oldest == NONE {
                return false;
            }
            self.unmark(oldest);
        }
        true
    }

    /// Evicts until `blocks` can be inserted within the byte bound; how many of them can.
    pub(super) fn make_memory(&mut self, blocks: &[u64]) -> usize {
        loop {
            let walk = self.walk(blocks);
            let split_marks = if walk.node == NONE {
                0
            } else {
                self.nodes.get(walk.node).marks_len as usize
            };
            let marks = walk.nodes + NODES_PER_INSERT + split_marks;
            let fixed =
                self.nodes.growth(NODES_PER_INSERT) + self.marks.growth(marks) + run_bytes(1);
            let spare = self.bytes_max.saturating_sub(self.bytes());
            let wanted = run_bytes(blocks.len() - walk.matched);
            if fixed + wanted <= spare && self.index.room() >= NODES_PER_INSERT {
                self.nodes
                    .reserve(NODES_PER_INSERT, (spare - fixed - wanted) / 4);
                let spare = self.bytes_max - self.bytes() - wanted;
                self.marks.reserve(marks, (spare - run_bytes(1)) / 4);
                return blocks.len();
            }
            let oldest = self.oldest_of_all();
            if oldest != NONE {
                self.unmark(oldest);
                continue;
            }
            if fixed > spare || self.index.room() < NODES_PER_INSERT {
                return 0;
            }
            self.nodes.reserve(NODES_PER_INSERT, 0);
            self.marks.reserve(marks, 0);
            let room = (spare - fixed).saturating_sub(run_bytes(1)) / size_of::<u64>();
            return walk.matched + room.min(blocks.len() - walk.matched);
        }
    }

    /// Children of a node, for checks.
    pub(super) fn children_of(&self, parent: u32) -> usize {
        (0..u32::try_from(self.nodes.slots_len()).unwrap_or(u32::MAX))
            .filter(|&n| {
                let Node {
                    hashes,
                    parent: its,
                    ..
                } = self.nodes.get(n);
                !hashes.is_empty() && *its == parent
            })
            .count()
    }

    /// The marks of an owner, oldest first, for checks.
    pub(super) fn list_of(&self, owner: u32) -> Vec<(u32, Mark)> {
        let mut list = Vec::new();
        let mut mark = self.owners[owner as usize].oldest;
        while mark != NONE {
            list.push((mark, *self.marks.get(mark)));
            mark = self.marks.get(mark).newer;
        }
        list
    }
}
