//! Failed attempts.

use super::*;

fn failed(drive: &mut Drive, id: u64, failure: Failure) -> (u16, &'static str, Option<u32>) {
    let effects = drive.retry(id, failure, true);
    let reject = rejected(&effects);
    (reject.status, reject.code, reject.retry_after_s)
}

#[test]
fn a_failed_attempt_goes_to_another_replica_at_once() {
    let mut drive = Drive::new(config(), 2);
    let (_, first, _) = pushed(&drive.submit("m"));
    assert_eq!(
        pushed(&drive.retry(1, Failure::Reset, true)),
        (1, 1 - first, 2)
    );
    assert_eq!(drive.counter("retries"), 1);
}

#[test]
fn the_last_attempts_failure_is_what_the_client_reads() {
    for (failure, read) in [
        (Failure::Connect, (502, "upstream_connect", None)),
        (Failure::Reset, (502, "upstream_reset", None)),
        (Failure::Timeout, (504, "upstream_timeout", None)),
        (Failure::Status(500), (502, "upstream_status", None)),
        (Failure::BadResponse, (502, "upstream_bad_response", None)),
    ] {
        let mut drive = Drive::new(config(), 3);
        drive.submit("m");
        pushed(&drive.retry(1, Failure::Reset, true));
        assert_eq!(failed(&mut drive, 1, failure), read);
        assert_eq!(drive.router.in_flight(), 0);
    }
}

#[test]
fn a_replica_where_nobody_is_there_costs_no_attempt() {
    let mut drive = Drive::new(config(), 6);
    let mut asked = vec![pushed(&drive.submit("m"))];
    for _ in 0..3 {
        asked.push(pushed(&drive.retry(1, Failure::Connect, false)));
    }
    assert!(asked.iter().all(|(_, _, attempt)| *attempt == 1));
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 4, "each replica once");
    let end = drive.retry(1, Failure::Connect, false);
    assert_eq!(rejected(&end).code, "upstream_connect", "three and no more");
    assert_eq!(drive.router.in_flight(), 0);
}

#[test]
fn after_replicas_where_nobody_is_there_the_attempts_are_as_many_as_ever() {
    let mut drive = Drive::new(config(), 6);
    drive.submit("m");
    assert_eq!(pushed(&drive.retry(1, Failure::Connect, false)).2, 1);
    assert_eq!(pushed(&drive.retry(1, Failure::Reset, true)).2, 2);
    assert_eq!(pushed(&drive.retry(1, Failure::Connect, false)).2, 2);
    assert_eq!(failed(&mut drive, 1, Failure::Reset).1, "upstream_reset");
}

#[test]
fn a_replica_that_was_gone_after_it_had_the_request_costs_an_attempt() {
    let mut drive = Drive::new(config(), 6);
    drive.submit("m");
    assert_eq!(pushed(&drive.retry(1, Failure::Connect, true)).2, 2);
    assert_eq!(
        failed(&mut drive, 1, Failure::Connect).1,
        "upstream_connect"
    );
}

#[test]
fn a_key_that_one_replica_refuses_costs_no_attempt_and_marks_that_replica() {
    let mut drive = Drive::new(config(), 3);
    let stored = Digest {
        retry_safe: false,
        ..digest("m", &[])
    };
    let effects = drive.submit_as(ask(Route::Responses), stored);
    let (_, first, _) = pushed(&effects);
    let (_, second, attempt) = pushed(&drive.retry(1, Failure::Unauthorized, true));
    assert_eq!(attempt, 1, "nothing was begun");
    let (_, third, _) = pushed(&drive.retry(1, Failure::Unauthorized, true));
    let mut asked = [first, second, third];
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2], "each replica once");
    let refused = (502, "upstream_unauthorized", None);
    assert_eq!(failed(&mut drive, 1, Failure::Unauthorized), refused);
}

#[test]
fn a_replica_that_refuses_the_key_again_and_again_is_ejected() {
    let mut drive = Drive::new(config(), 2);
    let mut refused = 0;
    for id in 1..=20 {
        let (_, replica, _) = pushed(&drive.submit("m"));
        if replica == 0 {
            refused += 1;
            let (_, other, _) = pushed(&drive.retry(id, Failure::Unauthorized, true));
            assert_eq!(other, 1);
        }
        drive.first_byte(id);
        drive.complete(id);
    }
    assert!((1..=5).contains(&refused), "{refused}");
}

#[test]
fn an_answer_that_comes_whole_is_not_computed_twice_because_it_took_too_long() {
    for (stream, sent, again) in [
        (false, true, false),
        (true, true, true),
        (false, false, true),
    ] {
        let mut drive = Drive::new(config(), 2);
        let digest = Digest {
            stream,
            ..digest("m", &[])
        };
        drive.submit_as(ask(Route::ChatCompletions), digest);
        let effects = drive.retry(1, Failure::Timeout, sent);
        assert_eq!(matches!(effects[0], Effect::Push(_)), again);
        if !again {
            assert_eq!(rejected(&effects).status, 504);
        }
    }
}

#[test]
fn a_lone_replica_is_tried_again() {
    let mut drive = Drive::new(config(), 1);
    drive.submit("m");
    assert_eq!(pushed(&drive.retry(1, Failure::Reset, true)), (1, 0, 2));
}

#[test]
fn a_request_that_must_not_be_sent_twice_is_tried_again_only_if_nothing_was_sent() {
    for (sent, again) in [(true, false), (false, true)] {
        let mut drive = Drive::new(config(), 2);
        let unsafe_digest = Digest {
            retry_safe: false,
            ..digest("m", &[])
        };
        drive.submit_as(ask(Route::Responses), unsafe_digest);
        let effects = drive.retry(1, Failure::Reset, sent);
        assert_eq!(matches!(effects[0], Effect::Push(_)), again);
    }
}

#[test]
fn a_request_whose_first_byte_was_seen_is_not_tried_again() {
    let mut drive = Drive::new(config(), 2);
    drive.submit("m");
    drive.first_byte(1);
    assert_eq!(failed(&mut drive, 1, Failure::Reset).1, "upstream_reset");
}

#[test]
fn retries_stay_within_their_budget() {
    let config = Config {
        retry_ratio: 0.1,
        retry_per_s: 0.0,
        push: PushRule::Blind,
        ..config()
    };
    let mut drive = Drive::new(config, 2);
    for _ in 0..20 {
        drive.submit("m");
    }
    for id in 1..=2 {
        pushed(&drive.retry(id, Failure::Status(500), true));
    }
    assert_eq!(
        failed(&mut drive, 3, Failure::Status(500)).1,
        "upstream_status"
    );
    assert_eq!(
        (drive.counter("retries"), drive.counter("retry_denied")),
        (2, 1)
    );
}

#[test]
fn full_closes_the_replica_until_its_next_snapshot_and_is_no_mark() {
    let config = Config {
        eject_failures: 1,
        push: PushRule::Blind,
        ..config()
    };
    let mut drive = Drive::new(config, 2);
    drive.drain(1, true);
    drive.submit("m");
    assert_eq!(drive.retry(1, Failure::Full, true), [hold(1)]);
    assert_eq!(drive.submit("m"), [hold(2)]);
    let gauges = &drive.router.gauges()[0];
    assert_eq!((gauges.ready, gauges.failed_total), (true, 0));
    assert_eq!(all_pushed(&drive.observe(0, idle())), [1, 2]);
}

#[test]
fn a_probe_sent_before_the_answer_full_does_not_open_the_replica() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    let sent_ns = drive.now;
    drive.submit("m");
    assert_eq!(drive.retry(1, Failure::Full, true), [hold(1)]);
    let stale = drive.call(|router, now, out| {
        router.observe(ReplicaId(0), idle(), sent_ns, now, out);
    });
    assert_eq!(stale, []);
    assert_eq!(pushed(&drive.observe(0, idle())), (1, 0, 1));
}

#[test]
fn a_full_replica_that_is_never_probed_again_opens_by_time() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    drive.submit("m");
    drive.retry(1, Failure::Full, true);
    let deadline_ns = drive.router.next_change_ns().unwrap();
    assert_eq!(drive.tick_at(deadline_ns - Span::from_ns(1)), []);
    assert_eq!(pushed(&drive.tick_at(deadline_ns)), (1, 0, 1));
}

/// Pushes with no gate, and takes turns.
fn in_turn() -> Config {
    Config {
        push: PushRule::Blind,
        policy: Policy::RoundRobin,
        ..config()
    }
}

fn tried_once() -> Digest {
    Digest {
        retry_safe: false,
        ..digest("m", &[])
    }
}

#[test]
fn a_refusal_that_began_nothing_uses_up_no_attempt_and_no_budget() {
    let config = Config {
        retry_ratio: 0.0,
        retry_per_s: 0.0,
        ..in_turn()
    };
    for failure in [Failure::Full, Failure::Limited] {
        let mut drive = Drive::new(config.clone(), 4);
        let effects = drive.submit_as(ask(Route::Responses), tried_once());
        let (_, first, attempt) = pushed(&effects);
        assert_eq!(attempt, 1);
        let mut tried = vec![first];
        for _ in 0..3 {
            let (_, replica, attempt) = pushed(&drive.retry(1, failure, true));
            assert_eq!(attempt, 1);
            tried.push(replica);
        }
        tried.sort_unstable();
        assert_eq!(tried, [0, 1, 2, 3]);
        assert_eq!(drive.counter("full"), 3);
    }
}

#[test]
fn a_request_that_every_replica_refuses_ends_with_what_the_last_one_said() {
    let mut drive = Drive::new(in_turn(), 3);
    drive.submit("m");
    for _ in 0..2 {
        pushed(&drive.retry(1, Failure::Limited, true));
    }
    assert_eq!(
        failed(&mut drive, 1, Failure::Limited),
        (429, "upstream_limited", Some(1))
    );
    // What may have room later is waited for, as often as there are attempts.
    drive.submit("m");
    let mut refused = 0;
    let end = loop {
        refused += 1;
        let effects = drive.retry(2, Failure::Full, true);
        match &effects[0] {
            Effect::Push(_) => {}
            Effect::Hold(_) => {
                let pushed = (0..3).any(|replica| !drive.observe(replica, load(1, 1)).is_empty());
                assert!(pushed);
            }
            _ => break effects,
        }
    };
    let end = rejected(&end);
    assert_eq!(
        (end.status, end.code, end.retry_after_s),
        (503, "upstream_full", Some(1))
    );
    assert_eq!(refused, 6);
}

#[test]
fn replicas_that_refuse_again_and_again_with_nothing_to_do_are_out() {
    let mut drive = Drive::new(in_turn(), 4);
    let mut health = |page: &Snapshot| {
        for _ in 0..40 {
            let (id, mut replica, _) = pushed(&drive.submit("m"));
            while replica == 0 {
                replica = pushed(&drive.retry(id, Failure::Full, true)).1;
            }
            drive.complete(id);
            drive.observe(0, page.clone());
        }
        drive.router.gauges()[0].health
    };
    assert_eq!(health(&load(3, 2)), "up", "it is full");
    assert_eq!(health(&idle()), "ejected");
}

#[test]
fn a_request_that_fails_alike_at_a_second_replica_is_at_fault_itself() {
    let config = Config {
        attempts_max: 4,
        ..in_turn()
    };
    let mut drive = Drive::new(config, 4);
    let read = |drive: &mut Drive, id| failed(drive, id, Failure::Status(500)).1;
    for _ in 0..40 {
        let (id, ..) = pushed(&drive.submit("m"));
        pushed(&drive.retry(id, Failure::Status(500), true));
        assert_eq!(read(&mut drive, id), "upstream_status");
    }
    assert!(drive.router.gauges().iter().all(|g| g.health == "up"));
    // Different failures are no proof.
    let (id, ..) = pushed(&drive.submit("m"));
    pushed(&drive.retry(id, Failure::Status(500), true));
    pushed(&drive.retry(id, Failure::Status(502), true));
    assert_eq!(read(&mut drive, id), "upstream_status");
}

#[test]
fn who_fails_what_another_serves_is_at_fault() {
    let mut drive = Drive::new(in_turn(), 3);
    let mut marks = 0;
    while marks < 5 {
        let (id, replica, _) = pushed(&drive.submit("m"));
        if replica == 0 {
            pushed(&drive.retry(id, Failure::Status(500), true));
            assert_eq!(drive.router.gauges()[0].health, "up");
            marks += 1;
        }
        drive.first_byte(id);
        drive.complete(id);
    }
    assert_eq!(drive.router.gauges()[0].health, "ejected");
}

#[test]
fn failures_of_requests_that_are_tried_once_put_one_replica_out_at_most() {
    let mut drive = Drive::new(in_turn(), 4);
    for _ in 0..60 {
        let (id, ..) = pushed(&drive.submit_as(ask(Route::Responses), tried_once()));
        rejected(&drive.retry(id, Failure::Status(500), true));
    }
    let gauges = drive.router.gauges();
    let out = gauges.iter().filter(|gauges| gauges.health == "ejected");
    assert_eq!(out.count(), 1);
}

#[test]
fn a_retry_that_waits_stands_before_all_that_came_later() {
    let mut drive = Drive::new(config(), 2);
    let (_, first, _) = pushed(&drive.submit("m"));
    pushed(&drive.submit("m"));
    assert_eq!(drive.submit("m"), [hold(3)]);
    // Request 3 may go where request 1 failed; request 1 waits for the other replica.
    assert_eq!(drive.retry(1, Failure::Reset, true)[0], hold(1));
    assert_eq!(pushed(&drive.first_byte(2)), (1, 1 - first, 2));
}

#[test]
fn only_a_request_that_must_go_elsewhere_is_passed_over() {
    let mut drive = Drive::new(config(), 2);
    let (_, first, _) = pushed(&drive.submit("m"));
    pushed(&drive.submit("m"));
    for id in 3..=4 {
        assert_eq!(drive.submit("m"), [hold(id)]);
    }
    let effects = drive.retry(1, Failure::Reset, true);
    assert_eq!(effects[0], hold(1));
    assert_eq!(pushed(&effects[1..]), (3, first, 1));
    assert_eq!(drive.router.hold_requests(), 2);
}

#[test]
fn a_retry_waits_no_longer_than_what_is_left_of_its_time_in_the_hold() {
    let mut drive = Drive::new(config(), 2);
    drive.submit("m");
    drive.submit("m");
    assert_eq!(drive.submit("m"), [hold(3)]);
    drive.now += 20 * S;
    let (_, _, attempt) = pushed(&drive.first_byte(1));
    assert_eq!(attempt, 1);
    drive.now += 100 * S;
    // The probe keeps both replicas known, and request 2 still pends on the other one.
    for replica in 0..2 {
        drive.observe(replica, load(1, 1));
    }
    let asked_ns = drive.now;
    assert_eq!(drive.retry(3, Failure::Reset, true), [hold(3)]);
    let left_ns = drive.router.hold.next_deadline_ns().unwrap() - asked_ns;
    assert!((9 * S..=10 * S).contains(&left_ns), "{left_ns:?}");
}

#[test]
fn failures_eject_a_replica_and_nothing_more_goes_there() {
    let config = Config {
        eject_failures: 3,
        push: PushRule::Blind,
        policy: Policy::RoundRobin,
        ..config()
    };
    let mut drive = Drive::new(config, 2);
    let mut marks = 0;
    while marks < 3 {
        let (id, replica, _) = pushed(&drive.submit("m"));
        if replica == 0 {
            drive.retry(id, Failure::Reset, true);
            marks += 1;
        }
    }
    assert_eq!(drive.router.gauges()[0].health, "ejected");
    for _ in 0..5 {
        assert_eq!(pushed(&drive.submit("m")).1, 1);
    }
}

#[test]
fn events_of_requests_that_are_not_in_flight_are_counted_and_ignored() {
    let mut drive = Drive::new(config(), 1);
    drive.submit("m");
    drive.submit("m");
    assert_eq!(drive.first_byte(9), []);
    assert_eq!(drive.first_byte(2), []);
    assert_eq!(drive.retry(2, Failure::Reset, true), []);
    assert_eq!(drive.complete(9), []);
    assert_eq!(drive.counter("unknown_first_bytes"), 2);
    assert_eq!(drive.counter("unknown_retries"), 1);
    assert_eq!(drive.counter("unknown_completions"), 1);
    assert_eq!(drive.router.hold_requests(), 1);
}
