//! The rules one by one; `properties` has all of them in front of a simulated engine.

mod knee;
mod properties;
mod sim;

use super::*;
use crate::engine::config::PushRule;
use crate::time::Span;
use sim::MS;

fn config(push: PushRule, allowance: AllowanceRule) -> Config {
    Config {
        push,
        allowance,
        ..Config::sample()
    }
}

fn one() -> Config {
    config(PushRule::Pending, AllowanceRule::One)
}

fn knee() -> Config {
    config(PushRule::Pending, AllowanceRule::Knee)
}

fn page(running: u32, waiting: u32) -> Snapshot {
    Snapshot {
        running: Some(running),
        waiting: Some(waiting),
        ..Snapshot::default()
    }
}

/// What a request of so many tokens takes.
fn need(tokens: u32) -> Need {
    Need {
        prefill: tokens / 2,
        kv: tokens,
    }
}

/// A replica whose events are one millisecond apart.
struct Bench {
    replica: Replica,
    config: Config,
    now: Instant,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self {
            replica: Replica::new(),
            config,
            now: Instant::ZERO + 10_000 * MS,
        }
    }

    fn tick(&mut self) -> Instant {
        self.replica.check_invariants().unwrap();
        self.now += MS;
        self.now
    }

    fn push(&mut self, ids: std::ops::RangeInclusive<u64>) {
        for id in ids {
            let now = self.tick();
            assert!(
                self.replica
                    .push(RequestId(id), need(100), &self.config, now)
            );
        }
    }

    fn first_byte(&mut self, id: u64) {
        let now = self.tick();
        self.replica.first_byte(RequestId(id), now);
    }

    fn complete(&mut self, id: u64) {
        self.tick();
        assert!(self.replica.complete(RequestId(id)));
    }

    /// A probe that is answered at once.
    fn probe(&mut self, page: Snapshot) {
        let sent_ns = self.tick();
        self.replica.probe_sent(sent_ns);
        let now = self.tick();
        assert_eq!(self.replica.observe(page, sent_ns, now), Observed::Used);
        self.replica.check_invariants().unwrap();
    }

    fn allowance(&self) -> u32 {
        self.replica.allowance(&self.config)
    }
}

#[test]
fn a_push_is_pending_until_its_first_byte() {
    let mut b = Bench::new(one());
    b.probe(page(0, 0));
    b.push(1..=2);
    assert_eq!((b.replica.pending(), b.replica.running()), (2, Some(0)));
    b.first_byte(1);
    assert_eq!((b.replica.pending(), b.replica.running()), (1, Some(1)));
    b.first_byte(1);
    assert_eq!((b.replica.pending(), b.replica.running()), (1, Some(1)));
}

#[test]
fn a_first_byte_settles_older_pushes_where_the_engine_is_first_come_first_served() {
    let mut b = Bench::new(one());
    b.push(1..=3);
    b.first_byte(2);
    assert_eq!((b.replica.pending(), b.replica.fresh()), (1, 1));
    b.first_byte(1);
    assert_eq!(b.replica.pending(), 1);

    let mut b = Bench::new(one());
    b.replica.set_fcfs(false);
    b.push(1..=3);
    b.first_byte(2);
    assert_eq!(b.replica.pending(), 2);
}

#[test]
fn a_push_made_after_the_probe_was_sent_counts_even_if_the_page_may_show_it() {
    let mut b = Bench::new(one());
    let sent_ns = b.tick();
    b.push(1..=1);
    let now = b.tick();
    b.replica.observe(page(0, 1), sent_ns, now);
    assert_eq!((b.replica.pending(), b.replica.fresh()), (2, 1));
    // Of two events in one instant the push may have been the later.
    let mut b = Bench::new(one());
    b.push(1..=1);
    b.replica.observe(page(0, 0), b.now, b.now);
    assert_eq!(b.replica.fresh(), 1);
}

#[test]
fn own_requests_that_the_gauges_do_not_show_yet_are_unseen() {
    let mut b = Bench::new(one());
    b.push(1..=4);
    b.first_byte(1);
    b.probe(page(1, 1));
    // 1 streams; of 2, 3 and 4 one waits in the gauge.
    assert_eq!((b.replica.unseen(), b.replica.pending()), (2, 3));
    b.probe(page(2, 2));
    assert_eq!((b.replica.unseen(), b.replica.pending()), (0, 2));
}

#[test]
fn streams_run_whatever_the_gauge_says() {
    let mut b = Bench::new(one());
    b.push(1..=3);
    b.first_byte(1);
    b.first_byte(2);
    b.probe(page(0, 0));
    assert_eq!((b.replica.running(), b.replica.unseen()), (Some(2), 1));
}

#[test]
fn streams_that_only_their_readers_keep_alive_do_not_run() {
    let mut b = Bench::new(one());
    b.push(1..=3);
    (1..=3).for_each(|id| b.first_byte(id));
    b.now += 5_000 * MS;
    b.probe(page(1, 0));
    assert_eq!(b.replica.running(), Some(1));
    b.complete(1);
    b.complete(2);
    assert_eq!(b.replica.running(), Some(1));
    b.complete(3);
    assert_eq!(b.replica.running(), Some(0));
}

#[test]
fn requests_of_others_are_foreign_and_do_not_hide_ours() {
    let mut b = Bench::new(one());
    b.probe(page(5, 0));
    assert_eq!((b.replica.foreign(), b.replica.pending()), (5, 0));
    b.push(1..=1);
    b.probe(page(5, 0));
    assert_eq!((b.replica.unseen(), b.replica.pending()), (1, 1));
    b.probe(page(6, 0));
    assert_eq!((b.replica.unseen(), b.replica.pending()), (0, 0));
    assert_eq!(b.replica.foreign(), 5);
}

#[test]
fn deferred_requests_are_seen_but_not_pending() {
    let mut b = Bench::new(one());
    b.push(1..=2);
    b.probe(Snapshot {
        deferred: Some(2),
        ..page(0, 0)
    });
    assert_eq!((b.replica.unseen(), b.replica.pending()), (0, 0));
    b.first_byte(2);
    assert_eq!(b.replica.running(), Some(1));
}

#[test]
fn a_first_byte_lowers_waiting_only_for_what_must_be_our_waiting_request() {
    let mut b = Bench::new(one());
    b.push(1..=2);
    b.probe(page(1, 1));
    b.first_byte(1);
    assert_eq!(
        (b.replica.running(), b.replica.waiting()),
        (Some(1), Some(1))
    );
    b.first_byte(2);
    assert_eq!(
        (b.replica.running(), b.replica.waiting()),
        (Some(2), Some(0))
    );

    // With others about, the one that waits may be theirs.
    let mut b = Bench::new(one());
    b.push(1..=2);
    b.probe(page(2, 1));
    b.first_byte(2);
    assert_eq!(b.replica.waiting(), Some(1));

    // Where streams are missing from R they were preempted, and wait in front.
    let mut b = Bench::new(one());
    b.push(1..=3);
    b.first_byte(1);
    b.first_byte(2);
    b.probe(page(1, 2));
    b.complete(3);
    assert_eq!(b.replica.waiting(), Some(1));
}

#[test]
fn an_end_opens_room_before_the_next_probe() {
    let mut b = Bench::new(knee());
    b.push(1..=5);
    (1..=4).for_each(|id| b.first_byte(id));
    b.probe(page(4, 1));
    assert_eq!((b.replica.knee(), b.allowance()), (Some(4), 1));
    assert_eq!(b.replica.pending(), 1);
    b.complete(1);
    b.complete(2);
    assert_eq!(b.replica.running(), Some(2));
    assert_eq!((b.allowance(), b.replica.pending()), (2, 1));
}

#[test]
fn an_answer_that_a_newer_probe_has_overtaken_is_ignored() {
    let mut b = Bench::new(one());
    let first_ns = b.tick();
    b.probe(page(3, 2));
    let now = b.tick();
    assert_eq!(
        b.replica.observe(page(0, 0), first_ns, now),
        Observed::Overtaken
    );
    assert_eq!(b.replica.pending(), 2);
    assert_eq!(
        b.replica.observe(page(0, 0), now + Span::from_ns(1), now),
        Observed::Overtaken
    );
}

#[test]
fn an_unreadable_page_changes_nothing_until_the_last_snapshot_is_stale() {
    let mut b = Bench::new(one());
    assert!(b.replica.blind(&b.config, b.now));
    b.probe(page(1, 1));
    let sent_ns = b.now - MS;
    let half = Snapshot {
        waiting: None,
        ..page(0, 0)
    };
    let now = b.tick();
    assert_eq!(b.replica.observe(half, now, now), Observed::Unreadable);
    assert_eq!(b.replica.pending(), 1);
    assert!(!b.replica.blind(
        &b.config,
        sent_ns + b.config.probe_stale_ns - Span::from_ns(1)
    ));
    assert!(
        b.replica
            .blind(&b.config, sent_ns + b.config.probe_stale_ns)
    );
}

#[test]
fn a_restarted_engine_has_none_of_the_requests_given_to_the_old_one() {
    let counted = |queries, running, waiting| Snapshot {
        cache_queries: Some(queries),
        ..page(running, waiting)
    };
    let mut b = Bench::new(knee());
    b.push(1..=3);
    b.first_byte(1);
    b.probe(counted(1000, 1, 2));
    assert_eq!(b.replica.pending(), 2);
    assert!(b.replica.knee().is_some());
    b.push(4..=4);
    b.probe(counted(0, 0, 0));
    assert_eq!((b.replica.running(), b.replica.pending()), (Some(0), 1));
    assert_eq!(b.replica.knee(), None);
    (1..=4).for_each(|id| b.complete(id));
    assert_eq!((b.replica.in_flight(), b.replica.pending()), (0, 0));
}

#[test]
fn a_request_that_no_gauge_ever_shows_does_not_close_the_gate_for_ever() {
    let mut b = Bench::new(one());
    b.push(1..=1);
    b.probe(page(0, 0));
    assert_eq!(b.replica.pending(), 1);
    b.now += 29_000 * MS;
    b.probe(page(0, 0));
    assert_eq!(b.replica.pending(), 1);
    b.now += 1_000 * MS;
    b.probe(page(0, 0));
    assert_eq!(b.replica.pending(), 0);
    b.first_byte(1);
    assert_eq!(b.replica.running(), Some(1));
    b.complete(1);
    assert_eq!(b.replica.running(), Some(0));
}

#[test]
fn in_flight_never_passes_its_cap() {
    let config = Config {
        in_flight_max: 2,
        ..one()
    };
    let mut b = Bench::new(config);
    b.push(1..=2);
    assert!(!b.replica.push(RequestId(3), need(1), &b.config, b.now));
    assert_eq!(b.replica.in_flight(), 2);
    assert!(!b.replica.complete(RequestId(3)));
}
