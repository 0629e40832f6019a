//! Streams of events: the input is what a replica says, framed here in one of the ways that it may be.

use skylb_core::relay::{Options, Relay};

use super::behind;
use super::stream::{Client, Script};

pub fn seeds() -> Vec<Vec<u8>> {
    let chunk = |text: &str| {
        format!(
            "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        )
    };
    let chat = format!(
        "{}{}{}data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":2,\"prompt_tokens_details\":{{\"cached_tokens\":4}}}}}}\n\ndata: [DONE]\n\n",
        chunk("a"),
        chunk("b \\n"),
        chunk("\\u00e9"),
    );
    let streams = [
        chat,
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\r\n\r\n: ping\r\n\r\n".into(),
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3}}}\n\nevent: content_block_start\ndata: {\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"index\":0,\"delta\":{\"text\":\"x\"}}\n\nevent: message_stop\ndata: {}\n\n".into(),
        "event: response.created\ndata: {\"response\":{\"id\":\"resp_1\"},\"sequence_number\":0}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[]},\"sequence_number\":9}\n\n".into(),
        ": keep-alive\n\ndata: {\"error\": {\"message\": \"m\", \"code\": 503}}\n\n".into(),
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\ndata: x\rdata: y\r\r\n".into(),
        "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: [DONE]".into(),
    ];
    let streams: Vec<Vec<u8>> = streams.into_iter().map(String::into_bytes).collect();
    let mut seeds = Vec::new();
    for (options, flags) in [
        (3, 1),
        (0x13, 4),
        (0x0b, 0x19),
        (0x23, 0x21),
        (0, 5),
        (3, 0x11),
    ] {
        seeds.extend(behind(&[options, flags, 0, 17, 9, 1], streams.clone()));
    }
    seeds
}

pub fn run(data: &[u8]) {
    let Some((&[options, flags, framing, size, how @ ..], payload)) = data.split_first_chunk::<6>()
    else {
        return;
    };
    let script = Script::new(options, flags);
    let wire = encode(payload, framing, usize::from(size).max(1));
    let whole = script.play(&wire, [0, 0], |_, _, _| {});
    let is_short = payload.len() < 600;
    for how in [[1, 0], how] {
        let cut = script.play(&wire, how, |relay, client, _| {
            if is_short {
                check_end(script.options, relay, client);
            }
        });
        assert_eq!(script.comparable(cut, &whole), whole);
    }
    if script.options.is_head || whole.failed {
        return;
    }
    if script.options.drop_usage {
        assert!(is_without_some_events(&whole.body, payload));
    } else if whole.done {
        // Line ends that the last event lacks are put in.
        let added = whole.body.strip_prefix(payload).expect("the whole stream");
        assert!(matches!(added, b"" | b"\n" | b"\n\n"));
        assert_eq!(whole.events, event_count(&whole.body) as u64);
    }
}

/// The response on the wire.
fn encode(payload: &[u8], framing: u8, size: usize) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    match framing % 4 {
        0 | 1 => {
            let mut wire = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            let extension = if framing % 4 == 1 { ";a=b" } else { "" };
            for chunk in payload.chunks(size) {
                let line = format!("{:x}{extension}\r\n", chunk.len());
                wire.extend_from_slice(&[line.as_bytes(), chunk, b"\r\n"].concat());
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            wire
        }
        2 => {
            let head = format!("{head}Content-Length: {}\r\n\r\n", payload.len());
            [head.as_bytes(), payload].concat()
        }
        _ => [head.as_bytes(), b"\r\n", payload].concat(),
    }
}

/// A stream that is cut here ends with one error event, and its framing with it.
fn check_end(options: Options, relay: &Relay, client: &Client) {
    let (mut relay, mut client) = (relay.clone(), client.clone());
    let before = client.body.len();
    let was_over = client.ended;
    let end = relay.cut("it \"died\"\n", "upstream_lost", 500);
    if end.is_empty() {
        return;
    }
    assert!(!was_over);
    client.read(&end);
    assert_eq!(client.ended, options.http11);
    let tail = String::from_utf8(client.body[before..].to_vec()).expect("an event is text");
    let (_, json) = tail
        .trim_end()
        .rsplit_once("data: ")
        .expect("an event with data");
    assert!(tail.ends_with("\n\n") && serde_json::from_str::<serde_json::Value>(json).is_ok());
    assert!(relay.cut("again", "x", 500).is_empty());
}

/// Line ends as LF.
fn normalised(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, byte) in payload.iter().enumerate() {
        match byte {
            b'\r' if payload.get(at + 1) == Some(&b'\n') => {}
            b'\r' => out.push(b'\n'),
            byte => out.push(*byte),
        }
    }
    out
}

/// Complete blocks with a line that is no comment.
fn event_count(payload: &[u8]) -> usize {
    let text = normalised(payload);
    let (mut count, mut has_field) = (0, false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line {
            b"\n" => {
                count += usize::from(has_field);
                has_field = false;
            }
            [b':', ..] => {}
            _ => has_field = true,
        }
    }
    count
}

/// Whether `kept` is `payload` without some of its parts that have usage in them.
fn is_without_some_events(kept: &[u8], payload: &[u8]) -> bool {
    if payload.starts_with(kept) || kept.starts_with(payload) {
        return true;
    }
    let alike = kept.iter().zip(payload).take_while(|(a, b)| a == b).count();
    let behind = kept.len() - alike;
    payload.len() >= kept.len() && behind <= payload.len() && has_usage(payload)
}

fn has_usage(payload: &[u8]) -> bool {
    payload.windows(7).any(|window| window == b"\"usage\"")
}
