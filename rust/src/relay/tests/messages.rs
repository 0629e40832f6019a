//! Streams of `/v1/messages` that go on at another replica, by their text.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::continuing::{PROMPT, feed, next, pool, says, wire};
use super::*;
use crate::prompt::continuing::{Form, Reason};

fn named(event: &Value) -> String {
    let name = event["type"].as_str().unwrap();
    format!("event: {name}\ndata: {event}\n\n")
}

/// What vLLM writes of an answer of so many tokens.
fn message(tokens: usize) -> Vec<String> {
    let start = json!({"type": "message_start", "message": {"id": "chatcmpl-a", "content": [], "model": "m",
        "usage": {"input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 0}}});
    let block = json!({"type": "text", "text": ""});
    let mut events = vec![
        named(&start),
        named(&json!({"type": "content_block_start", "content_block": block, "index": 0})),
    ];
    let mut ids = PROMPT.to_vec();
    for _ in 0..tokens {
        ids.push(next(&ids));
        if let Some(text) = text_of(*ids.last().unwrap()) {
            let delta = json!({"type": "text_delta", "text": text});
            events.push(named(
                &json!({"type": "content_block_delta", "delta": delta, "index": 0}),
            ));
        }
    }
    let delta = json!({"stop_reason": "max_tokens", "stop_sequence": null});
    let usage = json!({"input_tokens": 3, "output_tokens": tokens});
    events.push(named(&json!({"type": "content_block_stop", "index": 0})));
    events.push(named(
        &json!({"type": "message_delta", "delta": delta, "usage": usage}),
    ));
    events.push(named(&json!({"type": "message_stop"})));
    events
}

fn text_of(id: u32) -> Option<String> {
    match id {
        1001 | 1002 => None,
        1003 => Some("\u{20ac}".to_owned()),
        id => Some(format!("{id} ")),
    }
}

/// The tokens of a text: here each text has its own.
fn tokens_of(text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut number = String::new();
    for char in text.chars() {
        match char {
            '\u{20ac}' => ids.extend([1001, 1002, 1003]),
            ' ' => ids.push(std::mem::take(&mut number).parse().unwrap()),
            digit => number.push(digit),
        }
    }
    ids
}

/// Answers as a tokenizer does; whether something was asked.
fn reply(relay: &mut Relay) -> bool {
    let Some((path, body)) = relay.kept().unwrap().asks("m") else {
        return false;
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    if path == "/detokenize" {
        let ids = body["tokens"].as_array().unwrap();
        let within = matches!(ids.last().unwrap().as_u64(), Some(1001 | 1002));
        let text = if within { "a\u{fffd}" } else { "a" };
        assert!(relay.replied(200, json!({"prompt": text}).to_string().as_bytes()));
        return true;
    }
    assert_eq!(body["model"], "m");
    let ids = match body["prompt"].as_str() {
        Some(text) => tokens_of(text),
        None => PROMPT.to_vec(),
    };
    let answer = json!({"count": ids.len(), "tokens": ids}).to_string();
    assert!(!relay.replied(200, b"{}"), "an answer without ids is none");
    assert!(relay.replied(200, answer.as_bytes()));
    true
}

fn begun(pool: &Arc<Pool>) -> Relay {
    let options = Options {
        anthropic: true,
        ..HTTP11
    };
    let mut relay = Relay::new(options, "id");
    let question = Question::new(Box::from(&b"\"messages\":[]"[..]), pool).unwrap();
    relay.keep(Kept::by_text(&question, pool));
    relay
}

/// A client's reading: the text, and the rest of each event.
fn hear(body: &[u8]) -> (String, Vec<Value>) {
    let (mut text, mut rest) = (String::new(), Vec::new());
    for event in std::str::from_utf8(body).unwrap().split("\n\n") {
        let Some((name, data)) = event.split_once("\ndata: ") else {
            assert!(event.is_empty(), "{event}");
            continue;
        };
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name.strip_prefix("event: "), event["type"].as_str());
        match event["delta"]["text"].as_str() {
            Some(more) => {
                assert_eq!(event["index"], 0);
                text += more;
            }
            None => rest.push(event),
        }
    }
    (text, rest)
}

/// A stream that is cut at each of `cuts`, a part of what is left of it.
fn cut_and_go_on(
    tokens: usize,
    cuts: &[prop::sample::Index],
    merged: &[usize],
    pieces: &[usize],
) -> Vec<u8> {
    let pool = pool();
    let mut client = Client::default();
    let mut relay = begun(&pool);
    let mut given: Option<Vec<u32>> = None;
    let mut events = message(tokens);
    for cut in cuts {
        let whole = wire(&events);
        let end = cut.index(whole.len());
        if feed(&mut relay, &mut client, &whole[..end], pieces) {
            return client.body().0;
        }
        if client.bytes.is_empty() {
            relay = begun(&pool); // another attempt at the whole
            continue;
        }
        if let Some(rest) = relay.finish() {
            client.bytes.extend_from_slice(&rest);
            return client.body().0;
        }
        assert_eq!(relay.refusal(), None);
        relay.suspend();
        while reply(&mut relay) {}
        assert_eq!(relay.refusal(), None);
        let (prompt, answer) = relay.kept().unwrap().ids();
        let ids = [prompt, answer].concat();
        if answer.len() == tokens {
            assert!(relay.fill());
            client.bytes.extend_from_slice(&relay.finish().unwrap());
            return client.body().0;
        }
        events = says(Form::Text, &ids, tokens, merged, true);
        given = Some(ids);
        let mut then = Relay::new(relay.options, "id");
        then.go_on(&mut relay);
        relay = then;
    }
    drop(given);
    assert!(feed(&mut relay, &mut client, &wire(&events), pieces));
    drop(relay);
    assert_eq!(pool.bytes(), 0);
    let (body, ended) = client.body();
    assert!(ended);
    body
}

proptest! {
    #[test]
    fn a_message_that_goes_on_is_one_message_wherever_it_is_cut(
        tokens in 1_usize..30,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        merged in prop::collection::vec(1_usize..4, 1..4),
        pieces in prop::collection::vec(1_usize..300, 1..5),
    ) {
        let body = cut_and_go_on(tokens, &cuts, &merged, &pieces);
        let (text, rest) = hear(&body);
        let (whole, events) = hear(message(tokens).concat().as_bytes());
        if whole.is_empty() {
            return Ok(()); // its text ends within a character: it has no other
        }
        prop_assert_eq!(text, whole);
        prop_assert_eq!(rest, events);
    }
}

#[test]
fn every_byte_of_a_message_may_be_its_last() {
    let whole = wire(&message(4));
    let expected = hear(message(4).concat().as_bytes());
    for at in 0..whole.len() {
        let mut client = Client::default();
        let mut relay = begun(&pool());
        feed(&mut relay, &mut client, &whole[..at], &[at.max(1)]);
        if client.bytes.is_empty() {
            continue;
        }
        if relay
            .finish()
            .map(|rest| client.bytes.extend_from_slice(&rest))
            .is_none()
        {
            relay.suspend();
            while reply(&mut relay) {}
            let (prompt, answer) = relay.kept().unwrap().ids();
            let given = [prompt, answer].concat();
            if answer.len() == 4 {
                assert!(relay.fill());
                client.bytes.extend_from_slice(&relay.finish().unwrap());
            } else {
                let mut then = Relay::new(relay.options, "id");
                then.go_on(&mut relay);
                let rest = wire(&says(Form::Text, &given, 4, &[1], true));
                assert!(feed(&mut then, &mut client, &rest, &[rest.len()]));
            }
        }
        let (body, ended) = client.body();
        assert!(ended);
        assert_eq!(hear(&body), expected, "cut at {at}");
    }
}

#[test]
fn a_message_that_has_more_than_text_says_why_it_does_not_go_on() {
    let start = &message(1)[0];
    let block = |block: Value| {
        named(&json!({"type": "content_block_start", "content_block": block, "index": 0}))
    };
    for (event, reason) in [
        (
            block(json!({"type": "thinking", "thinking": ""})),
            Reason::Reasoning,
        ),
        (block(json!({"type": "tool_use", "id": "a"})), Reason::Tools),
        (named(&json!({"type": "of_tomorrow"})), Reason::Field),
        ("data: no json\n\n".to_owned(), Reason::NoIds),
    ] {
        let mut relay = begun(&pool());
        relay.feed(
            &[
                sse_head(CHUNKED_LINE),
                chunk((start.clone() + &event).as_bytes()),
            ]
            .concat(),
        );
        assert_eq!(relay.refusal(), Some(reason), "{event}");
        let out = relay.take();
        assert!(
            String::from_utf8(out).unwrap().contains(&event),
            "it is passed on"
        );
    }
}

#[test]
fn a_prompt_that_the_replica_makes_otherwise_is_not_gone_on_with() {
    for (status, body) in [
        (200, json!({"count": 4, "tokens": [1, 2, 3, 4]})),
        (404, json!({})),
    ] {
        let mut client = Client::default();
        let mut relay = begun(&pool());
        feed(&mut relay, &mut client, &wire(&message(4)[..4]), &[1 << 20]);
        relay.suspend();
        assert!(relay.replied(status, body.to_string().as_bytes()));
        assert_eq!(relay.refusal(), Some(Reason::Prompt));
    }
}

#[test]
fn of_a_text_beyond_the_bound_nothing_is_kept() {
    let pool = Arc::new(Pool::new(14, 100));
    let mut relay = begun(&pool);
    let mut client = Client::default();
    feed(&mut relay, &mut client, &wire(&message(9)[..5]), &[1 << 20]);
    assert_eq!(relay.refusal(), Some(Reason::BytesMax));
    assert_eq!(pool.bytes(), 0);
}

#[test]
fn a_question_is_charged_once_as_long_as_anybody_keeps_it() {
    let pool = Arc::new(Pool::new(10, 100));
    assert!(Question::new(Box::from([0; 11]), &pool).is_none());
    assert_eq!(pool.bytes(), 0);
    let question = Question::new(Box::from([0; 10]), &pool).unwrap();
    let kept = Kept::by_text(&question, &pool);
    assert_eq!(pool.bytes(), 10);
    drop(question);
    assert_eq!(pool.bytes(), 10);
    drop(kept);
    assert_eq!(pool.bytes(), 0);
}

#[test]
fn a_ping_passes_the_end_of_a_block_that_waits() {
    let mut client = Client::default();
    let mut relay = begun(&pool());
    let mut events = message(2);
    let at = events.len() - 2; // behind the end of the block
    events.insert(at, named(&json!({"type": "ping"})));
    feed(&mut relay, &mut client, &wire(&events[..=at]), &[1 << 20]);
    let heard = String::from_utf8(client.bytes.clone()).unwrap();
    assert!(heard.contains("ping"));
    assert!(!heard.contains("content_block_stop"), "{heard}");
    assert_eq!(relay.refusal(), None);
}

#[test]
fn what_the_replica_that_goes_on_says_of_a_failure_is_an_event_of_the_message() {
    let mut client = Client::default();
    let mut relay = begun(&pool());
    let begins = wire(&message(4)[..4]);
    let begins = begins.strip_suffix(b"0\r\n\r\n").unwrap();
    feed(&mut relay, &mut client, begins, &[1 << 20]);
    relay.suspend();
    while reply(&mut relay) {}
    let mut then = Relay::new(relay.options, "id");
    then.go_on(&mut relay);
    let error = json!({"error": {"message": "too long", "type": "BadRequestError", "code": 400}});
    let events = [format!("data: {error}\n\n"), "data: [DONE]\n\n".to_owned()];
    assert!(feed(&mut then, &mut client, &wire(&events), &[1 << 20]));
    let (body, ended) = client.body();
    assert!(ended);
    let (_, rest) = hear(&body); // each event has its name
    let last = rest.last().unwrap();
    assert_eq!(last["type"], "error");
    assert_eq!(last["error"]["type"], "invalid_request_error");
    assert_eq!(last["error"]["message"], "too long");
}
