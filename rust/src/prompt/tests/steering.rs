//! Bodies that steer an engine: refused, or made to say nothing.

use super::*;
use crate::http::steer::{FIELDS, Fate};

fn by(trusted: bool, route: Route, body: &str) -> Result<Digest, RequestError> {
    let envelope = Envelope {
        trusted,
        ..Envelope::new(route, None)
    };
    digest(
        &envelope,
        body.as_bytes(),
        &config(),
        &mut Scratch::default(),
    )
}

#[test]
fn a_stranger_cannot_choose_the_id_of_a_response_that_is_stored() {
    let refused = |route, member: &str| {
        let body = format!(r#"{{"model":"m","input":"x",{member}}}"#);
        assert!(by(true, route, &body).is_ok(), "{body}");
        by(false, route, &body)
            .err()
            .map(|error| (error.code, error.param))
    };
    let named = Some(("untrusted_field", Some("request_id".to_owned())));
    for member in [r#""request_id":"resp_1""#, r#""reque\u0073t_id":"resp_1""#] {
        assert_eq!(refused(Route::Responses, member), named, "{member}");
        assert_eq!(refused(Route::ChatCompletions, member), None, "{member}");
    }
    assert_eq!(refused(Route::Responses, r#""request_id":null"#), None);
}

#[test]
fn a_field_that_is_refused_is_found_wherever_an_engine_may_read_it() {
    for rule in FIELDS.iter().filter(|rule| rule.fate == Fate::Refused) {
        let name = rule.name;
        let escaped = format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]);
        for member in [
            format!(r#""{name}":{{"x":1}}"#),
            format!(r#""{name}":0"#),
            format!(r#""{escaped}":"x""#),
            format!(r#""{name}":null,"{name}":1"#),
            format!(r#""vllm_xargs":{{"{name}":"x"}}"#),
            format!(r#""sampling_params":{{"extra_args":{{"{name}":{{}}}}}}"#),
            format!(r#""sampling_params":{{"extra_args":{{"{escaped}":[]}}}}"#),
            format!(r#""extra_body":[[{{"a":{{"{name}":true}}}}]]"#),
        ] {
            let body = format!(r#"{{"model":"m",{member}}}"#);
            for route in [
                Route::ChatCompletions,
                Route::ChatBatch,
                Route::Messages,
                Route::Generate,
                Route::Invocations,
            ] {
                let error = by(false, route, &body).unwrap_err();
                let found = (error.status, error.code, error.param.as_deref());
                assert_eq!(found, (400, "untrusted_field", Some(name)), "{body}");
                assert!(by(true, route, &body).is_ok(), "{body}");
            }
        }
    }
}

#[test]
fn names_within_a_prompt_and_its_schemas_are_nobody_s_settings() {
    for body in [
        r#"{"model":"m","kv_transfer_params":null}"#,
        r#"{"model":"m","vllm_xargs":{"rid":null}}"#,
        r#"{"model":"m","tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"bootstrap_host":{"type":"string"}}}}}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"kv_transfer_params"}],"metadata":{"rid":"1"}}"#,
        r#"{"model":"m","response_format":{"json_schema":{"schema":{"properties":{"rid":{}}}}}}"#,
    ] {
        assert!(by(false, Route::ChatCompletions, body).is_ok(), "{body}");
    }
}

#[test]
fn a_believed_priority_passes_only_where_the_class_has_no_bound() {
    for priority in [-9, 5] {
        let body = format!(r#"{{"model":"m","priority":{priority}}}"#);
        let digest = by(true, Route::ChatCompletions, &body).unwrap();
        let changes = |highest| digest.priority_changes(true, highest).len();
        assert_eq!((changes(None), changes(Some(Class::High))), (0, 0));
        assert_eq!(
            (changes(Some(Class::Normal)), changes(Some(Class::Low))),
            (1, 1)
        );
        assert_eq!(digest.priority_changes(false, None).len(), 1);
    }
}

#[test]
fn a_priority_is_made_to_say_nothing_wherever_it_is() {
    let sent = |body: &str| {
        let digest = by(false, Route::ChatCompletions, body).unwrap();
        let edits = digest.priority_edits.iter().collect();
        String::from_utf8(edited(body.as_bytes(), edits)).unwrap()
    };
    for (body, expected) in [
        (
            r#"{"model":"m","priority":-9}"#,
            r#"{"model":"m","priority":0}"#,
        ),
        (
            r#"{"model":"m","priority":"-9","n":1}"#,
            r#"{"model":"m","priority":0,"n":1}"#,
        ),
        (
            r#"{"priorit\u0079": -9.0 ,"model":"m"}"#,
            r#"{"priorit\u0079": 0 ,"model":"m"}"#,
        ),
        (
            r#"{"model":"m","priority":7,"priority":7}"#,
            r#"{"model":"m","priority":0,"priority":0}"#,
        ),
        (
            r#"{"model":"m","priority":0}"#,
            r#"{"model":"m","priority":0}"#,
        ),
        (
            r#"{"model":"m","priority":null}"#,
            r#"{"model":"m","priority":null}"#,
        ),
    ] {
        assert_eq!(sent(body), expected);
    }
    for body in [
        r#"{"model":"m","priority":null,"priority":-9}"#,
        r#"{"model":"m","priority":0,"priority":-9}"#,
    ] {
        assert_eq!(
            by(false, Route::ChatCompletions, body).unwrap_err().code,
            "duplicate_key"
        );
    }
    assert_eq!(
        by(
            false,
            Route::ChatCompletions,
            r#"{"model":"m","priority":[-9]}"#
        )
        .unwrap_err()
        .code,
        "invalid_type"
    );
}
