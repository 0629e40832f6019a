//! The knee and the allowance that follows from it.

use super::*;

#[test]
fn with_the_knee_unknown_one_more_than_has_been_seen_running_is_allowed() {
    let mut b = Bench::new(knee());
    b.probe(page(0, 0));
    assert_eq!(b.allowance(), 1);
    b.push(1..=1);
    assert_eq!((b.allowance(), b.replica.pending()), (1, 1));
    b.probe(page(1, 0));
    b.push(2..=2);
    b.probe(page(2, 0));
    assert_eq!(b.allowance(), 1);
    b.complete(1);
    b.complete(2);
    assert_eq!(
        (b.allowance(), b.replica.running()),
        (3, Some(0)),
        "what ended is refilled at once"
    );
    b.probe(page(48, 0));
    assert_eq!(b.allowance(), 3, "one in sixteen where many run");
}

#[test]
fn while_steps_are_nearly_empty_of_prompts_twice_the_batch_may_be_in_flight() {
    for (ahead_steps, tokens, running, allowed) in [
        (8, 100, 10, 10), // 160 tokens take as long as a step: room for 12 prompts of 100
        (0, 100, 10, 1),
        (8, 1_000, 10, 1), // one fits, and a second one does not
        (8, 600, 10, 10),
        (8, 100, 7, 1), // a small batch
    ] {
        let mut b = Bench::new(Config {
            ahead_steps,
            ttft_base_ns: Span::from_ns(20_000_000),
            prefill_tokens_per_s: 8_000.0,
            ..knee()
        });
        b.probe(page(running, 0));
        let now = b.tick();
        let need = Need {
            prefill: tokens,
            kv: tokens,
        };
        assert!(b.replica.push(RequestId(1), need, &b.config, now));
        let case = (ahead_steps, tokens, running);
        assert_eq!(b.allowance(), allowed, "{case:?}");
    }
}

#[test]
fn what_a_step_costs_is_learned() {
    let mut b = Bench::new(Config {
        ahead_steps: 8,
        ..knee()
    });
    b.probe(page(10, 0));
    b.push(1..=1);
    assert_eq!(b.allowance(), 10);
    b.replica.learn_step(10);
    assert_eq!(b.allowance(), 1, "80 tokens may be pending, and 100 are");
}

#[test]
fn a_batch_that_probes_never_see_grown_may_grow_after_four_of_them() {
    let mut b = Bench::new(knee());
    b.push(1..=1);
    b.probe(page(1, 0));
    let mut allowed = Vec::new();
    for id in 2..7 {
        // Each time one has just ended and the next is not shown yet.
        b.push(id..=id);
        b.now += 50 * MS;
        b.complete(id - 1);
        b.probe(page(1, 0));
        allowed.push(b.allowance());
    }
    assert_eq!(allowed, [1, 1, 1, 2, 2]);
}

#[test]
fn the_allowance_doubles_for_requests_that_gauges_never_show() {
    let mut b = Bench::new(knee());
    b.probe(page(0, 0));
    let mut next = 1;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let last = next + u64::from(b.allowance()) - 1;
        b.push(next..=last);
        (next..=last).for_each(|id| b.complete(id));
        b.push(last + 1..=last + u64::from(b.allowance()));
        next = last + u64::from(b.allowance()) + 1;
        b.probe(page(0, 0));
        (last + 1..next).for_each(|id| b.complete(id));
        seen.push(b.allowance());
    }
    // The first clean snapshot could be chance.
    assert_eq!(seen, [1, 2, 4, 8, 16, 32]);
    b.probe(page(0, 0));
    assert_eq!(b.allowance(), 32, "it was not used up");
    b.probe(page(0, 1));
    assert_eq!(b.allowance(), 1);
}

#[test]
fn the_allowance_does_not_double_while_the_request_that_used_it_up_may_wait() {
    let mut b = Bench::new(knee());
    b.probe(page(0, 0));
    b.push(1..=1);
    for _ in 0..5 {
        b.probe(page(0, 0));
        assert_eq!((b.allowance(), b.replica.unseen()), (1, 1));
    }
}

#[test]
fn requests_are_pushed_ahead_by_as_many_as_are_on_their_way_where_those_are_all_or_slots_many() {
    for (in_flight, running, waiting, knee_at, allowances) in [
        (32, 0, 16, 16, 30..=32), // of one step: 16 wait, 16 are between two steps
        (4, 0, 2, 2, 4..=4),
        (17, 14, 1, 16, 4..=4), // two to the knee, and two on their way
        (3, 1, 1, 2, 1..=1),    // the one that waits stands in for the one on its way
    ] {
        let mut b = Bench::new(knee());
        b.push(1..=in_flight);
        (0..60).for_each(|_| b.probe(page(running, waiting)));
        assert_eq!(b.replica.knee(), Some(knee_at));
        let allowance = b.allowance();
        assert!(allowances.contains(&allowance), "{allowance} at {knee_at}");
    }
}

#[test]
fn below_the_knee_the_allowance_is_the_distance_and_at_it_one() {
    let mut b = Bench::new(knee());
    b.probe(page(20, 3));
    assert_eq!((b.replica.knee(), b.allowance()), (Some(20), 1));
    b.probe(page(12, 0));
    assert_eq!(b.allowance(), 8);
    b.probe(page(20, 0));
    assert_eq!(b.allowance(), 1);
    b.probe(page(16, 1));
    assert_eq!((b.replica.knee(), b.allowance()), (Some(16), 1));
}

#[test]
fn a_knee_that_is_disproved_or_old_is_forgotten() {
    let mut b = Bench::new(knee());
    b.probe(page(10, 1));
    b.probe(page(11, 0));
    assert_eq!((b.replica.knee(), b.allowance()), (None, 1));
    b.probe(page(10, 1));
    b.now += 4_000 * MS;
    b.probe(page(4, 0));
    assert_eq!((b.replica.knee(), b.allowance()), (Some(10), 6));
    b.now += 5_000 * MS;
    b.probe(page(4, 0));
    b.now += 5_000 * MS;
    b.probe(page(4, 0));
    assert_eq!(
        (b.replica.knee(), b.allowance()),
        (None, 7),
        "one more than it ran"
    );
}

#[test]
fn free_kv_room_bounds_the_allowance_but_never_closes_an_idle_replica() {
    let room = |usage| Snapshot {
        kv_tokens: Some(1_000),
        kv_usage: Some(usage),
        ..page(4, 0)
    };
    let mut b = Bench::new(knee());
    b.probe(page(20, 1));
    b.push(1..=1);
    b.first_byte(1);
    b.probe(room(0.7));
    // 300 tokens are free, and a request is predicted to take 100.
    assert_eq!(b.allowance(), 3);
    b.complete(1);
    assert_eq!(b.allowance(), 4);
    b.probe(room(1.0));
    assert_eq!(b.allowance(), 1);
}

#[test]
fn no_probe_is_due_while_one_is_under_way() {
    let mut b = Bench::new(one());
    let short = b.config.probe_interval_ns;
    assert_eq!(b.replica.probe_due_ns(short), Some(Instant::ZERO));
    b.replica.probe_sent(Instant::from_ns(1_000));
    assert_eq!(b.replica.probe_due_ns(short), None);
    b.replica.probe_failed();
    assert_eq!(
        b.replica.probe_due_ns(short),
        Some(Instant::from_ns(1_000) + short)
    );
    b.replica
        .observe(page(0, 0), Instant::from_ns(2_000), Instant::from_ns(3_000));
    assert_eq!(
        b.replica.probe_due_ns(short),
        Some(Instant::from_ns(2_000) + short)
    );
}
