//! What answers and their usage teach.

use super::*;

mod cache;
use crate::rng::Rng;

fn blind() -> Config {
    Config {
        push: PushRule::Blind,
        ..config()
    }
}

/// A replica of so many tokens, four bytes each: 16 to a block of ours and of its own.
fn told(kv_tokens: u64) -> Snapshot {
    Snapshot {
        kv_tokens: Some(kv_tokens),
        block_size: Some(16),
        ..idle()
    }
}

fn blocks(seed: u64, len: usize) -> Vec<u64> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.next_u64()).collect()
}

fn tokens(blocks: usize) -> u32 {
    u32::try_from(blocks * 16).unwrap()
}

impl Drive {
    /// A request from submission to end: where it went, and how many blocks matched there.
    fn serve(&mut self, prompt: &[u64], cached: Option<usize>, answer: &[u64]) -> (u32, u32) {
        let effects = self.submit_as(ask(Route::ChatCompletions), digest("m", prompt));
        let [Effect::Push(push)] = &effects[..] else {
            panic!("not one push: {effects:?}")
        };
        let (replica, matched) = (push.replica.0, push.match_blocks);
        let id = push.request;
        self.first_byte(id.0);
        self.report(id, prompt.len(), cached, answer);
        (replica, matched)
    }

    /// A request with a prompt of so many blocks ends well.
    fn report(&mut self, id: RequestId, prompt: usize, cached: Option<usize>, answer: &[u64]) {
        let usage = Usage {
            prompt_tokens: Some(tokens(prompt)),
            cached_tokens: cached.map(tokens),
            completion_tokens: Some(tokens(answer.len())),
        };
        self.tell(id, usage, answer);
    }

    fn tell(&mut self, id: RequestId, usage: Usage, answer: &[u64]) {
        let report = Report {
            usage,
            answer,
            ..Report::default()
        };
        self.call(|router, now, out| router.complete(id, Outcome::Ok, report, now, out));
    }

    /// A request whose engine tells tokens of prompt, cache and answer. Tokens that were predicted to
    /// be cached.
    fn serve_told(&mut self, digest: Digest, told: (u32, u32, u32), answer: &[u64]) -> u32 {
        let before = self.counter("cached_tokens_predicted");
        let (id, ..) = pushed(&self.submit_as(ask(Route::ChatCompletions), digest));
        let (prompt, cached, completion) = told;
        let usage = Usage {
            prompt_tokens: Some(prompt),
            cached_tokens: Some(cached),
            completion_tokens: Some(completion),
        };
        self.tell(RequestId(id), usage, answer);
        let predicted = self.counter("cached_tokens_predicted") - before;
        u32::try_from(predicted).unwrap()
    }

    fn matched(&mut self, prompt: &[u64]) -> u32 {
        let mut found = Vec::new();
        self.router.cache.matches(prompt, &mut found);
        found.first().map_or(0, |(_, blocks)| *blocks)
    }

    fn capacity(&self) -> u32 {
        let (slot, _) = self.router.fleet.members().next().unwrap();
        self.router.cache.capacity_blocks(slot)
    }
}

#[test]
fn turn_two_of_a_short_question_with_a_long_answer_returns_to_its_owner() {
    let mut drive = Drive::new(blind(), 8);
    for conversation in 0..20 {
        let turn_two = blocks(conversation, 40);
        let (owner, _) = drive.serve(&turn_two[..6], Some(0), &turn_two[6..37]);
        assert_eq!(drive.serve(&turn_two, Some(37), &[]), (owner, 37));
    }
    assert_eq!(drive.counter("chosen_by_match"), 20);
    assert_eq!(drive.counter("cache_misses"), 0);
}

#[test]
fn the_answer_of_a_request_that_did_not_end_well_is_not_learned() {
    let mut drive = Drive::new(blind(), 1);
    let all = blocks(1, 20);
    for outcome in [Outcome::ClientLeft, Outcome::ReplicaFailed] {
        let (id, ..) =
            pushed(&drive.submit_as(ask(Route::ChatCompletions), digest("m", &all[..5])));
        let report = Report {
            answer: &all[5..],
            ..Report::default()
        };
        drive.call(|router, now, out| {
            router.complete(RequestId(id), outcome, report, now, out);
        });
        assert_eq!(drive.matched(&all), 5);
    }
}

#[test]
fn answers_count_in_the_capacity_of_their_owner() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_600));
    for conversation in 0..10 {
        let all = blocks(conversation, 40);
        drive.serve(&all[..10], None, &all[10..]);
        assert!(drive.router.gauges()[0].tree_blocks <= 100);
    }
    let kept: Vec<u32> = (0..10)
        .map(|conversation| drive.matched(&blocks(conversation, 40)))
        .collect();
    assert_eq!(kept, [0, 0, 0, 0, 0, 0, 0, 20, 40, 40]);
}

#[test]
fn a_miss_drops_what_was_used_no_later_and_keeps_the_path_just_sent() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_600));
    let [old, missed, new]: [Vec<u64>; 3] = std::array::from_fn(|n| blocks(n as u64, 30));
    for (prompt, cached) in [(&old, 0), (&old, 30), (&missed, 0), (&new, 0)] {
        drive.serve(prompt, Some(cached), &[]);
    }
    assert_eq!(drive.capacity(), 100);
    assert_eq!(drive.serve(&missed, Some(0), &[]), (0, 30));
    assert_eq!(
        (
            drive.matched(&old),
            drive.matched(&missed),
            drive.matched(&new)
        ),
        (0, 30, 30)
    );
    assert_eq!(drive.counter("cache_corrections"), 1);
    assert_eq!(drive.counter("cache_corrected_blocks"), 30);
    assert_eq!(drive.capacity(), 75, "30 kept, but not all at once");
}

#[test]
fn what_was_cached_in_part_is_missed_from_there_on() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_600));
    let [old, other]: [Vec<u64>; 2] = std::array::from_fn(|n| blocks(n as u64, 30));
    let shared = [&old[..20], &blocks(7, 10)].concat();
    drive.serve(&old, Some(0), &[]);
    drive.serve(&other, Some(0), &[]);
    drive.serve(&shared, Some(20), &[]);
    assert_eq!(drive.counter("cache_misses"), 0);
    // The end of `old` was evicted, its beginning used since.
    drive.serve(&old, Some(20), &[]);
    assert_eq!(drive.counter("cache_corrections"), 1);
    assert_eq!(
        (
            drive.matched(&old),
            drive.matched(&other),
            drive.matched(&shared)
        ),
        (30, 30, 30)
    );
}

#[test]
fn one_miss_that_no_eviction_explains_is_not_believed_but_the_third_in_a_row_is() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_000_000));
    let old = blocks(1, 30);
    let odd = blocks(2, 30);
    drive.serve(&old, Some(0), &[]);
    drive.serve(&odd, Some(0), &[]);
    for (misses, kept) in [(1, 30), (2, 30), (3, 0)] {
        drive.serve(&odd, Some(5), &[]);
        assert_eq!(
            (drive.counter("cache_misses"), drive.matched(&old)),
            (misses, kept)
        );
    }
    assert!(drive.capacity() < 62_500);
    drive.serve(&old, Some(0), &[]);
    drive.serve(&odd, Some(5), &[]);
    drive.serve(&old, Some(30), &[]);
    drive.serve(&odd, Some(5), &[]);
    drive.serve(&odd, Some(5), &[]);
    assert_eq!(
        drive.counter("cache_corrections"),
        1,
        "a hit between them starts anew"
    );
}

#[test]
fn zeros_of_a_replica_that_has_never_told_more_are_not_believed() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_600));
    let prompts: [Vec<u64>; 3] = std::array::from_fn(|n| blocks(n as u64, 30));
    for _ in 0..5 {
        for prompt in &prompts {
            drive.serve(prompt, Some(0), &[]);
        }
    }
    assert_eq!((drive.counter("cache_misses"), drive.capacity()), (0, 100));
}

#[test]
fn a_burst_that_shares_what_is_only_being_computed_is_no_eviction() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(16_000));
    let other = blocks(1, 10);
    drive.serve(&other, Some(0), &[]);
    drive.serve(&other, Some(10), &[]);
    let shared = blocks(2, 30);
    let prompts: Vec<Vec<u64>> = (10..20)
        .map(|seed| [&shared[..], &blocks(seed, 5)].concat())
        .collect();
    let ids: Vec<u64> = prompts
        .iter()
        .map(|prompt| pushed(&drive.submit_as(ask(Route::ChatCompletions), digest("m", prompt))).0)
        .collect();
    for id in ids {
        drive.report(RequestId(id), 35, Some(0), &[]);
    }
    assert_eq!(drive.counter("cache_misses"), 9, "all but the first");
    assert_eq!(drive.counter("cache_corrections"), 0);
    assert_eq!(drive.capacity(), 1_000);
}

#[test]
fn a_lowered_capacity_recovers_slowly_while_predictions_hold() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_600));
    let prompts: [Vec<u64>; 3] = std::array::from_fn(|n| blocks(n as u64, 30));
    for prompt in &prompts {
        drive.serve(prompt, Some(0), &[]);
    }
    drive.serve(&prompts[2], Some(30), &[]);
    drive.serve(&prompts[1], Some(0), &[]);
    let lowered = drive.capacity();
    for round in 0..400 {
        drive.serve(&prompts[2], Some(30), &[]);
        drive.observe(0, told(1_600));
        if round == 4 {
            assert!(drive.capacity() < lowered + 10);
        }
    }
    assert!(drive.capacity() > 90, "{}", drive.capacity());
}

#[test]
fn a_capacity_that_is_only_assumed_grows_when_more_is_found_than_believed() {
    let mut drive = Drive::new(
        Config {
            replica_kv_tokens: 1_600,
            ..blind()
        },
        1,
    );
    for round in 0..200 {
        let prompt = blocks(round % 6, 30);
        drive.serve(&prompt, Some(if round < 6 { 0 } else { 30 }), &[]);
        drive.observe(0, idle());
    }
    assert!(drive.capacity() >= 170, "{}", drive.capacity());
    assert_eq!(drive.matched(&blocks(0, 30)), 30);
}

#[test]
fn without_usage_the_engines_counters_are_compared() {
    for (hits_per_round, expected) in [(450, 100), (20, 60)] {
        let mut drive = Drive::new(blind(), 1);
        let prompt = blocks(1, 30);
        for round in 0..200 {
            drive.serve_without_usage(&prompt);
            let counters = Snapshot {
                cache_queries: Some(480 * (round + 1)),
                cache_hits: Some(hits_per_round * (round + 1)),
                ..told(1_600)
            };
            drive.observe(0, counters);
        }
        assert!(
            drive.capacity().abs_diff(expected) < 10,
            "{}",
            drive.capacity()
        );
    }
}

#[test]
fn counters_that_others_drive_as_well_tell_nothing() {
    let mut drive = Drive::new(blind(), 1);
    let prompt = blocks(1, 30);
    for round in 0..200 {
        drive.serve_without_usage(&prompt);
        let counters = Snapshot {
            cache_queries: Some(2_000 * (round + 1)),
            cache_hits: Some(0),
            ..told(1_600)
        };
        drive.observe(0, counters);
    }
    assert_eq!(drive.capacity(), 100);
}

#[test]
fn whatever_a_text_has_of_bytes_per_token_the_next_turn_is_predicted_to_the_block() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_000_000));
    for (seed, tokens_per_block) in [(1, 8), (2, 40), (3, 16), (4, 60), (5, 5)] {
        let all = blocks(seed, 100);
        let tokens = |blocks: u32| blocks * tokens_per_block;
        drive.serve_told(
            digest("m", &all[..20]),
            (tokens(20), 0, tokens(30)),
            &all[20..50],
        );
        let cached = tokens(50) / 16 * 16;
        let told = (tokens(70), cached, tokens(10));
        let predicted = drive.serve_told(digest("m", &all[..70]), told, &all[70..80]);
        assert!(predicted.abs_diff(cached) <= 16 + tokens_per_block / 2);
    }
    assert_eq!(drive.counter("cache_misses"), 0);
}

#[test]
fn where_prompts_part_is_learned_from_what_the_engine_found() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_000_000));
    let system = blocks(1, 20);
    let ask_with = |seed| digest("m", &[&system[..], &blocks(seed, 20)].concat());
    // 50 tokens to a block in the system text, 10 in what follows.
    drive.serve_told(ask_with(2), (1_200, 0, 0), &[]);
    drive.serve_told(ask_with(3), (1_200, 992, 0), &[]);
    for seed in 4..8 {
        assert_eq!(drive.serve_told(ask_with(seed), (1_200, 992, 0), &[]), 992);
    }
    assert_eq!(drive.counter("cache_misses"), 0);
}

#[test]
fn answers_that_are_rendered_otherwise_are_no_evictions_and_soon_not_predicted() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(16_000));
    let mut predicted = Vec::new();
    for seed in 0..20 {
        let all = blocks(seed, 40);
        drive.serve_told(digest("m", &all[..10]), (160, 0, 320), &all[10..30]);
        predicted.push(drive.serve_told(digest("m", &all), (640, 160, 0), &[]));
    }
    assert!(predicted[0] > 400, "{predicted:?}");
    assert_eq!(predicted[10..], [160; 10]);
    assert!(drive.counter("answers_not_found") >= 19);
    assert_eq!(drive.counter("cache_misses"), 0);
    assert_eq!(drive.counter("cache_corrections"), 0);
    assert_eq!(drive.capacity(), 1_000);
}

#[test]
fn an_answer_that_was_not_read_takes_its_room_and_matches_nothing() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_600));
    let prompts: [Vec<u64>; 3] = std::array::from_fn(|n| blocks(n as u64, 10));
    for prompt in &prompts {
        drive.serve_told(digest("m", prompt), (160, 0, 480), &[]);
    }
    assert_eq!(drive.router.gauges()[0].tree_blocks, 100);
    assert_eq!(drive.matched(&prompts[1]), 10);
    drive.serve_told(digest("m", &prompts[0]), (160, 160, u32::MAX), &[]);
    assert!(
        drive.router.gauges()[0].tree_blocks <= 100,
        "what is told is bounded"
    );
}

#[test]
fn prompts_with_images_teach_neither_bytes_per_token_nor_evictions() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(16_000));
    let plain = blocks(1, 40);
    drive.serve_told(digest("m", &plain), (640, 0, 0), &[]);
    drive.serve_told(digest("m", &plain), (640, 640, 0), &[]);
    let capacity = drive.capacity();
    for seed in 2..10 {
        let all = blocks(seed, 40);
        for (len, told) in [(30, (480, 0, 0)), (40, (4_000, 480, 0))] {
            let mut digest = digest("m", &all[..len]);
            digest.has_media = true;
            drive.serve_told(digest, told, &[]);
        }
    }
    assert_eq!(drive.counter("cache_corrections"), 0);
    drive.observe(0, told(16_000));
    assert_eq!(drive.capacity(), capacity);
}

impl Drive {
    fn serve_without_usage(&mut self, prompt: &[u64]) {
        let (id, ..) = pushed(&self.submit_as(ask(Route::ChatCompletions), digest("m", prompt)));
        self.complete(id);
    }
}

#[test]
fn errors_are_told_apart_by_sign_and_size() {
    let mut drive = Drive::new(blind(), 1);
    drive.observe(0, told(1_000_000));
    let prompt = blocks(1, 30);
    drive.serve(&prompt, Some(0), &[]);
    drive.serve(&prompt, Some(30), &[]);
    drive.serve(&prompt, Some(28), &[]);
    drive.serve(&blocks(2, 30), Some(10), &[]);
    let (buckets, sum) = drive.router.prefix_errors();
    assert_eq!(sum, 32 - 160);
    let below = |bound: f64| buckets.iter().find(|(upper, _)| *upper >= bound).unwrap().1;
    let counts = [-160.0, -1.0, 0.0, 16.0, 32.0, f64::INFINITY].map(below);
    assert_eq!(
        counts,
        [1, 1, 2, 2, 3, 3],
        "nothing predicted and nothing found is no error"
    );
}
