//! Properties of the replica model, against small oracles.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{MS_NS, arrival, model, small};
use super::{Admission, Profile, Progress};
use crate::id::{Nanos, RequestId};

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
                let alive = replica.running() + replica.waiting();
                let admission = replica.submit(arrival(id, text, *output_tokens), now);
                let expected = if text.len() > profile.max_model_len as usize {
                    Admission::TooLong
                } else if profile
                    .max_num_queued_reqs
                    .is_some_and(|max| alive >= max as usize)
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
            let full = computed / 4;
            computed += chunk;
            while held.len() * 4 < computed {
                self.free.remove(0);
                held.push(None);
            }
            // A block is entered when it becomes full, or never.
            for at in full..computed / 4 {
                let content = Some(text[..(at + 1) * 4].to_vec());
                if !self.free.contains(&content) && !held.contains(&content) {
                    held[at] = content;
                }
            }
        }
        held.reverse();
        self.free.append(&mut held);
        hits
    }
}
