//! From a node's first block hash to the node: one table for all, of fixed size.
//!
//! Block hashes are uniform already, so their low bits are the place; linear probing with
//! backward-shift deletion needs no tombstones and never has to be built anew.

use super::slab::NONE;

/// Open-addressing table of node numbers.
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<u32>,
    len: usize,
}

impl Index {
    /// A table for at most seven eighths of the smallest power of two not below `slots`.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: vec![NONE; slots.next_power_of_two().max(16)],
            len: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u32>()
    }

    /// How many more nodes fit.
    pub(super) fn room(&self) -> usize {
        self.slots.len() / 8 * 7 - self.len
    }

    fn place(&self, hash: u64) -> usize {
        // The table has at most 2^32 slots: the low bits are enough on every platform.
        usize::try_from(hash & 0xffff_ffff).unwrap_or(0) & (self.slots.len() - 1)
    }

    /// The node whose first hash is `hash`.
    pub(super) fn find(&self, hash: u64, first: impl Fn(u32) -> u64) -> Option<u32> {
        let mut place = self.place(hash);
        loop {
            let node = self.slots[place];
            if node == NONE {
                return None;
            }
            if first(node) == hash {
                return Some(node);
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a node; there is [`room`](Self::room).
    pub(super) fn add(&mut self, hash: u64, node: u32) {
        let mut place = self.place(hash);
        while self.slots[place] != NONE {
            place = (place + 1) & (self.slots.len() - 1);
        }
        self.slots[place] = node;
        self.len += 1;
    }

    /// Replaces the node that `hash` leads to.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let mut place = self.place(hash);
        while self.slots[place] != old {
            place = (place + 1) & (self.slots.len() - 1);
        }
        self.slots[place] = new;
    }

    /// Removes a node that is in the table.
    pub(super) fn remove(&mut self, hash: u64, node: u32, first: impl Fn(u32) -> u64) {
        let mask = self.slots.len() - 1;
        let mut hole = self.place(hash);
        while self.slots[hole] != node {
            hole = (hole + 1) & mask;
        }
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let moved = self.slots[place];
            if moved == NONE {
                break;
            }
            let home = self.place(first(moved));
            // `moved` may fill the hole if its home is not behind the hole on the way to `place`.
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(hole) & mask) {
                self.slots[hole] = moved;
                hole = place;
            }
        }
        self.slots[hole] = NONE;
        self.len -= 1;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}
