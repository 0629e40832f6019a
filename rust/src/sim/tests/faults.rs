//! Random scenarios full of faults: whatever happens, no request is lost, none waits for ever, and
//! nothing is left in flight.

use proptest::prelude::*;
use proptest::test_runner::{Config as Runner, TestRunner};

use super::*;
use crate::engine::config::{Policy, PushRule};
use crate::sim::Broken;
use crate::time::Span;

/// A fault of some kind within the first second and a half.
fn fault(replicas: u32, far: &'static str) -> impl Strategy<Value = Value> {
    let lies = ["negative", "nan", "absurd", "frozen", "idle", "unreadable"];
    let times = (0.0..1.5f64, prop::option::of(0.01..1.5f64));
    let parts = (
        0..8u8,
        0..replicas,
        times,
        prop::sample::select(lies.to_vec()),
        0.1..20.0f64,
    );
    parts.prop_map(move |(kind, replica, (at_s, lasts_s), how, factor)| {
        let until_s = lasts_s.map(|lasts_s| at_s + lasts_s);
        match kind {
            0 => json!({"kind": "crash", "replica": replica, "at_s": at_s, "until_s": until_s}),
            1 => json!({"kind": "slow", "replica": replica, "at_s": at_s, "until_s": until_s, "factor": factor}),
            2 => json!({"kind": "lie", "replica": replica, "at_s": at_s, "until_s": until_s, "how": how}),
            3 => json!({"kind": "forget", "replica": replica, "at_s": at_s}),
            4 => json!({"kind": "freeze", "replica": replica, "at_s": at_s, "until_s": until_s}),
            5 => json!({"kind": "errors", "replica": replica, "at_s": at_s, "until_s": until_s, "rate": factor / 20.0,
                "how": (["status", "reset", "full"][replica as usize % 3])}),
            6 => json!({"kind": "drain", "replica": replica, "at_s": at_s, "until_s": until_s}),
            _ => json!({"kind": "cut", "between": ["us", (if factor < 10.0 { "us" } else { far })], "at_s": at_s, "until_s": until_s}),
        }
    })
}

/// A scenario, and the engine's settings.
fn faulty() -> impl Strategy<Value = (Value, Config)> {
    let shape = (
        1..5u32,
        1..10u32,
        any::<u64>(),
        0.5..2.0f64,
        prop::sample::select(LAYOUTS.to_vec()),
    );
    let network = (0.0..20.0f64, 0.0..0.3f64, 0.0..50.0f64);
    let leave = prop::option::of((0.0..1.0f64, 0.0..2.0f64));
    let rules = [PushRule::Blind, PushRule::Outstanding, PushRule::Pending];
    let engine = (
        prop::sample::select(Policy::ALL.to_vec()),
        prop::sample::select(rules.to_vec()),
        prop::sample::select(vec![AllowanceRule::One, AllowanceRule::Knee]),
        prop::sample::select(vec![0usize, 2, 1_000]),
        1..4u32,
        prop::sample::select(vec![100_000u64, 2_000_000_000, 30_000_000_000]),
        1..30u32,
    );
    (shape, network, leave, engine).prop_flat_map(|(shape, network, leave, engine)| {
        let far = if shape.4.1 { "eu" } else { "us" };
        prop::collection::vec(fault(shape.0, far), 0..5)
            .prop_map(move |faults| (assemble(shape, network, leave, &faults), settings(engine)))
    })
}

/// Topology, whether there are two regions, and balancers of each.
type Layout = (&'static str, bool, u32);

const LAYOUTS: [Layout; 5] = [
    ("skylb", false, 1),
    ("skylb", false, 2),
    ("skylb", true, 2),
    ("local", true, 1),
    ("global", true, 1),
];

type Shape = (u32, u32, u64, f64, Layout);

fn assemble(
    (replicas, users, seed, duration_s, (topology, two, balancers)): Shape,
    (jitter_ms, loss, rtt_ms): (f64, f64, f64),
    leave: Option<(f64, f64)>,
    faults: &[Value],
) -> Value {
    let mut small = profile();
    merge(
        &mut small,
        &json!({"kv_tokens": 2_000, "max_model_len": 1_024, "max_num_seqs": 8,
        "max_num_queued_reqs": if seed % 3 == 0 { json!(6) } else { Value::Null }}),
    );
    let region = |name: &str| json!({"name": name, "balancers": balancers, "replicas": [{"count": replicas, "profile": small}]});
    let (regions, round_trips, at_once) = if two {
        let round_trips = json!([[rtt_ms, 3.0 * rtt_ms], [3.0 * rtt_ms, rtt_ms]]);
        let regions = json!([region("us"), region("eu")]);
        (regions, round_trips, json!({"us": users, "eu": 2}))
    } else {
        let at_once = json!({"us": users});
        (json!([region("us")]), json!([[rtt_ms]]), at_once)
    };
    let leave = leave.map(
        |(probability, to_s)| json!({"probability": probability, "from_s": 0.0, "to_s": to_s}),
    );
    scenario(
        replicas,
        users,
        &json!({
            "seed": seed, "duration_s": duration_s, "drain_s": 3_000.0, "faults": faults,
            "topology": topology, "regions": regions,
            "network": {"rtt_ms": round_trips, "jitter_ms": jitter_ms, "loss": loss, "stall_timeout_s": 5.0},
            "clients": {"mode": "closed", "users": at_once, "repeat": true, "leave": leave},
        }),
    )
}

fn settings(
    (policy, push, allowance, hold_len_max, attempts_max, hold_timeout_ns, in_flight_max): (
        Policy,
        PushRule,
        AllowanceRule,
        usize,
        u32,
        u64,
        u32,
    ),
) -> Config {
    Config {
        policy,
        push,
        allowance,
        hold_len_max,
        attempts_max,
        hold_timeout_ns: Span::from_ns(hold_timeout_ns),
        in_flight_max,
        probe_interval_ns: Span::from_ns(250_000_000),
        hold_work_weight: 40.0,
        ..config()
    }
}

/// Answers of 4 to 28 tokens: a scenario is over soon. Users are of one region or of two.
fn short(two: bool) -> Value {
    let mut short = requests(16);
    for output in short["out"].as_array_mut().unwrap() {
        *output = json!(output.as_u64().unwrap() / 5);
    }
    let users = short["user"].as_array().unwrap().iter();
    let far = |user: &Value| two && user.as_u64().unwrap() % 2 == 1;
    short["region"] = users
        .map(|user| if far(user) { "eu" } else { "us" })
        .collect();
    short
}

/// What must hold of every run.
fn unharmed(scenario: &Value, requests: &Value, config: Config) -> Result<(), String> {
    let hold_s = crate::sim::scenario::seconds(config.hold_timeout_ns.ns());
    let run = run_with(scenario, requests, config).map_err(|Broken(text)| text)?;
    let report = run.report();
    let total = &report.total;
    if total.lost != 0 || total.unfinished != 0 {
        return Err(format!(
            "{} lost, {} unfinished",
            total.lost, total.unfinished
        ));
    }
    if run.counted() != (0, 0, 0) {
        return Err(format!("left behind: {:?}", run.counted()));
    }
    // One sweep late at most, per time in the hold, and a retry may hold it again.
    if total
        .hold_s
        .max
        .is_some_and(|longest_s| longest_s > hold_s + 0.3)
    {
        return Err(format!(
            "held for {:?} s, the timeout is {hold_s} s",
            total.hold_s.max
        ));
    }
    let balancers = report.balancers.iter();
    let unknown =
        balancers.map(|of| of.counters["unknown_first_bytes"] + of.counters["unknown_retries"]);
    match unknown.sum::<u64>() {
        0 => Ok(()),
        unknown => Err(format!("{unknown} calls about requests that are not known")),
    }
}

#[test]
fn five_hundred_random_fault_scenarios_break_nothing() {
    let runner = Runner {
        cases: 500,
        failure_persistence: None,
        ..Runner::default()
    };
    let mut runner = TestRunner::new_with_rng(
        runner,
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let requests = [false, true].map(short);
    let outcome = runner.run(&faulty(), |(scenario, config)| {
        let two = scenario["regions"].as_array().unwrap().len() - 1;
        unharmed(&scenario, &requests[two], config).map_err(TestCaseError::fail)
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}
