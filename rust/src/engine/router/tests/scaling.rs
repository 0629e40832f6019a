//! How many replicas the work at hand would fill.

use super::*;

fn wanted(drive: &Drive) -> f64 {
    let models = drive.router.wanted();
    assert_eq!((models.len(), models[0].model), (1, "m"));
    models[0].wanted
}

/// Replicas that were full with 8 requests each, and have nobody waiting now.
fn seen_full(replicas: u32, running: u32) -> Drive {
    let mut drive = Drive::new(config(), replicas);
    for replica in 0..replicas {
        drive.observe(replica, load(8, 1));
        drive.observe(replica, load(running, 0));
    }
    drive
}

#[test]
fn an_idle_fleet_is_not_wanted() {
    assert!(wanted(&seen_full(4, 0)) < 0.01);
    assert!(wanted(&Drive::new(config(), 4)) < 0.01);
}

#[test]
fn full_batches_everywhere_want_as_many_replicas_as_there_are() {
    let replicas = wanted(&seen_full(4, 8));
    assert!((3.9..4.1).contains(&replicas), "{replicas}");
    let half = wanted(&seen_full(4, 4));
    assert!((1.9..2.1).contains(&half), "{half}");
}

#[test]
fn a_batch_is_known_long_after_somebody_waited() {
    let mut drive = seen_full(2, 8);
    for _ in 0..20 {
        drive.now += 5 * S;
        for replica in 0..2 {
            drive.observe(replica, load(8, 0));
        }
    }
    let replicas = wanted(&drive);
    assert!((1.9..2.1).contains(&replicas), "{replicas}");
}

#[test]
fn a_replica_that_was_never_full_counts_by_its_cache() {
    let mut drive = Drive::new(config(), 1);
    let half = Snapshot {
        kv_usage: Some(0.5),
        ..load(4, 0)
    };
    drive.observe(0, half);
    let replicas = wanted(&drive);
    assert!((0.49..0.52).contains(&replicas), "{replicas}");
}

#[test]
fn held_work_of_a_minute_wants_one_replica_more() {
    let mut drive = seen_full(1, 8);
    drive.observe(0, load(8, 1));
    let before = wanted(&drive);
    let tokens = f64::from(config().output_tokens);
    let work_s = tokens / config().decode_tokens_per_s / 8.0;
    let mut held = 0.0;
    while held * work_s < 60.0 {
        let effects = drive.submit_as(ask(Route::ChatCompletions), digest("m", &[1]));
        held += f64::from(u8::from(matches!(effects[..], [Effect::Hold(_)])));
    }
    let more = wanted(&drive) - before;
    assert!((0.99..1.1).contains(&more), "{more}");
}

#[test]
fn models_that_share_their_replicas_want_the_same() {
    let mut drive = seen_full(2, 8);
    for replica in 0..2 {
        drive.set_models(replica, &["m", "adapter"]);
        drive.observe(replica, load(8, 1));
    }
    for _ in 0..10 {
        drive.submit_as(ask(Route::ChatCompletions), digest("adapter", &[1]));
    }
    assert!(drive.router.hold_requests() > 0);
    let models = drive.router.wanted();
    assert_eq!(models.len(), 2);
    assert!(models[0].wanted > 2.0, "{models:?}");
    assert!(
        (models[0].wanted - models[1].wanted).abs() < 1e-9,
        "{models:?}"
    );
}

#[test]
fn each_model_says_how_many_of_its_replicas_are_ready() {
    let mut drive = Drive::new(config(), 3);
    drive.set_models(0, &["a"]);
    drive.set_models(1, &["a"]);
    drive.set_models(2, &["b"]);
    let ready = |drive: &Drive| {
        let models = drive.router.wanted().into_iter();
        let mut ready: Vec<_> = models
            .map(|of| (of.model.to_owned(), of.ready))
            .filter(|(model, _)| model != "m")
            .collect();
        ready.sort_unstable();
        ready
    };
    let expected = |a, b| [("a".to_owned(), a), ("b".to_owned(), b)];
    assert_eq!(ready(&drive), expected(2, 1));
    for replica in [0, 2] {
        let asleep = Snapshot {
            sleeping: true,
            ..load(0, 0)
        };
        drive.observe(replica, asleep);
    }
    assert_eq!(ready(&drive), expected(1, 0));
}
