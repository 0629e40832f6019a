//! Marks of owners on nodes, and each owner's list in order of use.

use super::Radix;
use super::slab::{NONE, Slot};

/// One owner caches one node's whole path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) node: u32,
    pub(super) owner: u32,
    /// Next mark of the same node.
    pub(super) next: u32,
    /// Neighbours in the owner's list.
    pub(super) older: u32,
    pub(super) newer: u32,
    /// Requests in flight whose path leads through here.
    pub(super) pins: u32,
    /// When it was used last.
    pub(super) tick: u32,
}

impl Slot for Mark {
    fn link(&mut self) -> &mut u32 {
        &mut self.next
    }
}

/// What one owner holds.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) oldest: u32,
    pub(super) newest: u32,
    pub(super) blocks: u32,
    pub(super) capacity: u32,
    /// Counts `forget`: older pins are void.
    pub(super) epoch: u32,
    pub(super) stamp: u32,
}

impl Owner {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            oldest: NONE,
            newest: NONE,
            blocks: 0,
            capacity,
            epoch: 0,
            stamp: 0,
        }
    }
}

impl Radix {
    /// The owner's mark on a node, or `NONE`.
    pub(super) fn mark_of(&self, node: u32, owner: u32) -> u32 {
        let mut mark = self.nodes.get(node).marks;
        while mark != NONE && self.marks.get(mark).owner != owner {
            mark = self.marks.get(mark).next;
        }
        mark
    }

    /// Marks the path from `node` to the root and makes it the newest, root newest of all.
    pub(super) fn mark_path(&mut self, owner: u32, mut node: u32) {
        self.tick = self.tick.wrapping_add(1);
        while node != NONE {
            let mut mark = self.mark_of(node, owner);
            if mark == NONE {
                mark = self.add_mark(node, owner, 0);
            } else {
                self.unlink(mark);
            }
            self.link_newest(mark);
            node = self.nodes.get(node).parent;
        }
    }

    /// Makes a path that is marked the newest.
    pub(super) fn touch_path(&mut self, owner: u32, node: u32) {
        self.mark_path(owner, node);
    }

    /// Adds to the pins of each mark from `node` to the root.
    pub(super) fn pin_path(&mut self, owner: u32, mut node: u32, by: i32) {
        while node != NONE {
            let mark = self.mark_of(node, owner);
            let pins = &mut self.marks.get_mut(mark).pins;
            *pins = pins.saturating_add_signed(by);
            node = self.nodes.get(node).parent;
        }
    }

    /// Gives the upper half of a split node the lower half's marks, each right before (newer than)
    /// its twin in the owner's list.
    pub(super) fn copy_marks(&mut self, lower: u32, upper: u32) {
        let mut twin = self.nodes.get(lower).marks;
        while twin != NONE {
            let Mark {
                owner,
                next,
                pins,
                tick,
                newer,
                ..
            } = *self.marks.get(twin);
            let mark = self.add_mark(upper, owner, pins);
            // The blocks are the lower half's already: a split changes nothing of what is held.
            let run = self.run_len(upper);
            self.owners[owner as usize].blocks -= run;
            let fresh = self.marks.get_mut(mark);
            (fresh.older, fresh.newer, fresh.tick) = (twin, newer, tick);
            self.marks.get_mut(twin).newer = mark;
            if newer == NONE {
                self.owners[owner as usize].newest = mark;
            } else {
                self.marks.get_mut(newer).older = mark;
            }
            twin = next;
        }
    }

    pub(super) fn run_len(&self, node: u32) -> u32 {
        u32::try_from(self.nodes.get(node).hashes.len()).unwrap_or(u32::MAX)
    }

    fn add_mark(&mut self, node: u32, owner: u32, pins: u32) -> u32 {
        let (next, tick) = (self.nodes.get(node).marks, self.tick);
        let mark = self.marks.take(Mark {
            node,
            owner,
            next,
            older: NONE,
            newer: NONE,
            pins,
            tick,
        });
        let held = self.nodes.get_mut(node);
        held.marks = mark;
        held.marks_len += 1;
        let run = self.run_len(node);
        self.owners[owner as usize].blocks += run;
        mark
    }

    fn link_newest(&mut self, mark: u32) {
        let owner = &mut self.owners[self.marks.get(mark).owner as usize];
        let older = owner.newest;
        owner.newest = mark;
        if older == NONE {
            owner.oldest = mark;
        } else {
            self.marks.get_mut(older).newer = mark;
        }
        let tick = self.tick;
        let fresh = self.marks.get_mut(mark);
        (fresh.older, fresh.newer, fresh.tick) = (older, NONE, tick);
    }

    fn unlink(&mut self, mark: u32) {
        let Mark {
            owner,
            older,
            newer,
            ..
        } = *self.marks.get(mark);
        if older == NONE {
            self.owners[owner as usize].oldest = newer;
        } else {
            self.marks.get_mut(older).newer = newer;
        }
        if newer == NONE {
            self.owners[owner as usize].newest = older;
        } else {
            self.marks.get_mut(newer).older = older;
        }
    }

    /// Removes a mark that has none of its owner below it; a node without marks goes as well.
    pub(super) fn unmark(&mut self, mark: u32) {
        self.unlink(mark);
        let Mark {
            node, owner, next, ..
        } = *self.marks.get(mark);
        let run = self.run_len(node);
        self.owners[owner as usize].blocks -= run;
        let held = self.nodes.get_mut(node);
        held.marks_len -= 1;
        if held.marks == mark {
            held.marks = next;
        } else {
            let mut before = held.marks;
            while self.marks.get(before).next != mark {
                before = self.marks.get(before).next;
            }
            self.marks.get_mut(before).next = next;
        }
        self.marks.give(mark);
        if self.nodes.get(node).marks == NONE {
            self.remove_node(node);
        }
    }

    /// Removes a node that nobody holds: marks are closed towards the root, so it has no children.
    fn remove_node(&mut self, node: u32) {
        let gone = self.nodes.get_mut(node);
        let run = std::mem::take(&mut gone.hashes);
        let parent = gone.parent;
        self.run_bytes -= super::run_bytes(run.len());
        let nodes = &self.nodes;
        self.index.remove(run[0], node, |n| {
            if n == node {
                run[0]
            } else {
                nodes.get(n).hashes[0]
            }
        });
        self.nodes.give(node);
        if parent != NONE {
            self.nodes.get_mut(parent).children -= 1;
        }
    }
}
