//! Requests that another engine process has placed.

use proptest::prelude::*;

use super::limits::{asks, entry};
use super::*;
use crate::engine::router::resume::CONTINUATIONS_MAX;
use crate::prompt::continuing::Continuing;

/// At replica 0, with its first attempt.
fn there() -> Adopted<'static> {
    Adopted {
        replica: Some("http://replica-0"),
        attempts: 1,
        started: false,
        waited: Span::ZERO,
        failed: None,
        given: None,
    }
}

fn part(continuations: u32) -> Part {
    Part {
        continuations,
        usage: Usage {
            prompt_tokens: Some(100),
            cached_tokens: None,
            completion_tokens: Some(7),
        },
        events: 7,
    }
}

fn stream() -> Digest {
    Digest {
        stream: true,
        continuing: Continuing::Elsewhere,
        ..digest("m", &[1, 2, 3])
    }
}

impl Drive {
    /// Request `id` is taken over; the effects, and whether it is known now.
    fn adopt_as(
        &mut self,
        id: u64,
        ask: Ask<'_>,
        mut digest: Digest,
        at: Adopted<'_>,
    ) -> (Vec<Effect>, bool) {
        let mut known = false;
        let effects = self.call(|router, now, out| {
            known = router
                .adopt(RequestId(id), (&ask, &mut digest), at, now, out)
                .unwrap();
        });
        (effects, known)
    }

    fn adopt(&mut self, digest: Digest, at: Adopted<'_>) -> Vec<Effect> {
        let (effects, known) = self.adopt_as(1, ask(Route::ChatCompletions), digest, at);
        assert!(known);
        effects
    }
}

#[test]
fn a_stream_that_was_adopted_goes_on_elsewhere_when_it_breaks() {
    let mut drive = Drive::new(config(), 2);
    let at = Adopted {
        started: true,
        ..there()
    };
    assert_eq!(drive.adopt(stream(), at), []);
    assert_eq!(drive.router.in_flight(), 1);
    let broken = drive.call(|router, now, out| {
        assert!(router.may_resume(RequestId(1)));
        router.resume(RequestId(1), Failure::Reset, &Report::default(), now, out);
    });
    assert_eq!(pushed(&broken), (1, 1, 1));
    drive.first_byte(1);
    drive.complete(1);
    assert_eq!(drive.router.in_flight(), 0);
}

#[test]
fn a_stream_that_broke_while_nobody_decided_is_decided_on_now() {
    let mut drive = Drive::new(config(), 2);
    let broken = Adopted {
        started: true,
        failed: Some((Failure::Reset, true)),
        given: Some(part(0)),
        ..there()
    };
    assert_eq!(pushed(&drive.adopt(stream(), broken)), (1, 1, 1));
    let gone = Adopted {
        replica: None,
        ..broken
    };
    let (effects, _) = drive.adopt_as(2, ask(Route::ChatCompletions), stream(), gone);
    assert_eq!(pushed(&effects).0, 2, "its replica is gone, and it goes on");
}

#[test]
fn continuations_are_counted_over_engine_processes() {
    let mut drive = Drive::new(config(), 2);
    let last = Adopted {
        started: true,
        failed: Some((Failure::Reset, true)),
        given: Some(part(CONTINUATIONS_MAX)),
        ..there()
    };
    let effects = drive.adopt(stream(), last);
    assert_eq!(rejected(&effects).code, "upstream_reset");
    assert_eq!(drive.router.requests_len(), 0);
}

#[test]
fn a_request_whose_replica_is_gone_is_known_once_it_has_failed() {
    let mut drive = Drive::new(config(), 1);
    let gone = Adopted {
        replica: Some("another"),
        ..there()
    };
    let asked = ask(Route::ChatCompletions);
    assert_eq!(
        drive.adopt_as(1, asked, digest("m", &[]), gone),
        (vec![], false)
    );
    let failed = Adopted {
        failed: Some((Failure::Reset, true)),
        ..gone
    };
    let (effects, _) = drive.adopt_as(1, asked, digest("m", &[]), failed);
    assert_eq!(pushed(&effects), (1, 0, 2));
}

#[test]
fn what_builds_on_a_response_that_is_gone_with_its_replica_is_refused() {
    let mut drive = Drive::new(config(), 1);
    let failed = Adopted {
        replica: Some("another"),
        failed: Some((Failure::Connect, false)),
        ..there()
    };
    let body = Digest {
        previous_response_id: Some("resp_1".into()),
        ..digest("m", &[])
    };
    let (effects, _) = drive.adopt_as(1, ask(Route::Responses), body, failed);
    assert_eq!(rejected(&effects).status, 404);
    assert_eq!(drive.router.requests_len(), 0);
}

#[test]
fn an_id_that_is_in_use_is_refused() {
    let mut drive = Drive::new(config(), 1);
    drive.adopt(digest("m", &[]), there());
    let mut out = Vec::new();
    let mut body = digest("m", &[]);
    let asked = ask(Route::ChatCompletions);
    let again = drive.router.adopt(
        RequestId(1),
        (&asked, &mut body),
        there(),
        drive.now,
        &mut out,
    );
    assert_eq!((again, out), (Err(AlreadyKnown(RequestId(1))), vec![]));
}

#[test]
fn what_is_adopted_over_a_limit_is_charged_all_the_same() {
    let mut drive = Drive::new(config(), 1);
    let terms = serde_json::json!({"requests_per_minute": 2, "concurrent": 2});
    drive.set_tenants(&[entry("acme", &terms)]);
    for id in 1..=5 {
        drive.adopt_as(id, asks("acme"), digest("m", &[]), there());
    }
    assert_eq!(drive.counter("adopted_over_limit"), 3);
    assert_eq!(drive.used("acme", "m")["requests"], 5);
    drive.last_id = 5;
    let refused = drive.submit_as(asks("acme"), digest("m", &[]));
    assert_eq!(rejected(&refused).status, 429, "all five are under way");
    for id in 1..=5 {
        drive.complete(id);
    }
    let refused = drive.submit_as(asks("acme"), digest("m", &[]));
    assert_eq!(rejected(&refused).status, 429);
    drive.now += Span::from_secs(95);
    let still = drive.submit_as(asks("acme"), digest("m", &[]));
    assert_eq!(
        rejected(&still).status,
        429,
        "three more than the limit take a minute and a half"
    );
}

fn failures() -> impl Strategy<Value = Failure> {
    prop::sample::select(vec![
        Failure::Connect,
        Failure::Reset,
        Failure::Timeout,
        Failure::Full,
        Failure::Status(500),
        Failure::BadResponse,
        Failure::Withdrawn,
    ])
}

proptest! {
    #[test]
    fn what_failed_is_decided_as_by_the_engine_process_that_placed_it(
        failure in failures(),
        sent in any::<bool>(),
        retry_safe in any::<bool>(),
        stream in any::<bool>(),
        attempts in 1_u32..4,
    ) {
        let body = || Digest { stream, retry_safe, ..digest("m", &[]) };
        let what = |effects: &[Effect]| match effects {
            [Effect::Push(push)] => format!("attempt {}", push.attempt),
            [Effect::Reject(reject)] => reject.code.to_owned(),
            [Effect::Hold(_)] => "hold".to_owned(),
            others => format!("{others:?}"),
        };
        let config = || Config { attempts_max: 3, ..config() };
        let mut same = Drive::new(config(), 4);
        pushed(&same.submit_as(ask(Route::ChatCompletions), body()));
        for _ in 1..attempts {
            pushed(&same.retry(1, Failure::Reset, false));
        }
        let expected = what(&same.retry(1, failure, sent));
        let attempts = attempts - u32::from(failure.unreached(sent));
        for replica in [Some("http://replica-3"), Some("gone"), None] {
            let mut next = Drive::new(config(), 4);
            let at = Adopted { replica, attempts, failed: Some((failure, sent)), ..there() };
            let effects = next.adopt(body(), at);
            prop_assert_eq!(what(&effects), expected.clone(), "at {:?}", replica);
        }
    }
}
