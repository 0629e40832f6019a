//! Nodes of the tree and the marks that say who holds them.

/// Blocks in one node at most: bounds what a split copies and what is evicted at once.
pub(super) const NODE_BLOCKS_MAX: usize = 256;

/// A run of blocks without a branch. 32 bytes.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) hashes: Hashes,
    /// `NIL` at the first block of prompts.
    pub(super) parent: u32,
    pub(super) children: u32,
    pub(super) holders: Holders,
    /// The next node in its bucket of the index.
    pub(super) next: u32,
}

/// Chained hashes of a node's blocks. One block, the most wasteful shape, needs no allocation.
#[derive(Debug)]
pub(super) enum Hashes {
    One(u64),
    Many(Box<[u64]>),
}

impl Default for Hashes {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Hashes {
    /// `hashes` is not empty.
    pub(super) fn new(hashes: &[u64]) -> Self {
        match hashes {
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    /// `head` and `tail` joined.
    pub(super) fn joined(head: &[u64], tail: &[u64]) -> Self {
        let mut all = Vec::with_capacity(head.len() + tail.len());
        all.extend_from_slice(head);
        all.extend_from_slice(tail);
        Self::Many(all.into_boxed_slice())
    }

    #[inline]
    pub(super) fn all(&self) -> &[u64] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    #[inline]
    pub(super) fn first(&self) -> u64 {
        self.all().first().copied().unwrap_or_default()
    }

    /// Memory behind it, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(many) => heap_bytes(size_of_val::<[u64]>(many)),
        }
    }
}

/// What an allocation of some size takes, in bytes: eight for the allocator, in steps of 16, at
/// least 32 (glibc; others are close).
pub(super) fn heap_bytes(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    (bytes + 8).next_multiple_of(16).max(32)
}

/// Who holds a node: one mark, or a group of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holders(u32);

/// Held by whom: what [`Holders`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nobody,
    /// The owner of this mark.
    One(u32),
    /// The owners in this group.
    Many(u32),
}

const GROUP: u32 = 1 << 31;

impl Holders {
    pub(super) const NOBODY: Self = Self(u32::MAX);

    pub(super) fn one(mark: u32) -> Self {
        Self(mark)
    }

    pub(super) fn many(group: u32) -> Self {
        Self(group | GROUP)
    }

    #[inline]
    pub(super) fn get(self) -> Held {
        match self {
            Self::NOBODY => Held::Nobody,
            Self(group) if group & GROUP != 0 => Held::Many(group & !GROUP),
            Self(mark) => Held::One(mark),
        }
    }
}

impl Default for Holders {
    fn default() -> Self {
        Self::NOBODY
    }
}

/// One holder in a group, which is sorted by `slot`. 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) slot: u16,
    /// As in the mark.
    pub(super) len: u16,
    pub(super) mark: u32,
}

/// An owner holds a node, or its first blocks. 24 bytes.
#[derive(Debug, Default)]
pub(super) struct Mark {
    pub(super) node: u32,
    /// Of the owner.
    pub(super) slot: u16,
    /// Blocks of the node that are held, from its first.
    pub(super) len: u16,
    /// Towards the more recently used.
    pub(super) prev: u32,
    /// Towards the less recently used.
    pub(super) next: u32,
    /// When it was used last, in operations on the tree, modulo 2^32.
    pub(super) stamp: u32,
    /// Requests in flight whose paths lead through it.
    pub(super) pins: u32,
}

const _: () =
    assert!(size_of::<Node>() == 32 && size_of::<Mark>() == 24 && size_of::<Holder>() == 8);
