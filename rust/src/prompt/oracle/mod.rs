//! [`digest`] against a slow oracle over a parsed tree, for conversations written in every way.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::json::Scan;
use super::tape::Tape;
use super::tests::{config, read};
use super::*;
use crate::prompt::blocks::Blocks;
use writer::Writer;

mod writer;

// --------------------------------------------------------------------------- the oracle

/// The canonical stream of a chat in OpenAI's form.
fn chat_stream(body: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for tool in list(&body["tools"]) {
        let function = &tool["function"];
        out.push(tag::TOOL);
        ended(&mut out, text(&function["name"]));
        ended(&mut out, text(&function["description"]));
        if function["parameters"].is_object() {
            free_json(&mut out, &function["parameters"]);
        }
        out.push(tag::END);
    }
    for message in list(&body["messages"]) {
        out.push(tag::ROLE);
        ended(&mut out, text(&message["role"]));
        if message["name"].is_string() {
            out.push(tag::NAME);
            ended(&mut out, text(&message["name"]));
        }
        if message["tool_call_id"].is_string() {
            out.push(tag::RESULT);
            ended(&mut out, text(&message["tool_call_id"]));
        }
        content(&mut out, &message["content"]);
        for call in list(&message["tool_calls"]) {
            out.push(tag::CALL);
            ended(&mut out, text(&call["function"]["name"]));
            match serde_json::from_str::<Value>(text(&call["function"]["arguments"])) {
                Ok(arguments) if arguments.is_object() => free_json(&mut out, &arguments),
                _ => marked(&mut out, text(&call["function"]["arguments"])),
            }
            out.push(tag::END);
            ended(&mut out, text(&call["id"]));
        }
    }
    out
}

fn content(out: &mut Vec<u8>, content: &Value) {
    out.extend_from_slice(text(content).as_bytes());
    for (index, part) in list(content).iter().enumerate() {
        if index > 0 {
            out.push(b'\n');
        }
        if part["type"] == "image_url" {
            let url = text(&part["image_url"]["url"]);
            let (kind, data) = match url.strip_prefix("data:") {
                Some(url) => url.split_once(',').unwrap(),
                None => ("", url),
            };
            let key = BlockKey::new(b"0123456789abcdef");
            let hash = key.chain(key.hash(kind.as_bytes()), key.hash(data.as_bytes()));
            out.push(tag::MEDIA);
            out.extend_from_slice(&hash.to_le_bytes());
        } else {
            out.extend_from_slice(text(&part["text"]).as_bytes());
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn ended(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(tag::END);
}

fn marked(out: &mut Vec<u8>, text: &str) {
    out.push(tag::STRING);
    ended(out, text);
}

fn free_json(out: &mut Vec<u8>, value: &Value) {
    let mut separate = false;
    match value {
        Value::String(text) => marked(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                if std::mem::replace(&mut separate, true) {
                    out.push(b',');
                }
                free_json(out, item);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (key, value) in members {
                if std::mem::replace(&mut separate, true) {
                    out.push(b',');
                }
                marked(out, key);
                free_json(out, value);
            }
            out.push(b'}');
        }
        scalar => out.extend_from_slice(scalar.to_string().as_bytes()),
    }
}

/// The stream in blocks, from the seed that `model` and `cache_salt` make.
fn blocks_of(body: &Value) -> Blocks {
    let key = BlockKey::new(b"0123456789abcdef");
    let hash = |field: &str| {
        body[field]
            .as_str()
            .map_or(0, |text| key.hash(text.as_bytes()))
    };
    let mut seed = key.chain(key.start(), key.hash(b""));
    for part in [hash("model"), hash("cache_salt"), 0, 0] {
        seed = key.chain(seed, part);
    }
    let mut stream = BlockStream::new(&key, 16, 4_096, seed, 0);
    stream.push(&chat_stream(body));
    stream.finish()
}

// --------------------------------------------------------------------------- conversations

#[derive(Debug, Clone)]
enum Turn {
    User(Vec<Part>),
    Assistant(String, Vec<Call>),
    Result(String, String),
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Image(String),
}

#[derive(Debug, Clone)]
struct Call {
    id: String,
    name: String,
    arguments: Value,
}

#[derive(Debug, Clone)]
struct Conversation {
    system: Option<String>,
    tools: Vec<(String, Value)>,
    turns: Vec<Turn>,
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z \\n\\t\"\\\\/]{0,40}",
        2 => "[ -~é…😀\u{1}\u{7f}]{0,200}",
        1 => "[a-z ]{150,400}",
    ]
}

fn free() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"é]{0,6}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    });
    prop::collection::btree_map("[a-z\n]{1,6}", value, 0..4).prop_map(|map| json!(map))
}

fn turns() -> impl Strategy<Value = Turn> {
    let part = prop_oneof![
        3 => texts().prop_map(Part::Text),
        1 => "[A-Za-z0-9+/]{1,120}".prop_map(Part::Image),
    ];
    let call = ("[a-z0-9]{1,8}", "[a-z_]{1,8}", free()).prop_map(|(id, name, arguments)| Call {
        id,
        name,
        arguments,
    });
    prop_oneof![
        3 => prop::collection::vec(part, 1..4).prop_map(Turn::User),
        2 => (texts(), prop::collection::vec(call, 0..3)).prop_map(|(text, calls)| Turn::Assistant(text, calls)),
        1 => ("[a-z0-9]{1,8}", texts()).prop_map(|(id, text)| Turn::Result(id, text)),
    ]
}

fn conversations() -> impl Strategy<Value = Conversation> {
    let tools = prop::collection::vec(("[a-z]{1,8}", free()), 0..3);
    (
        prop::option::of(texts()),
        tools,
        prop::collection::vec(turns(), 0..6),
    )
        .prop_map(|(system, tools, turns)| Conversation {
            system,
            tools,
            turns,
        })
}

fn openai_part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(data) => {
            json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}})
        }
    }
}

fn openai(talk: &Conversation) -> Value {
    let system = talk
        .system
        .iter()
        .map(|text| json!({"role": "system", "content": text}));
    let turns = talk.turns.iter().map(|turn| match turn {
        Turn::User(parts) => {
            json!({"role": "user", "content": parts.iter().map(openai_part).collect::<Vec<_>>()})
        }
        Turn::Assistant(text, calls) => {
            let calls = calls.iter().map(|call| {
                let function = json!({"name": call.name, "arguments": call.arguments.to_string()});
                json!({"id": call.id, "type": "function", "function": function})
            });
            json!({"role": "assistant", "content": text, "tool_calls": calls.collect::<Vec<_>>()})
        }
        Turn::Result(id, text) => json!({"role": "tool", "tool_call_id": id, "content": text}),
    });
    let messages: Vec<Value> = system.chain(turns).collect();
    let tools = talk.tools.iter().map(|(name, parameters)| {
        json!({"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}})
    });
    json!({"model": "mé", "cache_salt": "s\n", "messages": messages, "tools": tools.collect::<Vec<_>>(), "stream": true})
}

fn anthropic(talk: &Conversation) -> Value {
    let messages = talk.turns.iter().map(|turn| match turn {
        Turn::User(parts) => {
            let blocks = parts.iter().map(|part| match part {
                Part::Text(text) => json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}),
                Part::Image(data) => {
                    json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
                }
            });
            json!({"role": "user", "content": blocks.collect::<Vec<_>>()})
        }
        Turn::Assistant(text, calls) => {
            let calls = calls
                .iter()
                .map(|call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}));
            let blocks = calls.chain([json!({"type": "text", "text": text})]);
            json!({"role": "assistant", "content": blocks.collect::<Vec<_>>()})
        }
        Turn::Result(id, text) => {
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": text}]})
        }
    });
    let tools = talk
        .tools
        .iter()
        .map(|(name, schema)| json!({"name": name, "description": "d", "input_schema": schema}));
    json!({
        "model": "mé", "cache_salt": "s\n", "max_tokens": 7, "system": talk.system,
        "messages": messages.collect::<Vec<_>>(), "tools": tools.collect::<Vec<_>>(),
    })
}

fn responses(talk: &Conversation) -> Value {
    let items = talk.turns.iter().flat_map(|turn| match turn {
        Turn::User(parts) => {
            let parts = parts.iter().map(|part| match part {
                Part::Text(text) => json!({"type": "input_text", "text": text}),
                Part::Image(data) => {
                    json!({"type": "input_image", "image_url": format!("data:image/png;base64,{data}")})
                }
            });
            vec![json!({"role": "user", "content": parts.collect::<Vec<_>>()})]
        }
        Turn::Assistant(text, calls) => {
            let message = json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]});
            let calls = calls.iter().map(|call| {
                let arguments = call.arguments.to_string();
                json!({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
            });
            [message].into_iter().chain(calls).collect()
        }
        Turn::Result(id, text) => vec![json!({"type": "function_call_output", "call_id": id, "output": text})],
    });
    let tools = talk
        .tools
        .iter()
        .map(|(name, schema)| json!({"type": "function", "name": name, "description": "d", "parameters": schema}));
    json!({
        "model": "mé", "cache_salt": "s\n", "instructions": talk.system,
        "input": items.collect::<Vec<_>>(), "tools": tools.collect::<Vec<_>>(),
    })
}

// --------------------------------------------------------------------------- properties

fn prompt(route: Route, body: &[u8]) -> Blocks {
    let digest = read(route, body).unwrap();
    Blocks {
        hashes: digest.blocks,
        chain: digest.chain,
        tail: digest.tail,
        bytes: digest.prompt_bytes,
    }
}

fn is_json(bytes: &[u8]) -> bool {
    let mut tape = Tape::default();
    let mut scan = Scan::new(bytes, &mut tape);
    scan.skip_space();
    str::from_utf8(bytes).is_ok() && scan.value(0).and_then(|()| scan.end()).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_chat_has_the_oracles_blocks_however_it_is_written(talk in conversations(), seed: u64) {
        let body = openai(&talk);
        let expected = blocks_of(&body);
        prop_assert_eq!(prompt(Route::ChatCompletions, body.to_string().as_bytes()), expected.clone());
        prop_assert_eq!(prompt(Route::ChatCompletions, &Writer::write(seed, &body)), expected);
    }

    #[test]
    fn every_form_of_a_conversation_has_the_same_blocks(talk in conversations(), seed: u64) {
        let expected = prompt(Route::ChatCompletions, openai(&talk).to_string().as_bytes());
        prop_assert_eq!(prompt(Route::Messages, &Writer::write(seed, &anthropic(&talk))), expected.clone());
        prop_assert_eq!(prompt(Route::Responses, &Writer::write(seed, &responses(&talk))), expected);
    }

    #[test]
    fn a_longer_conversation_extends_the_shorter_one(talk in conversations(), more in prop::collection::vec(turns(), 0..3)) {
        let short = prompt(Route::ChatCompletions, openai(&talk).to_string().as_bytes());
        let mut longer = talk;
        longer.turns.extend(more);
        let long = prompt(Route::ChatCompletions, openai(&longer).to_string().as_bytes());
        prop_assert!(long.hashes.starts_with(&short.hashes));
    }

    #[test]
    fn a_scratch_used_before_changes_nothing(talks in prop::collection::vec((conversations(), any::<u64>()), 2..4)) {
        let mut scratch = Scratch::default();
        for (talk, seed) in talks {
            let body = Writer::write(seed, &openai(&talk));
            let again = digest(&Envelope::new(Route::ChatCompletions, None), &body, &config(), &mut scratch).unwrap();
            prop_assert_eq!(again, read(Route::ChatCompletions, &body).unwrap());
        }
    }

    /// But for the range of numbers, which is the engine's to judge.
    #[test]
    fn verdicts_on_damaged_json_agree_with_serde_json(talk in conversations(), seed: u64, damage in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, prop::sample::select(b"{}[]\",:\\u0123eE+-.tfn \n\x00\x1f\x7f\x80\xc3\xff/ud83D".to_vec())), 0..3)) {
        let mut body = Writer::write(seed, &openai(&talk));
        for (at, kind, byte) in damage {
            let at = at.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => body.truncate(at + 1),
            }
        }
        let verdict = serde_json::from_slice::<Value>(&body);
        let out_of_range = verdict.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        prop_assume!(!out_of_range);
        prop_assert_eq!(is_json(&body), verdict.is_ok(), "{:?}", String::from_utf8_lossy(&body));
        if verdict.is_err() {
            prop_assert!(read(Route::ChatCompletions, &body).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(body in prop::collection::vec(any::<u8>(), 0..300), route in 2_u8..20) {
        let routes = [
            Route::ChatCompletions, Route::Completions, Route::Responses, Route::Messages, Route::CountTokens,
            Route::Embeddings, Route::Rerank, Route::Score, Route::Transcriptions, Route::Translations,
            Route::Speech, Route::Pooling, Route::Classify, Route::Tokenize, Route::Detokenize, Route::Generate,
        ];
        let route = routes[usize::from(route) % routes.len()];
        let content_type = match route {
            Route::Transcriptions | Route::Translations => &b"multipart/form-data; boundary=a"[..],
            _ => b"application/json",
        };
        let read = digest(&Envelope::new(route, Some(content_type)), &body, &config(), &mut Scratch::default());
        prop_assert!(read.is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_body_cut_anywhere_is_refused(talk in conversations(), seed: u64) {
        let body = Writer::write(seed, &anthropic(&talk));
        let whole = body.iter().rposition(|&byte| byte == b'}').unwrap();
        for end in 0..=whole {
            let error = read(Route::Messages, &body[..end]).unwrap_err();
            prop_assert!(["empty_body", "invalid_json"].contains(&error.code), "{}", error);
        }
    }
}
