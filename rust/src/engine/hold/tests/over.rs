//! Tenants that ask for far more than their part.

use super::super::*;
use super::fair::{COUNT, Drive, Step, config, payer, purse};
use super::partition;

/// `[own, other]`: requests of 1,000 tokens in flight and in the hold, as `(running, waiting)`.
fn asks(own: (u64, u64), other: (u64, u64)) -> Drive {
    let config = Config {
        tenant_headroom_ratio: 0.1,
        ..config()
    };
    let mut drive = Drive::new(config, [1; COUNT]);
    for (tenant, (running, waiting)) in [(0, own), (1, other)] {
        (0..running).for_each(|_| drive.begin(tenant, 1_000, 1_000));
        (0..waiting).for_each(|_| drive.enter(tenant, 1_000));
    }
    drive
}

#[test]
fn a_tenant_is_over_its_part_while_it_waits_and_asks_for_more_than_twice_as_much() {
    let over = |own, other, waits| {
        let drive = asks(own, other);
        let now = Instant::from_ns(1_000);
        drive.hold.room_for(&purse(0), waits, &drive.config, now) == Room::Spared
    };
    assert!(over((2, 5), (1, 0), false));
    assert!(!over((2, 0), (1, 0), false), "it does not wait");
    assert!(over((3, 0), (1, 0), true), "it waits elsewhere");
    assert!(!over((1, 1), (1, 0), false), "twice as much");
    assert!(!over((2, 5), (2, 5), false), "both do");
    assert!(!over((0, 9), (1, 0), false), "it has nothing yet");
    assert!(!over((2, 5), (0, 0), false), "it is alone");
}

#[test]
fn who_is_over_its_part_comes_last_until_the_others_are_far_ahead() {
    let turns = |ahead: u64| {
        let mut drive = asks((2, 9), (1, 1));
        // The flood has had 2,000 tokens, the other 1,000 and this.
        (0..ahead).for_each(|_| drive.begin(1, 1_000, 1_000));
        (0..ahead).for_each(|_| {
            drive.step(&Step::End {
                nth: 2,
                fails: false,
            });
        });
        let queue = (partition(0), Class::Normal);
        let head = Head {
            partition: partition(0),
            class: Class::Normal,
            as_class: Class::Normal,
            ahead: 0,
            age: 0,
            rank: 0,
        };
        let (mut group, mut deferred, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let now = (&drive.config, Instant::from_ns(1_000));
        while (drive.hold).next_due(queue, (&drive.config, 64), &mut group) {
            for turn in drive.hold.defer(head, &group, &mut deferred, now) {
                let payers = turn.fronts.iter();
                let payers = payers.map(|of| drive.hold.accounts.get(of.account()));
                found.push(
                    payers
                        .map(|of| of.unwrap().purse().payer)
                        .collect::<Vec<_>>(),
                );
            }
        }
        found.retain(|turn| !turn.is_empty());
        found
    };
    let (flood, other) = (payer(0), payer(1));
    assert_eq!(turns(0), [[other], [flood]], "whoever is due");
    assert_eq!(
        turns(4),
        [[flood], [other]],
        "it may have what is spared, and then the other"
    );
    assert_eq!(
        turns(8),
        [[flood], [flood], [other]],
        "ten quanta ahead: first the flood, room spared or not"
    );
}

#[test]
fn a_tenant_of_a_less_urgent_class_leaves_room_for_all_others_and_one_of_a_more_urgent_class_for_none_below()
 {
    let room = |own: Class, other: Class| {
        let mut drive = asks((0, 0), (0, 0));
        let purse = |tenant, class| Purse {
            class,
            ..purse(tenant)
        };
        for (tenant, class) in [(0, own), (0, own), (0, own), (1, other)] {
            let config = &drive.config;
            let tokens = Tokens {
                uncached: 1_000,
                ..Tokens::default()
            };
            (drive.hold).begin(purse(tenant, class), tokens, config, Instant::ZERO);
        }
        let now = Instant::from_ns(1_000);
        (drive.hold).room_for(&purse(0, own), true, &drive.config, now)
    };
    assert_eq!(room(Class::Low, Class::Normal), Room::Spared);
    assert_eq!(room(Class::Normal, Class::Normal), Room::Spared);
    assert_eq!(room(Class::High, Class::Normal), Room::Any);
}

#[test]
fn a_tenant_with_half_of_its_part_in_flight_is_not_over_it_however_much_it_asks_for() {
    let drive = asks((1, 90), (2, 0));
    let now = Instant::from_ns(1_000);
    let room = (drive.hold).room_for(&purse(0), false, &drive.config, now);
    assert_eq!(room, Room::Any);
}
