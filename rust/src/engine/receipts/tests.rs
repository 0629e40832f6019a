use super::*;
use crate::engine::effect::{Push, Reject};
use crate::id::ReplicaId;

fn asked(name: &str) -> Asked {
    Asked {
        name: name.into(),
        route: "/v1/completions",
        model: "m".into(),
        class: Class::Normal,
        tenant: Tenant::Nobody,
        origin: None,
        forwarded: false,
        prompt_bytes: 0,
        prompt_blocks: 0,
        session: false,
        stream: true,
    }
}

fn push(request: u64, attempt: u32) -> Effect {
    Effect::Push(Push {
        request: RequestId(request),
        replica: ReplicaId(attempt),
        attempt,
        match_blocks: 0,
        predicted_ttft_ns: None,
        context_len: None,
        shadow: None,
    })
}

fn at(ns: u64) -> Instant {
    Instant::from_ns(ns)
}

#[test]
fn the_oldest_make_room_and_those_that_had_not_ended_are_counted() {
    let mut receipts = Receipts::new(3);
    for n in 1..=10 {
        receipts.begin(RequestId(n), n, asked(&format!("r{n}")), at(n));
        receipts.note_effects(&[push(n, 1)], at(n));
        if n % 2 == 0 {
            let end = End {
                at_ns: at(n),
                outcome: Outcome::Ok,
                status: 200,
                usage: Usage::default(),
            };
            receipts.note_end(RequestId(n), end);
        }
    }
    let names = receipts.newest().map(|receipt| &*receipt.asked.name);
    assert_eq!(names.collect::<Vec<_>>(), ["r10", "r9", "r8"]);
    assert_eq!(receipts.dropped(), (7, 4));
    assert_eq!(receipts.ages.len(), 3);
    assert!(receipts.find("r7").is_none());
    assert!(receipts.find("r8").is_some());
}

#[test]
fn of_many_decisions_the_first_and_the_last_are_kept() {
    let mut receipts = Receipts::new(1);
    receipts.begin(RequestId(1), 1, asked("a"), at(1));
    for attempt in 1..=20 {
        receipts.note_effects(&[push(1, attempt)], at(attempt.into()));
    }
    let receipt = receipts.find("a").expect("it is kept");
    assert_eq!(receipt.decisions.len(), DECISIONS_MAX);
    assert_eq!(receipt.left_out, 12);
    let attempts = receipt
        .decisions
        .iter()
        .map(|decision| match decision.came {
            Came::Pushed { attempt, .. } => attempt,
            _ => 0,
        });
    assert_eq!(attempts.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 20]);
}

#[test]
fn a_request_that_was_refused_at_once_leaves_its_age_to_the_next() {
    let mut receipts = Receipts::new(8);
    receipts.begin(RequestId(1), 1, asked("refused"), at(1));
    let refusal = Effect::Reject(Reject {
        request: RequestId(1),
        status: 404,
        code: "model_not_found",
        message: String::new(),
        retry_after_s: None,
    });
    receipts.note_effects(&[refusal], at(1));
    receipts.begin(RequestId(2), 1, asked("placed"), at(2));
    receipts.searched(1);
    receipts.note_effects(&[push(2, 1)], at(2));
    let refused = receipts.find("refused").expect("it is kept");
    assert_eq!(refused.decisions[0].came, Came::Refused("model_not_found"));
    assert!(refused.decisions[0].search.is_none() && refused.is_over());
    let placed = receipts.find("placed").expect("it is kept");
    assert!(placed.decisions[0].search.is_some() && !placed.is_over());
}

#[test]
fn what_comes_of_requests_without_a_receipt_is_ignored() {
    let mut receipts = Receipts::new(2);
    receipts.note_effects(&[push(9, 1), Effect::Probe(ReplicaId(1))], at(1));
    receipts.note_first_byte(RequestId(9), at(1));
    receipts.note_failure(RequestId(9), "reset", Instant::from_ns(5));
    receipts.searched(4);
    receipts.looked_at_peers(4, Peers::default());
    assert_eq!(receipts.newest().len(), 0);
}
