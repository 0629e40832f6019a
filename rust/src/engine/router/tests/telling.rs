//! Messages for peers: when each is sent, and which.

use super::*;
use crate::engine::effect::Message;
use crate::engine::mesh::region::message::Share as ShareMessage;
use crate::id::PeerId;

/// What `tick` does for one peer, without the clock.
impl Router {
    pub(super) fn digest_due(&mut self, peer: PeerId, now: Instant) -> bool {
        let now = self.advance(now);
        let (mesh, local) = self.local(now);
        mesh.hot_due(peer, &local)
    }

    pub(super) fn hot_digest(&mut self, peer: PeerId) -> Option<Vec<u8>> {
        let slot = self.mesh.slot(peer)?;
        let digest = self.mesh.hot_digest(slot, &self.config);
        self.counters.peer_digests_told += u64::from(digest.is_some());
        digest
    }

    pub(super) fn share(
        &mut self,
        peer: PeerId,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Option<Vec<u8>> {
        let now = self.advance(now);
        let slot = self.mesh.slot(peer);
        let (mesh, local) = self.local(now);
        let told = slot.and_then(|slot| mesh.share(slot, &local));
        for slot in self.mesh.review_splits(&mut self.fleet, now) {
            self.dispatch(slot, now, out);
        }
        told
    }

    pub(super) fn share_anew(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Effect>) {
        self.peer_connected(peer, &[], now, out);
    }
}

const NEAR: PeerId = PeerId(0);
const FAR: PeerId = PeerId(1);

/// A balancer with a peer in its region and one in another, both connected.
fn connected(kinds: &[Message]) -> Drive {
    let mut drive = Drive::new(config(), 2);
    drive.router.set_self("us", "us", 5);
    let peers = [
        Listing::new(NEAR, "us-2", "us"),
        Listing::new(FAR, "eu", "eu"),
    ];
    drive.call(|router, now, out| router.set_peers(&peers, now, out).unwrap());
    for peer in [NEAR, FAR] {
        drive.call(|router, now, out| router.peer_state(peer, Presence::Alive, now, out));
        drive.call(|router, now, out| router.peer_connected(peer, kinds, now, out));
    }
    drive
}

/// Lets time pass as a driver does, and returns what was told, each with its time.
fn run(drive: &mut Drive, for_ns: Span, written: bool) -> Vec<(Instant, PeerId, Message)> {
    let until_ns = drive.now + for_ns;
    let mut told = Vec::new();
    while let Some(at_ns) = drive
        .router
        .next_deadline_ns()
        .filter(|at_ns| *at_ns < until_ns)
    {
        let now = at_ns.max(drive.now);
        drive.tick_at(now);
        for replica in std::mem::take(&mut drive.probes) {
            drive.observe(replica, idle());
        }
        for tell in std::mem::take(&mut drive.tells) {
            if written {
                drive.router.written(tell.peer, tell.kind);
            }
            told.push((now, tell.peer, tell.kind));
        }
    }
    told
}

#[test]
fn a_peer_gets_the_kinds_that_its_connection_takes_and_nothing_without_one() {
    let mut drive = connected(&[Message::Summary]);
    let told = run(&mut drive, S, true);
    assert!(told.iter().any(|(_, peer, _)| *peer == NEAR));
    assert!(told.iter().any(|(_, peer, _)| *peer == FAR));
    assert!(told.iter().all(|(.., kind)| *kind == Message::Summary));
    drive.router.peer_disconnected(NEAR);
    assert!(
        run(&mut drive, 2 * S, true)
            .iter()
            .all(|(_, peer, _)| *peer == FAR)
    );
    drive.router.peer_disconnected(FAR);
    assert_eq!(run(&mut drive, 2 * S, true), []);
}

#[test]
fn one_message_of_each_kind_is_outstanding_however_slow_the_connection() {
    let mut drive = connected(&Message::ALL);
    let told = run(&mut drive, 10 * S, false);
    let of = |wanted: Message| {
        let mut peers: Vec<_> = told
            .iter()
            .filter(|(.., kind)| *kind == wanted)
            .map(|(_, peer, _)| *peer)
            .collect();
        peers.sort_unstable();
        peers
    };
    assert_eq!(of(Message::Summary), [NEAR, FAR]);
    assert_eq!(of(Message::Share), [NEAR]);
    drive.router.written(FAR, Message::Summary);
    let told = run(&mut drive, S, false);
    let peers: Vec<_> = told.iter().map(|(_, peer, kind)| (*peer, *kind)).collect();
    assert_eq!(peers, [(FAR, Message::Summary)]);
}

#[test]
fn the_next_look_comes_sooner_while_there_are_requests() {
    let mut drive = connected(&Message::ALL);
    run(&mut drive, S, true);
    let mesh = &drive.router.mesh;
    let (busy_ns, idle_ns) = (mesh.next_tell_ns(true), mesh.next_tell_ns(false));
    assert!(busy_ns < idle_ns, "{busy_ns:?} {idle_ns:?}");
}

#[test]
fn what_is_told_can_be_read() {
    let mut drive = connected(&Message::ALL);
    let deadline_ns = drive.router.next_deadline_ns().unwrap();
    drive.tick_at(deadline_ns.max(drive.now));
    let share = drive
        .tells
        .iter()
        .find(|tell| tell.kind == Message::Share)
        .unwrap();
    assert!(ShareMessage::decode(&share.payload).is_ok());
}
