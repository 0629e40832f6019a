//! What makes the tree shrink: unpinning, eviction, forgetting.

use super::node::{Hashes, Held, Holder, Holders, heap_bytes};
use super::{NIL, Pin, Radix};

impl Radix {
    /// The request ended: its path counts as used now and may be evicted again.
    #[expect(clippy::needless_pass_by_value, reason = "a pin is given back once")]
    pub fn unpin(&mut self, pin: Pin) {
        let Pin { node, slot, epoch } = pin;
        self.clock += 1;
        if self.owners[slot].epoch != epoch {
            return;
        }
        let mut node = node;
        while node != NIL {
            if let Some(mark) = self.mark_of(node, slot) {
                self.unpin_mark(slot, mark);
            }
            node = self.nodes[node].parent;
        }
        self.owners.enqueue(slot, &self.marks, self.clock);
        self.evict_surplus(slot);
    }

    /// Takes one pin from a mark; with the last it is the most recently used of the idle ones.
    pub(super) fn unpin_mark(&mut self, slot: u16, mark: u32) {
        self.marks[mark].pins -= 1;
        if self.marks[mark].pins > 0 {
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "stamps are kept modulo 2^32"
        )]
        let stamp = self.clock as u32;
        self.marks[mark].stamp = stamp;
        let owner = &mut self.owners[slot];
        owner.pinned.remove(mark, &mut self.marks);
        owner.idle.push_front(mark, &mut self.marks);
    }

    /// Drops everything an owner holds, pinned paths too. Its pins become void.
    pub fn forget(&mut self, owner: u32) {
        let Some(slot) = self.owners.find(owner) else {
            return;
        };
        for pinned in [false, true] {
            loop {
                let tail = self.owners[slot].list(pinned).tail;
                if tail == NIL {
                    break;
                }
                self.remove_mark(tail);
            }
        }
        self.owners.remove(slot);
    }

    /// Evicts what an owner holds over its capacity.
    pub(super) fn evict_surplus(&mut self, slot: u16) {
        let capacity_blocks = self.owners[slot].capacity_blocks;
        let surplus = self.owners.blocks(slot).saturating_sub(capacity_blocks);
        self.evict_blocks(slot, surplus as usize, usize::MAX);
    }

    /// Evicts this many blocks of an owner, those used longest ago, from the ends of their paths;
    /// fewer where the rest is pinned, or where they are spread over more than `marks_max` marks.
    pub(super) fn evict_blocks(&mut self, slot: u16, blocks: usize, marks_max: usize) {
        let mut left = blocks;
        for _ in 0..marks_max {
            let tail = self.evictable(slot);
            if left == 0 || tail == NIL {
                return;
            }
            let len = usize::from(self.marks[tail].len);
            if len <= left {
                self.remove_mark(tail);
                left -= len;
            } else {
                self.trim(tail, len - left);
                return;
            }
        }
    }

    /// The mark of an owner that goes next.
    fn evictable(&self, slot: u16) -> u32 {
        let owner = &self.owners[slot];
        #[cfg(test)]
        if self.pinned_evicted && owner.idle.tail == NIL {
            return owner.pinned.tail;
        }
        owner.idle.tail
    }

    /// Evicts the mark that was used longest ago of all owners'. False where all are pinned.
    pub(super) fn evict_oldest(&mut self) -> bool {
        let Some(slot) = self.owners.oldest(&self.marks, self.clock) else {
            return false;
        };
        let tail = self.owners[slot].idle.tail;
        self.remove_mark(tail);
        true
    }

    /// Shortens what a mark holds of its node, which has no node below it for this owner.
    fn trim(&mut self, mark: u32, len: usize) {
        let (node, slot) = (self.marks[mark].node, self.marks[mark].slot);
        let less = usize::from(self.marks[mark].len) - len;
        *self.owners.blocks_mut(slot) -= super::number(less);
        self.set_len(mark, len);
        self.shorten(node);
    }

    /// Takes a mark out, and its node where nobody else holds it.
    pub(super) fn remove_mark(&mut self, id: u32) {
        let mark = self.marks.remove(id);
        // The slot's content is gone but its links are in `mark`.
        *self.owners.blocks_mut(mark.slot) -= u32::from(mark.len);
        self.owners[mark.slot]
            .list(mark.pins > 0)
            .unlink(mark.prev, mark.next, &mut self.marks);
        match self.nodes[mark.node].holders.get() {
            Held::Many(group) => self.leave_group(mark.node, group, mark.slot),
            Held::One(_) | Held::Nobody => self.remove_node(mark.node),
        }
    }

    fn leave_group(&mut self, node: u32, group: u32, slot: u16) {
        let holders = &mut self.groups[group];
        let before = heap_bytes(holders.capacity() * size_of::<Holder>());
        holders.retain(|holder| holder.slot != slot);
        if holders.len() == 1 {
            let rest = holders.clone();
            self.set_holders(node, rest);
            return self.shorten(node);
        }
        if holders.capacity() > 4 * holders.len() {
            holders.shrink_to(2 * holders.len());
        }
        self.heap_bytes -= before - heap_bytes(holders.capacity() * size_of::<Holder>());
    }

    /// What the one holder of a node does not hold, nobody does.
    pub(super) fn shorten(&mut self, node: u32) {
        if let Held::One(mark) = self.nodes[node].holders.get() {
            let kept = usize::from(self.marks[mark].len);
            if kept < self.nodes[node].hashes.len() {
                self.set_hashes(node, |hashes| Hashes::new(&hashes[..kept]));
            }
        }
    }

    fn remove_node(&mut self, id: u32) {
        let first = self.nodes[id].hashes.first();
        self.index.remove(id, first, &mut self.nodes);
        let node = self.nodes.remove(id);
        self.heap_bytes -= node.hashes.heap_bytes();
        if node.parent != NIL {
            self.nodes[node.parent].children -= 1;
        }
    }

    /// Who holds a node, by slot.
    pub(super) fn holders_of(&self, node: u32) -> impl Iterator<Item = Holder> {
        let (one, many) = match self.nodes[node].holders.get() {
            Held::Nobody => (None, &[][..]),
            Held::One(mark) => {
                let slot = self.marks[mark].slot;
                let len = self.marks[mark].len;
                (Some(Holder { slot, len, mark }), &[][..])
            }
            Held::Many(group) => (None, &self.groups[group][..]),
        };
        one.into_iter().chain(many.iter().copied())
    }

    /// Puts other holders, at least one, in the place of those that a node has.
    pub(super) fn set_holders(&mut self, node: u32, holders: Vec<Holder>) {
        if let Held::Many(group) = self.nodes[node].holders.get() {
            let old = self.groups.remove(group);
            self.heap_bytes -= heap_bytes(old.capacity() * size_of::<Holder>());
        }
        self.nodes[node].holders = if let [holder] = holders[..] {
            Holders::one(holder.mark)
        } else {
            self.heap_bytes += heap_bytes(holders.capacity() * size_of::<Holder>());
            Holders::many(self.groups.insert(holders))
        };
    }

    /// Sets how much of its node a mark holds.
    pub(super) fn set_len(&mut self, mark: u32, len: usize) {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.marks[mark].len = len;
        let (node, slot) = (self.marks[mark].node, self.marks[mark].slot);
        if let Held::Many(group) = self.nodes[node].holders.get() {
            let holders = &mut self.groups[group];
            if let Ok(at) = holders.binary_search_by_key(&slot, |holder| holder.slot) {
                holders[at].len = len;
            }
        }
    }

    /// Puts other hashes in the place of those that a node has.
    pub(super) fn set_hashes(&mut self, node: u32, change: impl FnOnce(&[u64]) -> Hashes) {
        let hashes = &mut self.nodes[node].hashes;
        self.heap_bytes -= hashes.heap_bytes();
        *hashes = change(hashes.all());
        self.heap_bytes += hashes.heap_bytes();
    }
}
