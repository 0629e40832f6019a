//! Streams that go on elsewhere after their first byte.

use super::limits::{asks, entry};
use super::*;
use crate::engine::router::resume::CONTINUATIONS_MAX;
use crate::prompt::continuing::{Continuing, Plan};

fn stream(blocks: &[u64]) -> Digest {
    Digest {
        stream: true,
        continuing: Continuing::Planned(Box::new(Plan::sample())),
        ..digest("m", blocks)
    }
}

fn given(prompt: u32, answer: u32) -> Report<'static> {
    Report {
        usage: Usage {
            prompt_tokens: Some(prompt),
            cached_tokens: None,
            completion_tokens: Some(answer),
        },
        sent: true,
        streamed: true,
        events: u64::from(answer),
        ..Report::default()
    }
}

impl Drive {
    fn resume(&mut self, id: u64, failure: Failure) -> Vec<Effect> {
        self.call(|router, now, out| {
            router.resume(RequestId(id), failure, &given(100, 7), now, out);
        })
    }
}

/// Request 1 streams at the replica that is returned.
fn streaming(replicas: u32, blocks: &[u64]) -> (Drive, u32) {
    let mut drive = Drive::new(config(), replicas);
    let effects = drive.submit_as(ask(Route::ChatCompletions), stream(blocks));
    let (_, replica, _) = pushed(&effects);
    drive.first_byte(1);
    (drive, replica)
}

#[test]
fn a_stream_goes_on_where_most_of_its_prompt_is_cached() {
    let mut drive = Drive::new(config(), 3);
    let blocks: Vec<u64> = (1..=PROMPT_BLOCKS).collect();
    let (_, first, _) = pushed(&drive.submit_as(ask(Route::ChatCompletions), stream(&blocks)));
    drive.first_byte(1);
    // Another request brings the prompt to a second replica, because the first one drains.
    drive.drain(first, true);
    let (_, second, _) = pushed(&drive.submit_as(ask(Route::ChatCompletions), stream(&blocks)));
    drive.first_byte(2);
    drive.complete(2);
    let (id, then, attempt) = pushed(&drive.resume(1, Failure::Reset));
    assert_eq!((id, then, attempt), (1, second, 1));
    drive.first_byte(1);
    drive.complete(1);
    assert_eq!(drive.router.in_flight(), 0);
    assert_eq!(
        (drive.counter("resumed"), drive.counter("completed_ok")),
        (1, 2)
    );
}

#[test]
fn what_does_not_stream_or_may_not_go_on_is_not_resumed() {
    let mut drive = Drive::new(config(), 2);
    pushed(&drive.submit_as(ask(Route::ChatCompletions), stream(&[])));
    assert_eq!(
        drive.resume(1, Failure::Reset),
        [],
        "it has had no first byte"
    );
    pushed(&drive.submit("m"));
    drive.first_byte(2);
    assert_eq!(
        drive.resume(2, Failure::Reset),
        [],
        "its body does not allow it"
    );
    assert_eq!(drive.counter("unknown_retries"), 2);
    assert_eq!(drive.router.in_flight(), 2, "nothing happened");
}

#[test]
fn a_stream_is_followed_through_so_many_replicas_and_no_more() {
    let (mut drive, _) = streaming(CONTINUATIONS_MAX + 5, &[]);
    for _ in 0..CONTINUATIONS_MAX {
        pushed(&drive.resume(1, Failure::Reset));
        drive.first_byte(1);
    }
    assert_eq!(
        rejected(&drive.resume(1, Failure::Reset)).code,
        "upstream_reset"
    );
    assert_eq!(drive.router.in_flight(), 0);
}

#[test]
fn tries_that_get_no_byte_count_as_well_and_take_nothing_from_the_budget_of_retries() {
    let config = Config {
        retry_ratio: 0.0,
        retry_per_s: 0.0,
        ..config()
    };
    let mut drive = Drive::new(config, CONTINUATIONS_MAX + 5);
    pushed(&drive.submit_as(ask(Route::ChatCompletions), stream(&[])));
    drive.first_byte(1);
    pushed(&drive.resume(1, Failure::Reset));
    for _ in 1..CONTINUATIONS_MAX {
        pushed(&drive.retry(1, Failure::Connect, false));
    }
    assert_eq!(
        rejected(&drive.retry(1, Failure::Connect, false)).code,
        "upstream_connect"
    );
    assert_eq!(drive.counter("retry_denied"), 0);
}

#[test]
fn a_stream_without_a_place_waits_in_the_hold_before_those_that_came_later() {
    let (mut drive, replica) = streaming(2, &[]);
    let other = 1 - replica;
    drive.observe(other, load(100, 50));
    drive.observe_failed(replica, false);
    assert_eq!(drive.submit("m"), [hold(2)]);
    assert_eq!(drive.resume(1, Failure::Reset), [hold(1)]);
    let started = all_pushed(&drive.observe(other, load(1, 0)));
    assert_eq!(started.first(), Some(&1), "{started:?}");
}

#[test]
fn a_stream_that_nobody_goes_on_with_costs_what_its_client_has() {
    for ends in ["refused", "expired", "left"] {
        let mut drive = Drive::new(config(), 1);
        drive.set_tenants(&[entry(
            "acme",
            &serde_json::json!({"tokens_per_minute": 60_000}),
        )]);
        let body = Digest {
            prompt_bytes: 1_000,
            max_tokens: Some(100),
            ..stream(&[])
        };
        pushed(&drive.submit_as(asks("acme"), body));
        drive.first_byte(1);
        if ends == "refused" {
            drive.set_replicas([]);
            rejected(&drive.resume(1, Failure::Reset));
        } else {
            drive.observe(0, load(100, 50));
            assert_eq!(drive.resume(1, Failure::Withdrawn), [hold(1)]);
            if ends == "expired" {
                let at = drive.now + Span::from_secs(60);
                assert_eq!(drive.tick_at(at), [Effect::Expire(RequestId(1))]);
            } else {
                drive.end(1, Outcome::ClientLeft);
            }
        }
        let used = drive.used("acme", "m");
        assert_eq!(used["charged_tokens"], 107, "{ends}: {used}");
        assert_eq!(used["requests"], 1, "{ends}: {used}");
    }
}
