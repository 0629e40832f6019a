//! One finished request: counts, distributions and its line in the log.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use skylb_core::record::{Event, Format, Recorder};

const QUEUE_BYTES_MAX: usize = 4 << 20;

fn event() -> Event<'static> {
    Event {
        request_id: "8f14e45fceea167a-1f4c2",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        client: Some("127.0.0.1:50000"),
        method: "POST",
        route: "/v1/chat/completions",
        measured: true,
        model: Some("meta-llama/Llama-3.1-8B-Instruct"),
        status: 200,
        replica: Some("http://127.0.0.1:8101"),
        attempts: 1,
        prompt_blocks: 32,
        match_blocks: 30,
        start_ns: 123_456_789_000,
        first_byte_ns: 123_556_789_000,
        end_ns: 124_000_000_000,
        bytes_in: 2048,
        bytes_out: 4096,
        ..Event::default()
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
        let mut event = event();
        let mut requests = 0u32;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                event.end_ns += 100_000; // 10,000 requests a second
                recorder.complete(black_box(&event));
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
