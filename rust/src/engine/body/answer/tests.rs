//! Answers against the prompts that contain them: whatever a relay makes of an answer, however it
//! comes and however it is cut, is what the next turn's body has at that place.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Scratch, digest};
use super::*;
use crate::engine::relay::{Options, Relay};
use crate::engine::route::Route;

const NOTHING: [u64; 0] = [];

const ROUTES: [Route; 4] = [
    Route::ChatCompletions,
    Route::Completions,
    Route::Messages,
    Route::Responses,
];

fn config() -> DigestConfig {
    DigestConfig::new(b"0123456789abcdef", 16, 4_096)
}

fn read(route: Route, body: &Value) -> Digest {
    let body = body.to_string();
    let mut scratch = Scratch::default();
    digest(route, None, body.as_bytes(), &config(), &mut scratch).unwrap()
}

/// A tool call: id, name, arguments.
type ToolCall = (String, String, Value);

#[derive(Debug, Clone, Default)]
struct Said {
    /// Text as it came, piece by piece; empty pieces are events without text.
    pieces: Vec<String>,
    calls: Vec<ToolCall>,
    reasoning: Vec<String>,
}

impl Said {
    fn text(&self) -> String {
        self.pieces.concat()
    }

    fn of(pieces: &[&str]) -> Self {
        Self {
            pieces: pieces.iter().map(|piece| (*piece).to_owned()).collect(),
            ..Self::default()
        }
    }
}

/// A conversation of one question, asked through a route; with an answer it is the next turn.
fn turn(route: Route, question: &str, answer: Option<&Said>) -> Value {
    let mut messages = vec![json!({"role": "user", "content": question})];
    if let Some(said) = answer {
        match route {
            Route::ChatCompletions => messages.push(openai_message(said)),
            Route::Messages => messages.push(anthropic_message(said)),
            Route::Responses => messages.extend(items(said)),
            _ => {}
        }
        messages.push(json!({"role": "user", "content": "and then?"}));
    }
    match route {
        Route::Completions => {
            let more = answer.map_or(String::new(), |said| said.text() + " and then?");
            json!({"model": "m", "prompt": question.to_owned() + &more})
        }
        Route::Responses => json!({"model": "m", "input": messages}),
        _ => json!({"model": "m", "messages": messages}),
    }
}

fn openai_message(said: &Said) -> Value {
    let calls: Vec<Value> = said.calls.iter().map(openai_call).collect();
    match (said.text().as_str(), calls.is_empty()) {
        (text, true) => json!({"role": "assistant", "content": text, "refusal": null}),
        ("", false) => json!({"role": "assistant", "content": null, "tool_calls": calls}),
        (text, false) => json!({"role": "assistant", "content": text, "tool_calls": calls}),
    }
}

fn openai_call((id, name, arguments): &ToolCall) -> Value {
    let function = json!({"name": name, "arguments": arguments.to_string()});
    json!({"id": id, "type": "function", "function": function})
}

fn anthropic_message(said: &Said) -> Value {
    let mut content = vec![json!({"type": "text", "text": said.text()})];
    content.extend(said.calls.iter().map(|(id, name, arguments)| {
        json!({"type": "tool_use", "id": id, "name": name, "input": arguments})
    }));
    json!({"role": "assistant", "content": content})
}

fn items(said: &Said) -> Vec<Value> {
    let part = json!({"type": "output_text", "text": said.text(), "annotations": []});
    let mut items =
        vec![json!({"type": "message", "id": "msg_1", "role": "assistant", "content": [part]})];
    items.extend(said.calls.iter().map(|(id, name, arguments)| {
        json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments.to_string()})
    }));
    items
}

/// The body of an answer that is no stream.
fn whole(route: Route, said: &Said) -> Value {
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 9});
    match route {
        Route::ChatCompletions => {
            let mut message = openai_message(said);
            if !said.reasoning.is_empty() {
                message["reasoning_content"] = json!(said.reasoning.concat());
            }
            json!({"id": "x", "choices": [{"index": 0, "message": message}], "usage": usage})
        }
        Route::Completions => {
            json!({"id": "x", "choices": [{"index": 0, "text": said.text()}], "usage": usage})
        }
        Route::Messages => {
            let mut message = anthropic_message(said);
            message["type"] = json!("message");
            message["usage"] = usage;
            message
        }
        _ => json!({"id": "resp_1", "output": items(said), "usage": usage}),
    }
}

/// The events of a streamed answer. `spaced` writes JSON with space, as other engines do.
fn events(route: Route, said: &Said) -> Vec<Value> {
    match route {
        Route::Messages => anthropic_events(said),
        Route::Responses => {
            let mut events: Vec<Value> = said
                .pieces
                .iter()
                .map(|piece| json!({"type": "response.output_text.delta", "delta": piece}))
                .collect();
            let response = whole(route, said);
            events.push(json!({"type": "response.completed", "response": response}));
            events
        }
        _ => openai_events(route, said),
    }
}

fn openai_events(route: Route, said: &Said) -> Vec<Value> {
    let chunk = |choice: Value| json!({"id": "x", "object": "chunk", "choices": [choice]});
    if route == Route::Completions {
        let piece = |piece: &String| chunk(json!({"index": 0, "text": piece, "logprobs": null}));
        return said.pieces.iter().map(piece).collect();
    }
    let delta = |delta: Value| chunk(json!({"index": 0, "delta": delta, "finish_reason": null}));
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}))];
    let thought = |thought: &String| delta(json!({"reasoning_content": thought}));
    events.extend(said.reasoning.iter().map(thought));
    events.extend(
        said.pieces
            .iter()
            .map(|piece| delta(json!({"content": piece}))),
    );
    for (index, (id, name, arguments)) in said.calls.iter().enumerate() {
        let call = |call: Value| delta(json!({"tool_calls": [call]}));
        let function = json!({"name": name, "arguments": ""});
        events.push(call(
            json!({"index": index, "id": id, "type": "function", "function": function}),
        ));
        for part in arguments.to_string().chars() {
            let function = json!({"arguments": part.to_string()});
            events.push(call(json!({"index": index, "function": function})));
        }
    }
    events.push(chunk(
        json!({"index": 0, "delta": {}, "finish_reason": "stop"}),
    ));
    events.push(json!({"id": "x", "choices": [], "usage": {"prompt_tokens": 3}}));
    events
}

fn anthropic_events(said: &Said) -> Vec<Value> {
    let start = |index: usize, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta = |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": "x", "content": []}}),
        start(0, json!({"type": "text", "text": ""})),
    ];
    let piece = |piece: &String| delta(0, json!({"type": "text_delta", "text": piece}));
    events.extend(said.pieces.iter().map(piece));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    for (index, (id, name, arguments)) in (1..).zip(&said.calls) {
        events.push(start(
            index,
            json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
        ));
        for part in arguments.to_string().chars() {
            let part = json!({"type": "input_json_delta", "partial_json": part.to_string()});
            events.push(delta(index, part));
        }
    }
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}));
    events
}

/// Answers on the wire: a stream of events, or one body.
fn wire(route: Route, said: &Said, stream: bool, spaced: bool) -> Vec<u8> {
    let text = |value: &Value| {
        let text = value.to_string();
        if spaced {
            text.replace("\":", "\": ").replace(",\"", ", \"")
        } else {
            text
        }
    };
    if !stream {
        let body = text(&whole(route, said));
        let length = body.len();
        return format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes();
    }
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = head.as_bytes().to_vec();
    let mut put = |event: &str| wire.extend(format!("{:x}\r\n{event}\r\n", event.len()).bytes());
    for event in events(route, said) {
        let name = event["type"]
            .as_str()
            .map_or(String::new(), |kind| format!("event: {kind}\n"));
        put(&format!("{name}data: {}\n\n", text(&event)));
    }
    put("data: [DONE]\n\n");
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

fn relayed(digest: &Digest, wire: &[u8], cuts: &[usize]) -> Vec<u64> {
    let options = Options {
        http11: true,
        keep_alive: true,
        ..Options::default()
    };
    let mut relay = Relay::new(options, "id");
    if let Some(start) = AnswerStart::behind(digest, &config()) {
        relay.attach(start);
    }
    let mut from = 0;
    for &cut in cuts.iter().chain(std::iter::once(&wire.len())) {
        relay.feed(&wire[from..cut.max(from)]);
        relay.take();
        from = cut.max(from);
    }
    relay.take_answer()
}

/// Blocks of the next turn's prompt that first prompt and answer make up together.
fn learned(route: Route, question: &str, said: &Said, wire: &[u8], cuts: &[usize]) -> Vec<u64> {
    let first = read(route, &turn(route, question, None));
    let mut blocks = first.blocks.clone();
    blocks.extend(relayed(&first, wire, cuts));
    let next = read(route, &turn(route, question, Some(said))).blocks;
    assert!(
        next.starts_with(&blocks),
        "{} of {}",
        blocks.len(),
        next.len()
    );
    blocks
}

/// Bytes of the answer's canonical stream.
fn answer_bytes(route: Route, question: &str, said: &Said) -> usize {
    let with = |said: Option<&Said>| read(route, &turn(route, question, said)).prompt_bytes;
    let behind = with(Some(&Said::default())) - with(None);
    with(Some(said)) - with(None) - behind
}

#[test]
fn the_next_turn_contains_prompt_and_answer() {
    let question = "What is the capital of France, and why?";
    let said = Said::of(&[
        "Paris",
        ", because \"",
        "kings\" lived\\there.",
        "\n",
        "So \u{1f600} it is.",
    ]);
    for route in ROUTES {
        for stream in [false, true] {
            let blocks = learned(
                route,
                question,
                &said,
                &wire(route, &said, stream, false),
                &[],
            );
            let prompt = read(route, &turn(route, question, None)).prompt_bytes;
            let all = prompt + answer_bytes(route, question, &said);
            assert!(
                blocks.len() >= all / 16,
                "{route:?} {stream}: {} blocks",
                blocks.len()
            );
        }
    }
}

#[test]
fn an_answer_with_reasoning_leaves_nothing() {
    let said = Said {
        reasoning: vec!["Let me think.".to_owned()],
        ..Said::of(&["A long answer that would have filled several blocks."])
    };
    let route = Route::ChatCompletions;
    let first = read(route, &turn(route, "why?", None));
    for stream in [false, true] {
        assert_eq!(
            relayed(&first, &wire(route, &said, stream, false), &[]),
            NOTHING
        );
    }
}

#[test]
fn what_cannot_be_told_from_the_bytes_has_no_start() {
    let none = |route, body: &Value| read(route, body).answer.is_none();
    let messages = json!([{"role": "user", "content": "x"}]);
    assert!(none(
        Route::ChatCompletions,
        &json!({"model": "m", "messages": messages, "n": 2})
    ));
    assert!(none(
        Route::Completions,
        &json!({"model": "m", "prompt": [1, 2, 3]})
    ));
    assert!(none(
        Route::Completions,
        &json!({"model": "m", "prompt": ["a", "b"]})
    ));
    assert!(none(
        Route::Completions,
        &json!({"model": "m", "prompt": "a", "echo": true})
    ));
    for odd in [
        json!({"echo": true}),
        json!({"echo": "yes"}),
        json!({"continue_final_message": 1}),
    ] {
        let mut body = json!({"model": "m", "messages": messages});
        body.as_object_mut()
            .unwrap()
            .extend(odd.as_object().unwrap().clone());
        assert!(
            none(Route::ChatCompletions, &body),
            "{odd}: not refused either"
        );
    }
    assert!(none(
        Route::Responses,
        &json!({"model": "m", "input": "a", "previous_response_id": "resp_1"})
    ));
    assert!(none(
        Route::Embeddings,
        &json!({"model": "m", "input": "a"})
    ));
    assert!(!none(
        Route::Completions,
        &json!({"model": "m", "prompt": "a", "n": 1})
    ));
}

#[test]
fn errors_cut_streams_and_nonsense_leave_no_more_than_was_read() {
    let route = Route::ChatCompletions;
    let said = Said::of(&[
        "a piece of sixteen bytes or more",
        ", and another one of that kind",
    ]);
    let first = read(route, &turn(route, "why?", None));
    let body = String::from_utf8(wire(route, &said, false, false)).unwrap();
    let refused = body.replace("200 OK", "400 Bad Request");
    assert_eq!(relayed(&first, refused.as_bytes(), &[]), NOTHING);
    let broken = body.replace("\"choices\":[", "\"choices\":{");
    assert_eq!(relayed(&first, broken.as_bytes(), &[]), NOTHING);
    let stream = wire(route, &said, true, false);
    assert_eq!(
        relayed(&first, &stream[..stream.len() - 5], &[]),
        NOTHING,
        "it has not ended"
    );
    let text = String::from_utf8(stream).unwrap();
    let torn = text.replace("{\"content\":\", and", "[\"content\":\", and");
    let kept = relayed(&first, torn.as_bytes(), &[]);
    let all = relayed(&first, text.as_bytes(), &[]);
    assert!(!kept.is_empty() && kept.len() < all.len() && all.starts_with(&kept));
}

#[test]
fn no_more_than_the_bound_is_hashed() {
    let route = Route::ChatCompletions;
    let said = Said::of(&["x".repeat(100_000).as_str(), "y"]);
    let first = read(route, &turn(route, "why?", None));
    for stream in [false, true] {
        let blocks = relayed(&first, &wire(route, &said, stream, false), &[]);
        assert_eq!(blocks.len(), ANSWER_BYTES_MAX / 16);
    }
    let huge = Said::of(&["x".repeat(ANSWER_BODY_BYTES_MAX).as_str()]);
    assert_eq!(
        relayed(&first, &wire(route, &huge, false, false), &[]),
        NOTHING
    );
}

#[test]
fn a_continued_message_goes_on_without_a_role() {
    let route = Route::ChatCompletions;
    let ask = |text: &str, more: bool| {
        let messages = json!([
            {"role": "user", "content": "Count."},
            {"role": "assistant", "content": text},
        ]);
        json!({"model": "m", "messages": messages, "continue_final_message": more})
    };
    let said = Said::of(&[" three, four,", " five, six, seven, eight."]);
    let first = read(route, &ask("one, two,", true));
    let next = read(route, &ask(&("one, two,".to_owned() + &said.text()), false));
    for stream in [false, true] {
        let mut blocks = first.blocks.clone();
        blocks.extend(relayed(&first, &wire(route, &said, stream, false), &[]));
        assert_eq!(blocks, next.blocks);
    }
}

#[test]
fn usage_is_asked_for_where_the_client_says_nothing() {
    let spliced = |body: &str| {
        let digest = digest(
            Route::ChatCompletions,
            None,
            body.as_bytes(),
            &config(),
            &mut Scratch::default(),
        );
        digest.unwrap().usage_splice.map(|splice| {
            let (before, behind) = body.split_at(splice.at);
            [before, str::from_utf8(splice.text).unwrap(), behind].concat()
        })
    };
    assert_eq!(
        spliced(r#" { "model":"m","stream":true}"#).unwrap(),
        r#" {"stream_options":{"include_usage":true}, "model":"m","stream":true}"#
    );
    assert_eq!(
        spliced(r#"{"stream_options": { },"model":"m","stream":true}"#).unwrap(),
        r#"{"stream_options": {"include_usage":true },"model":"m","stream":true}"#
    );
    assert_eq!(
        spliced(r#"{"model":"m","stream":true,"stream_options":{"x":[1]}}"#).unwrap(),
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":[1]}}"#
    );
    for body in [
        r#"{"model":"m"}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":false}}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":null}}"#,
        r#"{"model":"m","stream":true,"stream_options":null}"#,
    ] {
        assert_eq!(spliced(body), None, "{body}");
    }
}

fn text() -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        8 => prop::char::range('a', 'z'),
        1 => prop::sample::select(vec!['"', '\\', '\n', '\u{1}', '/', '{', '}', ':', ',']),
        1 => any::<char>(),
    ];
    prop::collection::vec(letter, 0..24).prop_map(String::from_iter)
}

fn call() -> impl Strategy<Value = ToolCall> {
    let arguments = prop_oneof![
        Just(json!({})),
        (text(), text()).prop_map(|(key, value)| json!({key: value, "n": [1, -2, true, null]})),
    ];
    (text(), text(), arguments)
}

fn said() -> impl Strategy<Value = Said> {
    let calls = prop::collection::vec(call(), 0..3);
    (prop::collection::vec(text(), 0..12), calls).prop_map(|(pieces, calls)| Said {
        pieces,
        calls,
        reasoning: Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// And nothing is missing but what does not fill a block.
    #[test]
    fn prompt_and_answer_are_a_prefix_of_the_next_prompt(route in prop::sample::select(ROUTES.to_vec()), question in text(), mut said in said(), stream: bool, spaced: bool, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        if route == Route::Completions {
            said.calls.clear();
        }
        // Space is put in by text, which must not reach into strings.
        let spaced = spaced && !said.pieces.concat().contains(['"', ',', ':']) && said.calls.is_empty();
        let wire = wire(route, &said, stream, spaced);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.sort_unstable();
        let blocks = learned(route, &question, &said, &wire, &cuts);
        let prompt = read(route, &turn(route, &question, None)).prompt_bytes;
        let bytes = if said.text().is_empty() && said.calls.is_empty() {
            0
        } else {
            answer_bytes(route, &question, &said)
        };
        prop_assert!(blocks.len() >= (prompt + bytes) / 16, "{} blocks of {} bytes", blocks.len(), prompt + bytes);
    }
}
