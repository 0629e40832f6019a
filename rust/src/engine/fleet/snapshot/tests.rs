//! Pages as engines write them, and arbitrary ones against a line-by-line oracle.

use proptest::prelude::*;

use super::{DIALECTS, SGLANG, Snapshot, VLLM, scan};

fn vllm(page: &str) -> Snapshot {
    scan(page.as_bytes(), &VLLM)
}

const LABELS: &str = r#"engine="0",model_name="m""#;

#[test]
fn a_page_of_todays_vllm_is_read() {
    let page = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting{engine="0",model_name="m"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 2.0
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="m",sleep_state="weights_offloaded"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1.2345e+07
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.79e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 12.0
vllm:num_preemptions_total{engine="0",model_name="m"} 4.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="sql,chat",waiting_lora_adapters=""} 1.79e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.78e+09
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="1000"} 1.0
"#;
    let expected = Snapshot {
        running: Some(7),
        waiting: Some(3),
        deferred: Some(2),
        kv_usage: Some(0.25),
        kv_tokens: Some(16_000),
        block_size: Some(16),
        cache_queries: Some(12_345_000),
        cache_hits: Some(12),
        preemptions: Some(4),
        sleeping: false,
        loras_running: vec!["sql".to_owned(), "chat".to_owned()],
        tokens: None,
    };
    assert_eq!(vllm(page), expected);
    assert_eq!(vllm(&page.replace('\n', "\r\n")), expected);
}

#[test]
fn names_of_older_servers_are_read_and_yield_to_the_new_ones() {
    let old = "vllm:gpu_cache_usage_perc 0.5\nvllm:gpu_prefix_cache_queries_total 9\n\
               vllm:gpu_prefix_cache_hits_total 8\n";
    let snapshot = vllm(old);
    assert_eq!(snapshot.kv_usage, Some(0.5));
    assert_eq!(
        (snapshot.cache_queries, snapshot.cache_hits),
        (Some(9), Some(8))
    );
    let both = format!("{old}vllm:kv_cache_usage_perc 0.1\nvllm:prefix_cache_queries_total 5\n");
    assert_eq!(vllm(&both).kv_usage, Some(0.1));
    assert_eq!(vllm(&both).cache_queries, Some(5));
}

#[test]
fn data_parallel_ranks_are_summed_and_the_fullest_cache_counts() {
    let page = r#"vllm:num_requests_running{engine="0"} 3
vllm:num_requests_running{engine="1"} 4
vllm:num_requests_waiting{engine="0"} 0
vllm:num_requests_waiting{engine="1"} 2
vllm:kv_cache_usage_perc{engine="0"} 0.9
vllm:kv_cache_usage_perc{engine="1"} 0.2
vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="100",num_gpu_blocks="9"} 1
vllm:cache_config_info{block_size="16",engine="1",kv_cache_size_tokens="50",num_gpu_blocks="9"} 1
"#;
    let snapshot = vllm(page);
    assert_eq!((snapshot.running, snapshot.waiting), (Some(7), Some(2)));
    assert_eq!(snapshot.kv_usage, Some(0.9));
    assert_eq!(
        (snapshot.kv_tokens, snapshot.block_size),
        (Some(150), Some(16))
    );
}

#[test]
fn a_page_of_sglang_is_read_and_repeated_ranks_count_once() {
    let page = r#"sglang:num_running_reqs{model_name="m",tp_rank="0"} 12
sglang:num_running_reqs{model_name="m",tp_rank="1"} 12
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 3
sglang:num_grammar_queue_reqs{model_name="m",tp_rank="0"} 1
sglang:token_usage{model_name="m"} 0.5
sglang:max_total_num_tokens{model_name="m"} 25000
sglang:prompt_tokens_total{model_name="m"} 8.128902e+06
sglang:cached_tokens_total{model_name="m"} 100
vllm:num_requests_running 99
"#;
    let snapshot = scan(page.as_bytes(), &SGLANG);
    assert_eq!(
        (snapshot.running, snapshot.waiting, snapshot.deferred),
        (Some(12), Some(3), Some(1))
    );
    assert_eq!(
        (snapshot.kv_usage, snapshot.kv_tokens),
        (Some(0.5), Some(25_000))
    );
    assert_eq!(
        (snapshot.cache_queries, snapshot.cache_hits),
        (Some(8_128_902), Some(100))
    );
}

#[test]
fn the_queues_of_sglangs_data_parallel_ranks_are_summed_and_repeated_ranks_count_once() {
    // Two data-parallel ranks of two tensor-parallel ranks each, one of which is a step late.
    let page = r#"sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 8
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="m",pp_rank="0",tp_rank="1"} 7
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="m",pp_rank="0",tp_rank="2"} 5
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="m",pp_rank="0",tp_rank="3"} 6
sglang:num_queue_reqs{tp_rank="0",dp_rank="0",engine_type="unified",model_name="m",pp_rank="0"} 0
sglang:num_queue_reqs{tp_rank="2",dp_rank="1",engine_type="unified",model_name="m",pp_rank="0"} 500
sglang:token_usage{dp_rank="0",model_name="m",tp_rank="0"} 0.25
sglang:token_usage{dp_rank="1",model_name="m",tp_rank="2"} 0.75
sglang:max_total_num_tokens{dp_rank="0",model_name="m",pp_rank="0",tp_rank="0"} 100
sglang:max_total_num_tokens{dp_rank="0",model_name="m",pp_rank="1",tp_rank="0"} 100
sglang:max_total_num_tokens{dp_rank="1",model_name="m",pp_rank="1",tp_rank="2"} 100
sglang:prompt_tokens_total{model_name="m",tenant="a"} 10
sglang:prompt_tokens_total{model_name="m",tenant="b"} 20
"#;
    let snapshot = scan(page.as_bytes(), &SGLANG);
    assert_eq!((snapshot.running, snapshot.waiting), (Some(14), Some(500)));
    assert_eq!(
        (snapshot.kv_usage, snapshot.kv_tokens),
        (Some(0.75), Some(200))
    );
    assert_eq!(snapshot.cache_queries, Some(30));
}

#[test]
fn without_dp_rank_the_largest_of_sglangs_ranks_counts() {
    let page = "sglang:num_running_reqs{tp_rank=\"0\"} 1\nsglang:num_queue_reqs{tp_rank=\"0\"} 0\n\
                sglang:num_queue_reqs{tp_rank=\"1\"} 500\n";
    let snapshot = scan(page.as_bytes(), &SGLANG);
    assert_eq!((snapshot.running, snapshot.waiting), (Some(1), Some(500)));
}

#[test]
fn more_ranks_than_can_be_told_apart_or_an_absurd_one_leave_sglangs_load_unknown() {
    let series =
        |rank: usize, value: &str| format!("sglang:num_queue_reqs{{dp_rank=\"{rank}\"}} {value}\n");
    let mut page: String = (0..3_000).map(|rank| series(rank, "1")).collect();
    assert_eq!(scan(page.as_bytes(), &SGLANG).waiting, None);
    page = series(0, "1") + &series(1, "NaN") + &series(2, "1");
    assert_eq!(scan(page.as_bytes(), &SGLANG).waiting, None);
}

#[test]
fn tokens_computed_are_prompts_and_answers_together() {
    let page = "vllm:prompt_tokens_total{engine=\"0\"} 100\nvllm:generation_tokens_total{engine=\"0\"} 7\n\
                vllm:prompt_tokens_total{engine=\"1\"} 1\n";
    assert_eq!(vllm(page).tokens, Some(108));
    assert_eq!(vllm("vllm:num_requests_running 1\n").tokens, None);
}

#[test]
fn what_is_missing_is_unknown_and_never_zero() {
    assert_eq!(vllm(""), Snapshot::default());
    assert!(!vllm("vllm:num_requests_running 1\n").readable());
    assert!(vllm("vllm:num_requests_running 1\nvllm:num_requests_waiting 0").readable());
    assert_eq!(
        vllm("# vllm:num_requests_running 1\n vllm:num_requests_running 1").running,
        None
    );
}

#[test]
fn absurd_values_are_unknown_whatever_other_ranks_say() {
    for value in ["-1", "NaN", "+Inf", "1e10", "x", "", "-0.5"] {
        let page = format!(
            "vllm:num_requests_running{{engine=\"0\"}} 1\nvllm:num_requests_running{{engine=\"1\"}} {value}\n\
             vllm:num_requests_running{{engine=\"2\"}} 1\n"
        );
        assert_eq!(vllm(&page).running, None, "{value}");
    }
    assert_eq!(vllm("vllm:kv_cache_usage_perc 1.5").kv_usage, None);
    assert_eq!(
        vllm("vllm:prefix_cache_queries_total 1e12").cache_queries,
        Some(1_000_000_000_000)
    );
}

#[test]
fn a_sleeping_engine_is_seen() {
    let awake = format!("vllm:engine_sleep_state{{{LABELS},sleep_state=\"awake\"}} ");
    assert!(!vllm(&format!("{awake}1\n")).sleeping);
    assert!(vllm(&format!("{awake}0\n")).sleeping);
    let discarded = format!("vllm:engine_sleep_state{{{LABELS},sleep_state=\"discard_all\"}} ");
    assert!(vllm(&format!("{discarded}1\n")).sleeping);
    assert!(!vllm(&format!("{discarded}0\n")).sleeping);
}

#[test]
fn label_values_may_hold_anything() {
    let page = r#"vllm:num_requests_running{model_name="a } \" , x=\"y\" \\"} 3 1700000000
vllm:lora_requests_info{ running_lora_adapters = "a\"b, c" , max_lora="1" } 5
"#;
    assert_eq!(vllm(page).running, Some(3));
    assert_eq!(vllm(page).loras_running, ["a\"b", "c"]);
}

#[test]
fn broken_lines_are_unknown_not_a_panic() {
    for line in [
        "{",
        "{a",
        "{a=",
        "{a=\"",
        "{a=\"b",
        "{a=\"b\\",
        "{a=\"b\" c",
        "{a=\"b\",",
        " ",
        "{}",
        "{,}",
    ] {
        assert_eq!(
            vllm(&format!("vllm:num_requests_running{line}\n")).running,
            None,
            "{line}"
        );
    }
    assert_eq!(vllm("vllm:num_requests_running{} 2").running, Some(2));
}

#[test]
fn what_stands_behind_a_histogram_is_read_whether_it_is_announced_or_not() {
    let buckets =
        "# TYPE vllm:ttft histogram\nvllm:ttft_bucket{m=\"a#b\",le=\"1\"} 3\nvllm:ttft_sum{} 9\n";
    for behind in ["# TYPE vllm:x gauge\n", ""] {
        let page = format!("{buckets}{behind}vllm:num_requests_running{{}} 2\n");
        assert_eq!(vllm(&page).running, Some(2), "{page}");
    }
    assert_eq!(vllm("# TYPE vllm:ttft histogram\n").running, None);
    assert_eq!(vllm(buckets), Snapshot::default());
}

/// One series of a name that matters for the gate, or of one that looks alike.
#[derive(Debug, Clone)]
struct Series {
    name: &'static str,
    label: String,
    value: f64,
}

fn series() -> impl Strategy<Value = Series> {
    let names = prop::sample::select(vec![
        "num_requests_running",
        "num_requests_waiting",
        "num_requests_running_total",
        "num_requests_swapped",
        "prefix_cache_hits_total",
        "num_preemptions_total",
        "kv_cache_usage_perc",
        "time_to_first_token_seconds_bucket",
    ]);
    let value = prop_oneof![8 => 0_u32..2000, 1 => Just(u32::MAX)];
    (names, r#"[a-z"\\ ,={}\n]{0,8}"#, value, any::<bool>()).prop_map(
        |(name, label, value, minus)| {
            let sign = if minus && value % 7 == 0 { -1.0 } else { 1.0 };
            Series {
                name,
                label,
                value: f64::from(value) * sign,
            }
        },
    )
}

/// The page a server would write, comments and an unrelated label included.
fn write(all: &[Series]) -> String {
    let mut page = String::new();
    for s in all {
        let kind = if s.name.ends_with("_bucket") {
            "histogram"
        } else {
            "gauge"
        };
        let label = s
            .label
            .replace('\\', r"\\")
            .replace('"', "\\\"")
            .replace('\n', r"\n");
        let name = s.name;
        page += &[
            "# TYPE vllm:",
            name.trim_end_matches("_bucket"),
            " ",
            kind,
            "\nvllm:",
            name,
            "{model=\"",
            &label,
            "\"} ",
        ]
        .concat();
        page += &s.value.to_string();
        page.push('\n');
    }
    page
}

/// What a reader of whole lines finds: the name up to the first brace, the value after the last
/// space, the sum of a name's values unless one of them is absurd.
fn read(page: &str, name: &str, max: f64) -> Option<f64> {
    let mut values = Vec::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (full, _) = line.split_once('{')?;
        let (_, value) = line.rsplit_once(' ')?;
        if full.strip_prefix("vllm:") == Some(name) {
            values.push(value.parse::<f64>().ok()?);
        }
    }
    let sound = !values.is_empty() && values.iter().all(|v| (0.0..=max).contains(v));
    sound
        .then(|| values.iter().sum::<f64>())
        .filter(|total| *total <= max)
}

#[expect(clippy::cast_precision_loss, reason = "sums of a few 32-bit numbers")]
fn exact(counter: Option<u64>) -> Option<f64> {
    counter.map(|v| v as f64)
}

proptest! {
    #[test]
    fn no_bytes_make_the_scanner_panic(page in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = scan(&page, &VLLM);
        let _ = scan(&page, &SGLANG);
    }

    #[test]
    fn no_mangled_page_makes_the_scanner_panic(
        cuts in prop::collection::vec((0_usize..120, any::<u8>()), 0..6),
    ) {
        let mut page = br#"vllm:num_requests_running{engine="0",model_name="m\"x"} 7.0 12
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b"} 2
vllm:cache_config_info{block_size="16",num_gpu_blocks="10"} 1.0"#.to_vec();
        for (at, byte) in cuts {
            page[at] = byte;
        }
        let _ = scan(&page, &VLLM);
    }

    #[test]
    fn the_scanner_agrees_with_a_reader_of_whole_lines(
        all in prop::collection::vec(series(), 0..24),
    ) {
        let page = write(&all);
        let snapshot = vllm(&page);
        prop_assert_eq!(snapshot.running.map(f64::from), read(&page, "num_requests_running", 1e9));
        prop_assert_eq!(snapshot.waiting.map(f64::from), read(&page, "num_requests_waiting", 1e9));
        let preemptions = read(&page, "num_preemptions_total", 9e15);
        prop_assert_eq!(exact(snapshot.preemptions), preemptions);
        prop_assert_eq!(exact(snapshot.cache_hits), read(&page, "prefix_cache_hits_total", 9e15));
    }
}

#[test]
fn every_name_that_an_engine_is_asked_for_is_read() {
    for dialect in DIALECTS {
        for name in dialect.names {
            let line = format!(
                "{name}{{reason=\"deferred\",sleep_state=\"awake\",running_lora_adapters=\"a\",block_size=\"16\"}} 0\n"
            );
            let read = scan(line.as_bytes(), dialect);
            assert_ne!(read, Snapshot::default(), "{name}");
        }
    }
}
