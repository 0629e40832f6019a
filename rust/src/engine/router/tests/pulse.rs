//! Replicas that show no sign of life, and those that only seem to.

use super::*;

fn page(running: u32, waiting: u32, tokens: u64) -> Snapshot {
    Snapshot {
        kv_usage: Some(0.5),
        tokens: Some(tokens),
        ..load(running, waiting)
    }
}

/// Two replicas; request 1 waits at the one that is returned.
fn waiting() -> (Drive, u32) {
    let mut drive = Drive::new(config(), 2);
    let (_, replica, _) = pushed(&drive.submit("m"));
    (drive, replica)
}

fn withdrawn(effects: &[Effect]) -> Vec<u64> {
    let withdrawn = effects.iter().filter_map(|effect| match effect {
        Effect::Withdraw(id) => Some(id.0),
        _ => None,
    });
    withdrawn.collect()
}

fn health(drive: &Drive, replica: u32) -> &'static str {
    drive.router.gauges()[replica as usize].health
}

/// Probes a replica once a second for so long, and says what is withdrawn.
fn probed(
    drive: &mut Drive,
    replica: u32,
    seconds: u64,
    said: impl Fn(u64) -> Snapshot,
) -> Vec<u64> {
    let mut all = Vec::new();
    for second in 1..=seconds {
        drive.now += S;
        drive.observe(1 - replica, idle());
        all.extend(withdrawn(&drive.observe(replica, said(second))));
    }
    all
}

#[test]
fn a_request_without_a_byte_leaves_a_replica_where_nobody_is() {
    let (mut drive, replica) = waiting();
    let effects = drive.observe_failed(replica, false);
    assert_eq!(withdrawn(&effects), [1]);
    assert_eq!(withdrawn(&drive.observe_failed(replica, false)), [0_u64; 0]);
    assert_eq!(
        pushed(&drive.retry(1, Failure::Withdrawn, true)),
        (1, 1 - replica, 2)
    );
    assert_eq!(drive.counter("withdrawn"), 1);
}

#[test]
fn a_request_stays_where_nobody_is_if_it_cannot_be_tried_elsewhere() {
    // It must not be sent twice.
    let mut drive = Drive::new(config(), 2);
    let unsafe_digest = Digest {
        retry_safe: false,
        ..digest("m", &[])
    };
    let (_, replica, _) = pushed(&drive.submit_as(ask(Route::Responses), unsafe_digest));
    assert_eq!(withdrawn(&drive.observe_failed(replica, false)), [0_u64; 0]);
    // Nobody else is ready.
    let (mut drive, replica) = waiting();
    drive.drain(1 - replica, true);
    assert_eq!(withdrawn(&drive.observe_failed(replica, false)), [0_u64; 0]);
    // It has begun.
    let (mut drive, replica) = waiting();
    drive.first_byte(1);
    drive.now += 60 * S;
    assert_eq!(withdrawn(&drive.observe_failed(replica, false)), [0_u64; 0]);
    // No budget is left; it comes back with time.
    let config = Config {
        retry_ratio: 1.0,
        retry_per_s: 0.0,
        ..config()
    };
    let mut drive = Drive::new(config, 2);
    let (_, replica, _) = pushed(&drive.submit("m"));
    drive.now += 20 * S;
    drive.observe(1 - replica, idle());
    assert_eq!(withdrawn(&drive.observe_failed(replica, false)), [0_u64; 0]);
    drive.submit("m");
    assert_eq!(withdrawn(&drive.observe_failed(replica, false)), [1]);
}

#[test]
fn a_stream_that_can_go_on_elsewhere_leaves_without_any_budget() {
    for continues in [false, true] {
        let config = Config {
            retry_ratio: 1.0,
            retry_per_s: 0.0,
            ..config()
        };
        let mut drive = Drive::new(config, 2);
        let (_, replica, _) = pushed(&drive.submit("m"));
        drive.first_byte(1);
        if let Some(request) = drive.router.requests.get_mut(RequestId(1)) {
            request.continues = continues;
        }
        drive.now += 20 * S;
        drive.observe(1 - replica, idle());
        let gone = withdrawn(&drive.observe_failed(replica, false));
        assert_eq!(gone, if continues { vec![1] } else { vec![] });
        // Its driver may have been unable to let it go: it is asked again, and counted once.
        assert_eq!(withdrawn(&drive.observe_failed(replica, false)), gone);
        assert_eq!(drive.counter("withdrawn"), u64::from(continues));
    }
}

#[test]
fn what_is_heard_of_is_left_in_peace_though_it_takes_no_new_connections() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    drive.submit("m");
    drive.submit("m");
    drive.set_replicas(0..2);
    drive.set_models(1, &["m"]);
    drive.observe(1, idle());
    drive.first_byte(1);
    // It is ending: its listener is closed, and its streams go on.
    assert_eq!(withdrawn(&drive.observe_failed(0, false)), [0_u64; 0]);
    drive.now += 5 * S;
    drive.observe(1, idle());
    assert_eq!(withdrawn(&drive.observe_failed(0, false)), [2]);
}

#[test]
fn late_probes_take_nobody_out() {
    let mut drive = Drive::new(config(), 2);
    for _ in 0..20 {
        drive.now += S;
        for replica in 0..2 {
            assert_eq!(drive.probe_fails(replica, Unread::Late), []);
        }
        let (id, ..) = pushed(&drive.submit("m"));
        drive.first_byte(id);
        drive.complete(id);
    }
    let gauges = drive.router.gauges();
    assert!(
        gauges
            .iter()
            .all(|g| g.ready && g.blind && g.health == "up")
    );
}

#[test]
fn a_replica_seen_for_the_first_time_may_serve_though_its_metrics_are_late() {
    let mut drive = Drive::new(config(), 0);
    drive.set_replicas(0..2);
    drive.probe_fails(0, Unread::Late);
    drive.probe_fails(1, Unread::Unconnected);
    assert_eq!((health(&drive, 0), health(&drive, 1)), ("up", "down"));
    drive.set_models(0, &["m"]);
    pushed(&drive.submit("m"));
}

#[test]
fn room_at_a_replica_that_does_not_answer_probes_is_for_those_who_find_no_other() {
    let mut drive = Drive::new(config(), 2);
    drive.probe_fails(0, Unread::Late);
    for _ in 0..5 {
        let (id, replica, _) = pushed(&drive.submit("m"));
        assert_eq!(replica, 1);
        drive.complete(id);
    }
    assert_eq!(pushed(&drive.submit("m")).1, 1);
    assert_eq!(pushed(&drive.submit("m")).1, 0, "the other has no room");
}

#[test]
fn a_replica_is_down_when_its_requests_fail_as_well_as_its_probes() {
    let mut drive = Drive::new(config(), 1);
    for attempt in 1..=2 {
        drive.probe_fails(0, Unread::Late);
        assert_eq!(health(&drive, 0), "up");
        if attempt == 1 {
            pushed(&drive.submit("m"));
            pushed(&drive.retry(1, Failure::Reset, true));
        } else {
            drive.retry(1, Failure::Reset, true);
        }
    }
    assert_eq!(health(&drive, 0), "down");
    drive.probe_fails(0, Unread::Unconnected);
    assert_eq!(health(&drive, 0), "down");
    drive.probe_fails(0, Unread::Late);
    assert_eq!(health(&drive, 0), "up", "whether it serves, requests show");
}

#[test]
fn a_replica_to_which_no_connection_comes_about_for_long_is_down() {
    let (mut drive, replica) = waiting();
    for _ in 0..4 {
        assert_eq!(
            withdrawn(&drive.probe_fails(replica, Unread::Unconnected)),
            [0_u64; 0]
        );
        assert_eq!(health(&drive, replica), "up");
        drive.now += S;
        drive.observe(1 - replica, idle());
    }
    for _ in 0..2 {
        drive.now += S;
        drive.observe(1 - replica, idle());
    }
    let effects = drive.probe_fails(replica, Unread::Unconnected);
    assert_eq!(
        (withdrawn(&effects), health(&drive, replica)),
        (vec![1], "down")
    );
}

#[test]
fn an_engine_that_has_requests_and_stands_still_is_out_until_its_page_moves() {
    let (mut drive, replica) = waiting();
    assert_eq!(
        probed(&mut drive, replica, 10, |_| page(1, 0, 7)),
        [0_u64; 0]
    );
    assert_eq!(health(&drive, replica), "up");
    assert_eq!(probed(&mut drive, replica, 2, |_| page(1, 0, 7)), [1]);
    assert_eq!(health(&drive, replica), "wedged");
    assert_eq!(
        pushed(&drive.retry(1, Failure::Withdrawn, true)),
        (1, 1 - replica, 2)
    );
    probed(&mut drive, replica, 60, |_| page(1, 0, 7));
    assert_eq!(health(&drive, replica), "wedged");
    probed(&mut drive, replica, 1, |_| page(0, 0, 7));
    assert_eq!(health(&drive, replica), "up");
}

#[test]
fn an_engine_that_answers_nothing_and_has_requests_is_out_until_it_answers() {
    let (mut drive, replica) = waiting();
    let mut all = Vec::new();
    for _ in 0..12 {
        drive.now += S;
        drive.observe(1 - replica, idle());
        all.extend(withdrawn(&drive.probe_fails(replica, Unread::Late)));
    }
    assert_eq!((all, health(&drive, replica)), (vec![1], "wedged"));
    drive.retry(1, Failure::Withdrawn, true);
    drive.probe_fails(replica, Unread::Unreadable);
    assert_eq!(health(&drive, replica), "up");
}

#[test]
fn engines_that_work_are_not_taken_for_wedged() {
    // A long prompt is being computed: each step takes blocks.
    let (mut drive, replica) = waiting();
    let prefill = |second: u64| Snapshot {
        kv_usage: Some(0.001 * f64::from(u32::try_from(second).unwrap_or(0))),
        ..page(1, 0, 7)
    };
    assert_eq!(probed(&mut drive, replica, 300, prefill), [0_u64; 0]);
    // A long prompt is being tokenized: the engine has nothing to do yet.
    let (mut drive, replica) = waiting();
    assert_eq!(
        probed(&mut drive, replica, 29, |_| page(0, 0, 7)),
        [0_u64; 0]
    );
    // It has answered all, and the client does not read.
    let (mut drive, replica) = waiting();
    drive.first_byte(1);
    assert_eq!(
        probed(&mut drive, replica, 300, |_| page(0, 0, 7)),
        [0_u64; 0]
    );
    let other = (1..9).find(|_| pushed(&drive.submit("m")).1 == replica);
    assert!(other.is_some(), "a second request comes there");
    assert_eq!(
        probed(&mut drive, replica, 29, |_| page(0, 0, 7)),
        [0_u64; 0],
        "its own time counts"
    );
    // It tells no figures.
    let (mut drive, replica) = waiting();
    assert_eq!(probed(&mut drive, replica, 300, |_| load(1, 0)), [0_u64; 0]);
    // It sleeps.
    let (mut drive, replica) = waiting();
    let asleep = |_| Snapshot {
        sleeping: true,
        ..page(1, 0, 7)
    };
    assert_eq!(probed(&mut drive, replica, 300, asleep), [0_u64; 0]);
}

/// Seconds until request 1, or the next one, is withdrawn from a replica that says always the same.
fn patience(drive: &mut Drive, replica: u32, said: impl Fn(u64) -> Snapshot) -> Option<u64> {
    (1..=200).find(|second| !probed(drive, replica, 1, |_| said(*second)).is_empty())
}

/// As a fleet is configured by default.
fn brisk() -> Config {
    Config {
        wedged_ns: 3 * S,
        ..config()
    }
}

/// A replica that has answered ten requests, and has got another one.
fn answered(config: Config, tokens: usize) -> (Drive, u32) {
    let mut drive = Drive::new(config, 2);
    let replica = 0;
    drive.drain(1 - replica, true);
    for _ in 0..10 {
        let (id, ..) = pushed(&drive.submit("m"));
        drive.first_byte(id);
        drive.complete(id);
    }
    let blocks: Vec<u64> = (1..=tokens as u64 / 16).collect();
    let digest = Digest {
        prompt_bytes: tokens * 4,
        ..digest("m", &blocks)
    };
    let (_, at, _) = pushed(&drive.submit_as(ask(Route::ChatCompletions), digest));
    drive.drain(1 - replica, false);
    assert_eq!(at, replica);
    (drive, replica)
}

#[test]
fn an_engine_that_has_answered_before_is_wedged_after_three_seconds() {
    let (mut drive, replica) = answered(brisk(), 16);
    let seconds = patience(&mut drive, replica, |_| page(1, 0, 7));
    assert!(seconds.is_some_and(|seconds| seconds <= 5), "{seconds:?}");
    assert_eq!(drive.counter("wedged"), 1);
    // One that has not may be compiling; so may one that is new at the same address.
    let mut drive = Drive::new(brisk(), 2);
    let (_, replica, _) = pushed(&drive.submit("m"));
    let seconds = patience(&mut drive, replica, |_| page(1, 0, 7));
    assert!(seconds.is_some_and(|seconds| seconds >= 10), "{seconds:?}");
    let (mut drive, replica) = answered(brisk(), 16);
    let started = |queries| Snapshot {
        cache_queries: Some(queries),
        ..page(1, 0, 7)
    };
    drive.observe(replica, started(9));
    drive.observe(replica, started(0));
    let seconds = patience(&mut drive, replica, |_| started(0));
    assert!(seconds.is_some_and(|seconds| seconds >= 10), "{seconds:?}");
}

#[test]
fn requests_that_only_come_to_wait_are_no_sign_of_life() {
    let (mut drive, replica) = answered(brisk(), 16);
    let grows = |second: u64| page(1, u32::try_from(second).unwrap_or(0), 7);
    let seconds = patience(&mut drive, replica, grows);
    assert!(seconds.is_some_and(|seconds| seconds <= 5), "{seconds:?}");
    // Neither do they bring it back; a request that is taken out of the queue does.
    probed(&mut drive, replica, 9, |second| grows(5 + second));
    assert_eq!(health(&drive, replica), "wedged");
    probed(&mut drive, replica, 1, |_| page(1, 5, 7));
    assert_eq!(health(&drive, replica), "up");
}

#[test]
fn a_long_prompt_is_given_three_times_what_it_should_take() {
    // 100,000 tokens at 10,000 a second, on a page that shows no progress.
    let (mut drive, replica) = answered(brisk(), 100_000);
    let seconds = patience(&mut drive, replica, |_| page(1, 0, 7));
    assert!(
        seconds.is_some_and(|seconds| (29..=32).contains(&seconds)),
        "{seconds:?}"
    );
}

#[test]
fn a_replica_to_whose_engine_nothing_comes_is_ejected_and_tested_again() {
    let mut drive = Drive::new(brisk(), 2);
    let (_, replica, _) = pushed(&drive.submit("m"));
    assert_eq!(patience(&mut drive, replica, |_| page(0, 0, 7)), Some(31));
    assert_eq!(health(&drive, replica), "ejected");
    drive.retry(1, Failure::Withdrawn, true);
    probed(&mut drive, replica, 2, |_| page(0, 0, 7));
    drive.tick_at(drive.now);
    assert_eq!(health(&drive, replica), "probing");
}

#[test]
fn bytes_of_answers_are_life_whatever_the_page_says() {
    let (mut drive, replica) = waiting();
    for _ in 0..300 {
        assert_eq!(
            probed(&mut drive, replica, 1, |_| page(2, 0, 7)),
            [0_u64; 0]
        );
        drive.call(|router, now, out| router.heard(&[ReplicaId(replica)], now, out));
    }
    // The page has stood for long while the engine worked: it tells nothing any more.
    assert_eq!(
        probed(&mut drive, replica, 300, |_| page(2, 0, 7)),
        [0_u64; 0]
    );
}

#[test]
fn who_was_silent_before_and_lived_is_given_more_time() {
    let (mut drive, replica) = waiting();
    probed(&mut drive, replica, 8, |_| page(1, 0, 7));
    assert_eq!(
        probed(&mut drive, replica, 20, |_| page(1, 0, 8)),
        [0_u64; 0]
    );
    assert_eq!(probed(&mut drive, replica, 20, |_| page(1, 0, 8)), [1]);
}

#[test]
fn a_fleet_that_stands_still_as_one_is_left_as_it_is() {
    let (mut drive, replica) = waiting();
    assert_eq!(pushed(&drive.submit("m")).1, 1 - replica);
    for _ in 0..60 {
        drive.now += S;
        for replica in 0..2 {
            assert_eq!(
                withdrawn(&drive.observe(replica, page(1, 0, 7))),
                [0_u64; 0]
            );
        }
    }
    assert!(drive.router.gauges().iter().all(|gauges| gauges.ready));
}

#[test]
fn requests_wait_while_a_replica_that_has_joined_is_looked_at() {
    let mut drive = Drive::new(config(), 1);
    drive.set_replicas([1]);
    assert_eq!(drive.submit("m"), [hold(1)]);
    assert_eq!(drive.observe(1, idle()), []);
    assert_eq!(pushed(&drive.set_models(1, &["m"])), (1, 1, 1));
}

#[test]
fn requests_are_refused_when_who_was_looked_at_does_not_serve_them() {
    let mut drive = Drive::new(config(), 1);
    drive.set_replicas([1]);
    assert_eq!(drive.submit("m"), [hold(1)]);
    assert_eq!(rejected(&drive.observe_failed(1, false)).status, 503);
    let mut drive = Drive::new(config(), 1);
    drive.set_replicas([1]);
    assert_eq!(drive.submit("m"), [hold(1)]);
    drive.observe(1, idle());
    let refused = drive.set_models(1, &["n"]);
    assert_eq!(
        rejected(&refused).code,
        "model_not_ready",
        "it was there a moment ago"
    );
    // Who does not end being looked at is waited for no longer than that takes.
    let mut drive = Drive::new(config(), 1);
    drive.set_replicas([1]);
    drive.now += 6 * S;
    assert_eq!(rejected(&drive.submit("m")).code, "no_replica_ready");
}
