//! Failed attempts.

use super::*;

fn failed(drive: &mut Drive, id: u64, failure: Failure) -> (u16, &'static str, Option<u32>) {
    let effects = drive.retry(id, failure, false);
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
        (Failure::Full, (503, "upstream_full", Some(1))),
        (Failure::Status, (502, "upstream_status", None)),
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
        pushed(&drive.retry(id, Failure::Status, true));
    }
    assert_eq!(failed(&mut drive, 3, Failure::Status).1, "upstream_status");
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
    let sent_ns = drive.now_ns;
    drive.submit("m");
    assert_eq!(drive.retry(1, Failure::Full, true), [hold(1)]);
    let stale = drive.call(|router, now_ns, out| {
        router.observe(ReplicaId(0), idle(), sent_ns, now_ns, out);
    });
    assert_eq!(stale, []);
    assert_eq!(pushed(&drive.observe(0, idle())), (1, 0, 2));
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
    let deadline_ns = drive.router.next_deadline_ns().unwrap();
    assert_eq!(drive.tick_at(deadline_ns - 1), []);
    assert_eq!(pushed(&drive.tick_at(deadline_ns)), (1, 0, 2));
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
    drive.now_ns += 20 * S;
    let (_, _, attempt) = pushed(&drive.first_byte(1));
    assert_eq!(attempt, 1);
    drive.now_ns += 100 * S;
    // The probe keeps both replicas known, and request 2 still pends on the other one.
    for replica in 0..2 {
        drive.observe(replica, load(1, 1));
    }
    let asked_ns = drive.now_ns;
    assert_eq!(drive.retry(3, Failure::Reset, true), [hold(3)]);
    let left_ns = drive.router.hold.next_deadline_ns().unwrap() - asked_ns;
    assert!((9 * S..=10 * S).contains(&left_ns), "{left_ns}");
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
            drive.retry(id, Failure::Status, true);
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
