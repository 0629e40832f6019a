//! Matching a window of held requests, waiting for an owner, and who may not be passed over.

use super::*;

fn windowed() -> Config {
    Config {
        hold_window: 8,
        hold_passes_max: 3,
        affinity_wait_ns: 300 * MS,
        ..config()
    }
}

/// Two replicas with one request pending each, 1 of family 0 and 2 of family 1.
fn full() -> Drive {
    full_with(windowed())
}

fn full_with(config: Config) -> Drive {
    let mut drive = Drive::new(config, 2);
    for family in 0..2 {
        pushed(&drive.submit_of(family));
    }
    drive
}

/// The replica of family 1 has a short request pending, the other one has room.
fn owner_is_full() -> Drive {
    let mut drive = full();
    assert_eq!(drive.first_byte(2), []);
    pushed(&drive.submit("m"));
    assert_eq!(drive.first_byte(1), []);
    drive
}

#[test]
fn room_goes_to_the_request_whose_prompt_is_cached_there() {
    let mut drive = full();
    for (id, family) in [(3, 7), (4, 1), (5, 0)] {
        assert_eq!(drive.submit_of(family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 5);
    assert_eq!(pushed(&drive.first_byte(2)).0, 4);
    assert_eq!(drive.counter("hold_passed_over"), 3);
}

#[test]
fn a_window_of_one_is_first_come_first_served() {
    let mut drive = full_with(Config {
        hold_window: 1,
        ..windowed()
    });
    for (id, family) in [(3, 7), (4, 1), (5, 0)] {
        assert_eq!(drive.submit_of(family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 3);
    assert_eq!(pushed(&drive.first_byte(2)).0, 4);
    assert_eq!(drive.counter("hold_passed_over"), 0);
}

#[test]
fn requests_beyond_the_window_are_not_looked_at() {
    let mut drive = full_with(Config {
        hold_window: 2,
        ..windowed()
    });
    for (id, family) in [(3, 7), (4, 8), (5, 0)] {
        assert_eq!(drive.submit_of(family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 3);
}

#[test]
fn a_request_waits_for_its_full_owner_while_another_has_room() {
    let mut drive = owner_is_full();
    assert_eq!(drive.submit_of(1), [hold(4)]);
    assert_eq!(drive.counter("affinity_waits"), 1);
    let (_, short_s_replica, _) = pushed(&drive.first_byte(3));
    assert_eq!(drive.counter("match_blocks"), PROMPT_BLOCKS);
    // The room that it let pass is still there, for others.
    let (id, replica, _) = pushed(&drive.submit_of(7));
    assert_eq!(id, 5);
    assert_ne!(replica, short_s_replica);
}

#[test]
fn the_wait_for_an_owner_ends() {
    let mut drive = owner_is_full();
    drive.submit_of(1);
    let deadline_ns = drive.router.next_deadline_ns().unwrap();
    assert_eq!(drive.tick_at(deadline_ns - 1), []);
    assert_eq!(pushed(&drive.tick_at(deadline_ns)).0, 4);
    assert_eq!(drive.counter("match_blocks"), 0);
}

#[test]
fn the_wait_for_an_owner_ends_when_that_is_lost() {
    let mut drive = owner_is_full();
    drive.submit_of(1);
    let owner = drive.router.gauges().into_iter().find(|g| g.pending > 0);
    let effects = drive.drain(owner.unwrap().replica.0, true);
    assert_eq!(pushed(&effects).0, 4);
}

#[test]
fn nobody_waits_for_an_owner_whose_room_is_far_off() {
    let mut drive = full();
    assert_eq!(drive.first_byte(1), []);
    // Family 1's replica has twice as much to compute yet as this request would take here.
    let blocks: Vec<u64> = (1..=PROMPT_BLOCKS / 2).map(|n| 2_000_000 + n).collect();
    let effects = drive.submit_as(ask(Route::ChatCompletions), digest("m", &blocks));
    assert_eq!(pushed(&effects).0, 3);
    assert_eq!(drive.counter("affinity_waits"), 0);
}

#[test]
fn nobody_waits_for_an_owner_where_that_is_switched_off() {
    for config in [
        Config {
            affinity_wait_ns: 0,
            ..windowed()
        },
        Config {
            hold_window: 1,
            ..windowed()
        },
        Config {
            policy: Policy::LeastLoad,
            ..windowed()
        },
    ] {
        let mut drive = full_with(config);
        drive.first_byte(2);
        drive.submit("m");
        drive.first_byte(1);
        assert_eq!(pushed(&drive.submit_of(1)).0, 4);
    }
}

#[test]
fn nobody_is_passed_over_more_often_than_allowed() {
    let mut drive = full();
    assert_eq!(drive.submit_of(7), [hold(3)]);
    for id in 4..=8 {
        assert_eq!(drive.submit_of(0), [hold(id)]);
    }
    // Replica of family 0 frees again and again: three younger requests, then the oldest.
    assert_eq!(drive.one_after_another(1, 5), [4, 5, 6, 3, 7]);
    assert_eq!(drive.counter("hold_due"), 1);
}

#[test]
fn whoever_is_too_old_gets_the_next_room_whatever_its_class() {
    let mut drive = full_with(Config {
        class_rule: ClassRule::Strict,
        class_age_ns: 0,
        hold_age_max_ns: 5 * S,
        hold_timeout_ns: 60 * S,
        ..windowed()
    });
    let as_class = |class, family: u64| {
        let blocks: Vec<u64> = (1..=PROMPT_BLOCKS)
            .map(|n| (family + 1) * 1_000_000 + n)
            .collect();
        Digest {
            class,
            ..digest("m", &blocks)
        }
    };
    let chat = ask(Route::ChatCompletions);
    drive.submit_as(chat, as_class(Class::Low, 7));
    for _ in 0..3 {
        drive.submit_as(chat, as_class(Class::High, 0));
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 4, "the most urgent");
    drive.now_ns += 5 * S;
    for replica in 0..2 {
        assert_eq!(drive.observe(replica, load(1, 1)), []);
    }
    assert_eq!(pushed(&drive.first_byte(4)).0, 3, "the oldest");
}

#[test]
fn a_trusted_front_s_word_on_the_class_beats_the_body_s() {
    let class_of = |config: Config, header: Option<&'static [u8]>| {
        let mut drive = full_with(config);
        let said = Digest {
            class: Class::Low,
            ..digest("m", &[])
        };
        let asked = Ask {
            class: header,
            ..ask(Route::ChatCompletions)
        };
        assert_eq!(drive.submit_as(asked, said), [hold(3)]);
        drive.router.requests[&RequestId(3)].class
    };
    assert_eq!(class_of(windowed(), None), Class::Low);
    assert_eq!(class_of(windowed(), Some(b"high")), Class::High);
}

#[test]
fn a_body_makes_its_request_more_urgent_only_where_its_client_is_believed() {
    let class_of = |class_from_body, trusted, class| {
        let mut drive = full_with(Config {
            class_from_body,
            ..windowed()
        });
        let asked = Ask {
            trusted,
            ..ask(Route::ChatCompletions)
        };
        let said = Digest {
            class,
            ..digest("m", &[])
        };
        assert_eq!(drive.submit_as(asked, said), [hold(3)]);
        drive.router.requests[&RequestId(3)].class
    };
    assert_eq!(class_of(false, false, Class::High), Class::Normal);
    assert_eq!(class_of(false, false, Class::Low), Class::Low);
    assert_eq!(class_of(false, true, Class::High), Class::High);
    assert_eq!(class_of(true, false, Class::High), Class::High);
}

#[test]
fn by_default_one_tenant_holds_a_quarter_and_anonymous_requests_all_while_nobody_is_named() {
    let config = || Config {
        hold_len_max: 8,
        ..windowed()
    };
    let held = |drive: &mut Drive, asked: Ask<'static>| {
        (0..9)
            .take_while(|_| {
                matches!(
                    drive.submit_as(asked, digest("m", &[]))[..],
                    [Effect::Hold(_)]
                )
            })
            .count()
    };
    let of = |credential: &'static [u8]| Ask {
        credential: Some(credential),
        ..ask(Route::ChatCompletions)
    };
    let named = |credential| Ask {
        whose: Whose::Tenant("team"),
        ..of(credential)
    };
    let anonymous = ask(Route::ChatCompletions);
    let mut drive = full_with(config());
    assert_eq!(held(&mut drive, anonymous), 8);
    let mut drive = full_with(config());
    assert_eq!(held(&mut drive, of(b"a")), 2);
    assert_eq!(held(&mut drive, of(b"b")), 2);
    assert_eq!(held(&mut drive, anonymous), 2, "others are named");
    assert_eq!(
        held(&mut drive, named(b"c")),
        2,
        "a tenant's keys count together"
    );
    let mut drive = full_with(config());
    assert_eq!(held(&mut drive, named(b"c")), 2);
    assert_eq!(held(&mut drive, named(b"d")), 0);
}

#[test]
fn a_tenant_that_fills_its_part_of_the_hold_leaves_the_rest_to_others() {
    let mut drive = full_with(Config {
        hold_tenant_len_max: Some(2),
        hold_tenant_bytes_max: Some(500),
        ..windowed()
    });
    let of = |credential, body_bytes| Ask {
        credential: Some(credential),
        body_bytes,
        ..ask(Route::ChatCompletions)
    };
    let small = || digest("m", &[]);
    assert_eq!(drive.submit_as(of(b"a", 10), small()), [hold(3)]);
    assert_eq!(drive.submit_as(of(b"a", 10), small()), [hold(4)]);
    let effects = drive.submit_as(of(b"a", 10), small());
    let reject = rejected(&effects);
    assert_eq!((reject.status, reject.code), (429, "tenant_hold_full"));
    assert_eq!(reject.retry_after_s, Some(1));
    assert_eq!(drive.submit_as(of(b"b", 450), small()), [hold(6)]);
    let effects = drive.submit_as(of(b"b", 60), small());
    assert_eq!(rejected(&effects).code, "tenant_hold_full", "in bytes");
    assert_eq!(drive.router.hold_bytes(), 470);
    assert_eq!(drive.counter("hold_tenant_full"), 2);
}
