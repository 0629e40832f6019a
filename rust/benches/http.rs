//! Cost of the pure HTTP core: a request head, the head that goes upstream, a streamed chunk, a
//! chunked body. Budgets: about 1 us per head, 0.3 us per chunk.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use skylb_core::http::request::chunked::BodyDecoder;
use skylb_core::http::request::{Credentials, HeadParser, Upstream};
use skylb_core::relay::{FEED_WRITE_INPUT, Options, Relay};

/// What the official `openai` client sends, in shape and length.
const HEAD: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\n\
    Accept: application/json\r\n\
    Content-Type: application/json\r\n\
    User-Agent: OpenAI/Python 3.52.0\r\n\
    X-Stainless-Lang: python\r\n\
    X-Stainless-Async: false\r\n\
    Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n\
    Content-Length: 2048\r\n\r\n";

const EVENT: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\
    \"created\":1700000000,\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{\"index\":0,\
    \"delta\":{\"content\":\" hello\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";

const OPTIONS: Options = Options {
    http11: true,
    keep_alive: true,
    is_head: false,
    anthropic: false,
    drop_usage: false,
    responses_api: false,
};

fn heads(c: &mut Criterion) {
    let parser = HeadParser::new(Some("x-session-id"), false);
    c.bench_function("head/parse", |b| b.iter(|| parser.parse(black_box(HEAD))));
    let Ok(Some(head)) = parser.parse(HEAD) else {
        return;
    };
    let to = Upstream {
        path: None,
        capped: false,
        host: "10.0.0.1:8000",
        request_id: "0123456789abcdef",
        client: Some("192.0.2.7"),
        scheme: "http",
        trusted: false,
        credentials: Credentials::Passed,
        body_len: 2048,
        trace: None,
    };
    c.bench_function("head/upstream", |b| {
        b.iter(|| head.upstream(black_box(&to)));
    });
}

fn begun() -> Relay {
    let mut relay = Relay::new(OPTIONS, "0123456789abcdef");
    relay.feed(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    relay.feed(&framed(EVENT));
    relay.take();
    relay
}

fn framed(payload: &str) -> Vec<u8> {
    format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes()
}

fn relays(c: &mut Criterion) {
    let mut group = c.benchmark_group("relay");
    let mut relay = begun();
    let one = framed(EVENT);
    assert_eq!(relay.feed(&one), FEED_WRITE_INPUT);
    group.throughput(Throughput::Bytes(one.len() as u64));
    group.bench_function("event", |b| b.iter(|| relay.feed(black_box(&one))));
    let two = [framed(EVENT), framed(EVENT)].concat();
    group.throughput(Throughput::Bytes(two.len() as u64));
    group.bench_function("two events", |b| b.iter(|| relay.feed(black_box(&two))));
    group.throughput(Throughput::Bytes(one.len() as u64));
    group.bench_function("event in two pieces", |b| {
        b.iter(|| {
            relay.feed(black_box(&one[..100]));
            relay.feed(black_box(&one[100..]));
            relay.take()
        });
    });
    let body = vec![b'x'; 2048];
    let head = b"HTTP/1.1 200 OK\r\nDate: d\r\nServer: uvicorn\r\nContent-Type: application/json\r\nContent-Length: 2048\r\n\r\n";
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("whole 2 kB response", |b| {
        b.iter(|| {
            let mut relay = Relay::new(OPTIONS, "0123456789abcdef");
            relay.feed(black_box(head));
            relay.feed(black_box(&body));
            relay.take()
        });
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let mut wire = Vec::new();
    for _ in 0..16 {
        wire.extend_from_slice(&framed(&"x".repeat(4096)));
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    let mut group = c.benchmark_group("chunked body");
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("64 KiB in 16 chunks", |b| {
        b.iter_batched(
            || BodyDecoder::new(1 << 20),
            |mut decoder| decoder.feed(black_box(&wire)).map(|body| body.len()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, heads, relays, bodies);
criterion_main!(benches);
