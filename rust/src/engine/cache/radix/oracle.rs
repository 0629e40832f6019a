//! What the tree should do, block by block, with nothing compressed and nothing fast.

use std::collections::BTreeMap;

/// One block that an owner holds. Its chained hash says what is before it.
#[derive(Debug, Clone, Copy)]
struct Block {
    depth: usize,
    used: u64,
    pins: u32,
}

#[derive(Debug)]
struct Owner {
    capacity: usize,
    blocks: BTreeMap<u64, Block>,
}

/// A path in flight.
#[derive(Debug, Clone)]
pub(super) struct Path {
    owner: u32,
    epoch: u64,
    blocks: Vec<u64>,
}

/// The oracle. It knows no byte bound.
#[derive(Debug)]
pub(super) struct Oracle {
    capacity: usize,
    owners: BTreeMap<u32, (u64, Owner)>,
    clock: u64,
    epochs: u64,
}

impl Oracle {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity: capacity as usize,
            owners: BTreeMap::new(),
            clock: 0,
            epochs: 0,
        }
    }

    fn owner(&mut self, id: u32) -> &mut (u64, Owner) {
        self.epochs += 1;
        let (epoch, capacity) = (self.epochs, self.capacity);
        self.owners.entry(id).or_insert_with(|| {
            let blocks = BTreeMap::new();
            (epoch, Owner { capacity, blocks })
        })
    }

    pub(super) fn insert(&mut self, id: u32, blocks: &[u64]) -> Option<Path> {
        self.clock += 1;
        let (epoch, owner) = self.owner(id);
        let blocks = &blocks[..blocks.len().min(owner.capacity)];
        let held = owner.held(blocks);
        for block in &blocks[..held] {
            owner.pin(*block);
        }
        owner.evict((owner.blocks.len() + blocks.len() - held).saturating_sub(owner.capacity));
        let room = owner.capacity.saturating_sub(owner.blocks.len());
        let end = blocks.len().min(held + room);
        for (depth, block) in blocks.iter().enumerate().take(end).skip(held) {
            let new = Block {
                depth,
                used: 0,
                pins: 1,
            };
            owner.blocks.insert(*block, new);
        }
        let blocks = blocks[..end].to_vec();
        (end > 0).then_some(Path {
            owner: id,
            epoch: *epoch,
            blocks,
        })
    }

    pub(super) fn unpin(&mut self, path: &Path) {
        self.clock += 1;
        let clock = self.clock;
        let Some((epoch, owner)) = self.owners.get_mut(&path.owner) else {
            return;
        };
        if *epoch != path.epoch {
            return;
        }
        for block in &path.blocks {
            let block = owner.blocks.get_mut(block).expect("what is pinned is held");
            block.pins -= 1;
            if block.pins == 0 {
                block.used = clock;
            }
        }
        owner.evict(owner.blocks.len().saturating_sub(owner.capacity));
    }

    pub(super) fn extend(&mut self, path: &Path, depth: usize, more: &[u64]) {
        self.unpin(path);
        let is_live = self
            .owners
            .get(&path.owner)
            .is_some_and(|(epoch, _)| *epoch == path.epoch);
        if is_live && !more.is_empty() && path.blocks.len() == depth {
            let blocks = [&path.blocks, more].concat();
            if let Some(path) = self.insert(path.owner, &blocks) {
                self.unpin(&path);
            }
        }
    }

    /// No request that had the block in its path has ended yet.
    pub(super) fn is_new(&self, path: &Path, at: usize) -> bool {
        let owner = self.owners.get(&path.owner);
        let blocks = owner.map(|(_, owner)| &owner.blocks);
        let block = path.blocks.get(at).and_then(|hash| blocks?.get(hash));
        block.is_some_and(|block| block.used == 0)
    }

    /// Blocks dropped.
    pub(super) fn drop_unused_since(&mut self, path: &Path, at: usize) -> u32 {
        let Some((epoch, owner)) = self.owners.get_mut(&path.owner) else {
            return 0;
        };
        if *epoch != path.epoch {
            return 0;
        }
        // The path may be shorter than what was held: it ends at the owner's capacity.
        let Some(block) = path.blocks.get(at) else {
            return 0;
        };
        let used = owner.blocks[block].used;
        let before = owner.blocks.len();
        owner
            .blocks
            .retain(|_, block| block.pins > 0 || block.used > used);
        u32::try_from(before - owner.blocks.len()).unwrap()
    }

    pub(super) fn touch(&mut self, id: u32, blocks: &[u64]) {
        let held = self.matched(id, blocks);
        if self.owners.contains_key(&id)
            && let Some(path) = self.insert(id, &blocks[..held])
        {
            self.unpin(&path);
        }
    }

    pub(super) fn set_capacity(&mut self, id: u32, capacity: u32) {
        let owner = &mut self.owner(id).1;
        owner.capacity = capacity as usize;
        owner.evict(owner.blocks.len().saturating_sub(owner.capacity));
    }

    pub(super) fn forget(&mut self, id: u32) {
        self.owners.remove(&id);
    }

    pub(super) fn owner_blocks(&self, id: u32) -> u32 {
        self.owners
            .get(&id)
            .map_or(0, |(_, owner)| u32::try_from(owner.blocks.len()).unwrap())
    }

    pub(super) fn matched(&self, id: u32, blocks: &[u64]) -> usize {
        self.owners
            .get(&id)
            .map_or(0, |(_, owner)| owner.held(blocks))
    }

    pub(super) fn matches(&self, blocks: &[u64]) -> BTreeMap<u32, u32> {
        let found = self
            .owners
            .keys()
            .map(|id| (*id, u32::try_from(self.matched(*id, blocks)).unwrap()));
        found.filter(|(_, matched)| *matched > 0).collect()
    }
}

impl Owner {
    fn held(&self, blocks: &[u64]) -> usize {
        blocks
            .iter()
            .take_while(|block| self.blocks.contains_key(block))
            .count()
    }

    fn pin(&mut self, block: u64) {
        self.blocks.get_mut(&block).expect("it is held").pins += 1;
    }

    /// The block used longest ago goes first, of one path the deepest.
    fn evict(&mut self, count: usize) {
        for _ in 0..count {
            let idle = self.blocks.iter().filter(|(_, block)| block.pins == 0);
            let oldest = idle.min_by_key(|(_, block)| (block.used, usize::MAX - block.depth));
            let Some(hash) = oldest.map(|(hash, _)| *hash) else {
                return;
            };
            self.blocks.remove(&hash);
        }
    }
}
