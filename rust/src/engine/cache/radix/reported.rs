//! Paths that another balancer reported, which are named by where they branch off.
//!
//! Recording a path gives the number of its last node. With that number and a hash, the path up to the
//! hash is found again. The number is a hint: nodes are split, grow and are evicted. A node that does not
//! have the hash, and none above it, tells nothing. A hash stands for all blocks before it, so a node that
//! has it is the right one, however it was found.

use super::{NIL, Radix, WALK_NODES_MAX};

impl Radix {
    /// As [`insert`](Self::insert) and [`unpin`](Self::unpin); the number of the path's last node.
    pub fn record(&mut self, owner: u32, blocks: &[u64]) -> Option<u32> {
        let pin = self.insert(owner, blocks)?;
        let node = pin.node;
        self.unpin(pin);
        Some(node)
    }

    /// How many leading blocks are in the tree, whoever holds them.
    pub fn depth(&mut self, blocks: &[u64]) -> usize {
        self.walk(blocks);
        self.path_end()
    }

    /// The hashes of the path that ends with `hash`, which is at the node `hint` or above it; room for
    /// `more` behind them.
    #[must_use]
    pub fn path_to(&self, hint: u32, hash: u64, more: usize) -> Option<Vec<u64>> {
        let mut at = hint;
        for _ in 0..WALK_NODES_MAX {
            let node = self.nodes.get(at)?;
            let hashes = node.hashes.all();
            if let Some(within) = hashes.iter().position(|other| *other == hash) {
                return Some(self.path_within(at, within + 1, more));
            }
            at = node.parent;
        }
        None
    }

    /// The hashes up to the first `within` blocks of a node.
    fn path_within(&self, node: u32, within: usize, more: usize) -> Vec<u64> {
        let mut above = Vec::new();
        let mut at = self.nodes[node].parent;
        while at != NIL {
            above.push(at);
            at = self.nodes[at].parent;
        }
        let nodes = above.iter().rev();
        let len: usize = nodes.clone().map(|at| self.nodes[*at].hashes.len()).sum();
        let mut blocks = Vec::with_capacity(len + within + more);
        for at in nodes {
            blocks.extend_from_slice(self.nodes[*at].hashes.all());
        }
        blocks.extend_from_slice(&self.nodes[node].hashes.all()[..within]);
        blocks
    }

    /// Calls `visit` with the paths that an owner has used last, the youngest first, as far as `marks_max` of its
    /// marks tell, until it answers false. After `blocks_max` blocks no further path is put together.
    pub fn recent(
        &self,
        owner: u32,
        (marks_max, blocks_max): (usize, usize),
        mut visit: impl FnMut(&[u64]) -> bool,
    ) {
        let Some(slot) = self.owners.find(owner) else {
            return;
        };
        let mut blocks = 0;
        let mut end = |node: u32, len: usize| {
            if node == NIL {
                return true;
            }
            let path = self.path_within(node, len, 0);
            blocks += path.len();
            visit(&path) && blocks < blocks_max
        };
        for list in [self.owners[slot].pinned, self.owners[slot].idle] {
            // Upper nodes of a path are younger in the list than those below them.
            let (mut last, mut last_len) = (NIL, 0);
            let mut mark = list.head;
            for _ in 0..marks_max {
                if mark == NIL {
                    break;
                }
                let node = self.marks[mark].node;
                if self.nodes[node].parent != last && !end(last, last_len) {
                    return;
                }
                (last, last_len) = (node, usize::from(self.marks[mark].len));
                mark = self.marks[mark].next;
            }
            if !end(last, last_len) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RadixConfig;
    use super::*;

    fn tree() -> Radix {
        Radix::new(RadixConfig {
            bytes_max: 1 << 22,
            capacity_blocks: 2_000,
        })
    }

    /// A chain: its first `shared` hashes are those of all chains, the rest its own.
    fn chain(of: u64, shared: u64, len: u64) -> Vec<u64> {
        let own = |at| {
            if at < shared {
                1 + at
            } else {
                (of + 1) << 32 | at
            }
        };
        (0..len).map(own).collect()
    }

    fn recent(tree: &Radix, owner: u32, bounds: (usize, usize)) -> Vec<Vec<u64>> {
        let mut paths = Vec::new();
        tree.recent(owner, bounds, |path| {
            paths.push(path.to_vec());
            true
        });
        paths
    }

    #[test]
    fn a_path_is_found_again_by_its_end_and_by_what_it_shares_with_others() {
        let mut tree = tree();
        let long = chain(0, 40, 700);
        let node = tree.record(1, &long).unwrap();
        assert_eq!(tree.path_to(node, long[699], 0), Some(long.clone()));
        assert_eq!(tree.path_to(node, long[10], 5).unwrap(), long[..11]);
        // Another one splits the node in which they part.
        let other = chain(1, 40, 100);
        tree.record(2, &other).unwrap();
        assert_eq!(tree.path_to(node, long[20], 0).unwrap(), long[..21]);
        assert_eq!(tree.path_to(node, long[600], 0).unwrap(), long[..601]);
        assert_eq!(tree.path_to(node, other[99], 0), None, "it is on no way up");
        assert_eq!(tree.path_to(u32::MAX, long[0], 0), None);
    }

    #[test]
    fn what_was_used_last_comes_first() {
        let mut tree = tree();
        for of in 0..5 {
            tree.record(7, &chain(of, 30, 60)).unwrap();
        }
        let recent = recent(&tree, 7, (64, 10_000));
        assert_eq!(recent[0], chain(4, 30, 60));
        for of in 0..5 {
            assert!(recent.contains(&chain(of, 30, 60)), "{of}");
        }
        assert_eq!(self::recent(&tree, 7, (2, 10_000)).first(), recent.first());
        assert_eq!(self::recent(&tree, 8, (64, 10_000)), Vec::<Vec<u64>>::new());
        // It ends with the path that makes it too much, and where it is told to.
        assert_eq!(self::recent(&tree, 7, (64, 61)).len(), 2);
        let mut visits = 0;
        tree.recent(7, (64, 10_000), |_| {
            visits += 1;
            visits < 3
        });
        assert_eq!(visits, 3);
    }

    proptest! {
        #[test]
        fn a_hint_of_whatever_age_leads_to_the_right_path_or_to_none(
            steps in prop::collection::vec((0..3u32, 0..4u64, 0..4u64, 1..500u64), 1..60),
        ) {
            let mut tree = tree();
            let mut told = Vec::new();
            for (owner, of, family, len) in steps {
                // Chains of a family share their first blocks, and no hash is in two places.
                let shared = [0, 1, 40, 300][usize::try_from(family).unwrap()];
                let chain: Vec<u64> = chain(of + (family << 8), shared, len).into_iter().map(|hash| hash | (family + 1) << 56).collect();
                if let Some(node) = tree.record(owner, &chain) {
                    told.push((node, chain));
                }
                for (node, chain) in &told {
                    for at in [0, chain.len() / 2, chain.len() - 1] {
                        let path = tree.path_to(*node, chain[at], 0);
                        prop_assert!(path.is_none_or(|path| path == chain[..=at]));
                    }
                }
                for path in recent(&tree, owner, (100, 100_000)) {
                    let sent = told.iter().any(|(_, chain)| chain.starts_with(&path));
                    prop_assert!(!path.is_empty() && sent, "no path that was recorded");
                }
                tree.check_invariants().map_err(TestCaseError::fail)?;
            }
        }
    }
}
