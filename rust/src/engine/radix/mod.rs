//! Who is believed to cache which prefix: a path-compressed radix tree over chained block hashes.

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

/// The tree. Owners are plain numbers (a replica's id).
#[derive(Debug)]
pub struct Radix {}

impl Radix {
    /// An empty tree.
    #[must_use]
    pub fn new(_config: RadixConfig) -> Self {
        Self {}
    }

    /// Records that `owner` now computes (and then caches) the prompt with these chained hashes,
    /// and pins the path until [`unpin`](Self::unpin). Evicts what must go to stay within the
    /// bounds; what does not fit even so is left out, from the end. `None`: nothing of it fits.
    pub fn insert(&mut self, _owner: u32, _blocks: &[u64]) -> Option<Pin> {
        None
    }

    /// The request ended: its path counts as used now and may be evicted again.
    pub fn unpin(&mut self, _pin: Pin) {}

    /// Appends `(owner, blocks)` for each owner that holds a prefix of `blocks`, the longest match
    /// first. Uses nothing up: order of eviction is unchanged.
    pub fn matches(&mut self, _blocks: &[u64], _out: &mut Vec<(u32, u32)>) {}

    /// Counts the part of the path that `owner` holds as used now.
    pub fn touch(&mut self, _owner: u32, _blocks: &[u64]) {}

    /// Sets how many blocks an owner may hold, evicting what is over (pinned paths excepted).
    pub fn set_capacity(&mut self, _owner: u32, _blocks: u32) {}

    /// Drops everything an owner holds, pinned paths too. Its pins become void.
    pub fn forget(&mut self, _owner: u32) {}

    /// Blocks an owner holds.
    #[must_use]
    pub fn owner_blocks(&self, _owner: u32) -> u32 {
        0
    }

    /// Memory in use, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        0
    }

    /// Checks every structural invariant; for tests.
    ///
    /// # Errors
    ///
    /// Names the first invariant found broken.
    pub fn check_invariants(&self) -> Result<(), String> {
        Ok(())
    }
}
