//! Each reason to wait, and room as the number of pushes until the first of them.

use proptest::prelude::*;

use super::*;
use crate::engine::config::AllowanceRule;
use crate::engine::fleet::failure::Failure;
use crate::engine::fleet::health::Pool;
use crate::engine::fleet::replica::Need;
use crate::engine::fleet::snapshot::Snapshot;
use crate::id::RequestId;

const S: Span = Span::from_ns(1_000_000_000);
const NOW: Instant = Instant::from_ns(100_000_000_000);

fn config(push: PushRule) -> Config {
    Config {
        push,
        allowance: AllowanceRule::Knee,
        ..Config::sample()
    }
}

fn page(running: u32, waiting: u32) -> Snapshot {
    Snapshot {
        running: Some(running),
        waiting: Some(waiting),
        ..Snapshot::default()
    }
}

/// Up, never ejected, with a snapshot of this instant.
fn ready(page: Snapshot) -> Replica {
    let mut replica = Replica::new();
    replica.health.probe_succeeded(Instant::ZERO);
    let _ = replica.observe(page, NOW, NOW);
    replica
}

/// Pushes until refused; how many, and why no more.
fn fill(replica: &mut Replica, config: &Config, now: Instant) -> (u32, Why) {
    let mut pushed = 0;
    loop {
        if let Err(why) = may_push(replica, config, now) {
            return (pushed, why);
        }
        pushed += 1;
        let id = RequestId(u64::from(1_000_000 + replica.in_flight()));
        assert!(replica.push(id, Need::default(), config, now));
    }
}

#[test]
fn a_replica_that_is_not_ready_takes_nothing() {
    let config = config(PushRule::Blind);
    let mut replica = Replica::new();
    assert_eq!(may_push(&replica, &config, NOW), Err(Why::NotReady));
    assert_eq!(room(&replica, &config, NOW), 0);
    replica.health.probe_succeeded(Instant::ZERO);
    replica.health.set_draining(true);
    assert_eq!(may_push(&replica, &config, NOW), Err(Why::NotReady));
}

#[test]
fn a_sleeping_replica_takes_nothing() {
    let asleep = Snapshot {
        sleeping: true,
        ..page(0, 0)
    };
    let replica = ready(asleep);
    assert_eq!(
        may_push(&replica, &config(PushRule::Blind), NOW),
        Err(Why::Sleeping)
    );
}

#[test]
fn selective_pushing_takes_what_the_allowance_leaves() {
    let config = config(PushRule::Pending);
    assert_eq!(
        fill(&mut ready(page(0, 0)), &config, NOW),
        (1, Why::Pending)
    );
    assert_eq!(
        fill(&mut ready(page(4, 1)), &config, NOW),
        (0, Why::Pending)
    );
    let mut replica = ready(page(9, 1));
    let _ = replica.observe(page(4, 0), NOW + Span::from_ns(1), NOW + Span::from_ns(1));
    assert_eq!(room(&replica, &config, NOW + Span::from_ns(1)), 5);
    assert_eq!(
        fill(&mut replica, &config, NOW + Span::from_ns(1)),
        (5, Why::Pending)
    );
}

#[test]
fn a_blind_replica_has_a_bound_of_its_own_and_is_not_taken_for_empty() {
    let config = config(PushRule::Pending);
    let mut never_read = Replica::new();
    never_read.health.probe_succeeded(Instant::ZERO);
    assert_eq!(
        fill(&mut never_read, &config, NOW),
        (config.blind_outstanding_max, Why::Blind)
    );
    let mut stale = ready(page(0, 0));
    let later_ns = NOW + config.probe_stale_ns;
    assert_eq!(
        fill(&mut stale, &config, later_ns),
        (config.blind_outstanding_max, Why::Blind)
    );
}

#[test]
fn the_outstanding_rule_counts_requests_in_flight() {
    let config = config(PushRule::Outstanding);
    let filled = fill(&mut ready(page(50, 50)), &config, NOW);
    assert_eq!(filled, (config.outstanding_max, Why::Outstanding));
}

#[test]
fn no_rule_passes_the_hard_cap() {
    let config = Config {
        in_flight_max: 7,
        ..config(PushRule::Blind)
    };
    assert_eq!(fill(&mut ready(page(0, 0)), &config, NOW), (7, Why::Cap));
}

#[test]
fn a_half_open_replica_takes_one_request() {
    let config = config(PushRule::Blind);
    let mut replica = ready(page(0, 0));
    let pool = Pool {
        len: 9,
        out: 0,
        ready: 9,
    };
    for _ in 0..config.eject_failures {
        replica
            .health
            .failed(Failure::Status(500), pool, &config, NOW);
    }
    assert_eq!(may_push(&replica, &config, NOW), Err(Why::NotReady));
    replica.health.tick(&config, NOW + config.eject_ns);
    assert_eq!(
        fill(&mut replica, &config, NOW + config.eject_ns),
        (1, Why::Probing)
    );
}

#[test]
fn a_replica_that_came_back_takes_its_growing_share() {
    for (push, full) in [
        (PushRule::Blind, 32),
        (PushRule::Outstanding, 32),
        (PushRule::Pending, 20),
    ] {
        let config = config(push);
        let mut shares = Vec::new();
        for age_s in [0, 5, 9] {
            let mut replica = ready(page(20, 1));
            replica.health.unreachable();
            replica.health.probe_succeeded(NOW);
            let now = NOW + age_s * S;
            let _ = replica.observe(page(0, 0), now, now);
            let (pushed, why) = fill(&mut replica, &config, now);
            assert_eq!(why, Why::Ramp, "{push:?} after {age_s} s");
            shares.push(pushed);
        }
        assert_eq!(shares, [full / 10, full / 2, full * 9 / 10], "{push:?}");
    }
}

#[test]
fn probes_are_frequent_only_while_they_decide() {
    let config = config(PushRule::Pending);
    let (short, long) = (config.probe_interval_ns, config.probe_idle_interval_ns);
    let mut replica = Replica::new();
    assert_eq!(probe_interval(&replica, &config, false), short, "unknown");
    replica.health.probe_succeeded(Instant::ZERO);
    let _ = replica.observe(page(9, 1), NOW, NOW);
    let _ = replica.observe(page(5, 0), NOW + Span::from_ns(1), NOW + Span::from_ns(1));
    assert_eq!(probe_interval(&replica, &config, false), long);
    assert_eq!(
        probe_interval(&replica, &config, true),
        short,
        "work is held"
    );
    for id in 0..3 {
        assert_eq!(probe_interval(&replica, &config, false), long);
        assert!(replica.push(
            RequestId(id),
            Need::default(),
            &config,
            NOW + Span::from_ns(2)
        ));
    }
    assert_eq!(
        probe_interval(&replica, &config, false),
        short,
        "3 of 4 places are taken"
    );
    let outstanding = Config {
        push: PushRule::Outstanding,
        ..config
    };
    assert_eq!(probe_interval(&replica, &outstanding, false), long);
    replica.health.set_draining(true);
    assert_eq!(
        probe_interval(&replica, &outstanding, true),
        long,
        "it takes nothing"
    );
    replica.health.unreachable();
    assert_eq!(
        probe_interval(&replica, &outstanding, false),
        short,
        "it is looked for"
    );
}

proptest! {
    #[test]
    fn room_is_the_number_of_pushes_until_the_first_refusal(
        pages in prop::collection::vec((0_u32..40, 0_u32..3, 0_u32..9), 0..8),
        rule in 0_usize..3,
        (cap, blind_max, age_s) in (1_u32..50, 1_u32..20, 0_u64..12),
    ) {
        let push = [PushRule::Blind, PushRule::Outstanding, PushRule::Pending][rule];
        let config = Config {
            in_flight_max: cap,
            blind_outstanding_max: blind_max,
            ..config(push)
        };
        let mut replica = Replica::new();
        replica.health.probe_succeeded(NOW);
        replica.health.unreachable();
        replica.health.probe_succeeded(NOW);
        let mut now = NOW;
        let mut id = 0;
        for (running, waiting, pushes) in pages {
            for _ in 0..pushes {
                id += 1;
                let _ = replica.push(RequestId(id), Need::default(), &config, now);
            }
            now += S / 10;
            let _ = replica.observe(page(running, waiting), now, now);
        }
        now += age_s * S;
        let expected = room(&replica, &config, now);
        let (pushed, _) = fill(&mut replica, &config, now);
        prop_assert_eq!(pushed, expected);
        prop_assert_eq!(room(&replica, &config, now), 0);
    }
}

#[test]
fn under_the_published_rule_any_number_goes_until_a_probe_finds_one_waiting() {
    let config = Config {
        allowance: AllowanceRule::Probed,
        in_flight_max: 20,
        ..config(PushRule::Pending)
    };
    let mut replica = ready(page(3, 0));
    assert_eq!(fill(&mut replica, &config, NOW), (20, Why::Cap));
    assert_eq!(
        probe_interval(&replica, &config, false),
        config.probe_interval_ns
    );
    let mut replica = ready(page(3, 1));
    assert_eq!(fill(&mut replica, &config, NOW), (0, Why::Pending));
    let later = NOW + config.probe_interval_ns;
    let _ = replica.observe(page(4, 0), later, later);
    assert_eq!(fill(&mut replica, &config, later), (20, Why::Cap));
}
