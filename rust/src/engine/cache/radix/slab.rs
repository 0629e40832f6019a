//! Slots of one size, addressed by number, in chunks that come and go.
//!
//! A vector that doubles would take up to three times its content while it grows, and never give
//! anything back. Here memory grows by one chunk at a time. The lowest free slot is taken first so
//! that high chunks run empty. An empty chunk is freed.

use std::ops::{Index, IndexMut};

/// No slot.
pub(super) const NIL: u32 = u32::MAX;

/// Slots in a chunk.
const CHUNK: usize = 1_024;
const WORDS: usize = CHUNK / 64;

/// Chunks of slots.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// A freed chunk is an empty slice.
    chunks: Vec<Box<[T]>>,
    books: Vec<Book>,
    /// One bit per chunk: it exists and has a free slot.
    open: Vec<u64>,
    /// No word of `open` before this one has a bit set.
    open_from: usize,
    allocated: usize,
    len: usize,
}

/// Which slots of a chunk are free.
#[derive(Debug, Clone)]
struct Book {
    free: [u64; WORDS],
    used: usize,
}

impl<T: Default> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            books: Vec::new(),
            open: Vec::new(),
            open_from: 0,
            allocated: 0,
            len: 0,
        }
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.allocated * CHUNK * size_of::<T>()
            + self.chunks.capacity() * size_of::<Box<[T]>>()
            + self.books.capacity() * size_of::<Book>()
            + self.open.capacity() * size_of::<u64>()
    }

    /// Memory that `count` more slots would take, in bytes; an upper bound.
    pub(super) fn bytes_for(&self, count: usize) -> usize {
        let free = self.allocated * CHUNK - self.len;
        let chunks = count.saturating_sub(free).div_ceil(CHUNK);
        if chunks == 0 {
            return 0;
        }
        let growth = size_of::<Box<[T]>>() + size_of::<Book>() + size_of::<u64>();
        // The vectors that keep the chunks double.
        let kept = if self.chunks.len() + chunks > self.chunks.capacity() {
            (self.chunks.capacity() + chunks + 4) * growth
        } else {
            0
        };
        chunks * CHUNK * size_of::<T>() + kept
    }

    /// Takes the lowest free slot.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let chunk = self.open_chunk();
        let book = &mut self.books[chunk];
        let word = book.free.iter().position(|&word| word != 0).unwrap_or(0);
        let bit = book.free[word].trailing_zeros() as usize;
        book.free[word] &= !(1 << bit);
        book.used += 1;
        if book.used == CHUNK {
            self.open[chunk / 64] &= !(1 << (chunk % 64));
        }
        self.len += 1;
        let offset = word * 64 + bit;
        self.chunks[chunk][offset] = value;
        number(chunk * CHUNK + offset)
    }

    /// The lowest chunk with a free slot, which may be a new one.
    fn open_chunk(&mut self) -> usize {
        let ahead = self.open.get(self.open_from..).unwrap_or_default();
        if let Some(offset) = ahead.iter().position(|&word| word != 0) {
            self.open_from += offset;
            return self.open_from * 64 + self.open[self.open_from].trailing_zeros() as usize;
        }
        let chunk = self
            .chunks
            .iter()
            .position(|chunk| chunk.is_empty())
            .unwrap_or_else(|| {
                self.chunks.push(Box::default());
                self.books.push(Book {
                    free: [0; WORDS],
                    used: 0,
                });
                self.open.resize(self.chunks.len().div_ceil(64), 0);
                self.chunks.len() - 1
            });
        self.chunks[chunk] = std::iter::repeat_with(T::default).take(CHUNK).collect();
        self.books[chunk].free = [u64::MAX; WORDS];
        self.mark_open(chunk);
        self.allocated += 1;
        chunk
    }

    fn mark_open(&mut self, chunk: usize) {
        self.open[chunk / 64] |= 1 << (chunk % 64);
        self.open_from = self.open_from.min(chunk / 64);
    }

    /// What is at a number: of a free slot the default, or nothing.
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.chunks
            .get(id as usize / CHUNK)?
            .get(id as usize % CHUNK)
    }

    /// Frees a slot and gives back what was in it.
    pub(super) fn remove(&mut self, id: u32) -> T {
        let (chunk, offset) = (id as usize / CHUNK, id as usize % CHUNK);
        let value = std::mem::take(&mut self.chunks[chunk][offset]);
        let book = &mut self.books[chunk];
        book.free[offset / 64] |= 1 << (offset % 64);
        book.used -= 1;
        self.len -= 1;
        let spare = self.allocated * CHUNK - self.len;
        if book.used == 0 && spare >= 2 * CHUNK {
            self.chunks[chunk] = Box::default();
            self.open[chunk / 64] &= !(1 << (chunk % 64));
            self.allocated -= 1;
        } else {
            self.mark_open(chunk);
        }
        value
    }

    /// The number behind the last slot's.
    pub(super) fn end(&self) -> u32 {
        number(self.chunks.len() * CHUNK)
    }

    /// Whether a slot is in use.
    pub(super) fn has(&self, id: u32) -> bool {
        let (chunk, offset) = (id as usize / CHUNK, id as usize % CHUNK);
        let there = self
            .chunks
            .get(chunk)
            .is_some_and(|slots| !slots.is_empty());
        there && self.books[chunk].free[offset / 64] & (1 << (offset % 64)) == 0
    }

    /// Every slot in use.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        let chunks = self.chunks.iter().zip(&self.books).enumerate();
        let words =
            chunks
                .filter(|(_, (slots, _))| !slots.is_empty())
                .flat_map(|(chunk, (_, book))| {
                    let words = book.free.iter().enumerate();
                    words.map(move |(word, free)| (chunk * CHUNK + word * 64, !free))
                });
        words.flat_map(|(first, used)| bits(used).map(move |bit| number(first + bit)))
    }
}

/// The places of the bits that are set.
fn bits(word: u64) -> impl Iterator<Item = usize> {
    let rest = std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)));
    rest.take_while(|rest| *rest != 0)
        .map(|rest| rest.trailing_zeros() as usize)
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: u32) -> &T {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}

/// A count or position as it is stored; the byte bound keeps all of them below 2^31.
#[inline]
pub(super) fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_given_back_once_chunks_are_empty() {
        let mut slab = Slab::new();
        let ids: Vec<u32> = (0..10 * CHUNK as u64)
            .map(|value| slab.insert(value))
            .collect();
        let full = slab.bytes();
        for id in &ids[100..] {
            slab.remove(*id);
        }
        assert!(slab.bytes() < full / 3);
        assert_eq!(slab.insert(7), 100, "the lowest free slot is taken first");
    }

    proptest! {
        #[test]
        fn a_slab_keeps_what_it_was_given(ops in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..4_000)) {
            let mut slab = Slab::new();
            let mut kept: Vec<(u32, u64)> = Vec::new();
            for (value, (grow, pick)) in (0_u64..).zip(ops) {
                if grow || kept.is_empty() {
                    let before = slab.bytes() + slab.bytes_for(1);
                    kept.push((slab.insert(value), value));
                    prop_assert!(slab.bytes() <= before);
                } else {
                    let (id, value) = kept.swap_remove(pick.index(kept.len()));
                    prop_assert_eq!(slab.remove(id), value);
                }
            }
            prop_assert_eq!(slab.len(), kept.len());
            for &(id, value) in &kept {
                prop_assert_eq!(slab[id], value);
            }
            let mut ids: Vec<u32> = kept.iter().map(|&(id, _)| id).collect();
            ids.sort_unstable();
            prop_assert_eq!(slab.ids().collect::<Vec<_>>(), ids);
        }
    }
}
