//! Nodes by the hash of their first block: a linear hash table (Litwin 1980).
//!
//! It grows and shrinks by one bucket per node that comes or goes, so no operation ever moves all
//! of it. (A table that doubles stalls for tens of milliseconds at a million nodes.) A bucket is
//! four bytes per node at every size. Block hashes are keyed, so that no client can aim at a
//! bucket.

use super::node::Node;
use super::slab::{NIL, Slab};

/// Buckets of an empty index, and by how many memory grows.
const CHUNK: usize = 1_024;

/// Heads of the bucket chains; the links are in the nodes.
#[derive(Debug)]
pub(super) struct NodeIndex {
    chunks: Vec<Box<[u32]>>,
    /// Buckets in use.
    count: usize,
    /// The power of two at `count` or below it.
    base: usize,
    len: usize,
}

impl NodeIndex {
    pub(super) fn new() -> Self {
        Self {
            chunks: vec![new_chunk()],
            count: CHUNK,
            base: CHUNK,
            len: 0,
        }
    }

    /// Nodes in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<u32>()
            + self.chunks.capacity() * size_of::<Box<[u32]>>()
    }

    /// Memory that `count` more nodes would take, in bytes; an upper bound.
    pub(super) fn bytes_for(&self, count: usize) -> usize {
        let buckets = (self.len + count).max(self.count).div_ceil(CHUNK);
        let chunks = buckets.saturating_sub(self.chunks.len());
        if chunks == 0 {
            return 0;
        }
        let kept = (self.chunks.capacity() + chunks + 4) * size_of::<Box<[u32]>>();
        chunks * CHUNK * size_of::<u32>() + kept
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "low bits are what is wanted"
    )]
    fn bucket_of(&self, hash: u64) -> usize {
        let bucket = hash as usize & (2 * self.base - 1);
        if bucket < self.count {
            bucket
        } else {
            bucket - self.base
        }
    }

    #[inline]
    fn head(&mut self, bucket: usize) -> &mut u32 {
        &mut self.chunks[bucket / CHUNK][bucket % CHUNK]
    }

    /// The node whose first block has this hash.
    #[inline]
    pub(super) fn find(&self, hash: u64, nodes: &Slab<Node>) -> Option<u32> {
        let bucket = self.bucket_of(hash);
        let mut id = self.chunks[bucket / CHUNK][bucket % CHUNK];
        while id != NIL {
            let node = &nodes[id];
            if node.hashes.first() == hash {
                return Some(id);
            }
            id = node.next;
        }
        None
    }

    /// Adds a node that is not in it.
    pub(super) fn insert(&mut self, id: u32, nodes: &mut Slab<Node>) {
        let bucket = self.bucket_of(nodes[id].hashes.first());
        nodes[id].next = std::mem::replace(self.head(bucket), id);
        self.len += 1;
        if self.len > self.count {
            self.grow(nodes);
        }
    }

    /// Takes out a node whose first hash is `hash`.
    pub(super) fn remove(&mut self, id: u32, hash: u64, nodes: &mut Slab<Node>) {
        let bucket = self.bucket_of(hash);
        let next = nodes[id].next;
        let mut at = *self.head(bucket);
        if at == id {
            *self.head(bucket) = next;
        } else {
            while nodes[at].next != id {
                at = nodes[at].next;
            }
            nodes[at].next = next;
        }
        self.len -= 1;
        if self.len < self.count / 2 && self.count > CHUNK {
            self.shrink(nodes);
        }
    }

    /// Puts `new` in the place of `old`, whose first hash it has.
    pub(super) fn replace(&mut self, old: u32, new: u32, nodes: &mut Slab<Node>) {
        let bucket = self.bucket_of(nodes[new].hashes.first());
        nodes[new].next = nodes[old].next;
        let mut at = *self.head(bucket);
        if at == old {
            *self.head(bucket) = new;
            return;
        }
        while nodes[at].next != old {
            at = nodes[at].next;
        }
        nodes[at].next = new;
    }

    /// One bucket more: the next in turn gives up those that belong to the new one.
    fn grow(&mut self, nodes: &mut Slab<Node>) {
        if self.count == self.chunks.len() * CHUNK {
            self.chunks.push(new_chunk());
        }
        let mut id = std::mem::replace(self.head(self.count - self.base), NIL);
        self.count += 1;
        let base = self.base;
        while id != NIL {
            let next = nodes[id].next;
            let bucket = self.bucket_of(nodes[id].hashes.first());
            nodes[id].next = std::mem::replace(self.head(bucket), id);
            id = next;
        }
        if self.count == 2 * base {
            self.base = self.count;
        }
    }

    /// One bucket less: the last joins the one it came from.
    fn shrink(&mut self, nodes: &mut Slab<Node>) {
        if self.count == self.base {
            self.base /= 2;
        }
        self.count -= 1;
        let last = self.count;
        let mut id = std::mem::replace(self.head(last), NIL);
        let target = last - self.base;
        while id != NIL {
            let next = nodes[id].next;
            nodes[id].next = std::mem::replace(self.head(target), id);
            id = next;
        }
        // A chunk is kept in reserve, so that a count around its edge does not allocate each time.
        if self.count + CHUNK < (self.chunks.len() - 1) * CHUNK {
            self.chunks.pop();
        }
    }
}

fn new_chunk() -> Box<[u32]> {
    vec![NIL; CHUNK].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::super::node::Hashes;
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_node_is_found_while_the_index_grows_and_shrinks() {
        let mut rng = Rng::new(5);
        let mut nodes = Slab::new();
        let mut index = NodeIndex::new();
        let mut present: Vec<(u32, u64)> = Vec::new();
        let mut bytes_max = 0;
        for round in 0..60_000_u32 {
            // Up to about 20,000 nodes, then down again.
            let is_growing = rng.below(10) < if round < 30_000 { 8 } else { 3 };
            if is_growing || present.is_empty() {
                let hash = rng.next_u64();
                let id = nodes.insert(Node {
                    hashes: Hashes::One(hash),
                    ..Node::default()
                });
                let bound = index.bytes() + index.bytes_for(1);
                index.insert(id, &mut nodes);
                assert!(index.bytes() <= bound);
                present.push((id, hash));
            } else {
                let (id, hash) = present.swap_remove(rng.below(present.len()));
                index.remove(id, hash, &mut nodes);
                nodes.remove(id);
                assert_eq!(index.find(hash, &nodes), None);
            }
            bytes_max = bytes_max.max(index.bytes());
            if round % 1_000 == 0 {
                for &(id, hash) in &present {
                    assert_eq!(index.find(hash, &nodes), Some(id));
                }
                assert_eq!(index.len(), present.len());
            }
        }
        assert!(index.bytes() < bytes_max);
    }
}
