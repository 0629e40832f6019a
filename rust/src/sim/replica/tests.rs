use super::{Admission, Arrival, Profile, Progress, ReplicaModel, chain_hashes};
use crate::id::{Nanos, RequestId};

const MS_PS: u64 = 1_000_000_000;
pub(super) const MS_NS: u64 = 1_000_000;

/// Blocks of 4 tokens, 10 ms per step, 1 ms per prefill token.
pub(super) fn small() -> Profile {
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
        attention_ps: 0,
        context_token_ps: 0,
    }
}

pub(super) fn model(profile: Profile) -> ReplicaModel {
    ReplicaModel::new(profile).unwrap()
}

/// A request whose token `n` is the byte `text[n]`; the answer is part of the text.
pub(super) fn arrival(id: u64, text: &[u8], output_tokens: usize) -> Arrival {
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
fn prompt_tokens_pay_for_those_before_them_whether_cached_or_computed() {
    let mut replica = model(Profile {
        max_num_batched_tokens: 4,
        attention_ps: MS_PS,
        ..small()
    });
    replica.submit(arrival(1, &[1; 7], 1), 0);
    let first = 10 + 4 + (1 + 2 + 3);
    assert_eq!(replica.next_ns(), Some(first * MS_NS));
    run(&mut replica, first * MS_NS);
    let second = 10 + 2 + (4 + 5);
    assert_eq!(replica.next_ns(), Some((first + second) * MS_NS));
    run_to_idle(&mut replica);
    let mut again = model(Profile {
        attention_ps: MS_PS,
        ..small()
    });
    again.submit(arrival(1, &[1; 7], 1), 0);
    run_to_idle(&mut again);
    let idle = MS_NS * 1000;
    again.submit(arrival(2, &[1; 7], 1), idle);
    assert_eq!(
        again.next_ns(),
        Some(idle + second * MS_NS),
        "four are cached"
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
fn as_many_as_max_num_queued_reqs_wait_or_run_and_the_next_is_refused() {
    let mut replica = model(Profile {
        max_num_seqs: 1,
        max_num_queued_reqs: Some(2),
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
    assert_eq!(run(&mut replica, end).len(), 1);
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
