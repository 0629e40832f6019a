//! What ended requests teach the tree: their answers, and what their owner has evicted.

use smallvec::SmallVec;

use super::owner::used_at;
use super::{EVICT_MARKS_MAX, NIL, Pin, Radix};

/// The stamp of a mark that has been pinned since it was made.
const NEVER: u32 = 0;

impl Radix {
    /// Ends a pin like [`unpin`](Self::unpin), after which `more` follows the pinned path: the blocks
    /// of an answer that the owner computed behind a prompt of `depth` blocks. Of a prompt that is not
    /// held whole nothing can follow.
    pub fn extend(&mut self, pin: Pin, depth: usize, more: &[u64]) {
        let owner = &self.owners[pin.slot];
        let id = owner.id;
        if more.is_empty() || owner.epoch != pin.epoch {
            return self.unpin(pin);
        }
        let mut blocks = self.pinned_path(&pin, depth + more.len());
        let is_whole = blocks.len() == depth;
        self.unpin(pin);
        if is_whole {
            blocks.extend_from_slice(more);
            if let Some(pin) = self.insert(id, &blocks) {
                self.unpin(pin);
            }
        }
    }

    /// The hashes of a pinned path, with room for `capacity` of them.
    fn pinned_path(&self, pin: &Pin, capacity: usize) -> Vec<u64> {
        let mut path: SmallVec<[u32; 16]> = SmallVec::new();
        let mut node = pin.node;
        while node != NIL {
            path.push(node);
            node = self.nodes[node].parent;
        }
        let mut blocks = Vec::with_capacity(capacity);
        for node in path.iter().rev() {
            blocks.extend_from_slice(self.nodes[*node].hashes.all());
        }
        blocks
    }

    /// When block `at` of a pinned path was used last before it was pinned, in operations on the
    /// tree. `None`: the path is shorter, its owner is forgotten, or no request that had the block
    /// in its path has ended yet (a block that has joined an older leaf counts as used like that).
    fn used_before(&self, pin: &Pin, at: usize) -> Option<u64> {
        if self.owners[pin.slot].epoch != pin.epoch {
            return None;
        }
        let mut end = 0;
        let mut node = pin.node;
        while node != NIL {
            end += self.nodes[node].hashes.len();
            node = self.nodes[node].parent;
        }
        let mut node = pin.node;
        while node != NIL && at < end {
            end -= self.nodes[node].hashes.len();
            if at >= end {
                let mark = self.mark_of(node, pin.slot)?;
                let stamp = self.marks[mark].stamp;
                return (stamp != NEVER).then(|| used_at(stamp, self.clock));
            }
            node = self.nodes[node].parent;
        }
        None
    }

    /// How many blocks the pin's owner holds that were used no later than block `at` of the pinned
    /// path; those of paths in flight are left out. `None`: the block's use before cannot be told,
    /// among others where it is only being computed. Looks at no more than [`EVICT_MARKS_MAX`] marks.
    #[must_use]
    pub fn unused_since(&self, pin: &Pin, at: usize) -> Option<u32> {
        let used = self.used_before(pin, at)?;
        let mut blocks = 0;
        let mut mark = self.owners[pin.slot].idle.tail;
        for _ in 0..EVICT_MARKS_MAX {
            if mark == NIL || used_at(self.marks[mark].stamp, self.clock) > used {
                break;
            }
            blocks += u32::from(self.marks[mark].len);
            mark = self.marks[mark].prev;
        }
        Some(blocks)
    }

    /// Drops the blocks that [`unused_since`](Self::unused_since) counts: where block `at` was found
    /// missing, an owner that evicts in order of use has evicted these before it.
    pub fn drop_unused_since(&mut self, pin: &Pin, at: usize) {
        let Some(used) = self.used_before(pin, at) else {
            return;
        };
        for _ in 0..EVICT_MARKS_MAX {
            let tail = self.owners[pin.slot].idle.tail;
            if tail == NIL || used_at(self.marks[tail].stamp, self.clock) > used {
                return;
            }
            self.remove_mark(tail);
        }
    }
}
