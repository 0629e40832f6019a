//! What of a prompt its blocks depend on.

use super::*;

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
