//! Requests of other balancers of the region at our replicas.

use super::Fleet;
use super::replica::{Own, Split};
use crate::engine::config::Config;
use crate::id::{PeerId, ReplicaSlot, RequestId};
use crate::time::Instant;

impl Fleet {
    /// Forgets a peer's requests, all but those that `keep` names.
    pub(in crate::engine) fn keep_theirs(
        &mut self,
        peer: PeerId,
        keep: impl Fn(ReplicaSlot, RequestId) -> bool,
    ) {
        for slot in self.all_slots() {
            let theirs = self
                .member(slot)
                .map_or(0, |member| member.replica.theirs());
            if let Some(member) = self.member_mut_if(slot, theirs > 0) {
                member.replica.forget_theirs(peer, |id| keep(slot, id));
            }
        }
    }

    /// Requests of another balancer were pushed to a replica.
    pub(in crate::engine) fn push_theirs(
        &mut self,
        slot: ReplicaSlot,
        pushed: Vec<Own>,
        config: &Config,
        now: Instant,
    ) {
        if let Some(member) = self.member_mut(slot) {
            for own in pushed {
                member.replica.push_theirs(own, config, now);
            }
        }
    }

    /// One of them got its first byte.
    pub(in crate::engine) fn first_byte_theirs(
        &mut self,
        slot: ReplicaSlot,
        id: RequestId,
        at_ns: Instant,
    ) {
        if let Some(member) = self.member_mut(slot) {
            member.replica.first_byte(id, at_ns);
        }
    }

    /// Some of them have ended.
    pub(in crate::engine) fn complete_theirs(
        &mut self,
        slot: ReplicaSlot,
        ended: impl ExactSizeIterator<Item = RequestId>,
    ) {
        if let Some(member) = self.member_mut_if(slot, ended.len() > 0) {
            for id in ended {
                member.replica.complete_theirs(id);
            }
        }
    }

    /// How a replica's room is divided.
    pub(in crate::engine) fn split(&self, slot: ReplicaSlot) -> Option<Split> {
        self.member(slot).map(|member| member.replica.split())
    }

    pub(in crate::engine) fn set_split(&mut self, slot: ReplicaSlot, split: Split) {
        if let Some(member) = self.member_mut(slot) {
            member.replica.set_split(split);
        }
    }

    /// Notes since when there has been room for somebody at a replica that is shared.
    pub(in crate::engine) fn note_open(
        &mut self,
        slot: ReplicaSlot,
        config: &Config,
        now: Instant,
    ) {
        let member = self.member(slot);
        let moves = member.is_some_and(|member| member.replica.opens_or_closes(config));
        if let Some(member) = self.member_mut_if(slot, moves) {
            member.replica.note_open(config, now);
        }
    }
}
