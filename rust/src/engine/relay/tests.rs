//! The relay against small oracles: what a client may see of a response, however it is cut.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const HTTP11: Options = Options {
    http11: true,
    keep_alive: true,
    is_head: false,
    anthropic: false,
    drop_usage: false,
    responses_api: false,
};
const HTTP10: Options = Options {
    http11: false,
    keep_alive: false,
    ..HTTP11
};

fn sse_head(framing: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n").into_bytes()
}

const CHUNKED_LINE: &str = "Transfer-Encoding: chunked\r\n";

fn chunk(payload: &[u8]) -> Vec<u8> {
    [
        format!("{:x}\r\n", payload.len()).as_bytes(),
        payload,
        b"\r\n",
    ]
    .concat()
}

/// A client: keeps what a relay tells it to write, and reads it strictly.
#[derive(Default, Clone)]
struct Client {
    bytes: Vec<u8>,
}

impl Client {
    fn write(&mut self, relay: &mut Relay, flags: u8, input: &[u8]) {
        assert_ne!(flags & 3, 3, "one source of bytes");
        if flags & FEED_WRITE_INPUT != 0 {
            self.bytes.extend_from_slice(input);
        }
        let buffer = relay.take();
        assert_eq!(buffer.is_empty(), flags & FEED_WRITE_BUFFER == 0);
        self.bytes.extend_from_slice(&buffer);
    }

    /// The head's lines, and the body's bytes as framed; `None` before the head.
    fn split(&self) -> Option<(String, &[u8])> {
        if self.bytes.is_empty() {
            return None;
        }
        let end = memchr::memmem::find(&self.bytes, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.bytes[..end].to_vec()).unwrap();
        Some((head, &self.bytes[end..]))
    }

    /// The body without framing, and whether it has ended; panics unless it stands on a chunk's end.
    fn body(&self) -> (Vec<u8>, bool) {
        let Some((head, mut rest)) = self.split() else {
            return (Vec::new(), false);
        };
        if !head.contains("Transfer-Encoding: chunked\r\n") {
            return (rest.to_vec(), false);
        }
        let mut body = Vec::new();
        while !rest.is_empty() {
            let line = memchr::memmem::find(rest, b"\r\n").unwrap();
            let size =
                usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            let end = line + 2 + size;
            body.extend_from_slice(&rest[line + 2..end]);
            assert_eq!(&rest[end..end + 2], b"\r\n");
            rest = &rest[end + 2..];
            if size == 0 {
                assert!(rest.is_empty(), "bytes behind the last chunk");
                return (body, true);
            }
        }
        (body, false)
    }
}

/// Line ends as LF: the oracle of the boundary tests.
fn normalised(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload)
        .replace("\r\n", "\n")
        .replace('\r', "\n")
}

fn ends_on_event(payload: &[u8]) -> bool {
    let text = normalised(payload);
    text.ends_with("\n\n") || text.chars().all(|c| c == '\n')
}

/// Complete blocks with a line that is no comment.
fn event_count(payload: &[u8]) -> usize {
    let text = normalised(payload);
    let complete = text.rfind("\n\n").map_or("", |at| &text[..at]);
    complete
        .split("\n\n")
        .filter(|block| {
            block
                .lines()
                .any(|line| !line.is_empty() && !line.starts_with(':'))
        })
        .count()
}

/// What of a received payload a client may have.
fn releasable(payload: &[u8]) -> &[u8] {
    let end = (0..=payload.len())
        .rev()
        .find(|end| ends_on_event(&payload[..*end]))
        .unwrap_or(0);
    if event_count(&payload[..end]) == 0 {
        &[]
    } else {
        &payload[..end]
    }
}

// ------------------------------------------------------------------ properties

fn line_end() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["\n", "\n", "\n", "\r\n", "\r"])
}

fn event() -> impl Strategy<Value = String> {
    let line = (
        prop::sample::select(vec!["data: ", ": ", "event: x", "id", ""]),
        "[a-z\"{}:\u{e9} ]{0,12}",
    );
    (prop::collection::vec((line, line_end()), 0..4), line_end()).prop_map(|(lines, end)| {
        let mut text = String::new();
        for ((field, value), end) in lines {
            write!(text, "{field}{value}{end}").unwrap();
        }
        text + end
    })
}

/// A stream of events, perhaps with an unfinished one at its end.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::collection::vec(event(), 0..8),
        prop::option::of("data: [a-z]{0,9}"),
    )
        .prop_map(|(events, tail)| (events.concat() + &tail.unwrap_or_default()).into_bytes())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Coding {
    Chunked,
    ChunkedOddly,
    Length,
    Close,
}

fn coding() -> impl Strategy<Value = Coding> {
    prop::sample::select(vec![
        Coding::Chunked,
        Coding::Chunked,
        Coding::ChunkedOddly,
        Coding::Length,
        Coding::Close,
    ])
}

/// The response on the wire: framed as `coding` says, chunks of the given sizes in turn.
fn encode(
    head: impl Fn(&str) -> Vec<u8>,
    payload: &[u8],
    coding: Coding,
    sizes: &[usize],
) -> Vec<u8> {
    match coding {
        Coding::Close => [head(""), payload.to_vec()].concat(),
        Coding::Length => {
            let length = format!("Content-Length: {}\r\n", payload.len());
            [head(&length), payload.to_vec()].concat()
        }
        Coding::Chunked | Coding::ChunkedOddly => {
            let mut wire = head(CHUNKED_LINE);
            let mut rest = payload;
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, behind) = rest.split_at(rest.len().min(*size));
                let odd = coding == Coding::ChunkedOddly;
                let line = if odd {
                    format!("{:04X};x=\"y\"\r\n", part.len())
                } else {
                    format!("{:x}\r\n", part.len())
                };
                wire.extend_from_slice(&[line.as_bytes(), part, b"\r\n"].concat());
                rest = behind;
            }
            let trailer = if coding == Coding::ChunkedOddly {
                "X-Trailer: 1\r\n"
            } else {
                ""
            };
            wire.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
            wire
        }
    }
}

/// Body bytes that a strict reader has after a part of the wire.
fn received(wire: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    ResponseReader::new(false).feed(wire, &mut body);
    body
}

/// Feeds `wire` in pieces of the given sizes; `check` sees the state after each.
fn drive(
    relay: &mut Relay,
    wire: &[u8],
    cuts: &[usize],
    mut check: impl FnMut(&Relay, &Client, usize),
) -> Client {
    let mut client = Client::default();
    let (mut at, mut firsts) = (0, 0);
    for cut in cuts.iter().cycle() {
        let end = wire.len().min(at + cut);
        let input = &wire[at..end];
        let had = client.bytes.len();
        let flags = relay.feed(input);
        assert_eq!(flags & FEED_FAILED, 0, "{:?}", relay.error());
        client.write(relay, flags, input);
        firsts += usize::from(flags & FEED_FIRST_BYTE != 0);
        assert!(
            firsts > 0 || client.bytes.is_empty() || flags & FEED_DONE != 0,
            "a byte before the first byte"
        );
        assert!(
            flags & FEED_FIRST_BYTE == 0 || had == 0,
            "the first byte comes first"
        );
        at = end;
        check(relay, &client, at);
        if at == wire.len() {
            break;
        }
    }
    let flags = relay.eof();
    client.write(relay, flags, b"");
    client
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    /// R14, and: a client has all it may have after each input.
    #[test]
    fn a_stream_of_events_arrives_whole_and_in_whole_events(
        payload in stream(),
        coding in coding(),
        sizes in prop::collection::vec(1_usize..60, 1..6),
        cuts in prop::collection::vec(1_usize..90, 1..8),
        http11 in any::<bool>(),
    ) {
        // A stream that ends with its connection in the middle of an event is broken; see below.
        prop_assume!(coding != Coding::Close || ends_on_event(&payload));
        let wire = encode(sse_head, &payload, coding, &sizes);
        let mut relay = Relay::new(if http11 { HTTP11 } else { HTTP10 }, "id");
        let client = drive(&mut relay, &wire, &cuts, |relay, client, at| {
            let done = relay.reusable();
            let (body, _) = client.body();
            if !done {
                assert_eq!(body, releasable(&received(&wire[..at])));
            }
            assert_eq!(relay.bytes_out(), body.len() as u64);
            assert_eq!(relay.events(), event_count(&body) as u64);
        });
        let (body, ended) = client.body();
        prop_assert_eq!(&body, &payload);
        prop_assert_eq!(ended, http11);
        prop_assert_eq!(relay.close_client(), !http11);
        prop_assert_eq!(relay.reusable(), false, "the connection was closed");
    }

    #[test]
    fn a_stream_that_is_cut_ends_with_exactly_one_error_event(
        payload in stream(),
        sizes in prop::collection::vec(1_usize..60, 1..6),
        cuts in prop::collection::vec(1_usize..90, 1..8),
        http11 in any::<bool>(),
        anthropic in any::<bool>(),
    ) {
        let wire = encode(sse_head, &payload, Coding::Chunked, &sizes);
        let options = Options { anthropic, ..if http11 { HTTP11 } else { HTTP10 } };
        let mut relay = Relay::new(options, "id");
        drive(&mut relay, &wire[..wire.len() - 5], &cuts, |relay, client, _| {
            let (mut relay, mut client) = (relay.clone(), client.clone());
            let (before, _) = client.body();
            let end = relay.cut("the replica \"died\"\nat once", "upstream_lost");
            client.bytes.extend_from_slice(&end);
            if before.is_empty() {
                assert!(end.is_empty());
                return;
            }
            let (body, ended) = client.body();
            assert_eq!(ended, http11);
            let tail = String::from_utf8(body[before.len()..].to_vec()).unwrap();
            let (field, json) = tail.strip_suffix("\n\n").unwrap().rsplit_once("data: ").unwrap();
            assert_eq!(field, if anthropic { "event: error\n" } else { "" });
            let error: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(error["error"]["message"], "the replica \"died\"\nat once");
            assert!(error["error"]["type"].is_string());
            assert_eq!(error["error"]["code"], "upstream_lost");
            assert!(relay.close_client() && !relay.reusable());
            assert!(relay.cut("again", "x").is_empty());
        });
    }

    #[test]
    fn other_bodies_arrive_whole_and_at_once(
        payload in prop::collection::vec(any::<u8>(), 0..400),
        coding in coding(),
        sizes in prop::collection::vec(1_usize..90, 1..6),
        cuts in prop::collection::vec(1_usize..120, 1..8),
        http11 in any::<bool>(),
    ) {
        let head = |framing: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n{framing}\r\n").into_bytes();
        let wire = encode(head, &payload, coding, &sizes);
        let mut relay = Relay::new(if http11 { HTTP11 } else { HTTP10 }, "id");
        let client = drive(&mut relay, &wire, &cuts, |relay, client, at| {
            assert_eq!(client.body().0, received(&wire[..at]));
            let mut relay = relay.clone();
            assert!(relay.cut("m", "c").is_empty(), "no event belongs into it");
        });
        prop_assert_eq!(client.body().0, payload);
    }

    #[test]
    fn any_bytes_are_relayed_without_a_panic(
        head in any::<prop::sample::Index>(),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6),
        http11 in any::<bool>(),
        drop_usage in any::<bool>(),
    ) {
        let heads = [Vec::new(), sse_head(CHUNKED_LINE), sse_head(""), sse_head("Content-Length: 50\r\n")];
        let mut relay = Relay::new(Options { http11, drop_usage, responses_api: true, ..HTTP11 }, "id");
        let mut client = Client::default();
        let begun = head.get(&heads);
        for input in std::iter::once(begun).chain(&pieces) {
            let flags = relay.feed(input);
            if flags & FEED_FAILED != 0 {
                break;
            }
            client.write(&mut relay, flags, input);
            client.body();
        }
        let _ = relay.eof();
        let _ = relay.cut("m", "c");
    }

    #[test]
    fn usage_is_found_wherever_a_json_body_is_cut(
        padding in "[a-z\\\\\"]{0,40}",
        cuts in prop::collection::vec(1_usize..30, 1..6),
        prompt in 0_i64..1_000_000,
        cached in 0_i64..1_000_000,
        completion in 0_i64..1_000_000,
    ) {
        let body = serde_json::json!({
            "choices": [{"message": {"content": format!("\"usage\": {{\"prompt_tokens\": 5}} {padding}")}}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 3,
                      "prompt_tokens_details": {"audio_tokens": 1, "cached_tokens": cached}},
        }).to_string();
        let wire = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut relay = Relay::new(HTTP11, "id");
        drive(&mut relay, wire.as_bytes(), &cuts, |_, _, _| {});
        let found = (relay.prompt_tokens(), relay.cached_tokens(), relay.completion_tokens());
        prop_assert_eq!(found, (Some(prompt), Some(cached), Some(completion)));
    }
}

// -------------------------------------------------------------------- examples

/// A relay and its client behind the first event of a chunked stream.
fn begun(options: Options) -> (Relay, Client) {
    let mut relay = Relay::new(options, "id");
    let mut client = Client::default();
    let wire = [sse_head(CHUNKED_LINE), chunk(b"data: 1\n\n")].concat();
    let flags = relay.feed(&wire);
    assert_eq!(flags, FEED_WRITE_BUFFER | FEED_FIRST_BYTE);
    client.write(&mut relay, flags, &wire);
    (relay, client)
}

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
    let end = relay.cut("m", "c");
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
    client.bytes.extend_from_slice(&relay.cut("m", "c"));
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

// ----------------------------------------------------------------------- usage

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
fn the_last_usage_counts() {
    let early = r#"{"content":[{"type":"tool_use","input":{"usage":{"input_tokens":1,"output_tokens":1}}}],"usage":{"input_tokens":9,"output_tokens":3}}"#;
    assert_eq!(counts(&[early]), (Some(9), None, Some(3)));
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
