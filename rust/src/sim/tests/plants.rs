//! Bugs planted in the engine: each is found by the checks, and found again from its seed.

use super::*;
use crate::engine::config::Policy;
use crate::engine::plant::Plant;
use crate::time::Span;

const SEEDS: std::ops::Range<u64> = 1..9;

/// What each plant breaks.
const PLANTS: [(Plant, &str); 12] = [
    (Plant::SlotLostOnCancel, "in_flight_is_counted"),
    (Plant::PinnedEvicted, "what is in flight is held and pinned"),
    (
        Plant::CreditFromTheHead,
        "nothing_is_pushed_where_requests_wait",
    ),
    (Plant::Starved, "nobody_starves_in_the_hold"),
    (Plant::LostOnCrash, "every_request_is_held_or_in_flight"),
    (Plant::PushedTwice, "one_attempt_at_a_time"),
    (Plant::DebitForever, "in_flight_is_counted"),
    (Plant::DeadlineIgnored, "deadline"),
    (Plant::WrongModel, "replicas_serve_what_they_get"),
    (Plant::AttemptsUnlimited, "attempts_at_most_max"),
    (Plant::DrainingIgnored, "draining_replicas_get_nothing_new"),
    (Plant::RoomForgotten, "nothing_waits_for_room_there_is"),
];

/// Two models on two replicas each, with little KV room.
fn fleet() -> Value {
    let mut small = profile();
    merge(
        &mut small,
        &json!({"kv_tokens": 2_000, "max_model_len": 1_024}),
    );
    let group = |model: &str| json!({"count": 2, "profile": small, "models": [model]});
    json!([{"name": "us", "replicas": [group("one"), group("other")]}])
}

/// Nothing goes wrong.
fn calm(seed: u64) -> Value {
    scenario(
        4,
        24,
        &json!({"seed": seed, "duration_s": 10.0, "regions": fleet()}),
    )
}

/// Many wait, and nothing goes wrong.
fn crowded(seed: u64) -> Value {
    let mut crowded = calm(seed);
    crowded["clients"]["users"] = json!({"us": 60});
    crowded
}

/// Much goes wrong.
fn rough(seed: u64) -> Value {
    let mut rough = calm(seed);
    merge(
        &mut rough,
        &json!({
            "network": {"rtt_ms": [[5.0]], "jitter_ms": 2.0, "loss": 0.01},
            "clients": {"mode": "closed", "users": {"us": 24}, "repeat": true,
                "leave": {"probability": 0.2, "from_s": 0.0, "to_s": 4.0}},
            "faults": [
                {"kind": "crash", "replica": 0, "at_s": 3.0, "until_s": 4.0},
                {"kind": "errors", "replica": 1, "at_s": 1.0, "until_s": 5.0, "rate": 0.5},
                {"kind": "errors", "replica": 0, "at_s": 4.0, "until_s": 6.0, "rate": 0.5},
                {"kind": "drain", "replica": 3, "at_s": 3.0, "until_s": 6.0},
                {"kind": "freeze", "replica": 2, "at_s": 6.0, "until_s": 8.0},
            ],
        }),
    );
    rough
}

fn workload() -> Value {
    let mut workload = requests(24);
    let users = workload["user"].as_array().unwrap().iter();
    let models = users.map(|user| {
        let even = user.as_u64().unwrap().is_multiple_of(2);
        json!(if even { "one" } else { "other" })
    });
    workload["model"] = models.collect();
    workload
}

fn settings(plant: Option<Plant>) -> Config {
    Config {
        allowance: AllowanceRule::One,
        hold_timeout_ns: Span::from_ns(2_000_000_000),
        hold_passes_max: 1,
        plant,
        ..config()
    }
}

/// First come, first served in both kinds of scenarios; by work where many wait.
fn runs(plant: Option<Plant>) -> impl Iterator<Item = (Value, Config)> {
    SEEDS.flat_map(move |seed| {
        [
            (calm(seed), settings(plant)),
            (rough(seed), settings(plant)),
            (crowded(seed), by_work(plant)),
        ]
    })
}

/// The first run in which something breaks, and what.
fn first_broken(plant: Option<Plant>, requests: &Value) -> Option<(Value, Config, String)> {
    runs(plant).find_map(|(scenario, config)| {
        let broken = run_with(&scenario, requests, config.clone()).err()?;
        Some((scenario, config, broken.to_string()))
    })
}

#[test]
fn without_a_planted_bug_the_same_seeds_pass() {
    assert_eq!(first_broken(None, &workload()), None);
}

#[test]
fn every_planted_bug_is_caught_and_replayed_from_its_seed() {
    let requests = workload();
    let missed = PLANTS.iter().filter_map(|(plant, expected)| {
        let Some((scenario, config, text)) = first_broken(Some(*plant), &requests) else {
            return Some(format!("{plant:?} was not caught"));
        };
        if !text.contains(expected) {
            return Some(format!("{plant:?}: {text}"));
        }
        let again = run_with(&scenario, &requests, config);
        let again = again.err().map(|broken| broken.to_string());
        (again.as_ref() != Some(&text)).then(|| format!("{plant:?}: {text}, then {again:?}"))
    });
    assert_eq!(missed.collect::<Vec<_>>(), Vec::<String>::new());
}

/// Many wait, and those with the least to compute go first.
fn by_work(plant: Option<Plant>) -> Config {
    Config {
        policy: Policy::Predictive,
        hold_work_weight: 1e6,
        ..settings(plant)
    }
}

#[test]
fn much_work_starves_only_where_that_is_planted() {
    let requests = workload();
    let run = |seed, plant| run_with(&crowded(seed), &requests, by_work(plant));
    for seed in SEEDS {
        assert!(run(seed, None).is_ok());
    }
    let starved = SEEDS.filter_map(|seed| run(seed, Some(Plant::Starved)).err());
    let starved: Vec<_> = starved.map(|broken| broken.to_string()).collect();
    assert!(!starved.is_empty());
    let named = |text: &String| text.contains("nobody_starves_in_the_hold");
    assert!(starved.iter().all(named), "{starved:?}");
}
