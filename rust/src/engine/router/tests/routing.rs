//! Who may serve what: models, replicas, stored responses, prefixes.

use super::*;

fn stored(route: Route, path: &'static [u8]) -> (Ask<'static>, Digest) {
    (Ask { path, ..ask(route) }, Digest::default())
}

/// Replica 0 made the response `resp_1`; both replicas are idle.
fn one_response() -> Drive {
    let mut drive = Drive::new(config(), 2);
    drive.drain(1, true);
    assert_eq!(pushed(&drive.submit("m")), (1, 0, 1));
    drive.drain(1, false);
    drive.call(|router, now, out| router.first_byte(RequestId(1), Some("resp_1"), now, out));
    drive.complete(1);
    drive
}

fn follow_up(response: &str) -> Digest {
    Digest {
        previous_response_id: Some(response.to_owned()),
        ..digest("m", &[])
    }
}

#[test]
fn an_unknown_model_is_a_404_that_names_the_known_ones() {
    let mut drive = Drive::new(config(), 2);
    drive.set_models(1, &["m", "lora-a"]);
    let effects = drive.submit("gpt-9");
    let reject = rejected(&effects);
    assert_eq!((reject.status, reject.code), (404, "model_not_found"));
    assert_eq!(
        reject.message,
        "The model `gpt-9` does not exist. Known models: lora-a, m."
    );
}

#[test]
fn a_404_repeats_and_names_only_so_much() {
    let mut drive = Drive::new(config(), 1);
    let names: Vec<String> = (0..100).map(|n| format!("model-{n:03}")).collect();
    drive.set_models(0, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let effects = drive.submit(&"x".repeat(100_000));
    let message = &rejected(&effects).message;
    assert!(message.len() < 1_000, "{}", message.len());
    assert!(message.ends_with("model-019 and more."), "{message}");
}

#[test]
fn while_no_replica_has_told_its_models_the_client_is_to_come_back() {
    let mut drive = Drive::new(config(), 0);
    drive.set_replicas([0]);
    drive.now += 10 * S;
    drive.observe(0, idle());
    let effects = drive.submit("m");
    let reject = rejected(&effects);
    assert_eq!(
        (reject.status, reject.code, reject.retry_after_s),
        (503, "no_replica_ready", Some(1))
    );
    drive.set_models(0, &["m"]);
    assert_eq!(pushed(&drive.submit("m")), (2, 0, 1));
}

#[test]
fn requests_go_only_where_their_model_is_served() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        3,
    );
    drive.set_models(2, &["n"]);
    for _ in 0..20 {
        assert_eq!(pushed(&drive.submit("n")).1, 2);
        assert!(pushed(&drive.submit("m")).1 < 2);
    }
}

#[test]
fn an_adapter_that_is_unloaded_is_unknown_again_and_leaves_nothing_behind() {
    let mut drive = Drive::new(config(), 1);
    for round in 0..10 {
        let adapter = format!("lora-{round}");
        drive.set_models(0, &["m", &adapter]);
        let (id, ..) = pushed(&drive.submit(&adapter));
        drive.set_models(0, &["m"]);
        drive.now += config().model_gone_ns;
        drive.observe(0, idle());
        assert_eq!(rejected(&drive.submit(&adapter)).status, 404);
        drive.complete(id);
    }
    assert_eq!(drive.router.fleet.models().count(), 1);
}

#[test]
fn models_are_the_union_over_ready_replicas_with_the_smallest_length() {
    let mut drive = Drive::new(config(), 2);
    let both = [("m".to_owned(), Some(100)), ("n".to_owned(), None)];
    drive.call(|router, now, out| {
        router.set_listing(ReplicaId(1), ModelList::Whole(&both), now, out);
    });
    assert_eq!(
        drive.router.models(Tenant::Nobody),
        [("m", Some(100)), ("n", None)]
    );
    drive.drain(1, true);
    assert_eq!(drive.router.models(Tenant::Nobody), [("m", Some(4_096))]);
    drive.drain(0, true);
    assert_eq!(drive.router.models(Tenant::Nobody), []);
    assert!(!drive.router.ready());
}

#[test]
fn a_draining_replica_gets_nothing_new_and_finishes_what_it_has() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        2,
    );
    drive.drain(0, true);
    for _ in 0..4 {
        assert_eq!(pushed(&drive.submit("m")).1, 1);
    }
    drive.drain(1, true);
    assert_eq!(rejected(&drive.submit("m")).code, "no_replica_ready");
    drive.first_byte(1);
    drive.complete(1);
    drive.drain(0, false);
    assert_eq!(pushed(&drive.submit("m")).1, 0);
}

#[test]
fn undraining_starts_what_is_held() {
    let mut drive = Drive::new(config(), 2);
    drive.drain(1, true);
    drive.submit("m");
    assert_eq!(drive.submit("m"), [hold(2)]);
    assert_eq!(pushed(&drive.drain(1, false)), (2, 1, 1));
}

#[test]
fn a_removed_replica_is_forgotten_when_its_last_request_ends() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    drive.submit("m");
    drive.submit("m");
    drive.set_replicas([1]);
    drive.now += 10 * S;
    assert_eq!(drive.router.gauges().len(), 1);
    assert_eq!(rejected(&drive.submit("m")).code, "no_replica_ready");
    assert_eq!(drive.router.in_flight(), 2);
    drive.complete(1);
    assert_eq!(drive.router.fleet.len(), 2);
    assert_eq!(
        rejected(&drive.retry(2, Failure::Reset, true)).code,
        "upstream_reset"
    );
    assert_eq!(drive.router.fleet.len(), 1);
}

#[test]
fn a_replica_that_is_taken_back_before_its_requests_ended_serves_again() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    drive.submit("m");
    drive.set_replicas([]);
    drive.set_replicas([0]);
    drive.set_models(0, &["m"]);
    assert_eq!(pushed(&drive.submit("m")), (2, 0, 1));
}

#[test]
fn a_new_replica_starts_what_is_held_once_it_is_ready() {
    let mut drive = Drive::new(config(), 1);
    drive.submit("m");
    assert_eq!(drive.submit("m"), [hold(2)]);
    assert_eq!(drive.set_replicas([0, 1]), []);
    assert_eq!(drive.set_models(1, &["m"]), []);
    assert_eq!(pushed(&drive.observe(1, idle())), (2, 1, 1));
}

#[test]
fn a_follow_up_goes_to_the_replica_that_made_the_response() {
    for _ in 0..8 {
        let mut drive = one_response();
        let effects = drive.submit_as(ask(Route::Responses), follow_up("resp_1"));
        assert_eq!(pushed(&effects), (2, 0, 1));
        // It is busy now: the next one waits for it, though the other replica is idle.
        assert_eq!(
            drive.submit_as(ask(Route::Responses), follow_up("resp_1")),
            [hold(3)]
        );
        assert_eq!(pushed(&drive.submit("m")), (4, 1, 1));
        assert_eq!(pushed(&drive.first_byte(2)), (3, 0, 1));
    }
}

#[test]
fn a_response_nobody_is_known_to_have_made_is_a_404() {
    let mut drive = one_response();
    let effects = drive.submit_as(ask(Route::Responses), follow_up("resp_2"));
    assert_eq!(
        (rejected(&effects).status, rejected(&effects).code),
        (404, "response_not_found")
    );
    let (ask, digest) = stored(Route::ResponseById, b"/v1/responses/resp_2");
    assert_eq!(rejected(&drive.submit_as(ask, digest)).status, 404);
}

#[test]
fn a_response_of_another_tenant_is_one_that_nobody_made() {
    let mut drive = Drive::new(config(), 1);
    let by = |tenant, route, path| Ask {
        path,
        tenant,
        ..ask(route)
    };
    let (a, b) = (Tenant::Named("a"), Tenant::Named("b"));
    let made = by(a, Route::Responses, b"");
    assert_eq!(pushed(&drive.submit_as(made, digest("m", &[]))), (1, 0, 1));
    drive.call(|router, now, out| router.first_byte(RequestId(1), Some("resp_1"), now, out));
    drive.complete(1);
    let asks = |tenant| {
        [
            (by(tenant, Route::Responses, b""), follow_up("resp_1")),
            (
                by(tenant, Route::ResponseById, b"/v1/responses/resp_1"),
                Digest::default(),
            ),
            (
                by(
                    tenant,
                    Route::ResponseCancel,
                    b"/v1/responses/resp_1/cancel",
                ),
                Digest::default(),
            ),
        ]
    };
    for other in [b, Tenant::Nobody, Tenant::Unknown] {
        for (ask, digest) in asks(other) {
            let reject = drive.submit_as(ask, digest);
            let nobodys = Refusal::response_unknown().of(rejected(&reject).request);
            assert_eq!(rejected(&reject), &nobodys, "{other:?} {:?}", ask.route);
        }
    }
    for (ask, digest) in asks(a) {
        pushed(&drive.submit_as(ask, digest));
        drive.complete(drive.last_id);
    }
}

#[test]
fn a_response_belongs_to_its_credential_where_owners_are_isolated() {
    for isolates in [false, true] {
        let mut drive = Drive::new(config(), 1);
        if isolates {
            drive.router.digest_config_mut().isolate(&[1; 32]);
        }
        let by = |credential| Ask {
            credential,
            ..ask(Route::Responses)
        };
        let made = by(Some(&b"Bearer a"[..]));
        assert_eq!(pushed(&drive.submit_as(made, digest("m", &[]))), (1, 0, 1));
        drive.call(|router, now, out| router.first_byte(RequestId(1), Some("resp_1"), now, out));
        drive.complete(1);
        for other in [Some(&b"Bearer b"[..]), None] {
            let effects = drive.submit_as(by(other), follow_up("resp_1"));
            let refused = matches!(effects[..], [Effect::Reject(_)]);
            assert_eq!(refused, isolates, "{other:?}");
            if !refused {
                drive.complete(drive.last_id);
            }
        }
        pushed(&drive.submit_as(made, follow_up("resp_1")));
    }
}

#[test]
fn a_stored_response_is_asked_for_where_it_was_made_even_while_that_drains() {
    let mut drive = one_response();
    drive.drain(0, true);
    let (ask, digest) = stored(Route::ResponseById, b"/v1/responses/resp_1");
    assert_eq!(pushed(&drive.submit_as(ask, digest)), (2, 0, 1));
    let (ask, digest) = stored(Route::ResponseCancel, b"/v1/responses/resp_1/cancel");
    assert_eq!(pushed(&drive.submit_as(ask, digest)), (3, 0, 1));
}

#[test]
fn follow_ups_that_wait_for_a_replica_are_refused_when_it_is_removed() {
    let mut drive = one_response();
    drive.submit_as(ask(Route::Responses), follow_up("resp_1"));
    assert_eq!(
        drive.submit_as(ask(Route::Responses), follow_up("resp_1")),
        [hold(3)]
    );
    let effects = drive.set_replicas([1]);
    let reject = rejected(&effects);
    assert_eq!((reject.request, reject.status), (RequestId(3), 404));
    let effects = drive.submit_as(ask(Route::Responses), follow_up("resp_1"));
    assert_eq!(rejected(&effects).code, "response_not_found");
}

#[test]
fn usage_teaches_bytes_per_token_and_is_counted_against_the_prediction() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    let prompt: Vec<u64> = (1..101).collect();
    let usage = Usage {
        prompt_tokens: Some(3_200),
        cached_tokens: Some(0),
        completion_tokens: Some(9),
    };
    for _ in 0..100 {
        let (id, ..) = pushed(&drive.submit_as(ask(Route::ChatCompletions), digest("m", &prompt)));
        drive.call(|router, now, out| {
            let report = Report {
                usage,
                ..Report::default()
            };
            router.complete(RequestId(id), Outcome::Ok, report, now, out);
        });
    }
    let model = drive.router.fleet.model("m").unwrap();
    let ratio = drive.router.fleet.bytes_per_token(Some(model)).unwrap();
    assert!(
        (1.9..2.2).contains(&ratio),
        "6,400 bytes were 3,200 tokens: {ratio}"
    );
    assert_eq!(drive.router.gauges()[0].prompt_tokens_total, 320_000);
    assert_eq!(
        drive.counter("cached_tokens_error"),
        drive.counter("cached_tokens_predicted")
    );
}

#[test]
fn state_shows_replicas_hold_and_tree_and_nothing_a_client_sent() {
    let mut drive = Drive::new(config(), 1);
    let keyed = Ask {
        key: Some(b"canary-key"),
        ..ask(Route::ChatCompletions)
    };
    drive.submit_as(keyed, digest("m", &[77_777]));
    drive.submit_as(keyed, digest("m", &[77_777]));
    let state = String::from_utf8(drive.router.state(drive.now).unwrap()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(json["replicas"][0]["name"], "http://replica-0");
    assert_eq!(json["replicas"][0]["closed_by"], "pending");
    assert_eq!(json["hold"]["lines"][0]["requests"], 1);
    assert_eq!(json["hold"]["lines"][0]["model"], "m");
    assert!(
        !state.contains("canary") && !state.contains("77777"),
        "{state}"
    );
}

#[test]
fn an_id_in_use_is_refused_and_changes_nothing() {
    let mut drive = Drive::new(config(), 1);
    drive.submit("m");
    let mut out = Vec::new();
    let again = drive.router.place(
        RequestId(1),
        &ask(Route::ChatCompletions),
        &mut digest("m", &[]),
        drive.now,
        &mut out,
    );
    assert_eq!((again, out), (Err(AlreadyKnown(RequestId(1))), vec![]));
    assert_eq!(drive.router.in_flight(), 1);
}

#[test]
fn the_header_names_a_session_before_the_body_does() {
    let config = Config {
        push: PushRule::Blind,
        policy: Policy::Ring,
        ..config()
    };
    let mut drive = Drive::new(config, 16);
    let session = |drive: &Drive, name: &[u8]| drive.router.digest_config().key_of(name);
    let keyed = |key| Ask {
        key,
        ..ask(Route::ChatCompletions)
    };
    let body = |key| Digest {
        key,
        ..digest("m", &[])
    };
    let names: [&'static [u8]; 6] = [b"ann", b"bob", b"cat", b"dan", b"eve", b"fay"];
    for name in names {
        let key = session(&drive, name);
        let (_, by_body, _) = pushed(&drive.submit_as(keyed(None), body(Some(key))));
        let other = session(&drive, b"another");
        let effects = drive.submit_as(keyed(Some(name)), body(Some(other)));
        assert_eq!(pushed(&effects).1, by_body);
    }
}
