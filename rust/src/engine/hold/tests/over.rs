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
        let (mut group, mut deferred, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let now = (&drive.config, Instant::from_ns(1_000));
        while (drive.hold).next_due(queue, (&drive.config, 64), &mut group) {
            for turn in drive.hold.defer(&group, &mut deferred, now) {
                let payers = turn.iter().map(|of| drive.hold.accounts.get(of.account()));
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
