//! What is simulated behaves as its names say.

use super::*;

/// `(id, t, after, session, in, out)`.
type Row = (u64, f64, Option<u64>, u64, u32, u32);

/// Requests by rows, one user each session, texts of their own.
fn rows(rows: &[Row]) -> Value {
    let column = |value: &dyn Fn(&Row) -> Value| Value::Array(rows.iter().map(value).collect());
    json!({
        "id": column(&|row| json!(row.0)), "t": column(&|row| json!(row.1)),
        "after": column(&|row| json!(row.2)), "think": column(&|_| json!(0.0)),
        "region": column(&|_| json!("us")), "user": column(&|row| json!(row.3)),
        "session": column(&|row| json!(row.3)), "in": column(&|row| json!(row.4)),
        "out": column(&|row| json!(row.5)), "block": column(&|_| json!(16)),
        "runs": column(&|row| json!([[row.3 * 100_000, row.4 / 16 + 1]])),
    })
}

/// An open loop without noise that lists every request.
fn open(replicas: u32, changes: &Value) -> Value {
    let mut open = scenario(
        replicas,
        0,
        &json!({"records": true, "clients": {"mode": "open"}}),
    );
    merge(&mut open, changes);
    open
}

fn two_regions(topology: &str, changes: &Value) -> Value {
    let group = json!([{"count": 1, "profile": profile()}]);
    let mut both = open(
        1,
        &json!({
            "topology": topology, "network": {"rtt_ms": [[0.0, 100.0], [100.0, 0.0]], "window_bytes": 0},
            "regions": [{"name": "us", "replicas": group}, {"name": "eu", "replicas": group}],
        }),
    );
    merge(&mut both, changes);
    both
}

fn fault_of(scenario: &Value, requests: &Value) -> String {
    let scenario = Scenario::from_json(scenario.to_string().as_bytes());
    let built = scenario.and_then(|scenario| {
        Simulator::with_config(scenario, requests.to_string().as_bytes(), config())
    });
    built.unwrap_err().to_string()
}

#[test]
fn a_lone_request_takes_its_steps_and_its_round_trips() {
    let quiet = json!({"network": {"rtt_ms": [[10.0]]}});
    let records = report(&open(1, &quiet), &rows(&[(1, 0.0, None, 1, 160, 3)]))
        .records
        .unwrap();
    // Client to balancer to replica and back: 20 ms. A step with 160 tokens of prefill.
    let prefill_s = 0.050 + 160.0 * 0.000_488_281_25;
    let expected = [0.020 + prefill_s, 0.020 + prefill_s + 2.0 * 0.0502];
    let found = [records.ttft_s[0].unwrap(), records.e2e_s[0]];
    for (expected, found) in expected.iter().zip(found) {
        assert!(
            (expected - found).abs() < 0.001,
            "{found} s instead of {expected} s"
        );
    }
}

#[test]
fn the_next_turn_finds_prompt_and_answer_cached() {
    let records = report(
        &open(1, &json!({})),
        &rows(&[(1, 0.0, None, 1, 160, 64), (2, 30.0, Some(1), 1, 320, 10)]),
    );
    let records = records.records.unwrap();
    // The last generated token's KV does not exist yet when the answer ends: its block is missing.
    assert_eq!(records.cached_tokens, [0, 208]);
}

#[test]
fn siblings_start_together_when_the_request_they_follow_has_ended() {
    let closed = json!({"records": true, "clients": {"mode": "closed", "users": {"us": 1}}});
    let tree = rows(&[
        (1, 0.0, None, 1, 100, 20),
        (2, 0.0, Some(1), 1, 200, 20),
        (3, 0.0, Some(1), 1, 200, 20),
        (4, 0.0, Some(3), 1, 300, 20),
    ]);
    let records = report(&scenario(1, 1, &closed), &tree).records.unwrap();
    assert_eq!(records.id.len(), 4);
    let sent = |id: u64| records.sent_s[records.id.iter().position(|other| *other == id).unwrap()];
    let end = |id: u64| {
        sent(id) + records.e2e_s[records.id.iter().position(|other| *other == id).unwrap()]
    };
    assert!((sent(2) - end(1)).abs() < 1e-6 && (sent(3) - end(1)).abs() < 1e-6);
    assert!((sent(4) - end(3)).abs() < 1e-6);
}

#[test]
fn a_global_balancer_costs_the_round_trip_and_region_local_ones_do_not() {
    let mut requests = rows(&[(1, 0.0, None, 1, 160, 3)]);
    requests["region"] = json!(["eu"]);
    let ttft = |topology: &str| {
        report(&two_regions(topology, &json!({})), &requests).regions["eu"]
            .ttft_s
            .mean
            .unwrap()
    };
    let (local, global) = (ttft("local"), ttft("global"));
    assert!(
        (0.099..0.202).contains(&(global - local)),
        "{global} s against {local} s"
    );
}

#[test]
fn a_crash_costs_answers_under_way_and_nothing_else() {
    let crash = json!({"faults": [{"kind": "crash", "replica": 0, "at_s": 20.0, "until_s": 30.0}]});
    let report = report(&scenario(2, 12, &crash), &requests(12));
    let kinds: Vec<_> = report.total.failed.keys().cloned().collect();
    assert_eq!(kinds, ["stream_cut"]);
    assert!(report.total.failed["stream_cut"] <= 12);
    assert_eq!(
        report.total.completed + report.total.failed["stream_cut"],
        report.total.requests
    );
}

#[test]
fn traffic_keeps_flowing_to_a_replica_that_lies() {
    for how in ["negative", "nan", "absurd", "frozen", "idle", "unreadable"] {
        let lie = json!({"duration_s": 40.0, "check": false, "faults": [{"kind": "lie", "replica": 0, "at_s": 5.0, "how": how}]});
        let report = report(&scenario(2, 24, &lie), &requests(24));
        assert_eq!(report.total.completed, report.total.requests, "{how}");
        let share = report.replicas[0].requests * 100 / report.total.requests;
        assert!(
            share >= 10,
            "{how}: the liar took {share} % of the requests"
        );
    }
}

#[test]
fn a_cut_link_stops_what_must_cross_it_and_no_more() {
    let cut =
        json!({"faults": [{"kind": "cut", "between": ["us", "eu"], "at_s": 5.0, "until_s": 20.0}]});
    let mut both = rows(&[
        (1, 0.0, None, 1, 160, 3),
        (2, 10.0, None, 2, 160, 3),
        (3, 30.0, None, 3, 160, 3),
    ]);
    both["region"] = json!(["eu", "eu", "eu"]);
    let global = report(&two_regions("global", &cut), &both);
    assert_eq!(global.total.failed.get("unreachable"), Some(&1));
    assert_eq!(global.total.completed, 2);
    let local = report(&two_regions("local", &cut), &both);
    assert_eq!(local.total.completed, 3);
}

#[test]
fn a_client_who_leaves_frees_its_place() {
    let leave = json!({"clients": {"mode": "closed", "users": {"us": 8}, "repeat": true,
        "leave": {"probability": 0.5, "from_s": 0.0, "to_s": 3.0}}});
    let simulator = run(&scenario(1, 8, &leave), &requests(8));
    let total = simulator.report().total;
    assert!(total.failed["client_left"] > 10, "{:?}", total.failed);
    assert_eq!(simulator.counted(), (0, 0, 0));
}

#[test]
fn a_frozen_replica_goes_on_where_it_stood() {
    let freeze =
        json!({"faults": [{"kind": "freeze", "replica": 0, "at_s": 1.0, "until_s": 11.0}]});
    let both = rows(&[(1, 0.0, None, 1, 160, 64), (2, 1.05, None, 2, 160, 3)]);
    let records = |changes: &Value| report(&open(1, changes), &both).records.unwrap();
    let (still, frozen) = (records(&json!({})), records(&freeze));
    assert_eq!(frozen.outcome, ["ok", "ok"]);
    let first = |of: &crate::sim::result::Records| of.id.iter().position(|id| *id == 1).unwrap();
    let late_s = frozen.e2e_s[first(&frozen)] - still.e2e_s[first(&still)];
    assert!((late_s - 10.0).abs() < 0.2, "{late_s} s later");
    let second_s = frozen.ttft_s[1 - first(&frozen)];
    assert!(second_s > Some(9.95), "{second_s:?}");
}

#[test]
fn a_frozen_replica_is_given_up_after_a_while() {
    let freeze = json!({"faults": [{"kind": "freeze", "replica": 0, "at_s": 1.0}],
        "network": {"stall_timeout_s": 3.0}});
    let requests = rows(&[(1, 0.0, None, 1, 160, 64), (2, 1.05, None, 2, 160, 3)]);
    let records = report(&open(1, &freeze), &requests).records.unwrap();
    assert_eq!(records.outcome, ["stream_cut", "upstream_timeout"]);
    assert!((records.e2e_s[0] - 4.0).abs() < 0.01, "{:?}", records.e2e_s);
}

#[test]
fn what_waits_at_a_wedged_engine_goes_elsewhere_within_seconds() {
    // Its page is answered, and stands still. Both have answered before.
    let wedge = json!({"faults": [{"kind": "wedge", "replica": 0, "at_s": 20.0}], "records": true});
    let brisk = Config {
        wedged_ns: Span::from_ns(3_000_000_000),
        ..config()
    };
    let patient = Config {
        wedged_ns: Span::from_ns(1_000_000_000_000),
        ..config()
    };
    let run = |config| {
        let run = run_with(&scenario(2, 40, &wedge), &requests(40), config);
        run.unwrap().report()
    };
    let (brisk, patient) = (run(brisk), run(patient));
    assert_eq!(brisk.balancers[0].counters["wedged"], 1);
    assert!(brisk.balancers[0].counters["withdrawn"] > 0);
    assert_eq!(patient.balancers[0].counters["wedged"], 0);
    // Streams that had begun there are lost: nobody else has their beginning.
    let lost = brisk.total.requests - brisk.total.completed;
    assert!(lost <= 40, "{:?}", brisk.total);
    // What had no byte waited for as long as it takes to find out, and for the retry.
    let records = brisk.records.unwrap();
    let worst_s = records
        .ttft_s
        .iter()
        .flatten()
        .fold(0.0_f64, |worst, ttft_s| worst.max(*ttft_s));
    assert!((3.0..7.0).contains(&worst_s), "{worst_s} s");
    let waits_s = |report: Report| report.total.ttft_s.max.unwrap();
    assert!(
        waits_s(patient) > 50.0,
        "others wait until their time is up"
    );
}

#[test]
fn replicas_that_come_to_a_fleet_under_overload_are_useful_while_they_ramp() {
    // Two replicas for users enough for five; three more come after 40 s.
    let late =
        |replica: u32| json!({"kind": "crash", "replica": replica, "at_s": 0.0, "until_s": 40.0});
    let never = |replica: u32| json!({"kind": "crash", "replica": replica, "at_s": 0.0});
    let run = |comes: &dyn Fn(u32) -> Value, ramp_s: u64| {
        let faults: Vec<Value> = (2..5).map(comes).collect();
        let changes = json!({"faults": faults, "records": true, "duration_s": 100.0});
        let config = Config {
            ramp_ns: Span::from_secs(ramp_s),
            ..config()
        };
        let run = run_with(&scenario(5, 160, &changes), &requests(160), config);
        let records = run.unwrap().report().records.unwrap();
        let since = |from_s: f64, to_s: f64| {
            let sent = records.sent_s.iter().zip(&records.ttft_s);
            let within = sent.filter(|(sent_s, _)| (from_s..to_s).contains(*sent_s));
            let mut ttfts: Vec<f64> = within.filter_map(|(_, ttft_s)| *ttft_s).collect();
            ttfts.sort_unstable_by(f64::total_cmp);
            ttfts[ttfts.len() / 2]
        };
        (since(40.0, 55.0), since(60.0, 100.0))
    };
    let (alone, at_once, ramped) = (run(&never, 10), run(&late, 0), run(&late, 10));
    assert!(
        ramped.0 < 0.6 * alone.0,
        "while they ramp: {ramped:?}, {alone:?}"
    );
    assert!(ramped.1 < 1.1 * at_once.1, "later: {ramped:?}, {at_once:?}");
}

#[test]
fn slow_engines_are_not_taken_for_wedged() {
    // A step takes up to 21 s, as on a CPU, and prompts of 9,100 tokens more than a minute.
    let slow = json!({"duration_s": 8_000.0, "drain_s": 4_000.0, "faults": [
        {"kind": "slow", "replica": 0, "at_s": 0.0, "factor": 20.0},
        {"kind": "slow", "replica": 1, "at_s": 0.0, "factor": 20.0}]});
    let brisk = Config {
        wedged_ns: Span::from_ns(3_000_000_000),
        hold_timeout_ns: Span::from_ns(4_000_000_000_000),
        ..config()
    };
    let tokens = |n: u32| if n < 24 { 100 } else { 100 + n % 4 * 3_000 };
    let row = |n: u32| {
        (
            u64::from(n),
            f64::from(n) * 60.0,
            None,
            u64::from(n),
            tokens(n),
            8,
        )
    };
    let long: Vec<Row> = (0..90).map(row).collect();
    let report = run_with(&open(2, &slow), &rows(&long), brisk)
        .unwrap()
        .report();
    assert_eq!(report.balancers[0].counters["wedged"], 0);
    assert_eq!(report.total.completed, report.total.requests);
}

#[test]
fn requests_that_a_replica_fails_are_tried_elsewhere() {
    for how in ["status", "reset", "full"] {
        let errors = json!({"faults": [{"kind": "errors", "replica": 0, "at_s": 0.0, "rate": 1.0, "how": how}]});
        let report = report(&scenario(2, 4, &errors), &requests(4));
        assert_eq!(report.total.completed, report.total.requests, "{how}");
        // A refusal that began nothing is no retry.
        assert_eq!(report.total.retries > 0, how != "full", "{how}");
        assert_eq!(report.replicas[0].requests, 0, "{how}");
    }
}

#[test]
fn requests_go_to_replicas_of_their_model() {
    let group = |model: &str| json!({"count": 1, "profile": profile(), "models": [model]});
    let two = json!({"regions": [{"name": "us", "replicas": [group("one"), group("other")]}]});
    let mut requests = rows(&[(1, 0.0, None, 1, 160, 3), (2, 0.0, None, 1, 160, 3)]);
    requests["model"] = json!(["one", "other"]);
    let report = report(&open(1, &two), &requests);
    assert_eq!(
        report
            .replicas
            .iter()
            .map(|of| of.requests)
            .collect::<Vec<_>>(),
        [1, 1]
    );
    // The same text, but another model's cache.
    assert_eq!(report.records.unwrap().cached_tokens, [0, 0]);
    requests["model"] = json!(["one", "third"]);
    assert!(fault_of(&open(1, &two), &requests).starts_with("requests.model"));
}

#[test]
fn the_oracle_finds_more_in_caches_than_turns_do() {
    let mut rounds = config();
    rounds.policy = crate::engine::config::Policy::RoundRobin;
    let load = scenario(4, 32, &json!({"duration_s": 120.0}));
    let turns = run_with(&load, &requests(32), rounds).unwrap().report();
    let mut knowing = load.clone();
    merge(&mut knowing, &json!({"topology": "oracle"}));
    let oracle = report(&knowing, &requests(32));
    assert_eq!(oracle.policy, "oracle");
    assert_eq!(oracle.total.completed, oracle.total.requests);
    assert!(oracle.total.hit_rate > turns.total.hit_rate);
    assert!(oracle.total.throughput_tokens_per_s > turns.total.throughput_tokens_per_s);
}

#[test]
fn what_is_impossible_is_refused_by_name() {
    let requests = requests(2);
    let with = |changes: &Value| fault_of(&scenario(1, 2, changes), &requests);
    assert!(with(&json!({"nonsense": 1})).contains("nonsense"));
    assert!(with(&json!({"duration_s": -1.0})).starts_with("duration_s"));
    assert!(with(&json!({"warmup_s": 60.0})).starts_with("warmup_s"));
    assert!(with(&json!({"regions": []})).starts_with("regions"));
    assert!(with(&json!({"clients": {"mode": "closed", "users": {"mars": 1}}})).contains("mars"));
    let far = json!({"faults": [{"kind": "forget", "replica": 1, "at_s": 1.0}]});
    assert!(with(&far).starts_with("faults[0].replica"));
    let two = json!({"regions": [{"name": "us"}, {"name": "eu"}]});
    assert!(with(&two).starts_with("regions"));
}

#[test]
fn broken_requests_are_named_by_column_and_row() {
    let fault = |change: &dyn Fn(&mut Value)| {
        let mut broken = rows(&[(1, 0.0, None, 1, 160, 3), (2, 1.0, Some(1), 1, 320, 3)]);
        change(&mut broken);
        fault_of(&open(1, &json!({})), &broken)
    };
    assert!(fault(&|all| all["in"][1] = json!(0)).starts_with("requests.in[1]"));
    assert!(fault(&|all| all["after"][1] = json!(7)).starts_with("requests.after[1]"));
    assert!(fault(&|all| all["session"][1] = json!(9)).starts_with("requests.after[1]"));
    assert!(fault(&|all| all["id"][1] = json!(1)).starts_with("requests.id[1]"));
    assert!(fault(&|all| all["region"][0] = json!("mars")).starts_with("requests.region[0]"));
    assert!(fault(&|all| all["t"] = json!([0.0])).starts_with("requests.t"));
}
