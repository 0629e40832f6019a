//! Lines of a recording: what follows what, what is shared, and what is not in them.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::record::prompt::Prompt;

fn writer(known_max: usize) -> Writer {
    Writer::new(Form {
        region: "eu".into(),
        start_ns: 1_000_000_000,
        block_tokens: 16,
        known_max,
    })
}

/// A request of these blocks that ran from one second to another.
fn arrival(blocks: &[u64], answer: &[u64], (from_s, to_s): (u64, u64)) -> Arrival {
    let prompt = Prompt {
        blocks: blocks.into(),
        answer: answer.into(),
        ..Prompt::default()
    };
    Arrival {
        prompt: Arc::new(prompt),
        route: "/v1/chat/completions",
        model: "m".into(),
        tenant: None,
        class: Class::default(),
        prompt_bytes: blocks.len() * 64 + 10,
        has_media: false,
        generates: true,
        tokens_max: None,
        prompt_tokens: Some(100),
        cached_tokens: None,
        answer_tokens: Some(20),
        events_tokens: 0,
        status: 200,
        forwarded: false,
        start_ns: from_s * 1_000_000_000,
        ttft_ns: Some(500_000_000),
        held_ns: 0,
        end_ns: to_s * 1_000_000_000,
    }
}

fn of_user(key: u64, mut arrival: Arrival) -> Arrival {
    let prompt = Arc::get_mut(&mut arrival.prompt).unwrap();
    prompt.key = Some(key);
    arrival
}

fn lines(writer: &mut Writer, arrivals: &[Arrival]) -> Vec<Value> {
    let mut out = Vec::new();
    writer.write(arrivals, &mut out);
    let text = String::from_utf8(out).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_line_has_times_from_the_recordings_start_and_numbers_for_blocks() {
    let found = lines(&mut writer(100), &[arrival(&[77, 99], &[], (2, 4))]);
    let expected = r#"{"id":0,"t":1.0,"region":"eu","user":0,"session":0,"turn":1,"in":100,"out":20,
        "block":16,"runs":[[0,2]],"bytes":138,"model":"m","route":"/v1/chat/completions","status":200,
        "held":0.0,"ttft":0.5,"end":3.0}"#;
    assert_eq!(found, [serde_json::from_str::<Value>(expected).unwrap()]);
}

#[test]
fn a_request_follows_the_one_whose_prompt_and_answer_it_contains() {
    let found = lines(
        &mut writer(100),
        &[
            arrival(&[1, 2], &[3, 4], (2, 4)),
            arrival(&[1, 2, 3, 4, 5], &[6], (7, 9)),
            arrival(&[1, 2, 3, 4, 5, 6, 7], &[], (10, 11)),
            arrival(&[1, 9], &[], (12, 13)),
        ],
    );
    let after: Vec<_> = found.iter().map(|line| line["after"].as_u64()).collect();
    assert_eq!(after, [None, Some(0), Some(1), None]);
    assert_eq!(found[1]["think"].as_f64(), Some(3.0));
    let sessions: Vec<_> = found.iter().map(|line| line["session"].as_u64()).collect();
    assert_eq!(sessions, [Some(0), Some(0), Some(0), Some(1)]);
    assert_eq!(found[2]["turn"].as_u64(), Some(3));
    assert_eq!(found[1]["runs"].to_string(), "[[0,5]]");
    assert_eq!(found[3]["runs"].to_string(), "[[0,1],[7,1]]");
}

#[test]
fn without_blocks_of_the_answer_a_prompt_that_ends_in_a_new_block_is_enough() {
    let shared = [1, 2];
    let found = lines(
        &mut writer(100),
        &[
            arrival(&shared, &[], (2, 3)),
            arrival(&[1, 2, 3], &[], (2, 4)),
            arrival(&shared, &[], (5, 6)), // says nothing new
            arrival(&[1, 2, 3, 4], &[], (7, 8)),
        ],
    );
    assert_eq!(
        found[1]["after"],
        Value::Null,
        "it began before the other had ended"
    );
    assert_eq!(found[3]["after"].as_u64(), Some(1));
}

#[test]
fn users_are_numbered_and_one_does_not_follow_another() {
    let found = lines(
        &mut writer(100),
        &[
            of_user(900, arrival(&[1], &[2], (2, 3))),
            of_user(901, arrival(&[1, 2, 3], &[], (4, 5))),
            of_user(900, arrival(&[7], &[], (6, 7))),
        ],
    );
    let users: Vec<_> = found.iter().map(|line| line["user"].as_u64()).collect();
    assert_eq!(users, [Some(0), Some(1), Some(0)]);
    assert_eq!(found[1]["after"], Value::Null);
}

#[test]
fn what_usage_does_not_say_is_guessed_and_marked() {
    let mut writer = writer(100);
    let mut unknown = arrival(&[1; 4], &[], (2, 3));
    unknown.prompt_tokens = None;
    unknown.answer_tokens = None;
    unknown.events_tokens = 12;
    let mut refused = arrival(&[5], &[], (2, 3));
    (refused.prompt_tokens, refused.answer_tokens) = (None, None);
    (refused.status, refused.tokens_max) = (503, Some(33));
    let found = lines(&mut writer, &[unknown, refused]);
    assert_eq!(found[0]["in"].as_u64(), Some(67), "266 bytes");
    assert_eq!(found[0]["out"].as_u64(), Some(12));
    assert_eq!(
        found[1]["out"].as_u64(),
        Some(33),
        "no more than it asked for"
    );
    for line in &found {
        assert_eq!(
            (&line["in_guessed"], &line["out_guessed"]),
            (&true.into(), &true.into())
        );
    }
}

proptest! {
    #[test]
    fn prompts_share_in_the_lines_what_they_shared_in_hashes(
        prompts in prop::collection::vec(prop::collection::vec(0u64..3, 1..12), 1..20),
    ) {
        // As in an engine, a hash stands for its block and all before it.
        let chained = |prompt: &Vec<u64>| -> Vec<u64> {
            let mut chain = 1;
            prompt.iter().map(|block| { chain = chain * 5 + block + 1; chain }).collect()
        };
        let arrivals: Vec<_> = prompts.iter().map(|p| arrival(&chained(p), &[], (2, 3))).collect();
        let found = lines(&mut writer(10_000), &arrivals);
        let numbers: Vec<Vec<u64>> = found.iter().map(|line| {
            let runs = line["runs"].as_array().unwrap();
            runs.iter().flat_map(|run| {
                let (start, len) = (run[0].as_u64().unwrap(), run[1].as_u64().unwrap());
                start..start + len
            }).collect()
        }).collect();
        for (one, ones) in prompts.iter().zip(&numbers) {
            prop_assert_eq!(one.len(), ones.len());
            for (other, others) in prompts.iter().zip(&numbers) {
                let common = one.iter().zip(other).take_while(|(a, b)| a == b).count();
                let shared = ones.iter().zip(others).take_while(|(a, b)| a == b).count();
                prop_assert_eq!(common, shared);
            }
        }
    }

    #[test]
    fn lines_hold_no_hash_and_memory_is_bounded(hashes in prop::collection::vec(1u64 << 40.., 1..200)) {
        let mut writer = writer(8);
        let mut out = Vec::new();
        for (turn, hash) in (0..).zip(&hashes) {
            let arrival = of_user(*hash, arrival(&[*hash], &[hash ^ 1], (2 + turn, 3 + turn)));
            writer.write(&[arrival], &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        for hash in &hashes {
            prop_assert!(!text.contains(&hash.to_string()));
        }
        prop_assert!(hashes.len() <= 16 || writer.forgotten() > 0);
    }
}

#[test]
fn the_same_prompt_again_follows_nothing_where_answers_are_known() {
    let mut writer = writer(100);
    let first = of_user(1, arrival(&[1, 2], &[3, 4], (1, 2)));
    let again = arrival(&[1, 2], &[3, 4], (5, 6));
    let next = arrival(&[1, 2, 3, 4, 5], &[6], (7, 8));
    let lines = lines(&mut writer, &[first, again, next]);
    assert!(lines[1]["after"].is_null(), "{}", lines[1]);
    assert_ne!(lines[0]["session"], lines[1]["session"]);
    assert!(!lines[2]["after"].is_null(), "it repeats the answer");
}
