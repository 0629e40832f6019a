//! Who is served first, and what each tenant may hold.

use super::*;

/// Two replicas with one request pending each, 1 of family 0 and 2 of family 1.
fn full_with(config: Config) -> Drive {
    let mut drive = Drive::new(config, 2);
    for family in 0..2 {
        pushed(&drive.submit_of(family));
    }
    drive
}

#[test]
fn held_requests_start_first_come_first_served() {
    let mut drive = full_with(config());
    for (id, family) in [(3, 7), (4, 1), (5, 0)] {
        assert_eq!(drive.submit_of(family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 3);
    assert_eq!(pushed(&drive.first_byte(2)).0, 4);
    assert_eq!(drive.counter("hold_passed_over"), 0);
}

#[test]
fn whoever_is_too_old_gets_the_next_room_whatever_its_class() {
    let mut drive = full_with(Config {
        class_rule: ClassRule::Strict,
        class_age_ns: Span::ZERO,
        hold_age_max_ns: Some(5 * S),
        hold_timeout_ns: 60 * S,
        ..config()
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
    drive.now += 5 * S;
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
        drive.router.requests.get(RequestId(3)).unwrap().class
    };
    assert_eq!(class_of(config(), None), Class::Low);
    assert_eq!(class_of(config(), Some(b"high")), Class::High);
}

#[test]
fn a_body_makes_its_request_more_urgent_only_where_its_client_is_believed() {
    let class_of = |class_from_body, trusted, class| {
        let mut drive = full_with(Config {
            class_from_body,
            ..config()
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
        drive.router.requests.get(RequestId(3)).unwrap().class
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
        ..config()
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
        tenant: Tenant::Named("team"),
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
    let mut drive = full_with(config());
    assert_eq!(held(&mut drive, of(b"team")), 2);
    assert_eq!(
        held(&mut drive, named(b"c")),
        2,
        "a credential that is spelled like a tenant takes none of its part"
    );
}

#[test]
fn a_tenant_that_fills_its_part_of_the_hold_leaves_the_rest_to_others() {
    let mut drive = full_with(Config {
        hold_tenant_len_max: Some(2),
        hold_tenant_bytes_max: Some(500),
        ..config()
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

/// Three come per second and one ends, for as many seconds; who was refused.
fn overloaded(shed_ratio_max: f64, seconds: u64) -> (Drive, Vec<Reject>) {
    let mut drive = Drive::new(
        Config {
            hold_timeout_ns: 10 * S,
            shed_ratio_max,
            ..config()
        },
        1,
    );
    let mut refused = Vec::new();
    let mut running = None;
    for second in 0..seconds {
        let mut effects = Vec::new();
        for _ in 0..3 {
            let come = Ask {
                body_bytes: 1_000,
                ..ask(Route::ChatCompletions)
            };
            effects.extend(drive.submit_as(come, digest("m", &[])));
        }
        effects.extend(drive.tick_at(drive.now.max(Instant::ZERO + S * second)));
        if let Some(id) = running.take() {
            effects.extend(drive.first_byte(id));
            effects.extend(drive.complete(id));
        }
        for effect in effects {
            match effect {
                Effect::Reject(reject) => refused.push(reject),
                Effect::Push(push) => running = Some(push.request.0),
                _ => {}
            }
        }
    }
    (drive, refused)
}

#[test]
fn while_overload_lasts_a_share_of_those_who_come_is_refused() {
    let (drive, refused) = overloaded(0.9, 120);
    assert!(
        refused
            .iter()
            .all(|reject| (reject.status, reject.code) == (503, "load_shed"))
    );
    assert!(refused.iter().all(|reject| reject.retry_after_s.is_some()));
    assert!(refused.len() > 60, "{} of 360", refused.len());
    assert_eq!(drive.counter("hold_shed"), refused.len() as u64);
    assert!(drive.counter("hold_shed") < 300, "{} of 360", refused.len());
    let (_, before) = overloaded(0.9, 10);
    assert_eq!(before, [], "a burst is held");
    let (_, never) = overloaded(0.0, 120);
    assert_eq!(never, []);
}
