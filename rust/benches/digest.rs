//! What reading a body costs, by size and kind of text.
#![allow(
    missing_docs,
    reason = "criterion's macros define undocumented functions"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skylb_core::http::route::Route;
use skylb_core::prompt::{DigestConfig, Envelope, Scratch, digest};

/// A chat of `turns` messages of `text` each.
fn chat(turns: usize, text: &str) -> Vec<u8> {
    let messages: Vec<_> = (0..turns)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            serde_json::json!({"role": role, "content": format!("{turn}: {text}")})
        })
        .collect();
    let body = serde_json::json!({
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "messages": messages,
        "stream": true,
        "max_tokens": 512,
        "temperature": 0.7,
        "user": "user-1234",
    });
    body.to_string().into_bytes()
}

/// Words, with a line break (an escape) about every `line` bytes; none where it is 0.
fn prose(bytes: usize, line: usize) -> String {
    let mut text = String::new();
    let mut since = 0;
    for word in [
        "balance", "the", "prefix", "of", "replica", "queue", "a", "snapshot",
    ]
    .iter()
    .cycle()
    {
        if text.len() >= bytes {
            break;
        }
        text.push_str(word);
        since += word.len() + 1;
        if line > 0 && since >= line {
            text.push('\n');
            since = 0;
        } else {
            text.push(' ');
        }
    }
    text
}

fn benchmarks(c: &mut Criterion) {
    let cfg = DigestConfig::new(b"0123456789abcdef", 64, 32_768);
    let mut scratch = Scratch::default();
    let mut group = c.benchmark_group("digest");
    let bodies = [
        ("2kB_3_turns", chat(3, &prose(600, 80))),
        ("4kB_1_turn_plain", chat(1, &prose(4_000, 0))),
        ("4kB_6_turns", chat(6, &prose(620, 80))),
        ("400kB_1_turn_plain", chat(1, &prose(400_000, 0))),
        ("400kB_40_turns_lines_of_80", chat(40, &prose(10_000, 80))),
        ("400kB_400_turns_lines_of_30", chat(400, &prose(950, 30))),
    ];
    for (name, body) in &bodies {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(*name, |b| {
            b.iter(|| {
                digest(
                    &Envelope::new(Route::ChatCompletions, None),
                    black_box(body),
                    &cfg,
                    &mut scratch,
                )
            });
        });
    }
    let deep = [b"{\"model\":\"m\",\"x\":".as_slice(), &b"[".repeat(100_000)].concat();
    group.bench_function("refuse_depth_100000", |b| {
        b.iter(|| {
            digest(
                &Envelope::new(Route::ChatCompletions, None),
                black_box(&deep),
                &cfg,
                &mut scratch,
            )
        });
    });
    let keys = format!("{{\"model\":\"m\"{}}}", ",\"k\":1".repeat(1_000_000)).into_bytes();
    group.bench_function("refuse_keys_1000000", |b| {
        b.iter(|| {
            digest(
                &Envelope::new(Route::ChatCompletions, None),
                black_box(&keys),
                &cfg,
                &mut scratch,
            )
        });
    });
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
