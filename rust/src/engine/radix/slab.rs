//! A vector of slots with a free list inside it, that grows in small steps and knows its memory.

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// A slot that can point to the next free one while it is free itself.
pub(super) trait Slot {
    /// The field that links free slots.
    fn link(&mut self) -> &mut u32;
}

/// Slots of `T`; a freed one is used again before the vector grows.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<T>,
    free: u32,
    free_len: usize,
}

impl<T: Slot> Slab<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            free_len: 0,
        }
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free_len
    }

    /// Memory in bytes: what is allocated, used or not.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<T>()
    }

    fn spare(&self) -> usize {
        self.free_len + self.slots.capacity() - self.slots.len()
    }

    /// Memory that room for `count` more takes beyond what is allocated, at least.
    pub(super) fn growth(&self, count: usize) -> usize {
        count.saturating_sub(self.spare()) * size_of::<T>()
    }

    /// Makes room for `count` more, and for some in reserve as far as `bytes` allow. Growing by an
    /// eighth keeps what is allocated close to what is used.
    pub(super) fn reserve(&mut self, count: usize, bytes: usize) {
        let least = count.saturating_sub(self.spare());
        if least > 0 {
            let step = (self.slots.capacity() / 8).clamp(16, 1 << 16);
            let wanted = least.max(step.min(bytes / size_of::<T>()));
            self.slots
                .reserve_exact(self.slots.capacity() + wanted - self.slots.len());
        }
    }

    pub(super) fn take(&mut self, value: T) -> u32 {
        if self.free == NONE {
            let index = u32::try_from(self.slots.len()).unwrap_or(NONE);
            self.slots.push(value);
            return index;
        }
        let index = self.free;
        self.free = *self.slots[index as usize].link();
        self.free_len -= 1;
        self.slots[index as usize] = value;
        index
    }

    /// Frees a slot.
    pub(super) fn give(&mut self, index: u32) {
        *self.slots[index as usize].link() = self.free;
        self.free = index;
        self.free_len += 1;
    }

    pub(super) fn get(&self, index: u32) -> &T {
        &self.slots[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut T {
        &mut self.slots[index as usize]
    }

    /// Slots ever used.
    pub(super) fn slots_len(&self) -> usize {
        self.slots.len()
    }
}
