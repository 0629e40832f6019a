//! Owners, each with its list of marks by last use, and the queue of the owners that hold the oldest marks.
//!
//! Marks are used leaf first, then their ancestors. So in a list every mark is more recent than those below
//! it, and the last is always one of the deepest. Marks of paths in flight are in a list of their own, in
//! the same order. Nothing is evicted from that list.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::node::Mark;
use super::slab::{NIL, Slab};

/// Owners at a time; their ids are below it too.
pub(super) const OWNERS_MAX: usize = u16::MAX as usize;
/// In place of the slot of an id that no owner has.
const NO_SLOT: u16 = u16::MAX;

/// A list of marks from the most to the least recently used.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };

    pub(super) fn push_front(&mut self, id: u32, marks: &mut Slab<Mark>) {
        marks[id].prev = NIL;
        marks[id].next = self.head;
        match self.head {
            NIL => self.tail = id,
            head => marks[head].prev = id,
        }
        self.head = id;
    }

    /// Puts `id` next to `after`, as the more recent of the two.
    pub(super) fn insert_before(&mut self, id: u32, after: u32, marks: &mut Slab<Mark>) {
        let prev = std::mem::replace(&mut marks[after].prev, id);
        marks[id].prev = prev;
        marks[id].next = after;
        match prev {
            NIL => self.head = id,
            prev => marks[prev].next = id,
        }
    }

    pub(super) fn remove(&mut self, id: u32, marks: &mut Slab<Mark>) {
        let (prev, next) = (marks[id].prev, marks[id].next);
        self.unlink(prev, next, marks);
    }

    /// Joins the neighbours of a mark that leaves.
    pub(super) fn unlink(&mut self, prev: u32, next: u32, marks: &mut Slab<Mark>) {
        match prev {
            NIL => self.head = next,
            prev => marks[prev].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => marks[next].prev = prev,
        }
    }
}

/// One owner.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) id: u32,
    /// Counts the owners that had this slot: pins of earlier ones are void.
    pub(super) epoch: u32,
    pub(super) capacity_blocks: u32,
    /// What may be evicted.
    pub(super) idle: List,
    /// Paths in flight.
    pub(super) pinned: List,
    /// The query that reported it last.
    pub(super) seen: u64,
    /// Whether the queue has an entry for it.
    queued: bool,
    live: bool,
}

impl Owner {
    pub(super) fn list(&mut self, pinned: bool) -> &mut List {
        if pinned {
            &mut self.pinned
        } else {
            &mut self.idle
        }
    }
}

/// All owners.
#[derive(Debug)]
pub(super) struct Owners {
    slots: Vec<Owner>,
    /// How many blocks each holds, by slot: every choice reads all of them.
    blocks: Vec<u32>,
    free: Vec<u16>,
    /// Slots by id: ids are dense, and every choice looks up all of them.
    by_id: Vec<u16>,
    /// Owners by the last use of their oldest idle mark. Entries may be too old, never too young:
    /// they are put right when they come up.
    oldest: BinaryHeap<Reverse<(u64, u16)>>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            blocks: Vec::new(),
            free: Vec::new(),
            by_id: Vec::new(),
            oldest: BinaryHeap::new(),
        }
    }

    /// Memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * (size_of::<Owner>() + size_of::<u16>())
            + self.blocks.capacity() * size_of::<u32>()
            + self.by_id.capacity() * size_of::<u16>()
            + self.oldest.capacity() * size_of::<Reverse<(u64, u16)>>()
    }

    /// Memory that one more owner would take, in bytes; an upper bound.
    pub(super) fn bytes_for_one(&self, id: u32) -> usize {
        let ids = (id as usize).min(OWNERS_MAX) + 1;
        self.bytes() + 8 * (size_of::<Owner>() + size_of::<u32>()) + ids * size_of::<u16>()
    }

    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<u16> {
        let slot = self.by_id.get(id as usize).copied();
        slot.filter(|slot| *slot != NO_SLOT)
    }

    /// A new owner; `None` where there are too many, or for an id that is too large.
    pub(super) fn add(&mut self, id: u32, capacity_blocks: u32) -> Option<u16> {
        if id as usize >= OWNERS_MAX {
            return None;
        }
        let fresh = |epoch, queued| Owner {
            id,
            epoch,
            capacity_blocks,
            idle: List::EMPTY,
            pinned: List::EMPTY,
            seen: 0,
            queued,
            live: true,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                let old = &mut self.slots[usize::from(slot)];
                *old = fresh(old.epoch, old.queued);
                self.blocks[usize::from(slot)] = 0;
                slot
            }
            None if self.slots.len() >= OWNERS_MAX => return None,
            None => {
                self.slots.push(fresh(0, false));
                self.blocks.push(0);
                // Each slot has at most one place in either: they never grow but here.
                self.free
                    .reserve_exact(self.slots.capacity() - self.free.len());
                self.oldest
                    .reserve_exact(self.slots.capacity() - self.oldest.len());
                u16::try_from(self.slots.len() - 1).ok()?
            }
        };
        let ids = self.by_id.len().max(id as usize + 1);
        self.by_id.resize(ids, NO_SLOT);
        self.by_id[id as usize] = slot;
        Some(slot)
    }

    /// How many blocks an owner holds.
    #[inline]
    pub(super) fn blocks(&self, slot: u16) -> u32 {
        self.blocks[usize::from(slot)]
    }

    pub(super) fn blocks_mut(&mut self, slot: u16) -> &mut u32 {
        &mut self.blocks[usize::from(slot)]
    }

    /// Takes an owner out that holds nothing any more.
    pub(super) fn remove(&mut self, slot: u16) {
        let owner = &mut self.slots[usize::from(slot)];
        owner.live = false;
        owner.epoch = owner.epoch.wrapping_add(1);
        self.by_id[owner.id as usize] = NO_SLOT;
        self.free.push(slot);
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (u16, &Owner)> {
        (0_u16..).zip(&self.slots).filter(|(_, owner)| owner.live)
    }

    /// Notes that an owner has idle marks.
    pub(super) fn enqueue(&mut self, slot: u16, marks: &Slab<Mark>, clock: u64) {
        let owner = &mut self.slots[usize::from(slot)];
        if !owner.queued && owner.idle.tail != NIL {
            owner.queued = true;
            self.oldest.push(Reverse((
                used_at(marks[owner.idle.tail].stamp, clock),
                slot,
            )));
        }
    }

    /// The owner whose oldest idle mark is the oldest of all.
    pub(super) fn oldest(&mut self, marks: &Slab<Mark>, clock: u64) -> Option<u16> {
        while let Some(mut top) = self.oldest.peek_mut() {
            let Reverse((stamp, slot)) = *top;
            let owner = &mut self.slots[usize::from(slot)];
            if owner.idle.tail == NIL {
                owner.queued = false;
                std::collections::binary_heap::PeekMut::pop(top);
                continue;
            }
            let actual = used_at(marks[owner.idle.tail].stamp, clock);
            if actual == stamp {
                return Some(slot);
            }
            *top = Reverse((actual, slot));
        }
        None
    }
}

/// The whole of a stamp, which is at most 2^32 operations old (a week at 7,000 a second; an older
/// one seems younger than it is).
pub(super) fn used_at(stamp: u32, clock: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "stamps are kept modulo 2^32"
    )]
    let age = (clock as u32).wrapping_sub(stamp);
    clock.saturating_sub(u64::from(age))
}

impl std::ops::Index<u16> for Owners {
    type Output = Owner;

    #[inline]
    fn index(&self, slot: u16) -> &Owner {
        &self.slots[usize::from(slot)]
    }
}

impl std::ops::IndexMut<u16> for Owners {
    #[inline]
    fn index_mut(&mut self, slot: u16) -> &mut Owner {
        &mut self.slots[usize::from(slot)]
    }
}
