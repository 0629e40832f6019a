//! One answer in every form: in the next turn, as a body, as events, on the wire.

use serde_json::{Value, json};

use crate::http::route::Route;

/// A tool call: id, name, arguments.
pub(super) type ToolCall = (String, String, Value);

#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// Text as it came, piece by piece; empty pieces are events without text.
    pub(super) pieces: Vec<String>,
    pub(super) calls: Vec<ToolCall>,
    pub(super) reasoning: Vec<String>,
}

impl Said {
    pub(super) fn text(&self) -> String {
        self.pieces.concat()
    }

    pub(super) fn of(pieces: &[&str]) -> Self {
        Self {
            pieces: pieces.iter().map(|piece| (*piece).to_owned()).collect(),
            ..Self::default()
        }
    }
}

/// A conversation of one question, asked through a route; with an answer it is the next turn.
pub(super) fn turn(route: Route, question: &str, answer: Option<&Said>) -> Value {
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

pub(super) fn openai_message(said: &Said) -> Value {
    let calls: Vec<Value> = said.calls.iter().map(openai_call).collect();
    match (said.text().as_str(), calls.is_empty()) {
        (text, true) => json!({"role": "assistant", "content": text, "refusal": null}),
        ("", false) => json!({"role": "assistant", "content": null, "tool_calls": calls}),
        (text, false) => json!({"role": "assistant", "content": text, "tool_calls": calls}),
    }
}

pub(super) fn openai_call((id, name, arguments): &ToolCall) -> Value {
    let function = json!({"name": name, "arguments": arguments.to_string()});
    json!({"id": id, "type": "function", "function": function})
}

pub(super) fn anthropic_message(said: &Said) -> Value {
    let mut content = vec![json!({"type": "text", "text": said.text()})];
    content.extend(said.calls.iter().map(|(id, name, arguments)| {
        json!({"type": "tool_use", "id": id, "name": name, "input": arguments})
    }));
    json!({"role": "assistant", "content": content})
}

pub(super) fn items(said: &Said) -> Vec<Value> {
    let part = json!({"type": "output_text", "text": said.text(), "annotations": []});
    let mut items =
        vec![json!({"type": "message", "id": "msg_1", "role": "assistant", "content": [part]})];
    items.extend(said.calls.iter().map(|(id, name, arguments)| {
        json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments.to_string()})
    }));
    items
}

/// The body of an answer that is no stream.
pub(super) fn whole(route: Route, said: &Said) -> Value {
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
pub(super) fn events(route: Route, said: &Said) -> Vec<Value> {
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

pub(super) fn openai_events(route: Route, said: &Said) -> Vec<Value> {
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

pub(super) fn anthropic_events(said: &Said) -> Vec<Value> {
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
pub(super) fn wire(route: Route, said: &Said, stream: bool, spaced: bool) -> Vec<u8> {
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
