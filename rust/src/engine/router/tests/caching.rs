//! Prefixes: who is believed to cache what.

use super::*;

#[test]
fn the_owner_of_a_prefix_gets_what_continues_it() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        4,
    );
    let turn: Vec<u64> = (100..140).collect();
    let (_, owner, _) =
        pushed(&drive.submit_as(ask(Route::ChatCompletions), digest("m", &turn[..30])));
    for _ in 0..8 {
        let effects = drive.submit_as(ask(Route::ChatCompletions), digest("m", &turn));
        let Effect::Push(push) = &effects[0] else {
            panic!("{effects:?}")
        };
        assert_eq!(push.replica.0, owner);
        assert!(push.match_blocks >= 30);
    }
    assert_eq!(drive.counter("chosen_by_match"), 8);
}

#[test]
fn a_replica_that_restarted_owns_nothing() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    let told = |queries| Snapshot {
        cache_queries: Some(queries),
        ..idle()
    };
    drive.observe(0, told(1_000));
    let prompt: Vec<u64> = (1..20).collect();
    drive.submit_as(ask(Route::ChatCompletions), digest("m", &prompt));
    assert_eq!(drive.router.gauges()[0].tree_blocks, 19);
    drive.complete(1);
    drive.observe(0, told(1_200));
    assert_eq!(drive.router.gauges()[0].tree_blocks, 19);
    drive.observe(0, told(3));
    assert_eq!(drive.router.gauges()[0].tree_blocks, 0);
    assert_eq!(drive.counter("restarts"), 1);
}

#[test]
fn an_owner_caches_no_more_than_the_replica_says_it_can() {
    let mut drive = Drive::new(
        Config {
            push: PushRule::Blind,
            ..config()
        },
        1,
    );
    drive.observe(
        0,
        Snapshot {
            kv_tokens: Some(1_600),
            ..idle()
        },
    );
    for start in 0..10_u64 {
        let prompt: Vec<u64> = (start * 1_000..start * 1_000 + 40).collect();
        let (id, ..) = pushed(&drive.submit_as(ask(Route::ChatCompletions), digest("m", &prompt)));
        drive.complete(id);
    }
    let blocks = drive.router.gauges()[0].tree_blocks;
    assert!(
        (60..=100).contains(&blocks),
        "1,600 tokens of 4 bytes are 100 blocks: {blocks}"
    );
}
