//! Errors as events, and ends that lack their line ends.

use super::*;

const RESPONSES: Options = Options {
    responses_api: true,
    ..HTTP11
};
const ANTHROPIC: Options = Options {
    anthropic: true,
    ..HTTP11
};

/// The verdict on a stream that begins so, however it is cut.
fn verdict(options: Options, payload: &str) -> u16 {
    let verdicts: Vec<u16> = [1, 3, 11, 4096]
        .into_iter()
        .map(|step| {
            let mut relay = Relay::new(options, "id");
            relay.feed(&sse_head(CHUNKED_LINE));
            for piece in payload.as_bytes().chunks(step) {
                relay.feed(&chunk(piece));
            }
            relay.feed(b"0\r\n\r\n");
            relay.verdict()
        })
        .collect();
    assert!(
        verdicts.iter().all(|one| *one == verdicts[0]),
        "{payload}: {verdicts:?}"
    );
    verdicts[0]
}

#[test]
fn a_first_event_that_is_an_error_counts_as_an_answer_with_its_status() {
    let cases = [
        (
            HTTP11,
            "data: {\"error\":{\"message\":\"m\",\"type\":\"InternalServerError\",\"param\":null,\"code\":500}}\n\ndata: [DONE]\n\n",
            500,
        ),
        (
            HTTP11,
            "data:{\"error\": {\"message\": \"m\", \"code\": 503}}\r\n\r\n",
            503,
        ),
        (
            HTTP11,
            "data: {\"object\":\"error\",\"message\":\"m\",\"type\":\"BadRequestError\",\"code\":400}\n\n",
            400,
        ),
        (
            HTTP11,
            "data: {\"object\": \"error\", \"message\": \"m\"}\n\n",
            500,
        ),
        (HTTP11, "data: {\"error\":\"m\"}\n\n", 500),
        (HTTP11, "data: {\"error\":{\"code\":\"429\"}}\n\n", 429),
        (
            HTTP11,
            "data: {\"error\":{\"code\":null,\"type\":\"rate_limit_error\"}}\n\n",
            429,
        ),
        (
            HTTP11,
            ": a comment\n\n: another\n\ndata: {\"error\":{\"code\":500}}\n\n",
            500,
        ),
        (HTTP11, "data: {\"error\":\ndata: {\"code\": 502}}\n\n", 502),
        (HTTP11, "event: error\rdata: it broke\r\r", 500),
        (
            HTTP11,
            "event: error\ndata: {\"message\":\"m\",\"code\":400}\n\n",
            400,
        ),
        (HTTP11, "id: 7\nevent: error\ndata: {}\n\n", 500),
        (
            ANTHROPIC,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"internal_error\",\"message\":\"m\"}}\n\n",
            500,
        ),
        (
            ANTHROPIC,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            503,
        ),
        (
            ANTHROPIC,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\"}}\n\n",
            400,
        ),
        (
            RESPONSES,
            "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\"}\n\n",
            500,
        ),
        (
            RESPONSES,
            "event: response.created\ndata: {\"type\":\"response.created\"}\n\nevent: response.in_progress\ndata: {}\n\nevent: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\",\"message\":\"m\"}}}\n\n",
            500,
        ),
        (
            RESPONSES,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"invalid_prompt\"}}}\n\n",
            400,
        ),
        (
            RESPONSES,
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":null}}\n\n",
            500,
        ),
    ];
    for (options, payload, status) in cases {
        assert_eq!(verdict(options, payload), status, "{payload}");
    }
}

#[test]
fn what_speaks_of_errors_is_none() {
    for payload in [
        "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"{\\\"error\\\": 1} event: error\"}}]}\n\n",
        "data: {\"error\":null,\"choices\":[]}\n\n",
        "data: the word error\n\n",
        ": error\n\ndata: {\"choices\":[]}\n\n",
        "event: failed_not\ndata: {\"x\":\"failed\"}\n\n",
        "data: [DONE]\n\n",
    ] {
        assert_eq!(verdict(HTTP11, payload), 200, "{payload}");
    }
}

#[test]
fn an_error_behind_the_first_event_is_noticed_as_well() {
    for error in [
        "data: {\"error\":{\"code\":500}}\n\ndata: [DONE]\n\n",
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}\n\n",
    ] {
        let (mut relay, _) = begun(HTTP11);
        assert_eq!(relay.feed(&chunk(error.as_bytes())), FEED_WRITE_INPUT);
        assert_eq!((relay.status(), relay.verdict()), (200, 500), "{error}");
    }
}

#[test]
fn the_end_of_the_api_is_an_end_though_line_ends_or_the_last_chunk_are_missing() {
    let ends = [
        (HTTP11, "data: [DONE]"),
        (HTTP11, "data: [DONE]\n"),
        (HTTP11, "data:[DONE]\r"),
        (HTTP11, "data: [DONE]\r\n"),
        (HTTP11, "data: [DONE]\n\n"),
        (
            ANTHROPIC,
            "event: message_stop\ndata: {\"type\":\"message_stop\"}",
        ),
        (
            ANTHROPIC,
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        ),
        (
            RESPONSES,
            "event: response.completed\ndata: {\"response\":{}}\n",
        ),
        (
            RESPONSES,
            "event: response.completed\ndata: {\"response\":{}}\n\n",
        ),
    ];
    for (options, end) in ends {
        for chunked in [false, true] {
            for first in ["data: 1\n\n", ""] {
                let mut relay = Relay::new(options, "id");
                let mut client = Client::default();
                let head = sse_head(if chunked { CHUNKED_LINE } else { "" });
                let frame = |text: &str| {
                    if chunked {
                        chunk(text.as_bytes())
                    } else {
                        text.as_bytes().to_vec()
                    }
                };
                let mut wire = head;
                if !first.is_empty() {
                    wire.extend(frame(first));
                }
                wire.extend(frame(end));
                let flags = relay.feed(&wire);
                client.write(&mut relay, flags, &wire);
                let flags = relay.eof();
                assert_eq!(
                    flags & (FEED_DONE | FEED_FAILED),
                    FEED_DONE,
                    "{end:?} {chunked} {first:?}"
                );
                client.write(&mut relay, flags, b"");
                let (body, ended) = client.body();
                assert!(
                    ended && ends_on_event(&body) && !relay.reusable(),
                    "{end:?}"
                );
                assert!(body.starts_with((first.to_owned() + end).as_bytes()));
                assert!(!relay.close_client());
            }
        }
    }
}

#[test]
fn a_stream_that_only_speaks_of_its_end_is_broken() {
    for (options, end) in [
        (HTTP11, "data: {\"x\": \"data: [DONE]\"}"),
        (HTTP11, "data: [DON"),
        (HTTP11, "event: message_stop\ndata: {}\n"),
        (ANTHROPIC, "event: message_stop\ndata: {\"type\":"),
        (ANTHROPIC, "event: message_stop"),
    ] {
        let mut relay = Relay::new(options, "id");
        relay.feed(
            &[
                sse_head(""),
                b"data: 1\n\n".to_vec(),
                end.as_bytes().to_vec(),
            ]
            .concat(),
        );
        assert_eq!(relay.eof(), FEED_FAILED, "{end:?}");
    }
}

#[test]
fn the_error_event_of_each_api_has_its_shape() {
    let last = |options: Options, payload: &str| {
        let mut relay = Relay::new(options, "id");
        let mut client = Client::default();
        let wire = [sse_head(CHUNKED_LINE), chunk(payload.as_bytes())].concat();
        let flags = relay.feed(&wire);
        client.write(&mut relay, flags, &wire);
        client
            .bytes
            .extend_from_slice(&relay.cut("it broke", "upstream_reset", 500));
        let (body, ended) = client.body();
        assert!(ended);
        String::from_utf8(body[payload.len()..].to_vec()).unwrap()
    };
    assert_eq!(
        last(HTTP11, "data: 1\n\n"),
        "data: {\"error\":{\"message\":\"it broke\",\"type\":\"server_error\",\"param\":null,\"code\":\"upstream_reset\"}}\n\n"
    );
    assert_eq!(
        last(ANTHROPIC, "event: message_start\ndata: {}\n\n"),
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"it broke\",\"code\":\"upstream_reset\"}}\n\n"
    );
    let item = "event: response.output_item.added\ndata: {\"sequence_number\":2,\"item\":{}}\n\nevent: response.output_text.delta\ndata: {\"delta\":\"\\\"sequence_number\\\":99\",\"sequence_number\":3}\n\n";
    assert_eq!(
        last(RESPONSES, item),
        "event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_reset\",\"message\":\"it broke\",\"param\":null,\"sequence_number\":4}\n\n"
    );
}

#[test]
fn an_error_behind_the_first_event_is_found_however_the_stream_is_cut() {
    let error = "data: {\"error\":{\"message\":\"m\",\"code\":503}}";
    for (before, behind) in [
        ("data: {\"choices\":[]}\n\n", "\n\ndata: [DONE]\n\n"),
        ("data: {}\r\n\r\n: ping\r\n\r\n", "\r\n\r\n"),
        ("data: {}\r\r: ping\r", "\r\r"),
        (
            "data: {}\n\ndata: {\"error\":null}\n\n\n",
            "\n\ndata: {}\n\n",
        ),
    ] {
        assert_eq!(verdict(HTTP11, &format!("{before}{error}{behind}")), 503);
    }
    let text = "data: {}\n\ndata: the word {\"error\" in a text\n\n";
    assert_eq!(verdict(HTTP11, text), 200);
}
