//! Tenants that share the room of a fleet: one of ten floods.

use super::*;
use crate::engine::config::TenantRule;
use crate::engine::plant::Plant;
use crate::sim::result::Fairness;

const TENANTS: u32 = 10;
const SECONDS: u32 = 6;

fn fair(plant: Option<Plant>) -> Config {
    Config {
        tenant_rule: TenantRule::Fair,
        tenant_quantum_tokens: 500,
        // Predictions are right: what is left of the bound does not depend on the fleet.
        output_tokens: 20,
        hold_timeout_ns: Span::from_ns(60_000_000_000),
        hold_tenant_len_max: Some(10_000),
        plant,
        ..config()
    }
}

/// Replicas of eight slots each, and the ten tenants.
fn fleet(replicas: u32, changes: &Value) -> Value {
    let mut slots = profile();
    merge(
        &mut slots,
        &json!({"max_num_seqs": 8, "prefill_token_ps": 50_000_000}),
    );
    let tenants: Vec<_> = (0..TENANTS)
        .map(|tenant| json!({"name": format!("t{tenant}")}))
        .collect();
    let mut fleet = scenario(
        replicas,
        0,
        &json!({"check": false, "duration_s": SECONDS, "clients": {"mode": "open"},
            "tenants": tenants,
            "regions": [{"name": "us", "replicas": [{"count": replicas, "profile": slots}]}]}),
    );
    merge(&mut fleet, changes);
    fleet
}

/// Each replica can answer about seven a second. Nine tenants send more than that together, and the first one
/// twice as much again.
fn flood(replicas: u32) -> Value {
    let mut columns = json!({
        "id": [], "t": [], "after": [], "think": [], "region": [], "user": [], "session": [],
        "in": [], "out": [], "block": [], "runs": [], "tenant": [],
    });
    let mut id = 0_u64;
    let per_s = 10 * replicas;
    for tick in 0..SECONDS * per_s {
        let at_s = f64::from(tick) / f64::from(per_s);
        for tenant in [0, 0, 1 + tick % (TENANTS - 1)] {
            id += 1;
            let row = json!({"id": id, "t": at_s, "after": null, "think": 0.0, "region": "us", "user": id,
                "session": id, "in": 200 + id % 5 * 100, "out": 20, "block": 16,
                "runs": [[id * 1_000, 40]], "tenant": tenant});
            for (name, value) in row.as_object().unwrap() {
                columns[name].as_array_mut().unwrap().push(value.clone());
            }
        }
    }
    columns
}

fn gap(replicas: u32, config: Config) -> Fairness {
    let fleet = fleet(replicas, &json!({}));
    let run = run_with(&fleet, &flood(replicas), config).unwrap();
    run.report().fairness.unwrap()
}

/// As [`fair`]; a tenant that asks for far more than the others leaves room free.
fn spared() -> Config {
    Config {
        tenant_headroom_ratio: 0.3,
        ..fair(None)
    }
}

#[test]
fn the_service_gap_stays_within_its_bound_however_many_replicas_there_are() {
    let (few, many) = (gap(4, fair(None)), gap(64, fair(None)));
    for found in [few, many] {
        assert!(found.gap_tokens > 0.0, "they have waited: {found:?}");
        assert!(found.gap_tokens <= found.bound_tokens, "{found:?}");
    }
    assert!(
        many.bound_tokens <= few.bound_tokens * 1.5,
        "{few:?} {many:?}"
    );
}

#[test]
fn the_service_gap_stays_within_its_bound_where_a_flood_leaves_room_free() {
    for replicas in [4, 64] {
        let found = gap(replicas, spared());
        assert!(found.gap_tokens <= found.bound_tokens, "{found:?}");
    }
}

#[test]
fn tenants_that_are_not_charged_break_the_bound() {
    let found = gap(4, fair(Some(Plant::TenantUncharged)));
    assert!(found.gap_tokens > found.bound_tokens, "{found:?}");
}

#[test]
fn the_others_hardly_wait_for_a_flood_and_it_takes_what_they_leave() {
    let fleet = fleet(4, &json!({}));
    let p90 = |config: Config| {
        let report = run_with(&fleet, &flood(4), config).unwrap().report();
        assert_eq!(report.tenants.len(), TENANTS as usize);
        assert_eq!(report.classes.len(), 0);
        let of = |name: &str| report.tenants[name].ttft_s.p90.unwrap();
        (of("t0"), of("t5"), report.total.output_tokens)
    };
    let (flood, other, tokens) = p90(fair(None));
    let unfair = p90(Config {
        tenant_rule: TenantRule::None,
        ..fair(None)
    });
    assert!(other < flood, "{other} s and {flood} s");
    assert!(other < unfair.1, "{other} s instead of {} s", unfair.1);
    let share = tokens * 100 / unfair.2;
    assert!(share >= 97, "{share} % of the tokens");
}

#[test]
fn the_engine_agrees_with_itself_after_every_event_of_a_flood() {
    let fleet = fleet(1, &json!({"check": true, "duration_s": 3.0}));
    for config in [fair(None), spared()] {
        let run = run_with(&fleet, &flood(1), config).unwrap();
        assert_eq!(run.counted(), (0, 0, 0));
        run.check_balancers().unwrap();
    }
}

#[test]
fn a_tenant_that_is_not_listed_is_a_fault() {
    let scenario = fleet(1, &json!({"tenants": [{"name": "only"}]}));
    let scenario = Scenario::from_json(scenario.to_string().as_bytes()).unwrap();
    let built = Simulator::with_config(scenario, flood(1).to_string().as_bytes(), config());
    let fault = built.unwrap_err().to_string();
    assert!(fault.starts_with("requests.tenant"), "{fault}");
}
