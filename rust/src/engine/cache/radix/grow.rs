//! What makes the tree grow: insertion, splits, pins.

use super::node::{Hashes, Held, Holder, Holders, Mark, NODE_BLOCKS_MAX, Node, heap_bytes};
use super::{EVICT_MARKS_MAX, NIL, Pin, Radix, Step, Stop, number};

/// Rounds of making room, each of which may find that others' nodes were in the path.
const ROOM_ROUNDS: usize = 3;

/// What an owner holds of the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldPath {
    /// Nodes held as far as the path goes through them.
    nodes: usize,
    /// Nodes with a mark, the last of which may be held in part.
    marks: usize,
    pub(super) blocks: usize,
}

/// Things that will be allocated; each an upper bound.
#[derive(Debug, Default, Clone, Copy)]
struct Need {
    nodes: usize,
    marks: usize,
    groups: usize,
    heap_bytes: usize,
}

impl Radix {
    /// Records that `owner` now computes (and then caches) the prompt with these chained hashes,
    /// and pins the path until [`unpin`](Self::unpin). Evicts what must go to stay within the
    /// bounds; what does not fit even so is left out, from the end. `None`: nothing of it fits.
    pub fn insert(&mut self, owner: u32, blocks: &[u64]) -> Option<Pin> {
        self.clock += 1;
        let slot = self.slot_of(owner)?;
        let capacity = self.owners[slot].capacity_blocks as usize;
        let blocks = &blocks[..blocks.len().min(capacity)];
        let goal = self.shape_path(blocks);
        let mut held = self.held(slot);
        let after = self.owners.blocks(slot) as usize + goal - held.blocks;
        let surplus = after.saturating_sub(capacity);
        let mut protected = 0;
        if surplus > 0 || !self.fits(self.need(slot, goal, held)) {
            protected = held.marks;
            self.protect(slot, protected);
            self.evict_blocks(slot, surplus, EVICT_MARKS_MAX);
            self.make_room(slot, &blocks[..goal]);
            held = self.held(slot);
        }
        let goal = self.affordable(slot, goal, held);
        let adopted = self.adopt(slot, goal, held);
        if adopted < protected {
            self.release(slot, adopted);
        }
        if adopted == self.path.len() {
            self.append(slot, blocks, goal, protected);
        } else {
            self.path.truncate(adopted);
        }
        self.pin_path(slot, protected)
    }

    /// The slot of an owner, new or not; `None` where there is no room for another.
    fn slot_of(&mut self, owner: u32) -> Option<u16> {
        if let Some(slot) = self.owners.find(owner) {
            return Some(slot);
        }
        if !self.has_room(self.owners.bytes_for_one(owner)) {
            return None;
        }
        self.owners.add(owner, self.config.capacity_blocks)
    }

    /// Walks along `blocks` and splits the node in which they part from the tree, so that the path
    /// consists of whole nodes. Returns how many blocks can be held along it.
    fn shape_path(&mut self, blocks: &[u64]) -> usize {
        for _ in 0..ROOM_ROUNDS {
            let within = match self.walk(blocks) {
                Stop::AtEnd => return blocks.len(),
                Stop::TooDeep => return self.path_end(),
                Stop::Within(within) => within,
            };
            let Some(last) = self.path.last().copied() else {
                break;
            };
            let need = self.need_of_split(last.node);
            if self.fits(need) {
                let upper = self.split(last.node, within);
                if let Some(last) = self.path.last_mut() {
                    last.node = upper;
                }
                return blocks.len();
            }
            self.evict_until(|tree| tree.fits(need));
        }
        // Without the split, nothing can branch off here.
        self.walk(blocks);
        if let Some(Step { node, end }) = self.path.last().copied()
            && self.nodes[node].hashes.len() > end - self.step_start(self.path.len() - 1)
        {
            self.path.pop();
        }
        self.path_end()
    }

    pub(super) fn path_end(&self) -> usize {
        self.path.last().map_or(0, |step| step.end)
    }

    fn step_start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |above| self.path[above].end)
    }

    /// What an owner holds of the path just walked.
    pub(super) fn held(&self, slot: u16) -> HeldPath {
        let mut held = HeldPath {
            nodes: 0,
            marks: 0,
            blocks: 0,
        };
        let mut start = 0;
        for step in &self.path {
            let Some(mark) = self.mark_of(step.node, slot) else {
                break;
            };
            let span = step.end - start;
            let len = span.min(usize::from(self.marks[mark].len));
            held.marks += 1;
            held.blocks += len;
            if len < span {
                break;
            }
            held.nodes += 1;
            start = step.end;
        }
        held
    }

    /// What holding the first `goal` blocks along the path will allocate.
    fn need(&self, slot: u16, goal: usize, held: HeldPath) -> Need {
        let blocks = goal.saturating_sub(self.path_end());
        let nodes = blocks.div_ceil(NODE_BLOCKS_MAX);
        let mut need = Need {
            nodes,
            marks: nodes,
            groups: 0,
            heap_bytes: if blocks > 0 {
                blocks * 8 + (nodes + 1) * 32
            } else {
                0
            },
        };
        for step in self.path.get(held.nodes..).unwrap_or_default() {
            if self.mark_of(step.node, slot).is_none() {
                need.marks += 1;
                need.groups += 1;
                need.heap_bytes +=
                    heap_bytes(2 * (self.holder_count(step.node) + 1) * size_of::<Holder>());
            }
        }
        need
    }

    fn need_of_split(&self, node: u32) -> Need {
        let holders = self.holder_count(node);
        Need {
            nodes: 1,
            marks: holders,
            groups: 1,
            heap_bytes: self.nodes[node].hashes.heap_bytes()
                + 64
                + 2 * heap_bytes(holders * size_of::<Holder>()),
        }
    }

    fn fits(&self, need: Need) -> bool {
        let slots = self.nodes.bytes_for(need.nodes)
            + self.marks.bytes_for(need.marks)
            + self.groups.bytes_for(need.groups)
            + self.index.bytes_for(need.nodes);
        self.has_room(slots + need.heap_bytes)
    }

    /// Evicts the oldest of all until the path's remainder fits; others' nodes on the path may be
    /// among them, so the path is walked again.
    fn make_room(&mut self, slot: u16, blocks: &[u64]) {
        for _ in 0..ROOM_ROUNDS {
            let need = self.need(slot, blocks.len(), self.held(slot));
            if self.fits(need) {
                return;
            }
            self.evict_until(|tree| tree.fits(need));
            self.walk(blocks);
        }
    }

    fn evict_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..EVICT_MARKS_MAX {
            if done(self) || !self.evict_oldest() {
                return;
            }
        }
    }

    /// How many of `goal` blocks fit both bounds as they are now.
    fn affordable(&self, slot: u16, goal: usize, held: HeldPath) -> usize {
        let capacity_blocks = self.owners[slot].capacity_blocks;
        let room = capacity_blocks.saturating_sub(self.owners.blocks(slot)) as usize;
        let mut goal = goal.min(held.blocks + room);
        let walked = self.path_end();
        while !self.fits(self.need(slot, goal, held)) {
            if goal <= walked {
                return held.blocks;
            }
            goal = walked + (goal - walked) / 2;
        }
        goal
    }

    /// Marks the path's nodes for an owner, as far as `goal` reaches. Returns how many nodes of the
    /// path it then holds whole.
    fn adopt(&mut self, slot: u16, goal: usize, held: HeldPath) -> usize {
        for index in held.nodes..self.path.len() {
            let start = self.step_start(index);
            let Step { mut node, end } = self.path[index];
            if end > goal {
                if start == goal || !self.fits(self.need_of_split(node)) {
                    return index;
                }
                node = self.split(node, goal - start);
                self.path[index] = Step { node, end: goal };
            }
            let len = self.nodes[node].hashes.len();
            match self.mark_of(node, slot) {
                Some(mark) => {
                    let missing = len - usize::from(self.marks[mark].len);
                    *self.owners.blocks_mut(slot) += number(missing);
                    self.set_len(mark, len);
                }
                None => self.add_mark(node, slot, len),
            }
            if end > goal {
                return index + 1;
            }
        }
        self.path.len()
    }

    /// Adds the blocks after the path as new nodes, up to `goal`. A leaf that is this owner's alone
    /// grows instead, as the next turn of a conversation makes it.
    fn append(&mut self, slot: u16, blocks: &[u64], goal: usize, protected: usize) {
        let mut at = self.path_end();
        let mut parent = NIL;
        if let Some(last) = self.path.last().copied() {
            parent = last.node;
            let own_pins = u32::from(self.path.len() <= protected);
            if let Some(mark) = self.extendable(parent, slot, own_pins)
                && at < goal
            {
                let len = self.nodes[parent].hashes.len();
                let more = (NODE_BLOCKS_MAX - len).min(goal - at);
                self.set_hashes(parent, |hashes| {
                    Hashes::joined(hashes, &blocks[at..at + more])
                });
                self.set_len(mark, len + more);
                *self.owners.blocks_mut(slot) += number(more);
                at += more;
                if let Some(last) = self.path.last_mut() {
                    last.end = at;
                }
            }
        }
        for run in blocks[at..goal.max(at)].chunks(NODE_BLOCKS_MAX) {
            let hashes = Hashes::new(run);
            self.heap_bytes += hashes.heap_bytes();
            let node = self.nodes.insert(Node {
                hashes,
                parent,
                ..Node::default()
            });
            if parent != NIL {
                self.nodes[parent].children += 1;
            }
            self.index.insert(node, &mut self.nodes);
            self.add_mark(node, slot, run.len());
            at += run.len();
            self.path.push(Step { node, end: at });
            parent = node;
        }
    }

    /// The mark of a node that may grow in place: a leaf with room, one holder, and no pin of
    /// another request that would then reach further than its path.
    fn extendable(&self, node: u32, slot: u16, own_pins: u32) -> Option<u32> {
        let Node {
            hashes,
            children,
            holders,
            ..
        } = &self.nodes[node];
        let Held::One(mark) = holders.get() else {
            return None;
        };
        let Mark {
            slot: holder, pins, ..
        } = self.marks[mark];
        let fits = *children == 0 && hashes.len() < NODE_BLOCKS_MAX;
        (fits && holder == slot && pins == own_pins).then_some(mark)
    }

    /// Cuts a node in two after `within` blocks. The lower part keeps the id; returns the upper.
    fn split(&mut self, node: u32, within: usize) -> u32 {
        if !self
            .holders_of(node)
            .any(|holder| usize::from(holder.len) > within)
        {
            self.set_hashes(node, |hashes| Hashes::new(&hashes[..within]));
            return node;
        }
        let head = Hashes::new(&self.nodes[node].hashes.all()[..within]);
        self.heap_bytes += head.heap_bytes();
        let upper = self.nodes.insert(Node {
            hashes: head,
            parent: self.nodes[node].parent,
            children: 1,
            ..Node::default()
        });
        self.index.replace(node, upper, &mut self.nodes);
        self.set_hashes(node, |hashes| Hashes::new(&hashes[within..]));
        self.nodes[node].parent = upper;
        self.index.insert(node, &mut self.nodes);
        let holders: Vec<Holder> = self.holders_of(node).collect();
        let mut above = Vec::with_capacity(holders.len());
        let mut below = Vec::with_capacity(holders.len());
        for holder in holders {
            if usize::from(holder.len) <= within {
                self.marks[holder.mark].node = upper;
                above.push(holder);
                continue;
            }
            let len = u16::try_from(within).unwrap_or(u16::MAX);
            let mark = self.split_mark(holder.mark, upper, len);
            above.push(Holder {
                len,
                mark,
                ..holder
            });
            below.push(Holder {
                len: holder.len - len,
                ..holder
            });
        }
        self.set_holders(node, below);
        self.shorten(node);
        self.set_holders(upper, above);
        upper
    }

    /// A mark for the upper part of a node, as recently used as that of the lower part.
    fn split_mark(&mut self, mark: u32, upper: u32, len: u16) -> u32 {
        let Mark {
            slot, stamp, pins, ..
        } = self.marks[mark];
        self.marks[mark].len -= len;
        let new = self.marks.insert(Mark {
            node: upper,
            slot,
            len,
            stamp,
            pins,
            ..Mark::default()
        });
        let list = self.owners[slot].list(pins > 0);
        list.insert_before(new, mark, &mut self.marks);
        new
    }

    /// Notes that an owner holds the first `len` blocks of a node. The mark is new, and idle.
    fn add_mark(&mut self, node: u32, slot: u16, len: usize) {
        let mark = self.marks.insert(Mark {
            node,
            slot,
            len: u16::try_from(len).unwrap_or(u16::MAX),
            ..Mark::default()
        });
        *self.owners.blocks_mut(slot) += number(len);
        self.owners[slot].idle.push_front(mark, &mut self.marks);
        self.add_holder(node, mark);
    }

    fn add_holder(&mut self, node: u32, mark: u32) {
        let Mark { slot, len, .. } = self.marks[mark];
        let holder = Holder { slot, len, mark };
        match self.nodes[node].holders.get() {
            Held::Nobody => self.nodes[node].holders = Holders::one(mark),
            Held::One(_) => {
                let mut holders: Vec<Holder> = self.holders_of(node).collect();
                holders.push(holder);
                holders.sort_unstable_by_key(|holder| holder.slot);
                self.set_holders(node, holders);
            }
            Held::Many(group) => {
                let holders = &mut self.groups[group];
                let before = holders.capacity();
                let at = holders.partition_point(|other| other.slot < slot);
                holders.insert(at, holder);
                let after = holders.capacity();
                self.heap_bytes += heap_bytes(after * size_of::<Holder>())
                    - heap_bytes(before * size_of::<Holder>());
            }
        }
    }

    /// Keeps what an owner holds of the path from eviction while room is made for the rest.
    fn protect(&mut self, slot: u16, marks: usize) {
        for index in (0..marks).rev() {
            if let Some(mark) = self.mark_of(self.path[index].node, slot) {
                self.pin_mark(slot, mark, true);
            }
        }
    }

    /// Takes back the protection of a node that is held in part only, and stays so.
    fn release(&mut self, slot: u16, index: usize) {
        if let Some(mark) = self.mark_of(self.path[index].node, slot) {
            self.unpin_mark(slot, mark);
            self.owners.enqueue(slot, &self.marks, self.clock);
        }
    }

    /// Pins the path, leaf first. The first `protected` nodes have their pin already.
    fn pin_path(&mut self, slot: u16, protected: usize) -> Option<Pin> {
        for index in (0..self.path.len()).rev() {
            if let Some(mark) = self.mark_of(self.path[index].node, slot) {
                self.pin_mark(slot, mark, index >= protected);
            }
        }
        let last = self.path.last()?;
        Some(Pin {
            node: last.node,
            slot,
            epoch: self.owners[slot].epoch,
        })
    }

    /// Makes a mark the most recent of its owner's pinned ones, and counts one pin more if `more`.
    fn pin_mark(&mut self, slot: u16, mark: u32, more: bool) {
        let pins = self.marks[mark].pins;
        self.owners[slot]
            .list(pins > 0)
            .remove(mark, &mut self.marks);
        self.marks[mark].pins = pins + u32::from(more);
        self.owners[slot].pinned.push_front(mark, &mut self.marks);
    }
}
