//! Behaviour of [`digest`], by example: what is read from a request, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::prompt::blocks::Tail;
use crate::prompt::class::Class;

mod continuing;
mod isolation;
mod lenient;
mod prompts;
mod steering;
mod uploads;

pub(super) fn config() -> DigestConfig {
    DigestConfig::new(b"0123456789abcdef", 16, 4_096)
}

pub(super) fn read(route: Route, body: &[u8]) -> Result<Digest, RequestError> {
    digest(
        &Envelope::new(route, Some(b"application/json")),
        body,
        &config(),
        &mut Scratch::default(),
    )
}

fn read_value(route: Route, body: &Value) -> Digest {
    read(route, body.to_string().as_bytes()).unwrap()
}

fn chat(body: &str) -> Result<Digest, RequestError> {
    read(Route::ChatCompletions, body.as_bytes())
}

fn refused(body: &str) -> (u16, &'static str, Option<String>) {
    let error = chat(body).unwrap_err();
    (error.status, error.code, error.param)
}

/// What the stream says about a prompt: its hashes and what is left over.
fn prompt_of(route: Route, body: &Value) -> (Vec<u64>, Tail) {
    let digest = read_value(route, body);
    (digest.blocks, digest.tail)
}

#[test]
fn settings_are_read_from_a_chat() {
    let body = json!({
        "model": "llama", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 20,
        "n": 3, "priority": -4, "service_tier": "flex", "user": "ada", "store": true,
        "messages": [{"role": "user", "content": "hello"}],
    });
    let digest = read_value(Route::ChatCompletions, &body);
    assert_eq!(digest.model, "llama");
    assert!(digest.stream && digest.include_usage && !digest.retry_safe);
    assert_eq!((digest.max_tokens, digest.class), (Some(60), Class::High));
    assert_eq!(digest.key, Some(config().key_of(b"ada")));
    assert_eq!(digest.prompt_bytes, "\u{1}user\u{1}hello".len());
}

#[test]
fn absent_and_null_settings_are_alike() {
    let bare = read_value(Route::ChatCompletions, &json!({"model": "m"}));
    let nulls = json!({
        "model": "m", "stream": null, "stream_options": null, "max_tokens": null, "n": null, "user": null,
        "metadata": null, "priority": null, "service_tier": null, "cache_salt": null, "store": null, "background": null,
        "tools": null, "messages": null, "chat_template_kwargs": null, "reasoning_effort": null,
    });
    assert_eq!(read_value(Route::ChatCompletions, &nulls), bare);
    assert!(bare.retry_safe && !bare.stream && bare.key.is_none() && bare.max_tokens.is_none());
}

#[test]
fn the_class_is_the_priority_s_where_that_says_something_else_the_tier_s() {
    let class = |body: Value| read_value(Route::ChatCompletions, &body).class;
    assert_eq!(class(json!({"model": "m"})), Class::Normal);
    assert_eq!(class(json!({"model": "m", "priority": 3})), Class::Low);
    assert_eq!(
        class(json!({"model": "m", "service_tier": "priority"})),
        Class::High
    );
    let both = json!({"model": "m", "priority": 0, "service_tier": "flex"});
    assert_eq!(class(both), Class::Low);
    assert_eq!(
        class(json!({"model": "m", "service_tier": "auto"})),
        Class::Normal
    );
    assert_eq!(
        class(json!({"model": "m", "service_tier": 1})),
        Class::Normal
    );
}

#[test]
fn the_key_is_the_first_of_session_cache_key_user_and_user_id() {
    let key = |body: Value| read_value(Route::ChatCompletions, &body).key;
    let of = |text: &str| Some(config().key_of(text.as_bytes()));
    let all = json!({"model": "m", "metadata": {"user_id": "d"}, "user": "c", "prompt_cache_key": "b", "session": "a"});
    assert_eq!(key(all), of("a"));
    assert_eq!(
        key(
            json!({"model": "m", "metadata": {"user_id": "d"}, "user": "c", "prompt_cache_key": "b"})
        ),
        of("b")
    );
    assert_eq!(
        key(json!({"model": "m", "metadata": {"user_id": "d"}, "user": "c"})),
        of("c")
    );
    assert_eq!(
        key(json!({"model": "m", "metadata": {"user_id": "d"}, "user": ""})),
        of("d")
    );
    assert_eq!(
        key(json!({"model": "m", "session": {"of": "someone else"}})),
        None
    );
}

#[test]
fn every_kind_of_answer_limit_is_read() {
    let limit = |route, body: Value| read_value(route, &body).max_tokens;
    assert_eq!(
        limit(
            Route::ChatCompletions,
            json!({"model": "m", "max_tokens": 9, "max_completion_tokens": 7})
        ),
        Some(7)
    );
    assert_eq!(
        limit(
            Route::Responses,
            json!({"model": "m", "max_output_tokens": 5})
        ),
        Some(5)
    );
    assert_eq!(
        limit(Route::Messages, json!({"model": "m", "max_tokens": 4.0})),
        Some(4)
    );
    let generate = json!({"model": "m", "sampling_params": {"max_tokens": 6, "n": 2}});
    assert_eq!(limit(Route::Generate, generate), Some(12));
    assert_eq!(
        limit(
            Route::ChatCompletions,
            json!({"model": "m", "max_tokens": 5_000_000_000_u64, "n": 2})
        ),
        Some(u32::MAX)
    );
}

#[test]
fn responses_that_are_stored_or_run_in_the_background_are_not_safe_to_send_twice() {
    let safe = |body: Value| read_value(Route::Responses, &body).retry_safe;
    assert!(safe(json!({"model": "m", "input": "x"})));
    assert!(safe(
        json!({"model": "m", "input": "x", "store": false, "background": false})
    ));
    assert!(!safe(json!({"model": "m", "input": "x", "store": true})));
    assert!(!safe(
        json!({"model": "m", "input": "x", "background": true})
    ));
    let next = read_value(
        Route::Responses,
        &json!({"model": "m", "previous_response_id": "resp_1"}),
    );
    assert_eq!(next.previous_response_id.as_deref(), Some("resp_1"));
}

#[test]
fn wrong_types_are_refused_by_name() {
    for (body, param) in [
        (r#"{"model":7}"#, "model"),
        (r#"{"model":"m","stream":"maybe"}"#, "stream"),
        (
            r#"{"model":"m","stream_options":{"include_usage":2}}"#,
            "stream_options.include_usage",
        ),
        (r#"{"model":"m","stream_options":[]}"#, "stream_options"),
        (r#"{"model":"m","max_tokens":"twenty"}"#, "max_tokens"),
        (r#"{"model":"m","max_tokens":"inf"}"#, "max_tokens"),
        (r#"{"model":"m","max_tokens":[20]}"#, "max_tokens"),
        (r#"{"model":"m","max_tokens":1.5}"#, "max_tokens"),
        (r#"{"model":"m","max_tokens":1e400}"#, "max_tokens"),
        (r#"{"model":"m","messages":{}}"#, "messages"),
        (r#"{"model":"m","messages":[1]}"#, "messages[0]"),
        (
            r#"{"model":"m","messages":[{"role":1}]}"#,
            "messages[0].role",
        ),
        (
            r#"{"model":"m","messages":[{},{"content":{}}]}"#,
            "messages[1].content",
        ),
        (
            r#"{"model":"m","messages":[{"content":[{"type":"text","text":1}]}]}"#,
            "messages[0].content[0].text",
        ),
        (
            r#"{"model":"m","messages":[{"content":[true]}]}"#,
            "messages[0].content[0]",
        ),
        (
            r#"{"model":"m","messages":[{"tool_calls":[{"function":{"name":1}}]}]}"#,
            "messages[0].tool_calls[0].function.name",
        ),
        (
            r#"{"model":"m","tools":[{"function":{"name":1}}]}"#,
            "tools[0].function.name",
        ),
        (
            r#"{"model":"m","chat_template_kwargs":"x"}"#,
            "chat_template_kwargs",
        ),
    ] {
        assert_eq!(
            refused(body),
            (400, "invalid_type", Some(param.to_owned())),
            "{body}"
        );
    }
    let prompt = read(Route::Completions, br#"{"model":"m","prompt":[[1,2],7]}"#).unwrap_err();
    assert_eq!(prompt.param.as_deref(), Some("prompt[1]"));
}

#[test]
fn a_key_that_is_read_may_not_be_there_twice_with_different_values() {
    for (body, param) in [
        (r#"{"model":"a","model":"b"}"#, "model"),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "model"),
        (r#"{"model":"a","model":null}"#, "model"),
        (r#"{"model":"a","messages":[],"messages":[{}]}"#, "messages"),
        (
            r#"{"model":"a","messages":[{"role":"user","content":"x","content":null}]}"#,
            "messages[0].content",
        ),
        (
            r#"{"model":"a","messages":[{"content":[{"text":"x","te\u0078t":"y"}]}]}"#,
            "messages[0].content[0].text",
        ),
        (
            r#"{"model":"a","stream_options":{"include_usage":true,"include_usage":false}}"#,
            "stream_options.include_usage",
        ),
        (
            r#"{"model":"a","metadata":{"user_id":"x","user_id":"y"}}"#,
            "metadata.user_id",
        ),
    ] {
        assert_eq!(
            refused(body),
            (400, "duplicate_key", Some(param.to_owned())),
            "{body}"
        );
    }
    assert!(
        chat(r#"{"model":"a","x":1,"x":2}"#).is_ok(),
        "nobody reads x"
    );
    let often = format!(r#"{{"model":"a"{}}}"#, r#","model":"a""#.repeat(100));
    assert_eq!(refused(&often).1, "duplicate_key");
}

#[test]
fn bodies_that_are_no_request_are_refused() {
    let cases: [(&str, &str); 15] = [
        ("", "empty_body"),
        ("{}", "missing_model"),
        (r#"{"model":"","model":""}"#, "missing_model"),
        (r#"{"model":""}"#, "missing_model"),
        (r#"{"model":null}"#, "missing_model"),
        ("[]", "invalid_type"),
        ("17", "invalid_type"),
        (r#"{"model":"m""#, "invalid_json"),
        (r#"{"model":"m"}x"#, "invalid_json"),
        (r#"{"model":"m",}"#, "invalid_json"),
        ("{'model':'m'}", "invalid_json"),
        ("{\"model\":\"a\nb\"}", "invalid_json"),
        (r#"{"model":"\ud800"}"#, "invalid_json"),
        (r#"{"model":"m","x":01}"#, "invalid_json"),
        ("\u{feff}{}", "invalid_json"),
    ];
    for (body, code) in cases {
        let (status, found, _) = refused(body);
        assert_eq!((status, found), (400, code), "{body}");
    }
    assert_eq!(
        read(Route::ChatCompletions, b"{\"model\":\"\xff\"}")
            .unwrap_err()
            .code,
        "invalid_json"
    );
}

#[test]
fn the_place_of_a_fault_is_named() {
    let error = chat("{\"model\": \"m\", \"x\": tru}").unwrap_err();
    assert_eq!(error.message, "invalid JSON at byte 20: expected a value");
    let error = read(Route::ChatCompletions, b"{\"model\":\"ab\xff\"}").unwrap_err();
    assert_eq!(error.message, "invalid JSON at byte 12: expected UTF-8");
}

#[test]
fn depth_count_and_length_are_bounded() {
    let nested = |levels: usize| {
        format!(
            r#"{{"model":"m","x":{}{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(chat(&nested(127)).is_ok());
    for body in [
        nested(128),
        format!(r#"{{"model":"m","x":{}"#, "[".repeat(100_000)),
        format!(r#"{{"model":"m"{}}}"#, ",\"k\":1".repeat(1_100_000)),
        format!(r#"{{"model":"m","x":{}}}"#, "9".repeat(1_000_000)),
    ] {
        let (status, code, _) = refused(&body);
        assert_eq!((status, code), (400, "body_too_complex"), "{}", &body[..30]);
    }
    assert!(chat(&format!(r#"{{"model":"m","x":{}}}"#, "9".repeat(500))).is_ok());
}

#[test]
fn content_types_other_than_json_are_refused() {
    let with = |content_type: &str| {
        let body = br#"{"model":"m"}"#;
        let read = digest(
            &Envelope::new(Route::ChatCompletions, Some(content_type.as_bytes())),
            body,
            &config(),
            &mut Scratch::default(),
        );
        read.map_err(|error| error.status).map(drop)
    };
    for good in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
    ] {
        assert_eq!(with(good), Ok(()), "{good}");
    }
    for bad in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "",
    ] {
        assert_eq!(with(bad), Err(415), "{bad}");
    }
}

#[test]
fn no_text_of_a_prompt_key_or_salt_is_in_the_debug_form() {
    let body = json!({
        "model": "m", "cache_salt": "CANARY", "user": "CANARY", "previous_response_id": "CANARY",
        "input": "CANARY",
    });
    let digest = read_value(Route::Responses, &body);
    assert!(digest.tail.ends_with(b"CANARY"));
    assert!(
        !format!("{digest:?}").contains("CANARY") && !format!("{:?}", config()).contains("0123")
    );
}

#[test]
fn routes_without_a_body_have_an_empty_digest() {
    for route in [
        Route::Health,
        Route::Models,
        Route::ResponseById,
        Route::ResponseCancel,
    ] {
        assert_eq!(read(route, b""), Ok(Digest::default()));
    }
}

#[test]
fn an_unusual_body_leaves_no_memory_behind() {
    let mut scratch = Scratch::default();
    let body = json!({"model": "m", "prompt": "\n".repeat(4 << 20)}).to_string();
    digest(
        &Envelope::new(Route::Completions, None),
        body.as_bytes(),
        &config(),
        &mut scratch,
    )
    .unwrap();
    assert!(scratch.tape.capacity_bytes() <= SCRATCH_BYTES_MAX);
}
