//! The shadow policy in whole simulations: what it chooses, and that nothing follows from it.

use std::fs;

use super::same::{RESULTS, cases, differences, result};
use super::*;
use crate::engine::config::{Policy, PushRule};

/// The recorded results differ from these runs in this, the shadow's own counters left out.
fn changed(shadow_of: impl Fn(usize, Policy) -> Policy, check: impl Fn(&str, &str)) -> String {
    let mut text = String::new();
    for (nth, mut case) in cases().into_iter().enumerate() {
        case.config.shadow_policy = Some(shadow_of(nth, case.config.policy));
        let block = result(&case);
        check(case.name, &block);
        let words = block.split(' ').filter(|word| !word.starts_with("shadow_"));
        text += &words.collect::<Vec<_>>().join(" ");
        text.push('\n');
    }
    differences(&fs::read_to_string(RESULTS).unwrap(), &text)
}

#[test]
fn the_shadow_of_the_policy_itself_agrees_with_every_choice_and_changes_nothing() {
    let found = changed(
        |_, policy| policy,
        |name, block| {
            let oracle = block.contains("policy=oracle");
            assert!(oracle || block.contains(" shadow_same="), "{name}");
            for counter in ["shadow_other", "shadow_waits", "_sooner_ns", "_later_ns"] {
                assert!(!block.contains(counter), "{name}: {counter}");
            }
        },
    );
    assert!(found.is_empty(), "{found}");
}

#[test]
fn a_shadow_of_another_policy_changes_nothing() {
    let next = |nth: usize, policy: Policy| {
        let others: Vec<_> = Policy::ALL.iter().filter(|of| **of != policy).collect();
        *others[nth % others.len()]
    };
    let found = changed(next, |_, _| {});
    assert!(found.is_empty(), "{found}");
}

/// Requests that do not wait for each other, each of its own conversation of three.
fn arrivals() -> Value {
    let mut columns = requests(60);
    let len = columns["id"].as_array().unwrap().len();
    columns["after"] = vec![Value::Null; len].into();
    columns["t"] = (0..len)
        .map(|nth| json!(f64::from(u32::try_from(nth).unwrap()) * 0.05))
        .collect();
    columns
}

/// In the order of arrivals: the replica of the first push, and that of the shadow.
fn first_pushes(policy: Policy, shadow: Policy) -> Vec<(u32, u32)> {
    let scenario = scenario(8, 60, &json!({"clients": {"mode": "open"}}));
    let mut config = config();
    (config.policy, config.shadow_policy) = (policy, Some(shadow));
    config.ring_load_factor = 1e6;
    (config.push, config.in_flight_max) = (PushRule::Blind, 1_024);
    let mut run = simulator(&scenario, &arrivals(), config);
    run.pushes = Some(Vec::new());
    run.advance(1e9).unwrap();
    let counters = &run.report().balancers[0].counters;
    assert_eq!(counters["hold_entered"], 0, "the fleet has room throughout");
    let pushes = run.pushes.unwrap();
    let firsts = pushes.iter().filter(|push| push.attempt == 1);
    let choices = firsts.map(|push| {
        let verdict = push.shadow.unwrap();
        assert_eq!(verdict.same, verdict.replica == push.replica);
        (push.replica.0, verdict.replica.0)
    });
    choices.collect()
}

#[test]
fn where_only_arrivals_decide_the_shadow_chooses_as_in_a_run_of_its_policy_alone() {
    for shadow in [Policy::RoundRobin, Policy::Ring, Policy::BoundedRing] {
        let alone = first_pushes(shadow, Policy::LeastLoad);
        assert_eq!(alone.len(), 240);
        for policy in Policy::ALL {
            let beside = first_pushes(*policy, shadow);
            let pairs = beside.iter().zip(&alone);
            let differ = pairs.filter(|((_, of_shadow), (real, _))| of_shadow != real);
            assert_eq!(differ.count(), 0, "{policy:?} with {shadow:?}");
            assert_eq!(beside.len(), alone.len());
        }
    }
}
