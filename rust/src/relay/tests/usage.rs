//! Token counts and ids.

use super::*;

fn counts(events: &[&str]) -> (Option<i64>, Option<i64>, Option<i64>) {
    let (mut relay, _) = begun(HTTP11);
    for event in events {
        assert_eq!(
            relay.feed(&chunk(format!("data: {event}\n\n").as_bytes())),
            FEED_WRITE_INPUT
        );
    }
    (
        relay.prompt_tokens(),
        relay.cached_tokens(),
        relay.completion_tokens(),
    )
}

#[test]
fn usage_is_read_in_every_dialect() {
    let openai = r#"{"choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    assert_eq!(counts(&[openai]), (Some(9), Some(4), Some(3)));
    let spaced = r#"{"usage" : { "prompt_tokens" : 9 , "completion_tokens": 3, "prompt_tokens_details": null }}"#;
    assert_eq!(counts(&[spaced]), (Some(9), None, Some(3)));
    let responses = r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1}}}}"#;
    assert_eq!(counts(&[responses]), (Some(9), Some(4), Some(3)));
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":5,"cache_read_input_tokens":4,"output_tokens":1}}}"#;
    let delta = r#"{"type":"message_delta","usage":{"output_tokens":3}}"#;
    assert_eq!(counts(&[start, delta]), (Some(9), Some(4), Some(3)));
}

#[test]
fn text_that_speaks_of_usage_is_not_taken_for_it() {
    for event in [
        r#"{"choices":[{"delta":{"content":"\"usage\":{\"prompt_tokens\":1}"}}]}"#,
        r#"{"choices":[{"delta":{"content":"usage"}}]}"#,
        r#"{"a":"usage","prompt_tokens":1}"#,
        r#"{"usage":null}"#,
        r#"{"usage":{"prompt_tokens":null,"completion_tokens":-1,"other":{"prompt_tokens":1}}}"#,
        r#"{"usage":{"prompt_tokens":1.5,"completion_tokens":1e3}}"#,
        r#"{"usage":{"prompt_tokens":99999999999999999999}}"#,
        r#"{"usage":{"text":"\"prompt_tokens\":1}"}}"#,
        r#"{"tools":[{"properties":{"usage":{"type":"object","prompt_tokens":{"type":"integer"}}}}]}"#,
        r#"{"usage":{"prompt_tokens":1"#,
    ] {
        assert_eq!(counts(&[event]), (None, None, None), "{event}");
    }
}

#[test]
fn an_object_that_does_not_end_in_its_event_is_none_however_events_come() {
    let events = [
        "data: {\"usage\":{\"prompt_tokens\":9,\n\n",
        "data: \"completion_tokens\":3}}\n\n",
        "data: {\"usage\":{\"prompt_tokens\":5}}\n\n",
    ];
    let read = |inputs: &[String]| {
        let (mut relay, _) = begun(HTTP11);
        for input in inputs {
            relay.feed(&chunk(input.as_bytes()));
        }
        (relay.prompt_tokens(), relay.completion_tokens())
    };
    let apart: Vec<_> = events.iter().map(|event| (*event).to_owned()).collect();
    assert_eq!(read(&apart), (Some(5), None));
    assert_eq!(read(&[events.concat()]), read(&apart));
}

#[test]
fn the_last_usage_counts() {
    let early = r#"{"content":[{"type":"tool_use","input":{"usage":{"input_tokens":1,"output_tokens":1}}}],"usage":{"input_tokens":9,"output_tokens":3}}"#;
    assert_eq!(counts(&[early]), (Some(9), None, Some(3)));
}

/// A schema of a client's tool, as `/v1/responses` repeats it.
const TOOLS: &str = r#"[{"name":"f","usage":{"input_tokens":0},"parameters":{"properties":{"usage":{"input_tokens":0,"prompt_tokens":0,"output_tokens":0}},"response":{"usage":{"input_tokens":0}}}}]"#;

#[test]
fn what_a_client_has_written_into_a_schema_is_no_usage_wherever_it_stands() {
    let usage = r#""usage":{"input_tokens":9,"output_tokens":3}"#;
    let found = (Some(9), None, Some(3));
    for response in [
        format!(r#"{{"tools":{TOOLS},{usage}}}"#),
        format!(r#"{{{usage},"tools":{TOOLS}}}"#),
        format!(r#"{{"metadata":{{"usage":"{{}}"}},{usage},"text":{{"format":{TOOLS}}}}}"#),
    ] {
        let created = format!(r#"{{"type":"response.created","response":{{"tools":{TOOLS}}}}}"#);
        assert_eq!(counts(&[&created]), (None, None, None));
        for completed in [
            format!(r#"{{"type":"response.completed","response":{response}}}"#),
            format!(r#"{{"response" : {response},"tools":{TOOLS}}}"#),
            response.clone(),
        ] {
            assert_eq!(counts(&[&created, &completed]), found, "{completed}");
        }
        let body = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{response}",
            response.len()
        );
        let mut relay = Relay::new(HTTP11, "id");
        relay.feed(body.as_bytes());
        let told = (relay.prompt_tokens(), relay.completion_tokens());
        assert_eq!(told, (Some(9), Some(3)), "{response}");
    }
}

#[test]
fn the_arguments_of_a_tool_call_are_no_usage() {
    let body = r#"{"content":[{"type":"tool_use","input":{"usage":{"prompt_tokens":0,"cached_tokens":9}}}],"usage":{"input_tokens":9,"output_tokens":3}}"#;
    assert_eq!(counts(&[body]), (Some(9), None, Some(3)));
}

#[test]
fn a_usage_at_the_end_of_an_event_beyond_the_bound_is_found_and_none_within_it() {
    let padding = "x".repeat(WITHHELD_BYTES_MAX);
    for (before, behind) in [(padding.as_str(), ""), ("", padding.as_str())] {
        for line_end in ["\n", "\r\n", "\r"] {
            let event = format!(
                r#"data: {{"response":{{"text":"{before}","tools":{TOOLS},"more":"{behind}","usage":{{"input_tokens":9}},"tools":{TOOLS}}}}}{line_end}{line_end}"#
            );
            let next = format!(r#"data: {{"tools":{TOOLS}}}{line_end}{line_end}"#);
            for size in [1 << 12, 100_001] {
                let (mut relay, _) = begun(HTTP11);
                for part in [event.as_bytes(), next.as_bytes()].concat().chunks(size) {
                    relay.feed(&chunk(part));
                    relay.take();
                }
                assert_eq!(relay.prompt_tokens(), Some(9), "{size} {line_end:?}");
            }
        }
    }
}

#[test]
fn the_usage_event_nobody_asked_for_is_taken_out() {
    let options = Options {
        drop_usage: true,
        ..HTTP11
    };
    let (mut relay, mut client) = begun(options);
    let usage = r#"data: {"choices": [ ],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    let other = r#"data: {"choices":[{"text":"\"usage\""}],"usage":{"prompt_tokens":9}}"#;
    for payload in [
        format!("{other}\n\n{usage}\r\n\r\ndata: [DONE]\n\n"),
        format!("{usage}\n\n"),
    ] {
        let input = chunk(payload.as_bytes());
        let flags = relay.feed(&input);
        client.write(&mut relay, flags, &input);
    }
    let flags = relay.feed(b"0\r\n\r\n");
    client.write(&mut relay, flags, b"0\r\n\r\n");
    let (body, ended) = client.body();
    assert!(ended);
    assert_eq!(
        String::from_utf8(body).unwrap(),
        format!("data: 1\n\n{other}\n\ndata: [DONE]\n\n")
    );
    assert_eq!(
        (
            relay.prompt_tokens(),
            relay.completion_tokens(),
            relay.events()
        ),
        (Some(9), Some(3), 3)
    );
}

#[test]
fn behind_the_usage_tokens_are_counted_and_the_end_of_the_answer_is_none() {
    let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    let token = r#"data: {"choices":[{"text":"a"}]}"#;
    let since = |payloads: &[&str]| {
        let mut relay = begun(HTTP11).0;
        for payload in payloads {
            relay.feed(&chunk(format!("{payload}\n\n").as_bytes()));
        }
        relay.events_since_usage()
    };
    assert_eq!(since(&[usage, "data: [DONE]"]), 0);
    assert_eq!(since(&[usage, token]), 1);
    // `begun` has begun with an event.
    assert_eq!(since(&[token]), 2);
    assert_eq!(since(&[token, "data: [DONE]"]), 3);
}

#[test]
fn the_id_of_a_response_is_its_first_id() {
    let options = Options {
        responses_api: true,
        ..HTTP11
    };
    let id = |wire: &[u8]| {
        let mut relay = Relay::new(options, "id");
        for byte in wire.chunks(1) {
            relay.feed(byte);
            relay.take();
        }
        relay.response_id().map(str::to_owned)
    };
    let body = br#"{"object":"response","id" : "resp_1a","output":[{"id":"msg_2"}]}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(
        id(&[head.as_bytes(), body].concat()).as_deref(),
        Some("resp_1a")
    );
    let event = br#"data: {"type":"response.created","response":{"id":"resp_2","instructions":"\"id\":\"x\""}}"#;
    let wire = [
        sse_head(CHUNKED_LINE),
        chunk(&[&event[..], b"\n\n"].concat()),
    ]
    .concat();
    assert_eq!(id(&wire).as_deref(), Some("resp_2"));
    let odd = [
        sse_head(CHUNKED_LINE),
        chunk(b"data: {\"id\":\"../x\"}\n\n"),
    ]
    .concat();
    assert_eq!(id(&odd), None, "an id that no path could name");
}

/// What a client reads of a stream that begins with an event beyond the bound.
fn behind_a_long_event(end: &str, rest: &str) -> String {
    let options = Options {
        drop_usage: true,
        ..HTTP11
    };
    let (mut relay, mut client) = begun(options);
    let long = format!("data: {}{end}", "x".repeat(WITHHELD_BYTES_MAX));
    for payload in [&long[..], rest] {
        let input = chunk(payload.as_bytes());
        let flags = relay.feed(&input);
        client.write(&mut relay, flags, &input);
    }
    let flags = relay.feed(b"0\r\n\r\n");
    client.write(&mut relay, flags, b"0\r\n\r\n");
    let (body, ended) = client.body();
    assert!(ended);
    let text = String::from_utf8(body).unwrap();
    let (_, behind) = text.split_once(&long).unwrap();
    behind.to_owned()
}

#[test]
fn the_end_of_an_event_that_went_out_in_part_is_no_usage_event() {
    let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
    for (end, begin) in [
        ("", "\n"),
        ("", "\r\n"),
        ("", "\r"),
        ("\r", "\n"),
        ("\n", ""),
        ("\r\n", ""),
        ("\r", ""),
    ] {
        let rest = format!("{begin}{usage}\n\n");
        assert_eq!(behind_a_long_event(end, &rest), rest, "{end:?} {begin:?}");
    }
    for (end, begin) in [
        ("", "\n\n"),
        ("", "\r\n\r\n"),
        ("", "\r\r"),
        ("\r", "\n\n"),
        ("\n", "\n"),
        ("\r\n", "\r\n"),
        ("\r", "\r"),
    ] {
        let kept = behind_a_long_event(end, &format!("{begin}{usage}\n\n"));
        assert_eq!(kept, begin, "{end:?} {begin:?}");
    }
}
