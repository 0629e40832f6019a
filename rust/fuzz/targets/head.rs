//! Request heads: [`HeadParser`].

use skylb_core::http::request::{
    CHUNKED, Credentials, HEAD_BYTES_MAX, Head, HeadParser, Refusal, Upstream,
};
use skylb_core::http::route::{BodyKind, Route};
use skylb_core::http::steer::{self, Fate};

use super::{behind, table};

const TO: Upstream<'_> = Upstream {
    path: None,
    capped: false,
    host: "10.0.0.1:8000",
    request_id: "req-1",
    client: Some("192.0.2.7"),
    scheme: "http",
    trusted: false,
    credentials: Credentials::Passed,
    body_len: -1,
    trace: None,
};

/// Fields that never reach a replica.
const HOP: [&str; 9] = [
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "expect",
    "transfer-encoding",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
];

/// Names and values of header fields.
type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

pub fn seeds() -> Vec<Vec<u8>> {
    let heads = table(include_str!("../../../tests/data/http_requests.json"));
    behind(&[0], heads)
}

pub fn run(data: &[u8]) {
    let Some((options, data)) = data.split_first() else {
        return;
    };
    let parser = HeadParser::new((options & 1 != 0).then_some("x-session"), options & 2 != 0)
        .with_class_header((options & 4 != 0).then_some("x-class"));
    let whole = parser.parse(data);
    check_cuts(&parser, data, &whole);
    match whole {
        Ok(None) => assert!(data.len() < HEAD_BYTES_MAX + 2, "a head without a bound"),
        Ok(Some(head)) => {
            let fields = check_lines(data, &head);
            check_framing(&head, &fields);
            for trusted in [false, true] {
                check_upstream(&parser, &head, &fields, trusted);
            }
        }
        Err(refusal) => {
            let error = refusal.error;
            assert!((400..=505).contains(&error.status) && !error.message.is_empty());
            assert!(refusal.head.is_some() || error.close, "framing is lost");
        }
    }
}

/// A head that comes in parts gets the verdict of the whole, and none before it is certain.
fn check_cuts(parser: &HeadParser, data: &[u8], whole: &Result<Option<Head>, Refusal>) {
    let stride = data.len() / 48 + 1;
    let line_ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let line_ends = line_ends.flat_map(|(at, _)| [at, at + 1]).take(64);
    for cut in (0..data.len()).step_by(stride).chain(line_ends) {
        let part = parser.parse(&data[..cut]);
        match (whole, &part) {
            (Ok(Some(whole)), Ok(Some(part))) => {
                assert!(cut >= whole.consumed());
                assert_eq!(whole.consumed(), part.consumed());
                assert_eq!(whole.signed(), part.signed());
            }
            (Ok(Some(whole)), Ok(None)) => assert!(cut < whole.consumed()),
            (Ok(Some(_)), Err(refusal)) => {
                unreachable!("refused at {cut} with {}, but not whole", refusal.error)
            }
            // Some faults are known early where the line at fault is not complete.
            (Ok(None), Err(_)) => {
                let complete = [data, b"\r\n\r\n"].concat();
                assert!(!matches!(parser.parse(&complete), Ok(Some(_))));
            }
            (Ok(None) | Err(_), Ok(Some(_))) => unreachable!("accepted at {cut}, but not whole"),
            (Err(whole), Err(part)) => {
                if let (Some(whole), Some(part)) = (&whole.head, &part.head) {
                    assert_eq!(whole.consumed(), part.consumed());
                }
            }
            (Ok(None) | Err(_), Ok(None)) => {}
        }
    }
}

/// The lines of an accepted head, read by the simplest means.
fn check_lines<'a>(data: &'a [u8], head: &Head) -> Fields<'a> {
    let bytes = &data[..head.consumed()];
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let text = bytes
        .strip_suffix(b"\r\n\r\n")
        .expect("an empty line at the end");
    let mut lines = text.split(|byte| *byte == b'\n');
    let trimmed = |line: &'a [u8]| line.strip_suffix(b"\r").unwrap_or(line);
    let first = lines.next().map(trimmed).unwrap_or_default();
    assert!(first.starts_with(head.method()) && first.len() > head.method().len());
    let mut fields = Fields::new();
    for line in lines.map(trimmed) {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic));
        let visible = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        assert!(line.iter().all(visible), "a control character in a field");
        fields.push((name, value));
    }
    for (name, _) in &fields {
        let first = values(&fields, name).next();
        assert_eq!(head.header(name).map(<[u8]>::trim_ascii), first);
    }
    fields
}

fn values<'a>(fields: &Fields<'a>, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let named = fields
        .iter()
        .filter(move |field| field.0.eq_ignore_ascii_case(name));
    named.map(|field| field.1)
}

/// `Host` and framing as the fields say, and one way to read them only.
fn check_framing(head: &Head, fields: &Fields<'_>) {
    let hosts = values(fields, b"host").count();
    assert!(hosts == 1 || (hosts == 0 && !head.http11()));
    let lengths: Vec<_> = values(fields, b"content-length").collect();
    let codings: Vec<_> = values(fields, b"transfer-encoding").collect();
    let expected = match (&lengths[..], &codings[..]) {
        ([], []) => 0,
        ([digits], []) => {
            let digits = std::str::from_utf8(digits).expect("digits");
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
            digits.parse().expect("a length")
        }
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"));
            CHUNKED
        }
        _ => unreachable!("a body with two lengths"),
    };
    assert_eq!(head.content_length(), expected);
    assert_eq!(head.route(), Route::of_path(head.path()));
    if head
        .route()
        .is_some_and(|route| route.body() == BodyKind::None)
    {
        assert_eq!(expected, 0, "a body that nobody reads");
    }
}

/// What goes to a replica is a head by the rules for what comes in, says the same, and has nothing
/// that is not to pass.
fn check_upstream(parser: &HeadParser, head: &Head, fields: &Fields<'_>, trusted: bool) {
    if head.is_options() {
        return;
    }
    let body_len = if head.content_length() == 0 { -1 } else { 2 };
    let to = Upstream {
        trusted,
        body_len,
        ..TO
    };
    let out = head
        .upstream(&to)
        .expect("values without control characters");
    let out = as_forward(&out);
    let again = match parser.parse(&out) {
        Ok(Some(again)) => again,
        other => unreachable!(
            "what goes out is not accepted: {other:?}: {}",
            String::from_utf8_lossy(&out)
        ),
    };
    assert_eq!(again.consumed(), out.len());
    assert_eq!((again.path(), again.route()), (head.path(), head.route()));
    assert!(again.method() == head.method() || (head.is_head() && again.method() == b"GET"));
    assert_eq!(again.content_length(), body_len.max(0));
    assert_eq!(again.request_id(), Some(&b"req-1"[..]));
    assert_eq!(again.header(b"host"), Some(TO.host.as_bytes()));
    let named: Vec<&[u8]> = values(fields, b"connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    let ours = [
        &b"host"[..],
        b"accept-encoding",
        b"content-length",
        b"x-request-id",
    ];
    for (name, _) in check_lines(&out, &again) {
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        assert!(!HOP.contains(&lower.as_str()), "{lower} is hop-by-hop");
        let is_signature = lower == "x-skylb-forward";
        assert!(
            is_signature || !lower.replace('_', "-").starts_with("x-skylb"),
            "{lower} is ours"
        );
        assert!(
            trusted || steer::header(name) == Fate::Passed,
            "{lower} steers"
        );
        let is_named = named.iter().any(|option| option.eq_ignore_ascii_case(name));
        let is_ours = ours.contains(&lower.as_bytes()) || lower.starts_with("x-forwarded-");
        assert!(!is_named || is_ours, "{lower} is named in Connection");
    }
    check_signed(parser, &again);
}

/// The head as it goes to a peer, with the longest signature.
fn as_forward(head: &[u8]) -> Vec<u8> {
    let end = head.iter().position(|byte| *byte == b'\n');
    let (line, fields) = head.split_at(end.map_or(0, |end| end + 1));
    let signature = format!("X-SkyLB-Forward: {}\r\n", "s".repeat(1_024));
    [line, signature.as_bytes(), fields].concat()
}

/// A proxy on the way changes nothing of what is signed.
fn check_signed(parser: &HeadParser, sent: &Head) {
    let to = Upstream {
        host: "other",
        request_id: "req-2",
        client: None,
        scheme: "https",
        trusted: true,
        body_len: sent.content_length(),
        ..TO
    };
    let body_len = if to.body_len == 0 { -1 } else { to.body_len };
    let out = sent.upstream(&Upstream { body_len, ..to });
    let out = out.expect("values without control characters");
    match parser.parse(&as_forward(&out)) {
        Ok(Some(passed)) => assert_eq!(passed.signed(), sent.signed()),
        other => unreachable!("what a proxy sends is not accepted: {other:?}"),
    }
}
