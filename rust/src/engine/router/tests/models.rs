//! Replicas that hide their models, lists that are cut, and models in no list.

use super::*;
use crate::engine::config::UnknownModels;
use crate::engine::router::ModelList;
use crate::tenant::Tenant;

fn blind() -> Config {
    Config {
        push: PushRule::Blind,
        ..config()
    }
}

fn passing() -> Config {
    Config {
        unknown_models: UnknownModels::Pass,
        ..blind()
    }
}

impl Drive {
    fn list(&mut self, replica: u32, listing: ModelList<'_>) -> Vec<Effect> {
        self.call(|router, now, out| {
            router.set_listing(ReplicaId(replica), listing, now, out);
        })
    }

    /// As [`Drive::new`], with a driver that reads lists again.
    fn looking(config: Config, replicas: u32) -> Self {
        let mut drive = Self::new(config, replicas);
        drive.router.set_looks(true);
        drive
    }

    fn look_due(&mut self) -> bool {
        self.router.look_due(self.now)
    }

    fn looked(&mut self) -> Vec<Effect> {
        self.call(Router::looked)
    }

    /// The replicas that these many requests for a model are sent to, each completed at once.
    fn sent(&mut self, model: &str, count: usize) -> Vec<u32> {
        let mut sent: Vec<_> = (0..count)
            .map(|_| {
                let (id, replica, _) = pushed(&self.submit(model));
                self.complete(id);
                replica
            })
            .collect();
        sent.sort_unstable();
        sent.dedup();
        sent
    }
}

#[test]
fn a_replica_that_hides_its_models_serves_what_is_asked_of_it() {
    let mut drive = Drive::new(config(), 0);
    drive.set_replicas([0]);
    drive.observe(0, idle());
    assert!(!drive.router.ready(), "it has not told what it serves");
    drive.list(0, ModelList::Hidden);
    assert!(drive.router.ready());
    assert_eq!(drive.sent("whatever", 1), [0]);
    assert_eq!(drive.router.models(Tenant::Nobody), []);
    assert_eq!(
        drive.router.fleet.models().count(),
        0,
        "names leave nothing behind"
    );
}

#[test]
fn a_ready_replica_can_serve_some_request() {
    let mut drive = Drive::new(config(), 1);
    assert!(drive.router.ready());
    drive.list(0, ModelList::Whole(&[]));
    assert!(!drive.router.ready());
    drive.list(0, ModelList::Cut(&[]));
    assert!(drive.router.ready());
}

#[test]
fn a_replica_that_hides_its_models_shares_the_models_of_others() {
    let mut drive = Drive::new(blind(), 3);
    drive.list(2, ModelList::Hidden);
    drive.set_models(1, &["n"]);
    assert_eq!(drive.sent("m", 40), [0, 2]);
    assert_eq!(drive.sent("n", 40), [1, 2]);
    assert_eq!(drive.sent("x", 4), [2]);
    drive.set_models(2, &["m"]);
    assert_eq!(drive.sent("m", 40), [0, 2]);
    assert_eq!(drive.sent("n", 4), [1]);
    assert_eq!(rejected(&drive.submit("x")).status, 404);
}

#[test]
fn what_no_list_has_goes_to_replicas_whose_list_was_cut() {
    let mut drive = Drive::new(blind(), 2);
    drive.list(1, ModelList::Cut(&[("n".to_owned(), None)]));
    assert_eq!(drive.sent("m", 4), [0]);
    assert_eq!(drive.sent("x", 4), [1]);
    drive.set_models(0, &["m", "x"]);
    assert_eq!(drive.sent("x", 4), [0]);
}

#[test]
fn of_a_list_beyond_the_bound_what_does_not_fit_goes_there_all_the_same() {
    let mut drive = Drive::new(config(), 1);
    let names: Vec<_> = (0..=MODELS_PER_REPLICA_MAX)
        .map(|n| format!("a{n:05}"))
        .collect();
    drive.set_models(0, &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(
        drive.router.models(Tenant::Nobody).len(),
        MODELS_PER_REPLICA_MAX
    );
    assert_eq!(drive.sent(&names[MODELS_PER_REPLICA_MAX], 1), [0]);
}

#[test]
fn held_requests_start_at_a_replica_that_hides_its_models() {
    let mut drive = Drive::new(config(), 1);
    let (first, ..) = pushed(&drive.submit("m"));
    assert_eq!(drive.submit("m"), [hold(2)]);
    drive.set_replicas([0, 1]);
    drive.observe(1, idle());
    assert_eq!(pushed(&drive.list(1, ModelList::Hidden)), (2, 1, 1));
    drive.complete(first);
}

#[test]
fn a_404_of_a_replica_that_hides_its_models_is_not_the_last_word_while_another_can_be_asked() {
    let mut drive = Drive::new(blind(), 2);
    drive.list(1, ModelList::Hidden);
    let mut asked_both = false;
    for _ in 0..40 {
        let (id, replica, _) = pushed(&drive.submit("m"));
        assert_eq!(drive.router.guessed(RequestId(id)), replica == 1);
        if replica == 1 {
            assert_eq!(pushed(&drive.retry(id, Failure::Absent, true)), (id, 0, 2));
            assert!(!drive.router.guessed(RequestId(id)));
            asked_both = true;
        }
        drive.complete(id);
    }
    assert!(asked_both);
    assert_eq!(drive.router.gauges()[1].failed_total, 0);
    let (id, ..) = pushed(&drive.submit("x"));
    assert!(!drive.router.guessed(RequestId(id)), "nobody else takes it");
}

#[test]
fn a_model_that_left_its_list_a_moment_ago_is_to_be_asked_for_again() {
    let mut drive = Drive::new(config(), 1);
    drive.set_models(0, &["m", "n"]);
    drive.set_models(0, &["m"]);
    let effects = drive.submit("n");
    let reject = rejected(&effects);
    assert_eq!(
        (reject.status, reject.code, reject.retry_after_s),
        (503, "model_not_ready", Some(1))
    );
    drive.now += config().model_gone_ns;
    assert_eq!(rejected(&drive.submit("n")).status, 404);
}

#[test]
fn a_model_whose_only_replica_left_the_fleet_is_to_be_asked_for_again() {
    let mut drive = Drive::new(config(), 2);
    drive.set_models(1, &["n"]);
    drive.set_replicas([0]);
    assert_eq!(rejected(&drive.submit("n")).code, "model_not_ready");
}

#[test]
fn while_a_replica_loads_an_unknown_model_may_be_its() {
    let mut drive = Drive::new(config(), 1);
    drive.set_replicas([0, 1]);
    drive.observe_failed(1, false);
    assert_eq!(rejected(&drive.submit("n")).code, "model_not_ready");
    drive.drain(1, true);
    assert_eq!(rejected(&drive.submit("n")).status, 404);
    drive.drain(1, false);
    drive.now += 1_900 * S;
    drive.observe(0, idle());
    assert_eq!(
        rejected(&drive.submit("n")).status,
        404,
        "it is not awaited for ever"
    );
}

#[test]
fn a_request_for_a_model_in_no_list_waits_until_the_lists_have_been_read_again() {
    let mut drive = Drive::looking(config(), 2);
    assert!(!drive.look_due());
    assert_eq!(drive.submit("lora"), [hold(1)]);
    assert!(drive.look_due());
    assert!(!drive.look_due(), "one look at a time");
    assert_eq!(pushed(&drive.set_models(1, &["m", "lora"])), (1, 1, 1));
    assert_eq!(drive.looked(), []);
    assert_eq!(drive.submit("none"), [hold(2)]);
    drive.now += 2 * S;
    assert!(drive.look_due());
    assert_eq!(rejected(&drive.looked()).status, 404);
    drive.complete(1);
}

#[test]
fn one_look_answers_all_who_came_before_it_began_and_looks_are_far_between() {
    let mut drive = Drive::looking(config(), 1);
    for id in 1..=3 {
        assert_eq!(drive.submit(&format!("x{id}")), [hold(id)]);
    }
    assert!(drive.look_due());
    drive.now += MS;
    assert_eq!(drive.submit("late"), [hold(4)]);
    assert_eq!(drive.looked().len(), 3);
    assert!(!drive.look_due(), "the last one was a moment ago");
    let due_ns = drive.router.next_change_ns().unwrap();
    drive.now = due_ns;
    assert!(drive.look_due());
    assert_eq!(rejected(&drive.looked()).request, RequestId(4));
    assert_eq!(drive.counter("model_looks"), 2);
    assert_eq!(drive.router.fleet.models().count(), 1);
}

#[test]
fn a_look_that_is_never_answered_holds_nobody_for_ever() {
    let mut drive = Drive::looking(config(), 1);
    assert_eq!(drive.submit("x"), [hold(1)]);
    assert!(drive.look_due());
    let due_ns = drive.router.next_change_ns().unwrap();
    assert_eq!(rejected(&drive.tick_at(due_ns)).status, 404);
    assert_eq!(drive.submit("y"), [hold(2)]);
    assert!(drive.look_due(), "the next one begins");
    assert_eq!(drive.looked().len(), 1);
}

#[test]
fn who_waits_for_a_look_may_leave_and_a_flood_of_names_is_bounded() {
    let mut drive = Drive::looking(config(), 1);
    for id in 1..=1_024 {
        assert_eq!(drive.submit(&format!("x{id}")), [hold(id)]);
    }
    assert_eq!(rejected(&drive.submit("one-more")).status, 404);
    assert_eq!(drive.end(7, Outcome::ClientLeft), []);
    assert!(drive.look_due());
    assert_eq!(drive.looked().len(), 1_023);
    assert_eq!(drive.router.fleet.models().count(), 1);
}

#[test]
fn passed_on_a_model_in_no_list_is_sent_to_any_replica() {
    let mut drive = Drive::looking(passing(), 2);
    assert_eq!(drive.submit("x"), [hold(1)]);
    assert!(drive.look_due());
    let (id, replica, _) = pushed(&drive.looked());
    assert!(drive.router.guessed(RequestId(id)));
    assert_eq!(
        pushed(&drive.retry(id, Failure::Absent, true)),
        (id, 1 - replica, 2)
    );
    assert!(!drive.router.guessed(RequestId(id)), "all have been asked");
    drive.complete(id);
    assert_eq!(drive.router.fleet.models().count(), 1);
}

#[test]
fn passed_on_a_model_goes_where_a_list_has_it_as_soon_as_one_does() {
    let mut drive = Drive::new(passing(), 2);
    let (id, ..) = pushed(&drive.submit("x"));
    drive.set_models(1, &["m", "x"]);
    assert_eq!(drive.sent("x", 20), [1]);
    drive.complete(id);
    let (id, ..) = pushed(&drive.submit("y"));
    drive.set_replicas([1]);
    drive.set_replicas([0, 1]);
    drive.complete(id);
    drive.observe(0, idle());
    drive.set_models(0, &["m"]);
    drive.set_replicas([0, 1, 2]);
    drive.observe(2, idle());
    drive.set_models(2, &["m"]);
    assert_eq!(drive.sent("y", 60), [0, 1, 2]);
}

#[test]
fn a_forward_for_a_model_in_no_list_goes_back_at_once() {
    let mut drive = Drive::looking(passing(), 1);
    let forwarded = Some(Forwarded {
        hop: 1,
        attempts_left: 1,
        deadline_ns: None,
        origin: None,
    });
    let ask = Ask {
        forwarded,
        ..ask(Route::ChatCompletions)
    };
    let effects = drive.submit_as(ask, digest("x", &[]));
    let reject = rejected(&effects);
    assert_eq!((reject.status, reject.code), (503, "not_served_here"));
}

#[test]
fn a_replica_that_joins_a_fleet_that_serves_takes_its_share_little_by_little() {
    let ramping = Config {
        ramp_ns: 10 * S,
        ..config()
    };
    let health = |drive: &Drive, replica: u32| {
        let slot = drive.router.fleet.slot(ReplicaId(replica)).unwrap();
        let member = drive.router.fleet.member(slot).unwrap();
        member.replica().health.ramp(&ramping, drive.now)
    };
    let mut drive = Drive::new(ramping.clone(), 3);
    for replica in 0..3 {
        assert_eq!(health(&drive, replica), None, "all start together");
    }
    drive.now += 20 * S;
    for replica in 0..3 {
        drive.observe(replica, idle());
    }
    drive.set_replicas(0..5);
    drive.observe(3, idle());
    drive.set_models(3, &["m"]);
    assert!(health(&drive, 3).is_some());
    drive.observe(4, idle());
    drive.set_models(4, &["n"]);
    assert_eq!(health(&drive, 4), None, "nobody else has its model");
    drive.set_models(3, &["m", "n"]);
    drive.now += 10 * S;
    assert_eq!(health(&drive, 3), None);
    // Models may be known before the first probe is answered.
    drive.set_replicas(0..7);
    drive.set_models(5, &["m"]);
    drive.observe(5, idle());
    assert!(health(&drive, 5).is_some());
    // It was listed late, or anew, and serves others already.
    let served = Snapshot {
        tokens: Some(7),
        ..idle()
    };
    drive.observe(6, served);
    drive.set_models(6, &["m"]);
    assert_eq!(health(&drive, 6), None);
}
