//! The policy changes while the router runs.

use super::*;

/// Where requests of these families go, each ended before the next one comes.
fn placed(drive: &mut Drive, families: &[u64]) -> Vec<u32> {
    let place = |family: &u64| {
        let (id, replica, _) = pushed(&drive.submit_of(*family));
        drive.first_byte(id);
        drive.complete(id);
        replica
    };
    families.iter().map(place).collect()
}

fn keyed(drive: &mut Drive, key: u64) -> u32 {
    let digest = Digest {
        key: Some(key),
        ..digest("m", &[])
    };
    let (id, replica, _) = pushed(&drive.submit_as(ask(Route::ChatCompletions), digest));
    drive.complete(id);
    replica
}

#[test]
fn after_a_switch_the_choices_are_those_of_the_new_policy() {
    let prefix = Config {
        policy: Policy::Prefix,
        ..config()
    };
    let mut drive = Drive::new(prefix, 4);
    let first = placed(&mut drive, &[1, 1, 1, 1]);
    assert_eq!(first, [first[0]; 4], "by prefix");
    assert_eq!(drive.set_policy(Policy::RoundRobin), []);
    assert_eq!(drive.router.policies(), (Policy::RoundRobin, None));
    let mut turns = placed(&mut drive, &[1, 1, 1, 1]);
    turns.sort_unstable();
    assert_eq!(turns, [0, 1, 2, 3], "each in turn");
    drive.set_policy(Policy::Prefix);
    let again = placed(&mut drive, &[2, 2, 2, 2]);
    assert_eq!(again, [again[0]; 4], "by prefix again");
}

#[test]
fn the_ring_after_a_switch_is_that_of_a_router_that_began_with_it() {
    for policy in [Policy::Ring, Policy::BoundedRing, Policy::Dualmap] {
        let of = |policy| Config { policy, ..config() };
        let (mut began, mut changed) = (
            Drive::new(of(policy), 5),
            Drive::new(of(Policy::LeastLoad), 5),
        );
        assert!(changed.router.fleet.ring().0.is_empty());
        changed.set_policy(policy);
        for key in 0..50 {
            assert_eq!(keyed(&mut began, key), keyed(&mut changed, key), "{key}");
        }
        changed.set_policy(Policy::Predictive);
        assert!(changed.router.fleet.ring().0.is_empty());
    }
}

#[test]
fn a_held_request_that_waits_for_its_owner_takes_any_room_once_the_policy_waits_for_none() {
    let mut drive = Drive::new(
        Config {
            policy: Policy::Prefix,
            affinity_wait_ns: 500 * MS,
            ..config()
        },
        2,
    );
    let (first, owner, _) = pushed(&drive.submit_of(1));
    drive.first_byte(first);
    drive.complete(first);
    let (second, again, _) = pushed(&drive.submit_of(1));
    assert_eq!(owner, again);
    let third = second + 1;
    assert_eq!(drive.submit_of(1), [hold(third)]);
    assert!(drive.router.waits_by_choice(RequestId(third)));
    let (started, other, _) = pushed(&drive.set_policy(Policy::RoundRobin));
    assert_eq!(started, third);
    assert_ne!(other, owner);
}
