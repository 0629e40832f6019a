//! Replicas that have been announced to end.

use super::*;

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
    let at_ns = Some(drive.now + seconds * S);
    assert_eq!(drive.notice(replica, at_ns), []);
    (drive, replica)
}

impl Drive {
    fn notice(&mut self, replica: u32, at_ns: Option<Instant>) -> Vec<Effect> {
        self.call(|router, now, out| router.set_notice(ReplicaId(replica), at_ns, now, out))
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
    let at_ns = Some(drive.now);
    assert_eq!(withdrawn(&drive.notice(replica, at_ns)), [1]);
}
