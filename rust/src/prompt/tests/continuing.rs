//! Which streams may go on at another replica, by what their bodies say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::prompt::continuing::{Continuing, Reason};

/// Why the stream of a chat with these members may not go on; `None`: it may.
fn refusal(members: &Value) -> Option<Reason> {
    let mut body =
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let given = members.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(given);
    let mut config = config();
    config.continue_streams(Some(Arc::default()));
    let envelope = Envelope::new(Route::ChatCompletions, Some(b"application/json"));
    let body = body.to_string();
    let digest = digest(&envelope, body.as_bytes(), &config, &mut Scratch::default()).unwrap();
    match digest.continuing {
        Continuing::Planned(_) => None,
        Continuing::Refused(reason) => Some(reason),
        Continuing::Off | Continuing::Elsewhere => panic!("it is a stream, and read here"),
    }
}

#[test]
fn a_stream_goes_on_only_where_the_rest_would_be_the_same() {
    let rows = [
        (json!({}), None),
        (
            json!({"temperature": 0.7, "top_p": 0.9, "max_tokens": 9, "logit_bias": {"5": 1}}),
            None,
        ),
        (
            json!({"n": 1, "seed": null, "stop": [], "tools": [], "presence_penalty": 0.0}),
            None,
        ),
        (json!({"n": 2}), Some(Reason::Choices)),
        (json!({"n": 0}), Some(Reason::Choices)),
        (json!({"seed": 0}), Some(Reason::Seed)),
        (json!({"seed": 7, "temperature": 1.0}), Some(Reason::Seed)),
        (json!({"seed": 7, "temperature": 0}), None),
        (json!({"logprobs": true}), Some(Reason::Logprobs)),
        (json!({"logprobs": 0}), Some(Reason::Logprobs)),
        (json!({"logprobs": false}), None),
        (json!({"include_reasoning": false}), Some(Reason::Reasoning)),
        (json!({"include_reasoning": true}), None),
        (json!({"frequency_penalty": 0.1}), Some(Reason::Penalty)),
        (json!({"thinking_token_budget": 0}), Some(Reason::Penalty)),
        (json!({"stop": "end"}), Some(Reason::Stop)),
        (json!({"response_format": {"type": "text"}}), None),
        (
            json!({"response_format": {"type": "json_object"}}),
            Some(Reason::Guided),
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            Some(Reason::Tools),
        ),
        (
            json!({"tools": [{"type": "function"}], "tool_choice": "none"}),
            None,
        ),
        (json!({"stream_options": {"include_usage": true}}), None),
        (
            json!({"stream_options": {"continuous_usage_stats": true}}),
            Some(Reason::Field),
        ),
        (json!({"a_field_of_tomorrow": 0}), Some(Reason::Field)),
    ];
    for (members, expected) in rows {
        assert_eq!(refusal(&members), expected, "{members}");
    }
}

/// What a body of `/v1/messages` is planned to be asked by, or why its stream may not go on.
fn question(members: &Value, by_text: bool) -> Result<Value, Reason> {
    let mut body = json!({"model": "m", "stream": true, "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}]});
    let given = members.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(given);
    let mut config = config();
    let scope = crate::prompt::continuing::Scope {
        models: Vec::new(),
        by_text,
    };
    config.continue_streams(Some(Arc::new(scope)));
    let envelope = Envelope::new(Route::Messages, Some(b"application/json"));
    let body = body.to_string();
    let digest = digest(&envelope, body.as_bytes(), &config, &mut Scratch::default()).unwrap();
    match digest.continuing {
        Continuing::Planned(plan) => {
            let question = plan.question.unwrap();
            let whole = [&b"{"[..], &question, b"}"].concat();
            Ok(serde_json::from_slice(&whole).unwrap())
        }
        Continuing::Refused(reason) => Err(reason),
        Continuing::Off | Continuing::Elsewhere => panic!("it is a stream that is read here"),
    }
}

#[test]
fn a_message_is_asked_for_as_the_chat_that_vllm_makes_of_it() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let asked = question(
        &json!({
            "system": [text("a\n"), text("x-anthropic-billing-header: 1"), text("b")],
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": [text("two")]},
                {"role": "user", "content": [text("")]},
                {"role": "user", "content": [text("three"), {"type": "text", "text": "four",
                    "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": []},
            ],
            "chat_template_kwargs": {"a": 1},
        }),
        true,
    );
    let expected = json!({
        "messages": [
            {"role": "system", "content": "a\nb"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [text("three"), text("four")]},
            {"role": "assistant"},
        ],
        "chat_template_kwargs": {"a": 1},
    });
    assert_eq!(asked, Ok(expected));
    let plain = question(&json!({"system": "s", "temperature": 0.5}), true).unwrap();
    assert_eq!(plain["messages"][0]["content"], "s");
}

#[test]
fn a_message_with_more_than_text_does_not_go_on() {
    let of = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let rows = [
        (
            of(json!({"type": "image", "source": {"type": "url", "url": "http://a/b"}})),
            Reason::Media,
        ),
        (
            of(json!({"type": "tool_result", "tool_use_id": "a", "content": "b"})),
            Reason::Tools,
        ),
        (
            of(json!({"type": "thinking", "thinking": "a"})),
            Reason::Reasoning,
        ),
        (
            json!({"tools": [{"name": "a", "input_schema": {}}]}),
            Reason::Tools,
        ),
        (json!({"stop_sequences": ["a"]}), Reason::Stop),
        (json!({"thinking": {"type": "disabled"}}), Reason::Reasoning),
        (json!({"output_config": {"effort": "low"}}), Reason::Guided),
        (json!({"ignore_eos": true}), Reason::Field),
    ];
    for (members, reason) in rows {
        assert_eq!(question(&members, true), Err(reason), "{members}");
    }
    assert_eq!(question(&json!({}), false), Err(Reason::Route));
}

#[test]
fn what_is_missing_of_an_answer_has_a_number_that_the_engine_takes() {
    let left = |route, members: &str, context_len| {
        let mut config = config();
        config.continue_streams(Some(Arc::default()));
        let body = format!("{{\"model\":\"m\",\"stream\":true,{members}}}");
        let envelope = Envelope::new(route, Some(b"application/json"));
        let digest = digest(&envelope, body.as_bytes(), &config, &mut Scratch::default()).unwrap();
        let plan = digest.plan().unwrap();
        let (body, _) = plan.body("m", (&[1, 2, 3], &[4, 5]), false, context_len)?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        Some(body["max_tokens"].as_u64().unwrap())
    };
    let (chat, text) = (Route::ChatCompletions, Route::Completions);
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    for (more, context_len, expected) in [
        ("", Some(100), Some(95)),
        ("", Some(5), None),
        ("", None, None),
        (r#","max_tokens":null"#, Some(100), Some(95)),
        (r#","max_tokens":9"#, None, Some(7)),
    ] {
        let found = left(chat, &format!("{messages}{more}"), context_len);
        assert_eq!(found, expected, "{more} {context_len:?}");
    }
    for (more, expected) in [
        ("", 14),
        (r#","max_tokens":null"#, 14),
        (r#","max_tokens":9"#, 7),
    ] {
        let found = left(text, &format!(r#""prompt":"hi"{more}"#), Some(100));
        assert_eq!(found, Some(expected), "{more}");
    }
}
