use super::super::ended::tests::Parts as Request;
use super::super::legs::Tracer;
use super::super::protobuf::fields;
use super::*;
use crate::http::request::TraceParent;

const CHAT: &str = "/v1/chat/completions";

fn spans(queue_bytes_max: usize) -> Spans {
    Spans::new(SpanConfig {
        resource: vec![("service.name".into(), "skylb".into())],
        version: "1",
        slow_ns: 5_000_000_000,
        queue_bytes_max,
        unix_offset_ns: 1_000,
    })
}

/// A request of 3 s, held for a while, whose first attempt failed.
fn request(flags: u8) -> Request {
    let client = TraceParent {
        trace_id: b"4bf92f3577b34da6a3ce929d0e0e4736",
        parent_id: b"00f067aa0ba902b7",
        flags,
    };
    let mut request = Request::new(CHAT, Some("m")).answered(10);
    let life = &mut request.life;
    life.trace = Some(Box::new(Tracer::new(1, 0.0).begin(Some(client))));
    life.start_ns = 1_000;
    life.hold(2_000);
    life.leave_hold(5_000);
    life.attempts = 1;
    life.target = Some(Target::Replica("http://a:1".into()));
    life.attempt_begins(5_000);
    life.trace.as_mut().unwrap().sent_to("a:1");
    life.attempt_failed("connect", 0, 6_000);
    life.attempts = 2;
    life.target = Some(Target::Peer("eu".into()));
    life.attempt_begins(6_000);
    life.trace.as_mut().unwrap().sent_to("[::1]:2");
    life.first_byte_ns = 9_000;
    request
}

fn inner<'a>(data: &'a [u8], path: &[u64]) -> Vec<&'a [u8]> {
    let mut level = vec![data];
    for step in path {
        let below = level.into_iter().flat_map(fields);
        let below = below.filter_map(|(number, field)| match field {
            Field::Bytes(bytes) if number == *step => Some(bytes),
            _ => None,
        });
        level = below.collect();
    }
    level
}

fn one(span: &[u8], field: u64) -> &[u8] {
    inner(span, &[field]).first().copied().unwrap_or_default()
}

/// Name, id, parent, start and end of a span.
type Read = (String, Vec<u8>, Vec<u8>, u64, u64);

fn taken(spans: &mut Spans) -> Vec<Read> {
    let taken = spans.take(|head, spans| [head, spans].concat());
    let Some((data, count)) = taken else {
        return vec![];
    };
    let all = inner(&data, &[1, 2, 2]);
    assert_eq!(all.len() as u64, count);
    let time = |span, field| u64::from_le_bytes(one(span, field).try_into().unwrap());
    let all = all.into_iter().map(|span| {
        let name = String::from_utf8(one(span, 5).to_vec()).unwrap();
        let (id, parent) = (one(span, 2).to_vec(), one(span, 4).to_vec());
        (name, id, parent, time(span, 7), time(span, 8))
    });
    all.collect()
}

#[test]
fn a_request_has_a_span_for_each_part_of_its_life() {
    let mut spans = spans(1 << 20);
    spans.complete(&request(1).ended(200), "predictive");
    let all = taken(&mut spans);
    let named: Vec<_> = all
        .iter()
        .map(|span| (span.0.as_str(), span.3, span.4))
        .collect();
    let end = 3_000_001_000 + 1_000;
    assert_eq!(
        named,
        [
            ("request", 2_000, end),
            ("hold", 3_000, 6_000),
            ("attempt", 6_000, 7_000),
            ("forward", 7_000, end),
        ]
    );
    assert_eq!(all[0].2, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    for span in &all[1..] {
        assert_eq!(span.2, all[0].1, "{} is below the request", span.0);
    }
    assert_eq!(taken(&mut spans), []);
}

#[test]
fn one_that_is_not_sampled_is_kept_if_it_failed_or_was_slow() {
    let kept = |request: &Request, status| {
        let mut spans = spans(1 << 20);
        spans.complete(&request.ended(status), "predictive");
        taken(&mut spans).len()
    };
    let mut slow = request(0);
    assert_eq!(kept(&slow, 200), 0);
    assert_eq!(kept(&slow, 429), 0);
    assert_eq!(kept(&slow, 503), 4);
    slow.life.start_ns = 0;
    slow.life.first_byte_ns = 5_000_000_000;
    assert_eq!(kept(&slow, 200), 4);
}

#[test]
fn an_answer_cut_short_has_failed_and_a_client_that_left_has_not() {
    let request = request(0);
    let ended = Ended {
        error_code: Some("upstream_reset"),
        ..request.ended(200)
    };
    assert!(is_failed(&ended));
    let left = Ended {
        error_code: Some("client_left"),
        ..request.ended(499)
    };
    assert!(!is_failed(&left));
}

#[test]
fn a_request_without_a_trace_has_no_spans() {
    let mut spans = spans(1 << 20);
    spans.complete(&Request::new(CHAT, Some("m")).ended(503), "predictive");
    assert!(spans.take(|_, _| ()).is_none());
}

#[test]
fn a_full_queue_drops_whole_requests_and_counts_their_spans() {
    let mut spans = spans(2_500);
    let mut traced = Vec::new();
    for _ in 0..5 {
        traced.extend(spans.complete(&request(1).ended(200), "predictive"));
    }
    let taken = taken(&mut spans).len() as u64;
    assert!(taken > 0 && taken.is_multiple_of(4));
    assert_eq!(taken + spans.dropped(), 20);
    assert_eq!(traced.len() as u64, taken / 4);
}

#[test]
fn the_trace_of_a_request_is_known_to_whom_it_may_help_if_it_is_exported() {
    let mut spans = spans(1 << 20);
    let traced = spans.complete(&request(1).ended(200), "predictive");
    let expected = Traced {
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        unix_ns: 3_000_001_000 + 1_000,
    };
    assert_eq!(traced, Some(expected));
    assert_eq!(spans.complete(&request(0).ended(200), "predictive"), None);
}

#[test]
fn a_stay_in_the_hold_may_end_with_the_request() {
    let mut request = request(1);
    request.life.hold(7_000);
    let mut spans = spans(1 << 20);
    spans.complete(&request.ended(503), "predictive");
    let all = taken(&mut spans);
    let stays: Vec<_> = all.iter().filter(|span| span.0 == "hold").collect();
    assert_eq!(stays.len(), 2);
    assert_eq!(stays[1].4, 3_000_001_000 + 1_000);
}

#[test]
fn a_collectors_answer_says_how_many_it_refused() {
    assert_eq!(rejected(&[]), 0);
    assert_eq!(rejected(&[0x0a, 0]), 0);
    let partial = [0x0a, 6, 8, 0x96, 1, 0x12, 1, b'x'];
    assert_eq!(rejected(&partial), 150);
    assert_eq!(rejected(b"not protobuf"), 0);
}
