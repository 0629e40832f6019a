//! The order of the hold by age and predicted work.

use super::*;

/// Of a prompt of about 32,000 tokens: seconds of computing.
const PROMPT_BLOCKS: u64 = 2_000;

fn by_work(weight: f64) -> Config {
    Config {
        policy: Policy::Predictive,
        explore_ratio: 0.0,
        affinity_wait_ns: 0,
        hold_work_weight: weight,
        hold_passes_max: 3,
        ..config()
    }
}

/// A prompt that shares nothing with those of other families.
fn submit(drive: &mut Drive, family: u64) -> Vec<Effect> {
    let blocks: Vec<u64> = (1..=PROMPT_BLOCKS)
        .map(|n| (family + 1) * 1_000_000 + n)
        .collect();
    drive.submit_as(ask(Route::ChatCompletions), digest("m", &blocks))
}

/// One replica where family 0 is cached and pending.
fn full(config: Config) -> Drive {
    let mut drive = Drive::new(config, 1);
    pushed(&submit(&mut drive, 0));
    drive
}

#[test]
fn room_goes_to_the_request_with_the_least_to_compute_there() {
    let mut drive = full(by_work(40.0));
    for (id, family) in [(2, 7), (3, 8), (4, 0)] {
        assert_eq!(submit(&mut drive, family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 4);
    assert_eq!(drive.counter("hold_passed_over"), 2);
    // Of equals the older one.
    assert_eq!(pushed(&drive.first_byte(4)).0, 2);
}

#[test]
fn without_a_weight_the_oldest_goes_first() {
    let mut drive = full(by_work(0.0));
    for (id, family) in [(2, 7), (3, 0)] {
        assert_eq!(submit(&mut drive, family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 2);
    assert_eq!(drive.counter("hold_passed_over"), 0);
}

#[test]
fn age_makes_up_for_work() {
    // A millisecond passes from call to call: the work counts for less than that.
    let mut drive = full(by_work(0.000_1));
    for (id, family) in [(2, 7), (3, 0)] {
        assert_eq!(submit(&mut drive, family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 2);
}

#[test]
fn much_work_is_passed_over_no_more_often_than_allowed() {
    let mut drive = full(by_work(1e6));
    assert_eq!(submit(&mut drive, 7), [hold(2)]);
    for id in 3..=7 {
        assert_eq!(submit(&mut drive, 0), [hold(id)]);
    }
    let mut started = Vec::new();
    let mut last = 1;
    for _ in 0..5 {
        last = pushed(&drive.first_byte(last)).0;
        started.push(last);
    }
    assert_eq!(started, [3, 4, 5, 2, 6]);
    assert_eq!(drive.counter("hold_due"), 1);
}

#[test]
fn requests_beyond_the_oldest_are_not_compared() {
    let mut drive = full(Config {
        hold_len_max: 100,
        ..by_work(40.0)
    });
    for id in 2..=65 {
        assert_eq!(submit(&mut drive, id), [hold(id)]);
    }
    assert_eq!(submit(&mut drive, 0), [hold(66)]);
    assert_eq!(pushed(&drive.first_byte(1)).0, 2);
    assert_eq!(pushed(&drive.first_byte(2)).0, 66, "now it is the 64th");
}
