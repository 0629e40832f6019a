use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Pin, Radix, RadixConfig};

fn tree(bytes_max: usize, capacity_blocks: u32) -> Radix {
    Radix::new(RadixConfig {
        bytes_max,
        capacity_blocks,
    })
}

/// Chained hashes of a prompt of small words, as `blocks` makes them of text.
fn chain(words: &[u8]) -> Vec<u64> {
    let mut state = 0x1234_5678_9abc_def0_u64;
    words
        .iter()
        .map(|&w| {
            state ^= u64::from(w) + 1;
            state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            state ^= state >> 29;
            state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state ^= state >> 32;
            state
        })
        .collect()
}

fn matches(tree: &mut Radix, blocks: &[u64]) -> BTreeMap<u32, u32> {
    let mut out = Vec::new();
    tree.matches(blocks, &mut out);
    assert!(out.is_sorted_by(|a, b| a.1 >= b.1), "longest first");
    let map: BTreeMap<u32, u32> = out.iter().copied().collect();
    assert_eq!(map.len(), out.len(), "each owner once");
    map
}

#[test]
fn a_prompt_matches_as_far_as_an_owner_has_computed_it() {
    let mut t = tree(1 << 20, 1000);
    let pin = t.insert(3, &chain(&[1, 2, 3, 4])).unwrap();
    assert_eq!(
        matches(&mut t, &chain(&[1, 2, 3, 4, 5])),
        BTreeMap::from([(3, 4)])
    );
    assert_eq!(
        matches(&mut t, &chain(&[1, 2, 9])),
        BTreeMap::from([(3, 2)])
    );
    assert_eq!(matches(&mut t, &chain(&[2])), BTreeMap::new());
    t.unpin(pin);
    t.check_invariants().unwrap();
}

#[test]
fn an_owner_over_its_capacity_loses_what_it_used_longest_ago() {
    let mut t = tree(1 << 20, 6);
    for first in 0..3 {
        let pin = t.insert(0, &chain(&[first, 50])).unwrap();
        t.unpin(pin);
    }
    t.touch(0, &chain(&[0, 50]));
    let pin = t.insert(0, &chain(&[9, 50])).unwrap();
    t.unpin(pin);
    let held: Vec<u8> = [0, 1, 2, 9]
        .into_iter()
        .filter(|&f| matches(&mut t, &chain(&[f, 50])).contains_key(&0))
        .collect();
    assert_eq!(held, [0, 2, 9]);
}

#[test]
fn leaves_go_before_the_prefix_they_share() {
    let mut t = tree(1 << 20, 5);
    for leaf in 10..13 {
        let pin = t.insert(0, &chain(&[1, 2, 3, leaf])).unwrap();
        t.unpin(pin);
    }
    assert_eq!(t.owner_blocks(0), 5);
    assert_eq!(
        matches(&mut t, &chain(&[1, 2, 3, 12])),
        BTreeMap::from([(0, 4)])
    );
    assert_eq!(
        matches(&mut t, &chain(&[1, 2, 3, 10])),
        BTreeMap::from([(0, 3)])
    );
    t.check_invariants().unwrap();
}

#[test]
fn a_long_leaf_is_trimmed_no_more_than_needed() {
    let mut t = tree(1 << 20, 200);
    let words: Vec<u8> = (0..150).collect();
    let pin = t.insert(0, &chain(&words)).unwrap();
    t.unpin(pin);
    let other: Vec<u8> = (100..160).rev().collect();
    let pin = t.insert(0, &chain(&other)).unwrap();
    t.unpin(pin);
    assert_eq!(t.owner_blocks(0), 200);
    assert_eq!(matches(&mut t, &chain(&words)), BTreeMap::from([(0, 140)]));
    t.check_invariants().unwrap();
}

#[test]
fn pins_of_a_forgotten_owner_are_void() {
    let mut t = tree(1 << 20, 100);
    let pin = t.insert(1, &chain(&[1, 2])).unwrap();
    t.forget(1);
    assert_eq!(t.owner_blocks(1), 0);
    let again = t.insert(1, &chain(&[1, 2])).unwrap();
    t.unpin(pin);
    t.set_capacity(1, 0);
    assert_eq!(t.owner_blocks(1), 2, "the second pin still holds");
    t.unpin(again);
    assert_eq!(t.owner_blocks(1), 0);
    assert_eq!(t.nodes_len(), 0);
}

#[test]
fn one_block_nodes_and_realistic_trees_take_at_most_64_bytes_a_block() {
    for (branch, label) in [(1_usize, "one-block nodes"), (12, "chat")] {
        let mut t = tree(64 << 20, u32::MAX);
        let mut state = 7_u64;
        let mut next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state | 1
        };
        while t.owner_blocks(0) < 200_000 {
            let run: Vec<u64> = (0..branch).map(|_| next()).collect();
            if let Some(pin) = t.insert(0, &run) {
                t.unpin(pin);
            }
        }
        let index = (64 << 20) / 128 / 2 * 8; // of fixed size, for all owners together
        let each = (t.bytes() - index.min(t.bytes())) / 200_000;
        assert!(
            each <= 88 && (branch == 1 || each <= 24),
            "{label}: {each} bytes"
        );
    }
}

/// What each owner was given, without any bound.
#[derive(Default)]
struct Oracle {
    held: BTreeMap<u32, BTreeSet<u64>>,
}

impl Oracle {
    fn matched(&self, owner: u32, blocks: &[u64]) -> u32 {
        let held = self.held.get(&owner);
        let n = blocks
            .iter()
            .take_while(|b| held.is_some_and(|h| h.contains(b)))
            .count();
        u32::try_from(n).unwrap()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u32, Vec<u8>),
    Unpin(usize),
    Touch(u32, Vec<u8>),
    Capacity(u32, u32),
    Forget(u32),
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    // Few first words and many lengths: deep sharing, splits in every place.
    (prop::collection::vec(0..3_u8, 0..6), 0..90_u8).prop_map(|(mut head, tail)| {
        head.extend((0..tail).map(|i| i % 7));
        head
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4_u32, words()).prop_map(|(o, w)| Op::Insert(o, w)),
        5 => any::<usize>().prop_map(Op::Unpin),
        2 => (0..4_u32, words()).prop_map(|(o, w)| Op::Touch(o, w)),
        1 => (0..4_u32, 0..400_u32).prop_map(|(o, c)| Op::Capacity(o, c)),
        1 => (0..4_u32).prop_map(Op::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn without_pressure_the_tree_holds_exactly_what_was_inserted(ops in prop::collection::vec(op(), 1..60)) {
        let mut t = tree(8 << 20, u32::MAX);
        let mut oracle = Oracle::default();
        for op in ops {
            match op {
                Op::Insert(owner, w) => {
                    let blocks = chain(&w);
                    if let Some(pin) = t.insert(owner, &blocks) {
                        t.unpin(pin);
                    }
                    oracle.held.entry(owner).or_default().extend(blocks);
                }
                Op::Forget(owner) => {
                    t.forget(owner);
                    oracle.held.remove(&owner);
                }
                Op::Touch(_, w) => {
                    let blocks = chain(&w);
                    let found = matches(&mut t, &blocks);
                    for owner in 0..4 {
                        prop_assert_eq!(found.get(&owner).copied().unwrap_or(0), oracle.matched(owner, &blocks));
                    }
                }
                Op::Unpin(_) | Op::Capacity(..) => {}
            }
            for owner in 0..4 {
                let held = oracle.held.get(&owner).map_or(0, BTreeSet::len);
                prop_assert_eq!(t.owner_blocks(owner) as usize, held);
            }
        }
        prop_assert_eq!(t.check_invariants(), Ok(()));
    }

    #[test]
    fn under_pressure_bounds_hold_and_pinned_paths_stay(
        ops in prop::collection::vec(op(), 1..120),
        bytes_max in 1500..12_000_usize,
        capacity in 20..300_u32,
    ) {
        let mut t = tree(bytes_max, capacity);
        let mut oracle = Oracle::default();
        let mut pins: Vec<(Pin, u32, Vec<u64>)> = Vec::new();
        for op in ops {
            match op {
                Op::Insert(owner, w) => {
                    let blocks = chain(&w);
                    if let Some(pin) = t.insert(owner, &blocks) {
                        let kept = matches(&mut t, &blocks)[&owner] as usize;
                        pins.push((pin, owner, blocks[..kept].to_vec()));
                    }
                    oracle.held.entry(owner).or_default().extend(blocks);
                }
                Op::Unpin(which) if !pins.is_empty() => {
                    let (pin, ..) = pins.swap_remove(which % pins.len());
                    t.unpin(pin);
                }
                Op::Touch(owner, w) => t.touch(owner, &chain(&w)),
                Op::Capacity(owner, c) => t.set_capacity(owner, c),
                Op::Forget(owner) => {
                    t.forget(owner);
                    oracle.held.remove(&owner);
                    pins.retain(|(_, o, _)| *o != owner);
                }
                Op::Unpin(_) => {}
            }
            prop_assert!(t.bytes() <= bytes_max);
            prop_assert_eq!(t.check_invariants(), Ok(()));
            for (_, owner, blocks) in &pins {
                let found = matches(&mut t, blocks).get(owner).copied().unwrap_or(0);
                prop_assert_eq!(found as usize, blocks.len(), "a pinned path was evicted");
                for (other, n) in matches(&mut t, blocks) {
                    prop_assert!(n <= oracle.matched(other, blocks));
                }
            }
        }
        for (pin, ..) in pins {
            t.unpin(pin);
        }
        for owner in 0..4 {
            t.forget(owner);
        }
        prop_assert_eq!(t.nodes_len(), 0);
        prop_assert_eq!(t.check_invariants(), Ok(()));
    }
}
