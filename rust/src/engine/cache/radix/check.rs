//! The tree's invariants, by name.

use std::collections::BTreeMap;

use super::node::{Hashes, Held, Holder, heap_bytes};
use super::owner::List;
use super::{NIL, Pin, Radix};

/// Fails with the invariant's name unless it holds.
fn ensure(holds: bool, name: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("radix: {name}"))
    }
}

impl Radix {
    /// Checks every structural invariant; for tests.
    ///
    /// # Errors
    ///
    /// Names the first invariant found broken.
    pub fn check_invariants(&self) -> Result<(), String> {
        ensure(
            self.bytes() <= self.config.bytes_max,
            "bytes are within the bound",
        )?;
        self.check_nodes()?;
        self.check_lists()?;
        self.check_bytes()
    }

    /// Checks that a path in flight is still held and pinned, unless its owner has been forgotten.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn check_pin(&self, pin: &Pin) -> Result<(), String> {
        let mut node = pin.node;
        while self.owners[pin.slot].epoch == pin.epoch && node != NIL {
            let mark = self.mark_of(node, pin.slot);
            let pinned = mark.is_some_and(|mark| self.marks[mark].pins > 0);
            ensure(pinned, "what is in flight is held and pinned")?;
            node = self.nodes[node].parent;
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        let mut children: BTreeMap<u32, u32> = BTreeMap::new();
        let mut held_marks = 0;
        ensure(
            self.index.len() == self.nodes.len(),
            "every node is in the index",
        )?;
        for id in self.nodes.ids() {
            let node = &self.nodes[id];
            let found = self.index.find(node.hashes.first(), &self.nodes);
            ensure(found == Some(id), "a node is found by its first hash")?;
            if node.parent != NIL {
                *children.entry(node.parent).or_default() += 1;
            }
            let holders: Vec<Holder> = self.holders_of(id).collect();
            ensure(!holders.is_empty(), "every node is held")?;
            ensure(
                holders.is_sorted_by(|a, b| a.slot < b.slot),
                "holders are sorted and distinct",
            )?;
            held_marks += holders.len();
            for holder in &holders {
                self.check_holder(id, *holder)?;
            }
            if let [holder] = holders[..] {
                let whole = usize::from(holder.len) == node.hashes.len();
                ensure(whole, "a node of one holder is as long as it holds")?;
                let alone = matches!(node.holders.get(), Held::One(_));
                ensure(alone, "a group has several holders")?;
            }
        }
        ensure(held_marks == self.marks.len(), "every mark is at its node")?;
        for id in self.nodes.ids() {
            let counted = children.get(&id).copied().unwrap_or(0);
            ensure(self.nodes[id].children == counted, "children are counted")?;
        }
        Ok(())
    }

    fn check_holder(&self, node: u32, holder: Holder) -> Result<(), String> {
        let mark = &self.marks[holder.mark];
        let same = mark.node == node && mark.slot == holder.slot && mark.len == holder.len;
        ensure(same, "a mark and its node agree")?;
        let len = usize::from(mark.len);
        let whole = self.nodes[node].hashes.len();
        ensure(
            len >= 1 && len <= whole,
            "a mark holds at least one block and no more than its node",
        )?;
        ensure(
            mark.pins == 0 || len == whole,
            "what is pinned is held whole",
        )?;
        let parent = self.nodes[node].parent;
        if parent == NIL {
            return Ok(());
        }
        let Some(above) = self.mark_of(parent, holder.slot) else {
            return Err("radix: who holds a node holds those above".to_owned());
        };
        let above = &self.marks[above];
        let above_whole = usize::from(above.len) == self.nodes[parent].hashes.len();
        ensure(above_whole, "who holds a node holds those above whole")?;
        ensure(
            above.pins >= mark.pins,
            "what is above a pinned node is pinned",
        )
    }

    fn check_lists(&self) -> Result<(), String> {
        let mut listed = 0;
        for (slot, owner) in self.owners.live() {
            let mut blocks = 0;
            let held = self.owners.blocks(slot);
            for (list, pinned) in [(owner.idle, false), (owner.pinned, true)] {
                listed += self.check_list(slot, list, pinned, &mut blocks)?;
            }
            ensure(blocks == held, "an owner's blocks are counted")?;
            let is_over = held > owner.capacity_blocks;
            ensure(
                !is_over || owner.idle.tail == NIL,
                "only pinned paths are over the capacity",
            )?;
        }
        ensure(listed == self.marks.len(), "every mark is in one list")
    }

    fn check_list(
        &self,
        slot: u16,
        list: List,
        pinned: bool,
        blocks: &mut u32,
    ) -> Result<usize, String> {
        let mut order: BTreeMap<u32, usize> = BTreeMap::new();
        let (mut at, mut before) = (list.head, NIL);
        while at != NIL {
            let mark = &self.marks[at];
            ensure(
                mark.slot == slot && mark.prev == before,
                "lists are linked both ways",
            )?;
            ensure(
                (mark.pins > 0) == pinned,
                "pinned marks are in the list of pinned ones",
            )?;
            order.insert(mark.node, order.len());
            *blocks += u32::from(mark.len);
            before = at;
            at = mark.next;
        }
        ensure(list.tail == before, "a list ends at its tail")?;
        for (node, position) in &order {
            let above = order.get(&self.nodes[*node].parent);
            ensure(
                above.is_none_or(|above| above < position),
                "a node is used later than those below",
            )?;
        }
        Ok(order.len())
    }

    fn check_bytes(&self) -> Result<(), String> {
        let mut bytes = 0;
        for id in self.nodes.ids() {
            bytes += self.nodes[id].hashes.heap_bytes();
            if let Hashes::Many(many) = &self.nodes[id].hashes {
                ensure(many.len() > 1, "one block is kept in the node")?;
            }
        }
        for id in self.groups.ids() {
            bytes += heap_bytes(self.groups[id].capacity() * size_of::<Holder>());
        }
        ensure(bytes == self.heap_bytes, "bytes are counted")
    }
}
