//! Metrics pages of engines: [`scan`].

use skylb_core::engine::fleet::snapshot::{DIALECTS, Snapshot, scan};

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, dialect) in (0_u8..).zip(DIALECTS) {
        let mut page = String::new();
        for (index, name) in dialect.names.iter().enumerate() {
            let labels = "model_name=\"m\",engine=\"0\",tp_rank=\"1\",dp_rank=\"0\"";
            let lines = [
                format!("# HELP {name} h\n# TYPE {name} gauge\n{name}{{{labels}}} {index}.0\n"),
                format!("# TYPE {name}_s histogram\n{name}_s_bucket{{le=\"1.0\"}} 3\n"),
            ];
            page += &lines.concat();
            seeds.push([&[number, 3], format!("{name} {index}").as_bytes()].concat());
        }
        page += "vllm:num_requests_waiting_by_reason{reason=\"deferred\"} 2\nvllm:engine_sleep_state{sleep_state=\"awake\"} 1\n";
        page += "vllm:lora_requests_info{running_lora_adapters=\"a, b\\\\\\\"\"} 1.7e9\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"100\"} 1\n";
        page += "sglang:token_usage 0.5 1700000000\nsglang:num_running_reqs NaN\nvllm:num_requests_running +Inf\n";
        seeds.push([&[number, 3], page.as_bytes()].concat());
    }
    seeds
}

pub fn run(data: &[u8]) {
    let Some((&[dialect, seed], page)) = data.split_first_chunk::<2>() else {
        return;
    };
    let dialect = DIALECTS[usize::from(dialect) % DIALECTS.len()];
    let whole = scan(page, dialect);
    assert!(whole.possible(), "{whole:?}");
    let bytes: usize = whole.loras_running.iter().map(String::len).sum();
    assert!(bytes <= page.len() * 3, "names longer than the page");
    // Within a histogram's family nothing is looked at: lines moved there would be lost.
    let has_family = page.windows(7).any(|window| window == b"# TYPE ");
    if has_family {
        return;
    }
    let lines: Vec<&[u8]> = page.split(|byte| *byte == b'\n').collect();
    let longer = [page, b"\nother:name{a=\"b\"} 7\n# a comment"].concat();
    assert_alike(&scan(&longer, dialect), &whole, "a line that says nothing");
    let is_ordered = |line: &&&[u8]| {
        line.starts_with(b"vllm:lora_requests_info") || line.starts_with(b"vllm:cache_config_info")
    };
    if lines.iter().filter(is_ordered).count() > 1 {
        return; // the latest, or the first of these counts
    }
    let shuffled = shuffled(lines, seed).join(&b'\n');
    assert_alike(&scan(&shuffled, dialect), &whole, "the order of the lines");
}

fn shuffled(mut lines: Vec<&[u8]>, seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed);
    for last in (1..lines.len()).rev() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        lines.swap(last, (state >> 8) as usize % (last + 1));
    }
    lines
}

/// Sums of fractions differ by their order, and are cut to whole numbers.
fn assert_alike(one: &Snapshot, other: &Snapshot, what: &str) {
    let near = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => a.abs_diff(b) <= 1,
        // A sum at the bound of what counts.
        (a, b) => a == b || a.or(b).is_some_and(|sum| sum >= 999_999_999),
    };
    let wide = |gauge: Option<u32>| gauge.map(u64::from);
    for (a, b) in [
        (wide(one.running), wide(other.running)),
        (wide(one.waiting), wide(other.waiting)),
        (wide(one.deferred), wide(other.deferred)),
        (one.kv_tokens, other.kv_tokens),
        (one.cache_queries, other.cache_queries),
        (one.cache_hits, other.cache_hits),
        (one.preemptions, other.preemptions),
        (one.tokens, other.tokens),
    ] {
        assert!(near(a, b), "{what}: {one:?}, {other:?}");
    }
    assert_eq!(
        (
            one.kv_usage,
            one.block_size,
            one.sleeping,
            &one.loras_running
        ),
        (
            other.kv_usage,
            other.block_size,
            other.sleeping,
            &other.loras_running
        ),
        "{what}"
    );
}
