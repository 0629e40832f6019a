//! Requests by the million, with crashes, freezes, failures and clients who leave: none is lost,
//! none starves, and nothing is left in flight.

use super::*;
use crate::rng::Rng;
use crate::sim::scenario::seconds;
use crate::time::Span;

/// A fault every other second in one of two regions of three replicas each.
fn faults(rng: &mut Rng, duration_s: u32) -> Value {
    let kinds = ["crash", "freeze", "errors", "slow", "forget", "drain"];
    let mut faults = Vec::new();
    for at_s in (1..duration_s).step_by(2) {
        let kind = kinds[rng.below(kinds.len())];
        let mut one = json!({"kind": kind, "replica": rng.below(6), "at_s": at_s});
        if kind != "forget" {
            one["until_s"] = json!(
                f64::from(at_s) + 0.5 + f64::from(u8::try_from(rng.below(30)).unwrap()) / 10.0
            );
        }
        match kind {
            "errors" => one["rate"] = json!(0.5),
            "slow" => one["factor"] = json!(4.0),
            _ => {}
        }
        faults.push(one);
    }
    Value::Array(faults)
}

fn rough(seed: u64) -> Value {
    let duration_s = 120;
    let mut small = profile();
    merge(
        &mut small,
        &json!({"step_base_ps": 5_000_000_000_u64, "kv_tokens": 8_000, "max_model_len": 2_048,
        "prefill_token_ps": 20_000_000, "max_num_queued_reqs": if seed.is_multiple_of(3) { json!(40) } else { Value::Null }}),
    );
    let region = |name: &str, balancers: u32| json!({"name": name, "balancers": balancers, "replicas": [{"count": 3, "profile": small}]});
    scenario(
        0,
        0,
        &json!({
            "seed": seed, "duration_s": f64::from(duration_s), "check": false,
            "regions": [region("us", 1), region("eu", 2)],
            "network": {"rtt_ms": [[1.0, 80.0], [80.0, 1.0]], "jitter_ms": 1.0, "loss": 0.01, "stall_timeout_s": 3.0},
            "clients": {"mode": "closed", "users": {"us": 90, "eu": 60}, "repeat": true, "failure_pause_s": 0.1,
                "leave": {"probability": 0.1, "from_s": 0.0, "to_s": 3.0}},
            "faults": faults(&mut Rng::new(seed), duration_s),
        }),
    )
}

/// Answers of some 10 tokens; every other user is in the other region.
fn workload() -> Value {
    let mut workload = requests(200);
    for output in workload["out"].as_array_mut().unwrap() {
        *output = json!(output.as_u64().unwrap() / 8);
    }
    let users = workload["user"].as_array().unwrap().iter();
    let regions = users.map(|user| {
        if user.as_u64().unwrap() % 2 == 0 {
            json!("us")
        } else {
            json!("eu")
        }
    });
    workload["region"] = regions.collect();
    workload
}

/// The longest waits here are of half a second: some are to last too long.
fn settings() -> Config {
    Config {
        hold_timeout_ns: Span::from_ns(300_000_000),
        ..config()
    }
}

/// Runs scenario after scenario until so many requests have been sent; how many waited, left, and
/// failed.
fn send(requests_min: u64) -> [u64; 3] {
    let workload = workload();
    let (mut seed, mut sent, mut kinds) = (0, 0, [0; 3]);
    while sent < requests_min {
        seed += 1;
        let mut run = simulator(&rough(seed), &workload, settings());
        let mut until_s = 0.0;
        while !run.done() {
            until_s += 1.0;
            run.advance(until_s).unwrap();
            run.check_balancers().unwrap();
        }
        let total = run.report().total;
        let failed: u64 = total.failed.values().sum();
        assert_eq!(total.completed + failed, total.requests, "seed {seed}");
        assert_eq!((total.lost, total.unfinished), (0, 0), "seed {seed}");
        assert_eq!(run.counted(), (0, 0, 0), "seed {seed}");
        let longest_s = total.hold_s.max.unwrap();
        assert!(
            longest_s <= seconds((settings().hold_timeout_ns).ns()) + 0.1,
            "seed {seed}: {longest_s} s"
        );
        sent += total.requests;
        let expired = total.failed.get("hold_timeout").copied().unwrap_or(0);
        let left = total.failed["client_left"];
        for (sum, more) in kinds
            .iter_mut()
            .zip([expired, left, failed - left - expired])
        {
            *sum += more;
        }
    }
    kinds
}

#[test]
fn twenty_thousand_requests_end_once_each() {
    let [_, left, failed] = send(20_000);
    assert!(left > 0 && failed > 0);
}

#[test]
#[ignore = "a minute: make test-sim"]
fn a_million_requests_end_once_each() {
    let [expired, left, failed] = send(1_000_000);
    assert!(expired > 0 && left > 0 && failed > 0);
}
