//! Balancers that share: what crosses, what does not, and what a broken network changes.

use super::*;
use crate::engine::config::Policy;
use crate::engine::plant::Plant;
use crate::rng::Rng;
use crate::time::Span;

pub(super) const NAMES: [&str; 3] = ["us", "eu", "asia"];

/// Users of the workload are spread over so many regions in turn.
pub(super) fn spread(users: u64, regions: usize) -> Value {
    let mut workload = requests(users);
    let of = workload["user"].as_array().unwrap().iter();
    workload["region"] = of
        .map(|user| {
            let user = usize::try_from(user.as_u64().unwrap()).unwrap();
            json!(NAMES[user % regions])
        })
        .collect();
    workload
}

/// Three regions of two replicas each, so many users in each.
pub(super) fn three(users: [u32; 3], changes: &Value) -> Value {
    let region =
        |name: &str| json!({"name": name, "replicas": [{"count": 2, "profile": profile()}]});
    let mut scenario = scenario(
        0,
        0,
        &json!({
            "regions": NAMES.map(region),
            "network": {"rtt_ms": [[0.5, 80.0, 160.0], [80.0, 0.5, 120.0], [160.0, 120.0, 0.5]], "jitter_ms": 1.0},
            "clients": {"mode": "closed", "repeat": true, "users": {"us": users[0], "eu": users[1], "asia": users[2]}},
        }),
    );
    merge(&mut scenario, changes);
    scenario
}

fn settings() -> Config {
    config()
}

fn sent(report: &Report) -> u64 {
    report.forwards.as_ref().unwrap().sent
}

#[test]
fn a_region_with_too_much_to_do_sends_some_to_others_and_stays_within_their_room() {
    let requests = spread(120, 3);
    let loaded = three([240, 20, 20], &json!({"check": false}));
    let run = run_with(&loaded, &requests, settings()).unwrap();
    let report = run.report();
    let forwards = report.forwards.unwrap();
    assert!(forwards.sent > 200, "{forwards:?}");
    assert_eq!(report.total.completed, report.total.requests);
    assert!(
        forwards.over_room * 10 <= forwards.arrived,
        "more than the room and a tenth: {forwards:?}"
    );
    assert!(forwards.flips_per_10s_max <= 1.0, "{forwards:?}");
    let mut alone = loaded;
    alone["topology"] = json!("local");
    let alone = run_with(&alone, &requests, settings()).unwrap().report();
    assert_eq!(alone.forwards, None);
    assert!(
        report.regions["us"].ttft_s.mean < alone.regions["us"].ttft_s.mean,
        "{:?} {:?}",
        report.regions["us"].ttft_s.mean,
        alone.regions["us"].ttft_s.mean
    );
}

#[test]
fn where_every_region_has_room_nothing_crosses() {
    let report = run_with(&three([2, 2, 2], &json!({})), &spread(24, 3), settings());
    assert_eq!(sent(&report.unwrap().report()), 0);
}

#[test]
fn summaries_are_few_while_nothing_happens_and_bounded_while_much_does() {
    let requests = spread(120, 3);
    let mut idle = three([1, 1, 1], &json!({}));
    idle["clients"]["think_scale"] = json!(100.0);
    let per_s = |scenario: &Value| {
        let run = run_with(scenario, &requests, settings()).unwrap();
        run.report().forwards.unwrap().summary_bytes_per_s_max
    };
    assert!(per_s(&idle) <= 1024.0, "{}", per_s(&idle));
    let busy = three([240, 200, 20], &json!({"check": false, "duration_s": 20.0}));
    assert!(per_s(&busy) <= 65_536.0, "{}", per_s(&busy));
}

/// The net flow follows a load that changes sides, and does not swing between.
#[test]
fn two_loaded_regions_do_not_send_to_and_fro() {
    let requests = spread(120, 3);
    let both = three([150, 150, 10], &json!({"check": false}));
    let forwards = run_with(&both, &requests, settings()).unwrap().report();
    let forwards = forwards.forwards.unwrap();
    assert!(forwards.flips_per_10s_max <= 1.0, "{forwards:?}");
}

#[test]
fn broken_links_and_an_evacuated_region_fail_nobody() {
    let requests = spread(120, 3);
    for fault in [
        json!({"kind": "cut", "between": ["us", "eu"], "at_s": 10.0, "until_s": 40.0}),
        json!({"kind": "drop", "from": "us", "to": "eu", "at_s": 10.0, "until_s": 40.0}),
        json!({"kind": "drop", "from": "eu", "to": "us", "at_s": 10.0, "until_s": 40.0}),
        json!({"kind": "evacuate", "region": "eu", "at_s": 10.0, "until_s": 40.0}),
    ] {
        let mut scenario = three([150, 20, 40], &json!({"faults": [fault], "check": false}));
        scenario["network"]["stall_timeout_s"] = json!(3.0);
        let report = run_with(&scenario, &requests, settings()).unwrap().report();
        let total = &report.total;
        // What was computed while the link broke can be cut; nothing else may fail.
        let others = total
            .failed
            .iter()
            .filter(|(kind, _)| *kind != "stream_cut");
        assert_eq!(others.count(), 0, "{fault}: {:?}", total.failed);
        assert!(sent(&report) > 100, "{fault}: {}", sent(&report));
    }
}

#[test]
fn rules_of_residency_hold_for_all_that_is_pushed_and_forwarded() {
    let rules = json!([{"tenant": 0, "regions": ["us"]}, {"tenant": 1, "regions": ["us", "asia"]}]);
    let mut scenario = three(
        [200, 0, 0],
        &json!({"residency": rules, "duration_s": 20.0}),
    );
    scenario["clients"]["tenants"] = json!(4);
    let run = run_with(&scenario, &spread(120, 3), settings()).unwrap();
    assert!(sent(&run.report()) > 20);
    scenario["residency"] = json!([{"tenant": 2, "regions": ["eu"]}]);
    scenario["topology"] = json!("local");
    let alone = run_with(&scenario, &spread(120, 3), settings()).unwrap();
    let failed = &alone.report().total.failed;
    assert!(failed["residency"] > 0, "{failed:?}");
    assert_eq!(failed.len(), 1, "nobody may serve them: {failed:?}");
}

// ------------------------------------------------------------------ planted bugs

/// A link is cut for longer than word of the other side may be believed, some hops are forged, and
/// some may not leave.
fn watched(seed: u64) -> Value {
    let mut watched = three(
        [240, 5, 5],
        &json!({"seed": seed, "duration_s": 30.0, "forged_hops": 0.1,
        "residency": [{"tenant": 0, "regions": ["us", "asia"]}],
        "faults": [{"kind": "cut", "between": ["us", "eu"], "at_s": 0.5, "until_s": 28.0}]}),
    );
    watched["network"]["stall_timeout_s"] = json!(3.0);
    // Too many for their region only when its word of the other is old.
    watched["clients"]["ramp_s"] = json!(60.0);
    watched["clients"]["tenants"] = json!(2);
    watched
}

/// What each plant breaks.
const PLANTS: [(Plant, &str); 5] = [
    (Plant::CrossedTwice, "nothing_crosses_twice"),
    (Plant::ResidencyForgotten, "nothing_leaves_its_residency"),
    (Plant::StaleBelieved, "stale_word_is_not_believed"),
    (Plant::HopIgnored, "forged_hops_are_refused"),
    (Plant::LostAway, "every_request_is_held_or_in_flight"),
];

#[test]
fn bugs_planted_in_the_rules_of_peers_are_caught() {
    let requests = spread(120, 3);
    let run = |plant| {
        let config = Config {
            plant,
            ..settings()
        };
        let mut broken = (1..5).map(|seed| run_with(&watched(seed), &requests, config.clone()));
        let broken = broken.find_map(Result::err);
        broken.map(|broken| broken.to_string())
    };
    assert_eq!(run(None), None);
    for (plant, expected) in PLANTS {
        let text = run(Some(plant)).unwrap_or_default();
        assert!(text.contains(expected), "{plant:?}: {text:?}");
    }
}

// ------------------------------------------------------------------ many requests

/// Everything at once: links that are cut and drop, late and overtaken summaries, forged hops,
/// clients who leave, replicas that fail, rules of residency.
fn rough(seed: u64) -> Value {
    let mut rng = Rng::new(seed);
    let duration_s = 60;
    let kinds = [
        "cut", "drop", "drop", "evacuate", "crash", "errors", "freeze",
    ];
    let mut faults = Vec::new();
    for at_s in (1..duration_s).step_by(3) {
        let kind = kinds[rng.below(kinds.len())];
        let (one, step) = (rng.below(3), 1 + rng.below(2));
        let (from, to) = (NAMES[one], NAMES[(one + step) % 3]);
        let until_s =
            f64::from(at_s) + 0.2 + f64::from(u8::try_from(rng.below(60)).unwrap()) / 10.0;
        let mut fault = json!({"kind": kind, "at_s": at_s, "until_s": until_s});
        let more = match kind {
            "cut" => json!({"between": [from, to]}),
            "drop" => json!({"from": from, "to": to}),
            "evacuate" => json!({"region": from}),
            "errors" => json!({"replica": rng.below(6), "rate": 0.5}),
            _ => json!({"replica": rng.below(6)}),
        };
        merge(&mut fault, &more);
        faults.push(fault);
    }
    let mut small = profile();
    merge(
        &mut small,
        &json!({"step_base_ps": 5_000_000_000_u64, "kv_tokens": 8_000, "max_model_len": 2_048,
        "prefill_token_ps": 20_000_000}),
    );
    let region = |name: &str| json!({"name": name, "replicas": [{"count": 2, "profile": small}]});
    let users = [20 + rng.below(100), 5 + rng.below(30), rng.below(20)];
    let mut rough = three(
        users.map(|users| u32::try_from(users).unwrap()),
        &json!({"seed": seed, "duration_s": duration_s, "check": false, "faults": faults,
        "regions": NAMES.map(region), "forged_hops": 0.02,
        "residency": [{"tenant": 0, "regions": ["us", "eu"]}, {"tenant": 1, "regions": ["asia"]},
            {"tenant": 2, "regions": ["us", "asia"]}]}),
    );
    rough["clients"]["tenants"] = json!(7);
    rough["clients"]["failure_pause_s"] = json!(0.1);
    rough["clients"]["leave"] = json!({"probability": 0.05, "from_s": 0.0, "to_s": 3.0});
    let stale_ms = [1.0, 20.0, 300.0][rng.below(3)];
    let network = &mut rough["network"];
    (network["jitter_ms"], network["loss"]) = (json!(stale_ms), json!(0.02));
    (network["rto_ms"], network["stall_timeout_s"]) = (json!(1_000.0), json!(3.0));
    rough
}

/// Answers of some 10 tokens.
fn short() -> Value {
    let mut workload = spread(210, 3);
    for output in workload["out"].as_array_mut().unwrap() {
        *output = json!(output.as_u64().unwrap() / 8);
    }
    workload
}

/// Runs scenario after scenario until so many requests have been sent; how many were forwarded, and
/// of how many forwards the hop was forged.
fn send(requests_min: u64) -> (u64, u64) {
    let workload = short();
    let (mut seed, mut all, mut forwarded, mut forged) = (0, 0, 0, 0);
    while all < requests_min {
        seed += 1;
        let policy =
            [Policy::Prefix, Policy::Ring, Policy::Predictive][usize::try_from(seed % 3).unwrap()];
        let config = Config {
            policy,
            hold_timeout_ns: Span::from_ns(4_000_000_000),
            ..settings()
        };
        let mut run = simulator(&rough(seed), &workload, config);
        let mut until_s = 0.0;
        while !run.done() {
            until_s += 1.0;
            run.advance(until_s).unwrap();
            run.check_balancers().unwrap();
        }
        let report = run.report();
        let total = report.total;
        let failed: u64 = total.failed.values().sum();
        assert_eq!(total.completed + failed, total.requests, "seed {seed}");
        assert_eq!((total.lost, total.unfinished), (0, 0), "seed {seed}");
        assert_eq!(run.counted(), (0, 0, 0), "seed {seed}");
        let forwards = report.forwards.unwrap();
        all += total.requests;
        forwarded += forwards.sent;
        forged += forwards.forged;
    }
    (forwarded, forged)
}

#[test]
fn of_twenty_thousand_requests_none_crosses_twice_leaves_its_residency_or_is_lost() {
    let (forwarded, forged) = send(20_000);
    assert!(forwarded > 500 && forged > 5, "{forwarded} {forged}");
}

#[test]
#[ignore = "minutes: make test-sim"]
fn of_a_million_requests_none_crosses_twice_leaves_its_residency_or_is_lost() {
    let (forwarded, forged) = send(1_000_000);
    assert!(forwarded > 25_000 && forged > 250, "{forwarded} {forged}");
}
