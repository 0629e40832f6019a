//! The predictive policy through the router: waiting for an owner, sessions, learning.

use super::*;
use crate::engine::config::Policy;

/// 100 us a token, 20 ms a request, and no draws.
fn predictive() -> Config {
    Config {
        policy: Policy::Predictive,
        explore_ratio: 0.0,
        output_tokens: 30,
        affinity_wait_ns: Span::from_ns(500_000_000),
        ..config()
    }
}

fn prompt(conversation: u64, blocks: u64) -> Digest {
    let blocks: Vec<_> = (0..blocks).map(|n| conversation << 32 | n).collect();
    Digest {
        stream: true,
        ..digest("m", &blocks)
    }
}

fn submit(drive: &mut Drive, digest: Digest) -> Vec<Effect> {
    drive.submit_as(ask(Route::ChatCompletions), digest)
}

/// Two replicas; request 1 has put 1,000 blocks (1.6 s of prompt) on the replica it returns, and
/// request 2 keeps that one full.
fn with_a_full_owner(config: Config) -> (Drive, u32) {
    let mut drive = Drive::new(config, 2);
    let (_, owner, _) = pushed(&submit(&mut drive, prompt(1, 1_000)));
    drive.first_byte(1);
    drive.complete(1);
    let (_, again, _) = pushed(&submit(&mut drive, prompt(1, 1_001)));
    assert_eq!(again, owner);
    (drive, owner)
}

#[test]
fn a_request_waits_for_its_full_owner_and_goes_there_when_it_has_room() {
    let (mut drive, owner) = with_a_full_owner(predictive());
    assert_eq!(submit(&mut drive, prompt(1, 1_002)), [hold(3)]);
    let other = pushed(&submit(&mut drive, prompt(2, 5)));
    assert_eq!((other.0, other.1), (4, 1 - owner), "nobody else is held up");
    let effects = drive.first_byte(2);
    assert_eq!(pushed(&effects), (3, owner, 1));
}

#[test]
fn the_shadow_lets_a_held_request_wait_for_its_full_owner_where_the_policy_does_not() {
    let shadows = Config {
        policy: Policy::RoundRobin,
        shadow_policy: Some(Policy::Predictive),
        ..predictive()
    };
    let mut drive = Drive::new(shadows, 2);
    let owner = pushed(&submit(&mut drive, prompt(1, 1_000))).1;
    drive.first_byte(1);
    drive.complete(1);
    assert_eq!(pushed(&submit(&mut drive, prompt(2, 5))).1, 1 - owner);
    assert_eq!(pushed(&submit(&mut drive, prompt(3, 5))).1, owner);
    assert_eq!(submit(&mut drive, prompt(1, 1_002)), [hold(4)]);
    let before = drive.counter("shadow_waits");
    assert_eq!(pushed(&drive.first_byte(2)), (4, 1 - owner, 1));
    assert_eq!(drive.counter("shadow_waits"), before + 1);
}

#[test]
fn a_request_waits_for_an_owner_no_longer_than_allowed() {
    let (mut drive, owner) = with_a_full_owner(predictive());
    assert_eq!(submit(&mut drive, prompt(1, 1_002)), [hold(3)]);
    drive.now += predictive().affinity_wait_ns / 2;
    assert_eq!(drive.observe(1 - owner, idle()), []);
    drive.now += predictive().affinity_wait_ns / 2;
    assert_eq!(pushed(&drive.observe(1 - owner, idle())), (3, 1 - owner, 1));
}

#[test]
fn a_prompt_sooner_computed_elsewhere_does_not_wait() {
    let (mut drive, owner) = with_a_full_owner(predictive());
    let (_, replica, _) = pushed(&submit(&mut drive, prompt(3, 4)));
    assert_eq!(replica, 1 - owner);
}

#[test]
fn requests_that_wait_for_an_owner_are_counted_until_they_leave() {
    let (mut drive, owner) = with_a_full_owner(predictive());
    let awaited = |drive: &Drive| drive.router.hold.chosen_before(owner.into(), None);
    for _ in 0..3 {
        submit(&mut drive, prompt(1, 1_002));
    }
    assert_eq!(awaited(&drive), 3);
    drive.end(4, Outcome::ClientLeft);
    assert_eq!(awaited(&drive), 2);
    drive.tick_at(drive.now + 31 * S);
    assert_eq!(awaited(&drive), 0);
}

#[test]
fn a_replica_that_leaves_is_not_waited_for() {
    let (mut drive, owner) = with_a_full_owner(predictive());
    assert_eq!(submit(&mut drive, prompt(1, 1_002)), [hold(3)]);
    let effects = drive.set_replicas([1 - owner]);
    assert_eq!(pushed(&effects), (3, 1 - owner, 1));
}

#[test]
fn what_cannot_be_held_goes_where_there_is_room() {
    let (mut drive, owner) = with_a_full_owner(Config {
        hold_len_max: 0,
        ..predictive()
    });
    let (_, replica, _) = pushed(&submit(&mut drive, prompt(1, 1_002)));
    assert_eq!(replica, 1 - owner);
}

#[test]
fn a_session_stays_while_moving_gains_little() {
    let mut drive = Drive::new(predictive(), 4);
    let with_key = |n: u64| Digest {
        key: Some(77),
        ..prompt(n, 2)
    };
    let (_, home, _) = pushed(&submit(&mut drive, with_key(10)));
    drive.first_byte(1);
    drive.complete(1);
    for n in 11..40 {
        let (id, replica, _) = pushed(&submit(&mut drive, with_key(n)));
        assert_eq!(replica, home);
        drive.first_byte(id);
        drive.complete(id);
    }
}

/// Serves `count` prompts one after the other at a true speed; the share of the last half whose
/// time to the first byte was predicted to a fifth.
fn served(assumed: f64, real_token_ns: u64, count: u64) -> f64 {
    let mut drive = Drive::new(
        Config {
            prefill_tokens_per_s: assumed,
            explore_ratio: 0.01,
            ..predictive()
        },
        3,
    );
    let counts = |drive: &Drive| {
        (
            drive.counter("ttft_predicted"),
            drive.counter("ttft_within_a_fifth"),
        )
    };
    let mut half = (0, 0);
    for n in 0..count {
        let blocks = 5 + n * 37 % 60;
        let (id, replica, _) = pushed(&submit(&mut drive, prompt(100 + n, blocks)));
        // 64 bytes of 4 bytes per token.
        drive.now += 10 * MS + Span::from_ns(blocks * 16 * real_token_ns);
        drive.first_byte(id);
        drive.complete(id);
        drive.observe(replica, idle());
        if n + 1 == count / 2 {
            half = counts(&drive);
        }
    }
    let whole = counts(&drive);
    let share = |part: u64, all: u64| {
        f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(all).unwrap())
    };
    share(whole.1 - half.1, whole.0 - half.0)
}

#[test]
fn times_are_predicted_to_a_fifth_after_learning_from_settings_wrong_by_four() {
    for assumed in [2_500.0, 10_000.0, 40_000.0] {
        let share = served(assumed, 100_000, 300);
        assert!(share > 0.9, "{assumed}: {share}");
    }
}
