//! The head that goes to a replica.

use super::*;

fn sent(head: &Head, to: Upstream<'_>) -> String {
    String::from_utf8(head.upstream(&to).unwrap()).unwrap()
}

#[test]
fn the_upstream_head_is_built_anew() {
    let head = parse(
        "POST /v1/completions?a=b HTTP/1.1\r\nHost: example.com\r\nAccept:  */* \r\nConnection: X-Mine, close\r\n\
         X-Mine: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X\r\nUpgrade: h2c\r\nProxy-Connection: x\r\n\
         Proxy-Authorization: x\r\nExpect: 100-continue\r\nAccept-Encoding: gzip\r\nX-SkyLB-Hop: 1\r\nx_skylb_hop: 2\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nAuthorization: Bearer k\r\nX-Request-Id: theirs\r\n\
         X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.1.1.1\r\ntraceparent: t\r\n\r\n",
    );
    assert_eq!(
        sent(&head, TO),
        "POST /v1/completions?a=b HTTP/1.1\r\nHost: 10.0.0.1:8000\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nAuthorization: Bearer k\r\ntraceparent: t\r\n\
         Accept-Encoding: identity\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
         X-Request-Id: req-1\r\nContent-Length: 2\r\n\r\n"
    );
}

const TRACE: TraceHeader = TraceHeader {
    value: *b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    continues: true,
};

#[test]
fn a_trace_goes_on_in_place_of_the_clients_and_its_state_passes() {
    let head = parse(
        "GET /v1/models HTTP/1.1\r\nHost: a\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-aaaaaaaaaaaaaaaa-01\r\n\
         Tracestate: vendor=1\r\nbaggage: a=b\r\n\r\n",
    );
    let trace = Some(TRACE);
    let text = sent(&head, Upstream { trace, ..TO });
    assert_eq!(text.matches("traceparent").count(), 1);
    assert!(
        text.contains(
            "\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
        )
    );
    assert!(text.contains("\r\nTracestate: vendor=1\r\n"));
    assert!(text.contains("\r\nbaggage: a=b\r\n"));
}

#[test]
fn a_trace_that_begins_here_has_no_state_of_another() {
    let head = parse(
        "GET /v1/models HTTP/1.1\r\nHost: a\r\ntraceparent: broken\r\nTracestate: vendor=1\r\nbaggage: a=b\r\n\r\n",
    );
    let trace = Some(TraceHeader {
        continues: false,
        ..TRACE
    });
    let text = sent(&head, Upstream { trace, ..TO });
    assert!(!text.contains("broken") && !text.contains("vendor=1"));
    assert!(text.contains("\r\nbaggage: a=b\r\n"));
}

#[test]
fn a_traceparent_is_read_whole() {
    let head = parse(
        "GET /v1/models HTTP/1.1\r\nHost: a\r\ntraceparent: 01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-x\r\n\r\n",
    );
    let read = head.trace_parent().unwrap();
    assert_eq!(read.trace_id, b"4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((read.parent_id, read.flags), (b"00f067aa0ba902b7", 3));
}

#[test]
fn a_trusted_proxys_forwarding_is_kept_and_appended_to() {
    let head = parse(
        "GET /v1/responses/resp_1 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n",
    );
    let to = Upstream {
        trusted: true,
        body_len: -1,
        ..TO
    };
    assert_eq!(
        sent(&head, to),
        "GET /v1/responses/resp_1 HTTP/1.1\r\nHost: 10.0.0.1:8000\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: b\r\nAccept-Encoding: identity\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.7\r\n\
         X-Request-Id: req-1\r\n\r\n"
    );
}

#[test]
fn a_client_without_an_address_is_not_named() {
    let alone = parse("GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n");
    let nobody = Upstream { client: None, ..TO };
    assert!(!sent(&alone, nobody).contains("X-Forwarded-For"));
    let trusted = Upstream {
        trusted: true,
        ..nobody
    };
    assert!(sent(&alone, trusted).contains("\r\nX-Forwarded-For: 1.1.1.1\r\n"));
}

#[test]
fn a_replica_key_replaces_the_clients_credentials() {
    let head = parse(
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
         Authorization: Bearer theirs\r\nx-api-key: theirs\r\nApi-Key: theirs\r\napi_key: theirs\r\n\r\n",
    );
    assert_eq!(sent(&head, TO).matches("theirs").count(), 3);
    let replaced = Upstream {
        credentials: Credentials::Replaced("Bearer ours"),
        ..TO
    };
    let replaced = sent(&head, replaced);
    assert!(replaced.contains("Authorization: Bearer ours\r\n"));
    assert!(!replaced.contains("theirs"));
    let dropped = Upstream {
        credentials: Credentials::Dropped,
        ..TO
    };
    let dropped = sent(&head, dropped);
    assert!(!dropped.contains("theirs") && !dropped.contains("Authorization"));
}

#[test]
fn a_trusted_proxy_names_no_priority_where_the_class_of_its_tenant_has_a_bound() {
    let priorities = |capped: bool, fields: &str| {
        let head = parse(&format!(
            "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\nX-Vllm-Other: -5\r\n{fields}\r\n"
        ));
        let to = Upstream {
            trusted: true,
            capped,
            ..TO
        };
        let text = sent(&head, to);
        assert!(text.contains("X-Vllm-Other: -5\r\n"), "{text}");
        let mut passed = String::new();
        for line in text.lines() {
            if line.to_ascii_lowercase().contains("priority") {
                passed.push_str(line);
                passed.push_str("\r\n");
            }
        }
        passed
    };
    for fields in [
        "x-vllm-priority: -5\r\n",
        "X_VLLM_Priority: -5\r\n",
        "x-vllm-priority: -1_0\r\n",
        "x-vllm-priority: \r\n",
        "x-vllm-priority: 99999999999999999999\r\n",
        "x-vllm-priority: -3\r\nX-Vllm-Priority: -4\r\n",
        "x-vllm-priority: 7\r\n",
    ] {
        assert_eq!(priorities(false, fields), fields);
        assert_eq!(priorities(true, fields), "");
    }
    let both = "x-vllm-priority: 0\r\nx-vllm-priority: -3\r\n";
    assert_eq!(priorities(true, both), "x-vllm-priority: 0\r\n");
}

#[test]
fn a_value_with_control_characters_is_not_put_into_a_head() {
    let head = parse("GET /v1/responses/resp_1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let to = Upstream {
        request_id: "a\r\nX: b",
        ..TO
    };
    assert_eq!(head.upstream(&to), Err("request_id"));
}

#[test]
fn head_goes_out_as_get() {
    let head = parse("HEAD /v1/responses/resp_1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.is_head());
    assert!(sent(&head, TO).starts_with("GET /v1/responses/resp_1 HTTP/1.1\r\n"));
}

#[test]
fn absolute_form_goes_out_in_origin_form() {
    let head = parse("GET http://a/v1/responses/resp_1?x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        sent(&head, TO)
            .starts_with("GET /v1/responses/resp_1?x HTTP/1.1\r\nHost: 10.0.0.1:8000\r\n")
    );
}

/// A head that goes to a peer, signed as forwards are.
fn signed(head: &Head) -> Vec<u8> {
    let text = sent(head, TO);
    let signature = format!("\r\nX-SkyLB-Forward: {}\r\n", "s".repeat(1_024));
    text.replacen("\r\n", &signature, 1).into_bytes()
}

#[test]
fn the_largest_head_is_accepted_by_the_peer_that_it_is_forwarded_to() {
    let head = |fields: &str| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n{fields}\r\n"
        )
    };
    let many = head(&"X:y\r\n".repeat(HEADERS_MAX - 3));
    let empty = head("X: \r\n");
    let long = head(&format!(
        "X: {}\r\n",
        "a".repeat(HEAD_BYTES_MAX - empty.len())
    ));
    for text in [many, long] {
        let forwarded = signed(&parse(&text));
        let received = HeadParser::default().parse(&forwarded).unwrap().unwrap();
        assert_eq!(received.consumed(), forwarded.len());
        // Of others it is refused, and before it is complete.
        let unsigned = sent(&parse(&text), TO);
        let unsigned = &unsigned[..unsigned.len() - 2];
        assert_eq!(refusal(unsigned).error.status, 431);
    }
}

#[test]
fn a_forwarded_head_has_a_bound_too() {
    let begin = "GET /v1/models HTTP/1.1\r\nX-SkyLB-Forward: s\r\nHost: a\r\n";
    let many = format!("{begin}{}", "X: y\r\n".repeat(HEADERS_MAX + 8));
    let long = format!("{begin}X: {}", "a".repeat(HEAD_BYTES_MAX + 2_048));
    let later = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-SkyLB-Forward: s\r\n{}",
        "X: y\r\n".repeat(HEADERS_MAX)
    );
    for text in [many, long, later] {
        assert_eq!(refusal(&text).error.status, 431);
    }
}
