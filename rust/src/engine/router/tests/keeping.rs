//! What goes from one process to the next: what was learned, and what is in flight.

use proptest::prelude::*;

use super::limits::{asks, entry, told};
use super::*;
use crate::engine::keep::file::StateError;
use crate::engine::keep::flight::Flight;
use crate::engine::keep::state::{Head, Inherited, StateWriter};
use crate::rng::Rng;

const REPLICAS: u32 = 3;
const BYTES_MAX: u64 = 64 << 20;
/// More than what is known of so many replicas takes, without which a state says nothing.
const LEARNED_BYTES_MAX: u64 = 2_000;

impl Drive {
    /// What it has learned, written part by part.
    fn export(&mut self, bytes_max: u64) -> Vec<u8> {
        let mut writer = StateWriter::new(Head::default(), bytes_max, None);
        let mut all = Vec::new();
        while let Some(part) = self.router.export(&mut writer, self.now) {
            all.extend(part);
        }
        all
    }

    fn import(&mut self, state: &[u8], age: Span) -> Result<Inherited, StateError> {
        self.router.import(state, age, self.now)
    }

    /// One request from its arrival to its end, where it is pushed at once.
    fn request_of(&mut self, family: u64, blocks: u64, key: u64) -> Vec<Effect> {
        let hash = |n| Rng::new(family * 1_000_000 + n).next_u64();
        let blocks: Vec<u64> = (1..=blocks).map(hash).collect();
        let digest = Digest {
            key: Some(key),
            ..digest("m", &blocks)
        };
        let effects = self.submit_as(ask(Route::ChatCompletions), digest);
        let id = self.last_id;
        if let [Effect::Push(push)] = effects.as_slice() {
            assert_eq!(push.request.0, id);
            self.first_byte(id);
            self.end_with(id, Outcome::Ok, told(1_000, 50));
        }
        effects
    }

    fn look(&mut self) {
        for replica in 0..REPLICAS {
            self.observe(replica, idle());
        }
    }
}

/// The replica that each push went to.
fn choices(effects: &[Effect]) -> Vec<u32> {
    let replica = |effect: &Effect| match effect {
        Effect::Push(push) => Some(push.replica.0),
        _ => None,
    };
    effects.iter().filter_map(replica).collect()
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(Policy::ALL.to_vec())
}

proptest! {
    /// Another router that has read the state of this one chooses as this one goes on to choose.
    #[test]
    fn a_router_that_takes_a_state_over_chooses_as_the_one_that_left_it(
        policy in policy(),
        before in prop::collection::vec((0_u64..6, 1_u64..40, 0_u64..4), 0..40),
        after in prop::collection::vec((0_u64..6, 1_u64..40, 0_u64..4), 1..20),
        down in 0_u64..100,
    ) {
        let config = Config { policy, ..config() };
        let mut old = Drive::new(config.clone(), REPLICAS);
        for (family, blocks, key) in before {
            old.request_of(family, blocks, key);
        }
        old.look();
        let state = old.export(BYTES_MAX);
        // The old one goes on after the same time.
        let mut new = Drive::new(config, REPLICAS);
        new.now = old.now;
        new.look();
        new.now = old.now + MS * down;
        old.now = new.now;
        let age = MS * down;
        let inherited = new.import(&state, age).unwrap();
        prop_assert_eq!((inherited.replicas_told, inherited.replicas), (3, 3));
        old.look();
        new.now = old.now - MS * u64::from(REPLICAS);
        new.look();
        for (family, blocks, key) in after {
            let (led, follows) = (old.request_of(family, blocks, key), new.request_of(family, blocks, key));
            prop_assert_eq!(choices(&led), choices(&follows));
            new.now = old.now;
        }
    }

    /// A state is within its bound, and can be read where that has room for what is known of the replicas.
    #[test]
    fn a_state_stays_within_its_bound(
        bytes_max in 200_u64..20_000,
        before in prop::collection::vec((0_u64..40, 1_u64..40, 0_u64..40), 0..60),
    ) {
        let mut old = Drive::new(config(), REPLICAS);
        for (family, blocks, key) in before {
            old.request_of(family, blocks, key);
        }
        let state = old.export(bytes_max);
        prop_assert!(state.len() as u64 <= bytes_max.max(200), "{} bytes", state.len());
        let mut new = Drive::new(config(), REPLICAS);
        match new.import(&state, Span::ZERO) {
            Ok(inherited) => prop_assert_eq!(inherited.replicas, u64::from(REPLICAS)),
            Err(StateError::Malformed) => prop_assert!(bytes_max < LEARNED_BYTES_MAX, "{} bytes", state.len()),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

#[test]
fn what_is_no_longer_in_the_fleet_is_dropped() {
    let mut old = Drive::new(config(), REPLICAS);
    for family in 0..12 {
        old.request_of(family, 20, family);
    }
    let state = old.export(BYTES_MAX);
    let mut new = Drive::new(config(), 1);
    let inherited = new.import(&state, Span::ZERO).unwrap();
    assert_eq!((inherited.replicas_told, inherited.replicas), (3, 1));
    assert!(inherited.paths > 0 && new.router.check_invariants().is_ok());
}

#[test]
fn of_an_engine_that_has_started_again_no_prefix_is_taken_over() {
    let told = |queries| Snapshot {
        cache_queries: Some(queries),
        ..idle()
    };
    let mut old = Drive::new(config(), 1);
    old.observe(0, told(5_000));
    old.request_of(1, 20, 1);
    let state = old.export(BYTES_MAX);
    for (queries, lives) in [(6_000, 1), (100, 0)] {
        let mut new = Drive::new(config(), 1);
        new.observe(0, told(queries));
        let inherited = new.import(&state, Span::ZERO).unwrap();
        assert_eq!((inherited.replicas, inherited.paths), (lives, lives));
    }
}

#[test]
fn an_engine_that_shows_only_later_that_it_has_started_again_loses_its_prefixes_then() {
    let told = |queries| Snapshot {
        cache_queries: Some(queries),
        ..idle()
    };
    let mut old = Drive::new(config(), 1);
    old.observe(0, told(5_000));
    old.request_of(1, 20, 1);
    let state = old.export(BYTES_MAX);
    for (queries, holds) in [(6_000, true), (100, false)] {
        let mut new = Drive::new(config(), 0);
        new.set_replicas(0..1);
        new.set_models(0, &["m"]);
        new.import(&state, Span::ZERO).unwrap();
        new.observe(0, told(queries));
        assert_eq!(new.router.gauges()[0].tree_blocks > 0, holds);
    }
}

#[test]
fn a_state_of_other_blocks_is_refused_and_changes_nothing() {
    let mut old = Drive::new(config(), 1);
    old.request_of(1, 20, 1);
    let state = old.export(BYTES_MAX);
    let other = Config {
        block_bytes: config().block_bytes * 2,
        ..config()
    };
    let mut new = Drive::new(other, 1);
    assert_eq!(new.import(&state, Span::ZERO), Err(StateError::Blocks));
    assert_eq!(
        new.import(&state[1..], Span::ZERO),
        Err(StateError::Foreign)
    );
}

#[test]
fn a_tenant_gets_no_second_burst_and_keeps_what_it_has_used() {
    let terms = [entry(
        "acme",
        &serde_json::json!({"requests_per_minute": 4}),
    )];
    let mut old = Drive::new(config(), 1);
    old.set_tenants(&terms);
    for _ in 0..3 {
        old.submit_as(asks("acme"), digest("m", &[]));
        let id = old.last_id;
        old.first_byte(id);
        old.end_with(id, Outcome::Ok, told(100, 20));
    }
    let before = old.used("acme", "m");
    let state = old.export(BYTES_MAX);
    let mut new = Drive::new(config(), 1);
    new.set_tenants(&terms);
    new.now = old.now;
    new.import(&state, Span::ZERO).unwrap();
    assert_eq!(new.used("acme", "m"), before);
    pushed(&new.submit_as(asks("acme"), digest("m", &[])));
    new.complete(new.last_id);
    let refused = new.submit_as(asks("acme"), digest("m", &[]));
    assert_eq!(
        rejected(&refused).status,
        429,
        "of four, three were used before"
    );
    // Without the state it has a whole burst.
    let mut cold = Drive::new(config(), 1);
    cold.set_tenants(&terms);
    for _ in 0..4 {
        pushed(&cold.submit_as(asks("acme"), digest("m", &[])));
        cold.complete(cold.last_id);
    }
}

#[test]
fn the_time_between_two_processes_refills_a_tenants_bucket() {
    let terms = [entry(
        "acme",
        &serde_json::json!({"requests_per_minute": 1}),
    )];
    let mut old = Drive::new(config(), 1);
    old.set_tenants(&terms);
    pushed(&old.submit_as(asks("acme"), digest("m", &[])));
    let state = old.export(BYTES_MAX);
    for (age, status) in [(59, Some(429)), (61, None)] {
        let mut new = Drive::new(config(), 1);
        new.set_tenants(&terms);
        new.now = Instant::ZERO + S * 1_000;
        new.import(&state, S * age).unwrap();
        let effects = new.submit_as(asks("acme"), digest("m", &[]));
        let refused = effects.iter().find_map(|effect| match effect {
            Effect::Reject(reject) => Some(reject.status),
            _ => None,
        });
        assert_eq!(refused, status, "after {age} s");
    }
}

// ---------------------------------------------------------------------- in flight

/// Two processes at one replica that takes one request ahead: the old one has a request there.
fn two() -> (Drive, Drive) {
    let config = Config {
        push: PushRule::Outstanding,
        outstanding_max: 1,
        ..config()
    };
    let (mut old, new) = (Drive::new(config.clone(), 1), Drive::new(config, 1));
    pushed(&old.submit("m"));
    (old, new)
}

fn merge(new: &mut Drive, old: &mut Drive) -> Vec<Effect> {
    let flight = old.router.flight(old.now);
    let bytes = flight.encode().unwrap();
    let flight = Flight::decode(&bytes).unwrap();
    new.call(|router, now, out| router.merge_predecessor(&flight, now, out))
}

#[test]
fn what_the_old_process_has_at_a_replica_takes_its_room_until_it_ends() {
    let (mut old, mut new) = two();
    assert_eq!(merge(&mut new, &mut old), []);
    assert_eq!(new.submit("m"), [hold(1)]);
    assert_eq!(merge(&mut new, &mut old), [], "told again, it counts once");
    old.first_byte(1);
    old.complete(1);
    assert_eq!(pushed(&merge(&mut new, &mut old)).0, 1);
    assert_eq!(merge(&mut new, &mut old), []);
}

#[test]
fn when_the_old_process_has_ended_nothing_of_it_counts() {
    let (mut old, mut new) = two();
    merge(&mut new, &mut old);
    assert_eq!(new.submit("m"), [hold(1)]);
    let nothing = Flight::default();
    let effects = new.call(|router, now, out| router.merge_predecessor(&nothing, now, out));
    assert_eq!(pushed(&effects).0, 1);
}

#[test]
fn while_the_old_process_holds_requests_the_room_is_shared() {
    let (mut old, mut new) = two();
    assert_eq!(old.submit("m"), [hold(2)]);
    merge(&mut new, &mut old);
    let split = |drive: &Drive| {
        drive
            .router
            .parts()
            .fleet
            .split(crate::id::ReplicaSlot::new(0))
    };
    assert_eq!(split(&new).map(|split| split.others), Some(1));
    old.first_byte(1);
    old.complete(1);
    old.first_byte(2);
    old.complete(2);
    merge(&mut new, &mut old);
    assert_eq!(split(&new).map(|split| split.others), Some(0));
}

#[test]
fn requests_of_another_version_are_refused() {
    assert_eq!(Flight::decode(&[9, 0]), None);
    assert_eq!(Flight::decode(&[]), None);
}
