//! What the tree costs in time and memory, by shape.
#![allow(
    missing_docs,
    reason = "criterion's macros define undocumented functions"
)]
#![allow(
    clippy::print_stderr,
    reason = "memory is no figure that criterion measures"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use skylb_core::engine::cache::radix::{Radix, RadixConfig};
use skylb_core::rng::Rng;

const BYTES_MAX: usize = 256 << 20;

fn tree(capacity_blocks: u32) -> Radix {
    Radix::new(RadixConfig {
        bytes_max: BYTES_MAX,
        capacity_blocks,
    })
}

fn fresh(rng: &mut Rng, blocks: usize) -> Vec<u64> {
    (0..blocks).map(|_| rng.next_u64()).collect()
}

fn put(tree: &mut Radix, owner: u32, blocks: &[u64]) {
    if let Some(pin) = tree.insert(owner, blocks) {
        tree.unpin(pin);
    }
}

/// Conversations over eight replicas: one of 50 system prompts (12 blocks), then turns of about 16
/// blocks, each turn sent with all before it, now and then to another replica.
fn chats(tree: &mut Radix, rng: &mut Rng, blocks: usize) -> Vec<Vec<u64>> {
    let systems: Vec<Vec<u64>> = (0..50).map(|_| fresh(rng, 12)).collect();
    let mut kept = Vec::new();
    let mut added = 0;
    while added < blocks {
        let mut talk = systems[rng.below(50)].clone();
        let mut owner = rng.below(8);
        for _ in 0..=rng.below(8) {
            let turn = 4 + rng.below(24);
            talk.extend(fresh(rng, turn));
            if rng.below(10) == 0 {
                owner = rng.below(8);
            }
            put(tree, u32::try_from(owner).unwrap_or(0), &talk);
            added += turn;
        }
        kept.push(talk);
    }
    kept
}

/// Prints what a block costs in memory, for each replica that holds it.
fn memory(name: &str, tree: &Radix, owners: u32) {
    let empty = self::tree(0).bytes();
    let held: u32 = (0..owners).map(|owner| tree.owner_blocks(owner)).sum();
    let tenths = 10 * (tree.bytes() - empty) / held as usize;
    eprintln!(
        "memory/{name}: {}.{} bytes per block and replica, {held} blocks",
        tenths / 10,
        tenths % 10
    );
}

fn memories() {
    let mut rng = Rng::new(1);
    for (name, length, count) in [
        ("one_block_prompts", 1, 1_000_000),
        ("prompts_of_8", 8, 125_000),
        ("prompts_of_64", 64, 15_625),
    ] {
        let mut tree = tree(u32::MAX);
        for _ in 0..count {
            put(&mut tree, 0, &fresh(&mut rng, length));
        }
        memory(name, &tree, 1);
    }
    let mut branching = tree(u32::MAX);
    let trunk = fresh(&mut rng, 1_000);
    for end in 1..1_000 {
        for _ in 0..100 {
            let mut branch = trunk[..end].to_vec();
            branch.push(rng.next_u64());
            put(&mut branching, 0, &branch);
        }
    }
    memory("comb_of_one_block_branches", &branching, 1);
    let mut shared = tree(u32::MAX);
    for _ in 0..5_000 {
        let prompt = fresh(&mut rng, 20);
        for owner in 0..10 {
            put(&mut shared, owner, &prompt);
        }
    }
    memory("prompts_of_20_held_by_10", &shared, 10);
    let mut talk = tree(u32::MAX);
    chats(&mut talk, &mut rng, 1_000_000);
    memory("chats_over_8_replicas", &talk, 8);
}

fn benchmarks(c: &mut Criterion) {
    memories();
    let mut rng = Rng::new(2);
    let mut group = c.benchmark_group("radix");
    // Capacities of 125,000 blocks a replica: 10^6 blocks in all, every insertion evicts.
    let mut full = tree(125_000);
    let mut talk = tree(125_000);
    chats(&mut full, &mut rng, 3_000_000);
    let talks = chats(&mut talk, &mut rng, 1_500_000);
    let mut out: Vec<(u32, u32)> = Vec::new();
    for blocks in [64, 6_250, 16_384] {
        group.bench_function(format!("match_insert_unpin_fresh_{blocks}"), |b| {
            let mut owner = 0;
            b.iter_batched(
                || fresh(&mut rng, blocks),
                |prompt| {
                    owner = (owner + 1) % 8;
                    out.clear();
                    full.matches(&prompt, &mut out);
                    put(&mut full, owner, &prompt);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("match_known_conversation", |b| {
        let mut index = 0;
        b.iter(|| {
            index = (index + 7_919) % 1_000;
            out.clear();
            talk.matches(black_box(&talks[talks.len() - 1 - index]), &mut out);
        });
    });
    let mut crowd = tree(u32::MAX);
    let system = fresh(&mut rng, 40);
    for owner in 0..1_000 {
        let mut prompt = system.clone();
        prompt.extend(fresh(&mut rng, 20));
        put(&mut crowd, owner, &prompt);
    }
    let mut asked = system.clone();
    asked.extend(fresh(&mut rng, 20));
    group.bench_function("match_with_1000_owners", |b| {
        b.iter(|| {
            out.clear();
            crowd.matches(black_box(&asked), &mut out);
        });
    });
    adversarial(&mut group, &mut rng);
    group.finish();
}

/// Shapes that are as bad as prompts can make them.
fn adversarial(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    rng: &mut Rng,
) {
    let mut out: Vec<(u32, u32)> = Vec::new();
    // A path with a branch after every block, up to the bound of what is followed.
    let mut comb = tree(u32::MAX);
    let trunk = fresh(rng, 16_384);
    put(&mut comb, 0, &trunk);
    for end in (1..5_000).rev() {
        let mut branch = trunk[..end].to_vec();
        branch.push(rng.next_u64());
        put(&mut comb, 0, &branch);
    }
    for blocks in [64, 16_384] {
        group.bench_function(format!("match_insert_unpin_comb_{blocks}"), |b| {
            b.iter(|| {
                out.clear();
                comb.matches(&trunk[..blocks], &mut out);
                put(&mut comb, 0, &trunk[..blocks]);
            });
        });
    }
    // Every block of a long prompt evicts a node of its own.
    let dust = std::cell::RefCell::new(tree(200_000));
    group.sample_size(20);
    group.bench_function("insert_unpin_16384_over_one_block_prompts", |b| {
        b.iter_batched(
            || {
                for _ in 0..220_000 {
                    put(&mut dust.borrow_mut(), 0, &[rng.next_u64()]);
                }
                fresh(rng, 16_384)
            },
            |prompt| put(&mut dust.borrow_mut(), 0, &prompt),
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
