//! What is withheld of a stream that may go on: its first events, until one has text.

use std::sync::Arc;

use serde_json::json;

use super::continuing::{PROMPT, feed, first, pool, says, unended, wire};
use super::*;
use crate::prompt::continuing::Form;

#[test]
fn the_ids_of_a_long_prompt_are_withheld_and_kept() {
    let pool = Arc::new(Pool::new(1 << 22, 100_000));
    let prompt: Vec<u32> = (0..90_000).map(|id| 100_000 + id).collect();
    let event = json!({"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "prompt_token_ids": prompt});
    let text = json!({"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": "hi"}, "token_ids": [7]}]});
    let events = [format!("data: {event}\n\n"), format!("data: {text}\n\n")];
    assert!(events[0].len() > WITHHELD_BYTES_MAX);
    let mut client = Client::default();
    let mut relay = first(Form::Chat, false, &pool);
    feed(&mut relay, &mut client, &wire(&events), &[4096]);
    assert_eq!(relay.kept().unwrap().given(), (90_000, 1));
    assert!(client.bytes.len() < 4096, "no id is told");
}

#[test]
fn until_an_event_has_text_another_attempt_can_be_made() {
    let events = says(Form::Chat, &PROMPT, 6, &[1], true);
    let mut client = Client::default();
    let mut relay = first(Form::Chat, false, &pool());
    feed(
        &mut relay,
        &mut client,
        unended(&wire(&events[..1])),
        &[1 << 20],
    );
    assert!(client.bytes.is_empty(), "it may begin with reasoning");
}
