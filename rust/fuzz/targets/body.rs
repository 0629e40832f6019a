//! JSON bodies: [`digest`] of every route, against `serde_json` and against the same body written
//! otherwise.

use serde_json::{Map, Value, json};
use skylb_core::http::error::RequestError;
use skylb_core::http::route::{BodyKind, ROUTES, Route};
use skylb_core::http::steer;
use skylb_core::prompt::isolation::Owner;
use skylb_core::prompt::{Digest, DigestConfig, Edit, Envelope, Scratch, digest, edited, moved};

use super::respell::respell;

/// The owner of bodies that are read where owners are isolated.
const ISOLATED: Owner<'static> = Owner::Tenant("tenant");
/// The model of a fleet that serves one.
const ONLY: &str = "only \"one\"";

pub fn seeds() -> Vec<Vec<u8>> {
    let messages = json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "name": "ada", "content": [
            {"type": "text", "text": "what is it"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "input_audio", "input_audio": {"format": "wav", "data": "AAAA"}},
        ]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": [1, 2.5e3]}"}},
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "caf\u{e9} \u{1f600}"},
    ]);
    let tools = json!([
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}},
        {"name": "g", "description": "d", "input_schema": {"a": [true, null]}},
        {"type": "web_search", "cache_control": {"type": "ephemeral"}},
    ]);
    let blocks = json!([
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r"}]},
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "tool_use", "id": "t2", "name": "f", "input": {"a": 1}},
        ]},
    ]);
    let items = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "y"},
        {"type": "reasoning", "summary": []},
        {"type": "item_reference", "id": "i"},
    ]);
    let bodies = [
        json!({"model": "m", "messages": messages, "tools": tools, "stream": true, "max_tokens": 20, "n": 2}),
        json!({"model": "m", "messages": messages, "stream": true, "stream_options": {}, "priority": -3}),
        json!({"messages": [], "stream_options": {"include_usage": true}, "service_tier": "flex"}),
        json!({"model": "m", "prompt": ["a", "b"], "echo": false, "user": "u", "cache_salt": "s"}),
        json!({"model": "m", "prompt": [1, 2, 3], "max_tokens": "12"}),
        json!({"model": "m", "system": [{"type": "text", "text": "s"}], "messages": blocks, "metadata": {"user_id": "u"}}),
        json!({"model": "m", "input": items, "instructions": "i", "store": false, "reasoning": {"effort": "low"}}),
        json!({"model": "m", "input": "x", "background": true, "previous_response_id": "resp_1", "prompt_cache_key": "k"}),
        json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "priority": 1.0}),
        json!({"model": "m", "text_1": "a", "text_2": ["b", "c"], "items": [], "queries": "x"}),
        json!({"model": "m", "token_ids": [1, 2], "sampling_params": {"max_tokens": 3, "n": 2}}),
        json!({"model": "m", "chat_template": "t", "chat_template_kwargs": {"b": 1, "a": [true]}, "messages": [], "documents": [{"a": 1}]}),
        json!({"model": "m", "vllm_xargs": {"rid": "x"}, "messages": [{"role": "u", "content": "\u{0}\u{1f}\"\\/"}]}),
        json!({"model": "m", "kv_transfer_params": {"remote_host": "h"}}),
    ];
    let mut seeds = Vec::new();
    for (index, body) in (0_u8..).zip(&bodies) {
        for route in [0, 1, 2, 3, index] {
            seeds.push([&[route, index, 5], body.to_string().as_bytes()].concat());
        }
    }
    seeds
}

pub fn run(data: &[u8]) {
    let Some((&[route, flags, seed], body)) = data.split_first_chunk::<3>() else {
        return;
    };
    let json_routes: Vec<Route> = ROUTES
        .iter()
        .filter(|row| row.body == BodyKind::Json)
        .map(|row| row.route)
        .collect();
    let envelope = Envelope {
        owner: if flags & 1 != 0 {
            ISOLATED
        } else {
            Owner::Nobody
        },
        trusted: flags & 2 != 0,
        only_model: [None, Some(ONLY), Some("")][usize::from(flags >> 2) % 3],
        ..Envelope::new(
            json_routes[usize::from(route) % json_routes.len()],
            Some(b"application/json"),
        )
    };
    let read = read(&envelope, body);
    let parsed = serde_json::from_slice::<Value>(body);
    match (&read, &parsed) {
        (Ok(digest), Ok(value)) => {
            check_fields(&envelope, digest, value);
            check_edits(&envelope, digest, body, value);
        }
        (Ok(_), Err(error)) => assert!(is_bound(error), "not JSON, but accepted: {error}"),
        (Err(error), Ok(_)) => assert_ne!(error.code, "invalid_json", "{error}"),
        (Err(_), Err(_)) => {}
    }
    if let Ok(value) = &parsed
        && !has_raw_lists(value, false)
    {
        check_spelling(&envelope, &read, &respell(body, seed));
    }
}

/// The same buffers serve twice: what one body left there changes nothing for the next.
fn read(envelope: &Envelope<'_>, body: &[u8]) -> Result<Digest, RequestError> {
    let mut config = DigestConfig::new(b"0123456789abcdef", 16, 1 << 16);
    if envelope.owner == ISOLATED {
        config.isolate(&[7; 32]);
    }
    let mut scratch = Scratch::default();
    let first = digest(envelope, body, &config, &mut scratch);
    let second = digest(envelope, body, &config, &mut scratch);
    assert_eq!(first, second);
    first
}

/// Numbers beyond `f64` and deep nesting are `serde_json`'s own bounds.
fn is_bound(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    text.contains("out of range") || text.contains("recursion limit")
}

fn check_fields(envelope: &Envelope<'_>, digest: &Digest, value: &Value) {
    let fields = value.as_object().expect("only an object is a request");
    match fields.get("model").and_then(Value::as_str) {
        Some(model) if !model.is_empty() => {
            assert_eq!(digest.model, model);
            assert!(digest.model_edits.is_empty());
        }
        _ => assert_eq!(Some(digest.model.as_str()), envelope.only_model),
    }
    let switch = |name: &str| fields.get(name).and_then(Value::as_bool);
    if let Some(stream) = switch("stream") {
        assert_eq!(digest.stream, stream);
    }
    if switch("background") == Some(true) || switch("store") == Some(true) {
        assert!(
            !digest.retry_safe,
            "a request with effects may not be sent twice"
        );
    }
    let others = [
        "n",
        "max_completion_tokens",
        "max_output_tokens",
        "sampling_params",
    ];
    let limit = fields.get("max_tokens").and_then(Value::as_u64);
    if let Some(limit) = limit
        && envelope.route != Route::Generate
        && others.iter().all(|name| !fields.contains_key(*name))
    {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        assert_eq!(digest.max_tokens, Some(limit));
    }
    if !envelope.trusted {
        assert_eq!(steering(fields), None, "accepted from anybody");
    }
}

/// A key that only trusted senders may use, outside of what a prompt consists of.
fn steering(fields: &Map<String, Value>) -> Option<&str> {
    fields.iter().find_map(|(key, value)| {
        let here =
            (steer::refused(key.as_bytes()).is_some() && !value.is_null()).then_some(key.as_str());
        here.or_else(|| {
            let inner = (!steer::is_content(key.as_bytes())).then_some(value)?;
            steering_within(inner)
        })
    })
}

fn steering_within(value: &Value) -> Option<&str> {
    match value {
        Value::Array(items) => items.iter().find_map(steering_within),
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let here = (steer::refused(key.as_bytes()).is_some() && !value.is_null())
                .then_some(key.as_str());
            here.or_else(|| steering_within(value))
        }),
        _ => None,
    }
}

/// What is changed on the way to an engine changes what it says it does, and nothing else.
fn check_edits(envelope: &Envelope<'_>, digest: &Digest, body: &[u8], value: &Value) {
    let mut edits: Vec<&Edit> = digest.priority_edits.iter().collect();
    edits.extend(&digest.model_edits);
    edits.extend(&digest.usage_edits);
    let salts = moved(&digest.salt_edits, &edits);
    if edits.is_empty() {
        check_salt(digest, value, &edited(body, salts.iter().collect()));
        return;
    }
    let body = edited(body, edits);
    let mut expected = value.clone();
    if !digest.model_edits.is_empty() {
        expected["model"] = json!(digest.model);
    }
    if !digest.priority_edits.is_empty() {
        expected["priority"] = json!(0);
    }
    if !digest.usage_edits.is_empty() {
        if !expected["stream_options"].is_object() {
            expected["stream_options"] = json!({});
        }
        expected["stream_options"]["include_usage"] = json!(true);
    }
    let sent: Value = serde_json::from_slice(&body).expect("an edited body is JSON");
    assert_eq!(sent, expected);
    check_salt(digest, &expected, &edited(&body, salts.iter().collect()));
    let again = read(envelope, &body).expect("an edited body is accepted");
    assert_eq!((&again.blocks, again.chain), (&digest.blocks, digest.chain));
    assert!(again.model_edits.is_empty() && again.usage_edits.is_empty());
    assert!(again.priority_edits.is_empty());
    assert!(again.include_usage || digest.usage_edits.is_empty());
}

/// A replica gets the salt in a body that says what it would say without.
fn check_salt(digest: &Digest, expected: &Value, sent: &[u8]) {
    if digest.salt_edits.is_empty() {
        return;
    }
    let sent: Value = serde_json::from_slice(sent).expect("a salted body is JSON");
    let salt = sent["cache_salt"].as_str().expect("a salt is a text");
    assert_eq!(salt.len(), 43);
    let mut expected = expected.clone();
    expected["cache_salt"] = json!(salt);
    assert_eq!(sent, expected);
}

/// Lists that are put into the prompt as they are written: of token ids, and lists within lists.
fn has_raw_lists(value: &Value, in_list: bool) -> bool {
    match value {
        Value::Array(items) => {
            in_list
                || items.first().is_some_and(Value::is_number)
                || items.iter().any(|item| has_raw_lists(item, true))
        }
        Value::Object(fields) => fields.values().any(|value| has_raw_lists(value, false)),
        _ => false,
    }
}

/// Space and escapes decide nothing.
fn check_spelling(envelope: &Envelope<'_>, first: &Result<Digest, RequestError>, respelled: &[u8]) {
    match (first, read(envelope, respelled)) {
        (Ok(first), Ok(second)) => {
            let bare = |digest: &Digest| {
                let mut bare = digest.clone();
                bare.priority_edits.clear();
                bare.salt_edits.clear();
                (bare.model_edits, bare.usage_edits) = Default::default();
                bare
            };
            assert_eq!(bare(first), bare(&second));
            assert_eq!(first.model_edits.is_empty(), second.model_edits.is_empty());
            assert_eq!(first.usage_edits.is_empty(), second.usage_edits.is_empty());
            assert_eq!(first.priority_edits.len(), second.priority_edits.len());
            assert_eq!(first.salt_edits.len(), second.salt_edits.len());
        }
        (Err(first), Err(second)) => {
            assert_eq!((first.code, &first.param), (second.code, &second.param));
        }
        (first, second) => unreachable!("written otherwise: {first:?}, {second:?}"),
    }
}
