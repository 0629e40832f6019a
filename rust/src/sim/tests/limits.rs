//! Balancers under one limit, in the simulator: with its network, its clocks and its faults.

use super::*;

const DURATION_S: u64 = 90;
/// Requests of the tenant per second, which all balancers get alike.
const PER_S: u64 = 30;
/// Its limit per minute, and what one balancer with a full bucket would admit in the whole run.
const LIMIT: u64 = 600;
const ONE_ADMITS: u64 = LIMIT + LIMIT * DURATION_S / 60;

/// Short requests of many users, by a timetable.
fn timetable() -> Value {
    let mut columns = json!({
        "id": [], "t": [], "after": [], "think": [], "region": [], "user": [], "session": [],
        "in": [], "out": [], "block": [], "runs": [],
    });
    for id in 0..DURATION_S * PER_S {
        let at_s = std::time::Duration::from_millis(id * 1_000 / PER_S).as_secs_f64();
        let row = json!({"id": id, "t": at_s, "after": null, "think": 0.0, "region": "us", "user": id,
            "session": id, "in": 64, "out": 2, "block": 64, "runs": [[1000 + id, 1]]});
        for (name, value) in row.as_object().unwrap() {
            columns[name].as_array_mut().unwrap().push(value.clone());
        }
    }
    columns
}

/// What is answered, with these faults of balancers.
fn answered(balancers: u32, faults: &Value) -> u64 {
    let mut limited = scenario(
        4,
        0,
        &json!({
            "duration_s": DURATION_S, "faults": faults, "check": false,
            "network": {"rtt_ms": [[10.0]], "jitter_ms": 3.0},
            "clients": {"mode": "open", "tenants": 1, "requests_per_minute": LIMIT},
        }),
    );
    limited["regions"][0]["balancers"] = json!(balancers);
    let total = report(&limited, &timetable()).total;
    let kinds: Vec<&str> = total.failed.keys().map(String::as_str).collect();
    assert!(
        kinds
            .iter()
            .all(|kind| ["rate_limit_exceeded", "balancer_died"].contains(kind)),
        "{kinds:?}"
    );
    assert_eq!((total.lost, total.unfinished), (0, 0));
    total.completed
}

#[test]
fn three_balancers_admit_what_one_would() {
    let one = answered(1, &json!([]));
    assert!(
        (ONE_ADMITS * 99 / 100..=ONE_ADMITS).contains(&one),
        "{one} of {ONE_ADMITS}"
    );
    let three = answered(3, &json!([]));
    assert!(
        (ONE_ADMITS * 95 / 100..=ONE_ADMITS).contains(&three),
        "{three} of {ONE_ADMITS}"
    );
}

#[test]
fn balancers_that_are_parted_for_a_minute_overshoot_by_one_window_at_most() {
    let part = |one: u32, other: u32| json!({"kind": "part", "balancers": [one, other], "at_s": 20.0, "until_s": 80.0});
    let two = answered(2, &json!([part(0, 1)]));
    assert!(two <= ONE_ADMITS + LIMIT, "{two} of {ONE_ADMITS}");
    assert!(
        two > ONE_ADMITS + LIMIT / 2,
        "they were not apart: {two} of {ONE_ADMITS}"
    );
    let three = answered(3, &json!([part(0, 2), part(1, 2)]));
    assert!(three <= ONE_ADMITS + LIMIT, "{three} of {ONE_ADMITS}");
}

#[test]
fn a_balancer_that_is_killed_and_starts_again_overshoots_by_its_part_of_a_window_at_most() {
    let kill = json!({"kind": "kill", "balancer": 1, "at_s": 40.0, "until_s": 50.0});
    let two = answered(2, &json!([kill]));
    assert!(two <= ONE_ADMITS + LIMIT / 2, "{two} of {ONE_ADMITS}");
}
