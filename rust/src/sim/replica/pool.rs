//! Paged KV: blocks with reference counts, and the prefix cache over them.
//!
//! A block that no sequence holds is in the free list, and keeps its content's hash until it is
//! taken. So the list's order (least recently freed first) is the cache's order of eviction. The
//! list is threaded through the blocks; blocks never used before are not materialised.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// End of the free list.
const NONE: u32 = u32::MAX;

/// The keys are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[derive(Debug, Clone)]
struct Block {
    hash: Option<u64>,
    refs: u32,
    prev: u32,
    next: u32,
}

/// The blocks of one replica.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    blocks: Vec<Block>,
    blocks_max: u32,
    /// Where a hash's content is: entered once, see the module's note on duplicates.
    table: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    head: u32,
    tail: u32,
    free: u32,
}

impl Pool {
    pub(super) fn new(blocks_max: u32) -> Self {
        Self {
            blocks: Vec::new(),
            blocks_max,
            table: HashMap::default(),
            head: NONE,
            tail: NONE,
            free: blocks_max,
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.blocks_max
    }

    /// Blocks that nobody holds, whether or not their content can still be hit.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    pub(super) fn used(&self) -> u32 {
        self.blocks_max - self.free
    }

    /// Blocks of the longest cached prefix of `hashes`, into `found`.
    pub(super) fn lookup(&self, hashes: &[u64], found: &mut Vec<u32>) {
        found.clear();
        found.extend(
            hashes
                .iter()
                .map_while(|hash| self.table.get(hash).copied()),
        );
    }

    /// How many leading hashes are cached.
    pub(super) fn cached(&self, hashes: &[u64]) -> u32 {
        let cached = hashes
            .iter()
            .take_while(|hash| self.table.contains_key(*hash))
            .count();
        u32::try_from(cached).unwrap_or(u32::MAX)
    }

    /// How many of these blocks would leave the free list if they were held.
    pub(super) fn count_free(&self, blocks: &[u32]) -> u32 {
        let free = blocks
            .iter()
            .filter(|&&block| self.blocks[block as usize].refs == 0)
            .count();
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// Holds cached blocks.
    pub(super) fn hold(&mut self, blocks: &[u32]) {
        for &block in blocks {
            if self.blocks[block as usize].refs == 0 {
                self.unlink(block);
            }
            self.blocks[block as usize].refs += 1;
        }
    }

    /// Takes one block for new content; what it cached is gone. `None` when all are held.
    pub(super) fn take(&mut self) -> Option<u32> {
        if let Ok(fresh) = u32::try_from(self.blocks.len())
            && fresh < self.blocks_max
        {
            self.blocks.push(Block {
                hash: None,
                refs: 1,
                prev: NONE,
                next: NONE,
            });
            self.free -= 1;
            return Some(fresh);
        }
        let block = self.head;
        if block == NONE {
            return None;
        }
        self.unlink(block);
        let taken = &mut self.blocks[block as usize];
        taken.refs = 1;
        if let Some(hash) = taken.hash.take() {
            self.table.remove(&hash);
        }
        Some(block)
    }

    /// Makes a held block's content hittable, unless the same content is so already.
    pub(super) fn register(&mut self, block: u32, hash: u64) {
        let entry = self.table.entry(hash).or_insert(block);
        if *entry == block {
            self.blocks[block as usize].hash = Some(hash);
        }
    }

    /// Lets go of a sequence's blocks, its last one first: the end of a prefix is evicted before
    /// its beginning.
    pub(super) fn release(&mut self, blocks: &[u32]) {
        for &block in blocks.iter().rev() {
            let released = &mut self.blocks[block as usize];
            released.refs -= 1;
            if released.refs == 0 {
                self.append(block);
            }
        }
    }

    /// Forgets all cached content; held blocks stay held.
    pub(super) fn forget(&mut self) {
        self.table.clear();
        for block in &mut self.blocks {
            block.hash = None;
        }
    }

    fn append(&mut self, block: u32) {
        let last = self.tail;
        self.blocks[block as usize].prev = last;
        self.blocks[block as usize].next = NONE;
        match self.blocks.get_mut(last as usize) {
            Some(last) => last.next = block,
            None => self.head = block,
        }
        self.tail = block;
        self.free += 1;
    }

    fn unlink(&mut self, block: u32) {
        let Block { prev, next, .. } = self.blocks[block as usize];
        match self.blocks.get_mut(prev as usize) {
            Some(prev) => prev.next = next,
            None => self.head = next,
        }
        match self.blocks.get_mut(next as usize) {
            Some(next) => next.prev = prev,
            None => self.tail = prev,
        }
        self.free -= 1;
    }

    /// Compares counts, list and table with `held`, the blocks of all sequences, one entry per
    /// reference.
    pub(super) fn check(&self, held: impl Iterator<Item = u32>) -> Result<(), String> {
        let mut refs = vec![0u32; self.blocks.len()];
        for block in held {
            *refs
                .get_mut(block as usize)
                .ok_or("a sequence holds a block that does not exist")? += 1;
        }
        let mut listed = 0u32;
        let (mut block, mut prev) = (self.head, NONE);
        while block != NONE {
            let here = &self.blocks[block as usize];
            if here.refs != 0 || here.prev != prev || listed > self.blocks_max {
                return Err(format!("the free list is broken at block {block}"));
            }
            listed += 1;
            (prev, block) = (block, here.next);
        }
        if prev != self.tail {
            return Err("the free list does not end at its tail".into());
        }
        for (index, block) in self.blocks.iter().enumerate() {
            if block.refs != refs[index] {
                return Err(format!(
                    "block {index}: {} references, held {} times",
                    block.refs, refs[index]
                ));
            }
            let entered = block
                .hash
                .map(|hash| self.table.get(&hash).map(|&found| found as usize));
            if entered.is_some_and(|found| found != Some(index)) {
                return Err(format!("block {index} is not in the table under its hash"));
            }
        }
        let used = refs.iter().filter(|&&count| count > 0).count();
        let fresh = self.blocks_max as usize - self.blocks.len();
        if used + listed as usize + fresh != self.blocks_max as usize
            || listed as usize + fresh != self.free as usize
        {
            return Err(format!(
                "{used} used, {listed} listed and {fresh} fresh blocks, {} free",
                self.free
            ));
        }
        let hashed = self
            .blocks
            .iter()
            .filter(|block| block.hash.is_some())
            .count();
        if hashed != self.table.len() {
            return Err(format!(
                "{hashed} blocks have a hash, the table {} entries",
                self.table.len()
            ));
        }
        Ok(())
    }
}
