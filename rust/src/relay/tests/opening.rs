//! Streams that begin before their first event.

use super::*;

const OWN_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
const COMMENT: &str = ": keep-alive\n\n";

/// A client whose stream was begun with a head of our own, and a relay that goes on with it.
fn opened(options: Options) -> (Relay, Client) {
    let mut client = Client::default();
    client
        .bytes
        .extend_from_slice(&Relay::new(options, "id").open(OWN_HEAD));
    let mut relay = Relay::new(options, "id");
    relay.join();
    (relay, client)
}

fn feed(relay: &mut Relay, client: &mut Client, wire: &[u8]) -> u8 {
    let flags = relay.feed(wire);
    client.write(relay, flags, wire);
    flags
}

#[test]
fn comments_before_the_first_event_go_out_with_the_replicas_head() {
    let mut relay = Relay::new(HTTP11, "id");
    let mut client = Client::default();
    let wire = [
        sse_head("X-Engine: 7\r\nTransfer-Encoding: chunked\r\n"),
        chunk(b": one\n\n: tw"),
    ]
    .concat();
    assert_eq!(feed(&mut relay, &mut client, &wire), 0);
    assert!(relay.accepted() && relay.commented());
    client.bytes.extend_from_slice(&relay.open(OWN_HEAD));
    let (head, _) = client.split().unwrap();
    assert!(head.contains("X-Engine: 7\r\n") && head.contains("X-Request-Id: id\r\n"));
    assert_eq!(client.body().0, b": one\n\n");
    assert!(relay.open(OWN_HEAD).is_empty(), "once");
    let flags = feed(&mut relay, &mut client, &chunk(b"o\n\n"));
    assert_eq!(flags, FEED_WRITE_BUFFER, "a comment is no first byte");
    let flags = feed(&mut relay, &mut client, &chunk(b"data: 1\n\n"));
    assert_eq!(flags, FEED_WRITE_BUFFER | FEED_FIRST_BYTE);
    let flags = feed(&mut relay, &mut client, b"0\r\n\r\n");
    assert_eq!(flags & FEED_DONE, FEED_DONE);
    assert_eq!(
        client.body(),
        (b": one\n\n: two\n\ndata: 1\n\n".to_vec(), true)
    );
    assert!(relay.reusable() && !relay.close_client());
}

#[test]
fn a_stream_begun_by_the_balancer_goes_on_with_whichever_replica_answers() {
    for options in [HTTP11, HTTP10] {
        let (mut relay, mut client) = opened(options);
        client.bytes.extend_from_slice(&relay.comment());
        let wire = [
            sse_head(CHUNKED_LINE),
            chunk(b"data: 1\n\n"),
            b"0\r\n\r\n".to_vec(),
        ]
        .concat();
        let flags = feed(&mut relay, &mut client, &wire);
        assert_eq!(flags, FEED_WRITE_BUFFER | FEED_FIRST_BYTE | FEED_DONE);
        let whole = format!("{COMMENT}data: 1\n\n").into_bytes();
        assert_eq!(client.body(), (whole, options.http11));
        assert_eq!(relay.close_client(), !options.http11);
    }
}

#[test]
fn an_answer_that_is_no_stream_becomes_an_error_event_of_the_stream_that_was_begun() {
    let json = r#"{"error":{"message":"too long","type":"BadRequestError","code":400}}"#;
    let cases = [
        (
            format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{json}",
                json.len()
            ),
            "too long",
            "invalid_request_error",
        ),
        (
            "HTTP/1.1 503 Oops\r\nContent-Length: 4\r\n\r\nfull".to_owned(),
            "The model server answered with status 503.",
            "server_error",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
            "The model server did not answer with a stream.",
            "server_error",
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "The model server answered with status 204.",
            "server_error",
        ),
    ];
    for (wire, message, kind) in cases {
        for step in [1, 7, 1000] {
            let (mut relay, mut client) = opened(HTTP11);
            let mut last = 0;
            for piece in wire.as_bytes().chunks(step) {
                assert_eq!(last & FEED_DONE, 0);
                last = feed(&mut relay, &mut client, piece);
            }
            assert_eq!(last, FEED_WRITE_BUFFER | FEED_FIRST_BYTE | FEED_DONE);
            let (body, ended) = client.body();
            assert!(ended && relay.reusable() && !relay.close_client());
            let text = String::from_utf8(body).unwrap();
            let json = text
                .strip_prefix("data: ")
                .unwrap()
                .strip_suffix("\n\n")
                .unwrap();
            let event: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(event["error"]["message"], message);
            assert_eq!(event["error"]["type"], kind);
        }
    }
}

#[test]
fn an_opened_stream_that_fails_ends_with_one_error_event_and_the_end_of_the_framing() {
    let (mut relay, mut client) = opened(HTTP11);
    feed(
        &mut relay,
        &mut client,
        &[sse_head(CHUNKED_LINE), chunk(b"data: 1")].concat(),
    );
    client.bytes.extend_from_slice(&relay.cut("m", "c", 503));
    let (body, ended) = client.body();
    let text = String::from_utf8(body).unwrap();
    assert!(text.starts_with("data: {\"error\":") && ended, "{text}");
    assert!(relay.comment().is_empty(), "nothing behind the end");
}

#[test]
fn announcements_of_a_response_stay_withheld_in_a_stream_that_was_begun() {
    let options = Options {
        responses_api: true,
        ..HTTP11
    };
    let mut relay = Relay::new(options, "id");
    let mut client = Client::default();
    let created = b"event: response.created\ndata: {}\n\n: later\n\n";
    feed(
        &mut relay,
        &mut client,
        &[sse_head(CHUNKED_LINE), chunk(created)].concat(),
    );
    client.bytes.extend_from_slice(&relay.open(OWN_HEAD));
    client.bytes.extend_from_slice(&relay.comment());
    assert_eq!(client.body().0, COMMENT.as_bytes());
    let item = b"event: response.output_item.added\ndata: {}\n\n";
    let flags = feed(&mut relay, &mut client, &chunk(item));
    assert_ne!(flags & FEED_FIRST_BYTE, 0);
    let all = [COMMENT.as_bytes(), created, item].concat();
    assert_eq!(client.body().0, all);
}

#[test]
fn comments_stand_between_whole_events_only() {
    let (mut relay, mut client) = begun(HTTP11);
    client.bytes.extend_from_slice(&relay.comment());
    feed(&mut relay, &mut client, &chunk(b"data: 2"));
    client.bytes.extend_from_slice(&relay.comment());
    feed(&mut relay, &mut client, &chunk(b"\n\n"));
    let body = client.body().0;
    assert_eq!(
        body,
        format!("data: 1\n\n{COMMENT}{COMMENT}data: 2\n\n").into_bytes()
    );
    // A longer event than is withheld stands open at the client.
    feed(
        &mut relay,
        &mut client,
        &chunk(&vec![b'x'; WITHHELD_BYTES_MAX + 1]),
    );
    assert!(relay.comment().is_empty());
}

#[test]
fn nothing_is_put_into_what_is_no_stream() {
    let mut relay = Relay::new(HTTP11, "id");
    relay.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
    assert!(relay.open(OWN_HEAD).is_empty() && relay.comment().is_empty());
    relay.feed(b"a");
    assert!(relay.open(OWN_HEAD).is_empty() && relay.comment().is_empty());
    let mut refused = Relay::new(HTTP11, "id");
    refused.feed(b"HTTP/1.1 500 No\r\nContent-Type: text/event-stream\r\n\r\n: c\n\n");
    assert!(refused.open(OWN_HEAD).is_empty());
    let mut head = Relay::new(
        Options {
            is_head: true,
            ..HTTP11
        },
        "id",
    );
    assert!(head.open(OWN_HEAD).is_empty() && head.comment().is_empty());
}
