//! Streams that go on at another replica: against an engine that is a function of ids.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::prompt::continuing::{Form, Reason};

pub(super) const PROMPT: [u32; 3] = [11, 12, 13];
/// The three bytes of a character, each a token.
const PARTS: [u32; 3] = [1001, 1002, 1003];

/// The next token: it depends on all before, so that one too many or too few changes all behind.
pub(super) fn next(ids: &[u32]) -> u32 {
    match ids.last() {
        Some(1001) => 1002,
        Some(1002) => 1003,
        _ => {
            let hash = ids.iter().fold(7_u32, |hash, id| {
                hash.wrapping_mul(31).wrapping_add(*id) ^ (hash >> 7)
            });
            match hash % 5 {
                0 => PARTS[0],
                _ => 100 + hash % 800,
            }
        }
    }
}

/// What an engine that is given `ids` says, `tokens` in all behind the prompt, so many in each event.
pub(super) fn says(
    form: Form,
    ids: &[u32],
    tokens: usize,
    sizes: &[usize],
    asked: bool,
) -> Vec<String> {
    let text = |choice: Value, told: Value| {
        let (object, id) = match form {
            Form::Chat => ("chat.completion.chunk", "chatcmpl-a"),
            Form::Text | Form::Messages => ("text_completion", "cmpl-b"),
        };
        let mut event =
            json!({"id": id, "object": object, "created": 5, "model": "m", "choices": [choice]});
        if told != Value::Null && form == Form::Chat {
            event["prompt_token_ids"] = told;
        }
        format!("data: {event}\n\n")
    };
    let told = |ids: &[u32]| if asked { json!(ids) } else { Value::Null };
    let mut events = Vec::new();
    if form == Form::Chat {
        let choice = json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null});
        events.push(text(choice, told(ids)));
    }
    let mut all = ids.to_vec();
    // An engine that begins within a character tells its whole prompt along with that.
    let mut open = String::new();
    if matches!(ids.last(), Some(1001 | 1002)) {
        open.push_str("the whole prompt");
    }
    let end = PROMPT.len() + tokens;
    let mut sizes = sizes.iter().cycle();
    while all.len() < end {
        let len = (*sizes.next().unwrap()).min(end - all.len());
        let mut said = String::new();
        let from = all.len();
        for _ in 0..len {
            let id = next(&all);
            all.push(id);
            match id {
                1001 | 1002 => {}
                1003 => said += &(open.clone() + "\u{20ac}"),
                id => said += &(open.clone() + &id.to_string() + " "),
            }
            if !matches!(id, 1001 | 1002) {
                open.clear();
            }
        }
        let finish = if all.len() == end {
            json!("length")
        } else {
            Value::Null
        };
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": finish, "token_ids": told(&all[from..])});
        match form {
            Form::Chat => choice["delta"] = json!({"content": said}),
            Form::Text | Form::Messages => {
                choice["text"] = json!(said);
                choice["stop_reason"] = Value::Null;
                choice["prompt_token_ids"] = if from == ids.len() {
                    told(ids)
                } else {
                    Value::Null
                };
            }
        }
        events.push(text(choice, Value::Null));
    }
    let mut usage: Value = serde_json::from_str(&text(Value::Null, Value::Null)[6..]).unwrap();
    usage["choices"] = json!([]);
    let (prompt, answer) = (ids.len(), all.len() - ids.len());
    usage["usage"] = json!({"prompt_tokens": prompt, "total_tokens": prompt + answer, "completion_tokens": answer});
    events.push(format!("data: {usage}\n\n"));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

pub(super) fn wire(events: &[String]) -> Vec<u8> {
    let chunks = events.iter().map(|event| chunk(event.as_bytes()));
    let body: Vec<u8> = chunks.flatten().collect();
    [sse_head(CHUNKED_LINE), body, b"0\r\n\r\n".to_vec()].concat()
}

/// Without the end of its framing.
pub(super) fn unended(wire: &[u8]) -> &[u8] {
    wire.strip_suffix(b"0\r\n\r\n").unwrap()
}

/// What a client reads of a stream.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    text: String,
    ids: Vec<u32>,
    roles: usize,
    finishes: Vec<String>,
    usages: Vec<Value>,
    names: Vec<String>,
    dones: usize,
}

fn hear(body: &[u8]) -> Heard {
    let mut heard = Heard::default();
    for event in std::str::from_utf8(body).unwrap().split("\n\n") {
        let Some(data) = event.strip_prefix("data: ") else {
            assert!(event.is_empty() || event.starts_with(':'), "{event}");
            continue;
        };
        if data == "[DONE]" {
            heard.dones += 1;
            continue;
        }
        assert_eq!(heard.dones, 0, "nothing behind the end");
        let event: Value = serde_json::from_str(data).unwrap();
        let name = format!(
            "{} {} {} {}",
            event["id"], event["object"], event["created"], event["model"]
        );
        if heard.names.last() != Some(&name) {
            heard.names.push(name);
        }
        if event["usage"].is_object() {
            heard.usages.push(event["usage"].clone());
        }
        for choice in event["choices"].as_array().unwrap() {
            heard.roles += usize::from(choice["delta"]["role"].is_string());
            let text = choice["text"]
                .as_str()
                .or(choice["delta"]["content"].as_str());
            heard.text.push_str(text.unwrap());
            let ids = choice["token_ids"].as_array().cloned().unwrap_or_default();
            let ids = ids
                .iter()
                .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap());
            heard.ids.extend(ids);
            if let Some(reason) = choice["finish_reason"].as_str() {
                heard.finishes.push(reason.to_owned());
            }
        }
    }
    heard
}

pub(super) fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(1 << 20, 10_000))
}

pub(super) fn first(form: Form, shows_ids: bool, pool: &Arc<Pool>) -> Relay {
    let mut relay = Relay::new(HTTP11, "id");
    relay.keep(Kept::new(form, (shows_ids, true), pool));
    relay
}

/// Feeds `wire` in pieces of these sizes; whether the response is complete.
pub(super) fn feed(relay: &mut Relay, client: &mut Client, wire: &[u8], sizes: &[usize]) -> bool {
    let mut rest = wire;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = behind;
        let flags = relay.feed(part);
        assert_eq!(flags & FEED_FAILED, 0);
        client.write(relay, flags, part);
        if flags & FEED_DONE != 0 {
            return true;
        }
    }
    false
}

/// Answers what a relay asks of its last ids, as an engine's tokenizer does.
fn settle(relay: &mut Relay) {
    while let Some(ids) = relay.kept().unwrap().question() {
        relay.answered(!matches!(ids.last(), Some(1001 | 1002)));
    }
}

/// A stream that is cut at each of `cuts`, a part of what is left of it, and goes on elsewhere each time.
///
/// What its client has heard, and why the stream went on no more, if it did not.
fn cut_and_go_on(
    (form, shows_ids, tokens): (Form, bool, usize),
    cuts: &[prop::sample::Index],
    (merged, pieces): (&[usize], &[usize]),
    pool: &Arc<Pool>,
) -> (Heard, Option<Reason>) {
    let mut client = Client::default();
    let mut relay = first(form, shows_ids, pool);
    let mut given = PROMPT.to_vec();
    let mut asked_form = form;
    for cut in cuts {
        let whole = wire(&says(asked_form, &given, tokens, merged, true));
        let end = cut.index(whole.len());
        if feed(&mut relay, &mut client, &whole[..end], pieces) {
            return (hear(&client.body().0), None);
        }
        if client.bytes.is_empty() {
            relay = first(form, shows_ids, pool); // another attempt at the whole
            continue;
        }
        if let Some(rest) = relay.finish() {
            client.bytes.extend_from_slice(&rest);
            return (hear(&client.body().0), None);
        }
        if let Some(reason) = relay.refusal() {
            return (hear(&client.body().0), Some(reason));
        }
        relay.suspend();
        settle(&mut relay);
        if let Some(reason) = relay.refusal() {
            return (hear(&client.body().0), Some(reason));
        }
        let (prompt, answer) = relay.kept().unwrap().ids();
        given = [prompt, answer].concat();
        asked_form = Form::Text;
        let mut then = Relay::new(HTTP11, "id");
        then.go_on(&mut relay);
        relay = then;
    }
    let whole = wire(&says(asked_form, &given, tokens, merged, true));
    assert!(feed(&mut relay, &mut client, &whole, pieces));
    let (body, ended) = client.body();
    assert!(ended);
    (hear(&body), None)
}

fn expected(form: Form, shows_ids: bool, tokens: usize) -> Heard {
    let unasked = says(form, &PROMPT, tokens, &[1], shows_ids);
    hear(unasked.concat().as_bytes())
}

fn form() -> impl Strategy<Value = Form> {
    prop::sample::select(vec![Form::Chat, Form::Text])
}

proptest! {
    #[test]
    fn a_stream_that_goes_on_gives_each_token_once_wherever_it_is_cut(
        form in form(),
        shows_ids: bool,
        tokens in 1_usize..40,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        pieces in prop::collection::vec(1_usize..200, 1..5),
    ) {
        let pool = pool();
        let asked = (form, shows_ids, tokens);
        let (heard, refusal) = cut_and_go_on(asked, &cuts, (&[1], &pieces), &pool);
        prop_assert_eq!(refusal, None);
        prop_assert_eq!(heard, expected(form, shows_ids, tokens));
        prop_assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn with_several_tokens_in_an_event_it_goes_on_exactly_or_not_at_all(
        form in form(),
        shows_ids: bool,
        tokens in 1_usize..40,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        merged in prop::collection::vec(1_usize..5, 1..4),
        pieces in prop::collection::vec(1_usize..400, 1..5),
    ) {
        let pool = pool();
        let asked = (form, shows_ids, tokens);
        let (heard, refusal) = cut_and_go_on(asked, &cuts, (&merged, &pieces), &pool);
        let whole = expected(form, shows_ids, tokens);
        match refusal {
            None => prop_assert_eq!(heard, whole),
            Some(reason) => {
                prop_assert_eq!(reason, Reason::Boundary);
                prop_assert!(shows_ids, "only a client that has the ids cannot do without one");
                prop_assert!(whole.text.starts_with(&heard.text));
                prop_assert!(whole.ids.starts_with(&heard.ids));
            }
        }
        prop_assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn a_stream_that_is_not_cut_is_as_without_asking_for_ids(
        form in form(),
        shows_ids: bool,
        tokens in 1_usize..20,
        pieces in prop::collection::vec(1_usize..200, 1..5),
    ) {
        let mut client = Client::default();
        let mut relay = first(form, shows_ids, &pool());
        let told = wire(&says(form, &PROMPT, tokens, &[1], true));
        prop_assert!(feed(&mut relay, &mut client, &told, &pieces));
        let unasked = says(form, &PROMPT, tokens, &[1], shows_ids).concat();
        let body = String::from_utf8(client.body().0).unwrap();
        // Of an engine that is not asked, the first event of a chat has no ids at all here.
        prop_assert_eq!(body.replace(",\"prompt_token_ids\":null", ""), unasked.replace(",\"prompt_token_ids\":null", ""));
    }
}

#[test]
fn every_byte_of_a_stream_may_be_its_last() {
    for form in [Form::Chat, Form::Text] {
        for shows_ids in [false, true] {
            let whole = wire(&says(form, &PROMPT, 4, &[1], true));
            let expected = expected(form, shows_ids, 4);
            for at in 0..whole.len() {
                let mut client = Client::default();
                let mut relay = first(form, shows_ids, &pool());
                feed(&mut relay, &mut client, &whole[..at], &[at.max(1)]);
                if client.bytes.is_empty() {
                    continue;
                }
                if let Some(rest) = relay.finish() {
                    client.bytes.extend_from_slice(&rest);
                } else {
                    assert_eq!(relay.refusal(), None, "{at}");
                    relay.suspend();
                    let (prompt, answer) = relay.kept().unwrap().ids();
                    let given = [prompt, answer].concat();
                    let mut then = Relay::new(HTTP11, "id");
                    then.go_on(&mut relay);
                    let rest = wire(&says(Form::Text, &given, 4, &[1], true));
                    assert!(feed(&mut then, &mut client, &rest, &[rest.len()]));
                }
                let (body, ended) = client.body();
                assert!(ended);
                assert_eq!(hear(&body), expected, "cut at {at}");
            }
        }
    }
}

#[test]
fn an_error_in_the_stream_is_not_passed_on_where_another_replica_can_go_on() {
    let mut client = Client::default();
    let mut relay = first(Form::Chat, false, &pool());
    let events = says(Form::Chat, &PROMPT, 6, &[1], true);
    let died = "data: {\"error\": {\"message\": \"the engine died\", \"code\": 500}}\n\n";
    let sent = [
        sse_head(CHUNKED_LINE),
        chunk((events[..3].concat() + died).as_bytes()),
    ]
    .concat();
    let flags = relay.feed(&sent);
    assert_eq!(
        flags & (FEED_FAILED | FEED_FIRST_BYTE),
        FEED_FAILED | FEED_FIRST_BYTE
    );
    client.write(&mut relay, flags, &sent);
    assert_eq!(hear(&client.body().0).ids, [] as [u32; 0]);
    assert_eq!(relay.refusal(), None);
    assert_eq!(relay.failed(), Some(500), "in whatever pieces it came");
    relay.suspend();
    assert_eq!(relay.failed(), None);
    assert_eq!(relay.kept().unwrap().ids().1.len(), 2);
    // Where nobody goes on, SkyLB says so itself.
    let end = relay.cut("the replica died", "upstream_error", 502);
    assert!(String::from_utf8(end).unwrap().contains("upstream_error"));
}

#[test]
fn what_may_not_go_on_says_why() {
    let chat = |delta: Value, more: Value| {
        let mut choice =
            json!({"index": 0, "delta": delta, "finish_reason": null, "token_ids": [7]});
        for (key, value) in more.as_object().unwrap() {
            choice[key] = value.clone();
        }
        let event = json!({"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m",
                           "choices": [choice], "prompt_token_ids": [1, 2]});
        format!("data: {event}\n\n")
    };
    let none = json!({});
    for (event, reason) in [
        (chat(json!({"content": "a"}), none.clone()), None),
        (
            chat(json!({"tool_calls": [{"index": 0}]}), none.clone()),
            Some(Reason::Tools),
        ),
        (
            chat(json!({"reasoning": "hm"}), none.clone()),
            Some(Reason::Reasoning),
        ),
        (
            chat(json!({"content": "a"}), json!({"index": 1})),
            Some(Reason::Choices),
        ),
        (
            chat(json!({"content": "a"}), json!({"logprobs": {}})),
            Some(Reason::Logprobs),
        ),
        (
            chat(json!({"content": "a"}), json!({"token_ids": null})),
            Some(Reason::NoIds),
        ),
        (
            chat(json!({"content": "ab"}), json!({"token_ids": [7, 8]})),
            None, // its text is asked for
        ),
        ("data: no json\n\n".to_owned(), Some(Reason::NoIds)),
    ] {
        let mut relay = first(Form::Chat, false, &pool());
        relay.feed(&[sse_head(CHUNKED_LINE), chunk(event.as_bytes())].concat());
        assert_eq!(relay.refusal(), reason, "{event}");
    }
}

#[test]
fn what_is_kept_has_bounds() {
    let events = says(Form::Text, &PROMPT, 20, &[1], true);
    for (pool, reason) in [
        (Pool::new(1 << 20, 5), Reason::TokensMax),
        (Pool::new(20, 1_000), Reason::BytesMax),
    ] {
        let pool = Arc::new(pool);
        let mut client = Client::default();
        let mut relay = first(Form::Text, false, &pool);
        let whole = wire(&events);
        assert!(feed(&mut relay, &mut client, &whole, &[whole.len()]));
        assert_eq!(relay.refusal(), Some(reason));
        assert_eq!(pool.bytes(), 0, "nothing is kept of what cannot go on");
        assert_eq!(
            hear(&client.body().0),
            expected(Form::Text, false, 20),
            "and it is relayed as ever"
        );
    }
}

#[test]
fn the_usage_is_whole_though_a_later_replica_tells_more_than_is_kept() {
    let pool = Arc::new(Pool::new(1 << 20, 12));
    let mut client = Client::default();
    let mut relay = first(Form::Text, false, &pool);
    let events = says(Form::Text, &PROMPT, 20, &[1], true);
    feed(
        &mut relay,
        &mut client,
        unended(&wire(&events[..4])),
        &[1 << 20],
    );
    relay.suspend();
    settle(&mut relay);
    let (prompt, answer) = relay.kept().unwrap().ids();
    let given = [prompt, answer].concat();
    let mut then = Relay::new(HTTP11, "id");
    then.go_on(&mut relay);
    let rest = wire(&says(Form::Text, &given, 20, &[1], true));
    assert!(feed(&mut then, &mut client, &rest, &[1 << 20]));
    assert_eq!(then.refusal(), Some(Reason::TokensMax));
    assert_eq!(hear(&client.body().0), expected(Form::Text, false, 20));
}
