//! The tree against its oracle, and its bounds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::oracle::Oracle;
use super::*;
use crate::rng::Rng;

const UNBOUNDED: RadixConfig = RadixConfig {
    bytes_max: 1 << 30,
    capacity_blocks: u32::MAX,
};

/// Chained hashes of a prompt made of runs: `(text, blocks)`.
fn prompt(runs: &[(u8, usize)]) -> Vec<u64> {
    prompt_after(None, runs)
}

/// Those of an answer behind a prompt whose last hash is `before`.
fn prompt_after(before: Option<u64>, runs: &[(u8, usize)]) -> Vec<u64> {
    let mut chain = before.unwrap_or(0x5eed);
    let mut blocks = Vec::new();
    for &(text, length) in runs {
        for _ in 0..length {
            let mut mix = Rng::new(chain ^ (u64::from(text) + 1));
            chain = mix.next_u64();
            blocks.push(chain);
        }
    }
    blocks
}

fn found(tree: &mut Radix, blocks: &[u64]) -> BTreeMap<u32, u32> {
    let mut out = Vec::new();
    tree.matches(blocks, &mut out);
    let all: BTreeMap<u32, u32> = out.iter().copied().collect();
    assert_eq!(all.len(), out.len(), "an owner is reported once");
    all
}

/// Inserts a path that is not in flight.
fn put(tree: &mut Radix, owner: u32, blocks: &[u64]) {
    let pin = tree.insert(owner, blocks).unwrap();
    tree.unpin(pin);
}

#[test]
fn the_longest_match_of_each_owner_is_found() {
    let mut tree = Radix::new(UNBOUNDED);
    let system = [(0, 10)];
    put(&mut tree, 1, &prompt(&[system[0], (1, 20)]));
    put(&mut tree, 2, &prompt(&[system[0], (2, 5), (3, 400)]));
    put(&mut tree, 3, &prompt(&[(9, 3)]));
    let asked = prompt(&[system[0], (2, 5), (3, 300), (4, 7)]);
    assert_eq!(
        found(&mut tree, &asked),
        BTreeMap::from([(1, 10), (2, 315)])
    );
    assert_eq!(found(&mut tree, &[]), BTreeMap::new());
    tree.check_invariants().unwrap();
}

#[test]
fn a_thousand_owners_of_one_prefix_are_all_reported() {
    let mut tree = Radix::new(UNBOUNDED);
    let system = prompt(&[(0, 40)]);
    for owner in 0..1_000 {
        put(&mut tree, owner, &system);
    }
    put(&mut tree, 7, &prompt(&[(0, 40), (1, 5)]));
    put(&mut tree, 8, &prompt(&[(0, 30), (2, 5)]));
    let matches = found(&mut tree, &prompt(&[(0, 40), (1, 9)]));
    assert_eq!(matches.len(), 1_000);
    assert_eq!((matches[&7], matches[&8], matches[&9]), (45, 40, 40));
    tree.check_invariants().unwrap();
    for owner in 0..1_000 {
        tree.forget(owner);
    }
    assert_eq!(
        (tree.nodes.len(), tree.marks.len(), tree.heap_bytes),
        (0, 0, 0)
    );
}

#[test]
fn pins_survive_splits_of_their_path() {
    let mut tree = Radix::new(RadixConfig {
        capacity_blocks: 100,
        ..UNBOUNDED
    });
    let path = prompt(&[(0, 60)]);
    let pin = tree.insert(1, &path).unwrap();
    put(&mut tree, 1, &prompt(&[(0, 20), (1, 10)]));
    put(&mut tree, 2, &prompt(&[(0, 40), (2, 10)]));
    // Of 100 blocks 60 are pinned: of this, 40 remain.
    let long = tree.insert(1, &prompt(&[(5, 90)])).unwrap();
    assert_eq!(found(&mut tree, &path)[&1], 60);
    assert_eq!(tree.owner_blocks(1), 100);
    tree.check_invariants().unwrap();
    tree.unpin(pin);
    tree.unpin(long);
    put(&mut tree, 1, &prompt(&[(6, 100)]));
    assert_eq!(found(&mut tree, &path), BTreeMap::from([(2, 40)]));
    tree.check_invariants().unwrap();
}

#[test]
fn a_split_leaves_nothing_that_nobody_holds() {
    let mut tree = Radix::new(RadixConfig {
        capacity_blocks: 30,
        ..UNBOUNDED
    });
    let long = prompt(&[(0, 30)]);
    put(&mut tree, 1, &long);
    put(&mut tree, 2, &long);
    // Each loses some of the end, and cannot have it back while this is in flight.
    let first = tree.insert(1, &prompt(&[(1, 1)])).unwrap();
    let second = tree.insert(2, &prompt(&[(1, 2)])).unwrap();
    let third = tree.insert(2, &long).unwrap();
    assert_eq!(found(&mut tree, &long), BTreeMap::from([(1, 29), (2, 28)]));
    tree.check_invariants().unwrap();
    for pin in [first, second, third] {
        tree.unpin(pin);
    }
    tree.check_invariants().unwrap();
}

#[test]
fn pins_of_a_forgotten_owner_are_void() {
    let mut tree = Radix::new(UNBOUNDED);
    let old = tree.insert(1, &prompt(&[(0, 9)])).unwrap();
    tree.forget(1);
    let new = tree.insert(1, &prompt(&[(0, 9)])).unwrap();
    tree.unpin(old);
    tree.check_invariants().unwrap();
    assert_eq!(
        tree.owners[new.slot].idle.head, NIL,
        "the new path is still pinned"
    );
    tree.unpin(new);
    tree.check_invariants().unwrap();
}

#[test]
fn the_next_turn_of_a_conversation_makes_its_node_longer() {
    let mut tree = Radix::new(UNBOUNDED);
    for turn in 1..=20 {
        put(&mut tree, 1, &prompt(&[(0, turn * 10)]));
    }
    assert_eq!(tree.nodes.len(), 1);
    put(&mut tree, 1, &prompt(&[(0, 1_000)]));
    assert_eq!(
        tree.nodes.len(),
        1_000_usize.div_ceil(node::NODE_BLOCKS_MAX)
    );
    tree.check_invariants().unwrap();
}

#[test]
fn an_answer_makes_the_leaf_of_its_prompt_longer() {
    let mut tree = Radix::new(UNBOUNDED);
    for turn in 0..10 {
        let prompt = prompt(&[(0, 10 + turn * 20)]);
        let pin = tree.insert(1, &prompt).unwrap();
        tree.extend(
            pin,
            prompt.len(),
            &prompt_after(prompt.last().copied(), &[(0, 10)]),
        );
    }
    assert_eq!((tree.nodes.len(), tree.owner_blocks(1)), (1, 200));
    assert_eq!(found(&mut tree, &prompt(&[(0, 300)]))[&1], 200);
    tree.check_invariants().unwrap();
}

#[test]
fn nothing_follows_a_prompt_that_is_not_held_whole() {
    let mut tree = Radix::new(RadixConfig {
        capacity_blocks: 30,
        ..UNBOUNDED
    });
    let long = prompt(&[(0, 40)]);
    let pin = tree.insert(1, &long).unwrap();
    tree.extend(
        pin,
        long.len(),
        &prompt_after(long.last().copied(), &[(0, 5)]),
    );
    assert_eq!(tree.owner_blocks(1), 30);
    tree.check_invariants().unwrap();
}

#[test]
fn a_path_of_too_many_nodes_is_followed_in_part() {
    let mut tree = Radix::new(UNBOUNDED);
    let path = prompt(&[(0, WALK_NODES_MAX + 100)]);
    put(&mut tree, 1, &path);
    // A branch after every block, from the deepest up.
    for end in (1..path.len()).rev() {
        let mut branch = path[..end].to_vec();
        branch.push(end as u64);
        put(&mut tree, 1, &branch);
    }
    assert_eq!(found(&mut tree, &path)[&1] as usize, WALK_NODES_MAX);
    put(&mut tree, 2, &path);
    assert_eq!(found(&mut tree, &path)[&2] as usize, WALK_NODES_MAX);
    tree.check_invariants().unwrap();
}

#[test]
fn the_oldest_of_all_owners_goes_first_when_memory_is_short() {
    let mut tree = Radix::new(RadixConfig {
        bytes_max: 2 << 20,
        ..UNBOUNDED
    });
    let of = |index: u32| {
        let mut rng = Rng::new(u64::from(index));
        (0..500).map(|_| rng.next_u64()).collect::<Vec<u64>>()
    };
    let count = 1_500;
    for index in 0..count {
        put(&mut tree, index % 7, &of(index));
        assert!(tree.bytes() <= 2 << 20);
    }
    tree.check_invariants().unwrap();
    let kept: Vec<bool> = (0..count)
        .map(|index| {
            found(&mut tree, &of(index))
                .values()
                .any(|&blocks| blocks == 500)
        })
        .collect();
    let first = number(kept.iter().position(|&is_kept| is_kept).unwrap());
    assert!(
        kept[first as usize..].iter().all(|&is_kept| is_kept),
        "what is kept is the newest"
    );
    assert!(
        (300..count - 300).contains(&(count - first)),
        "{} of {count} kept",
        count - first
    );
}

#[test]
fn memory_goes_over_from_short_to_long_prompts_and_back() {
    const BYTES_MAX: usize = 4 << 20;
    let mut tree = Radix::new(RadixConfig {
        bytes_max: BYTES_MAX,
        ..UNBOUNDED
    });
    let mut rng = Rng::new(3);
    for (round, length) in [1_usize, 2_000, 1, 40].into_iter().enumerate() {
        let mut last = 0;
        for _ in 0..(6 << 20) / (60 + 8 * length) {
            let blocks: Vec<u64> = (0..length).map(|_| rng.next_u64()).collect();
            if let Some(pin) = tree.insert(1, &blocks) {
                tree.unpin(pin);
            }
            assert!(tree.bytes() <= BYTES_MAX);
            last = found(&mut tree, &blocks).get(&1).copied().unwrap_or(0) as usize;
        }
        assert_eq!(
            last, length,
            "round {round}: the newest prompt is held whole"
        );
        let held = tree.owner_blocks(1) as usize;
        assert!(
            held * (8 + 60 / length) > BYTES_MAX / 4,
            "round {round}: {held} blocks"
        );
        tree.check_invariants().unwrap();
    }
}

#[test]
fn with_everything_pinned_only_what_fits_is_inserted() {
    let mut tree = Radix::new(RadixConfig {
        bytes_max: 1 << 20,
        ..UNBOUNDED
    });
    let mut rng = Rng::new(9);
    let mut pins = Vec::new();
    let mut held = Vec::new();
    for _ in 0..1_300 {
        let blocks: Vec<u64> = (0..300).map(|_| rng.next_u64()).collect();
        let pin = tree.insert(4, &blocks);
        assert!(tree.bytes() <= 1 << 20);
        let matched = found(&mut tree, &blocks).get(&4).copied().unwrap_or(0);
        assert_eq!(pin.is_some(), matched > 0);
        if let Some(pin) = pin {
            pins.push(pin);
            held.push((blocks, matched));
        }
    }
    assert!(held.iter().any(|(_, matched)| *matched < 300) && pins.len() < 1_300);
    for (blocks, matched) in &held {
        assert_eq!(
            found(&mut tree, blocks)[&4],
            *matched,
            "nothing pinned was evicted"
        );
    }
    tree.check_invariants().unwrap();
    for pin in pins {
        tree.unpin(pin);
    }
    tree.check_invariants().unwrap();
}

/// How many blocks a pin keeps.
fn pinned_blocks(tree: &Radix, pin: &Pin) -> u32 {
    let (mut node, mut blocks) = (pin.node, 0);
    while node != NIL {
        blocks += tree.nodes[node].hashes.len();
        node = tree.nodes[node].parent;
    }
    number(blocks)
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u32, Vec<(u8, usize)>),
    Unpin(prop::sample::Index),
    Extend(prop::sample::Index, Vec<(u8, usize)>),
    DropUnusedSince(prop::sample::Index, prop::sample::Index),
    Touch(u32, Vec<(u8, usize)>),
    SetCapacity(u32, u32),
    Forget(u32),
}

fn runs() -> impl Strategy<Value = Vec<(u8, usize)>> {
    let length = prop_oneof![6 => 1_usize..6, 2 => 6_usize..40, 1 => 250_usize..300];
    prop::collection::vec((0_u8..2, length), 1..6)
}

fn op() -> impl Strategy<Value = Op> {
    let owner = 0_u32..3;
    prop_oneof![
        12 => (owner.clone(), runs()).prop_map(|(owner, runs)| Op::Insert(owner, runs)),
        9 => any::<prop::sample::Index>().prop_map(Op::Unpin),
        4 => (any::<prop::sample::Index>(), runs()).prop_map(|(pick, runs)| Op::Extend(pick, runs)),
        2 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(pick, at)| Op::DropUnusedSince(pick, at)),
        3 => (owner.clone(), runs()).prop_map(|(owner, runs)| Op::Touch(owner, runs)),
        1 => (owner.clone(), 0_u32..400).prop_map(|(owner, capacity)| Op::SetCapacity(owner, capacity)),
        1 => owner.prop_map(Op::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Which blocks are held, by whom, and in what order they go: block for block.
    #[test]
    fn the_tree_does_what_the_oracle_does(ops in prop::collection::vec(op(), 1..60), capacity in prop::sample::select(vec![30_u32, 120, 700])) {
        let mut tree = Radix::new(RadixConfig { bytes_max: 1 << 26, capacity_blocks: capacity });
        let mut oracle = Oracle::new(capacity);
        let mut pins = Vec::new();
        let mut asked = Vec::new();
        for op in ops {
            match op {
                Op::Insert(owner, runs) => {
                    let blocks = prompt(&runs);
                    let held = oracle.matched(owner, &blocks);
                    let (pin, path) = (tree.insert(owner, &blocks), oracle.insert(owner, &blocks));
                    prop_assert_eq!(pin.is_some(), path.is_some());
                    pins.extend(pin.zip(path).map(|(pin, path)| (pin, path, blocks.clone(), held)));
                    asked.push(blocks);
                }
                Op::Unpin(pick) if !pins.is_empty() => {
                    let (pin, path, ..) = pins.swap_remove(pick.index(pins.len()));
                    tree.unpin(pin);
                    oracle.unpin(&path);
                }
                Op::Extend(pick, runs) if !pins.is_empty() => {
                    let (pin, path, blocks, _) = pins.swap_remove(pick.index(pins.len()));
                    let more = prompt_after(blocks.last().copied(), &runs);
                    tree.extend(pin, blocks.len(), &more);
                    oracle.extend(&path, blocks.len(), &more);
                    asked.push([blocks, more].concat());
                }
                Op::DropUnusedSince(pick, at) if !pins.is_empty() => {
                    let (pin, path, _, held) = &pins[pick.index(pins.len())];
                    // A block that is new and has joined an older leaf counts as used like that.
                    if *held > 0 && !oracle.is_new(path, at.index(*held)) {
                        let at = at.index(*held);
                        let counted = tree.unused_since(pin, at).unwrap_or(0);
                        tree.drop_unused_since(pin, at);
                        prop_assert_eq!(oracle.drop_unused_since(path, at), counted);
                    }
                }
                Op::Unpin(_) | Op::Extend(..) | Op::DropUnusedSince(..) => {}
                Op::Touch(owner, runs) => {
                    let blocks = prompt(&runs);
                    tree.touch(owner, &blocks);
                    oracle.touch(owner, &blocks);
                }
                Op::SetCapacity(owner, capacity) => {
                    tree.set_capacity(owner, capacity);
                    oracle.set_capacity(owner, capacity);
                }
                Op::Forget(owner) => {
                    tree.forget(owner);
                    oracle.forget(owner);
                }
            }
            prop_assert_eq!(tree.check_invariants(), Ok(()));
            for owner in 0..3 {
                prop_assert_eq!(tree.owner_blocks(owner), oracle.owner_blocks(owner));
            }
            for blocks in &asked {
                prop_assert_eq!(found(&mut tree, blocks), oracle.matches(blocks));
            }
        }
        for (pin, ..) in pins {
            tree.unpin(pin);
        }
        prop_assert_eq!(tree.check_invariants(), Ok(()));
    }

    /// With little memory the oracle cannot tell what is held, but the bound and the pins can be
    /// checked: never more bytes, never a pinned path cut.
    #[test]
    fn neither_the_byte_bound_nor_a_pin_is_ever_broken(seed: u64, steps in 50_usize..200, shape in 0_u8..4) {
        let bytes_max = 400 << 10;
        let mut tree = Radix::new(RadixConfig { bytes_max, capacity_blocks: 20_000 });
        let mut rng = Rng::new(seed);
        let mut flying: Vec<(Pin, u32, Vec<u64>, u32)> = Vec::new();
        for step in 0..steps {
            if rng.below(3) == 0 && !flying.is_empty() {
                let (pin, ..) = flying.swap_remove(rng.below(flying.len()));
                tree.unpin(pin);
            } else {
                let owner = u32::try_from(rng.below(20)).unwrap();
                let runs: Vec<(u8, usize)> = (0..=rng.below(12))
                    .map(|_| {
                        let text = u8::try_from(rng.below(if shape == 0 { 2 } else { 200 })).unwrap();
                        let length = [3, 60, 600, 1 + rng.below(300)][usize::from(shape)];
                        (text, length)
                    })
                    .collect();
                let blocks = prompt(&runs);
                if let Some(pin) = tree.insert(owner, &blocks) {
                    let pinned = pinned_blocks(&tree, &pin);
                    flying.push((pin, owner, blocks, pinned));
                }
            }
            prop_assert!(tree.bytes() <= bytes_max);
            if step % 16 > 0 {
                continue;
            }
            prop_assert_eq!(tree.check_invariants(), Ok(()));
            for (pin, owner, blocks, pinned) in &flying {
                prop_assert_eq!(pinned_blocks(&tree, pin), *pinned);
                prop_assert!(found(&mut tree, blocks).get(owner) >= Some(pinned));
            }
        }
    }
}
