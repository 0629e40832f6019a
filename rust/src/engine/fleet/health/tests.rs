//! Every arrow of the machine, and what no sequence of events may lead to.

use proptest::prelude::*;

use super::*;

const S: Span = Span::from_ns(1_000_000_000);

/// A pool large enough that ejecting is allowed.
const WIDE: Pool = Pool {
    len: 10,
    out: 0,
    ready: 10,
};

fn config() -> Config {
    Config::sample()
}

fn up() -> Health {
    let mut health = Health::new();
    health.probe_succeeded(Instant::ZERO);
    assert_eq!(health.state(), State::Up);
    health
}

/// Ejected at `at_ns` by five failures in one instant.
fn eject(health: &mut Health, at_ns: Instant) {
    for _ in 0..4 {
        assert!(!health.failed(Failure::Reset, WIDE, &config(), at_ns));
    }
    assert!(health.failed(Failure::Reset, WIDE, &config(), at_ns));
    assert_eq!(health.state(), State::Ejected);
}

#[test]
fn an_unknown_replica_is_not_ready_until_it_answers() {
    let mut health = Health::new();
    assert_eq!((health.state(), health.ready()), (State::Unknown, false));
    health.probe_succeeded(Instant::from_ns(5));
    assert_eq!((health.state(), health.ready()), (State::Up, true));
    assert_eq!(
        health.ramp(&config(), Instant::from_ns(5)),
        None,
        "what never was away has no ramp"
    );
}

#[test]
fn intent_is_apart_from_what_is_observed() {
    let mut health = up();
    health.set_draining(true);
    assert_eq!((health.state(), health.ready()), (State::Up, false));
    health.unreachable();
    health.set_draining(false);
    assert_eq!((health.state(), health.ready()), (State::Down, false));
}

#[test]
fn consecutive_failures_eject_and_a_success_breaks_the_run() {
    let mut health = up();
    for _ in 0..10 {
        for _ in 0..4 {
            assert!(!health.failed(Failure::Status(500), WIDE, &config(), Instant::ZERO + S));
        }
        health.succeeded(Instant::ZERO + S);
    }
    eject(&mut health, Instant::ZERO + S);
    assert!(!health.ready());
}

#[test]
fn a_run_of_failures_that_lasts_a_second_ejects() {
    let mut health = up();
    assert!(!health.failed(Failure::Timeout, WIDE, &config(), Instant::ZERO + S));
    assert!(!health.failed(
        Failure::Timeout,
        WIDE,
        &config(),
        Instant::ZERO + 2 * S - Span::from_ns(1)
    ));
    assert!(health.failed(Failure::Timeout, WIDE, &config(), Instant::ZERO + 2 * S));
    // Failures far apart are no run.
    let mut health = up();
    for hour in 1..20 {
        assert!(!health.failed(
            Failure::Timeout,
            WIDE,
            &config(),
            Instant::ZERO + hour * 3600 * S
        ));
    }
}

#[test]
fn an_engine_that_says_it_is_full_is_not_marked() {
    let mut health = up();
    for _ in 0..100 {
        assert!(!health.failed(Failure::Full, WIDE, &config(), Instant::ZERO + S));
    }
    assert_eq!(health.state(), State::Up);
    eject(&mut health, Instant::ZERO + S);
    health.tick(&config(), Instant::ZERO + 2 * S);
    assert!(!health.failed(Failure::Full, WIDE, &config(), Instant::ZERO + 2 * S));
    assert_eq!(health.state(), State::Probing);
}

#[test]
fn a_replica_that_nobody_can_reach_is_down_at_once_and_back_with_a_ramp() {
    let mut health = up();
    assert!(health.failed(
        Failure::Connect,
        Pool::default(),
        &config(),
        Instant::ZERO + S
    ));
    assert_eq!(health.state(), State::Down);
    assert!(!health.failed(Failure::Connect, WIDE, &config(), Instant::ZERO + S));
    health.succeeded(Instant::ZERO + S);
    assert_eq!(
        health.state(),
        State::Down,
        "an old answer is no new connection"
    );
    health.probe_succeeded(Instant::ZERO + 2 * S);
    assert_eq!(health.state(), State::Up);
    assert_eq!(
        health
            .ramp(&config(), Instant::ZERO + 2 * S)
            .map(|share| share.of(100)),
        Some(10)
    );
    assert_eq!(
        health
            .ramp(&config(), Instant::ZERO + 7 * S)
            .map(|share| share.of(100)),
        Some(50)
    );
    assert_eq!(
        health.next_change_ns(&config()),
        Some(Instant::ZERO + 12 * S)
    );
    assert_eq!(health.ramp(&config(), Instant::ZERO + 12 * S), None);
    assert!(!health.tick(&config(), Instant::ZERO + 12 * S));
    assert_eq!(health.next_change_ns(&config()), None);
}

#[test]
fn an_ejection_ends_half_open_and_one_success_readmits() {
    let mut health = up();
    eject(&mut health, Instant::ZERO + S);
    assert_eq!(
        health.next_change_ns(&config()),
        Some(Instant::ZERO + 2 * S)
    );
    assert!(!health.tick(&config(), Instant::ZERO + 2 * S - Span::from_ns(1)));
    health.succeeded(Instant::ZERO + 2 * S - Span::from_ns(1));
    health.probe_succeeded(Instant::ZERO + 2 * S - Span::from_ns(1));
    assert_eq!(health.state(), State::Ejected, "its time is not over");
    assert!(health.tick(&config(), Instant::ZERO + 2 * S));
    assert_eq!((health.state(), health.ready()), (State::Probing, true));
    health.succeeded(Instant::ZERO + 3 * S);
    assert_eq!(health.state(), State::Up);
    assert!(health.ramp(&config(), Instant::ZERO + 3 * S).is_some());
}

#[test]
fn each_ejection_in_a_row_is_twice_as_long_up_to_the_bound() {
    let mut health = up();
    let mut now = Instant::ZERO + S;
    eject(&mut health, now);
    for length_s in [1, 2, 4, 8, 16, 30, 30] {
        let until_ns = now + length_s * S;
        assert_eq!(health.next_change_ns(&config()), Some(until_ns));
        now = until_ns;
        health.tick(&config(), now);
        assert!(health.failed(Failure::Status(500), Pool::default(), &config(), now));
    }
    // Having stayed for 30 s, it starts anew.
    health.tick(&config(), now + 30 * S);
    health.succeeded(now + 30 * S);
    eject(&mut health, now + 60 * S);
    assert_eq!(health.next_change_ns(&config()), Some(now + 61 * S));
}

#[test]
fn a_replica_back_on_the_word_of_a_probe_is_on_trial() {
    let mut health = up();
    eject(&mut health, Instant::ZERO + S);
    health.tick(&config(), Instant::ZERO + 2 * S);
    health.probe_succeeded(Instant::ZERO + 2 * S);
    assert_eq!(health.state(), State::Up);
    assert!(health.failed(Failure::Status(500), WIDE, &config(), Instant::ZERO + 2 * S));
    assert_eq!(health.state(), State::Ejected);
    assert_eq!(
        health.next_change_ns(&config()),
        Some(Instant::ZERO + 4 * S)
    );
    health.tick(&config(), Instant::ZERO + 4 * S);
    health.probe_succeeded(Instant::ZERO + 4 * S);
    health.succeeded(Instant::ZERO + 4 * S);
    assert!(
        !health.failed(Failure::Status(500), WIDE, &config(), Instant::ZERO + 4 * S),
        "the trial is over"
    );
}

#[test]
fn going_down_does_not_shorten_an_ejection() {
    let mut health = up();
    eject(&mut health, Instant::ZERO + S);
    health.unreachable();
    health.probe_succeeded(Instant::ZERO + 2 * S - Span::from_ns(1));
    assert_eq!(health.state(), State::Ejected);
    health.unreachable();
    health.probe_succeeded(Instant::ZERO + 2 * S);
    assert_eq!(health.state(), State::Up);
}

#[test]
fn probes_without_an_answer_alone_put_nobody_out() {
    let mut health = up();
    for second in 1..1_000 {
        health.probe_unanswered(second % 2 == 0, Instant::ZERO + second * S);
        assert_eq!((health.state(), health.silent()), (State::Up, true));
    }
    health.note_sign();
    assert!(!health.silent());
    health.probe_unanswered(true, Instant::ZERO + S);
    health.succeeded(Instant::ZERO + S);
    assert!(!health.silent());
}

#[test]
fn a_silent_replica_whose_requests_fail_as_well_is_down_however_small_its_pool() {
    let alone = Pool {
        len: 1,
        out: 0,
        ready: 1,
    };
    let mut health = up();
    health.probe_unanswered(true, Instant::ZERO + S);
    assert!(!health.failed(Failure::Reset, alone, &config(), Instant::ZERO + S));
    assert!(health.failed(Failure::Timeout, alone, &config(), Instant::ZERO + S));
    assert_eq!(health.state(), State::Down);
    // Who answers requests with failures is there.
    let mut health = up();
    health.probe_unanswered(true, Instant::ZERO + S);
    for _ in 0..20 {
        assert!(!health.failed(Failure::Status(500), alone, &config(), Instant::ZERO + S));
    }
    assert_eq!(health.state(), State::Up);
}

#[test]
fn what_takes_connections_without_answering_probes_may_serve_and_is_on_trial() {
    let mut health = Health::new();
    health.probe_unanswered(true, Instant::ZERO + S);
    assert_eq!((health.state(), health.ready()), (State::Up, true));
    let mut health = Health::new();
    health.probe_unanswered(false, Instant::ZERO + S);
    assert_eq!(health.state(), State::Down);
    health.probe_unanswered(false, Instant::ZERO + 2 * S);
    assert_eq!(health.state(), State::Down);
    health.probe_unanswered(true, Instant::ZERO + 3 * S);
    assert_eq!(health.state(), State::Up);
    assert!(health.failed(Failure::Reset, WIDE, &config(), Instant::ZERO + 3 * S));
}

#[test]
fn a_wedged_replica_is_out_until_it_shows_a_sign_of_life() {
    let mut health = up();
    health.wedge();
    assert_eq!((health.state(), health.ready()), (State::Wedged, false));
    health.succeeded(Instant::ZERO + S);
    health.probe_succeeded(Instant::ZERO + S);
    assert!(!health.failed(Failure::Status(500), WIDE, &config(), Instant::ZERO + S));
    assert!(!health.tick(&config(), Instant::ZERO + 100 * S));
    assert_eq!(health.state(), State::Wedged);
    assert!(health.revive(Instant::ZERO + 100 * S));
    assert!(!health.revive(Instant::ZERO + 100 * S));
    assert_eq!(health.state(), State::Up);
    assert!(health.ramp(&config(), Instant::ZERO + 100 * S).is_some());
    assert!(
        health.failed(Failure::Reset, WIDE, &config(), Instant::ZERO + 101 * S),
        "on trial"
    );
}

#[test]
fn failures_that_may_be_the_requests_own_put_one_replica_out_at_most() {
    let suspected = |health: &mut Health, out| {
        let pool = Pool { out, ..WIDE };
        (0..20).any(|_| health.suspected(pool, &config(), Instant::ZERO + S))
    };
    assert!(suspected(&mut up(), 0));
    assert!(!suspected(&mut up(), 1));
}

#[test]
fn at_most_the_configured_share_is_ejected_and_never_the_last_ready_one() {
    let may = |len, out, ready| Pool { len, out, ready }.may_eject(&config());
    assert!(!may(1, 0, 1));
    assert!(may(2, 0, 2));
    assert!(!may(2, 0, 1), "the other one is down");
    assert!(may(3, 0, 3));
    assert!(!may(3, 1, 2));
    assert!(may(4, 1, 3));
    assert!(!may(4, 2, 2));
    let mut alone = up();
    for _ in 0..100 {
        let pool = Pool::count([&alone].into_iter());
        assert!(!alone.failed(Failure::Status(500), pool, &config(), Instant::ZERO + S));
    }
    assert!(alone.ready());
}

proptest! {
    #[test]
    fn no_sequence_of_failures_empties_a_pool(
        len in 1_usize..6,
        events in prop::collection::vec((0_usize..6, 0_u8..6, 0_u64..900), 0..300),
    ) {
        let mut pool: Vec<Health> = (0..len).map(|_| up()).collect();
        let mut now = Instant::ZERO + S;
        for (index, event, ms) in events {
            now += Span::from_ns(ms * 1_000_000);
            for health in &mut pool {
                health.tick(&config(), now);
            }
            let counted = Pool::count(pool.iter());
            let health = &mut pool[index % len];
            match event {
                0 | 1 => { health.failed(Failure::Status(500), counted, &config(), now); }
                2 => { health.failed(Failure::Reset, counted, &config(), now); }
                3 => health.succeeded(now),
                4 => health.probe_succeeded(now),
                _ => { health.failed(Failure::Full, counted, &config(), now); }
            }
            // Nobody is unreachable, so somebody is ready, and at most half of them are out.
            let counted = Pool::count(pool.iter());
            prop_assert!(counted.ready >= 1);
            prop_assert!(counted.out * 2 <= len);
            for health in &pool {
                let next_ns = health.next_change_ns(&config());
                prop_assert!(next_ns.is_none_or(|at| at > now), "a change is overdue");
                let share = health.ramp(&config(), now).map(|share| share.of(1000));
                prop_assert!(share.is_none_or(|share| (100..=1000).contains(&share)));
            }
        }
    }
}
