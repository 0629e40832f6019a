//! The simulator as a whole.

mod behaviour;
mod faults;
mod limits;
mod million;
mod plants;
mod regions;
mod same;
mod shadow;
mod sharing;
mod tenants;

use serde_json::{Value, json};

use super::result::Report;
use super::scenario::Scenario;
use super::{Broken, Simulator};
use crate::engine::config::{AllowanceRule, Config};
use crate::time::Span;

/// The engine's settings for tests; not the defaults.
fn config() -> Config {
    Config {
        ramp_ns: Span::ZERO,
        ring_vnodes: 64,
        allowance: AllowanceRule::Knee,
        ..Config::sample()
    }
}

fn merge(into: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        into[name] = value.clone();
    }
}

/// The `l4-8b` replica.
fn profile() -> Value {
    json!({
        "block_size": 16, "kv_tokens": 25_000, "max_model_len": 16_384, "max_num_seqs": 256,
        "max_num_batched_tokens": 2048, "max_num_queued_reqs": null,
        "step_base_ps": 50_000_000_000_u64, "prefill_token_ps": 488_281_250, "decode_seq_ps": 200_000_000,
        "context_token_ps": 440_000,
    })
}

/// One region with so many replicas and users; `changes` replace whole fields.
fn scenario(replicas: u32, users: u32, changes: &Value) -> Value {
    let mut scenario = json!({
        "seed": 1, "duration_s": 60.0, "check": true, "engine": null,
        "regions": [{"name": "us", "replicas": [{"count": replicas, "profile": profile()}]}],
        "clients": {"mode": "closed", "users": {"us": users}, "repeat": true},
    });
    merge(&mut scenario, changes);
    scenario
}

/// Sessions of two turns each, every user with two of them; all prompts begin alike.
fn requests(users: u64) -> Value {
    let mut columns = json!({
        "id": [], "t": [], "after": [], "think": [], "region": [], "user": [], "session": [],
        "in": [], "out": [], "block": [], "runs": [],
    });
    let mut put = |row: Value| {
        for (name, value) in row.as_object().unwrap() {
            columns[name].as_array_mut().unwrap().push(value.clone());
        }
    };
    for session in 0..users * 2 {
        let (id, own) = (session * 2, 1000 + session * 100);
        let input = 100 + session % 7 * 50;
        let whole = u32::try_from(input / 64).unwrap();
        put(
            json!({"id": id, "t": session, "after": null, "think": 0.0, "region": "us",
            "user": session / 2, "session": session, "in": input, "out": 20 + session % 5 * 30,
            "block": 64, "runs": [[1, 1], [own, whole]]}),
        );
        put(
            json!({"id": id + 1, "t": session + 1, "after": id, "think": 0.2, "region": "us",
            "user": session / 2, "session": session, "in": input + 300, "out": 40, "block": 64,
            "runs": [[1, 1], [own, whole - 1], [own + 50, 6]]}),
        );
    }
    columns
}

fn simulator(scenario: &Value, requests: &Value, config: Config) -> Simulator {
    let scenario = Scenario::from_json(scenario.to_string().as_bytes()).unwrap();
    Simulator::with_config(scenario, requests.to_string().as_bytes(), config).unwrap()
}

/// Runs to the end.
fn run_with(scenario: &Value, requests: &Value, config: Config) -> Result<Simulator, Broken> {
    let mut simulator = simulator(scenario, requests, config);
    simulator.advance(1e9)?;
    assert!(simulator.done());
    Ok(simulator)
}

/// The report of a whole run.
fn report(scenario: &Value, requests: &Value) -> Report {
    run(scenario, requests).report()
}

fn run(scenario: &Value, requests: &Value) -> Simulator {
    run_with(scenario, requests, config()).unwrap()
}

#[test]
fn a_closed_loop_is_served_and_nothing_is_left() {
    let simulator = run(&scenario(2, 8, &json!({})), &requests(8));
    let report = simulator.report();
    assert!(report.total.completed > 50, "{:?}", report.total);
    assert_eq!(report.total.completed, report.total.requests);
    assert_eq!((report.total.lost, report.total.unfinished), (0, 0));
    assert_eq!(simulator.counted(), (0, 0, 0));
    assert!(
        report.total.hit_rate > Some(0.2),
        "{:?}",
        report.total.hit_rate
    );
}

#[test]
fn sessions_begin_by_the_clock_and_go_on_after_their_answers() {
    let changes = json!({"records": true, "clients": {"mode": "sessions", "rate_scale": 2.0}});
    let report = run(&scenario(2, 0, &changes), &requests(8)).report();
    let records = report.records.unwrap();
    assert_eq!(records.id.len(), 32);
    let at = |id| records.id.iter().position(|other| *other == id).unwrap();
    for session in 0..16u32 {
        let (first, second) = (at(u64::from(session) * 2), at(u64::from(session) * 2 + 1));
        assert!((records.sent_s[first] - f64::from(session) / 2.0).abs() < 1e-6);
        let pause_s = records.sent_s[second] - records.sent_s[first] - records.e2e_s[first];
        assert!((pause_s - 0.2).abs() < 1e-3, "{pause_s}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let scenario = scenario(3, 12, &json!({"network": {"jitter_ms": 3.0, "loss": 0.05}}));
    let bytes = || run(&scenario, &requests(12)).result().unwrap();
    assert_eq!(bytes(), bytes());
}

#[test]
fn where_a_run_is_paused_does_not_matter() {
    let scenario = scenario(2, 6, &json!({}));
    let mut paused = simulator(&scenario, &requests(6), config());
    let mut until_s = 0.0;
    while !paused.done() {
        until_s += 0.7;
        paused.advance(until_s).unwrap();
    }
    let whole = run(&scenario, &requests(6));
    assert_eq!(paused.report(), whole.report());
}
