//! Behaviour of [`digest`], by example.

use serde_json::{Value, json};

use super::*;

pub(super) fn config() -> DigestConfig {
    DigestConfig::new(b"0123456789abcdef", 16, 4_096)
}

pub(super) fn read(route: Route, body: &[u8]) -> Result<Digest, RequestError> {
    digest(
        route,
        Some(b"application/json"),
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
    assert_eq!(digest.splice_at, 1);
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
    let wrong = refused(r#"{"model": "m", "service_tier": 1}"#);
    assert_eq!(
        wrong,
        (400, "invalid_type", Some("service_tier".to_owned()))
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
        (r#"{"model":"m","stream":"true"}"#, "stream"),
        (
            r#"{"model":"m","stream_options":{"include_usage":1}}"#,
            "stream_options.include_usage",
        ),
        (r#"{"model":"m","stream_options":[]}"#, "stream_options"),
        (r#"{"model":"m","max_tokens":"20"}"#, "max_tokens"),
        (r#"{"model":"m","max_tokens":1.5}"#, "max_tokens"),
        (r#"{"model":"m","max_tokens":-1}"#, "max_tokens"),
        (r#"{"model":"m","max_tokens":1e400}"#, "max_tokens"),
        (r#"{"model":"m","user":{}}"#, "user"),
        (r#"{"model":"m","cache_salt":5}"#, "cache_salt"),
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
    let prompt = read(
        Route::Completions,
        br#"{"model":"m","prompt":[[1,2],[3,-4]]}"#,
    )
    .unwrap_err();
    assert_eq!(prompt.param.as_deref(), Some("prompt[1][1]"));
}

#[test]
fn a_key_that_is_read_may_not_be_there_twice() {
    for (body, param) in [
        (r#"{"model":"a","model":"b"}"#, "model"),
        (r#"{"model":"a","mod\u0065l":"a"}"#, "model"),
        (r#"{"model":"a","messages":[],"messages":[]}"#, "messages"),
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
}

#[test]
fn bodies_that_are_no_request_are_refused() {
    let cases: [(&str, &str); 14] = [
        ("", "empty_body"),
        ("{}", "missing_model"),
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
    assert_eq!(refused(&nested(128)).1, "invalid_json");
    assert_eq!(
        refused(&format!(r#"{{"model":"m","x":{}"#, "[".repeat(100_000))).1,
        "invalid_json"
    );
    assert_eq!(
        refused(&format!(
            r#"{{"model":"m"{}}}"#,
            ",\"k\":1".repeat(1_000_000)
        ))
        .1,
        "invalid_json"
    );
    assert_eq!(
        refused(&format!(r#"{{"model":"m","x":{}}}"#, "9".repeat(1_000_000))).1,
        "invalid_json"
    );
    assert!(chat(&format!(r#"{{"model":"m","x":{}}}"#, "9".repeat(500))).is_ok());
}

#[test]
fn content_types_other_than_json_are_refused() {
    let with = |content_type: &str| {
        let body = br#"{"model":"m"}"#;
        let read = digest(
            Route::ChatCompletions,
            Some(content_type.as_bytes()),
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
fn a_continued_conversation_extends_the_blocks_of_the_shorter_one() {
    let first =
        json!({"role": "user", "content": "What is the capital of France, and since when?"});
    let answer =
        json!({"role": "assistant", "content": "Paris, with breaks, since the tenth century."});
    let next = json!({"role": "user", "content": "And before?"});
    let short = read_value(
        Route::ChatCompletions,
        &json!({"model": "m", "messages": [first]}),
    );
    let long = read_value(
        Route::ChatCompletions,
        &json!({"model": "m", "messages": [first, answer, next]}),
    );
    assert!(short.blocks.len() >= 3);
    assert_eq!(long.blocks[..short.blocks.len()], short.blocks);
}

#[test]
fn what_the_cache_depends_on_separates_prompts() {
    let base = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(64)}]});
    let blocks = |change: Value| {
        let mut body = base.clone();
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        read_value(Route::ChatCompletions, &body).blocks
    };
    let plain = blocks(json!({}));
    for change in [
        json!({"model": "other"}),
        json!({"cache_salt": "tenant"}),
        json!({"chat_template": "{{ messages }}"}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
        json!({"reasoning_effort": "low"}),
        json!({"documents": [{"text": "d"}]}),
        json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ] {
        assert!(
            blocks(change.clone())
                .iter()
                .all(|block| !plain.contains(block)),
            "{change}"
        );
    }
    for change in [
        json!({"temperature": 0.5}),
        json!({"stream": true}),
        json!({"user": "x"}),
        json!({"seed": 1}),
    ] {
        assert_eq!(blocks(change.clone()), plain, "{change}");
    }
}

#[test]
fn isolated_tenants_share_no_block() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(64)}]})
        .to_string();
    let of = |isolation: &[u8]| {
        let mut scratch = Scratch::default();
        let read = digest_isolated(
            Route::ChatCompletions,
            None,
            body.as_bytes(),
            isolation,
            &config(),
            &mut scratch,
        );
        read.unwrap().blocks
    };
    assert_eq!(of(b"a"), of(b"a"));
    assert!(of(b"a").iter().all(|block| !of(b"b").contains(block)));
}

#[test]
fn the_order_of_template_variables_does_not_matter() {
    let of = |kwargs: &str| {
        chat(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":"0123456789abcdef"}}],"chat_template_kwargs":{kwargs}}}"#))
            .unwrap()
            .blocks
    };
    assert_eq!(
        of(r#"{"a":1,"b":[2,3]}"#),
        of(r#"{ "b" : [2, 3] , "a" : 1 }"#)
    );
    assert_ne!(of(r#"{"a":1,"b":2}"#), of(r#"{"a":2,"b":1}"#));
}

#[test]
fn text_parts_are_the_joined_text() {
    let of = |content: Value| {
        prompt_of(
            Route::ChatCompletions,
            &json!({"model": "m", "messages": [{"role": "user", "content": content}]}),
        )
    };
    let parts = json!([{"type": "text", "text": "first line"}, {"text": "second line", "type": "text"}, "third"]);
    assert_eq!(of(parts), of(json!("first line\nsecond line\nthird")));
}

#[test]
fn images_are_told_apart_by_what_they_are_not_by_how_they_are_written() {
    let openai = |url: &str| {
        let content = json!([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]);
        prompt_of(
            Route::ChatCompletions,
            &json!({"model": "m", "messages": [{"role": "user", "content": content}]}),
        )
    };
    let anthropic = |source: Value| {
        let content =
            json!([{"type": "text", "text": "look"}, {"type": "image", "source": source}]);
        prompt_of(
            Route::Messages,
            &json!({"model": "m", "messages": [{"role": "user", "content": content}]}),
        )
    };
    let base64 = json!({"type": "base64", "media_type": "image/png", "data": "QUJD"});
    assert_eq!(openai("data:image/png;base64,QUJD"), anthropic(base64));
    assert_eq!(
        openai("https://example.org/a.png"),
        anthropic(json!({"type": "url", "url": "https://example.org/a.png"}))
    );
    assert_ne!(
        openai("data:image/png;base64,QUJD"),
        openai("data:image/png;base64,QUJE")
    );
}

fn openai_agent() -> Value {
    json!({
        "model": "m",
        "tools": [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 1+2?"},
            {"role": "assistant", "content": "I add.", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1, \"b\": [2, \"x\\ny\"]}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "3"},
            {"role": "user", "content": "Thanks."},
        ],
    })
}

#[test]
fn one_conversation_hashes_alike_in_openai_anthropic_and_responses_form() {
    let input = json!({"a": 1, "b": [2, "x\ny"]});
    let parameters = json!({"type": "object", "properties": {"a": {"type": "number"}}});
    let anthropic = json!({
        "model": "m", "max_tokens": 100,
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}, {"type": "text", "text": "Be ", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "brief."}],
        "tools": [{"name": "add", "description": "Adds.", "input_schema": parameters}],
        "messages": [
            {"role": "user", "content": "What is 1+2?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "c1", "name": "add", "input": input},
                {"type": "text", "text": "I add."},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "Thanks.", "cache_control": {"type": "ephemeral"}},
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "3"}]},
            ]},
        ],
    });
    let responses = json!({
        "model": "m", "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "add", "description": "Adds.", "parameters": parameters, "strict": true}],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What is 1+2?"}]},
            {"type": "reasoning", "summary": [], "id": "r1"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{\"a\":1,\"b\":[2,\"x\\u000ay\"]}"},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
            {"role": "user", "content": "Thanks."},
        ],
    });
    let expected = prompt_of(Route::ChatCompletions, &openai_agent());
    assert!(expected.0.len() > 5);
    assert_eq!(prompt_of(Route::Messages, &anthropic), expected);
    assert_eq!(prompt_of(Route::Responses, &responses), expected);
    assert_eq!(prompt_of(Route::Tokenize, &openai_agent()), expected);
}

#[test]
fn an_unknown_part_counts_but_its_cache_mark_does_not() {
    let of = |part: Value| {
        let messages = json!([{"role": "user", "content": [part]}]);
        prompt_of(
            Route::Messages,
            &json!({"model": "m", "messages": messages}),
        )
    };
    let document = json!({"type": "document", "title": "t", "source": {"data": "abc"}});
    let mut marked = document.clone();
    marked["cache_control"] = json!({"type": "ephemeral"});
    assert_eq!(of(document.clone()), of(marked));
    let mut other = document.clone();
    other["source"]["data"] = json!("abd");
    assert_ne!(of(document), of(other));
}

#[test]
fn prompts_that_are_no_conversation_are_read_in_every_form() {
    let of = |route, body: Value| prompt_of(route, &body);
    let text = of(
        Route::Completions,
        json!({"model": "m", "prompt": "a text that fills some blocks"}),
    );
    assert_eq!(
        of(
            Route::Completions,
            json!({"model": "m", "prompt": ["a text that fills some blocks"]})
        ),
        text
    );
    assert_eq!(
        of(
            Route::Embeddings,
            json!({"model": "m", "input": "a text that fills some blocks"})
        ),
        text
    );
    let tokens: Vec<u32> = (0..40).collect();
    let flat = of(Route::Completions, json!({"model": "m", "prompt": tokens}));
    assert_eq!(flat.0.len(), 161 / 16);
    assert_eq!(
        of(
            Route::Completions,
            json!({"model": "m", "prompt": [tokens]})
        ),
        flat
    );
    assert_eq!(
        of(Route::Generate, json!({"model": "m", "token_ids": tokens})),
        flat
    );
    assert_eq!(
        of(Route::Detokenize, json!({"model": "m", "tokens": tokens})),
        flat
    );
    let rerank = json!({"model": "m", "query": "which of these is it", "documents": ["one", {"text": "two"}]});
    assert!(!of(Route::Rerank, rerank).0.is_empty());
    let score = json!({"model": "m", "text_1": "which of these is it", "text_2": ["one", "two"]});
    assert!(!of(Route::Score, score).0.is_empty());
}

#[test]
fn an_unusual_body_leaves_no_memory_behind() {
    let mut scratch = Scratch::default();
    let body = json!({"model": "m", "prompt": "\n".repeat(4 << 20)}).to_string();
    digest(
        Route::Completions,
        None,
        body.as_bytes(),
        &config(),
        &mut scratch,
    )
    .unwrap();
    assert!(scratch.tape.capacity_bytes() <= SCRATCH_BYTES_MAX);
}

mod uploads {
    use super::*;

    fn upload(content_type: &str, body: &[u8]) -> Result<Digest, RequestError> {
        digest(
            Route::Transcriptions,
            Some(content_type.as_bytes()),
            body,
            &config(),
            &mut Scratch::default(),
        )
    }

    const TYPE: &str = "multipart/form-data; boundary=\"xyz\"";

    #[test]
    fn model_and_stream_are_found_wherever_they_stand() {
        let body = b"preamble\r\n--xyz\r\nContent-Disposition: form-data; filename=\"; name=model\"; name=\"file\"\r\n\
            Content-Type: audio/wav\r\n\r\nRIFF\r\n--xy\r\nmodel\r\n--xyz  \r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n\
            whisper\r\n--xyz\r\nContent-Disposition: form-data; name=stream\r\n\r\nTrue\r\n--xyz--\r\n";
        let digest = upload(TYPE, body).unwrap();
        assert_eq!(
            (digest.model.as_str(), digest.stream, digest.blocks.len()),
            ("whisper", true, 0)
        );
        assert!(digest.retry_safe);
    }

    #[test]
    fn what_is_no_upload_is_refused() {
        let part = |name: &str, value: &str| {
            format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let whole = part("model", "m") + "--xyz--";
        assert!(upload(TYPE, whole.as_bytes()).is_ok());
        for (content_type, body, expected) in [
            (
                "application/json",
                whole.clone(),
                (415, "unsupported_media_type"),
            ),
            (
                "multipart/form-data",
                whole.clone(),
                (400, "invalid_multipart"),
            ),
            (
                "multipart/form-data; boundary=other",
                whole.clone(),
                (400, "invalid_multipart"),
            ),
            (TYPE, part("model", "m"), (400, "invalid_multipart")),
            (TYPE, part("file", "m") + "--xyz--", (400, "missing_model")),
            (
                TYPE,
                part("model", "m") + &part("model", "n") + "--xyz--",
                (400, "duplicate_key"),
            ),
            (
                TYPE,
                part("model", "m") + &part("stream", "maybe") + "--xyz--",
                (400, "invalid_type"),
            ),
            (
                TYPE,
                part("x", "y").repeat(65) + "--xyz--",
                (400, "invalid_multipart"),
            ),
            (TYPE, String::new(), (400, "empty_body")),
        ] {
            let error = upload(content_type, body.as_bytes()).unwrap_err();
            assert_eq!(
                (error.status, error.code),
                expected,
                "{content_type} {body}"
            );
        }
    }
}
