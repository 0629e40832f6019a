//! What must hold of replicas that balancers of one region share.
//!
//! | invariant | checked |
//! |---|---|
//! | `one_waits_per_balancer`: Before a push, at most one request waits in a replica for each balancer that shares it. Only requests count that were pushed while all balancers had reported within a turn's time. | under the paper's rule, at each push |
//! | `turns_do_not_cross`: Take two balancers that have reported held requests to each other, and have received from each other within a turn's time. Both know of the last push there before, which did not cross another. Neither pushes into room that the other has just taken. | the same |
//! | `turns_pass`: No request waits longer than a second where there is room, or than it takes to give up a balancer that is gone. | the same, once a second |
//! | `nothing_crosses_to_shared_replicas`: Nothing is forwarded within a region between balancers that have known each other for as long as a grant is believed. | the same, at each forward |
//! | `the_dead_take_no_room`: What a balancer reported is forgotten when it has been gone for long. | once a second |
//! | `what_was_told_has_ended`: When nothing is under way, nothing is counted for others. | when all is quiet |
//!
//! The first three are checked while the replicas, and the network between them and balancers, are sound.
//! Balancers may die meanwhile, and be cut off from each other.

use super::live::{Live, Pushed};
use super::region::rooms::FORGOTTEN_NS;
use super::simulator::Simulator;
use crate::engine::effect::Push;
use crate::engine::fleet::replica::TURN_NS;
use crate::engine::mesh::peer::AGE_NS_MAX;
use crate::id::{Nanos, PeerId, RequestId};

impl Simulator {
    /// It waits in its replica, or is on its way there.
    fn is_pending(&self, id: RequestId, live: &Live) -> bool {
        let Some(replica) = live.replica else {
            return false;
        };
        let coming = !live.at_replica && live.token_ns <= live.pushed_ns;
        coming || self.replicas[replica as usize].model().is_unscheduled(id)
    }

    /// Who else has told this balancer that it holds something for the replica.
    pub(super) fn wishes_known(&self, balancer: u32, replica: u32) -> u64 {
        let peers = self.sharing.peers.get(balancer as usize);
        let known = peers.into_iter().flatten().filter(|peer| {
            self.sharing.hears(balancer, **peer)
                && self.sharing.knows_wish(balancer, **peer, replica)
        });
        known.fold(0, |mask, peer| mask | bit(*peer))
    }

    /// What a balancer knows of a peer of its region is no older than a turn.
    fn reported_lately(&self, at: u32, of: u32) -> bool {
        let told_ns = self.sharing.told_ns(at, of);
        told_ns.is_some_and(|at_ns| self.queue.now_ns() < at_ns + TURN_NS.ns())
    }

    /// The peers of its region of which it knows so much.
    pub(super) fn lately_reported(&self, at: u32) -> u64 {
        let peers = self.sharing.peers.get(at as usize).into_iter().flatten();
        let lately = peers.filter(|of| self.reported_lately(at, **of));
        lately.fold(0, |mask, of| mask | bit(*of))
    }

    /// These are all of them: what it pushed then is counted exactly.
    fn are_all(&self, at: u32, reported: u64) -> bool {
        let mut peers = self.sharing.peers[at as usize].iter();
        peers.all(|of| reported & bit(*of) != 0)
    }

    /// It made that push, or has been told of it.
    pub(super) fn knows_push(&self, at: u32, push: Option<Pushed>) -> bool {
        push.is_none_or(|push| push.by == at || self.sharing.knows_of(at, push.by, push.at_ns))
    }

    /// Since when there has been room at a replica, as it is.
    pub(super) fn room_since_ns(&self, replica: u32) -> Option<Nanos> {
        self.rooms.since_ns.get(replica as usize).copied().flatten()
    }

    /// A balancer is about to forward to one of its own region.
    pub(super) fn check_neighbour(&self, at: u32, of: u32, id: RequestId) -> Result<(), String> {
        let now_ns = self.queue.now_ns();
        let known_ns = self.sharing.known_ns(at, of);
        let known =
            known_ns.is_some_and(|since_ns| now_ns > since_ns + (AGE_NS_MAX + TURN_NS).ns());
        if known && self.rooms.exact {
            return Err(format!("nothing_crosses_to_shared_replicas: {id:?}"));
        }
        Ok(())
    }

    /// A balancer is about to push.
    pub(super) fn check_room(&self, balancer: u32, push: &Push) -> Result<(), String> {
        if !self.rooms.exact || !self.shares() {
            return Ok(());
        }
        let number = push.replica.0;
        let pending: Vec<_> = self
            .live
            .iter()
            .filter(|(id, live)| live.replica == Some(number) && *id != push.request)
            .filter(|(id, live)| self.is_pending(*id, live))
            .map(|(_, live)| live)
            .collect();
        let now_ns = self.queue.now_ns();
        let reported = self.lately_reported(balancer);
        let sharers = self.sharing.peers[balancer as usize].len() + 1;
        let exact = pending
            .iter()
            .filter(|other| self.are_all(other.decider(), other.reported))
            .count();
        if self.are_all(balancer, reported) && exact > sharers {
            return Err(format!(
                "one_waits_per_balancer: {exact} at {:?}, which {sharers} share",
                push.replica
            ));
        }
        let known = self.wishes_known(balancer, number);
        let crossed = pending.into_iter().find(|other| {
            let of = other.decider();
            let told = self.sharing.knows_of(balancer, of, other.pushed_ns);
            let both = known & bit(of) != 0 && other.wishes_known & bit(balancer) != 0;
            let opened = other
                .room_since_ns
                .is_some_and(|at_ns| now_ns < at_ns + TURN_NS.ns());
            let lately = reported & bit(of) != 0 && other.reported & bit(balancer) != 0;
            // Else they count turns from different pushes.
            let agree = other.in_turn
                && other.after.is_none_or(|push| push.in_turn)
                && self.knows_push(balancer, other.after);
            of != balancer && !told && both && opened && lately && agree
        });
        match crossed {
            None => Ok(()),
            Some(other) => Err(format!(
                "turns_do_not_cross: {balancer} and {} at {:?}",
                other.decider(),
                push.replica
            )),
        }
    }

    /// Takes note of who has room after an event.
    pub(super) fn note_rooms(&mut self) {
        let now_ns = self.queue.now_ns();
        for (since_ns, replica) in self.rooms.since_ns.iter_mut().zip(&self.replicas) {
            let free = replica.coming == 0 && replica.model().unscheduled() == 0;
            *since_ns = since_ns.or(Some(now_ns)).filter(|_| free);
        }
    }

    /// `wanted` is by replica: somebody holds a request that could go there.
    pub(super) fn check_shared(&mut self, wanted: &[bool]) -> Result<(), String> {
        let now_ns = self.queue.now_ns();
        for (number, wanted) in wanted.iter().enumerate().filter(|_| self.rooms.exact) {
            let room_ns = self.rooms.since_ns[number].filter(|_| *wanted);
            let stuck_ns = &mut self.rooms.stuck_ns[number];
            *stuck_ns = room_ns.map(|room_ns| stuck_ns.unwrap_or(now_ns).max(room_ns));
            let max_ns = self.rooms.stuck_max_ns;
            if stuck_ns.is_some_and(|since_ns| now_ns > since_ns + max_ns) {
                return Err(format!("turns_pass: nobody takes the room at {number}"));
            }
        }
        for (gone, since_ns) in (0_u32..).zip(&self.rooms.gone_ns) {
            let long = since_ns.is_some_and(|since_ns| now_ns > since_ns + FORGOTTEN_NS);
            for at in self.sharing.peers[gone as usize].iter().filter(|_| long) {
                let counted = self.balancers[*at as usize].counted_for(PeerId(gone));
                if counted > 0 {
                    return Err(format!(
                        "the_dead_take_no_room: {at} counts {counted} of {gone}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Nothing has been under way for a while: nothing is counted for anybody.
    #[cfg(test)]
    pub(super) fn check_quiet(&self) -> Result<(), String> {
        for (at, peers) in self.sharing.peers.iter().enumerate() {
            for of in peers {
                let counted = self.balancers[at].counted_for(PeerId(*of));
                if counted > 0 {
                    return Err(format!(
                        "what_was_told_has_ended: {at} counts {counted} of {of}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn bit(balancer: u32) -> u64 {
    1 << (balancer % 64)
}
