//! The simulations that are recorded.

use super::*;
use crate::engine::config::{ClassRule, Policy, PushRule, TenantRule};
use crate::rng::Rng;
use crate::sim::tests::regions::{NAMES, three};
use crate::time::Span;

/// One simulation.
#[derive(Debug)]
pub(in crate::sim::tests) struct Case {
    pub(in crate::sim::tests) name: &'static str,
    pub(in crate::sim::tests) scenario: Value,
    pub(in crate::sim::tests) requests: Value,
    pub(in crate::sim::tests) config: Config,
}

/// Near to what `skylb serve` runs with.
fn served() -> Config {
    Config {
        policy: Policy::Predictive,
        allowance: AllowanceRule::Knee,
        ahead_steps: 8,
        affinity_wait_ns: Span::from_ns(3_000_000_000),
        hold_work_weight: 100.0,
        hold_passes_max: 1000,
        hold_age_max_ns: None,
        shed_ratio_max: 0.9,
        delay_weight: 0.05,
        evict_weight: 1.0,
        leave_gain_ns: Span::from_ns(400_000_000),
        leave_gain_ratio: 0.5,
        queue_weight: 2.0,
        ramp_ns: Span::from_ns(2_000_000_000),
        ring_vnodes: 64,
        smg_waiting_max: 1,
        smg_kv_ratio_max: 0.6,
        cache_aware_abs: 4,
        cache_aware_rel: 1.2,
        ..Config::sample()
    }
}

/// Each of so many users has two conversations of three requests. Conversations begin with one of
/// four system prompts. `answer` is the range of answers' lengths in tokens.
fn talks(users: u64, regions: usize, answer: std::ops::Range<usize>) -> Value {
    let mut rng = Rng::new(users);
    let mut columns = json!({
        "id": [], "t": [], "after": [], "think": [], "region": [], "user": [], "session": [],
        "in": [], "out": [], "block": [], "runs": [],
    });
    let mut put = |row: Value| {
        for (name, value) in row.as_object().unwrap() {
            columns[name].as_array_mut().unwrap().push(value.clone());
        }
    };
    let mut id = 0;
    for session in 0..users * 2 {
        let user = session / 2;
        let system = rng.below(4) * 100;
        let (mut own, mut after) = (0, Value::Null);
        for turn in 0..3u64 {
            own += 2 + rng.below(5);
            let id_before = id;
            put(json!({
                "id": id, "t": f64::from(u32::try_from(session).unwrap()) / 6.0 + f64::from(u32::try_from(turn).unwrap()),
                "after": after, "think": 0.3, "user": user, "session": session, "block": 64,
                "region": NAMES[usize::try_from(user).unwrap() % regions],
                "in": (6 + own) * 64 + rng.below(60), "out": answer.start + rng.below(answer.len()),
                "runs": [[system, 6], [10_000 + session * 100, own + 1]],
            }));
            id += 1;
            after = json!(id_before);
        }
    }
    columns
}

/// A replica that answers more in less virtual time, with a cache that is soon full.
fn quick() -> Value {
    let mut quick = profile();
    let changes = json!({"kv_tokens": 20_000, "step_base_ps": 20_000_000_000_u64, "prefill_token_ps": 200_000_000});
    merge(&mut quick, &changes);
    quick
}

/// One region with so many replicas and users; all requests are listed.
fn one(replicas: u32, users: u32, changes: &Value) -> Value {
    let mut one = scenario(
        replicas,
        users,
        &json!({"check": false, "records": true, "duration_s": 20.0,
            "network": {"rtt_ms": [[0.5]], "jitter_ms": 0.5}}),
    );
    one["regions"][0]["replicas"] = json!([{"count": replicas, "profile": quick()}]);
    merge(&mut one, changes);
    one
}

fn case(name: &'static str, scenario: Value, requests: Value, config: Config) -> Case {
    Case {
        name,
        scenario,
        requests,
        config,
    }
}

/// All of them.
pub(in crate::sim::tests) fn cases() -> Vec<Case> {
    let mut cases = policies();
    cases.extend(rules());
    cases.extend(loads());
    cases.extend(broken());
    cases.extend(regions());
    cases.extend(balancers());
    cases
}

/// Every policy before three replicas with more to do than they have room for.
fn policies() -> Vec<Case> {
    let with = |policy: Policy| {
        let config = Config { policy, ..served() };
        case(
            policy.name(),
            one(3, 60, &json!({})),
            talks(60, 1, 10..120),
            config,
        )
    };
    Policy::ALL.iter().copied().map(with).collect()
}

/// Five tenants share two replicas; the first sends four of five requests.
fn flooded() -> Case {
    let mut scenario = one(2, 80, &json!({}));
    let tenants = (0..5).map(|tenant| json!({"name": format!("t{tenant}")}));
    scenario["tenants"] = tenants.collect();
    let mut requests = talks(80, 1, 10..120);
    let len = requests["id"].as_array().unwrap().len();
    let of = |n: usize| {
        if n.is_multiple_of(5) {
            1 + n / 5 % 4
        } else {
            0
        }
    };
    requests["tenant"] = (0..len).map(of).collect();
    let config = Config {
        tenant_rule: TenantRule::Fair,
        tenant_headroom_ratio: 0.3,
        ..served()
    };
    case("tenants_fair", scenario, requests, config)
}

/// The other rules for pushing, and for classes.
fn rules() -> Vec<Case> {
    let pushed = |name, push, allowance| {
        let config = Config {
            push,
            allowance,
            outstanding_max: 12,
            ..served()
        };
        case(name, one(2, 40, &json!({})), talks(40, 1, 10..120), config)
    };
    let classed = |name, class_rule, class_age_ns| {
        let mut scenario = one(2, 80, &json!({}));
        scenario["clients"]["classes"] = json!(["normal", "high", "low", "normal"]);
        scenario["clients"]["tenants"] = json!(5);
        let config = Config {
            class_rule,
            class_age_ns,
            ..served()
        };
        case(name, scenario, talks(80, 1, 10..120), config)
    };
    vec![
        flooded(),
        pushed("push_blind", PushRule::Blind, AllowanceRule::Knee),
        pushed(
            "push_outstanding",
            PushRule::Outstanding,
            AllowanceRule::Knee,
        ),
        pushed("push_one_pending", PushRule::Pending, AllowanceRule::One),
        pushed("push_probed", PushRule::Pending, AllowanceRule::Probed),
        classed(
            "classes_weighted",
            ClassRule::Weighted,
            Span::from_ns(5_000_000_000),
        ),
        classed("classes_strict", ClassRule::Strict, Span::ZERO),
    ]
}

/// Much to do, little to say, and requests by the clock.
fn loads() -> Vec<Case> {
    let overload = Config {
        hold_len_max: 60,
        hold_timeout_ns: Span::from_ns(4_000_000_000),
        ..served()
    };
    let group =
        |model: &str, count: u32| json!({"count": count, "profile": quick(), "models": [model]});
    let mut two_models = one(
        3,
        60,
        &json!({"regions": [{"name": "us", "replicas": [group("one", 2), group("other", 1)]}]}),
    );
    two_models["clients"]["key"] = json!("session");
    let mut of_models = talks(60, 1, 10..120);
    let users = of_models["user"].as_array().unwrap().iter();
    let model = |user: &Value| {
        json!(["one", "other"][usize::from(user.as_u64().unwrap().is_multiple_of(3))])
    };
    of_models["model"] = users.map(model).collect();
    let blocks_only = json!({"learn_answers": false, "tell_cached": false});
    vec![
        case(
            "overload",
            one(2, 150, &json!({})),
            talks(150, 1, 10..120),
            overload,
        ),
        case(
            "short_answers",
            one(2, 120, &json!({"duration_s": 10.0})),
            talks(120, 1, 1..4),
            served(),
        ),
        case(
            "sessions",
            one(
                2,
                0,
                &json!({"clients": {"mode": "sessions", "rate_scale": 1.5}}),
            ),
            talks(90, 1, 10..120),
            served(),
        ),
        case("two_models", two_models, of_models, served()),
        case(
            "nothing_learned",
            one(2, 40, &blocks_only),
            talks(40, 1, 10..120),
            served(),
        ),
    ]
}

/// Replicas at fault, a bad network, clients who leave.
fn broken() -> Vec<Case> {
    let faults = json!([
        {"kind": "crash", "replica": 0, "at_s": 3.0, "until_s": 5.0},
        {"kind": "errors", "replica": 1, "at_s": 4.0, "until_s": 9.0, "rate": 0.5},
        {"kind": "errors", "replica": 2, "at_s": 6.0, "until_s": 8.0, "rate": 0.3, "how": "full"},
        {"kind": "freeze", "replica": 2, "at_s": 9.0, "until_s": 11.0},
        {"kind": "slow", "replica": 3, "at_s": 2.0, "until_s": 12.0, "factor": 3.0},
        {"kind": "lie", "replica": 1, "at_s": 11.0, "until_s": 14.0, "how": "idle"},
        {"kind": "lie", "replica": 3, "at_s": 12.0, "until_s": 15.0, "how": "unreadable"},
        {"kind": "forget", "replica": 0, "at_s": 10.0},
        {"kind": "drain", "replica": 0, "at_s": 13.0, "until_s": 16.0},
        {"kind": "cut", "between": ["us", "us"], "at_s": 17.0, "until_s": 17.5},
    ]);
    let mut rough = one(
        4,
        70,
        &json!({"faults": faults,
            "network": {"rtt_ms": [[2.0]], "jitter_ms": 2.0, "loss": 0.02, "stall_timeout_s": 3.0}}),
    );
    rough["clients"]["leave"] = json!({"probability": 0.1, "from_s": 0.0, "to_s": 4.0});
    let first_come = Config {
        policy: Policy::Prefix,
        hold_work_weight: 0.0,
        hold_timeout_ns: Span::from_ns(3_000_000_000),
        ..served()
    };
    vec![
        case("faults", rough.clone(), talks(70, 1, 10..120), served()),
        case(
            "faults_first_come",
            rough,
            talks(70, 1, 10..120),
            first_come,
        ),
    ]
}

/// Three regions, the first with most to do.
fn regions() -> Vec<Case> {
    let listed = |changes: &Value| {
        let mut listed = three(
            [130, 20, 30],
            &json!({"check": false, "records": true, "duration_s": 20.0,
                "regions": NAMES.map(|name| json!({"name": name, "replicas": [{"count": 2, "profile": quick()}]}))}),
        );
        merge(&mut listed, changes);
        listed
    };
    let faults = json!([
        {"kind": "cut", "between": ["us", "eu"], "at_s": 4.0, "until_s": 9.0},
        {"kind": "drop", "from": "asia", "to": "us", "at_s": 8.0, "until_s": 12.0},
        {"kind": "crash", "replica": 2, "at_s": 11.0, "until_s": 13.0},
        {"kind": "evacuate", "region": "eu", "at_s": 13.0, "until_s": 17.0},
    ]);
    let mut rough = listed(&json!({"faults": faults, "forged_hops": 0.05}));
    rough["network"]["stall_timeout_s"] = json!(3.0);
    rough["network"]["loss"] = json!(0.01);
    let rules = json!([{"tenant": 0, "regions": ["us"]}, {"tenant": 1, "regions": ["us", "asia"]}]);
    let mut residency = listed(&json!({"residency": rules}));
    residency["clients"]["tenants"] = json!(4);
    let digest = json!({"peer_digest": {"enabled": true, "interval_s": 0.5}});
    let talks = || talks(150, 3, 10..120);
    vec![
        case("three_regions", listed(&json!({})), talks(), served()),
        case("three_regions_digest", listed(&digest), talks(), served()),
        case("three_regions_faults", rough, talks(), served()),
        case("three_regions_residency", residency, talks(), served()),
        case(
            "three_regions_alone",
            listed(&json!({"topology": "local"})),
            talks(),
            served(),
        ),
    ]
}

/// Several balancers that share the replicas of their region.
fn balancers() -> Vec<Case> {
    let shared = |count: u32, changes: &Value| {
        let mut shared = one(3, 60, changes);
        shared["regions"][0]["balancers"] = json!(count);
        shared["network"]["clock_spread_s"] = json!(1e5);
        shared
    };
    let faults = json!([
        {"kind": "part", "balancers": [0, 1], "at_s": 3.0, "until_s": 3.2},
        {"kind": "part", "balancers": [1, 2], "one_way": true, "at_s": 5.0, "until_s": 9.0},
        {"kind": "kill", "balancer": 0, "at_s": 8.0, "until_s": 11.0},
        {"kind": "kill", "balancer": 2, "silent": true, "at_s": 13.0, "until_s": 15.0},
    ]);
    let one_pending = Config {
        policy: Policy::Prefix,
        allowance: AllowanceRule::One,
        hold_work_weight: 0.0,
        ..served()
    };
    let mut far = three(
        [130, 20, 30],
        &json!({"check": false, "records": true, "duration_s": 10.0}),
    );
    for region in far["regions"].as_array_mut().unwrap() {
        region["balancers"] = json!(2);
        region["replicas"][0]["profile"] = quick();
    }
    let talks = |users| talks(users, 1, 10..120);
    vec![
        case("two_balancers", shared(2, &json!({})), talks(60), served()),
        case(
            "three_balancers_faults",
            shared(3, &json!({"faults": faults})),
            talks(60),
            one_pending,
        ),
        case(
            "two_balancers_in_each_of_three_regions",
            far,
            talks_of_three(),
            served(),
        ),
    ]
}

fn talks_of_three() -> Value {
    talks(150, 3, 10..120)
}
