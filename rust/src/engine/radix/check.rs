//! The tree's invariants, checked one by one.

use std::collections::BTreeMap;

use super::slab::NONE;
use super::{Node, Radix, run_bytes};

impl Radix {
    /// Checks every structural invariant; for tests.
    ///
    /// # Errors
    ///
    /// Names the first invariant found broken.
    pub fn check_invariants(&self) -> Result<(), String> {
        ensure(self.bytes() <= self.bytes_max, "radix_bytes_within_bound")?;
        self.check_nodes()?;
        for owner in 0..u32::try_from(self.owners.len()).unwrap_or(u32::MAX) {
            self.check_owner(owner)?;
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        let mut runs = 0;
        let mut live = 0;
        let mut marks = 0;
        for n in 0..u32::try_from(self.nodes.slots_len()).unwrap_or(u32::MAX) {
            let Node {
                hashes,
                parent,
                children,
                marks_len,
                ..
            } = self.nodes.get(n);
            if hashes.is_empty() {
                continue;
            }
            live += 1;
            runs += run_bytes(hashes.len());
            marks += *marks_len as usize;
            ensure(*marks_len > 0, "radix_node_is_held")?;
            ensure(
                self.children_of(n) == *children as usize,
                "radix_children_counted",
            )?;
            let found = self.index.find(hashes[0], |m| self.nodes.get(m).hashes[0]);
            ensure(found == Some(n), "radix_node_is_found")?;
            ensure(
                *parent == NONE || !self.nodes.get(*parent).hashes.is_empty(),
                "radix_parent_lives",
            )?;
        }
        ensure(runs == self.run_bytes, "radix_run_bytes_counted")?;
        ensure(
            live == self.nodes.len() && live == self.index.len(),
            "radix_nodes_counted",
        )?;
        ensure(marks == self.marks.len(), "radix_marks_counted")
    }

    fn check_owner(&self, owner: u32) -> Result<(), String> {
        let list = self.list_of(owner);
        let place: BTreeMap<u32, usize> = list
            .iter()
            .enumerate()
            .map(|(i, (_, m))| (m.node, i))
            .collect();
        ensure(
            place.len() == list.len(),
            "radix_one_mark_per_node_and_owner",
        )?;
        let mut blocks = 0;
        for (i, (number, mark)) in list.iter().enumerate() {
            ensure(mark.owner == owner, "radix_list_of_one_owner")?;
            ensure(
                self.mark_of(mark.node, owner) == *number,
                "radix_mark_is_on_its_node",
            )?;
            blocks += self.run_len(mark.node);
            let parent = self.nodes.get(mark.node).parent;
            if parent != NONE {
                let above = place.get(&parent).copied();
                ensure(above.is_some(), "radix_marks_closed_towards_the_root")?;
                ensure(above > Some(i), "radix_ancestor_is_newer")?;
                let pins = above.map_or(0, |a| list[a].1.pins);
                ensure(pins >= mark.pins, "radix_pins_closed_towards_the_root")?;
            }
        }
        let known = &self.owners[owner as usize];
        ensure(blocks == known.blocks, "radix_owner_blocks_counted")?;
        let pinned: u32 = list
            .iter()
            .filter(|(_, m)| m.pins > 0)
            .map(|(_, m)| self.run_len(m.node))
            .sum();
        ensure(
            known.blocks <= known.capacity.max(pinned),
            "radix_owner_within_capacity",
        )
    }
}

fn ensure(holds: bool, invariant: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("{invariant} is broken"))
    }
}
