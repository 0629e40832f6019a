//! Who is believed to cache which prefix: a path-compressed radix tree over chained block hashes.
//!
//! Because hashes are chained, a block's hash stands for its whole prefix: two paths that agree in
//! one block agree in all before it. So a node is found by its first hash alone, a node matches
//! whole if its last block does, and the place of divergence is found by bisection. A match touches
//! nodes, not blocks.
//!
//! An owner's *mark* on a node says that it caches the node's whole path. Marks are closed towards
//! the root. Each owner's marks form a list in order of use in which an ancestor is always newer
//! than its descendants, so that the oldest end is a leaf and eviction goes leaf first.

mod check;
mod evict;
mod index;
mod marks;
mod slab;
#[cfg(test)]
mod tests;

use index::Index;
use marks::{Mark, Owner};
use slab::{NONE, Slab, Slot};

/// Bounds of a [`Radix`].
#[derive(Debug, Clone, Copy)]
pub struct RadixConfig {
    /// Memory of the whole tree in bytes; never passed.
    pub bytes_max: usize,
    /// Blocks an owner may hold until [`Radix::set_capacity`] says otherwise.
    pub capacity_blocks: u32,
}

/// A path that must not be evicted: its request is in flight. Given back with [`Radix::unpin`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin that is not given back keeps its path forever"]
pub struct Pin {
    node: u32,
    owner: u32,
    epoch: u32,
}

/// A run of blocks without a branch.
#[derive(Debug)]
struct Node {
    hashes: Box<[u64]>,
    parent: u32,
    children: u32,
    /// First of the node's marks.
    marks: u32,
    marks_len: u32,
}

impl Slot for Node {
    fn link(&mut self) -> &mut u32 {
        &mut self.parent
    }
}

/// What the allocator adds to a run of hashes, about.
const RUN_OVERHEAD_BYTES: usize = 16;

/// The table of nodes takes one slot for so many bytes of the bound; a slot is 4 bytes.
const BYTES_PER_INDEX_SLOT: usize = 128;

fn run_bytes(blocks: usize) -> usize {
    if blocks == 0 {
        0
    } else {
        blocks * size_of::<u64>() + RUN_OVERHEAD_BYTES
    }
}

/// How far a sequence of blocks goes down the tree.
#[derive(Debug, Clone, Copy)]
struct Walk {
    /// Deepest node touched; `NONE` at the root.
    node: u32,
    /// Blocks matched in all.
    matched: usize,
    /// Blocks of `node` matched; less than its length if the walk ends inside.
    inside: usize,
    /// Nodes touched.
    nodes: usize,
}

/// The tree. Owners are plain numbers (a replica's slot), best small: they index a vector.
#[derive(Debug)]
pub struct Radix {
    nodes: Slab<Node>,
    marks: Slab<Mark>,
    index: Index,
    owners: Vec<Owner>,
    capacity_blocks: u32,
    bytes_max: usize,
    run_bytes: usize,
    /// Counts uses; wraps, compared by distance.
    tick: u32,
    /// Stamp of the match under way, to list an owner once.
    stamp: u32,
}

impl Radix {
    /// An empty tree.
    #[must_use]
    pub fn new(config: RadixConfig) -> Self {
        Self {
            nodes: Slab::new(),
            marks: Slab::new(),
            index: Index::new(config.bytes_max / BYTES_PER_INDEX_SLOT / 2 + 1),
            owners: Vec::new(),
            capacity_blocks: config.capacity_blocks,
            bytes_max: config.bytes_max,
            run_bytes: 0,
            tick: 0,
            stamp: 0,
        }
    }

    /// Records that `owner` now computes (and then caches) the prompt with these chained hashes,
    /// and pins the path until [`unpin`](Self::unpin). Evicts what must go to stay within the
    /// bounds; what does not fit even so is left out, from the end. `None`: nothing of it fits.
    pub fn insert(&mut self, owner: u32, blocks: &[u64]) -> Option<Pin> {
        if !self.know(owner) {
            return None;
        }
        let capacity = self.owners[owner as usize].capacity as usize;
        let blocks = &blocks[..blocks.len().min(capacity)];
        let blocks = &blocks[..self.make_memory(blocks)];
        let end = self.extend(blocks)?;
        self.mark_path(owner, end);
        self.pin_path(owner, end, 1);
        self.shrink_owner(owner);
        let epoch = self.owners[owner as usize].epoch;
        Some(Pin {
            node: end,
            owner,
            epoch,
        })
    }

    /// The request ended: its path counts as used now and may be evicted again.
    pub fn unpin(&mut self, pin: Pin) {
        let Pin { node, owner, epoch } = pin;
        if self
            .owners
            .get(owner as usize)
            .is_some_and(|o| o.epoch == epoch)
        {
            self.pin_path(owner, node, -1);
            self.touch_path(owner, node);
            self.shrink_owner(owner);
        }
    }

    /// Appends `(owner, blocks)` for each owner that holds a prefix of `blocks`, the longest match
    /// first. Uses nothing up: order of eviction is unchanged.
    pub fn matches(&mut self, blocks: &[u64], out: &mut Vec<(u32, u32)>) {
        self.stamp = self.stamp.wrapping_add(1);
        let walk = self.walk(blocks);
        let mut depth = walk.matched;
        let mut within = walk.inside;
        let mut node = walk.node;
        let mut listed = 0;
        while node != NONE {
            let Node {
                parent,
                marks,
                marks_len,
                ..
            } = *self.nodes.get(node);
            if marks_len > listed {
                listed += self.list_owners(marks, depth, out);
            }
            depth -= within;
            node = parent;
            within = if node == NONE {
                0
            } else {
                self.nodes.get(node).hashes.len()
            };
        }
    }

    fn list_owners(&mut self, first: u32, depth: usize, out: &mut Vec<(u32, u32)>) -> u32 {
        let mut listed = 0;
        let mut mark = first;
        while mark != NONE {
            let Mark { owner, next, .. } = *self.marks.get(mark);
            let known = &mut self.owners[owner as usize];
            if known.stamp != self.stamp {
                known.stamp = self.stamp;
                listed += 1;
                out.push((owner, u32::try_from(depth).unwrap_or(u32::MAX)));
            }
            mark = next;
        }
        listed
    }

    /// Counts the part of the path that `owner` holds as used now.
    pub fn touch(&mut self, owner: u32, blocks: &[u64]) {
        let mut node = self.walk(blocks).node;
        while node != NONE && self.mark_of(node, owner) == NONE {
            node = self.nodes.get(node).parent;
        }
        if node != NONE {
            self.touch_path(owner, node);
        }
    }

    /// Sets how many blocks an owner may hold, evicting what is over (pinned paths excepted).
    pub fn set_capacity(&mut self, owner: u32, blocks: u32) {
        if self.know(owner) {
            self.owners[owner as usize].capacity = blocks;
            self.shrink_owner(owner);
        }
    }

    /// Drops everything an owner holds, pinned paths too. Its pins become void.
    pub fn forget(&mut self, owner: u32) {
        if owner as usize >= self.owners.len() {
            return;
        }
        loop {
            let oldest = self.owners[owner as usize].oldest;
            if oldest == NONE {
                break;
            }
            self.unmark(oldest);
        }
        let known = &mut self.owners[owner as usize];
        known.epoch = known.epoch.wrapping_add(1);
        known.capacity = self.capacity_blocks;
    }

    /// Blocks an owner holds.
    #[must_use]
    pub fn owner_blocks(&self, owner: u32) -> u32 {
        self.owners
            .get(owner as usize)
            .map_or(0, |known| known.blocks)
    }

    /// Nodes in the tree.
    #[must_use]
    pub fn nodes_len(&self) -> usize {
        self.nodes.len()
    }

    /// Memory in use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.run_bytes
            + self.nodes.bytes()
            + self.marks.bytes()
            + self.index.bytes()
            + self.owners.capacity() * size_of::<Owner>()
    }

    /// Makes a place for an owner's figures; whether there is memory for it.
    fn know(&mut self, owner: u32) -> bool {
        let wanted = owner as usize + 1;
        if self.owners.len() < wanted {
            let growth = wanted.saturating_sub(self.owners.capacity()) * size_of::<Owner>();
            if !self.evict_for(growth) {
                return false;
            }
            self.owners.reserve_exact(wanted - self.owners.len());
            self.owners.resize(wanted, Owner::new(self.capacity_blocks));
        }
        true
    }

    /// Goes down as far as `blocks` agree with the tree.
    fn walk(&self, blocks: &[u64]) -> Walk {
        let mut walk = Walk {
            node: NONE,
            matched: 0,
            inside: 0,
            nodes: 0,
        };
        while let Some(&first) = blocks.get(walk.matched) {
            let Some(node) = self.index.find(first, |n| self.nodes.get(n).hashes[0]) else {
                break;
            };
            let run = &self.nodes.get(node).hashes;
            if self.nodes.get(node).parent != walk.node {
                break; // two different prefixes with one 64-bit hash: leave the later one out
            }
            let rest = &blocks[walk.matched..];
            let most = run.len().min(rest.len());
            let inside = if run[most - 1] == rest[most - 1] {
                most
            } else {
                bisect(run, rest, most)
            };
            walk = Walk {
                node,
                matched: walk.matched + inside,
                inside,
                nodes: walk.nodes + 1,
            };
            if inside < run.len() {
                break;
            }
        }
        walk
    }

    /// Makes `blocks` a path of whole nodes; its last node, `None` for no blocks.
    fn extend(&mut self, blocks: &[u64]) -> Option<u32> {
        let walk = self.walk(blocks);
        let mut node = walk.node;
        if node != NONE && walk.inside < self.nodes.get(node).hashes.len() {
            node = self.split(node, walk.inside);
        }
        let rest = &blocks[walk.matched..];
        if !rest.is_empty()
            && self
                .index
                .find(rest[0], |n| self.nodes.get(n).hashes[0])
                .is_none()
        {
            node = self.add_node(node, rest.into());
        }
        (node != NONE).then_some(node)
    }

    fn add_node(&mut self, parent: u32, hashes: Box<[u64]>) -> u32 {
        self.run_bytes += run_bytes(hashes.len());
        let first = hashes[0];
        let node = self.nodes.take(Node {
            hashes,
            parent,
            children: 0,
            marks: NONE,
            marks_len: 0,
        });
        self.index.add(first, node);
        if parent != NONE {
            self.nodes.get_mut(parent).children += 1;
        }
        node
    }

    /// Splits a node after `at` blocks; the new upper half. The lower half keeps the number, so that
    /// pins and children stay where they are.
    fn split(&mut self, node: u32, at: usize) -> u32 {
        let lower = self.nodes.get_mut(node);
        let parent = lower.parent;
        let run = std::mem::take(&mut lower.hashes);
        let (head, tail): (Box<[u64]>, Box<[u64]>) = (run[..at].into(), run[at..].into());
        let (first, second) = (head[0], tail[0]);
        lower.hashes = tail;
        self.run_bytes += RUN_OVERHEAD_BYTES;
        let upper = self.nodes.take(Node {
            hashes: head,
            parent,
            children: 1,
            marks: NONE,
            marks_len: 0,
        });
        self.nodes.get_mut(node).parent = upper;
        self.index.replace(first, node, upper);
        self.index.add(second, node);
        self.copy_marks(node, upper);
        upper
    }
}

/// Blocks that agree, less than `most`: chained hashes agree up to one point and never after it.
fn bisect(run: &[u64], rest: &[u64], most: usize) -> usize {
    let (mut low, mut high) = (1, most - 1); // the first agrees, the last does not
    while low < high {
        let middle = low.midpoint(high);
        if run[middle] == rest[middle] {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
