//! `make same`: simulations whose results are recorded, so that a change of behaviour shows.
//!
//! `results.txt` has a block per simulation: figures to read, and hashes of everything else. Engine
//! counters stand in it by name, so that a renamed one shows as one line. `make same RECORD=1` writes
//! the file anew; the commit that does so says why.

mod difference;
mod scenarios;
mod summary;

use std::fmt::Write as _;
use std::fs;

use super::*;
use crate::engine::effect::Effect;
use crate::time::Span;
pub(in crate::sim::tests) use difference::differences;
pub(in crate::sim::tests) use scenarios::{Case, cases};
use summary::summary;

pub(super) const RESULTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/rust/src/sim/tests/same/results.txt"
);

impl Simulator {
    /// Adds one decision to the hash of all.
    pub(in crate::sim) fn note(&mut self, balancer: u32, effect: &Effect) {
        if let (Some(pushes), Effect::Push(push)) = (&mut self.pushes, effect) {
            pushes.push(push.clone());
        }
        let (kind, fields) = match effect {
            Effect::Push(push) => (
                0,
                [
                    u64::from(push.replica.0),
                    u64::from(push.attempt),
                    u64::from(push.match_blocks),
                    push.predicted_ttft_ns.map_or(u64::MAX, Span::ns),
                ],
            ),
            Effect::Forward(forward) => (
                1,
                [
                    u64::from(forward.peer.0) << 32 | u64::from(forward.attempts_left),
                    u64::from(forward.attempt),
                    u64::from(forward.match_blocks),
                    forward.deadline_ns.ns(),
                ],
            ),
            Effect::Hold(_) => (2, [0; 4]),
            Effect::Reject(reject) => (
                3,
                [
                    hash(reject.code.as_bytes()),
                    u64::from(reject.status),
                    u64::from(reject.retry_after_s.unwrap_or(u32::MAX)),
                    0,
                ],
            ),
            Effect::Expire(_) => (4, [0; 4]),
            Effect::Withdraw(_) => (5, [0; 4]),
            // They concern no request, and are counted.
            Effect::Probe(_) | Effect::Tell(_) => return,
        };
        let head = [
            self.decisions,
            self.queue.now_ns(),
            u64::from(balancer) << 8 | kind,
            effect.request().map_or(0, |id| id.0),
        ];
        let words = head.into_iter().chain(fields);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        self.decisions = hash(&bytes);
    }
}

fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// The block of one simulation.
pub(super) fn result(case: &Case) -> String {
    let mut run = simulator(&case.scenario, &case.requests, case.config.clone());
    run.advance(1e9).unwrap();
    format!("[{}]\n{}", case.name, summary(&run))
}

/// The blocks of all.
fn results() -> String {
    let mut text = String::new();
    for case in cases() {
        let _ = writeln!(text, "{}", result(&case));
    }
    text
}

#[test]
fn every_recorded_simulation_gives_the_same_result() {
    let recorded = fs::read_to_string(RESULTS).unwrap();
    let found = differences(&recorded, &results());
    assert!(
        found.is_empty(),
        "\n{found}\nIf this change is meant: `make same RECORD=1`, and say in the commit why.\n"
    );
}

#[test]
#[ignore = "writes results.txt: make same RECORD=1"]
fn record_the_results() {
    fs::write(RESULTS, results()).unwrap();
}

#[test]
fn a_changed_seed_or_setting_is_named_with_what_it_changes() {
    let case = || cases().into_iter().next().unwrap();
    let before = result(&case());
    assert_eq!(differences(&before, &result(&case())), "");

    let mut other_seed = case();
    other_seed.scenario["seed"] = json!(2);
    let found = differences(&before, &result(&other_seed));
    assert!(found.starts_with("[prefix]\n"), "{found}");
    assert!(found.contains("hashes: decisions "), "{found}");

    let mut other_setting = case();
    other_setting.config.match_threshold = 0.9;
    let found = differences(&before, &result(&other_setting));
    assert!(found.starts_with("[prefix]\n"), "{found}");
    assert!(
        found.contains("engine: ") && found.contains(" -> "),
        "{found}"
    );
}
