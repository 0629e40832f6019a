//! One finished request: counts, distributions and its line in the log.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use skylb_core::http::request::HeadParser;
use skylb_core::record::{Ended, Format, Life, Recorder, Target};

const QUEUE_BYTES_MAX: usize = 4 << 20;

fn life() -> Life {
    Life {
        request_id: "8f14e45fceea167a-1f4c2".into(),
        attempts: 1,
        target: Some(Target::Replica("http://127.0.0.1:8101".into())),
        match_blocks: 30,
        start_ns: 123_456_789_000,
        first_byte_ns: 123_556_789_000,
        bytes_in: 2048,
        ..Life::default()
    }
}

fn complete(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    for (name, format) in [
        ("off", Format::Off),
        ("text", Format::Text),
        ("json", Format::Json),
    ] {
        let offset_ns = 1_767_225_600_000_000_000;
        let mut recorder = Recorder::new(format, QUEUE_BYTES_MAX, "prefix", offset_ns, 64);
        let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\
                    Content-Type: application/json\r\n\r\n";
        let head = HeadParser::new(None, false).parse(head.as_bytes());
        let head = head.ok().flatten();
        let life = life();
        let mut ended = Ended {
            head: head.as_ref().map(Into::into),
            refused: false,
            digest: None,
            prompt_blocks: 32,
            prompt: None,
            relay: None,
            life: &life,
            client: Some("127.0.0.1:50000"),
            origin: None,
            status: 200,
            error_code: None,
            end_ns: 124_000_000_000,
        };
        let mut requests = 0u32;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                ended.end_ns += 100_000; // 10,000 requests a second
                recorder.complete(black_box(&ended));
                requests += 1;
                if requests.is_multiple_of(1000) {
                    recorder.take_log(|lines| black_box(lines.len()));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, complete);
criterion_main!(benches);
