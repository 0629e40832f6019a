//! Replicas that have been announced to end.

use super::*;
use crate::engine::requests::request::Given;

fn withdrawn(effects: &[Effect]) -> Vec<u64> {
    let withdrawn = effects.iter().filter_map(|effect| match effect {
        Effect::Withdraw(id) => Some(id.0),
        _ => None,
    });
    withdrawn.collect()
}

/// Two replicas; request 1 is at the one that is returned, and ends in so many seconds.
fn announced(seconds: u64) -> (Drive, u32) {
    let mut drive = Drive::new(config(), 2);
    let (_, replica, _) = pushed(&drive.submit("m"));
    drive.drain(replica, true);
    let leave = Some(Leave::Ends(drive.now + seconds * S));
    assert_eq!(drive.notice(replica, leave), []);
    (drive, replica)
}

impl Drive {
    fn notice(&mut self, replica: u32, leave: Option<Leave>) -> Vec<Effect> {
        self.call(|router, now, out| router.set_notice(ReplicaId(replica), leave, now, out))
    }

    /// Lets a second pass, with everybody probed.
    fn second(&mut self) -> Vec<u64> {
        for replica in 0..2 {
            self.observe(replica, load(1, 0));
        }
        withdrawn(&self.tick_at(self.now + S))
    }
}

#[test]
fn what_has_not_begun_leaves_in_time_and_once() {
    let (mut drive, replica) = announced(120);
    let gone = (1..=130).filter(|_| !drive.second().is_empty());
    assert_eq!(gone.collect::<Vec<_>>(), [110], "10 s before the end");
    let (id, at, attempt) = pushed(&drive.retry(1, Failure::Withdrawn, true));
    assert_eq!((id, at, attempt), (1, 1 - replica, 2));
    assert_eq!(drive.counter("left_on_notice"), 1);
}

#[test]
fn a_short_notice_leaves_a_quarter_of_itself() {
    let (mut drive, _) = announced(8);
    let gone = (1..=10).find(|_| !drive.second().is_empty());
    assert_eq!(gone, Some(6));
    assert!(drive.router.next_deadline_ns().is_some());
}

#[test]
fn a_stream_leaves_only_if_it_can_go_on_elsewhere() {
    for continues in [false, true] {
        let (mut drive, _) = announced(8);
        drive.first_byte(1);
        if let Some(request) = drive.router.requests.get_mut(RequestId(1)) {
            request.continues = continues;
        }
        let gone = (1..=10).find(|_| !drive.second().is_empty());
        assert_eq!(gone, continues.then_some(6));
    }
}

#[test]
fn nothing_leaves_where_nobody_else_serves_it_or_the_notice_is_taken_back() {
    let (mut drive, replica) = announced(8);
    drive.drain(1 - replica, true);
    assert!((1..=10).all(|_| drive.second().is_empty()));
    let (mut drive, replica) = announced(8);
    drive.notice(replica, None);
    drive.drain(replica, false);
    assert!((1..=10).all(|_| drive.second().is_empty()));
    // A moment that has passed is now.
    let leave = Some(Leave::Ends(drive.now));
    assert_eq!(withdrawn(&drive.notice(replica, leave)), [1]);
}

#[test]
fn what_cannot_leave_at_one_moment_leaves_at_a_later_one() {
    let (mut drive, replica) = announced(8);
    drive.first_byte(1);
    assert!((1..=7).all(|_| drive.second().is_empty()));
    // Its driver says no at first: it is asked again, until it reports that the stream has broken.
    drive
        .router
        .requests
        .get_mut(RequestId(1))
        .unwrap()
        .continues = true;
    assert_eq!(drive.second(), [1]);
    assert_eq!(drive.second(), [1]);
    assert_eq!(drive.counter("left_on_notice"), 1, "counted once");
    // What has no first byte is given up at once: it is asked once.
    drive.set_replicas(0..2);
    drive.drain(replica, false);
    drive.drain(1 - replica, true);
    let (id, at, _) = pushed(&drive.submit("m"));
    assert_eq!((id, at), (2, replica), "it arrives after the cut");
    drive.drain(replica, true);
    drive.drain(1 - replica, false);
    assert_eq!(drive.second(), [1, 2]);
    assert_eq!(drive.second(), [1]);
}

/// Three streams run at one of two replicas, which is to be empty now; the other one has room for one.
fn to_be_empty() -> (Drive, u32) {
    to_be_empty_under(config())
}

fn to_be_empty_under(config: Config) -> (Drive, u32) {
    let mut drive = Drive::new(config, 2);
    drive.drain(1, true);
    for id in 1..=3 {
        assert_eq!(pushed(&drive.submit("m")).1, 0);
        drive.first_byte(id);
        drive.observe(0, idle());
        drive
            .router
            .requests
            .get_mut(RequestId(id))
            .unwrap()
            .continues = true;
    }
    drive.drain(0, true);
    drive.drain(1, false);
    drive.observe(1, idle());
    (drive, 0)
}

#[test]
fn one_leaves_at_each_look_for_each_replica_that_has_room() {
    let config = Config {
        allowance: AllowanceRule::Probed,
        ..config()
    };
    let (mut drive, replica) = to_be_empty_under(config.clone());
    let other = drive.router.fleet.member(1_u32.into()).unwrap();
    assert!(other.free(&config, drive.now) >= 3);
    let leave = Some(Leave::Empties(drive.now));
    assert_eq!(
        withdrawn(&drive.notice(replica, leave)),
        [1, 2],
        "and one more waits"
    );
}

#[test]
fn a_replica_that_is_drained_within_a_time_is_left_as_others_have_room() {
    let (mut drive, replica) = to_be_empty();
    let room = drive.router.fleet.member(1_u32.into()).unwrap();
    let free = room.free(&config(), drive.now) as usize;
    let leave = Some(Leave::Empties(drive.now));
    let left = withdrawn(&drive.notice(replica, leave));
    assert_eq!(
        left,
        (1..=3).take(free + 1).collect::<Vec<u64>>(),
        "one more waits"
    );
    // One of them found no place yet: nobody else leaves before it has one.
    drive.observe(1, load(9, 9));
    let given = Report::default();
    let held = drive.call(|router, now, out| {
        router.resume(RequestId(1), Failure::Withdrawn, &given, now, out);
    });
    assert_eq!(held, [hold(1)]);
    let later = drive.now + S;
    assert_eq!(
        withdrawn(&drive.tick_at(later)),
        (2..=free as u64 + 1).collect::<Vec<_>>(),
        "only those that were asked before"
    );
}

#[test]
fn a_stream_that_its_driver_cannot_let_go_does_not_hold_up_those_behind_it() {
    let (mut drive, replica) = to_be_empty();
    drive.observe(1, load(9, 9));
    let leave = Some(Leave::Empties(drive.now));
    assert_eq!(withdrawn(&drive.notice(replica, leave)), [1]);
    for left in [vec![1, 2], vec![1, 2, 3], vec![1, 2, 3]] {
        assert_eq!(withdrawn(&drive.tick_at(drive.now + S)), left);
    }
    assert_eq!(drive.counter("left_on_notice"), 3);
}

#[test]
fn a_stream_of_another_model_that_waits_holds_up_nobody() {
    let (mut drive, replica) = to_be_empty();
    for replica in 0..2 {
        drive.set_models(replica, &["m", "n"]);
    }
    drive.observe(1, load(9, 9));
    assert_eq!(drive.submit("n"), [hold(4)]);
    let request = drive.router.requests.get_mut(RequestId(4)).unwrap();
    request.given = Some(Given {
        cut: true,
        continuations: 1,
        usage: Usage::default(),
        events: 1,
    });
    let leave = Some(Leave::Empties(drive.now));
    assert_eq!(withdrawn(&drive.notice(replica, leave)), [1]);
}
