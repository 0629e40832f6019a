use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Admission, Arrival, Profile, Progress, ReplicaModel, chain_hashes};
use crate::engine::id::{Nanos, RequestId};

const MS_PS: u64 = 1_000_000_000;
const MS_NS: u64 = 1_000_000;

/// Blocks of 4 tokens, 10 ms per step, 1 ms per prefill token.
fn small() -> Profile {
    Profile {
        block_size: 4,
        kv_tokens: 64,
        max_model_len: 32,
        max_num_seqs: 4,
        max_num_batched_tokens: 16,
        max_num_queued_reqs: None,
        step_base_ps: 10 * MS_PS,
        prefill_token_ps: MS_PS,
        decode_seq_ps: 0,
        context_token_ps: 0,
    }
}

fn model(profile: Profile) -> ReplicaModel {
    ReplicaModel::new(profile).unwrap()
}

/// A request whose token `n` is the byte `text[n]`; the answer is part of the text.
fn arrival(id: u64, text: &[u8], output_tokens: usize) -> Arrival {
    Arrival {
        id: RequestId(id),
        prompt_tokens: (text.len() - output_tokens) as u64,
        output_tokens: output_tokens as u64,
        hashes: chain_hashes(b"", &[text], 4),
    }
}

fn run(model: &mut ReplicaModel, until: Nanos) -> Vec<Progress> {
    let mut progress = Vec::new();
    model.advance(until, &mut progress);
    model.check_invariants().unwrap();
    progress
}

fn run_to_idle(model: &mut ReplicaModel) -> Vec<Progress> {
    run(model, Nanos::MAX)
}

fn tokens_of(progress: &[Progress]) -> Vec<(u64, u32)> {
    progress
        .iter()
        .map(|one| (one.id.0, one.generated))
        .collect()
}

#[test]
fn a_prefill_of_512_tokens_takes_300_ms_where_the_profile_says_so() {
    let mut replica = model(Profile {
        block_size: 16,
        kv_tokens: 25_000,
        max_model_len: 8192,
        max_num_batched_tokens: 2048,
        step_base_ps: 50 * MS_PS,
        prefill_token_ps: 250 * MS_PS / 512,
        ..small()
    });
    replica.submit(arrival(1, &[0; 513], 1), 0);
    let end = replica.next_ns().unwrap();
    assert_eq!((end + MS_NS / 2) / MS_NS, 300);
}

#[test]
fn a_step_costs_its_base_its_prefill_its_decodes_and_their_context() {
    let mut replica = model(Profile {
        decode_seq_ps: 2 * MS_PS,
        context_token_ps: MS_PS / 10,
        ..small()
    });
    replica.submit(arrival(1, &[1; 13], 3), 0);
    assert_eq!(replica.next_ns(), Some(20 * MS_NS), "ten prefill tokens");
    run(&mut replica, 20 * MS_NS);
    assert_eq!(
        replica.next_ns(),
        Some((20 + 10 + 2 + 1) * MS_NS),
        "one decode over ten tokens"
    );
}

#[test]
fn a_prompt_beyond_the_budget_is_computed_in_chunks_and_decodes_go_on_beside_it() {
    let mut replica = model(small());
    replica.submit(arrival(1, &[1; 8], 5), 0);
    replica.submit(arrival(2, &[2; 30], 1), 1);
    let progress = run_to_idle(&mut replica);
    // 29 prompt tokens beside one decode each step: 15 and 14, in the second and third step.
    assert_eq!(
        tokens_of(&progress),
        [(1, 1), (1, 2), (1, 3), (2, 1), (1, 4), (1, 5)]
    );
}

#[test]
fn a_request_that_arrives_during_a_step_waits_for_its_end_and_is_not_in_the_gauges() {
    let mut replica = model(small());
    replica.submit(arrival(1, &[1; 8], 4), 0);
    replica.submit(arrival(2, &[2; 8], 4), 5);
    assert_eq!((replica.running(), replica.waiting()), (1, 1));
    let end = replica.next_ns().unwrap();
    run(&mut replica, end);
    assert_eq!((replica.gauges().running, replica.gauges().waiting), (1, 0));
    assert_eq!((replica.running(), replica.waiting()), (2, 0));
    let end = replica.next_ns().unwrap();
    run(&mut replica, end);
    assert_eq!((replica.gauges().running, replica.gauges().waiting), (2, 0));
}

#[test]
fn no_more_than_max_num_seqs_run_and_the_rest_waits() {
    let mut replica = model(Profile {
        max_num_seqs: 2,
        ..small()
    });
    for id in 0..5 {
        replica.submit(arrival(id, &[u8::try_from(id).unwrap(); 4], 2), 0);
    }
    let end = replica.next_ns().unwrap();
    run(&mut replica, end);
    let end = replica.next_ns().unwrap();
    run(&mut replica, end);
    assert_eq!((replica.gauges().running, replica.gauges().waiting), (1, 3));
}

#[test]
fn a_full_queue_refuses_and_room_in_it_is_given_again() {
    let mut replica = model(Profile {
        max_num_seqs: 1,
        max_num_queued_reqs: Some(1),
        ..small()
    });
    assert_eq!(
        replica.submit(arrival(1, &[1; 4], 1), 0),
        Admission::Accepted
    );
    assert_eq!(
        replica.submit(arrival(2, &[2; 4], 1), 0),
        Admission::Accepted
    );
    assert_eq!(replica.submit(arrival(3, &[3; 4], 1), 0), Admission::Full);
    let end = replica.next_ns().unwrap();
    run(&mut replica, end);
    assert_eq!(
        replica.submit(arrival(3, &[3; 4], 1), end),
        Admission::Accepted
    );
    assert_eq!(run_to_idle(&mut replica).len(), 2);
}

#[test]
fn prompt_and_answer_fit_into_max_model_len_to_the_token() {
    let mut replica = model(small());
    assert_eq!(
        replica.submit(arrival(1, &[1; 32], 2), 0),
        Admission::Accepted
    );
    assert_eq!(
        replica.submit(arrival(2, &[1; 33], 2), 0),
        Admission::TooLong
    );
    assert_eq!(
        replica.submit(arrival(3, &[1; 33], 32), 0),
        Admission::TooLong
    );
}

#[test]
fn an_id_is_free_again_once_its_request_has_ended() {
    let mut replica = model(small());
    assert_eq!(
        replica.submit(arrival(1, &[1; 8], 2), 0),
        Admission::Accepted
    );
    assert_eq!(
        replica.submit(arrival(1, &[1; 8], 2), 0),
        Admission::Duplicate
    );
    assert!(replica.abort(RequestId(1)));
    assert!(!replica.abort(RequestId(1)));
    assert_eq!(
        replica.submit(arrival(1, &[1; 8], 2), 0),
        Admission::Accepted
    );
    assert_eq!(run_to_idle(&mut replica).len(), 2);
}

#[test]
fn sizes_that_do_not_fit_together_are_no_profile() {
    for broken in [
        Profile {
            block_size: 0,
            ..small()
        },
        Profile {
            max_num_seqs: 0,
            ..small()
        },
        Profile {
            max_num_batched_tokens: 3,
            ..small()
        },
        Profile {
            max_model_len: 65,
            ..small()
        },
        Profile {
            max_model_len: 1,
            ..small()
        },
        Profile {
            kv_tokens: 1 << 60,
            ..small()
        },
    ] {
        assert!(ReplicaModel::new(broken).is_err());
    }
}

#[test]
fn the_same_prompt_again_is_cached_but_for_the_block_of_its_last_token() {
    let mut replica = model(small());
    for (id, text, cached) in [(1, &[1u8; 9], 0), (2, &[1; 9], 4), (3, &[2; 9], 0)] {
        replica.submit(arrival(id, text, 1), 0);
        assert_eq!(
            run_to_idle(&mut replica)[0].cached_tokens,
            cached,
            "request {id}"
        );
    }
    assert_eq!(replica.counters().cache_queries, 24);
    assert_eq!(replica.counters().cache_hits, 4);
}

#[test]
fn the_next_turn_finds_the_previous_prompt_and_the_generated_answer() {
    let mut replica = model(small());
    replica.submit(arrival(1, &[1; 16], 9), 0);
    run_to_idle(&mut replica);
    // 16 tokens are known, the KV of the last one was never computed: three blocks of four.
    let mut second = vec![1; 16];
    second.extend([2; 8]);
    replica.submit(arrival(2, &second, 2), 0);
    assert_eq!(run_to_idle(&mut replica)[0].cached_tokens, 12);
}

#[test]
fn requests_that_share_a_prefix_in_flight_share_its_blocks() {
    let mut replica = model(small());
    let mut texts = [vec![1; 14], vec![1; 14]];
    texts[1][9] = 9;
    replica.submit(arrival(1, &texts[0], 4), 0);
    replica.submit(arrival(2, &texts[1], 4), 0);
    let end = replica.next_ns().unwrap();
    run(&mut replica, end);
    // Each needs three blocks for its ten or eleven tokens; the first two are the same.
    assert_eq!((replica.running(), replica.blocks().0), (2, 4));
    let progress = run_to_idle(&mut replica);
    assert!(
        progress
            .iter()
            .filter(|one| one.id.0 == 2)
            .all(|one| one.cached_tokens == 8)
    );
}

#[test]
fn the_newest_sequence_is_preempted_when_blocks_run_out_and_still_finishes() {
    let mut replica = model(Profile {
        kv_tokens: 32,
        max_model_len: 32,
        max_num_batched_tokens: 32,
        ..small()
    });
    replica.submit(arrival(1, &[1; 28], 16), 0);
    replica.submit(arrival(2, &[2; 28], 16), 0);
    let progress = run_to_idle(&mut replica);
    assert!(replica.counters().preemptions > 0);
    let finished: Vec<u64> = progress
        .iter()
        .filter(|one| one.finished)
        .map(|one| one.id.0)
        .collect();
    assert_eq!(finished, [1, 2]);
    assert_eq!(progress.len(), 32);
}

#[test]
fn a_reset_forgets_prefixes_and_leaves_what_runs_alone() {
    let mut replica = model(small());
    replica.submit(arrival(1, &[1; 12], 2), 0);
    run_to_idle(&mut replica);
    replica.submit(arrival(2, &[2; 12], 6), 0);
    replica.reset_prefix_cache();
    assert_eq!(run_to_idle(&mut replica).len(), 6);
    replica.submit(arrival(3, &[1; 12], 2), 0);
    assert_eq!(run_to_idle(&mut replica)[0].cached_tokens, 0);
}

#[test]
fn an_abort_mid_step_frees_its_blocks_and_empties_the_gauges_at_the_end_of_the_step() {
    let mut replica = model(small());
    replica.submit(arrival(1, &[1; 12], 4), 0);
    let end = replica.next_ns().unwrap();
    run(&mut replica, end);
    assert_eq!(replica.gauges().running, 1);
    assert!(replica.abort(RequestId(1)));
    assert_eq!((replica.running(), replica.blocks().0), (0, 0));
    assert_eq!(run_to_idle(&mut replica), []);
    assert_eq!((replica.gauges().running, replica.next_ns()), (0, None));
}

/// One thing that a driver does.
#[derive(Debug, Clone)]
enum Action {
    Submit { text: Vec<u8>, output_tokens: usize },
    Abort(usize),
    Wait(u64),
    Reset,
}

/// Texts over two letters share many prefixes.
fn actions() -> impl Strategy<Value = Vec<Action>> {
    let text = prop::collection::vec(0u8..2, 2..40);
    let submit = (text, 1usize..20).prop_map(|(text, output_tokens)| {
        let output_tokens = output_tokens.min(text.len() - 1);
        Action::Submit {
            text,
            output_tokens,
        }
    });
    let action = prop_oneof![
        6 => submit,
        1 => (0usize..40).prop_map(Action::Abort),
        3 => (0u64..60).prop_map(Action::Wait),
        1 => Just(Action::Reset),
    ];
    prop::collection::vec(action, 1..60)
}

fn profiles() -> impl Strategy<Value = Profile> {
    (2u64..20, 1u32..6, 0u32..12, prop::option::of(0u32..5)).prop_map(
        |(blocks, seqs, extra, queued)| Profile {
            kv_tokens: blocks * 4,
            max_model_len: u32::try_from(blocks * 4).unwrap().min(32),
            max_num_seqs: seqs,
            max_num_batched_tokens: seqs + extra,
            max_num_queued_reqs: queued,
            ..small()
        },
    )
}

/// Everything that is seen of one run.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    progress: Vec<Progress>,
    /// Prompt tokens and answer tokens of what was accepted.
    accepted: BTreeMap<u64, (u32, u32)>,
    aborted: Vec<u64>,
}

fn drive(profile: &Profile, actions: &[Action]) -> Result<Seen, TestCaseError> {
    let mut replica = model(profile.clone());
    let mut seen = Seen::default();
    let mut now = 0;
    for (id, action) in actions.iter().enumerate() {
        let id = id as u64;
        match action {
            Action::Submit {
                text,
                output_tokens,
            } => {
                let queued = replica.waiting();
                let admission = replica.submit(arrival(id, text, *output_tokens), now);
                let expected = if text.len() > profile.max_model_len as usize {
                    Admission::TooLong
                } else if profile
                    .max_num_queued_reqs
                    .is_some_and(|max| queued >= max as usize)
                {
                    Admission::Full
                } else {
                    let output = u32::try_from(*output_tokens).unwrap();
                    seen.accepted
                        .insert(id, (u32::try_from(text.len()).unwrap() - output, output));
                    Admission::Accepted
                };
                prop_assert_eq!(admission, expected);
            }
            Action::Abort(id) => {
                if replica.abort(RequestId(*id as u64)) {
                    seen.aborted.push(*id as u64);
                }
            }
            Action::Wait(ms) => {
                now += ms * MS_NS;
                replica.advance(now, &mut seen.progress);
            }
            Action::Reset => replica.reset_prefix_cache(),
        }
        replica.check_invariants().map_err(TestCaseError::fail)?;
    }
    replica.advance(Nanos::MAX, &mut seen.progress);
    replica.check_invariants().map_err(TestCaseError::fail)?;
    prop_assert_eq!(replica.next_ns(), None);
    prop_assert_eq!(replica.blocks().0, 0);
    prop_assert_eq!(replica.gauges().running + replica.gauges().waiting, 0);
    Ok(seen)
}

proptest! {
    #[test]
    fn what_is_accepted_finishes_or_is_aborted_with_every_token_once(
        profile in profiles(),
        actions in actions(),
    ) {
        let seen = drive(&profile, &actions)?;
        for (id, &(prompt, output)) in &seen.accepted {
            let mine: Vec<&Progress> = seen.progress.iter().filter(|one| one.id.0 == *id).collect();
            let numbers: Vec<u32> = mine.iter().map(|one| one.generated).collect();
            let in_order: Vec<u32> = (1..).take(mine.len()).collect();
            prop_assert_eq!(numbers, in_order);
            prop_assert!(mine.iter().all(|one| one.cached_tokens < prompt));
            prop_assert_eq!(mine.iter().filter(|one| one.finished).count() == 1, !seen.aborted.contains(id));
            prop_assert!(mine.iter().all(|one| one.finished == (one.generated == output)));
        }
    }

    #[test]
    fn the_same_actions_give_the_same_tokens_at_the_same_times(
        profile in profiles(),
        actions in actions(),
    ) {
        prop_assert_eq!(drive(&profile, &actions)?, drive(&profile, &actions)?);
    }

    #[test]
    fn requests_start_in_the_order_of_arrival(
        lengths in prop::collection::vec((2usize..30, 1usize..8), 1..30),
        seqs in 1u32..5,
    ) {
        // Room for all: without preemption a start is a start.
        let mut replica = model(Profile { kv_tokens: 4096, max_num_seqs: seqs, ..small() });
        for (id, &(length, output)) in lengths.iter().enumerate() {
            let text = vec![u8::try_from(id).unwrap(); length];
            replica.submit(arrival(id as u64, &text, output.min(length - 1)), 0);
        }
        let mut started: Vec<u64> = Vec::new();
        let mut progress = Vec::new();
        while let Some(end) = replica.next_ns() {
            for &place in &replica.running {
                let id = replica.sequences[place as usize].id.0;
                if !started.contains(&id) {
                    started.push(id);
                }
            }
            replica.advance(end, &mut progress);
        }
        let arrived: Vec<u64> = (0..lengths.len() as u64).collect();
        prop_assert_eq!(started, arrived);
        prop_assert_eq!(replica.counters().preemptions, 0);
    }

    #[test]
    fn hits_are_those_of_a_list_of_blocks_kept_in_order_of_last_use(
        texts in prop::collection::vec(prop::collection::vec(0u8..2, 2..24), 1..25),
        outputs in prop::collection::vec(1usize..8, 25),
        blocks in 6usize..14,
    ) {
        let mut replica = model(Profile { kv_tokens: blocks as u64 * 4, max_model_len: 24, ..small() });
        let mut oracle = Oracle { free: vec![None; blocks] };
        for (id, text) in texts.iter().enumerate() {
            let output = outputs[id].min(text.len() - 1);
            replica.submit(arrival(id as u64, text, output), 0);
            let mut progress = Vec::new();
            replica.advance(Nanos::MAX, &mut progress);
            prop_assert_eq!(progress[0].cached_tokens as usize, oracle.serve(text, output, 16), "request {}", id);
        }
    }
}

/// The cache of a replica that serves one request at a time: free blocks by last use, each with
/// the text whose end it holds.
struct Oracle {
    free: Vec<Option<Vec<u8>>>,
}

impl Oracle {
    fn serve(&mut self, text: &[u8], output: usize, budget: usize) -> usize {
        let prompt = text.len() - output;
        let mut held: Vec<Option<Vec<u8>>> = Vec::new();
        while (held.len() + 1) * 4 < prompt {
            let wanted = Some(text[..(held.len() + 1) * 4].to_vec());
            let Some(at) = self.free.iter().position(|block| *block == wanted) else {
                break;
            };
            held.push(self.free.remove(at));
        }
        let hits = held.len() * 4;
        let mut computed = hits;
        // The last token is generated, its KV never computed.
        while computed < text.len() - 1 {
            let chunk = if computed < prompt {
                (prompt - computed).min(budget)
            } else {
                1
            };
            computed += chunk;
            while held.len() * 4 < computed {
                self.free.remove(0);
                held.push(None);
            }
            for at in 0..computed / 4 {
                let content = Some(text[..(at + 1) * 4].to_vec());
                let known = self.free.contains(&content) || held.contains(&content);
                if held[at].is_none() && !known {
                    held[at] = content;
                }
            }
        }
        held.reverse();
        self.free.append(&mut held);
        hits
    }
}
