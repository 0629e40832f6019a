//! The table of raw responses.

use super::*;

const TABLE: &str = include_str!("../../../../tests/data/http_responses.json");

/// One raw response; characters are bytes (latin-1). `expect`: `ok` (complete, the connection may be
/// used again), `close` (complete, it may not), `failed`.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    raw: String,
    expect: String,
    fill: Option<Fill>,
    /// The replica closes behind it.
    #[serde(default)]
    eof: bool,
}

/// `text`, `count` times, stands for `@@` in `raw`.
#[derive(serde::Deserialize)]
struct Fill {
    text: String,
    count: usize,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let raw = match &self.fill {
            Some(fill) => self.raw.replace("@@", &fill.text.repeat(fill.count)),
            None => self.raw.clone(),
        };
        raw.chars().map(|c| u8::try_from(c).unwrap()).collect()
    }
}

/// A head by RFC 9112 that has nothing of ours or of the connection's twice.
fn check_client_head(head: &str) {
    let mut lines = head.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
    assert!(lines.next().unwrap().starts_with("HTTP/1.1 "));
    let mut names = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        assert!(crate::http::request::is_token(name.as_bytes()), "{line}");
        assert!(
            !value.chars().any(|c| c.is_ascii_control() && c != '\t'),
            "{line}"
        );
        names.push(name.to_ascii_lowercase());
    }
    let framing = ["transfer-encoding", "content-length"];
    assert!(
        names
            .iter()
            .filter(|n| framing.contains(&n.as_str()))
            .count()
            <= 1,
        "{head}"
    );
    assert_eq!(
        names.iter().filter(|n| *n == "x-request-id").count(),
        1,
        "{head}"
    );
    for name in [
        "x-skylb-region",
        "keep-alive",
        "upgrade",
        "proxy-authenticate",
        "trailer",
    ] {
        assert!(!names.contains(&name.to_owned()), "{head}");
    }
}

/// Relays one response in pieces; what became of it. What reaches the client is checked on the way.
fn relay_case(case: &Case, step: usize, options: Options) -> &'static str {
    let wire = case.bytes();
    let mut relay = Relay::new(options, "id");
    let mut client = Client::default();
    let mut flags = 0;
    for input in wire.chunks(step) {
        let fed = relay.feed(input);
        if fed & FEED_FAILED == 0 {
            client.write(&mut relay, fed, input);
        }
        flags |= fed;
    }
    if case.eof {
        let fed = relay.eof();
        if fed & FEED_FAILED == 0 {
            client.write(&mut relay, fed, b"");
        }
        flags |= fed;
    }
    let failed = flags & FEED_FAILED != 0;
    if failed {
        client.bytes.extend_from_slice(&relay.cut("m", "c", 500));
    }
    if let Some((head, _)) = client.split().map(|(head, body)| (head, body.len())) {
        check_client_head(&head);
        let (body, _) = client.body();
        if relay.streaming() {
            assert!(ends_on_event(&body), "{}", case.name);
            let errors = normalised(&body).matches("data: {\"error\":").count();
            assert_eq!(errors, usize::from(failed), "{}", case.name);
        }
    }
    match (failed, flags & FEED_DONE != 0, relay.reusable()) {
        (true, _, false) => "failed",
        (false, true, true) => "ok",
        (false, true, false) => "close",
        (false, false, false) => "incomplete",
        _ => "reusable, but not complete",
    }
}

#[test]
fn every_response_of_the_table_gets_its_verdict_however_it_is_cut() {
    let cases: Vec<Case> = serde_json::from_str(TABLE).unwrap();
    assert!(cases.iter().filter(|c| c.expect != "ok").count() >= 100);
    let mut wrong = Vec::new();
    for case in &cases {
        // In small pieces a long head is parsed again and again: short ones say as much.
        let steps = if case.fill.is_some() {
            [usize::MAX, 4096, 1000]
        } else {
            [usize::MAX, 1, 7]
        };
        for step in steps {
            for options in [HTTP11, HTTP10] {
                let verdict = relay_case(case, step, options);
                if verdict != case.expect {
                    wrong.push(format!("{} by {step}: {verdict}", case.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_reader_agrees_with_the_relay() {
    for case in serde_json::from_str::<Vec<Case>>(TABLE).unwrap() {
        let mut reader = ResponseReader::new(false);
        let bytes = case.bytes();
        reader.feed(&bytes);
        if case.eof {
            reader.eof();
        }
        let verdict = match (reader.error(), reader.done(), reader.reusable()) {
            (Some(_), false, false) => "failed",
            (None, true, true) => "ok",
            (None, true, false) => "close",
            _ => "incomplete",
        };
        // A reader knows nothing of events: one that is cut off by the end of the connection is whole to it.
        if case.name != "stream_close_half_event" {
            assert_eq!(verdict, case.expect, "{}", case.name);
        }
    }
}
