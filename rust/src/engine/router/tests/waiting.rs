//! Holding and starting what is held.

use std::mem;

use super::*;
use crate::id::{PeerId, ReplicaSlot};

/// One replica, request 1 in flight and pending on it, 2 to 4 held.
fn three_held() -> Drive {
    let mut drive = Drive::new(config(), 1);
    assert_eq!(pushed(&drive.submit("m")), (1, 0, 1));
    for id in 2..=4 {
        assert_eq!(drive.submit("m"), [hold(id)]);
    }
    drive
}

#[test]
fn a_first_byte_starts_the_oldest_held_request_in_the_same_call() {
    let mut drive = three_held();
    assert_eq!(pushed(&drive.first_byte(1)), (2, 0, 1));
    assert_eq!(pushed(&drive.first_byte(2)), (3, 0, 1));
}

#[test]
fn a_completion_starts_the_oldest_held_request_in_the_same_call() {
    let mut drive = three_held();
    assert_eq!(pushed(&drive.complete(1)), (2, 0, 1));
    assert_eq!(pushed(&drive.end(2, Outcome::ClientLeft)), (3, 0, 1));
}

#[test]
fn a_snapshot_that_shows_room_starts_the_oldest_held_request_in_the_same_call() {
    let mut drive = three_held();
    assert_eq!(drive.observe(0, load(0, 1)), []);
    assert_eq!(pushed(&drive.observe(0, load(1, 0))), (2, 0, 1));
}

#[test]
fn a_client_that_leaves_the_hold_is_never_pushed() {
    let mut drive = three_held();
    assert_eq!(drive.end(2, Outcome::ClientLeft), []);
    assert_eq!(pushed(&drive.first_byte(1)), (3, 0, 1));
    assert_eq!(drive.router.hold_requests(), 1);
}

#[test]
fn what_waits_too_long_expires_and_is_forgotten() {
    let mut drive = three_held();
    let deadline_ns = drive.router.next_change_ns().unwrap();
    drive.now = deadline_ns - S;
    assert_eq!(drive.observe(0, load(0, 1)), []);
    assert_eq!(drive.tick_at(deadline_ns - Span::from_ns(1)), []);
    assert_eq!(drive.tick_at(deadline_ns), [Effect::Expire(RequestId(2))]);
    assert_eq!(drive.complete(2), []);
    assert_eq!(drive.counter("unknown_completions"), 1);
    drive.tick_at(deadline_ns + S);
    assert_eq!(drive.router.hold_requests(), 0);
}

#[test]
fn nothing_starts_after_its_deadline_even_if_the_timer_is_late() {
    let mut drive = three_held();
    drive.now += 31 * S;
    let effects = drive.first_byte(1);
    let expired: Vec<_> = (2..=4).map(|id| Effect::Expire(RequestId(id))).collect();
    assert_eq!(effects, expired);
}

#[test]
fn a_full_hold_refuses_with_retry_after() {
    let mut drive = Drive::new(
        Config {
            hold_len_max: 1,
            ..config()
        },
        1,
    );
    drive.submit("m");
    assert_eq!(drive.submit("m"), [hold(2)]);
    let effects = drive.submit("m");
    let reject = rejected(&effects);
    assert_eq!(
        (reject.status, reject.code, reject.retry_after_s),
        (503, "hold_full", Some(1))
    );
    assert_eq!(drive.counter("hold_full"), 1);
}

/// One request pushed and one held; three may be pushed once the last snapshot is stale.
fn one_of_three_pushed() -> Drive {
    let mut drive = Drive::new(
        Config {
            blind_outstanding_max: 3,
            ..config()
        },
        1,
    );
    drive.submit("m");
    assert_eq!(drive.submit("m"), [hold(2)]);
    drive
}

#[test]
fn a_newcomer_stands_behind_those_who_wait_when_time_alone_gave_room() {
    // Blind pushing is allowed again once the last snapshot is stale: no event tells of that.
    let mut drive = one_of_three_pushed();
    for _ in 0..3 {
        drive.now += S;
        // A call that gives room to nobody.
        drive.router.peer_rtt(PeerId(0), MS, drive.now);
    }
    assert_eq!(all_pushed(&drive.submit("m")), [2, 3]);
}

#[test]
fn who_stood_still_knows_no_less_than_before() {
    let mut drive = one_of_three_pushed();
    drive.now += 20 * S;
    assert_eq!(drive.submit("m"), [hold(3)]);
}

#[test]
fn no_model_waits_behind_another_models_head() {
    let mut drive = Drive::new(config(), 2);
    drive.set_models(1, &["n"]);
    assert_eq!(pushed(&drive.submit("m")), (1, 0, 1));
    assert_eq!(drive.submit("m"), [hold(2)]);
    assert_eq!(pushed(&drive.submit("n")), (3, 1, 1));
    assert_eq!(drive.submit("n"), [hold(4)]);
    assert_eq!(pushed(&drive.first_byte(3)), (4, 1, 1));
}

#[test]
fn a_replica_that_serves_two_models_takes_the_older_head() {
    let mut drive = Drive::new(config(), 1);
    drive.set_models(0, &["m", "n"]);
    drive.submit("m");
    assert_eq!(drive.submit("n"), [hold(2)]);
    assert_eq!(drive.submit("m"), [hold(3)]);
    assert_eq!(drive.submit("n"), [hold(4)]);
    assert_eq!(pushed(&drive.first_byte(1)), (2, 0, 1));
    assert_eq!(pushed(&drive.first_byte(2)), (3, 0, 1));
    assert_eq!(pushed(&drive.first_byte(3)), (4, 0, 1));
}

#[test]
fn held_requests_outlast_a_fleet_that_is_down_and_start_when_it_is_back() {
    let mut drive = three_held();
    assert_eq!(drive.observe_failed(0, false), []);
    assert_eq!(rejected(&drive.submit("m")).code, "no_replica_ready");
    let effects = drive.retry(1, Failure::Reset, true);
    assert_eq!(rejected(&effects).code, "upstream_reset");
    assert_eq!(pushed(&drive.observe(0, idle())), (2, 0, 1));
}

#[test]
fn probes_are_due_fast_where_work_is_held_and_slow_elsewhere() {
    let mut drive = Drive::new(config(), 2);
    drive.set_models(1, &["n"]);
    drive.submit("m");
    drive.submit("m");
    assert_eq!(drive.router.hold_requests(), 1);
    drive.tick_at(drive.now + 150 * MS);
    assert_eq!(mem::take(&mut drive.probes), [0]);
    drive.tick_at(drive.now + S);
    assert_eq!(mem::take(&mut drive.probes), [1], "the first is under way");
    drive.observe_failed(0, false);
    drive.tick_at(drive.now + 150 * MS);
    assert_eq!(mem::take(&mut drive.probes), [0]);
}

#[test]
fn a_probe_is_under_way_until_it_is_reported_also_where_it_was_never_sent() {
    let mut drive = Drive::new(config(), 1);
    drive.tick_at(drive.now + S);
    assert_eq!(mem::take(&mut drive.probes), [0]);
    for _ in 0..20 {
        drive.tick_at(drive.now + S);
    }
    assert_eq!(mem::take(&mut drive.probes), [0; 0]);
    let state = drive.router.probed_state(ReplicaId(0));
    assert_eq!(drive.probe_fails(0, Unread::Unsent), []);
    assert_eq!(drive.router.probed_state(ReplicaId(0)), state);
    let due_ns = drive.router.next_deadline_ns().unwrap();
    drive.tick_at(due_ns);
    assert_eq!(mem::take(&mut drive.probes), [0]);
}

#[test]
fn the_state_by_probes_is_that_of_the_last_one_and_of_requests_that_found_nobody() {
    let mut drive = Drive::new(config(), 1);
    let state = |drive: &Drive| drive.router.probed_state(ReplicaId(0));
    assert_eq!(state(&drive), ProbedState::Up);
    drive.probe_fails(0, Unread::Late);
    assert_eq!(state(&drive), ProbedState::Blind);
    drive.probe_fails(0, Unread::Refused);
    assert_eq!(state(&drive), ProbedState::Down);
    drive.observe(0, idle());
    assert_eq!(state(&drive), ProbedState::Up);
    drive.submit("m");
    drive.retry(1, Failure::Connect, false);
    assert_eq!(state(&drive), ProbedState::Down);
    assert_eq!(
        drive.router.probed_state(ReplicaId(9)),
        ProbedState::Unknown
    );
}

#[test]
fn a_replica_that_answers_another_question_is_silent_no_more() {
    let mut drive = Drive::new(config(), 1);
    drive.probe_fails(0, Unread::Late);
    let silent = |drive: &Drive| {
        drive
            .router
            .fleet
            .member(ReplicaSlot::new(0))
            .unwrap()
            .replica()
            .health
            .silent()
    };
    assert!(silent(&drive));
    drive.call(|router, now, out| router.answered(ReplicaId(0), now, out));
    assert!(!silent(&drive));
}

#[test]
fn requests_the_model_does_not_see_neither_wait_nor_close_the_gate() {
    let mut drive = Drive::new(
        Config {
            in_flight_max: 2,
            ..config()
        },
        1,
    );
    drive.submit("m");
    let tokenize = ask(Route::Tokenize);
    assert_eq!(
        pushed(&drive.submit_as(tokenize, digest("m", &[]))),
        (2, 0, 1)
    );
    let effects = drive.submit_as(tokenize, digest("m", &[]));
    assert_eq!(rejected(&effects).code, "replica_full");
    assert_eq!(drive.submit("m"), [hold(4)]);
    assert_eq!(drive.first_byte(1), [], "the cap counts both");
    assert_eq!(pushed(&drive.complete(2)), (4, 0, 1));
}
