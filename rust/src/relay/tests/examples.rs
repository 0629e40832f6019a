//! Examples of every rule.

use super::*;

#[test]
fn whole_events_in_whole_chunks_pass_without_a_copy() {
    let (mut relay, _) = begun(HTTP11);
    let two = [chunk(b"data: 2\n\n"), chunk(b"event: x\r\ndata: 3\r\n\r\n")].concat();
    assert_eq!(relay.feed(&two), FEED_WRITE_INPUT);
    let last = [chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(relay.feed(&last), FEED_WRITE_INPUT | FEED_DONE);
    assert!(relay.reusable() && !relay.close_client());
    assert_eq!((relay.events(), relay.bytes_out()), (4, 9 + 9 + 21 + 14));
}

#[test]
fn a_body_with_a_length_passes_without_a_copy() {
    let mut relay = Relay::new(HTTP11, "id");
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
    assert_eq!(relay.feed(head), 0);
    assert_eq!(relay.feed(b"ab"), FEED_WRITE_BUFFER | FEED_FIRST_BYTE);
    assert_eq!(
        relay.take(),
        b"HTTP/1.1 200 OK\r\nX-Request-Id: id\r\nContent-Length: 6\r\n\r\nab"
    );
    assert_eq!(relay.feed(b"cd"), FEED_WRITE_INPUT);
    assert_eq!(relay.feed(b"ef"), FEED_WRITE_INPUT | FEED_DONE);
}

#[test]
fn the_head_waits_for_the_first_event() {
    let mut relay = Relay::new(HTTP11, "id");
    assert_eq!(relay.feed(&sse_head(CHUNKED_LINE)), 0);
    assert_eq!(relay.status(), 200);
    assert_eq!(
        relay.feed(&chunk(b": waiting\n\n")),
        0,
        "a comment is no event"
    );
    assert_eq!(relay.feed(&chunk(b"data: 1")), 0);
    assert_eq!(
        relay.feed(&chunk(b"\n\n")),
        FEED_WRITE_BUFFER | FEED_FIRST_BYTE
    );
    let text = String::from_utf8(relay.take()).unwrap();
    assert!(
        text.ends_with("\r\n\r\n14\r\n: waiting\n\ndata: 1\n\n\r\n"),
        "{text}"
    );
}

#[test]
fn the_announcement_of_a_response_is_not_its_beginning() {
    let announced = [
        "event: response.created\ndata: {\"type\":\"response.created\"}\n\n",
        ": waiting\n\n",
        "event: response.in_progress\ndata: {\"type\":\"response.in_progress\"}\n\n",
    ];
    let item = "event: response.output_item.added\ndata: {}\n\n";
    for responses_api in [true, false] {
        let options = Options {
            responses_api,
            ..HTTP11
        };
        let mut relay = Relay::new(options, "id");
        assert_eq!(relay.feed(&sse_head(CHUNKED_LINE)), 0);
        let first: Vec<u8> = announced
            .iter()
            .map(|event| relay.feed(&chunk(event.as_bytes())) & FEED_FIRST_BYTE)
            .collect();
        if responses_api {
            assert_eq!(first, [0, 0, 0]);
            assert_ne!(relay.feed(&chunk(item.as_bytes())) & FEED_FIRST_BYTE, 0);
            let text = String::from_utf8(relay.take()).unwrap();
            let body = announced.concat() + item;
            assert!(text.contains(&body), "{text}");
        } else {
            assert_ne!(first[0], 0, "of other interfaces any event is a beginning");
        }
    }
}

#[test]
fn announcements_without_end_are_handed_out() {
    let options = Options {
        responses_api: true,
        ..HTTP11
    };
    let mut relay = Relay::new(options, "id");
    relay.feed(&sse_head(CHUNKED_LINE));
    let event = chunk(b"event: response.in_progress\ndata: {}\n\n");
    let fed = (0..10_000).find(|_| relay.feed(&event) & FEED_FIRST_BYTE != 0);
    assert!(fed.is_some_and(|count| count * 37 <= ANNOUNCED_BYTES_MAX));
}

#[test]
fn the_clients_head_is_built_anew() {
    let mut relay = Relay::new(HTTP11, "ours");
    let flags = relay.feed(
        b"HTTP/1.1 404 Not Found\r\ndate: d\r\nserver: uvicorn\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nKeep-Alive: 5\r\n\
          Proxy-Authenticate: x\r\nUpgrade: h2c\r\nTrailer: x\r\nX-SkyLB-A: 1\r\nx-request-id: theirs\r\n\
          Retry-After: 7\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(flags, FEED_WRITE_BUFFER | FEED_DONE);
    assert_eq!(
        String::from_utf8(relay.take()).unwrap(),
        "HTTP/1.1 404 Not Found\r\ndate: d\r\nserver: uvicorn\r\nRetry-After: 7\r\nSet-Cookie: a\r\n\
         Set-Cookie: b\r\nX-Request-Id: ours\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!((relay.status(), relay.retry_after_s()), (404, Some(7)));
    assert!(relay.reusable());
}

#[test]
fn an_http10_client_gets_the_body_without_chunks_and_a_closed_connection() {
    let (mut relay, mut client) = begun(HTTP10);
    let input = [chunk(b"data: 2\n\n"), b"0\r\n\r\n".to_vec()].concat();
    let flags = relay.feed(&input);
    client.write(&mut relay, flags, &input);
    let (head, body) = client.split().unwrap();
    assert!(head.contains("Connection: close\r\n") && !head.contains("chunked"));
    assert_eq!(body, b"data: 1\n\ndata: 2\n\n");
    assert!(relay.close_client() && relay.reusable());
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let options = Options {
        is_head: true,
        ..HTTP11
    };
    let mut relay = Relay::new(options, "id");
    let flags = relay.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(flags, FEED_WRITE_BUFFER | FEED_FIRST_BYTE | FEED_DONE);
    assert_eq!(
        relay.take(),
        b"HTTP/1.1 200 OK\r\nX-Request-Id: id\r\nContent-Length: 5\r\n\r\n"
    );
    assert!(relay.reusable());
    let mut relay = Relay::new(options, "id");
    assert_ne!(
        relay.feed(&[sse_head(CHUNKED_LINE), chunk(b"data: 1\n\n")].concat()) & FEED_DONE,
        0
    );
    assert!(!relay.reusable(), "the rest of the stream is still to come");
}

#[test]
fn interim_responses_are_swallowed() {
    let mut relay = Relay::new(HTTP11, "id");
    assert_eq!(
        relay.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP"),
        0
    );
    assert_eq!(relay.status(), 0);
    assert_eq!(
        relay.feed(b"/1.1 204 No Content\r\n\r\n"),
        FEED_WRITE_BUFFER | FEED_DONE
    );
    assert_eq!(
        relay.take(),
        b"HTTP/1.1 204 No Content\r\nX-Request-Id: id\r\n\r\n"
    );
}

#[test]
fn an_event_beyond_the_bound_goes_out_in_parts_and_can_still_be_cut() {
    let (mut relay, mut client) = begun(HTTP11);
    let long = [&b"data: "[..], &vec![b'x'; WITHHELD_BYTES_MAX]].concat();
    let input = chunk(&long);
    let flags = relay.feed(&input);
    assert_eq!(flags, FEED_WRITE_BUFFER);
    client.write(&mut relay, flags, &input);
    let end = relay.cut("m", "c", 500);
    client.bytes.extend_from_slice(&end);
    let (body, ended) = client.body();
    assert!(ended);
    let text = String::from_utf8(body).unwrap();
    assert!(text.ends_with("xxx\n\ndata: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"param\":null,\"code\":\"c\"}}\n\n"));
}

#[test]
fn what_is_withheld_stays_bounded() {
    let (mut relay, _) = begun(HTTP11);
    let input = chunk(&[b'x'; 1000]);
    for _ in 0..2000 {
        relay.feed(&input);
        assert!(relay.withheld.len() <= WITHHELD_BYTES_MAX + 1000);
        relay.take();
    }
}

#[test]
fn a_fault_writes_nothing_of_its_input() {
    let (mut relay, mut client) = begun(HTTP11);
    let before = client.bytes.clone();
    let input = [chunk(b"data: 2\n\n"), b"zz\r\n".to_vec()].concat();
    assert_eq!(relay.feed(&input), FEED_FAILED);
    assert!(relay.take().is_empty() && relay.error().is_some() && !relay.reusable());
    assert_eq!(client.bytes, before);
    client.bytes.extend_from_slice(&relay.cut("m", "c", 500));
    assert!(client.body().1);
}

#[test]
fn a_stream_that_ends_with_its_connection_inside_an_event_is_broken() {
    let mut relay = Relay::new(HTTP11, "id");
    relay.feed(&[sse_head(""), b"data: 1\n\ndata: 2".to_vec()].concat());
    assert_eq!(relay.eof(), FEED_FAILED);
}

#[test]
fn an_end_before_the_body_is_complete_is_a_fault() {
    for (wire, status) in [
        (&b""[..], 0),
        (b"HTTP/1.1 200", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", 200),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            200,
        ),
    ] {
        let mut relay = Relay::new(HTTP11, "id");
        relay.feed(wire);
        assert_eq!(
            (relay.eof(), relay.status(), relay.started()),
            (FEED_FAILED, status, !wire.is_empty())
        );
    }
}

#[test]
fn bytes_behind_a_response_are_dropped_with_the_connection() {
    let mut relay = Relay::new(HTTP11, "id");
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(
        relay.feed(wire),
        FEED_WRITE_BUFFER | FEED_FIRST_BYTE | FEED_DONE
    );
    assert!(relay.take().ends_with(b"\r\n\r\nab"));
    assert!(!relay.reusable());
}
