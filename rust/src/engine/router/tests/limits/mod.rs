//! What tenants may use, what they are charged, and how balancers share their limits.

mod charges;
mod oracle;
mod siblings;

use serde_json::Value;

use super::*;

/// Tokens per minute, so that each millisecond brings one.
const LIMIT: u64 = 60_000;
/// Of a prompt. What engines report of it is so far off that nothing is learned from that.
const BYTES: usize = 1_000;

pub(super) fn asks(tenant: &'static str) -> Ask<'static> {
    Ask {
        tenant: Tenant::Named(tenant),
        ..ask(Route::ChatCompletions)
    }
}

/// The terms of one tenant: these, and no other.
pub(super) fn entry(name: &str, terms: &Value) -> Value {
    let mut entry = serde_json::json!({"name": name, "weight": 1});
    let fields = terms.as_object().unwrap().clone();
    entry.as_object_mut().unwrap().extend(fields);
    entry
}

impl Drive {
    pub(super) fn set_tenants(&mut self, tenants: &[Value]) {
        let terms = serde_json::json!({"tenants": tenants}).to_string();
        self.call(|router, now, _| router.set_tenants(terms.as_bytes(), now).unwrap());
    }

    /// The figures of a tenant for one model.
    pub(super) fn used(&self, tenant: &str, model: &str) -> Value {
        let used = usage(&self.router, tenant);
        let models = used["models"].as_array().unwrap();
        let found = models.iter().find(|of| of["model"] == model);
        found.cloned().unwrap_or_default()
    }

    pub(super) fn end_with(
        &mut self,
        id: u64,
        outcome: Outcome,
        report: Report<'_>,
    ) -> Vec<Effect> {
        self.call(|router, now, out| router.complete(RequestId(id), outcome, report, now, out))
    }
}

/// All that is told of a tenant.
fn usage(router: &Router, tenant: &str) -> Value {
    let all: Value = serde_json::from_slice(&router.tenant_usage().unwrap()).unwrap();
    let tenants = all["tenants"].as_array().unwrap();
    let found = tenants.iter().find(|of| of["name"] == tenant);
    found.cloned().unwrap_or_default()
}

pub(super) fn told(prompt: u32, completion: u32) -> Report<'static> {
    Report {
        usage: Usage {
            prompt_tokens: Some(prompt),
            completion_tokens: Some(completion),
            ..Usage::default()
        },
        streamed: true,
        ..Report::default()
    }
}

#[test]
fn a_tenant_over_its_requests_per_minute_is_told_when_to_come_back() {
    let mut drive = Drive::new(config(), 2);
    drive.set_tenants(&[entry(
        "acme",
        &serde_json::json!({"requests_per_minute": 2}),
    )]);
    let push = |drive: &mut Drive| {
        let (id, ..) = pushed(&drive.submit_as(asks("acme"), digest("m", &[])));
        drive.first_byte(id);
        drive.complete(id);
    };
    push(&mut drive);
    push(&mut drive);
    let effects = drive.submit_as(asks("acme"), digest("m", &[]));
    let refused = rejected(&effects);
    assert_eq!((refused.status, refused.code), (429, "rate_limit_exceeded"));
    assert_eq!(refused.retry_after_s, Some(30));
    assert!(
        refused.message.contains("2 requests per minute"),
        "{}",
        refused.message
    );
    let standing = drive.router.standing(Tenant::Named("acme")).unwrap();
    let lines = String::from_utf8(standing.lines()).unwrap();
    assert!(
        lines.contains("x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 0\r\n")
    );
    assert!(!lines.contains("tokens"));
    assert_eq!(drive.counter("rate_limited"), 1);
    assert_eq!(drive.used("acme", "m")["refused"], 1);
    // Others are not concerned, and time helps.
    pushed(&drive.submit("m"));
    drive.now += 30 * S;
    pushed(&drive.submit_as(asks("acme"), digest("m", &[])));
}

#[test]
fn tokens_are_charged_by_prediction_and_settled_by_usage() {
    let mut drive = Drive::new(config(), 1);
    drive.set_tenants(&[entry(
        "acme",
        &serde_json::json!({"tokens_per_minute": 60_000}),
    )]);
    let body = |bytes: usize, choices: u32| Digest {
        prompt_bytes: bytes,
        max_tokens: Some(100 * choices),
        choices,
        ..digest("m", &[])
    };
    let (id, ..) = pushed(&drive.submit_as(asks("acme"), body(400, 3)));
    assert_eq!(drive.used("acme", "m")["charged_tokens"], 100 + 300);
    drive.first_byte(id);
    drive.end_with(id, Outcome::Ok, told(90, 12));
    let used = drive.used("acme", "m");
    assert_eq!(used["charged_tokens"], 102);
    assert_eq!(
        (&used["prompt_tokens"], &used["completion_tokens"]),
        (&90.into(), &12.into())
    );
    assert_eq!(usage(&drive.router, "acme")["in_flight"], 0);
    // More than is left in a minute is let in when nothing has been used, and is paid back.
    drive.now += 60 * S;
    let (id, ..) = pushed(&drive.submit_as(asks("acme"), body(480_000, 1)));
    drive.first_byte(id);
    drive.end_with(id, Outcome::Ok, told(120_000, 0));
    let effects = drive.submit_as(asks("acme"), body(400, 1));
    assert_eq!(rejected(&effects).code, "rate_limit_exceeded");
    assert_eq!(rejected(&effects).retry_after_s, Some(61));
}

#[test]
fn no_more_requests_than_agreed_are_under_way_held_ones_included() {
    let mut drive = Drive::new(config(), 1);
    drive.set_tenants(&[entry("acme", &serde_json::json!({"concurrent": 2}))]);
    let (first, ..) = pushed(&drive.submit_as(asks("acme"), digest("m", &[1])));
    assert_eq!(drive.submit_as(asks("acme"), digest("m", &[2])), [hold(2)]);
    let effects = drive.submit_as(asks("acme"), digest("m", &[3]));
    assert_eq!(rejected(&effects).code, "rate_limit_exceeded");
    assert_eq!(
        rejected(&effects).retry_after_s,
        Some(config().retry_after_s)
    );
    // Who has no limit per minute has no lines.
    assert_eq!(drive.router.standing(Tenant::Named("acme")), None);
    drive.end(first, Outcome::ClientLeft);
    assert_eq!(usage(&drive.router, "acme")["in_flight"], 1);
    assert_eq!(drive.submit_as(asks("acme"), digest("m", &[4])), [hold(4)]);
}

#[test]
fn a_model_that_is_not_allowed_is_refused_alike_whether_it_exists_or_not() {
    let mut drive = Drive::new(config(), 1);
    drive.set_models(0, &["m", "secret"]);
    drive.set_tenants(&[entry("acme", &serde_json::json!({"models": ["m", "gone"]}))]);
    let refusal = |drive: &mut Drive, model: &str| {
        let effects = drive.submit_as(asks("acme"), digest(model, &[]));
        let refused = rejected(&effects).clone();
        (refused.status, refused.code, refused.message)
    };
    let secret = refusal(&mut drive, "secret");
    assert_eq!((secret.0, secret.1), (403, "model_not_allowed"));
    assert_eq!(secret, refusal(&mut drive, "unheard of"));
    assert_eq!(secret, refusal(&mut drive, ""));
    assert_eq!(refusal(&mut drive, "gone").0, 404);
    pushed(&drive.submit_as(asks("acme"), digest("m", &[])));
    let models = |tenant| drive.router.models(tenant);
    let names = |tenant| {
        models(tenant)
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(Tenant::Named("acme")), ["m"]);
    assert_eq!(names(Tenant::Nobody), ["m", "secret"]);
    assert_eq!(
        (
            drive.counter("model_refused"),
            drive.counter("residency_refused")
        ),
        (3, 0)
    );
    assert_eq!(drive.used("acme", "other")["refused"], 3);
}

#[test]
fn a_request_has_no_higher_class_than_its_tenant() {
    let mut drive = Drive::new(config(), 1);
    drive.set_tenants(&[
        entry("acme", &serde_json::json!({"class": "low"})),
        entry("free", &serde_json::json!({})),
    ]);
    let tenants = drive.router.requests.tenants();
    let class = |tenant, class| tenants.class(Tenant::Named(tenant), class);
    assert_eq!(class("acme", Class::High), Class::Low);
    assert_eq!(class("free", Class::High), Class::High);
    assert_eq!(class("nobody", Class::Normal), Class::Normal);
    drive.submit("m"); // takes the only place
    let urgent = Ask {
        class: Some(b"high"),
        trusted: true,
        ..asks("acme")
    };
    assert_eq!(drive.submit_as(urgent, digest("m", &[])), [hold(2)]);
    let state: Value = serde_json::from_slice(&drive.router.state(drive.now).unwrap()).unwrap();
    assert!(
        state["hold"].to_string().contains("low"),
        "{}",
        state["hold"]
    );
}

#[test]
fn what_a_peer_forwards_has_been_charged_there() {
    let mut drive = Drive::new(config(), 2);
    drive.set_tenants(&[entry(
        "acme",
        &serde_json::json!({"requests_per_minute": 1, "models": ["other"]}),
    )]);
    let forwarded = Forwarded {
        hop: 1,
        attempts_left: 1,
        deadline_ns: None,
        origin: None,
    };
    let forward = Ask {
        forwarded: Some(forwarded),
        ..asks("acme")
    };
    for _ in 0..2 {
        pushed(&drive.submit_as(forward, digest("m", &[])));
    }
    assert_eq!(usage(&drive.router, "acme")["in_flight"], 0);
}

#[test]
fn the_usage_of_tenants_without_terms_is_counted_and_bounded() {
    let mut drive = Drive::new(config(), 2);
    let guest = |drive: &mut Drive, name: &str| {
        let asked = Ask {
            tenant: Tenant::Named(name),
            ..ask(Route::ChatCompletions)
        };
        let (id, ..) = pushed(&drive.submit_as(asked, digest("m", &[])));
        drive.first_byte(id);
        drive.end_with(id, Outcome::Ok, told(9, 3));
    };
    // Where no tenant has terms nothing is counted.
    guest(&mut drive, "early");
    assert_eq!(usage(&drive.router, "early"), Value::Null);
    let host = [entry(
        "acme",
        &serde_json::json!({"requests_per_minute": 5}),
    )];
    drive.set_tenants(&host);
    for n in 0..1_005 {
        guest(&mut drive, &format!("t{n}"));
    }
    guest(&mut drive, "t7");
    let seen = usage(&drive.router, "t7");
    assert_eq!(
        (&seen["weight"], &seen["requests"], &seen["in_flight"]),
        (&1.into(), &Value::Null, &0.into())
    );
    assert_eq!(drive.used("t7", "m")["requests"], 2);
    assert_eq!(drive.used("t7", "m")["charged_tokens"], 24);
    assert_eq!(drive.used("other", "m")["requests"], 5);
    assert_eq!(usage(&drive.router, "t1004"), Value::Null);
    assert_eq!(drive.router.standing(Tenant::Named("t7")), None);
    // They outlast another reading of the file, and may be in it.
    let both = [
        host[0].clone(),
        entry("t7", &serde_json::json!({"requests_per_minute": 1})),
    ];
    drive.set_tenants(&both);
    assert_eq!(drive.used("t8", "m")["requests"], 1);
    assert_eq!(drive.used("t7", "m")["requests"], 2);
    guest(&mut drive, "t7");
    let effects = drive.submit_as(asks("t7"), digest("m", &[]));
    assert_eq!(rejected(&effects).code, "rate_limit_exceeded");
    // Who was in it and goes on has no limit.
    drive.set_tenants(&host);
    drive.submit_as(asks("t7"), digest("m", &[]));
    assert_eq!(drive.used("t7", "m")["requests"], 1);
    drive.set_tenants(&[]);
    assert_eq!(usage(&drive.router, "t8"), Value::Null);
    assert_eq!(usage(&drive.router, "other"), Value::Null);
}

#[test]
fn other_terms_keep_what_has_been_charged() {
    let mut drive = Drive::new(config(), 2);
    let terms = |limit: u64| {
        [entry(
            "acme",
            &serde_json::json!({"requests_per_minute": limit}),
        )]
    };
    drive.set_tenants(&terms(2));
    for _ in 0..2 {
        pushed(&drive.submit_as(asks("acme"), digest("m", &[])));
    }
    drive.set_tenants(&terms(3));
    assert_eq!(drive.submit_as(asks("acme"), digest("m", &[])), [hold(3)]);
    let effects = drive.submit_as(asks("acme"), digest("m", &[]));
    assert_eq!(rejected(&effects).code, "rate_limit_exceeded");
    // Without terms nobody is bound, and what is under way ends as it should.
    drive.set_tenants(&[]);
    drive.submit_as(asks("acme"), digest("m", &[]));
    for id in 1..=3 {
        drive.end(id, Outcome::ClientLeft);
    }
    assert_eq!(usage(&drive.router, "acme")["in_flight"], 0);
    drive.set_tenants(&[]);
    assert_eq!(usage(&drive.router, "acme"), Value::Null);
}

#[test]
fn terms_that_cannot_be_read_change_nothing() {
    let mut drive = Drive::new(config(), 2);
    drive.set_tenants(&[entry(
        "acme",
        &serde_json::json!({"requests_per_minute": 1}),
    )]);
    let wrong = br#"{"tenants": [{"name": "acme", "weight": 0}]}"#;
    let error = drive.router.set_tenants(wrong, drive.now).unwrap_err();
    assert_eq!(error.to_string(), "tenants[0].weight: expected 1 to 1000");
    pushed(&drive.submit_as(asks("acme"), digest("m", &[])));
    assert_eq!(
        rejected(&drive.submit_as(asks("acme"), digest("m", &[]))).status,
        429
    );
}

#[test]
fn a_404_names_the_models_unless_some_tenant_may_not_use_them_all() {
    let mut drive = Drive::new(config(), 1);
    let message = |drive: &mut Drive| {
        let effects = drive.submit_as(asks("acme"), digest("nothing", &[]));
        let reject = rejected(&effects);
        assert_eq!(reject.status, 404);
        reject.message.clone()
    };
    drive.set_tenants(&[entry("acme", &serde_json::json!({}))]);
    assert!(message(&mut drive).contains("Known models: m."));
    drive.set_tenants(&[entry("acme", &serde_json::json!({"models": ["nothing"]}))]);
    let told = message(&mut drive);
    assert!(!told.contains("Known models"), "{told}");
}
