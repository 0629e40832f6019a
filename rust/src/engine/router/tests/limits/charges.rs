//! What tenants are charged, case by case.

use super::*;

#[test]
fn answers_are_settled_by_what_is_known_of_them() {
    let nothing = Report::default();
    let (sent, refused) = (
        Report {
            sent: true,
            ..nothing
        },
        Report {
            sent: true,
            refused: true,
            ..nothing
        },
    );
    let counted = |of: Report<'static>, events, events_since_usage| Report {
        streamed: true,
        events,
        events_since_usage,
        ..of
    };
    let mut prompt_only = told(90, 0);
    prompt_only.usage.completion_tokens = None;
    let whole = Report {
        streamed: false,
        ..prompt_only
    };
    let (ok, left, failed) = (Outcome::Ok, Outcome::ClientLeft, Outcome::ReplicaFailed);
    let cases = [
        // An answer that came whole, as it says; one that says nothing of tokens written has none.
        (true, ok, told(90, 12), 102),
        (true, ok, whole, 90),
        // Nothing is said: as predicted, or as counted.
        (true, ok, nothing, 250 + 100),
        (true, ok, counted(nothing, 40, 40), 250 + 40),
        // Where the client leaves within an answer that came whole, all of it was computed.
        (true, left, sent, 250 + 100),
        (true, failed, sent, 250),
        // A stream that was cut, with usage at its beginning and without.
        (true, left, counted(told(90, 1), 30, 28), 90 + 1 + 28),
        (true, failed, counted(nothing, 30, 30), 250 + 30),
        // Errors, and what did not begin, cost nothing.
        (true, ok, refused, 0),
        (true, failed, refused, 0),
        (false, failed, sent, 0),
        (false, left, nothing, 0),
        // But a client that leaves while its answer is computed pays for that.
        (false, left, sent, 250 + 100),
        (false, left, refused, 0),
    ];
    for (started, outcome, report, spent) in cases {
        let mut drive = Drive::new(config(), 1);
        drive.set_tenants(&[entry(
            "acme",
            &serde_json::json!({"tokens_per_minute": LIMIT}),
        )]);
        let body = Digest {
            prompt_bytes: BYTES,
            max_tokens: Some(100),
            ..digest("m", &[])
        };
        let (id, ..) = pushed(&drive.submit_as(asks("acme"), body));
        if started {
            drive.first_byte(id);
        }
        drive.end_with(id, outcome, report);
        let used = drive.used("acme", "m");
        assert_eq!(used["charged_tokens"], spent, "{report:?}");
    }
}

#[test]
fn a_stream_that_is_left_costs_its_events_of_as_many_tokens_as_were_asked_for() {
    let sent = Report {
        sent: true,
        ..Report::default()
    };
    let events = |events, events_since_usage| Report {
        streamed: true,
        events,
        events_since_usage,
        ..sent
    };
    let told = |since| Report {
        usage: told(90, 10).usage,
        ..events(30, since)
    };
    for (event_tokens, tokens_max, report, spent) in [
        // Before its first byte, a stream has cost its prompt.
        (1, Some(100), sent, 250),
        (1, Some(100), events(30, 30), 250 + 30),
        (5, Some(100), events(4, 4), 250 + 20),
        // No more than the answer may have, unless there are more events.
        (1_000, Some(100), events(4, 4), 250 + 100),
        (1_000, Some(100), events(130, 130), 250 + 130),
        // Or should have, where it has no bound.
        (u32::MAX, None, events(4, 4), 250 + 200),
        (1_000, Some(100), told(2), 90 + 10 + 90),
    ] {
        let config = Config {
            output_tokens: 200,
            ..config()
        };
        let mut drive = Drive::new(config, 1);
        let limit = serde_json::json!({"tokens_per_minute": LIMIT});
        drive.set_tenants(&[entry("acme", &limit)]);
        let body = Digest {
            prompt_bytes: BYTES,
            stream: true,
            max_tokens: tokens_max,
            event_tokens,
            ..digest("m", &[])
        };
        let (id, ..) = pushed(&drive.submit_as(asks("acme"), body));
        if report.streamed {
            drive.first_byte(id);
        }
        drive.end_with(id, Outcome::ClientLeft, report);
        let used = drive.used("acme", "m");
        assert_eq!(used["charged_tokens"], spent, "{event_tokens} {report:?}");
    }
}

#[test]
fn a_client_that_leaves_the_hold_has_used_no_tokens() {
    let mut drive = Drive::new(config(), 1);
    drive.set_tenants(&[entry(
        "acme",
        &serde_json::json!({"tokens_per_minute": LIMIT}),
    )]);
    drive.submit("m"); // takes the only place
    let body = Digest {
        prompt_bytes: BYTES,
        ..digest("m", &[])
    };
    assert_eq!(drive.submit_as(asks("acme"), body), [hold(2)]);
    let sent = Report {
        sent: true,
        ..Report::default()
    };
    drive.end_with(2, Outcome::ClientLeft, sent);
    assert_eq!(drive.used("acme", "m")["charged_tokens"], 0);
}

/// Requests that a tenant may begin at once.
fn remaining(drive: &mut Drive) -> u64 {
    drive.tick_at(drive.now);
    let standing = drive.router.standing(Tenant::Named("acme")).unwrap();
    let lines = String::from_utf8(standing.lines()).unwrap();
    let line = lines
        .lines()
        .find_map(|line| line.strip_prefix("x-ratelimit-remaining-requests: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_request_that_is_refused_before_any_attempt_is_none() {
    let limited = Config {
        hold_timeout_ns: 5 * S,
        attempts_max: 1,
        hold_len_max: 2,
        hold_tenant_len_max: Some(2),
        ..config()
    };
    let mut drive = Drive::new(limited, 1);
    let minutely = serde_json::json!({"requests_per_minute": 12});
    drive.set_tenants(&[entry("acme", &minutely)]);
    let asked = |drive: &mut Drive| drive.submit_as(asks("acme"), digest("m", &[]));
    let (first, ..) = pushed(&asked(&mut drive));
    for _ in 0..2 {
        assert!(matches!(asked(&mut drive)[..], [Effect::Hold(_)]));
    }
    assert_eq!(remaining(&mut drive), 9);
    // The hold is full.
    assert_eq!(rejected(&asked(&mut drive)).status, 503);
    assert_eq!(remaining(&mut drive), 9);
    // One leaves by itself, one at the end of its time there.
    drive.end(2, Outcome::ClientLeft);
    assert_eq!(remaining(&mut drive), 9);
    let at = drive.now + 5 * S;
    let effects = drive.tick_at(at);
    assert!(effects.contains(&Effect::Expire(RequestId(3))));
    // One is given back, and one has come in the time.
    assert_eq!(remaining(&mut drive), 11);
    let effects = drive.retry(first, Failure::Status(500), true);
    assert!(matches!(effects[..], [Effect::Reject(_)]), "{effects:?}");
    assert_eq!(remaining(&mut drive), 11);
    assert_eq!(usage(&drive.router, "acme")["in_flight"], 0);
}

#[test]
fn what_writes_no_answer_is_charged_its_prompt_and_what_needs_no_model_nothing() {
    for (route, predicted, spent) in [
        (Route::Embeddings, 250, 90),
        (Route::Tokenize, 0, 0),
        (Route::ChatCompletions, 350, 90 + 12),
    ] {
        let mut drive = Drive::new(config(), 1);
        drive.set_tenants(&[entry(
            "acme",
            &serde_json::json!({"tokens_per_minute": LIMIT}),
        )]);
        let asked = Ask {
            route,
            ..asks("acme")
        };
        let body = Digest {
            prompt_bytes: BYTES,
            max_tokens: Some(100),
            ..digest("m", &[])
        };
        let (id, ..) = pushed(&drive.submit_as(asked, body));
        assert_eq!(drive.used("acme", "m")["charged_tokens"], predicted);
        drive.first_byte(id);
        let completion_tokens = route.generates().then_some(12);
        let usage = Usage {
            completion_tokens,
            ..told(90, 0).usage
        };
        drive.end_with(
            id,
            Outcome::Ok,
            Report {
                usage,
                ..Report::default()
            },
        );
        assert_eq!(drive.used("acme", "m")["charged_tokens"], spent);
    }
}
