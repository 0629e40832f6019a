//! What tenants are charged, case by case.

use super::*;

#[test]
fn answers_are_settled_by_what_is_known_of_them() {
    let cases: [(bool, Outcome, Report<'_>, u64); 9] = [
        // An answer that came whole, as it says; one that says nothing of tokens written has none.
        (true, Outcome::Ok, told(90, 12), 102),
        (
            true,
            Outcome::Ok,
            Report {
                usage: Usage {
                    prompt_tokens: Some(90),
                    ..Usage::default()
                },
                ..Report::default()
            },
            90,
        ),
        // Nothing is said: as predicted, or as counted.
        (true, Outcome::Ok, Report::default(), 250 + 100),
        (
            true,
            Outcome::Ok,
            Report {
                streamed: true,
                events: 40,
                events_since_usage: 40,
                ..Report::default()
            },
            250 + 40,
        ),
        // A stream that was cut, with usage at its beginning and without.
        (
            true,
            Outcome::ClientLeft,
            Report {
                events: 30,
                events_since_usage: 28,
                ..told(90, 1)
            },
            90 + 1 + 28,
        ),
        (
            true,
            Outcome::ReplicaFailed,
            Report {
                streamed: true,
                events: 30,
                events_since_usage: 30,
                ..Report::default()
            },
            250 + 30,
        ),
        // Errors, and what did not begin, cost nothing.
        (
            true,
            Outcome::Ok,
            Report {
                refused: true,
                ..Report::default()
            },
            0,
        ),
        (
            true,
            Outcome::ReplicaFailed,
            Report {
                refused: true,
                ..Report::default()
            },
            0,
        ),
        (false, Outcome::ClientLeft, Report::default(), 0),
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
