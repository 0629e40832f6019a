//! The order of the hold by age and predicted work.

use super::*;

fn by_work(weight: f64) -> Config {
    Config {
        policy: Policy::Predictive,
        explore_ratio: 0.0,
        affinity_wait_ns: Span::ZERO,
        hold_work_weight: weight,
        hold_passes_max: 3,
        ..config()
    }
}

/// One replica where family 0 is cached and pending.
fn full(config: Config) -> Drive {
    let mut drive = Drive::new(config, 1);
    pushed(&drive.submit_of(0));
    drive
}

#[test]
fn room_goes_to_the_request_with_the_least_to_compute_there() {
    let mut drive = full(by_work(40.0));
    for (id, family) in [(2, 7), (3, 8), (4, 0)] {
        assert_eq!(drive.submit_of(family), [hold(id)]);
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
        assert_eq!(drive.submit_of(family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 2);
    assert_eq!(drive.counter("hold_passed_over"), 0);
}

#[test]
fn age_makes_up_for_work() {
    // A millisecond passes from call to call: the work counts for less than that.
    let mut drive = full(by_work(0.000_1));
    for (id, family) in [(2, 7), (3, 0)] {
        assert_eq!(drive.submit_of(family), [hold(id)]);
    }
    assert_eq!(pushed(&drive.first_byte(1)).0, 2);
}

#[test]
fn much_work_is_passed_over_no_more_often_than_allowed() {
    let mut drive = full(by_work(1e6));
    assert_eq!(drive.submit_of(7), [hold(2)]);
    for id in 3..=7 {
        assert_eq!(drive.submit_of(0), [hold(id)]);
    }
    assert_eq!(drive.one_after_another(1, 5), [3, 4, 5, 2, 6]);
    assert_eq!(drive.counter("hold_due"), 1);
}

#[test]
fn requests_beyond_the_oldest_are_not_compared() {
    let mut drive = full(Config {
        hold_len_max: 100,
        ..by_work(40.0)
    });
    for id in 2..=65 {
        assert_eq!(drive.submit_of(id), [hold(id)]);
    }
    assert_eq!(drive.submit_of(0), [hold(66)]);
    assert_eq!(pushed(&drive.first_byte(1)).0, 2);
    assert_eq!(pushed(&drive.first_byte(2)).0, 66, "now it is the 64th");
}
