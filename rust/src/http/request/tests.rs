//! Heads and chunked bodies against the table of raw requests, and properties of both.

mod sending;

use proptest::prelude::*;
use serde::Deserialize;

use super::chunked::BodyDecoder;
use super::*;

const TABLE: &str = include_str!("../../../../tests/data/http_requests.json");
const BODY_BYTES_MAX: u64 = 16 << 20;
const TO: Upstream<'_> = Upstream {
    path: None,
    capped: false,
    host: "10.0.0.1:8000",
    request_id: "req-1",
    client: Some("192.0.2.7"),
    scheme: "http",
    trusted: false,
    credentials: Credentials::Passed,
    body_len: 2,
    trace: None,
};

/// One raw request; characters are bytes (latin-1).
#[derive(Deserialize)]
struct Case {
    name: String,
    raw: String,
    expect: serde_json::Value,
    fill: Option<Fill>,
    body_bytes_max: Option<u64>,
}

/// `text`, `count` times, stands for `@@` in `raw`.
#[derive(Deserialize)]
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

    fn verdict(&self) -> Verdict {
        if let Some(status) = self.expect.as_u64() {
            return Verdict::Refused(u16::try_from(status).unwrap());
        }
        assert_eq!(self.expect, "ok", "{}", self.name);
        Verdict::Accepted
    }

    fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max.unwrap_or(BODY_BYTES_MAX)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Refused(u16),
    Incomplete,
}

/// What a connection does with its first request: head, then body, as the data plane reads them.
fn judge(data: &[u8], body_bytes_max: u64, step: usize) -> Verdict {
    let head = match HeadParser::default().parse(data) {
        Err(refusal) => return Verdict::Refused(refusal.error.status),
        Ok(None) => return Verdict::Incomplete,
        Ok(Some(head)) => head,
    };
    let rest = &data[head.consumed()..];
    if head.content_length() != CHUNKED {
        let length = u64::try_from(head.content_length()).unwrap();
        return match length {
            _ if length > body_bytes_max => Verdict::Refused(413),
            _ if length <= rest.len() as u64 => Verdict::Accepted,
            _ => Verdict::Incomplete,
        };
    }
    let mut decoder = BodyDecoder::new(body_bytes_max);
    for piece in rest.chunks(step.max(1)) {
        if let Err(error) = decoder.feed(piece) {
            return Verdict::Refused(error.status);
        }
    }
    if decoder.done() {
        Verdict::Accepted
    } else {
        Verdict::Incomplete
    }
}

fn table() -> Vec<Case> {
    serde_json::from_str(TABLE).unwrap()
}

#[test]
fn every_request_of_the_table_gets_its_verdict() {
    let cases = table();
    assert!(cases.len() >= 200);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let verdict = judge(&case.bytes(), case.body_bytes_max(), usize::MAX);
            (verdict != case.verdict()).then(|| format!("{}: {verdict:?}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_body_gets_the_same_verdict_byte_by_byte() {
    for case in table() {
        let verdict = judge(&case.bytes(), case.body_bytes_max(), 1);
        assert_eq!(verdict, case.verdict(), "{}", case.name);
    }
}

#[test]
fn an_accepted_head_is_never_refused_while_it_is_incomplete() {
    let parser = HeadParser::default();
    for case in table().iter().filter(|c| c.verdict() == Verdict::Accepted) {
        let bytes = case.bytes();
        let consumed = parser.parse(&bytes).unwrap().unwrap().consumed();
        let stride = consumed / 64 + 1;
        for cut in (0..consumed).step_by(stride).chain([consumed - 1]) {
            assert!(
                matches!(parser.parse(&bytes[..cut]), Ok(None)),
                "{} at {cut}",
                case.name
            );
        }
    }
}

#[test]
fn no_beginning_of_a_refused_head_is_accepted() {
    let parser = HeadParser::default();
    for case in table() {
        let bytes = case.bytes();
        if parser.parse(&bytes).is_ok() {
            continue;
        }
        let stride = bytes.len() / 256 + 1;
        for cut in (0..bytes.len()).step_by(stride) {
            assert!(
                !matches!(parser.parse(&bytes[..cut]), Ok(Some(_))),
                "{} at {cut}",
                case.name
            );
        }
    }
}

fn parse(head: &str) -> Head {
    HeadParser::default()
        .parse(head.as_bytes())
        .unwrap()
        .unwrap()
}

fn refusal(head: &str) -> Refusal {
    HeadParser::default().parse(head.as_bytes()).unwrap_err()
}

#[test]
fn a_connection_persists_as_its_version_says() {
    let keeps = |version: &str, connection: &str| {
        parse(&format!(
            "GET /health HTTP/{version}\r\nHost: a\r\n{connection}\r\n"
        ))
        .keep_alive()
    };
    assert!(keeps("1.1", ""));
    assert!(!keeps("1.1", "Connection: x, CLOSE\r\n"));
    assert!(!keeps(
        "1.1",
        "Connection: keep-alive\r\nConnection: close\r\n"
    ));
    assert!(!keeps("1.0", ""));
    assert!(keeps("1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn only_one_acceptable_request_id_is_taken() {
    let id = |headers: &str| {
        let head = parse(&format!("GET /health HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
        head.request_id().map(<[u8]>::to_vec)
    };
    assert_eq!(id("X-Request-Id: aZ0._-\r\n"), Some(b"aZ0._-".to_vec()));
    assert_eq!(
        id(&format!("X-Request-Id: {}\r\n", "a".repeat(64))),
        Some(vec![b'a'; 64])
    );
    assert_eq!(id(&format!("X-Request-Id: {}\r\n", "a".repeat(65))), None);
    for bad in ["", "a b", "a,b", "\"a\"", "a/b"] {
        assert_eq!(id(&format!("X-Request-Id: {bad}\r\n")), None, "{bad}");
    }
    assert_eq!(id("X-Request-Id: a\r\nX-Request-Id: b\r\n"), None);
}

#[test]
fn a_trace_id_comes_from_a_valid_traceparent_only() {
    let id = |value: &str| {
        let head = parse(&format!(
            "GET /health HTTP/1.1\r\nHost: a\r\ntraceparent: {value}\r\n\r\n"
        ));
        head.trace_id().map(<[u8]>::to_vec)
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(
        id(&format!("00-{trace}-00f067aa0ba902b7-01")),
        Some(trace.into())
    );
    assert_eq!(
        id(&format!("01-{trace}-00f067aa0ba902b7-01-more")),
        Some(trace.into())
    );
    for bad in [
        format!("00-{trace}-00f067aa0ba902b7-01-more"),
        format!("ff-{trace}-00f067aa0ba902b7-01"),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{trace}-0000000000000000-01"),
        format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
        format!("00-{trace}-00f067aa0ba902b7-0"),
        format!("00_{trace}-00f067aa0ba902b7-01"),
    ] {
        assert_eq!(id(&bad), None, "{bad}");
    }
}

#[test]
fn a_refused_but_well_formed_head_tells_how_to_go_on() {
    let raw = "HEAD /v1/messages/x HTTP/1.1\r\nHost: a\r\nX-Request-Id: r\r\n\r\n";
    let refusal = refusal(&format!("{raw}GET"));
    assert_eq!((refusal.error.status, refusal.error.close), (404, false));
    let head = refusal.head.unwrap();
    assert!(head.is_head() && head.anthropic() && head.route().is_none());
    assert_eq!(
        (head.consumed(), head.request_id()),
        (raw.len(), Some(&b"r"[..]))
    );
}

#[test]
fn a_refusal_closes_where_a_body_may_follow_or_not_or_framing_is_lost() {
    for head in [
        "POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /nope HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ] {
        assert!(refusal(head).error.close, "{head}");
    }
    for head in [
        "GET /v1/completions HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        "POST /nope HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(!refusal(head).error.close, "{head}");
    }
}

#[test]
fn options_is_answered_where_cors_is_on() {
    let parser = HeadParser::new(None, true);
    let parse = |head: &str| parser.parse(head.as_bytes());
    let head = parse("OPTIONS /v1/completions HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap()
        .unwrap();
    assert!(head.is_options());
    assert!(
        parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap()
            .unwrap()
            .route()
            .is_none()
    );
    let refusal = parse("GET /v1/completions HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err();
    assert_eq!(refusal.error.allow, Some("POST, OPTIONS"));
}

#[test]
fn the_key_header_is_found_in_any_case() {
    let parser = HeadParser::new(Some("x-session"), false);
    let head = b"GET /health HTTP/1.1\r\nHost: a\r\nX-Session: s 1 \r\nX-Session: s2\r\n\r\n";
    assert_eq!(
        parser.parse(head).unwrap().unwrap().key(),
        Some(&b"s 1"[..])
    );
}

#[test]
fn the_class_header_and_the_credential_are_found() {
    let parser = HeadParser::new(None, false).with_class_header(Some("x-class"));
    let find = |fields: &str| {
        let head = format!("GET /health HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let head = parser.parse(head.as_bytes()).unwrap().unwrap();
        (
            head.class().map(<[u8]>::to_vec),
            head.credential().map(<[u8]>::to_vec),
        )
    };
    let some = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(find(""), (None, None));
    assert_eq!(find("X-Class: low\r\n"), (some("low"), None));
    assert_eq!(find("X-Api-Key: k\r\n"), (None, some("k")));
    let both = find("X-Api-Key: k\r\nAuthorization: Bearer b\r\n");
    assert_eq!(both, (None, some("Bearer b")));
    assert_eq!(find("Api-Key: k\r\n"), (None, some("k")));
    let both = find("Api-Key: a\r\nX-Api-Key: x\r\n");
    assert_eq!(both, (None, some("x")));
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = judge(&data, 1024, 7);
    }

    #[test]
    fn a_damaged_head_is_parsed_without_a_panic(
        index in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let cases = table();
        let mut bytes = index.get(&cases).bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Some(head)) = HeadParser::default().parse(&bytes) {
            let out = head.upstream(&TO).unwrap();
            prop_assert!(out.ends_with(b"\r\n\r\n"));
            // What goes out is a head by the rules for what comes in.
            let text = String::from_utf8_lossy(&out);
            prop_assert!(!text.contains("X-SkyLB") && text.matches("\r\n\r\n").count() == 1);
            prop_assert!(out.iter().zip(&out[1..]).all(|(a, b)| (*b == b'\n') == (*a == b'\r')));
        }
    }

    #[test]
    fn a_chunked_body_comes_out_whole_however_it_is_cut(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        sizes in proptest::collection::vec(1_usize..40, 1..6),
        cuts in proptest::collection::vec(1_usize..20, 1..6),
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut raw = Vec::new();
        let mut rest = &body[..];
        for size in sizes.iter().cycle() {
            let (chunk, left) = rest.split_at(rest.len().min(*size));
            raw.extend_from_slice(format!("{:x}{}\r\n", chunk.len(), ["", ";a", ";b=\"c\""][size % 3]).as_bytes());
            if chunk.is_empty() {
                break;
            }
            raw.extend_from_slice(chunk);
            raw.extend_from_slice(b"\r\n");
            rest = left;
        }
        raw.extend_from_slice(b"\r\n");
        raw.extend_from_slice(&behind);
        let mut decoder = BodyDecoder::new(body.len() as u64);
        let (mut out, mut over, mut at) = (Vec::new(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = raw.len().min(at + cut);
            if decoder.done() {
                over.extend_from_slice(&raw[at..]);
                break;
            }
            out.extend_from_slice(&decoder.feed(&raw[at..end]).unwrap());
            at = end;
        }
        prop_assert!(decoder.done());
        prop_assert_eq!(out, body);
        prop_assert_eq!([decoder.rest(), &over].concat(), behind);
    }

    #[test]
    fn the_end_of_a_chunked_body_that_is_too_large_is_found_however_it_is_cut(
        sizes in proptest::collection::vec(1_usize..40, 1..20),
        limit in 0_u64..60,
        cuts in proptest::collection::vec(1_usize..20, 1..6),
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut raw = Vec::new();
        for size in &sizes {
            raw.extend_from_slice(format!("{size:x}\r\n{}\r\n", "x".repeat(*size)).as_bytes());
        }
        raw.extend_from_slice(b"0\r\n\r\n");
        raw.extend_from_slice(&behind);
        let too_large = sizes.iter().sum::<usize>() as u64 > limit;
        let mut decoder = BodyDecoder::new(limit);
        let (mut refused, mut over, mut at) = (None, Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = raw.len().min(at + cut);
            if decoder.done() {
                over.extend_from_slice(&raw[at..]);
                break;
            }
            if refused.is_some() {
                decoder.skip(&raw[at..end]).unwrap();
            } else {
                refused = decoder.feed(&raw[at..end]).err();
            }
            at = end;
        }
        prop_assert_eq!(refused.map(|error| error.status), too_large.then_some(413));
        prop_assert_eq!([decoder.rest(), &over].concat(), behind);
    }
}
