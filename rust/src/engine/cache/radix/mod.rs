//! Which owner is believed to cache which prefix: a path-compressed radix tree over chained block hashes.
//!
//! A chained hash stands for its block and all blocks before it. So one index over the first hashes of all
//! nodes finds any node. Two runs of blocks that are equal at one place are equal up to there, so bisection
//! finds where they part. A match reads two hashes per node.
//!
//! An *owner* is a replica, or in the tree of the mesh a peer; the tree knows it by its slot. An owner that
//! holds a node also holds all nodes above it. The tree notes this in *marks*, one for each node and owner
//! that holds it. (These are not the marks that balancers exchange, see `mesh::hot`.) After an eviction a
//! mark may end within its node. Each owner has a list of its marks by last use, in which the deepest node
//! of a path is the oldest. Eviction takes blocks from the ends of the paths that were used longest ago.
//!
//! | bound | kept by |
//! |---|---|
//! | blocks of one owner | its capacity: `insert` evicts its oldest, exactly as many as are needed |
//! | bytes of the whole tree | `bytes_max`: `insert` evicts the oldest of all owners, mark by mark. What still does not fit is left out. |
//! | time of one call | A call follows at most [`WALK_NODES_MAX`] nodes and evicts at most [`EVICT_MARKS_MAX`] marks. What then does not fit is left out. `set_capacity` and `forget` take time in proportion to what they remove. |
//!
//! Cost in memory: 8 bytes per block of a long run; 60 for a run of one block held by one owner.

mod check;
mod evict;
mod grow;
mod index;
pub(in crate::engine) mod keep;
mod learn;
mod node;
mod owner;
mod reported;
mod slab;

use index::NodeIndex;
use node::{Held, Holder, Mark, Node};
use owner::Owners;
use slab::{NIL, Slab, number};

/// Nodes that one path is followed through. A path of a million bytes in whole nodes has 64; only
/// one made of many branchings comes near, and is then matched in part.
pub const WALK_NODES_MAX: usize = 1_024;

/// Marks that one insertion evicts for its owner's capacity, and again for the byte bound.
pub const EVICT_MARKS_MAX: usize = 4_096;

/// Bounds of a [`Radix`].
#[derive(Debug, Clone, Copy)]
pub struct RadixConfig {
    /// Memory of the whole tree in bytes; never passed (an empty tree takes 20,000).
    pub bytes_max: usize,
    /// Blocks an owner may hold until [`Radix::set_capacity`] says otherwise.
    pub capacity_blocks: u32,
}

/// A path that must not be evicted: its request is in flight. Given back with [`Radix::unpin`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin that is not given back keeps its path forever"]
pub struct Pin {
    /// The path's last node. Splits leave a node's id with its lower part, so it stays the last.
    node: u32,
    slot: u16,
    epoch: u32,
}

/// The tree. Owners are plain numbers (a replica's id).
#[derive(Debug)]
pub struct Radix {
    config: RadixConfig,
    nodes: Slab<Node>,
    marks: Slab<Mark>,
    groups: Slab<Vec<Holder>>,
    index: NodeIndex,
    owners: Owners,
    /// Memory behind nodes and groups, in bytes.
    heap_bytes: usize,
    /// Operations so far.
    clock: u64,
    queries: u64,
    /// Scratch of [`Self::walk`].
    path: Vec<Step>,
    /// A test has planted [`Plant::PinnedEvicted`](crate::engine::plant::Plant::PinnedEvicted).
    #[cfg(test)]
    pinned_evicted: bool,
}

/// A node that a walk has passed.
#[derive(Debug, Clone, Copy)]
struct Step {
    node: u32,
    /// Blocks of the prompt up to the node's end, or up to where the walk stopped within it.
    end: usize,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The tree has nothing further, or the prompt has ended.
    AtEnd,
    /// Within the last node of the path, after this many of its blocks.
    Within(usize),
    /// The path has too many nodes.
    TooDeep,
}

impl Radix {
    /// An empty tree.
    #[must_use]
    pub fn new(config: RadixConfig) -> Self {
        Self {
            config,
            nodes: Slab::new(),
            marks: Slab::new(),
            groups: Slab::new(),
            index: NodeIndex::new(),
            owners: Owners::new(),
            heap_bytes: 0,
            clock: 0,
            queries: 0,
            path: Vec::with_capacity(WALK_NODES_MAX),
            #[cfg(test)]
            pinned_evicted: false,
        }
    }

    /// Plants a bug, or none.
    #[cfg(test)]
    pub(in crate::engine) fn with_pinned_evicted(mut self, planted: bool) -> Self {
        self.pinned_evicted = planted;
        self
    }

    /// Appends `(owner, blocks)` for each owner that holds a prefix of `blocks`, in no particular
    /// order. Not a use: the order of eviction is unchanged.
    pub fn matches<O: From<u32>>(&mut self, blocks: &[u64], out: &mut Vec<(O, u32)>) {
        self.walk(blocks);
        self.queries += 1;
        let query = self.queries;
        let mut reported = 0;
        let mut start;
        for index in (0..self.path.len()).rev() {
            let Step { node, end } = self.path[index];
            start = index.checked_sub(1).map_or(0, |above| self.path[above].end);
            // Who holds a node holds those above: with nobody new, there is nothing to say.
            if self.holder_count(node) == reported {
                continue;
            }
            let mut report = |slot: u16, len: u16| {
                let owner = &mut self.owners[slot];
                if owner.seen != query {
                    owner.seen = query;
                    reported += 1;
                    out.push((owner.id.into(), number(end.min(start + usize::from(len)))));
                }
            };
            match self.nodes[node].holders.get() {
                Held::Nobody => {}
                Held::One(mark) => report(self.marks[mark].slot, self.marks[mark].len),
                Held::Many(group) => {
                    for holder in &self.groups[group] {
                        report(holder.slot, holder.len);
                    }
                }
            }
        }
    }

    /// Counts the part of the path that `owner` holds as used now.
    pub fn touch(&mut self, owner: u32, blocks: &[u64]) {
        let Some(slot) = self.owners.find(owner) else {
            return;
        };
        self.walk(blocks);
        let held = self.held(slot).blocks;
        if let Some(pin) = self.insert(owner, &blocks[..held]) {
            self.unpin(pin);
        }
    }

    /// Sets how many blocks an owner may hold, evicting what is over (pinned paths excepted).
    pub fn set_capacity(&mut self, owner: u32, blocks: u32) {
        if let Some(slot) = self.owners.find(owner) {
            self.owners[slot].capacity_blocks = blocks;
            self.evict_surplus(slot);
        } else if self.has_room(self.owners.bytes_for_one(owner)) {
            self.owners.add(owner, blocks);
        }
    }

    /// Blocks an owner holds.
    #[must_use]
    #[inline]
    pub fn owner_blocks(&self, owner: u32) -> u32 {
        self.owners
            .find(owner)
            .map_or(0, |slot| self.owners.blocks(slot))
    }

    /// Memory in use, in bytes: what was allocated, free slots and the allocator's own included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.nodes.bytes()
            + self.marks.bytes()
            + self.groups.bytes()
            + self.index.bytes()
            + self.owners.bytes()
            + self.heap_bytes
            + node::heap_bytes(self.path.capacity() * size_of::<Step>())
    }

    /// Whether this many bytes more stay within the bound.
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes() + bytes <= self.config.bytes_max
    }

    /// Follows `blocks` from the first on, leaving the nodes in `path`.
    fn walk(&mut self, blocks: &[u64]) -> Stop {
        self.path.clear();
        let mut at = 0;
        while let Some(&first) = blocks.get(at) {
            if self.path.len() == WALK_NODES_MAX {
                return Stop::TooDeep;
            }
            let Some(node) = self.index.find(first, &self.nodes) else {
                break;
            };
            let hashes = self.nodes[node].hashes.all();
            let ahead = &blocks[at..];
            if ahead.get(hashes.len() - 1) == hashes.last() {
                at += hashes.len();
                self.path.push(Step { node, end: at });
                continue;
            }
            let within = parting(hashes, ahead);
            self.path.push(Step {
                node,
                end: at + within,
            });
            return Stop::Within(within);
        }
        Stop::AtEnd
    }

    /// How many owners hold a node.
    fn holder_count(&self, node: u32) -> usize {
        match self.nodes[node].holders.get() {
            Held::Nobody => 0,
            Held::One(_) => 1,
            Held::Many(group) => self.groups[group].len(),
        }
    }

    /// An owner's mark at a node.
    fn mark_of(&self, node: u32, slot: u16) -> Option<u32> {
        match self.nodes[node].holders.get() {
            Held::One(mark) if self.marks[mark].slot == slot => Some(mark),
            Held::Many(group) => {
                let holders = &self.groups[group];
                let at = holders
                    .binary_search_by_key(&slot, |holder| holder.slot)
                    .ok()?;
                Some(holders[at].mark)
            }
            _ => None,
        }
    }
}

/// How many leading hashes two runs share; chained hashes that are equal once were equal before.
fn parting(hashes: &[u64], ahead: &[u64]) -> usize {
    let most = hashes.len().min(ahead.len());
    let (mut equal, mut beyond) = (0, most);
    while equal < beyond {
        let middle = usize::midpoint(equal, beyond);
        if hashes[middle] == ahead[middle] {
            equal = middle + 1;
        } else {
            beyond = middle;
        }
    }
    equal
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
