//! Answers against the prompts that contain them.
//!
//! A relay may get an answer in any form, and cut anywhere. What it makes of the answer must be what the
//! next turn's body has at that place.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Envelope, Scratch, digest, edited};
use super::*;
use crate::http::route::Route;
use crate::relay::{Options, Relay};
use forms::*;

mod forms;

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
    digest(
        &Envelope::new(route, None),
        body.as_bytes(),
        &config(),
        &mut scratch,
    )
    .unwrap()
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
fn usage_is_asked_for_where_the_client_says_nothing_and_where_it_counts_in_any_case() {
    let asked = |body: &str, counts: bool| {
        let digest = digest(
            &Envelope::new(Route::ChatCompletions, None),
            body.as_bytes(),
            &config(),
            &mut Scratch::default(),
        );
        let digest = digest.unwrap();
        let edits = digest.usage_changes(true, counts);
        assert!(digest.usage_changes(false, false).is_empty());
        let body = edited(body.as_bytes(), edits.iter().collect());
        (!edits.is_empty()).then(|| String::from_utf8(body).unwrap())
    };
    let spliced = |body: &str| {
        let wanted = asked(body, false);
        assert!(wanted.is_none() || wanted == asked(body, true));
        wanted
    };
    assert_eq!(
        spliced(r#" { "model":"m","stream":true}"#).unwrap(),
        r#" {"stream_options":{"include_usage":true}, "model":"m","stream":true}"#
    );
    assert_eq!(
        spliced(r#"{"stream_options":{},"model":"m","stream":true,"stream_options":{}}"#).unwrap(),
        concat!(
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true,"#,
            r#""stream_options":{"include_usage":true}}"#
        )
    );
    assert_eq!(
        spliced(r#"{"stream_options": { },"model":"m","stream":true}"#).unwrap(),
        r#"{"stream_options": {"include_usage":true },"model":"m","stream":true}"#
    );
    assert_eq!(
        spliced(r#"{"model":"m","stream":true,"stream_options":{"x":[1]}}"#).unwrap(),
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":[1]}}"#
    );
    for (options, sent) in [
        ("null", r#"{"include_usage":true}"#),
        (
            r#"{"x":1,"include_usage": null}"#,
            r#"{"x":1,"include_usage": true}"#,
        ),
    ] {
        let body = |options| format!(r#"{{"stream":true,"stream_options":{options},"model":"m"}}"#);
        assert_eq!(spliced(&body(options)), Some(body(sent)));
    }
    for body in [
        r#"{"model":"m"}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":"yes"}}"#,
    ] {
        assert_eq!(spliced(body), None, "{body}");
        assert_eq!(asked(body, true), None, "{body}");
    }
    for (declined, sent) in [
        (r#"{"include_usage":false}"#, r#"{"include_usage":true}"#),
        (
            r#"{"include\u005fusage" : "no" ,"x":1,"include_usage":"no"}"#,
            r#"{"include\u005fusage" : true ,"x":1,"include_usage":true}"#,
        ),
    ] {
        let body = |options| {
            format!(
                r#"{{"stream_options":{options},"stream":true,"model":"m","stream_options":{options}}}"#
            )
        };
        assert_eq!(spliced(&body(declined)), None);
        assert_eq!(asked(&body(declined), true), Some(body(sent)));
    }
}

#[test]
fn an_event_may_have_as_many_tokens_as_the_body_asks_for() {
    for (said, tokens) in [
        ("", 1),
        (r#","stream_interval":1000"#, 1_000),
        (r#","stream_interval":"8""#, 8),
        (r#","stream_interval":0"#, 1),
        (r#","stream_interval":-3"#, 1),
        (r#","stream_interval":[9]"#, 1),
        (r#","stream_interval":null"#, 1),
        (r#","stream_interval":99999999999"#, u32::MAX),
    ] {
        let body = format!(r#"{{"model":"m","stream":true{said}}}"#);
        let digest = digest(
            &Envelope::new(Route::Completions, None),
            body.as_bytes(),
            &config(),
            &mut Scratch::default(),
        );
        assert_eq!(digest.unwrap().event_tokens, tokens, "{said}");
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
